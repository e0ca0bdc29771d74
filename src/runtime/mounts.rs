//! The mounts of a container, one after the other, below the descriptor of its root filesystem.
//!
//! Sources are opened early (see `outside`). A target is walked inside the root (see `paths`), and a mount is attached to the descriptor
//! that came out: between looking and mounting there is no name that could change its meaning.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, StatxAttributes, StatxFlags, fstat, statx};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_reconfigure,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, open_tree,
};

use super::copy_up::{self, OwnMode};
use super::error::{Context, RuntimeError, invalid};
use super::joined_proc;
use super::mount_options::{Bind, MountOptions, Propagation};
use super::paths::{self, Kind, Links};
use super::prepare::MountPoint;
use super::rootfs::attach;
use crate::model::launch::RootFilesystem;
use crate::sys::mount::{Attributes, Reach, map_owners, mount_setattr};

/// What a mount shows, opened while the host's tree is still there.
pub(super) enum Source {
    /// A filesystem of its own, made when it is mounted.
    Fresh,
    /// One that was begun in the pid namespace that is joined (see `joined_proc`).
    Begun(OwnedFd),
    /// Ready to be attached: a copy of the mount at the source of a bind mount, or a filesystem that was made outside.
    Made(OwnedFd),
    /// What is mounted at the target already.
    There,
    /// A bind mount of what an earlier mount shows, at this path inside the root, with its users' namespace if its owners
    /// are mapped.
    Inside(PathBuf, Option<OwnedFd>),
    /// Version 1: the container's own cgroup in each hierarchy, by the names of the hierarchies.
    Cgroups(Vec<(PathBuf, OwnedFd)>),
}

/// Opens what a mount shows; its owners as `users` maps them. `cgroups` are the directories of the container's cgroup.
pub(super) fn open_source(
    mount: &MountPoint,
    users: Option<&OwnedFd>,
    cgroups: &[PathBuf],
) -> Result<Source, RuntimeError> {
    match (mount.options.bind, is_cgroup(mount)) {
        _ if mount.options.remounts => Ok(Source::There),
        (Some(bind), _) => {
            let source = copy_of(mount.source.as_deref().unwrap_or(Path::new("/")), bind)?;
            adjust_bind(source, mount, users).map(Source::Made)
        }
        (None, true) => open_cgroups(mount, cgroups),
        (None, false) => Ok(Source::Fresh),
    }
}

/// Where inside the root the source of a bind mount is that lies below what one of the `earlier` mounts shows: there is
/// nothing of it on the host. runc and crun find it, since they resolve each source when its turn comes, with the root
/// filesystem at the path that it has on the host.
pub(super) fn inside(mount: &MountPoint, root: &RootFilesystem, earlier: &[MountPoint]) -> Option<PathBuf> {
    let RootFilesystem::Directory(root) = root else { return None };
    if mount.options.remounts {
        return None;
    }
    let source = mount.options.bind.and(mount.source.as_deref())?;
    let below = source.strip_prefix(root).ok().map(Path::to_owned);
    let below = below.or_else(|| Some(source.strip_prefix(root.canonicalize().ok()?).ok()?.to_owned()))?;
    let way = names(&below);
    let shows = |earlier: &MountPoint| !earlier.options.remounts && way.starts_with(&names(&earlier.target));
    earlier.iter().any(shows).then_some(below)
}

fn is_cgroup(mount: &MountPoint) -> bool {
    matches!(mount.kind.as_str(), "cgroup" | "cgroup2")
}

/// The container's own cgroup directories are bound, not mounted anew: that needs no cgroup namespace, so the child
/// need not wait for its place (see `init`), and hierarchies that it did not join do not appear.
fn open_cgroups(mount: &MountPoint, cgroups: &[PathBuf]) -> Result<Source, RuntimeError> {
    let open = |path: &Path| adjust_bind(copy_of(path, Bind::One)?, mount, None);
    match cgroups {
        [] => Err(invalid("mounts", "a mount of type `cgroup` needs `linux.cgroupsPath`")),
        // Version 2: a single tree, and only it has this file.
        [only] if only.join("cgroup.controllers").exists() => open(only).map(Source::Made),
        several => {
            let named = |path: &PathBuf| {
                let name = path.ancestors().find(|above| is_mount_point(above)).and_then(Path::file_name);
                Ok((PathBuf::from(name.unwrap_or_default()), open(path)?))
            };
            several.iter().map(named).collect::<Result<_, _>>().map(Source::Cgroups)
        }
    }
}

/// A directory on another device than the one above it.
fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| rustix::fs::stat(path).map(|found| found.st_dev);
    path.parent().is_some_and(|parent| device(path) != device(parent))
}

fn copy_of(source: &Path, bind: Bind) -> Result<OwnedFd, RuntimeError> {
    open_tree(CWD, source, how_to_copy(bind)).during("open the source of a mount", source.display())
}

fn how_to_copy(bind: Bind) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match bind {
        Bind::One => flags,
        Bind::Tree => flags | OpenTreeFlags::AT_RECURSIVE,
    }
}

/// Mounts `mount` below `root` and returns the mount.
pub(super) fn attach_one(root: BorrowedFd<'_>, mount: &MountPoint, source: Source) -> Result<OwnedFd, RuntimeError> {
    let made = match source {
        Source::Made(made) => made,
        Source::Fresh => make_filesystem(&with_mode(root, mount))?,
        Source::Inside(path, users) => {
            let step = "open the source of a mount";
            // Who shares what is mounted there could make a link of it, to a /proc that is not masked yet.
            let source = paths::resolve(root, &path, Links::Refused).during(step, path.display())?;
            let flags = how_to_copy(mount.options.bind.unwrap_or(Bind::One)) | OpenTreeFlags::AT_EMPTY_PATH;
            let source = open_tree(source, "", flags).during(step, path.display())?;
            adjust_bind(source, mount, users.as_ref())?
        }
        Source::Begun(context) => {
            let made = finish_filesystem(context, mount)?;
            match joined_proc::is_proc(&made) {
                true => made,
                // Somebody there has put another in its place.
                false => return Err(rustix::io::Errno::PERM).during("mount", mount.target.display()),
            }
        }
        Source::There => return remount(root, mount),
        Source::Cgroups(directories) => return attach_cgroups(root, mount, directories),
    };
    attach_at_target(root, made.as_fd(), mount)?;
    Ok(made)
}

/// Gives what is mounted at the target the attributes that are named, and its filesystem the options. `prepare` has seen
/// to it that such a filesystem is the container's own: those of others, which a bind mount shows, belong to the host.
fn remount(root: BorrowedFd<'_>, mount: &MountPoint) -> Result<OwnedFd, RuntimeError> {
    let (step, name) = ("mount again", mount.target.display());
    // A link in an image would choose what gets other attributes.
    let there = paths::resolve(root, &mount.target, Links::Refused).during(step, &name)?;
    let found = statx(&there, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).during(step, &name)?;
    if !found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(invalid("mounts", format!("nothing is mounted at `{name}`, which is to be remounted")));
    }
    if !mount.options.data.is_empty() {
        let flags = FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC;
        let filesystem = fspick(&there, "", flags).during(step, &name)?;
        configure(&filesystem, mount)?;
        fsconfig_reconfigure(filesystem.as_fd()).during(step, &name)?;
    }
    let MountOptions { attributes, recursive, propagation, .. } = &mount.options;
    mount_setattr(there.as_fd(), Reach::Tree, *recursive).during(step, &name)?;
    mount_setattr(there.as_fd(), Reach::One, *attributes).during(step, &name)?;
    if let Some(Propagation { kind, reach }) = *propagation {
        mount_setattr(there.as_fd(), reach, Attributes { propagation: kind, ..Attributes::default() })
            .during(step, &name)?;
    }
    Ok(there)
}

/// The options of a filesystem.
fn configure(filesystem: &OwnedFd, mount: &MountPoint) -> Result<(), RuntimeError> {
    mount.options.data.iter().try_for_each(|(key, value)| {
        let set = match value {
            Some(value) => fsconfig_set_string(filesystem.as_fd(), key, value),
            None => fsconfig_set_flag(filesystem.as_fd(), key),
        };
        set.during("mount", format!("{} (the option {key})", mount.target.display()))
    })
}

/// A tmpfs that does not say its mode has that of the directory which it covers, as runc and crun have it; the kernel's
/// own is 1777.
fn with_mode<'a>(root: BorrowedFd<'_>, mount: &'a MountPoint) -> Cow<'a, MountPoint> {
    let says = mount.options.copies_up || mount.options.data.iter().any(|(key, _)| key == "mode");
    if mount.kind != "tmpfs" || says {
        return Cow::Borrowed(mount);
    }
    // What is not there yet covers nothing, and what cannot be reached is told of when it is to be mounted on.
    match paths::resolve(root, &mount.target, links_on_the_way(&mount.target)).and_then(|found| Ok(fstat(found)?)) {
        Ok(found) => {
            let mut mount = mount.clone();
            mount.options.data.push(("mode".to_owned(), Some(format!("{:o}", found.st_mode & 0o7777))));
            Cow::Owned(mount)
        }
        Err(_) => Cow::Borrowed(mount),
    }
}

fn attach_at_target(root: BorrowedFd<'_>, made: BorrowedFd<'_>, mount: &MountPoint) -> Result<(), RuntimeError> {
    let kind = match paths::file_type(made).during("look at the source of", mount.target.display())? {
        FileType::Directory => Kind::Directory,
        _ => Kind::File,
    };
    let target = paths::ensure(root, &mount.target, kind, links_on_the_way(&mount.target))
        .during("make the target of the mount", mount.target.display())?;
    if mount.options.copies_up {
        let has_mode = mount.options.data.iter().any(|(key, _)| key == "mode");
        let own_mode = if has_mode { OwnMode::Kept } else { OwnMode::Copied };
        copy_up::copy(target.as_fd(), made, own_mode).during("copy what is at", mount.target.display())?;
    }
    attach(made, target.as_fd(), &mount.target)
}

/// A link in the place of these directories would put them elsewhere, and what is masked there would stay bare
/// (CVE-2019-19921, CVE-2023-27561). Where a target leads is decided by its names: `/proc/`, `//proc` and `/./proc` are
/// `/proc` too, and `..` at the root stays there.
fn links_on_the_way(target: &Path) -> Links {
    match names(target).as_slice() {
        [only] if ["proc", "sys", "dev"].iter().any(|name| *only == *name) => Links::Refused,
        _ => Links::Inside,
    }
}

/// Of the directories on the way from the root.
pub(super) fn names(target: &Path) -> Vec<&OsStr> {
    let mut names: Vec<&OsStr> = Vec::new();
    for component in target.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::ParentDir => drop(names.pop()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    names
}

/// A new filesystem at /dev that is to be read-only, as it has to be while devices and further mounts come into it:
/// [`close`] does the rest.
pub(super) fn open_for_devices(mount: &MountPoint) -> Option<MountPoint> {
    let is_dev = mount.options.bind.is_none() && names(&mount.target) == ["dev"];
    let read_only = libc::MOUNT_ATTR_RDONLY;
    if !is_dev || (mount.options.attributes.set | mount.options.recursive.set) & read_only == 0 {
        return None;
    }
    let mut open = mount.clone();
    open.options.attributes.set &= !read_only;
    open.options.recursive.set &= !read_only;
    Some(open)
}

pub(super) fn close(dev: BorrowedFd<'_>) -> Result<(), RuntimeError> {
    let attributes = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    mount_setattr(dev, Reach::One, attributes).during("make read-only", "/dev")
}

/// A tmpfs with a directory for each hierarchy, then closed for writing.
fn attach_cgroups(
    root: BorrowedFd<'_>,
    mount: &MountPoint,
    directories: Vec<(PathBuf, OwnedFd)>,
) -> Result<OwnedFd, RuntimeError> {
    let name = mount.target.display();
    let tmpfs = MountPoint {
        target: mount.target.clone(),
        kind: "tmpfs".to_owned(),
        source: None,
        options: MountOptions { data: vec![("mode".to_owned(), Some("755".to_owned()))], ..MountOptions::default() },
        owners: None,
    };
    let made = make_filesystem(&tmpfs)?;
    attach_at_target(root, made.as_fd(), &tmpfs)?;
    for (directory, source) in directories {
        let place = paths::ensure(made.as_fd(), &directory, Kind::Directory, Links::Refused)
            .during("make the target of the mount", &name)?;
        attach(source.as_fd(), place.as_fd(), &mount.target)?;
    }
    mount_setattr(made.as_fd(), Reach::One, mount.options.attributes).during("set the attributes of", &name)?;
    Ok(made)
}

/// A bind mount is private unless it says otherwise: runtimes of other makes do the same, and mounts made inside a
/// container must not appear on the host.
fn adjust_bind(source: OwnedFd, mount: &MountPoint, users: Option<&OwnedFd>) -> Result<OwnedFd, RuntimeError> {
    if let Some(users) = users {
        map_owners(source.as_fd(), mount.options.map_owners.unwrap_or(Reach::One), users.as_fd())
            .during("map the owners in the mount", mount.target.display())?;
    }
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

pub(super) fn make_filesystem(mount: &MountPoint) -> Result<OwnedFd, RuntimeError> {
    let filesystem = fsopen(&mount.kind, FsOpenFlags::FSOPEN_CLOEXEC)
        .during("mount", format!("{} (the filesystem type {})", mount.target.display(), mount.kind))?;
    finish_filesystem(filesystem, mount)
}

fn finish_filesystem(filesystem: OwnedFd, mount: &MountPoint) -> Result<OwnedFd, RuntimeError> {
    let name = mount.target.display();
    let source = mount.source.as_deref().unwrap_or(Path::new(&mount.kind));
    fsconfig_set_string(filesystem.as_fd(), "source", source).during("mount", &name)?;
    configure(&filesystem, mount)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_links_may_not_move_is_known_by_every_spelling() {
        for target in ["/proc", "/proc/", "//proc", "/./sys/.", "/../dev", "/a/../proc", "proc"] {
            assert_eq!(links_on_the_way(Path::new(target)), Links::Refused, "{target}");
        }
        for target in ["/", "/proc/sys", "/dev/shm", "/a/proc", "/procs"] {
            assert_eq!(links_on_the_way(Path::new(target)), Links::Inside, "{target}");
        }
    }
}
