//! seccomp(2): installing a classic BPF program.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One instruction of classic BPF, in the kernel's own layout (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub operand: u32,
}

/// A notified call can be interrupted by nothing but a fatal signal (Linux 5.19; linux/seccomp.h).
pub const FLAG_WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;

/// Whether this kernel has all of `flags`. Nothing is installed.
pub fn knows(flags: u64) -> bool {
    // SAFETY: without a program the kernel reads no memory and installs nothing: it fails with EFAULT, or before that
    // with EINVAL where it does not have a flag.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::null::<u8>()) };
    result == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

/// Filters the system calls of this thread from here on. `flags` are `SECCOMP_FILTER_FLAG_*`; with
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` the result is the notification descriptor.
pub fn install(program: &[Instruction], flags: u64) -> io::Result<Option<OwnedFd>> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let header = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `header` points to `len` instructions that outlive the call; Instruction has the layout of sock_filter,
    // and the kernel only reads them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const header) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: with this flag the result is a new descriptor (close-on-exec) that nobody else owns.
        fd if flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 => {
            Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
        }
        _ => Ok(None),
    }
}

/// Takes one call that was notified of, which must be waiting, and lets it go on as if there were no filter
/// (seccomp_unotify(2)).
pub fn let_one_through(notifications: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both are plain numbers, for which all-zero is a value; the kernel even asks for it.
    let (mut call, mut answer): (libc::seccomp_notif, libc::seccomp_notif_resp) = unsafe { std::mem::zeroed() };
    // SAFETY: the request's number says how large the structure is that the kernel writes, and `call` is one.
    if unsafe { libc::ioctl(notifications.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) } == -1 {
        return Err(io::Error::last_os_error());
    }
    answer.id = call.id;
    answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    // SAFETY: likewise; the kernel reads `answer`.
    match unsafe { libc::ioctl(notifications.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
