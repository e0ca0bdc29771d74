//! The mounts of a container, one after the other, below the descriptor of its root filesystem.
//!
//! A source is opened before the host's tree is cut off, since only then it still has the propagation that `rslave`
//! and `rshared` need. A target is walked inside the root (see `paths`), and a mount is attached to the descriptor
//! that came out: between looking and mounting there is no name that could change its meaning.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};

use super::error::{Context, RuntimeError};
use super::mount_options::{Bind, Propagation};
use super::paths::{self, Kind, Links};
use super::prepare::MountPoint;
use super::rootfs::attach;
use crate::sys::mount::{Attributes, Reach, mount_setattr};

/// A copy of the mount at the source of each bind mount; `None` for the others.
pub(super) fn open_sources(mounts: &[MountPoint]) -> Result<Vec<Option<OwnedFd>>, RuntimeError> {
    mounts.iter().map(|mount| mount.options.bind.map(|bind| open_source(mount, bind)).transpose()).collect()
}

fn open_source(mount: &MountPoint, bind: Bind) -> Result<OwnedFd, RuntimeError> {
    let source = mount.source.as_deref().unwrap_or(Path::new("/"));
    let flags = match bind {
        Bind::One => OpenTreeFlags::empty(),
        Bind::Tree => OpenTreeFlags::AT_RECURSIVE,
    };
    open_tree(CWD, source, flags | OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
        .during("open the source of a mount", source.display())
}

/// Mounts `mount` below `root`; `source` comes from [`open_sources`]. Returns the mount.
pub(super) fn attach_one(
    root: BorrowedFd<'_>,
    mount: &MountPoint,
    source: Option<OwnedFd>,
) -> Result<OwnedFd, RuntimeError> {
    let made = match source {
        Some(source) => adjust_bind(source, mount)?,
        None => make_filesystem(mount)?,
    };
    let kind = match paths::file_type(made.as_fd()).during("look at the source of", mount.target.display())? {
        FileType::Directory => Kind::Directory,
        _ => Kind::File,
    };
    // A link in the place of these directories would put them elsewhere, and what is masked there would stay bare
    // (CVE-2019-19921, CVE-2023-27561).
    let links = match mount.target.to_str() {
        Some("/proc" | "/sys" | "/dev") => Links::Refused,
        _ => Links::Inside,
    };
    let target = paths::ensure(root, &mount.target, kind, links)
        .during("make the target of the mount", mount.target.display())?;
    attach(made.as_fd(), target.as_fd(), &mount.target)?;
    Ok(made)
}

/// A bind mount is private unless it says otherwise: runtimes of other makes do the same, and mounts made inside a
/// container must not appear on the host.
fn adjust_bind(source: OwnedFd, mount: &MountPoint) -> Result<OwnedFd, RuntimeError> {
    let propagation = mount.options.propagation.unwrap_or(Propagation { kind: libc::MS_PRIVATE, reach: Reach::Tree });
    let change = |reach, attributes: Attributes| match attributes == Attributes::default() {
        true => Ok(()),
        false => {
            mount_setattr(source.as_fd(), reach, attributes).during("set the attributes of", mount.target.display())
        }
    };
    change(propagation.reach, Attributes { propagation: propagation.kind, ..Attributes::default() })?;
    change(Reach::Tree, mount.options.recursive)?;
    change(Reach::One, mount.options.attributes)?;
    Ok(source)
}

fn make_filesystem(mount: &MountPoint) -> Result<OwnedFd, RuntimeError> {
    let name = mount.target.display();
    let filesystem = fsopen(&mount.kind, FsOpenFlags::FSOPEN_CLOEXEC)
        .during("mount", format!("{name} (the filesystem type {})", mount.kind))?;
    let source = mount.source.as_deref().unwrap_or(Path::new(&mount.kind));
    fsconfig_set_string(filesystem.as_fd(), "source", source).during("mount", &name)?;
    for (key, value) in &mount.options.data {
        let set = match value {
            Some(value) => fsconfig_set_string(filesystem.as_fd(), key, value),
            None => fsconfig_set_flag(filesystem.as_fd(), key),
        };
        set.during("mount", format!("{name} (the option {key})"))?;
    }
    fsconfig_create(filesystem.as_fd()).during("mount", &name)?;
    let mut attributes = mount.options.attributes;
    attributes.set |= mount.options.recursive.set;
    let flags = MountAttrFlags::from_bits_retain(attributes.set as u32);
    let made = fsmount(filesystem.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags).during("mount", &name)?;
    if let Some(Propagation { kind, reach }) = mount.options.propagation {
        mount_setattr(made.as_fd(), reach, Attributes { propagation: kind, ..Attributes::default() })
            .during("set the propagation of", &name)?;
    }
    Ok(made)
}
