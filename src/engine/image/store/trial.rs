//! Whether this kernel mounts images from a file system, and shows all that they have. It is tried: what a kernel can is not
//! its version's affair alone, and not every file system holds images for it.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, mount, mount_change, move_mount};

use crate::engine::image::erofs;
use crate::engine::image::error::ImageError;
use crate::runtime::layer;

/// Tries it in a directory of the file system, in which things are left over.
pub fn mounts_images(directory: &Path) -> Result<bool, ImageError> {
    let path = directory.join(layer::IMAGE);
    let file = File::options().read(true).write(true).create_new(true).open(&path);
    let file = file.map_err(ImageError::file("make the file", &path))?;
    erofs::write_sample(file).map_err(|errno| ImageError::file("write", &path)(errno.into()))?;
    for name in STACK {
        let path = directory.join(name);
        fs::create_dir(&path).map_err(ImageError::file("make the directory", &path))?;
    }
    let Ok(root) = layer::mounted_from_file(&path) else { return Ok(false) };
    Ok(shows_all(&root) && is_stacked(root, directory))
}

/// Some kernels are built without one kind of attributes or the other, and say nothing of what they pass over.
fn shows_all(root: &OwnedFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = rustix::fs::openat(root, ".", flags, Mode::empty()) else { return false };
    let mut read = [0; 64];
    erofs::SAMPLE.iter().all(|(name, value)| {
        rustix::fs::fgetxattr(&root, *name, &mut read).is_ok_and(|length| read[..length] == **value)
    })
}

/// What is stacked, and on what.
pub const STACK: [&str; 4] = ["lower", "empty", "container", "inside"];

/// Whether a container that has this as a layer can mount an overlay of its own root: some kernels count an image as one
/// of the two levels of overlays that they have. In the directory are those of [`STACK`].
pub fn is_stacked(root: OwnedFd, directory: &Path) -> bool {
    let [lower, empty, container, inside] = STACK;
    let try_it = move || -> std::io::Result<()> {
        // Of this thread alone, and gone with it.
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
        // Names in the options, without what a path might hold.
        rustix::process::chdir(directory)?;
        move_mount(root.as_fd(), "", CWD, lower, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        for (below, above) in [(lower, container), (container, inside)] {
            let options = format!("lowerdir={below}:{empty}");
            let options = std::ffi::CString::new(options).unwrap_or_default();
            mount("overlay", above, "overlay", MountFlags::RDONLY, options.as_c_str())?;
        }
        Ok(())
    };
    std::thread::scope(|scope| scope.spawn(try_it).join()).is_ok_and(|tried| tried.is_ok())
}
