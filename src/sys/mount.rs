//! mount_setattr(2): attributes and propagation of a whole mount tree in one call.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Whether the mounts below change too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    One,
    Tree,
}

/// What to change: bits of `MOUNT_ATTR_*`, and a propagation type (`MS_PRIVATE`, `MS_SLAVE`, ..; 0 keeps it).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
}

/// Changes the mount at `mount`, which must be the root of a mount.
pub fn mount_setattr(mount: BorrowedFd<'_>, reach: Reach, attributes: Attributes) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: 0,
    };
    set(mount, reach, &attr)
}

/// Shows owners as the user namespace `users` maps them: what belongs to 0 on disk belongs to whom 0 stands for there
/// (Linux 5.12). The mount must not be attached anywhere yet, and not be mapped.
pub fn map_owners(mount: BorrowedFd<'_>, reach: Reach, users: BorrowedFd<'_>) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: users.as_raw_fd() as u64,
    };
    set(mount, reach, &attr)
}

fn set(mount: BorrowedFd<'_>, reach: Reach, attr: &libc::mount_attr) -> io::Result<()> {
    let flags = match reach {
        Reach::One => libc::AT_EMPTY_PATH,
        Reach::Tree => libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
    };
    // SAFETY: the path is an empty C string and `attr` is a mount_attr of the size passed; the kernel reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
