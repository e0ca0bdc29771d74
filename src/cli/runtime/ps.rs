//! `ps ID`: the processes of a container.

use std::process::Command;

use clap::Args;

use super::list::Format;
use super::log::failure;
use super::store::Store;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;

#[derive(Debug, Args)]
pub struct PsArguments {
    /// The container's id
    #[arg(value_name = "ID")]
    id: String,

    /// As a table, or their numbers as JSON
    #[arg(short, long, value_enum, default_value = "table")]
    format: Format,

    /// Options for the host's ps, whose lines are shown [default: -ef]
    #[arg(value_name = "OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

pub fn run(arguments: &PsArguments, store: &Store, output: &Output) -> Result<Exit, Failure> {
    let container = store.look(&arguments.id)?;
    let processes = container.cgroup()?.map_or(Ok(Vec::new()), |cgroup| cgroup.processes()).map_err(failure)?;
    let mut pids: Vec<i32> = processes.iter().map(|pid| pid.as_raw_nonzero().get()).collect();
    pids.sort_unstable();
    match arguments.format {
        Format::Json => output.line(&pids)?,
        Format::Table => output.text(&table(&arguments.options, &pids)?)?,
    }
    Ok(Exit::Done)
}

/// The header of what `ps` says, and its lines about those processes.
fn table(options: &[String], pids: &[i32]) -> Result<String, Failure> {
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() { &default[..] } else { options };
    let cannot = |failure: Failure| failure.context("cannot execute `ps` of the host");
    let said = Command::new("ps").args(options).output().map_err(|error| cannot(error.into()))?;
    if !said.status.success() {
        return Err(cannot(Failure::new(String::from_utf8_lossy(&said.stderr).trim())));
    }
    let text = String::from_utf8_lossy(&said.stdout);
    select(&text, pids).ok_or_else(|| cannot(Failure::new("it says no column `PID` with these options")))
}

fn select(text: &str, pids: &[i32]) -> Option<String> {
    let mut lines = text.lines();
    let header = lines.next()?;
    let column = header.split_whitespace().position(|title| title == "PID")?;
    let is_ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    Some(std::iter::once(header).chain(lines.filter(is_ours)).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_the_column_of_the_pid() {
        let text = "UID   PID  PPID CMD\nroot    7     1 a 8\nroot    8     7 b\n";
        assert_eq!(select(text, &[8]).unwrap(), "UID   PID  PPID CMD\nroot    8     7 b\n");
        assert!(select("CMD\na\n", &[8]).is_none());
    }
}
