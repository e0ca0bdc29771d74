//! Paths that a container must not read, or not write (`linux.maskedPaths`, `linux.readonlyPaths`).
//!
//! Done before pivot_root(2), from outside: a mask is the host's own null device, taken from the host's /dev, checked, and
//! mounted read-only, or an empty tmpfs. The container's /dev/null, which an image could have replaced, plays no part
//! (CVE-2025-31133), and nothing below the container's /proc is opened for writing (CVE-2025-52881).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    open_tree,
};

use super::error::{Context, RuntimeError};
use super::null_device;
use super::paths::{self, Links};
use super::rootfs::attach;
use crate::sys::mount::{Attributes, Reach, mount_setattr};

/// Covers files with the null device and directories with an empty one. Paths that do not exist need no mask.
pub(super) fn mask(root: BorrowedFd<'_>, masked: &[PathBuf]) -> Result<(), RuntimeError> {
    let mut empty: Option<OwnedFd> = None;
    for (at, path) in masked.iter().enumerate() {
        if masked[..at].contains(path) {
            continue;
        }
        let Some(target) = find(root, path).during("mask", path.display())? else { continue };
        let kind = paths::file_type(target.as_fd()).during("mask", path.display())?;
        let step = || path.display();
        let cover = match (kind, &empty) {
            (FileType::Directory, Some(empty)) => copy_of(empty.as_fd()).during("mask", step())?,
            (FileType::Directory, None) => empty_directory().during("mask", step())?,
            _ => null_device::read_only_mount().during("mask", step())?,
        };
        attach(cover.as_fd(), target.as_fd(), path)?;
        if kind == FileType::Directory {
            empty = Some(cover);
        }
    }
    Ok(())
}

/// Makes what is at these paths read-only, mounts below included.
pub(super) fn make_read_only(root: BorrowedFd<'_>, read_only: &[PathBuf]) -> Result<(), RuntimeError> {
    let step = "make read-only";
    for path in read_only {
        let Some(target) = find(root, path).during(step, path.display())? else { continue };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let copy = open_tree(&target, "", flags).during(step, path.display())?;
        let attributes = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
        mount_setattr(copy.as_fd(), Reach::Tree, attributes).during(step, path.display())?;
        attach(copy.as_fd(), target.as_fd(), path)?;
    }
    Ok(())
}

fn find(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<OwnedFd>> {
    match paths::resolve(root, path, Links::Inside) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        other => other.map(Some),
    }
}

fn empty_directory() -> Result<OwnedFd, Errno> {
    let filesystem = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(filesystem.as_fd(), "mode", "0555")?;
    fsconfig_set_string(filesystem.as_fd(), "nr_inodes", "1")?;
    fsconfig_create(filesystem.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(filesystem.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn copy_of(mount: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(mount, "", flags)
}
