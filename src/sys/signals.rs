//! sigaction(2) and sigprocmask(2): a new program starts with every signal as it was meant to be.

use std::io;

/// Gives every signal its default action and unblocks all. execve(2) resets handlers by itself but hands on what is
/// ignored (Rust's start-up ignores SIGPIPE) and what is blocked.
pub fn reset_all() -> io::Result<()> {
    for number in 1..=libc::SIGRTMAX() {
        if number == libc::SIGKILL || number == libc::SIGSTOP {
            continue;
        }
        // SAFETY: SIG_DFL installs no handler. glibc refuses the two numbers it keeps for itself, which do not matter.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    // SAFETY: `none` is initialised by sigemptyset before it is read.
    let result = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
