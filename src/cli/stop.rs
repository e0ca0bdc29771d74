//! `evenkeel stop`: ends containers and leaves them there. For a declared one that is drift, and the next plan says so.

use clap::Args;

use super::apply::Session;
use super::by_hand::PATIENCE;
use super::context::Context;
use super::each::{Names, each, remark_drift};
use super::failure::{Exit, Failure};
use super::inventory::liveness;
use super::output::Output;
use crate::engine::Engine;
use crate::engine::lock::Lock;
use crate::model::action::Action;
use crate::model::actual::Liveness;
use crate::model::record::ContainerRecord;
use crate::model::units::{Signal, Timespan};
use crate::monitor::client::stop_if_running;

#[derive(Debug, Args)]
pub struct StopArguments {
    #[command(flatten)]
    pub names: Names,

    #[command(flatten)]
    manner: Manner,
}

// How a container is asked to end.
#[derive(Debug, Clone, Copy, Args)]
pub struct Manner {
    /// The signal that asks it to end [default: its own]
    #[arg(short, long)]
    pub signal: Option<Signal>,

    /// Seconds until it is killed [default: its own]
    #[arg(short = 't', long = "timeout", visible_alias = "time", value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

impl Manner {
    /// At once.
    pub const KILL: Manner = Manner { signal: Some(Signal::KILL), timeout: Some(1) };

    pub fn is_default(&self) -> bool {
        self.signal.is_none() && self.timeout.is_none()
    }
}

pub fn run(arguments: &StopArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let chosen = arguments.names.read(context)?;
    each(chosen, output, |record| {
        stop(record, arguments.manner, context, None)?;
        remark_drift(record, "starts it again", output);
        Ok(())
    })
}

/// It has ended and its monitor too. One that does not run is as it should be. `held` is the state root's lock, where the
/// caller has it.
pub fn stop(record: &ContainerRecord, manner: Manner, context: &Context, held: Option<&Lock>) -> Result<(), Failure> {
    let directory = context.paths.container_run(&record.id);
    let cannot = |error| Failure::monitor(error).context(format!("cannot stop container `{}`", record.full_name()));
    match liveness(&context.paths, record).map_err(Failure::engine)? {
        Liveness::Absent | Liveness::Ended(_) => Ok(()),
        Liveness::Monitored(_) => {
            let grace = manner.timeout.map(Timespan::from_secs);
            stop_if_running(&directory, manner.signal, grace, Some(&context.who)).map(drop).map_err(cannot)
        }
        // Nobody is there to be asked: the engine ends what is left. Not while somebody else starts it again.
        Liveness::Lost(_) => {
            let session = Session::open(context)?;
            let _lock = match held {
                Some(_) => None,
                None => Some(session.host.lock(PATIENCE).map_err(Failure::engine)?),
            };
            let action = Action::StopContainer { id: record.id.clone() };
            session.host.perform(&action).map_err(Failure::engine)
        }
    }
}
