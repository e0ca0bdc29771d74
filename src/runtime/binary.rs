//! The runtime's own binary, out of reach of what it runs (CVE-2019-5736).
//!
//! An image can make the runtime execute itself inside the container (`#!/proc/self/exe`), and a privileged process
//! may open `/proc/PID/exe` of the runtime before it has executed anything. Either way it holds the host's file and,
//! once nobody executes it, could write to it. So a program that starts containers is itself executed through a
//! read-only mount that is attached nowhere: whoever follows `/proc/PID/exe` arrives on that mount, and the kernel
//! answers EROFS. It costs two system calls and no copy.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, fstatvfs, open};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::error::{Context, RuntimeError};
use crate::sys::mount::{Attributes, Reach, mount_setattr};

/// Whether this process executes a file that nobody can write to by way of /proc.
pub fn is_read_only() -> Result<bool, RuntimeError> {
    let name = "/proc/self/exe";
    let file = open(name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).during("open", name)?;
    Ok(fstatvfs(&file).during("look at", name)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// A read-only view of the program at `path`. Execute it as `/proc/self/fd/N`; the descriptor is close-on-exec.
pub fn read_only(path: &Path) -> Result<OwnedFd, RuntimeError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let view = open_tree(CWD, path, flags).during("open", path.display())?;
    let attributes = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    mount_setattr(view.as_fd(), Reach::One, attributes).during("make read-only", path.display())?;
    Ok(view)
}
