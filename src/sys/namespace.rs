//! setns(2) and unshare(2) by their raw bits.
//!
//! `rustix` leaves out the time namespace in one of its types and marks `unshare` unsafe for `CLONE_FILES`; `nix`
//! knows no `CLONE_NEWTIME`. Only namespace bits pass through here.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Every namespace bit of clone(2).
pub const ALL: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWTIME;

/// Joins the namespace that `namespace` refers to, or, when it is a pidfd, those of `kinds` of that process at
/// once (Linux 5.8).
pub fn setns(namespace: BorrowedFd<'_>, kinds: i32) -> io::Result<()> {
    // SAFETY: setns takes a descriptor and bits, no memory.
    match unsafe { libc::setns(namespace.as_raw_fd(), kinds & ALL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The user namespace that owns another namespace (ioctl_ns(2), `NS_GET_USERNS`). `EPERM` for one outside this
/// process's own.
pub fn owner(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    // SAFETY: this request takes no argument and answers with a descriptor.
    match unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: it is a new descriptor, close-on-exec, that nobody else owns.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

/// Moves this process into new namespaces of these kinds.
pub fn unshare(kinds: i32) -> io::Result<()> {
    // SAFETY: bits other than those of namespaces are masked out, so no descriptor table or memory is unshared.
    match unsafe { libc::unshare(kinds & ALL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
