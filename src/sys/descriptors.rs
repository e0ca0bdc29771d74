//! close_range(2): no descriptor above a number survives an execve.

use std::io;

/// Marks every descriptor from `first` up close-on-exec (Linux 5.11), so that none of the runtime's own or of its
/// caller's leaks into a container (CVE-2024-21626).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `first` up. For a process that begins, before it has opened anything.
pub fn close_from(first: u32) -> io::Result<()> {
    close_range(first, 0)
}

fn close_range(first: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC no descriptor is closed, only a flag of theirs changes; without it, callers do
    // this before anything in the process owns a descriptor.
    match unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
