//! The files of a container that does not run, as it would see them: its root filesystem with binds on it, in a mount
//! namespace that lives as long as one thread.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::error::{Context, RuntimeError};
use super::paths::{self, Kind, Links};
use super::rootfs;
use crate::model::launch::RootFilesystem;
use crate::sys::namespace::unshare;

/// A path of the host and where it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    pub source: PathBuf,
    pub target: PathBuf,
}

/// Calls `look` with the root directory. Targets that are not there are made, as a start would.
///
/// The caller sees to it that nothing else mounts the same root filesystem meanwhile: what overlayfs does with two
/// mounts of one upper directory is undefined.
pub fn with_files<T: Send>(
    root: &RootFilesystem,
    binds: &[Bind],
    look: impl FnOnce(BorrowedFd<'_>) -> T + Send,
) -> Result<T, RuntimeError> {
    let work = || {
        // It unshares the working directory and root too, so only this thread changes (unshare(2), CLONE_NEWNS).
        unshare(libc::CLONE_NEWNS).during("make", "a mount namespace")?;
        rootfs::detach_from_host()?;
        let mounted = rootfs::assemble(root, None)?;
        rootfs::attach_root(mounted.as_fd())?;
        binds.iter().try_for_each(|bind| attach(mounted.as_fd(), bind))?;
        Ok(look(mounted.as_fd()))
    };
    let looked = std::thread::scope(|scope| scope.spawn(work).join());
    looked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn attach(root: BorrowedFd<'_>, Bind { source, target }: &Bind) -> Result<(), RuntimeError> {
    let name = source.display();
    let kind = match fs::metadata(source).during("look at", name.to_string())?.is_dir() {
        true => Kind::Directory,
        false => Kind::File,
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, source, flags).during("open", name.to_string())?;
    let inside = target.strip_prefix("/").unwrap_or(target);
    let place = paths::ensure(root, inside, kind, Links::Inside).during("open", target.display())?;
    rootfs::attach(tree.as_fd(), place.as_fd(), target)
}

/// What is at `path` below `root`, with no link ever leading out of it. See `paths`.
pub fn resolve(root: BorrowedFd<'_>, path: &Path) -> std::io::Result<std::os::fd::OwnedFd> {
    paths::resolve(root, path, Links::Inside)
}

/// The directory at `path` below `root`, made where it is missing; a link in it is an error (`ELOOP`, `ENOTDIR`).
pub fn ensure_directory_without_links(root: BorrowedFd<'_>, path: &Path) -> std::io::Result<std::os::fd::OwnedFd> {
    paths::ensure(root, path, Kind::Directory, Links::Refused)
}

/// The directory at `path` below `root`, made where it is missing, with no link ever leading out.
pub fn ensure_directory(root: BorrowedFd<'_>, path: &Path) -> std::io::Result<std::os::fd::OwnedFd> {
    paths::ensure(root, path, Kind::Directory, Links::Inside)
}
