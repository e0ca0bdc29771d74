//! `ps ID`: the processes of a container.

use clap::Args;

use super::list::Format;
use super::log::failure;
use super::store::Store;
use crate::cli::failure::{Exit, Failure};
use crate::cli::host_ps;
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
        Format::Table => {
            let default = ["-ef".to_owned()];
            let options = if arguments.options.is_empty() { &default[..] } else { &arguments.options };
            output.text(&host_ps::list(options, &pids.into_iter().collect())?.text())?;
        }
    }
    Ok(Exit::Done)
}
