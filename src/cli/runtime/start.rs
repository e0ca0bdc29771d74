//! `start ID`: the command of a created container.

use oci_spec::runtime::Hooks;
use rustix::process::Pid;

use super::arguments::ContainerArguments;
use super::death;
use super::log::{Log, failure};
use super::store::{Container, Status, Store};
use crate::cli::failure::{Exit, Failure};
use crate::runtime::hooks::{self, Moment};
use crate::runtime::{RuntimeError, gate};

pub fn run(arguments: &ContainerArguments, store: &Store, log: &Log) -> Result<Exit, Failure> {
    let container = store.take(&arguments.id)?;
    container.require("start", &[Status::Created])?;
    let hooks = container.hooks()?;
    let hooks = hooks.as_ref();
    let Some(pid) = container.live_process() else { return Err(Failure::new("container not running")) };
    if let Err(error) = gate::open(&container.directory, pid) {
        return Err(fail(error, &container, hooks, log));
    }
    container.remove_gate()?;
    log.debug(&format!("started the container `{}`", arguments.id));
    finish(&container, hooks, Some(pid), log)?;
    Ok(Exit::Done)
}

/// What a command that was not executed leaves: nothing, where a hook was the reason (runtime.md, "Lifecycle", step 7);
/// else a container that is stopped.
pub fn fail(error: RuntimeError, container: &Container, hooks: Option<&Hooks>, log: &Log) -> Failure {
    match error {
        RuntimeError::Hook { .. } => death::bury(container, hooks, log),
        _ => {
            if let Err(failure) = death::end_processes(container) {
                log.warn(&failure.line());
            }
        }
    }
    failure(error).context(format!("cannot start the container `{}`", container.record.id))
}

/// The poststart hooks, the last part of a start; the container does not outlive one that fails (step 9).
pub fn finish(container: &Container, hooks: Option<&Hooks>, pid: Option<Pid>, log: &Log) -> Result<(), Failure> {
    hooks::run(hooks, Moment::Poststart, &container.state()?, pid).map_err(|error| {
        death::bury(container, hooks, log);
        failure(error).context(format!("the container `{}` was started and ended", container.record.id))
    })
}
