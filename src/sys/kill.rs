//! kill(2) by number: `nix` and `rustix` know no real-time signals.

use std::io;

use rustix::process::Pid;

/// Sends any signal to a process.
pub fn kill(pid: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes two numbers, no memory. `Pid` is positive, so this is one process and no group.
    match unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
