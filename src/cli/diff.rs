//! `evenkeel diff`: what a container changed in its image's files.

use clap::Args;

use super::context::Context;
use super::each;
use super::failure::{Exit, Failure};
use super::output::{Format, Output};
use crate::engine::{Change, ChangeKind};
use crate::model::foreign::tamed_line;

#[derive(Debug, Args)]
pub struct DiffArguments {
    /// NAME, NAME.REPLICA, PROJECT/NAME or the beginning of an id
    name: String,
}

pub fn run(arguments: &DiffArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let record = each::one(&arguments.name, context)?;
    let changes = context.host()?.changes(&record).map_err(Failure::engine)?;
    match output.format() {
        Format::Json => output.document(&changes)?,
        Format::Text => {
            let letter = |kind| match kind {
                ChangeKind::Added => 'A',
                ChangeKind::Changed => 'C',
                ChangeKind::Deleted => 'D',
            };
            // The container gave them their names.
            let path = |change: &Change| tamed_line(&change.path.to_string_lossy());
            let line = |change: &Change| format!("{} {}\n", letter(change.kind), path(change));
            output.text(&changes.iter().map(line).collect::<String>())?;
        }
    }
    Ok(Exit::Done)
}
