//! sigaction(2) and sigprocmask(2): a new program starts with every signal as it was meant to be.

use std::io;

/// Gives every signal its default action and unblocks all. execve(2) resets handlers by itself but hands on what is
/// ignored (Rust's start-up ignores SIGPIPE) and what is blocked.
pub fn reset_all() -> io::Result<()> {
    // struct sigaction of the kernel: SIG_DFL, no flags, no restorer, empty mask.
    let default = [0_usize; 4];
    for number in (1..=libc::SIGRTMAX()).filter(|number| ![libc::SIGKILL, libc::SIGSTOP].contains(number)) {
        // SAFETY: `default` is a whole action for the kernel, which only reads it and installs no handler. The C
        // library's wrapper would refuse the two signals that it keeps for its own threads; the next program's may not.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), 0_usize, size_of::<u64>()) };
    }
    // SAFETY: `none` is initialised by sigemptyset before it is read.
    let result = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Blocks every signal, in this thread, for [`wait_any`].
pub fn block_all() -> io::Result<()> {
    // SAFETY: `all` is initialised by sigfillset before it is read.
    let result = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits for the next signal, whichever (sigwaitinfo(2)), and returns its number.
pub fn wait_any() -> io::Result<i32> {
    // SAFETY: `all` is initialised by sigfillset before it is read; no details are asked for.
    let number = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigwaitinfo(&raw const all, std::ptr::null_mut())
    };
    if number > 0 { Ok(number) } else { Err(io::Error::last_os_error()) }
}
