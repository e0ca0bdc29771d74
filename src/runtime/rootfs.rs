//! The root filesystem: assembled inside the container's mount namespace, then made `/`.
//!
//! Nothing of it appears in the host's mount table, and nothing is left to unmount when the namespace ends:
//!
//! ```text
//! fsopen(overlay) -> fsmount: a mount that is attached nowhere
//! move_mount onto the upper directory, in this namespace only (any directory would do; this one is ours)
//! .. mounts, devices, masks: all relative to the descriptor of that mount ..
//! fchdir(root); pivot_root(".", "."); umount2(".", MNT_DETACH): the host's tree is gone
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_string, fsmount, fsopen, mount, mount_change,
    move_mount, open_tree, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};

use super::error::{Context, RuntimeError};
use super::mount_options::Propagation;
use super::prepare::Access;
use crate::model::launch::RootFilesystem;
use crate::sys::mount::{Attributes, Reach, mount_setattr};

/// Cuts this namespace's mounts off from the host's, so that nothing mounted from here on is seen outside.
pub(super) fn detach_from_host() -> Result<(), RuntimeError> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .during("make private the mounts below", "/")
}

/// Mounts the root filesystem and returns its descriptor.
pub(super) fn assemble(root: &RootFilesystem) -> Result<OwnedFd, RuntimeError> {
    match root {
        RootFilesystem::Overlay { lower, upper, work } => {
            let layers = Layers::open(lower, upper, work)?;
            match layers.mount_appended() {
                // What kernels say that know no such option, or no descriptors in options.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => layers.mount_joined(upper),
                other => {
                    let mount = other.during("mount the layers on", upper.display())?;
                    attach(mount.as_fd(), layers.upper.as_fd(), upper)?;
                    Ok(mount)
                }
            }
        }
        RootFilesystem::Directory(path) => {
            let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | recursive();
            let tree = open_tree(CWD, path, clone).during("open the root filesystem", path.display())?;
            let place = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .during("open the root filesystem", path.display())?;
            attach(tree.as_fd(), place.as_fd(), path)?;
            Ok(tree)
        }
    }
}

fn recursive() -> OpenTreeFlags {
    OpenTreeFlags::AT_RECURSIVE
}

/// Puts a mount that is attached nowhere onto `place`.
pub(super) fn attach(mount: BorrowedFd<'_>, place: BorrowedFd<'_>, name: &Path) -> Result<(), RuntimeError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags).during("attach the mount", name.display())
}

/// Makes `root` read-only, if asked, and `/`.
pub(super) fn enter(
    root: BorrowedFd<'_>,
    access: Access,
    propagation: Option<Propagation>,
) -> Result<(), RuntimeError> {
    if access == Access::ReadOnly {
        let read_only = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
        mount_setattr(root, Reach::One, read_only).during("make read-only", "/")?;
    }
    fchdir(root).during("enter", "the root filesystem")?;
    // Both names are the same directory: the old root ends up on top of the new one, and is taken off there
    // (pivot_root(2), "pivot_root(".", ".")").
    pivot_root(".", ".").during("make the root filesystem", "/")?;
    unmount(".", UnmountFlags::DETACH).during("detach", "the host's root filesystem")?;
    chdir("/").during("enter", "/")?;
    if let Some(Propagation { kind, reach }) = propagation {
        let attributes = Attributes { propagation: kind, ..Attributes::default() };
        mount_setattr(root, reach, attributes).during("set the propagation of", "/")?;
    }
    Ok(())
}

/// The directories of an overlay, opened: a path with a colon or a comma needs no escaping, and none is too long.
struct Layers {
    /// Lowest first.
    lower: Vec<OwnedFd>,
    upper: OwnedFd,
    work: OwnedFd,
}

impl Layers {
    fn open(lower: &[PathBuf], upper: &Path, work: &Path) -> Result<Layers, RuntimeError> {
        let directory = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            open(path, flags, Mode::empty()).during("open the layer", path.display())
        };
        Ok(Layers {
            lower: lower.iter().map(|path| directory(path)).collect::<Result<_, _>>()?,
            upper: directory(upper)?,
            work: directory(work)?,
        })
    }

    /// Layers one by one and by descriptor (Linux 6.13), so their number has no limit in a page of text.
    fn mount_appended(&self) -> Result<OwnedFd, Errno> {
        let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for layer in self.lower.iter().rev() {
            fsconfig_set_fd(overlay.as_fd(), "lowerdir+", layer.as_fd())?;
        }
        fsconfig_set_fd(overlay.as_fd(), "upperdir", self.upper.as_fd())?;
        fsconfig_set_fd(overlay.as_fd(), "workdir", self.work.as_fd())?;
        fsconfig_set_string(overlay.as_fd(), "source", "overlay")?;
        fsconfig_create(overlay.as_fd())?;
        fsmount(overlay.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    /// All layers in one option of mount(2): the only way of older kernels. Names of descriptors are short, so a page
    /// of options holds some two hundred layers.
    fn mount_joined(&self, upper: &Path) -> Result<OwnedFd, RuntimeError> {
        let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd));
        let lower: Vec<String> = self.lower.iter().rev().map(name).collect();
        let options =
            format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), name(&self.upper), name(&self.work));
        let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL).during("mount", upper.display())?;
        mount("overlay", name(&self.upper), "overlay", MountFlags::empty(), Some(options.as_c_str()))
            .during("mount the layers on", upper.display())?;
        open(upper, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .during("open the root filesystem", upper.display())
    }
}
