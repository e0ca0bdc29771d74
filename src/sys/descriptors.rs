//! close_range(2): no descriptor above a number goes where it must not.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Marks every descriptor from `first` up close-on-exec (Linux 5.11), so that none of the runtime's own or of its
/// caller's leaks into a container (CVE-2024-21626).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `first` up. Only for a child that has just been copied and executes, or ends, without
/// touching what its parent's values in its memory still seem to own.
pub fn close_from(first: u32) -> io::Result<()> {
    close_range(first, u32::MAX, 0)
}

/// Closes every descriptor from `first` up that is not in `keep`, under the same condition.
pub fn close_others(first: u32, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).filter(|number| *number >= first).collect();
    kept.sort_unstable();
    let mut first = first;
    for number in kept {
        if number > first {
            close_range(first, number - 1, 0)?;
        }
        first = first.max(number + 1);
    }
    close_range(first, u32::MAX, 0)
}

/// Lets the descriptors from `first` up to, not with, `end` pass execve(2). `EBADF` where one is not open.
pub fn pass_on(first: u32, end: u32) -> io::Result<()> {
    for number in first..end {
        // SAFETY: no memory is passed; FD_CLOEXEC is the only flag that there is.
        if unsafe { libc::fcntl(number as libc::c_int, libc::F_SETFD, 0) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: no memory is passed. Closing is left to the two functions above, whose condition is that nobody uses or
    // closes again what they closed.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
