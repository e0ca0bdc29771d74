//! Paths inside a container's root filesystem.
//!
//! An image, or another container that shares a volume, controls every name and every link below the root, and may
//! change them while we look. So a path is never resolved by joining strings: it is walked from the root's
//! descriptor, and what comes out is a descriptor too (CVE-2021-30465, CVE-2019-19921, CVE-2023-27561).

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat, readlinkat, statat};
use rustix::io::Errno;

/// As many links as the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// What a mount target is to be, where nothing is there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// Whether links may stand in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// They are followed as if the root were `/`; never the magic ones of /proc.
    Inside,
    Refused,
}

/// What is at `path` below `root`, as an `O_PATH` descriptor.
pub(super) fn resolve(root: BorrowedFd<'_>, path: &Path, links: Links) -> io::Result<OwnedFd> {
    let mut how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if links == Links::Refused {
        how |= ResolveFlags::NO_SYMLINKS;
    }
    Ok(crate::sys::path::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)?)
}

/// What is at `path`, made where it is missing: directories on the way with mode 0755, and at the end a `kind`.
///
/// A link that leads nowhere is followed too, and what it names is made inside the root, as Docker does: images of
/// whole systems have such an `/etc/resolv.conf`.
pub(super) fn ensure(root: BorrowedFd<'_>, path: &Path, kind: Kind, links: Links) -> io::Result<OwnedFd> {
    match resolve(root, path, links) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(root, path, kind, links),
        other => other,
    }
}

fn make(root: BorrowedFd<'_>, path: &Path, kind: Kind, links: Links) -> io::Result<OwnedFd> {
    // `..` goes up this stack, never through the filesystem, so a directory moved meanwhile leads nowhere else.
    let mut above: Vec<OwnedFd> = vec![root.try_clone_to_owned()?];
    let mut ahead = components(path);
    let mut links_left = if links == Links::Inside { MOST_LINKS } else { 0 };
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            if above.len() > 1 {
                above.pop();
            }
            continue;
        }
        let here = above[above.len() - 1].as_fd();
        let next = open_or_make(here, &name, if ahead.is_empty() { kind } else { Kind::Directory })?;
        let found = FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode);
        if found == FileType::Symlink {
            links_left = links_left.checked_sub(1).ok_or(Errno::LOOP)?;
            let target = PathBuf::from(OsString::from_vec(readlinkat(here, &name, Vec::new())?.into_bytes()));
            if target.is_absolute() {
                above.truncate(1);
            }
            for component in components(&target).into_iter().rev() {
                ahead.push_front(component);
            }
        } else if found == FileType::Directory || ahead.is_empty() {
            above.push(next);
        } else {
            return Err(Errno::NOTDIR.into());
        }
    }
    above.pop().ok_or_else(|| Errno::NOENT.into())
}

fn open_or_make(here: BorrowedFd<'_>, name: &OsStr, kind: Kind) -> io::Result<OwnedFd> {
    let open = || openat(here, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    match open() {
        Err(Errno::NOENT) => {}
        other => return Ok(other?),
    }
    let made = match kind {
        Kind::Directory => mkdirat(here, name, Mode::from_raw_mode(0o755)),
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(here, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    };
    match made {
        // Another container that shares the volume was first. What it made is looked at as if it had always been there.
        Ok(()) | Err(Errno::EXIST) => Ok(open()?),
        Err(errno) => Err(errno.into()),
    }
}

/// The names of a path; the root and `.` are none.
fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
        })
        .collect()
}

/// The type of what an `O_PATH` descriptor refers to.
pub(super) fn file_type(file: BorrowedFd<'_>) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(statat(file, "", AtFlags::EMPTY_PATH)?.st_mode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(directory.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        (directory, fd)
    }

    #[test]
    fn missing_directories_and_files_are_made() {
        let (directory, fd) = root();
        ensure(fd.as_fd(), Path::new("/a/b/c"), Kind::File, Links::Inside).unwrap();
        ensure(fd.as_fd(), Path::new("/a/d"), Kind::Directory, Links::Inside).unwrap();
        assert!(directory.path().join("a/b/c").is_file());
        assert!(directory.path().join("a/d").is_dir());
    }

    #[test]
    fn links_never_lead_outside() {
        let outside = tempfile::tempdir().unwrap();
        let (directory, fd) = root();
        let up = format!("{}{}", "../".repeat(20), outside.path().strip_prefix("/").unwrap().display());
        symlink(outside.path(), directory.path().join("absolute")).unwrap();
        symlink(&up, directory.path().join("relative")).unwrap();
        symlink("/proc/self/root", directory.path().join("magic")).unwrap();
        for path in ["absolute/x", "relative/y", "magic/z", "../../../../w", "absolute/../../../../v"] {
            ensure(fd.as_fd(), Path::new(path), Kind::Directory, Links::Inside).unwrap();
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        let inside = directory.path().join(outside.path().strip_prefix("/").unwrap());
        assert!(inside.join("x").is_dir() && inside.join("y").is_dir());
        assert!(directory.path().join("proc/self/root/z").is_dir());
        assert!(directory.path().join("w").is_dir());
    }

    #[test]
    fn a_link_that_leads_nowhere_is_made_to_lead_somewhere_inside() {
        let (directory, fd) = root();
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        symlink("../run/systemd/resolv.conf", directory.path().join("etc/resolv.conf")).unwrap();
        ensure(fd.as_fd(), Path::new("/etc/resolv.conf"), Kind::File, Links::Inside).unwrap();
        assert!(directory.path().join("run/systemd/resolv.conf").is_file());
    }

    #[test]
    fn links_are_refused_where_they_must_be() {
        let (directory, fd) = root();
        symlink("/etc", directory.path().join("proc")).unwrap();
        let error = ensure(fd.as_fd(), Path::new("/proc"), Kind::Directory, Links::Refused).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
        symlink("/nowhere", directory.path().join("sys")).unwrap();
        assert!(ensure(fd.as_fd(), Path::new("/sys"), Kind::Directory, Links::Refused).is_err());
    }

    #[test]
    fn who_comes_second_takes_what_the_first_one_made() {
        let (_directory, fd) = root();
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for round in 0..300 {
                        start.wait();
                        for (name, kind) in [("directory", Kind::Directory), ("file", Kind::File)] {
                            let path = format!("{round}/{name}");
                            ensure(fd.as_fd(), Path::new(&path), kind, Links::Inside).unwrap();
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn circles_end() {
        let (directory, fd) = root();
        symlink("b", directory.path().join("a")).unwrap();
        symlink("a", directory.path().join("b")).unwrap();
        assert!(ensure(fd.as_fd(), Path::new("a/x"), Kind::Directory, Links::Inside).is_err());
    }
}
