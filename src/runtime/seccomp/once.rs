//! A system call that is granted once, and to nobody afterwards.
//!
//! A filter remembers nothing, so it cannot count. One that asks can: who answers it lets the first call through and
//! closes the descriptor, and from then on the kernel says ENOSYS to whoever has the filter (seccomp_unotify(2)).

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::bpf::{self, Verdict};
use super::compile::{AARCH64, Abi, X86_64};
use super::table;
use crate::runtime::error::{Context, RuntimeError};
use crate::sys::seccomp;

/// From here on the call of this name needs to be granted, to this process and to all that come of it. What comes back
/// is for [`grant`], in another process. `None`, and nothing is changed, where a filter that asks is above already, as in a
/// container whose manager answers some calls: the kernel has one for all filters of a process (seccomp(2), EBUSY).
pub(in crate::runtime) fn ask_for(name: &str) -> Result<Option<OwnedFd>, RuntimeError> {
    let native: Abi = if cfg!(target_arch = "aarch64") { AARCH64 } else { X86_64 };
    let number = table::numbers(name).and_then(|numbers| u32::try_from(numbers[native.column]).ok());
    let number = number.ok_or(rustix::io::Errno::NOSYS).during("find the system call", name)?;
    let allowed = || Verdict::always(libc::SECCOMP_RET_ALLOW);
    let verdicts =
        vec![(0, allowed()), (number, Verdict::always(libc::SECCOMP_RET_USER_NOTIF)), (number + 1, allowed())];
    let program = bpf::program(&[(native.audit, verdicts)], libc::SECCOMP_RET_KILL_PROCESS);
    match seccomp::install(&program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(None),
        listener => listener.during("install", "a filter that asks"),
    }
}

/// Waits for the call, lets it through, and no other. An error when it does not come within `patience`.
pub(in crate::runtime) fn grant(listener: OwnedFd, patience: Duration) -> Result<(), RuntimeError> {
    let step = "wait for the call of";
    let patience = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
    let mut polled = [PollFd::new(&listener, PollFlags::IN)];
    poll(&mut polled, Some(&patience)).during(step, "a process for /proc")?;
    // Whoever would ask may be gone.
    if !polled[0].revents().contains(PollFlags::IN) {
        return Err(RuntimeError::Died);
    }
    seccomp::let_one_through(listener.as_fd()).during("grant the call of", "a process for /proc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_somebody_is_asked_already_nobody_else_is() {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        // Filters end with the thread that has them.
        let asked = || [(); 2].map(|()| ask_for("clone3").unwrap());
        let [first, second] = std::thread::scope(|scope| scope.spawn(asked).join()).unwrap();
        assert!(first.is_some() && second.is_none());
    }
}
