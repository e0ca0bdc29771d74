//! `evenkeel kill`: a signal to the first process of containers.
//!
//! # Decisions
//! SIGKILL is a stop without a grace period, as with Docker: the restart policy does not bring back what somebody
//! killed, and of a declared container the next plan says that it was stopped by hand.

use clap::Args;

use super::context::Context;
use super::each::{Names, each, remark_drift};
use super::failure::{Exit, Failure};
use super::inventory::liveness;
use super::output::Output;
use super::stop::{Manner, stop};
use crate::model::actual::Liveness;
use crate::model::record::ContainerRecord;
use crate::model::status::Phase;
use crate::model::units::Signal;
use crate::monitor::MonitorError;
use crate::monitor::client::Client;

#[derive(Debug, Args)]
pub struct KillArguments {
    #[command(flatten)]
    pub names: Names,

    /// Which one: a name or a number
    #[arg(short, long, default_value = "SIGKILL")]
    signal: Signal,
}

pub fn run(arguments: &KillArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let chosen = arguments.names.read(context)?;
    each(chosen, output, |record| {
        kill(record, arguments.signal, context)?;
        if arguments.signal == Signal::KILL {
            remark_drift(record, "starts it again", output);
        }
        Ok(())
    })
}

fn kill(record: &ContainerRecord, signal: Signal, context: &Context) -> Result<(), Failure> {
    let client = running(record, context)?;
    if signal == Signal::KILL {
        drop(client);
        return stop(record, Manner::KILL, context, None);
    }
    let cannot = |error| Failure::monitor(error).context(format!("cannot signal container `{}`", record.full_name()));
    client.kill(signal).map_err(cannot)
}

/// Frozen processes neither speak nor listen.
pub fn ensure_not_paused(record: &ContainerRecord, context: &Context) -> Result<(), Failure> {
    match liveness(&context.paths, record).map_err(Failure::engine)? {
        Liveness::Monitored(status) if status.phase == Phase::Paused => {
            let name = record.full_name();
            Err(Failure::new(format!("container `{name}` is paused"))
                .hint(format!("`evenkeel unpause {name}` lets it go on")))
        }
        Liveness::Absent | Liveness::Lost(_) | Liveness::Monitored(_) | Liveness::Ended(_) => Ok(()),
    }
}

/// The monitor of a container that runs.
pub fn running(record: &ContainerRecord, context: &Context) -> Result<Client, Failure> {
    Client::connect_as(&context.paths.container_run(&record.id), Some(&context.who)).map_err(|error| {
        let failure = match &error {
            MonitorError::NotRunning { .. } => Failure::new(format!("container `{}` does not run", record.full_name())),
            _ => Failure::monitor(error).context(format!("cannot reach container `{}`", record.full_name())),
        };
        failure.hint("see `evenkeel ps`")
    })
}
