//! `kill ID [SIGNAL]`: a signal to the first process, or to all.
//!
//! It takes no lock: a container whose hooks hang can be ended.

use clap::Args;
use rustix::process::{Pid, Signal as RustixSignal};

use super::log::failure;
use super::store::{Container, Status, Store};
use crate::cli::failure::{Exit, Failure};
use crate::model::units::Signal;
use crate::sys;

#[derive(Debug, Args)]
pub struct KillArguments {
    /// The container's id
    #[arg(value_name = "ID")]
    id: String,

    /// A signal by name or number
    #[arg(value_name = "SIGNAL", default_value = "SIGTERM")]
    signal: Signal,

    /// Send it to every process of the container
    #[arg(short, long)]
    all: bool,
}

pub fn run(arguments: &KillArguments, store: &Store) -> Result<Exit, Failure> {
    let container = store.look(&arguments.id)?;
    let status = container.status()?;
    match (arguments.all, container.live_process()) {
        // Processes may have outlived the first.
        (true, _) => send_to_all(&container, arguments.signal)?,
        (false, Some(pid)) if status != Status::Creating => send(pid, arguments.signal, &container)?,
        _ => {
            // containerd looks for these words.
            let failure = Failure::new("container not running");
            return Err(failure.context(format!("cannot kill `{}`, which is {}", arguments.id, status.name())));
        }
    }
    // What is frozen takes no notice of a signal, in version 1 not even of this one.
    if arguments.signal == Signal::KILL && status == Status::Paused {
        container.cgroup()?.map_or(Ok(()), |cgroup| cgroup.thaw()).map_err(failure)?;
    }
    Ok(Exit::Done)
}

fn send(pid: Pid, signal: Signal, container: &Container) -> Result<(), Failure> {
    let cannot = |failure: Failure| failure.context(format!("cannot kill `{}`", container.record.id));
    let process = crate::runtime::launch::open_process(pid).map_err(|error| cannot(failure(error)))?;
    // By the descriptor, where the signal has a name: between the look and the kill the number may become another's.
    match RustixSignal::from_named_raw(signal.number()) {
        Some(signal) => rustix::process::pidfd_send_signal(&process, signal).map_err(|errno| cannot(errno.into())),
        None => sys::kill::kill(pid, signal.number()).map_err(|error| cannot(error.into())),
    }
}

fn send_to_all(container: &Container, signal: Signal) -> Result<(), Failure> {
    let Some(cgroup) = container.cgroup()? else { return Ok(()) };
    if signal == Signal::KILL {
        return cgroup.kill().map_err(failure);
    }
    for pid in cgroup.processes().map_err(failure)? {
        match sys::kill::kill(pid, signal.number()) {
            // It ended by itself.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            other => other.map_err(|error| Failure::from(error).context(format!("cannot signal the process {pid}")))?,
        }
    }
    Ok(())
}
