//! `evenkeel restart`: stops containers and starts them again.

use clap::Args;

use super::apply::Session;
use super::by_hand;
use super::context::Context;
use super::each::{Names, each};
use super::failure::{Exit, Failure};
use super::inventory::liveness;
use super::output::Output;
use super::start::start;
use super::stop::{Manner, stop};
use crate::model::actual::Liveness;
use crate::model::record::ContainerRecord;
use crate::monitor::client::Client;

#[derive(Debug, Args)]
pub struct RestartArguments {
    #[command(flatten)]
    pub names: Names,

    #[command(flatten)]
    manner: Manner,
}

pub fn run(arguments: &RestartArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let chosen = arguments.names.read(context)?;
    each(chosen, output, |record| restart(record, arguments.manner, context, output))
}

/// A running container's own monitor does it, so that nothing of it but its process is touched.
fn restart(record: &ContainerRecord, manner: Manner, context: &Context, output: &Output) -> Result<(), Failure> {
    let directory = context.paths.container_run(&record.id);
    let runs = matches!(liveness(&context.paths, record).map_err(Failure::engine)?, Liveness::Monitored(_));
    if runs && manner.is_default() {
        let cannot = |error| Failure::monitor(error).context(format!("cannot restart `{}`", record.full_name()));
        let client = Client::connect_as(&directory, Some(&context.who));
        let status = client.and_then(|client| client.restart()).map_err(cannot)?;
        return match status.error {
            None => Ok(()),
            Some(error) => Err(Failure::new(error).context(format!("cannot restart `{}`", record.full_name()))),
        };
    }
    let session = Session::open(context)?;
    // Held over both, so that what is to be removed at its end is not removed between them.
    let lock = by_hand::lock(&session, output)?;
    stop(record, manner, context, Some(&lock))?;
    start(&session, record, output)
}
