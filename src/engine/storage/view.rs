//! The merged view of layers, for reading an image before a container of it runs.
//!
//! The layers are mounted by overlayfs in a mount namespace that lives as long as one thread: nothing appears in
//! the host's mount table and nothing is left to unmount, whatever happens (mount_namespaces(7)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};

/// Calls `look` with the root of the merged layers (lowest first), read-only. `place` is an existing directory to mount on; other
/// processes never see it covered.
pub fn with_layers<T: Send>(
    layers: &[PathBuf],
    place: &Path,
    look: impl FnOnce(BorrowedFd<'_>) -> io::Result<T> + Send,
) -> io::Result<T> {
    let looked = std::thread::scope(|scope| scope.spawn(|| look(mount(layers, place)?.as_fd())).join());
    looked.unwrap_or_else(|_| Err(io::Error::other("the thread that looked at the layers panicked")))
}

fn mount(layers: &[PathBuf], place: &Path) -> io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let [only] = layers {
        // overlayfs wants two layers where there is no upper directory.
        return Ok(rustix::fs::openat(CWD, only, directory, Mode::empty())?);
    }
    // It unshares the working directory and root too, so only this thread changes (unshare(2), CLONE_NEWNS).
    crate::sys::namespace::unshare(libc::CLONE_NEWNS)?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // Short names: the options of mount(2) must fit a page, which 200 paths of layers would not.
    let opened: Vec<OwnedFd> = layers
        .iter()
        .rev()
        .map(|layer| rustix::fs::openat(CWD, layer, directory, Mode::empty()))
        .collect::<Result<_, _>>()?;
    let names: Vec<String> =
        opened.iter().map(|fd| format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd))).collect();
    let options = format!("lowerdir={}", names.join(":"));
    let options = std::ffi::CString::new(options)?;
    rustix::mount::mount("overlay", place, "overlay", MountFlags::RDONLY, options.as_c_str())?;
    Ok(rustix::fs::openat(CWD, place, directory, Mode::empty())?)
}

/// Opens a directory of the view, links inside resolved inside. `None` when there is no such directory.
pub fn directory(root: BorrowedFd<'_>, path: &str) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, path, flags, Mode::empty(), inside) {
        Ok(fd) => Ok(Some(fd)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
