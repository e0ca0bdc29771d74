//! `run ID`: `create` and `start`, and, unless it is detached, the wait for its end and `delete`.

use clap::Args;
use rustix::process::set_child_subreaper;

use super::birth::{self, Birth, CreateArguments, Starter};
use super::handover::{self, Attendance};
use super::log::Log;
use super::store::Store;
use super::{death, foreground, start};
use crate::cli::failure::{Exit, Failure};

#[derive(Debug, Args)]
pub struct RunArguments {
    #[command(flatten)]
    create: CreateArguments,

    /// Come back as soon as the command is executed
    #[arg(short, long)]
    detach: bool,

    /// Leave the container, stopped, when its command has ended
    #[arg(long)]
    keep: bool,

    /// Do not become the parent of processes whose own one ended, in a container without a pid namespace of its own
    #[arg(long)]
    no_subreaper: bool,
}

pub fn run(arguments: &RunArguments, store: &Store, log: &Log) -> Result<Exit, Failure> {
    let attendance = if arguments.detach { Attendance::Detached } else { Attendance::Attended };
    let handover = &arguments.create.handover;
    let birth = birth::create(&arguments.create, attendance, Starter::Us, (store, log))?;
    let Birth { container, spec, created } = birth;
    let hooks = spec.hooks().as_ref();
    if attendance == Attendance::Attended && !arguments.no_subreaper {
        set_child_subreaper(Some(rustix::process::getpid()))?;
    }
    let signals = foreground::watch(attendance)?;
    let process = created.start().map_err(|error| start::fail(error, &container, hooks, log))?;
    if let Err(failure) = handover::tell(process.terminal.as_ref(), process.pid, handover) {
        death::bury(&container, hooks, log);
        return Err(failure);
    }
    start::finish(&container, hooks, Some(process.pid), log)?;
    let Some(signals) = signals else { return Ok(Exit::Done) };
    // Others may change it while it runs; we come back for its end.
    let id = container.record.id.clone();
    drop(container);
    let exit = foreground::attend(process, &signals)?;
    if !arguments.keep
        && let Ok(container) = store.take(&id)
    {
        death::remove(&container)?;
        death::run_poststop(&container, hooks, log);
    }
    Ok(exit)
}
