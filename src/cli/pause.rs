//! `evenkeel pause` and `evenkeel unpause`: freezes the processes of containers and lets them go on.

use clap::Args;

use super::context::Context;
use super::each::{Names, each, remark_drift};
use super::failure::{Exit, Failure};
use super::kill::running;
use super::output::Output;

#[derive(Debug, Args)]
pub struct PauseArguments {
    #[command(flatten)]
    pub names: Names,
}

pub fn pause(arguments: &PauseArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let chosen = arguments.names.read(context)?;
    each(chosen, output, |record| {
        let cannot = |error| Failure::monitor(error).context(format!("cannot pause `{}`", record.full_name()));
        running(record, context)?.pause().map_err(cannot)?;
        remark_drift(record, "lets it go on", output);
        Ok(())
    })
}

pub fn unpause(arguments: &PauseArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let chosen = arguments.names.read(context)?;
    each(chosen, output, |record| {
        let cannot = |error| Failure::monitor(error).context(format!("cannot unpause `{}`", record.full_name()));
        running(record, context)?.resume().map_err(cannot)
    })
}
