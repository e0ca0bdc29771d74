//! Undoing a container: every process, the cgroup, what is remembered; then its poststop hooks.
//!
//! It goes on after an error, so that as much as possible is gone; what could not be undone is a warning, or, for
//! `delete`, the error.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use oci_spec::runtime::Hooks;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

use super::log::{Log, failure};
use super::parents;
use super::store::Container;
use crate::cli::failure::Failure;
use crate::runtime::cgroup::Cgroup;
use crate::runtime::hooks::{self, Moment};
use crate::runtime::launch::{self, Process};

/// How long killed processes may take to be gone.
const DYING: Duration = Duration::from_secs(10);

/// Ends every process of the container and waits for their end.
pub fn end_processes(container: &Container) -> Result<(), Failure> {
    end_all(container, container.cgroup()?.as_ref())
}

fn end_all(container: &Container, cgroup: Option<&Cgroup>) -> Result<(), Failure> {
    let deadline = Instant::now() + DYING;
    let first = container.live_process().map(launch::open_process).transpose().map_err(failure)?;
    if let Some(process) = &first {
        // It may have ended this moment, and that is as good.
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
    if let Some(cgroup) = cgroup {
        while !cgroup.processes().map_err(failure)?.is_empty() {
            if Instant::now() > deadline {
                return Err(Failure::new(format!("processes of `{}` do not end", container.record.id)));
            }
            cgroup.kill().map_err(failure)?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    match first {
        Some(process) => await_end(&process, deadline, container),
        None => Ok(()),
    }
}

fn await_end(process: &OwnedFd, deadline: Instant, container: &Container) -> Result<(), Failure> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
    match poll(&mut [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)], Some(&timeout))? {
        0 => Err(Failure::new(format!("the first process of `{}` does not end", container.record.id))),
        _ => Ok(()),
    }
}

/// Removes everything of a container, its processes too.
pub fn remove(container: &Container) -> Result<(), Failure> {
    let cgroup = container.cgroup()?;
    end_all(container, cgroup.as_ref())?;
    if let Some(cgroup) = cgroup {
        cgroup.remove().map_err(failure)?;
    }
    parents::remove(container)?;
    container.remove()
}

/// Runs the hooks of a container that is gone. One that fails is a warning (runtime.md, "Lifecycle", step 13).
pub fn run_poststop(container: &Container, hooks: Option<&Hooks>, log: &Log) {
    match container.state() {
        Ok(state) => {
            for error in hooks::run_all(hooks, Moment::Poststop, &state, None) {
                log.warn(&failure(error).line());
            }
        }
        Err(failure) => log.warn(&failure.line()),
    }
}

/// Forgets a container of which there is nothing else.
pub fn forget(container: &Container, log: &Log) {
    if let Err(failure) = container.remove() {
        log.warn(&failure.line());
    }
}

/// Removes a container whose making failed before it had a process.
pub fn undo(container: &Container, log: &Log) {
    if let Err(failure) = remove(container) {
        log.warn(&failure.line());
    }
}

/// Removes a container that has to end now, with its hooks (runtime.md, "Lifecycle", steps 12 and 13).
pub fn bury(container: &Container, hooks: Option<&Hooks>, log: &Log) {
    undo(container, log);
    run_poststop(container, hooks, log);
}

/// Ends a further process of a container, our child.
pub fn end(process: &Process) {
    // It may have ended by itself; whoever asked is told why it had to end.
    let _ = pidfd_send_signal(&process.pidfd, Signal::KILL);
}
