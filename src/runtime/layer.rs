//! Layers: directories, or EROFS images that are mounted from their files (Linux 6.12).
//!
//! Whoever has the path of a layer need not know which it is. For an image there are two ways to its files:
//!
//! ```text
//! layers/<diff id>/layer.erofs   [`open`]    a mount that is attached nowhere and goes with its descriptor
//!                  mounted/      [`attach`]  one that is attached here, which further ones find
//! ```
//!
//! # Decisions
//! * A kernel that mounts EROFS from devices only (before 6.12) has the images that a newer one left by read-only loop
//!   devices, which go with their mounts: who boots the older kernel again loses no container. Nothing is unpacked as an
//!   image there.
//! * Every mount of an image that is made anew is a file system of its own to the kernel, with its own copy in memory of
//!   whatever is read. Containers shall have one copy together, as they have of directories: so the first of them that
//!   starts attaches the image beside its file, where the mount is found by those that come later. There are as many
//!   such mounts as layers in use, however many containers use them. All other readers make do with a mount for
//!   themselves, of which nothing stays.
//! * An attached mount may be taken off at any time, for overlayfs holds a copy of its own of each that it has: with the
//!   last container of a state root all are, and each with its layer.
//! * In a mount namespace of its own a container's start attaches what it does not find there, and so starts also where
//!   the one that attached was in another. Such a container has a copy in memory for itself.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, fstatfs, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::sys::loop_device;

/// The name of a layer that is an image, in its directory.
pub const IMAGE: &str = "layer.erofs";
/// Beside it: the directory where it is attached.
pub const MOUNTED: &str = "mounted";

/// `f_type` (statfs(2)).
const EROFS: u64 = 0xe0f5_e1e2;
/// Of a string that fsconfig(2) takes, with its end.
const STRING_MAX: usize = 256;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The root directory of a layer, to read from. Nothing of it stays when the descriptor is closed.
pub fn open(layer: &Path) -> io::Result<OwnedFd> {
    match openat(CWD, layer, DIRECTORY, Mode::empty()) {
        Err(Errno::NOTDIR) => match mounted(&layer.with_file_name(MOUNTED))? {
            Some(mounted) => Ok(mounted),
            None => mount(layer),
        },
        opened => Ok(opened?),
    }
}

/// The same, which others find as well: in this mount namespace and in those that are made of it.
pub fn attach(layer: &Path) -> io::Result<OwnedFd> {
    match openat(CWD, layer, DIRECTORY, Mode::empty()) {
        Err(Errno::NOTDIR) => {}
        opened => return Ok(opened?),
    }
    let place = layer.with_file_name(MOUNTED);
    if let Some(mounted) = mounted(&place)? {
        return Ok(mounted);
    }
    let image = File::open(layer)?;
    image.lock()?;
    // Somebody may have been here first.
    if let Some(mounted) = mounted(&place)? {
        return Ok(mounted);
    }
    if let Err(error) = fs::create_dir(&place)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    let made = mount(layer)?;
    let at = openat(CWD, &place, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(made.as_fd(), "", at.as_fd(), "", flags)?;
    Ok(made)
}

/// Takes off what [`attach`] has attached in the directory of a layer. Who uses it has it as long as he needs it.
pub fn detach(directory: &Path) -> io::Result<()> {
    let place = directory.join(MOUNTED);
    while mounted(&place)?.is_some() {
        unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    Ok(())
}

/// A directory to attach the files of a layer on.
pub fn place(layer: &Path) -> PathBuf {
    if layer.is_dir() { layer.to_owned() } else { layer.with_file_name(MOUNTED) }
}

/// Whether this directory is of a layer that is an image.
fn is_image(root: &OwnedFd) -> io::Result<bool> {
    Ok(fstatfs(root)?.f_type as u64 == EROFS)
}

/// The root of the image that is attached there.
fn mounted(place: &Path) -> io::Result<Option<OwnedFd>> {
    match openat(CWD, place, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        opened => {
            let opened = opened?;
            Ok(is_image(&opened)?.then_some(opened))
        }
    }
}

/// Mounts an image straight from its file, attached nowhere. ENOTBLK where kernel or file system cannot.
pub fn mounted_from_file(image: &Path) -> io::Result<OwnedFd> {
    let file = openat(CWD, image, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let short = format!("/proc/self/fd/{}", file.as_raw_fd());
    mount_source(if image.as_os_str().len() < STRING_MAX { image } else { Path::new(&short) })
}

/// Mounts an image, attached nowhere; where that cannot be done from its file, from a device that goes with the mount.
fn mount(image: &Path) -> io::Result<OwnedFd> {
    match mounted_from_file(image) {
        Err(error) if error.raw_os_error() == Some(Errno::NOTBLK.raw_os_error()) => {
            let file = File::open(image)?;
            let (_held, device) = loop_device::attach(file.as_fd())?;
            mount_source(&device)
        }
        mounted => mounted,
    }
}

/// What overlayfs shows of it is not bound by these flags; on the host nobody shall
/// execute what strangers have made.
fn mount_source(source: &Path) -> io::Result<OwnedFd> {
    let filesystem = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(filesystem.as_fd(), "source", source)?;
    // A device that is read-only is not mounted otherwise.
    fsconfig_set_flag(filesystem.as_fd(), "ro")?;
    fsconfig_create(filesystem.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(filesystem.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}
