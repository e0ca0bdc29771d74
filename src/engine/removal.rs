//! Removing a tree of files, and nothing that is mounted in it.
//!
//! Somebody may have put a disk on a volume's directory. Deleting across the mount point would empty the disk and then
//! fail with EBUSY, so mount points are looked for first, and the walk itself crosses none that appears meanwhile
//! (openat2(2), `RESOLVE_NO_XDEV`).
//!
//! # Decisions
//! The table of mounts is read, not the tree: it is as short for a million files as for one. It says what this process
//! sees; what is mounted in other mount namespaces the kernel takes off there, with no file of it touched.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, RenameFlags, renameat_with, unlinkat};
use rustix::io::Errno;

use super::walk::{DIRECTORY, open};

/// How many directories deep the walk goes with one descriptor each. A container can nest them until no process may
/// have as many open, so deeper ones are first moved up.
const MAX_DEPTH: u32 = 100;

/// Why something stays: a file system is mounted here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted(pub PathBuf);

impl fmt::Display for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a file system is mounted on `{}`", self.0.display())
    }
}

impl std::error::Error for Mounted {}

/// Removes a file, or a directory with all in it. `Ok` when there is none. A directory in which something is mounted
/// stays as it is: see [`ensure_unmounted`].
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => ensure_unmounted(path).and_then(|()| remove_tree(path)),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// An error of [`io::ErrorKind::ResourceBusy`] that holds a [`Mounted`] when something is mounted on or below `path`.
pub(super) fn ensure_unmounted(path: &Path) -> io::Result<()> {
    let path = path.canonicalize()?;
    let table = fs::read("/proc/self/mountinfo")?;
    let mut points = table.split(|byte| *byte == b'\n').filter_map(mount_point);
    match points.find(|point| point.starts_with(&path)) {
        Some(point) => Err(io::Error::new(io::ErrorKind::ResourceBusy, Mounted(point))),
        None => Ok(()),
    }
}

/// The mount point that stands in the way, if that is what the error says.
pub(super) fn mounted(error: &io::Error) -> Option<&Path> {
    error.get_ref()?.downcast_ref::<Mounted>().map(|Mounted(point)| point.as_path())
}

/// The fifth field of a line of mountinfo (proc_pid_mountinfo(5)), where blanks and backslashes are written in octal.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let mut rest = line.split(|byte| *byte == b' ').nth(4)?;
    let mut path = Vec::with_capacity(rest.len());
    while let Some((first, behind)) = rest.split_first() {
        let escaped = (*first == b'\\').then(|| behind.split_at_checked(3)).flatten();
        let byte = escaped.and_then(|(digits, _)| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        path.push(byte.unwrap_or(*first));
        rest = escaped.filter(|_| byte.is_some()).map_or(behind, |(_, behind)| behind);
    }
    Some(PathBuf::from(OsString::from_vec(path)))
}

/// Removes a directory with all in it, for whoever knows that nothing is mounted there.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    let top = rustix::fs::open(path, DIRECTORY, Mode::empty())?;
    let mut walk = Walk { top: top.as_fd(), moved: 0 };
    // What was moved up is emptied in the next round.
    loop {
        let moved = walk.moved;
        walk.empty(top.as_fd(), 0)?;
        if walk.moved == moved {
            return fs::remove_dir(path);
        }
    }
}

struct Walk<'a> {
    top: BorrowedFd<'a>,
    /// How many directories were moved there.
    moved: u64,
}

impl Walk<'_> {
    fn empty(&mut self, directory: BorrowedFd<'_>, depth: u32) -> io::Result<()> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            // Not every file system says of what type an entry is; a directory is not unlinked (EISDIR).
            let unlinked = match entry.file_type() {
                FileType::Directory => Err(Errno::ISDIR),
                _ => unlinkat(directory, name, AtFlags::empty()),
            };
            match unlinked {
                Err(Errno::ISDIR) if depth == MAX_DEPTH => self.move_up(directory, name)?,
                Err(Errno::ISDIR) => {
                    self.empty(open(directory, name)?.as_fd(), depth + 1)?;
                    unlinkat(directory, name, AtFlags::REMOVEDIR)?;
                }
                unlinked => unlinked?,
            }
        }
        Ok(())
    }

    fn move_up(&mut self, directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        loop {
            self.moved += 1;
            let place = format!(".deep-{}", self.moved);
            match renameat_with(directory, name, self.top, place, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                moved => return Ok(moved?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_in_a_mount_point_are_read() {
        let line = br"36 35 98:0 / /srv/a\040b\134c\09 rw - ext4 /dev/sda1 rw";
        assert_eq!(mount_point(line).unwrap(), Path::new(r"/srv/a b\c\09"));
        assert_eq!(mount_point(b""), None);
    }

    #[test]
    fn links_go_and_what_they_lead_to_stays() {
        let root = tempfile::tempdir().unwrap();
        let (tree, other) = (root.path().join("tree"), root.path().join("other"));
        fs::create_dir_all(tree.join("sub")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("kept"), "").unwrap();
        for link in [tree.join("sub/link"), root.path().join("link")] {
            std::os::unix::fs::symlink(&other, link).unwrap();
        }
        for gone in ["tree", "link", "never-was"] {
            remove(&root.path().join(gone)).unwrap();
        }
        let left: Vec<_> = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["other"]);
        assert!(other.join("kept").exists());
    }

    #[test]
    fn a_tree_deeper_than_descriptors_reach_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        fs::create_dir(&tree).unwrap();
        // A name that is taken where the deep ones are moved to.
        fs::create_dir(tree.join(".deep-1")).unwrap();
        let mut inner = rustix::fs::open(&tree, DIRECTORY, Mode::empty()).unwrap();
        // Longer than PATH_MAX, and with more levels than most processes may have descriptors.
        for _ in 0..3_000 {
            rustix::fs::mkdirat(&inner, "d", Mode::RWXU).unwrap();
            inner = rustix::fs::openat(&inner, "d", DIRECTORY, Mode::empty()).unwrap();
        }
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }
}
