//! `list`: the containers of this root.

use clap::{Args, ValueEnum};

use super::state::{Shown, show};
use super::store::Store;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::table::Table;

#[derive(Debug, Args)]
pub struct ListArguments {
    /// As a table or as JSON
    #[arg(short, long, value_enum, default_value = "table")]
    format: Format,

    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

pub fn run(arguments: &ListArguments, store: &Store, output: &Output) -> Result<Exit, Failure> {
    let ids = store.ids()?;
    if arguments.quiet {
        output.text(&ids.iter().map(|id| format!("{id}\n")).collect::<String>())?;
        return Ok(Exit::Done);
    }
    // One that was removed meanwhile is not there.
    let containers: Vec<Shown> =
        ids.iter().filter_map(|id| store.look(id).ok()).map(show).collect::<Result<_, Failure>>()?;
    match arguments.format {
        Format::Json => output.line(&containers)?,
        Format::Table => {
            let mut table = Table::new(&["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
            for shown in containers {
                let (pid, bundle) = (shown.pid.to_string(), shown.bundle.display().to_string());
                table.row(vec![shown.id, pid, shown.status.name().to_owned(), bundle, shown.created, shown.owner]);
            }
            output.text(&table.render())?;
        }
    }
    Ok(Exit::Done)
}
