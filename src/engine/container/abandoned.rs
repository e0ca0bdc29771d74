//! The stop sequence for a container that nobody supervises any more: what its monitor would have done.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::model::units::Signal;
use crate::monitor::workload::process_hears;
use crate::runtime::RuntimeError;
use crate::runtime::cgroup::Cgroup;
use crate::sys::kill::pidfd_send_signal;

/// The first process of `group` got its stop signal and has ended, or its grace period is over, or it takes no notice of such a signal. `Ok` when it is not there:
/// a number that a dead monitor wrote may be anybody's by now, so only a process in the group is the one.
pub fn stop(group: &Cgroup, first: Pid, signal: Signal, grace: Duration) -> Result<(), RuntimeError> {
    // Held before it is looked at, the descriptor is of the process that is found (pidfd_open(2)).
    let Ok(process) = pidfd_open(first, PidfdFlags::empty()) else { return Ok(()) };
    if !group.processes()?.contains(&first) || pidfd_send_signal(process.as_fd(), signal.number()).is_err() {
        return Ok(());
    }
    // One that was paused hears nothing.
    group.thaw()?;
    if process_hears(first, signal) {
        await_end(process.as_fd(), grace);
    }
    Ok(())
}

fn await_end(process: BorrowedFd<'_>, grace: Duration) {
    let deadline = Instant::now() + grace;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let time =
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        // Whatever else happens to a poll, the time is up sooner or later, and the rest is killed.
        let ended = poll(&mut [PollFd::from_borrowed_fd(process, PollFlags::IN)], Some(&time));
        if ended.is_ok_and(|count| count > 0) || left.is_zero() {
            return;
        }
    }
}
