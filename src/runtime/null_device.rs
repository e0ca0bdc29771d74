//! The host's null device, as a container gets it: to read and to write, and not to change.
//!
//! Its inode is root's, and so is a container without users of its own: where such a container has the device, behind a
//! masked path or as a standard descriptor, chmod(2) and chown(2) would change it for the whole host. Through a read-only
//! mount they fail with EROFS, and a device is written to all the same.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, fcntl_getfl, open};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::devices;
use super::error::{Context, RuntimeError};
use super::launch::Stdio;
use crate::sys::mount::{Attributes, Reach, mount_setattr};

/// A mount of the null device that is attached nowhere yet.
pub(super) fn read_only_mount() -> io::Result<OwnedFd> {
    let null = open_tree(CWD, "/dev/null", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    if !devices::is_null(null.as_fd())? {
        return Err(Errno::NXIO.into());
    }
    let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    mount_setattr(null.as_fd(), Reach::One, Attributes { set, ..Attributes::default() })?;
    Ok(null)
}

/// Standard descriptors, those that are the null device opened through such a mount.
pub(super) struct Guarded<'a> {
    given: Stdio<'a>,
    anew: [Option<OwnedFd>; 3],
}

impl<'a> Guarded<'a> {
    pub(super) fn of(given: Stdio<'a>) -> Result<Guarded<'a>, RuntimeError> {
        let mut anew = [None, None, None];
        if let Stdio::Descriptors { stdin, stdout, stderr } = given {
            let mut mount = None;
            for (descriptor, anew) in [stdin, stdout, stderr].into_iter().zip(&mut anew) {
                *anew = opened_anew(descriptor, &mut mount).during("open anew", "the null device")?;
            }
        }
        Ok(Guarded { given, anew })
    }

    pub(super) fn stdio(&self) -> Stdio<'_> {
        let Stdio::Descriptors { stdin, stdout, stderr } = self.given else { return self.given };
        let [input, output, errors] = &self.anew;
        Stdio::Descriptors {
            stdin: input.as_ref().unwrap_or(stdin),
            stdout: output.as_ref().unwrap_or(stdout),
            stderr: errors.as_ref().unwrap_or(stderr),
        }
    }
}

/// For reading and writing as it was. What is open keeps its mount, which is gone with the last of them.
fn opened_anew(descriptor: &OwnedFd, mount: &mut Option<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    if !devices::is_null(descriptor.as_fd())? {
        return Ok(None);
    }
    let mount = match mount {
        Some(mount) => mount,
        none => none.insert(read_only_mount()?),
    };
    let access = fcntl_getfl(descriptor)? & OFlags::RWMODE;
    Ok(Some(open(format!("/proc/self/fd/{}", mount.as_raw_fd()), access | OFlags::CLOEXEC, Mode::empty())?))
}
