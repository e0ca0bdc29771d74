//! Looking at a tree of files that a running container changes meanwhile.
//!
//! A directory that was one a moment ago may be a link to the host's root now (renameat2(2), `RENAME_EXCHANGE`), so no
//! path is made of names: each directory is opened in the one above it, follows no link and leaves its mount for no
//! other (openat2(2)). What went away, or became something else, counts as not there.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fgetxattr, openat, statat};
use rustix::io::Errno;

/// How deep it goes: one descriptor is open for each level.
const MAX_DEPTH: u32 = 256;

pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory in this one, on the same mount: EXDEV where another begins.
pub(super) fn open(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    Ok(crate::sys::path::openat2(directory, name, DIRECTORY, Mode::empty(), resolve)?)
}

/// An open directory of the tree.
pub(super) struct Directory {
    fd: OwnedFd,
    depth: u32,
}

/// What a directory had when it was looked at.
pub(super) struct Entry {
    pub name: OsString,
    pub stat: Stat,
}

impl Entry {
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

impl Directory {
    /// The top of a tree, a path that no container controls.
    pub fn top(path: &Path) -> io::Result<Directory> {
        Ok(Directory { fd: openat(CWD, path, DIRECTORY, Mode::empty())?, depth: 0 })
    }

    /// All entries, by name.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if let Some(stat) = self.look(name)? {
                entries.push(Entry { name: name.to_owned(), stat });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// What is there under this name, itself and not what it leads to.
    pub fn look(&self, name: &OsStr) -> io::Result<Option<Stat>> {
        match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The directory of this name, if it is one.
    pub fn enter(&self, name: &OsStr) -> io::Result<Option<Directory>> {
        let depth = self.depth + 1;
        if depth > MAX_DEPTH {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "directories are nested too deeply"));
        }
        match open(self.fd.as_fd(), name) {
            Ok(fd) => Ok(Some(Directory { fd, depth })),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// An extended attribute of one byte.
    pub fn has_attribute(&self, name: &str, value: u8) -> bool {
        let mut found = [0; 1];
        fgetxattr(&self.fd, name, &mut found).is_ok_and(|_| found == [value])
    }
}

/// The bytes of all regular files below `path`, one with several names once.
pub fn length_of_files(path: &Path) -> io::Result<u64> {
    length(&Directory::top(path)?, &mut BTreeSet::new())
}

fn length(directory: &Directory, seen: &mut BTreeSet<(u64, u64)>) -> io::Result<u64> {
    let mut sum = 0;
    for Entry { name, stat } in directory.entries()? {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                if let Some(inner) = directory.enter(&name)? {
                    sum += length(&inner, seen)?;
                }
            }
            FileType::RegularFile if stat.st_nlink == 1 || seen.insert((stat.st_dev, stat.st_ino)) => {
                sum += u64::try_from(stat.st_size).unwrap_or_default();
            }
            _ => {}
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use rustix::fs::{RenameFlags, renameat_with};

    use super::*;

    #[test]
    fn files_are_counted_once_and_links_lead_nowhere() {
        let root = tempfile::tempdir().unwrap();
        let (tree, other) = (root.path().join("tree"), root.path().join("other"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("large"), [0; 1000]).unwrap();
        fs::write(tree.join("a/b/f"), [0; 10]).unwrap();
        fs::hard_link(tree.join("a/b/f"), tree.join("again")).unwrap();
        symlink(&other, tree.join("a/link")).unwrap();
        assert_eq!(length_of_files(&tree).unwrap(), 10);
    }

    /// What a container does that wants root to walk through the host's files.
    #[test]
    fn a_directory_that_becomes_a_link_while_it_is_walked_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (tree, host) = (root.path().join("tree"), root.path().join("host"));
        fs::create_dir_all(tree.join("d")).unwrap();
        fs::create_dir(&host).unwrap();
        fs::write(host.join("large"), [0; 1000]).unwrap();
        symlink(&host, tree.join("l")).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    renameat_with(CWD, tree.join("d"), CWD, tree.join("l"), RenameFlags::EXCHANGE).unwrap();
                }
            });
            let end = Instant::now() + Duration::from_millis(500);
            let mut largest = 0;
            while Instant::now() < end {
                largest = largest.max(length_of_files(&tree).unwrap());
            }
            over.store(true, Ordering::Relaxed);
            assert_eq!(largest, 0);
        });
    }

    #[test]
    fn a_tree_deeper_than_descriptors_reach_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let mut inner = OwnedFd::from(fs::File::open(root.path()).unwrap());
        for _ in 0..300 {
            rustix::fs::mkdirat(&inner, "d", Mode::RWXU).unwrap();
            inner = openat(&inner, "d", DIRECTORY, Mode::empty()).unwrap();
        }
        assert_eq!(length_of_files(root.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
