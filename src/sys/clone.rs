//! clone3(2): a copy of this process, with namespaces, a pidfd and a cgroup chosen at birth.
//!
//! Neither `std::process::Command` nor the `nix` crate can ask for `CLONE_PIDFD` and `CLONE_INTO_CGROUP`. The child is
//! a plain copy as after fork(2) (no `CLONE_VM`, no new stack), so its caller goes on in ordinary Rust.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Pid;

/// linux/sched.h; `libc` types its constant too narrow for the value.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of the copy this is.
pub enum Copy {
    Parent { pid: Pid, pidfd: OwnedFd },
    Child(OneThread),
}

/// Proof that this process is a fresh copy and has one thread.
pub struct OneThread(());

/// Copies this process. `flags` are `CLONE_NEW*` bits (clone(2)); with `cgroup`, a directory of a version 2
/// hierarchy, the child is born in that cgroup, which needs no lock wait as a later move does.
///
/// Fails with `EBUSY` when this process has more than one thread: a lock that another thread holds at that moment
/// would stay locked in the child for ever.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Copy> {
    if !is_single_threaded()? {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    copy(flags, cgroup)
}

/// Copies a process that is itself a copy, without looking into /proc, which may be another's by then.
pub fn clone_again(_: &OneThread) -> io::Result<Copy> {
    copy(0, None)
}

/// The same, for a copy whose parent is this process's parent, in new namespaces of these kinds.
pub fn clone_sibling(_: &OneThread, flags: u64) -> io::Result<Copy> {
    copy(flags | libc::CLONE_PARENT as u64, None)
}

fn copy(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Copy> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: an all-zero clone_args is valid: no stack, no TLS, no set_tid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags | libc::CLONE_PIDFD as u64;
    arguments.pidfd = &raw mut pidfd as u64;
    // A sibling ends with the signal that this process ends with; clone3 takes no other (clone(2), CLONE_PARENT).
    if flags & libc::CLONE_PARENT as u64 == 0 {
        arguments.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `arguments` is a clone_args of the size passed, and `pidfd` outlives the call. Without CLONE_VM and
    // with a zero stack the child goes on here on a copy of this stack. It may use everything a process may use,
    // locks included, because there is no other thread that could hold one: `clone3` has looked, `OneThread` proves.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Copy::Child(OneThread(()))),
        pid => {
            // SAFETY: the kernel stored a new descriptor there, close-on-exec as every pidfd, owned by nobody else.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid)
                .ok()
                .and_then(Pid::from_raw)
                .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
            Ok(Copy::Parent { pid, pidfd })
        }
    }
}

/// `/proc/self/task` has two links and one for each thread (proc(5)).
fn is_single_threaded() -> io::Result<bool> {
    Ok(rustix::fs::stat("/proc/self/task")?.st_nlink == 3)
}

/// Ends a child of [`clone3`] at once: no destructors, no `atexit` handlers of the parent's, no flush of its
/// buffers (_exit(2)).
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit has no precondition and does not return.
    unsafe { libc::_exit(status) }
}
