//! `kill ID [SIGNAL]`: a signal to the first process, or to all.
//!
//! SIGKILL goes to all by itself where the container has no pid namespace of its own: nothing ends the others with the
//! first there, and they may have outlived it (runc-kill(8)).
//!
//! A container that is created has a process that waits for its start and catches nothing. As process 1 it would not even
//! hear a SIGTERM (pid_namespaces(7)), so what ends a process by default ends it by SIGKILL.
//!
//! It takes no lock: a container whose hooks hang can be ended.

use std::str::FromStr;

use clap::Args;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};
use rustix::process::{Pid, Signal as RustixSignal};

use super::log::failure;
use super::store::{Container, Status, Store};
use crate::cli::failure::{Exit, Failure};
use crate::model::units::{Signal, UnitError};
use crate::sys;

#[derive(Debug, Args)]
pub struct KillArguments {
    /// The container's id
    #[arg(value_name = "ID")]
    id: String,

    /// A signal by name or number; 0 asks only whether there is somebody to get one
    #[arg(value_name = "SIGNAL", default_value = "SIGTERM")]
    signal: Sent,

    /// Send it to every process of the container
    #[arg(short, long)]
    all: bool,
}

/// What kill(2) may be asked to send.
#[derive(Debug, Clone, Copy)]
enum Sent {
    Signal(Signal),
    /// 0: "no signal is sent, but existence and permission checks are still performed".
    Nothing,
}

impl FromStr for Sent {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Sent, UnitError> {
        if text == "0" { Ok(Sent::Nothing) } else { text.parse().map(Sent::Signal) }
    }
}

pub fn run(arguments: &KillArguments, store: &Store) -> Result<Exit, Failure> {
    let container = store.look(&arguments.id)?;
    let status = container.status()?;
    let sent = match arguments.signal {
        Sent::Signal(signal) if status == Status::Created && ends_by_default(signal) => Sent::Signal(Signal::KILL),
        sent => sent,
    };
    let kills = matches!(sent, Sent::Signal(Signal::KILL));
    match (sent, container.live_process()) {
        // Processes may have outlived the first. Where there are none, all of none have got it.
        (Sent::Signal(signal), _) if arguments.all => send_to_all(&container, signal)?,
        (Sent::Nothing, _) if arguments.all => {}
        (Sent::Signal(signal), _) if kills && status != Status::Creating && has_outlivers(&container)? => {
            send_to_all(&container, signal)?;
        }
        (Sent::Signal(signal), Some(pid)) if status != Status::Creating => send(pid, signal, &container)?,
        (Sent::Nothing, Some(_)) if status != Status::Creating => {}
        _ => {
            // containerd looks for these words.
            let failure = Failure::new("container not running");
            return Err(failure.context(format!("cannot kill `{}`, which is {}", arguments.id, status.name())));
        }
    }
    // What is frozen takes no notice of a signal, in version 1 not even of this one.
    if kills && status == Status::Paused {
        container.cgroup()?.map_or(Ok(()), |cgroup| cgroup.thaw()).map_err(failure)?;
    }
    Ok(Exit::Done)
}

/// Whether a process that does not catch it ends by it (signal(7)).
fn ends_by_default(signal: Signal) -> bool {
    const OTHERS: [i32; 8] = [
        libc::SIGCHLD,
        libc::SIGCONT,
        libc::SIGSTOP,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGURG,
        libc::SIGWINCH,
    ];
    !OTHERS.contains(&signal.number())
}

/// Whether there are processes that the end of the first does not end.
fn has_outlivers(container: &Container) -> Result<bool, Failure> {
    let spec = container.spec()?;
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let is_own = |namespace: &LinuxNamespace| {
        let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
        namespace.typ() == LinuxNamespaceType::Pid && path.is_none()
    };
    let Some(cgroup) = container.cgroup()?.filter(|_| !namespaces.into_iter().flatten().any(is_own)) else {
        return Ok(false);
    };
    Ok(!cgroup.processes().map_err(failure)?.is_empty())
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
