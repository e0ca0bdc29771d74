//! The root filesystem: assembled inside the container's mount namespace, then made `/`.
//!
//! Nothing of it appears in the host's mount table, and nothing is left to unmount when the namespace ends:
//!
//! ```text
//! fsopen(overlay) -> fsmount: a mount that is attached nowhere
//! move_mount onto `/`, in this namespace only
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
use super::layer;
use super::mount_options::Propagation;
use super::prepare::Access;
use crate::model::launch::RootFilesystem;
use crate::sys::mount::{Attributes, Reach, map_owners, mount_setattr};

/// Cuts this namespace's mounts off from the host's, so that nothing mounted from here on is seen outside.
pub(super) fn detach_from_host() -> Result<(), RuntimeError> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .during("make private the mounts below", "/")
}

/// The layers, lowest first, each once: overlayfs refuses one that it has already (ELOOP), and images have the same
/// layer twice, empty ones above all. Of equal ones the uppermost stays: whatever the lower one has or hides, that one
/// has or hides too, and nearer.
pub fn distinct(layers: &[PathBuf]) -> Vec<PathBuf> {
    let is_last = |(at, layer): &(usize, &PathBuf)| !layers[at + 1..].contains(layer);
    layers.iter().enumerate().filter(is_last).map(|(_, layer)| layer.clone()).collect()
}

/// Makes the root filesystem, attached nowhere. `users` is the container's user namespace: layers are shared by all
/// containers, so each sees them through its own mapping; the upper directory is its alone, and must belong to its
/// root.
pub(super) fn assemble(root: &RootFilesystem, users: Option<BorrowedFd<'_>>) -> Result<OwnedFd, RuntimeError> {
    match root {
        RootFilesystem::Overlay { lower, upper, work } => {
            let lower = &distinct(lower);
            let layers = Layers::open(lower, upper, work, users)?;
            match layers.mount_appended() {
                // What kernels say that know no such option, no descriptors in options, or no layers that are
                // attached nowhere.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => layers.mount_joined(lower, upper),
                other => other.during("mount the layers on", upper.display()),
            }
        }
        RootFilesystem::Directory(path) => {
            let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | recursive();
            open_tree(CWD, path, clone).during("open the root filesystem", path.display())
        }
    }
}

fn recursive() -> OpenTreeFlags {
    OpenTreeFlags::AT_RECURSIVE
}

fn empty_path() -> OpenTreeFlags {
    OpenTreeFlags::AT_EMPTY_PATH
}

/// Attaches it on top of this namespace's own root, the one directory that every user may enter.
pub(super) fn attach_root(root: BorrowedFd<'_>) -> Result<(), RuntimeError> {
    attach_on(root, Path::new("/"))
}

/// Attaches a mount on a directory of this namespace's. Not on `/` where a user namespace follows: there nothing that
/// was mounted before may be taken off again, but the root must be ([`enter`]).
fn attach_on(mount: BorrowedFd<'_>, directory: &Path) -> Result<(), RuntimeError> {
    let place = open(directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).during("open", directory.display())?;
    attach(mount, place.as_fd(), directory)
}

/// An empty directory that only this namespace sees, over the one that `root` is made of.
pub(super) fn private_tmpfs(root: &RootFilesystem) -> Result<OwnedFd, RuntimeError> {
    let (RootFilesystem::Directory(place) | RootFilesystem::Overlay { upper: place, .. }) = root;
    let step = "mount a tmpfs for";
    let filesystem = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).during(step, "devices")?;
    fsconfig_create(filesystem.as_fd()).during(step, "devices")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let made = fsmount(filesystem.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).during(step, "devices")?;
    // An older kernel copies no mount that is attached nowhere.
    attach_on(made.as_fd(), place)?;
    Ok(made)
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

/// Options with which an upper directory means the same wherever it is: a kernel may be built to leave in it just the
/// new name of a renamed directory, or the metadata of a file whose contents stay below. Nor does it remember what was
/// below it, which is another directory once a layer is made again (overlayfs.rst, "Sharing and copying layers").
pub const SELF_CONTAINED: [(&str, &str); 3] = [("redirect_dir", "off"), ("metacopy", "off"), ("index", "off")];

/// The directories of an overlay, opened: a path with a colon or a comma needs no escaping, and none is too long.
struct Layers {
    /// Lowest first.
    lower: Vec<OwnedFd>,
    upper: OwnedFd,
    work: OwnedFd,
    /// Whether the lower ones are mounts of their own, attached nowhere.
    are_mounts: bool,
}

impl Layers {
    fn open(
        lower: &[PathBuf],
        upper: &Path,
        work: &Path,
        users: Option<BorrowedFd<'_>>,
    ) -> Result<Layers, RuntimeError> {
        let directory = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            open(path, flags, Mode::empty()).during("open the layer", path.display())
        };
        let layer = |path: &PathBuf| {
            let layer = layer::attach(path).during("open the layer", path.display())?;
            let Some(users) = users else { return Ok(layer) };
            let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | empty_path();
            let layer = open_tree(layer.as_fd(), "", clone).during("open the layer", path.display())?;
            map_owners(layer.as_fd(), Reach::One, users).during("map the owners in the layer", path.display())?;
            Ok(layer)
        };
        let lower: Vec<OwnedFd> = lower.iter().map(layer).collect::<Result<_, _>>()?;
        Ok(Layers { lower, upper: directory(upper)?, work: directory(work)?, are_mounts: users.is_some() })
    }

    /// Layers one by one and by descriptor (Linux 6.13), so their number has no limit in a page of text.
    fn mount_appended(&self) -> Result<OwnedFd, Errno> {
        let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for layer in self.lower.iter().rev() {
            fsconfig_set_fd(overlay.as_fd(), "lowerdir+", layer.as_fd())?;
        }
        fsconfig_set_fd(overlay.as_fd(), "upperdir", self.upper.as_fd())?;
        fsconfig_set_fd(overlay.as_fd(), "workdir", self.work.as_fd())?;
        for (option, value) in SELF_CONTAINED {
            fsconfig_set_string(overlay.as_fd(), option, value)?;
        }
        fsconfig_set_string(overlay.as_fd(), "source", "overlay")?;
        fsconfig_create(overlay.as_fd())?;
        fsmount(overlay.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    /// All layers in one option of mount(2): the only way of older kernels. Names of descriptors are short, so a page
    /// of options holds some two hundred layers. Such a kernel takes a layer only from this namespace's tree, and
    /// what it mounts is attached: a copy of that is not.
    fn mount_joined(&self, lower: &[PathBuf], upper: &Path) -> Result<OwnedFd, RuntimeError> {
        let step = "mount the layers on";
        if self.are_mounts {
            self.lower.iter().zip(lower).try_for_each(|(layer, path)| attach_on(layer.as_fd(), &layer::place(path)))?;
        }
        let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd));
        let lower: Vec<String> = self.lower.iter().rev().map(name).collect();
        let options =
            format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), name(&self.upper), name(&self.work));
        let options = SELF_CONTAINED.iter().fold(options, |all, (option, value)| format!("{all},{option}={value}"));
        let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL).during("mount", upper.display())?;
        mount("overlay", name(&self.upper), "overlay", MountFlags::empty(), Some(options.as_c_str()))
            .during(step, upper.display())?;
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        open_tree(CWD, upper, clone).during(step, upper.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_layers_the_uppermost_stays() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(distinct(&paths(&["a", "b", "a", "c", "b"])), paths(&["a", "c", "b"]));
        assert_eq!(distinct(&paths(&["a"])), paths(&["a"]));
    }
}
