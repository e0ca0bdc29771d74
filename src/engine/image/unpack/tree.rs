//! The directory tree that a layer grows into: finding, making and removing directories by descriptors.
//!
//! A member's path is walked component by component from the root's descriptor; links on the way are followed as they
//! would be inside the container, so that with `lib -> usr/lib` the member `lib/x` lands in `usr/lib`. Every directory
//! is known by its real path, without links, and keeps one record of attributes, applied at the end: until then it is
//! `0700 root`, so that neither set-group-ID bits nor default ACLs nor times are disturbed by what is made inside.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::fields::Pair;
use super::report::Problem;

/// More than images have and few enough that whoever removes the tree again has the descriptors for it.
const DEPTH_MAX: usize = 256;
/// As the kernel counts for one lookup (path_resolution(7)).
const LINKS_MAX: usize = 40;
const PATH_MAX: usize = 4096;
/// Descriptors of directories that are kept open.
const CACHE_MAX: usize = 256;

/// A directory, open (`O_PATH`).
pub struct Directory {
    pub fd: OwnedFd,
    /// From the root, without a slash at either end; the root's is empty.
    pub real: Vec<u8>,
}

impl Directory {
    /// The real path of something in it.
    pub fn join(&self, name: &[u8]) -> Vec<u8> {
        match self.real.is_empty() {
            true => name.to_vec(),
            false => [&self.real, b"/".as_slice(), name].concat(),
        }
    }
}

/// What a directory will look like when everything in it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub modified: (i64, u32),
    pub xattrs: Vec<Pair>,
    /// Hides what lower layers have in it.
    pub opaque: bool,
    /// The archive only mentions it as a parent.
    pub implied: bool,
}

impl Attributes {
    fn implied() -> Attributes {
        Attributes { mode: 0o755, uid: 0, gid: 0, modified: (0, 0), xattrs: Vec::new(), opaque: false, implied: true }
    }
}

/// Told of a file that is about to go, by its real path.
pub type Keep<'k> = dyn FnMut(&[u8], File) -> Result<(), Problem> + 'k;

pub struct Tree {
    root: Rc<Directory>,
    /// By the path under which a member named it.
    open: HashMap<Vec<u8>, Rc<Directory>>,
    /// By real path.
    pub attributes: BTreeMap<Vec<u8>, Attributes>,
}

impl Tree {
    pub fn new(root: OwnedFd) -> Tree {
        let root = Rc::new(Directory { fd: root, real: Vec::new() });
        let attributes = BTreeMap::from([(Vec::new(), Attributes::implied())]);
        Tree { root, open: HashMap::new(), attributes }
    }

    /// The directory at `path`, made with its parents if it is not there.
    pub fn directory(&mut self, path: &[u8]) -> Result<Rc<Directory>, Problem> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some(directory) = self.open.get(path) {
            return Ok(directory.clone());
        }
        // Before the first step: each component is a call within the one for the next.
        check_depth(path)?;
        let (parent, name) = split(path);
        let parent = self.directory(parent)?;
        let directory = self.enter(&parent, name, &mut 0)?;
        if self.open.len() >= CACHE_MAX {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), directory.clone());
        Ok(directory)
    }

    /// The attributes of a directory that is there.
    pub fn attributes_of(&mut self, real: &[u8]) -> &mut Attributes {
        self.attributes.entry(real.to_vec()).or_insert_with(Attributes::implied)
    }

    /// Makes an empty directory where nothing is.
    pub fn make(&mut self, parent: &Directory, name: &[u8]) -> Result<(), Errno> {
        rustix::fs::mkdirat(&parent.fd, name, Mode::RWXU)?;
        self.attributes.insert(parent.join(name), Attributes::implied());
        Ok(())
    }

    /// Removes whatever is at `name`, with all in it. Paths that led through it may lead elsewhere afterwards.
    pub fn remove(&mut self, parent: &Directory, name: &[u8]) -> Result<(), Problem> {
        let real = parent.join(name);
        self.open.clear();
        remove(&parent.fd, name).map_err(|errno| Problem::on("replace", &real, errno))?;
        self.forget(&real);
        Ok(())
    }

    /// What was known of a directory that is gone and of those below it. Costs what goes, not what is known: an archive
    /// may replace each of its files many times.
    fn forget(&mut self, real: &[u8]) {
        // Only directories are known, and what is below one is known only with it (see `make`).
        if self.attributes.remove(real).is_none() {
            return;
        }
        // `0` follows `/`.
        let (below, beyond) = ([real, b"/"].concat(), [real, b"0"].concat());
        while let Some((path, _)) = self.attributes.range(below.clone()..beyond.clone()).next() {
            let path = path.clone();
            self.attributes.remove(&path);
        }
    }

    /// Calls `keep` with every file at `name` or below, and its real path.
    pub fn keep(&self, parent: &Directory, name: &[u8], keep: &mut Keep<'_>) -> Result<(), Problem> {
        let real = parent.join(name);
        let failed = |errno| Problem::on("read again", &real, errno);
        let stat = rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let file = rustix::fs::openat(&parent.fd, name, flags, Mode::empty()).map_err(failed)?;
                keep(&real, file.into())
            }
            FileType::Directory => {
                let flags = flags | OFlags::DIRECTORY;
                let fd = rustix::fs::openat(&parent.fd, name, flags, Mode::empty()).map_err(failed)?;
                let names = names(&fd).map_err(failed)?;
                let directory = Directory { fd, real: real.clone() };
                names.iter().try_for_each(|name| self.keep(&directory, name.to_bytes(), keep))
            }
            _ => Ok(()),
        }
    }

    /// One step of a path: into a directory, through a link, or making what is missing.
    fn enter(&mut self, parent: &Rc<Directory>, name: &[u8], links: &mut usize) -> Result<Rc<Directory>, Problem> {
        match name {
            b"" | b"." => return Ok(parent.clone()),
            b".." => return self.real_directory(split(&parent.real.clone()).0),
            _ => {}
        }
        let real = parent.join(name);
        let failed = |errno| Problem::on("enter", &real, errno);
        check_depth(&real)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&parent.fd, name, flags, Mode::empty()) {
            Ok(fd) => return Ok(Rc::new(Directory { fd, real })),
            Err(Errno::NOENT) => {
                self.make(parent, name).map_err(failed)?;
                return self.enter(parent, name, links);
            }
            Err(Errno::NOTDIR) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let found = rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Symlink => {
                *links += 1;
                if *links > LINKS_MAX {
                    return Err(failed(Errno::LOOP));
                }
                let target = rustix::fs::readlinkat(&parent.fd, name, Vec::new()).map_err(failed)?.into_bytes();
                let mut at = if target.starts_with(b"/") { self.root.clone() } else { parent.clone() };
                for component in target.split(|byte| *byte == b'/') {
                    at = self.enter(&at, component, links)?;
                }
                Ok(at)
            }
            // A whiteout and then something below it: the directory is new and the one that was there is gone.
            FileType::CharacterDevice if found.st_rdev == 0 => {
                self.remove(parent, name)?;
                self.make(parent, name).map_err(failed)?;
                self.attributes_of(&real).opaque = true;
                self.enter(parent, name, links)
            }
            _ => Err(failed(Errno::NOTDIR)),
        }
    }

    /// The directory at a path without links.
    fn real_directory(&mut self, real: &[u8]) -> Result<Rc<Directory>, Problem> {
        if real.is_empty() {
            return Ok(self.root.clone());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
        let opened = crate::sys::path::openat2(&self.root.fd, real, flags, Mode::empty(), resolve);
        let fd = opened.map_err(|errno| Problem::on("enter", real, errno))?;
        Ok(Rc::new(Directory { fd, real: real.to_vec() }))
    }
}

fn check_depth(path: &[u8]) -> Result<(), Problem> {
    match path.len() > PATH_MAX || path.iter().filter(|byte| **byte == b'/').count() >= DEPTH_MAX {
        true => {
            let problem = format!("a path is deeper than {DEPTH_MAX} directories or longer than {PATH_MAX} bytes");
            Err(Problem::new(problem))
        }
        false => Ok(()),
    }
}

/// Parent and last component of a cleaned path.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// The path from the root, with `.`, empty components and `..` resolved by name. Nothing is above the root.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

fn remove(parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        result => return result,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    // Names first: removing while reading may pass over some.
    for name in names(&fd)? {
        remove(&fd, name.to_bytes())?;
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// What is in a directory.
fn names(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_by_name_and_never_leave_the_root() {
        for (path, cleaned) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("/a/../b", "b"),
            ("../../etc/passwd", "etc/passwd"),
            ("a/../../..", ""),
            ("/", ""),
            ("...", "..."),
        ] {
            assert_eq!(clean(path.as_bytes()), cleaned.as_bytes(), "{path}");
        }
    }

    #[test]
    fn a_path_is_split_before_its_last_component() {
        assert_eq!(split(b"a/b/c"), (b"a/b".as_slice(), b"c".as_slice()));
        assert_eq!(split(b"a"), (b"".as_slice(), b"a".as_slice()));
    }

    #[test]
    fn what_is_known_of_a_directory_goes_with_it_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut tree = Tree::new(rustix::fs::open(root.path(), flags, Mode::empty()).unwrap());
        for path in ["a/b/c", "a-b", "a0", "ab"] {
            tree.directory(path.as_bytes()).unwrap();
        }
        let top = tree.directory(b"").unwrap();
        tree.remove(&top, b"a").unwrap();
        assert_eq!(tree.attributes.keys().collect::<Vec<_>>(), [&b""[..], b"a-b", b"a0", b"ab"]);
    }

    #[test]
    fn replacing_files_costs_the_same_however_many_directories_are_known() {
        let root = tempfile::tempdir().unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut tree = Tree::new(rustix::fs::open(root.path(), flags, Mode::empty()).unwrap());
        for number in 0..1_000_000 {
            tree.attributes.insert(format!("d/{number}").into_bytes(), Attributes::implied());
        }
        // Were each to look at all the others, these would be 10^10 comparisons.
        let begin = std::time::Instant::now();
        for number in 0..10_000 {
            tree.forget(format!("f/{number}").as_bytes());
        }
        assert!(begin.elapsed() < std::time::Duration::from_secs(10), "{:?}", begin.elapsed());
    }
}
