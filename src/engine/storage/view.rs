//! The merged view of layers, for reading an image before a container of it runs.
//!
//! The layers are mounted by overlayfs in a mount namespace that lives as long as one thread: nothing appears in
//! the host's mount table and nothing is left to unmount, whatever happens (mount_namespaces(7)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::runtime::layer;
use crate::runtime::rootfs::{SELF_CONTAINED, distinct};

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

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

/// Where the changes to a view go.
#[derive(Debug, Clone, Copy)]
pub struct Writable<'a> {
    pub upper: &'a Path,
    pub work: &'a Path,
}

/// The root of the merged layers, which is there as long as the descriptor is. Paths below it are resolved as on any
/// mount, but no other path leads to it.
pub fn open(layers: &[PathBuf], writable: Option<Writable<'_>>, place: &Path) -> io::Result<OwnedFd> {
    let opened = std::thread::scope(|scope| {
        scope
            .spawn(|| match writable {
                Some(writable) => mount_writable(layers, writable, place),
                None => mount(layers, place),
            })
            .join()
    });
    opened.unwrap_or_else(|_| Err(io::Error::other("the thread that mounted the layers panicked")))
}

fn mount(layers: &[PathBuf], place: &Path) -> io::Result<OwnedFd> {
    let layers = distinct(layers);
    if let [only] = layers.as_slice() {
        // overlayfs wants two layers where there is no upper directory.
        return layer::open(only);
    }
    leave_namespace()?;
    let opened = open_all(&layers)?;
    mount_overlay(place, &format!("lowerdir={}", joined(&opened)), MountFlags::RDONLY)
}

fn mount_writable(layers: &[PathBuf], writable: Writable<'_>, place: &Path) -> io::Result<OwnedFd> {
    leave_namespace()?;
    let opened = open_all(&distinct(layers))?;
    let own = open_all(&[writable.upper.to_owned(), writable.work.to_owned()])?;
    let [work, upper] = own.as_slice() else { return Err(io::ErrorKind::NotFound.into()) };
    let mut options = format!("lowerdir={},upperdir={},workdir={}", joined(&opened), name(upper), name(work));
    for (option, value) in SELF_CONTAINED {
        options += &format!(",{option}={value}");
    }
    mount_overlay(place, &options, MountFlags::empty())
}

/// What this thread mounts from here on is seen by nobody else. Layers are opened afterwards: overlayfs takes only
/// those of the namespace that it is mounted in.
fn leave_namespace() -> io::Result<()> {
    // It unshares the working directory and root too, so only this thread changes (unshare(2), CLONE_NEWNS).
    crate::sys::namespace::unshare(libc::CLONE_NEWNS)?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(())
}

/// Uppermost first, as overlayfs takes them.
fn open_all(layers: &[PathBuf]) -> io::Result<Vec<OwnedFd>> {
    layers.iter().rev().map(|layer| layer::attach(layer)).collect()
}

/// Short names: the options of mount(2) must fit a page, which 200 paths of layers would not.
fn name(layer: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(layer))
}

fn joined(layers: &[OwnedFd]) -> String {
    layers.iter().map(name).collect::<Vec<_>>().join(":")
}

fn mount_overlay(place: &Path, options: &str, flags: MountFlags) -> io::Result<OwnedFd> {
    let options = std::ffi::CString::new(options)?;
    // Nodes are looked at here and never opened.
    rustix::mount::mount("overlay", place, "overlay", flags | MountFlags::NODEV, options.as_c_str())?;
    Ok(rustix::fs::openat(CWD, place, DIRECTORY, Mode::empty())?)
}

/// Opens a directory of the view, links inside resolved inside. `None` when there is no such directory.
pub fn directory(root: BorrowedFd<'_>, path: &str) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match crate::sys::path::openat2(root, path, flags, Mode::empty(), inside) {
        Ok(fd) => Ok(Some(fd)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
