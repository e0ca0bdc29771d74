//! keyctl(2): leaving the session keyring of whoever started us.

use std::io;

/// Gives this process a new, empty session keyring (keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`). A kernel without
/// keyrings has none to leave: that is `Ok`.
pub fn join_new_session_keyring() -> io::Result<()> {
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, 0_usize, 0, 0, 0) };
    match result {
        -1 => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
            error => Err(error),
        },
        _ => Ok(()),
    }
}
