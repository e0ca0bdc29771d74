//! A tree that a build takes files from: the context, or the files of a stage or an image.
//!
//! Either is a stranger's. Paths that instructions name are resolved with the tree as the root (openat2(2),
//! RESOLVE_IN_ROOT), so that no link and no `..` leads out; below a chosen directory no link is followed at all.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{self as rfs, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::model::dockerfile::pattern::{self, Ignore};
use crate::model::id::Digest;

/// How deep a tree may be; a descriptor is open for every level.
const DEPTH_MAX: usize = 256;
const READ: usize = 256 << 10;

pub struct Tree {
    root: OwnedFd,
    /// What is not there although it is.
    pub ignore: Ignore,
    /// A directory that is not there either, by device and inode.
    without: Option<(u64, u64)>,
    /// Contents that were read already, by path.
    digests: Mutex<HashMap<Vec<u8>, Digest>>,
}

/// Something in a tree.
#[derive(Debug, Clone)]
pub struct Item {
    /// From the root of the tree, without a slash at either end.
    pub path: Vec<u8>,
    /// From the chosen directory; empty for itself, or for a chosen file.
    pub below: Vec<u8>,
    pub kind: FileType,
    pub stat: Stat,
}

/// What an instruction chose by one path.
#[derive(Debug)]
pub struct Chosen {
    /// The last part of the path as it was written, for what is copied into a directory.
    pub name: Vec<u8>,
    pub is_directory: bool,
    /// The directory first and parents before what is in them, names in order.
    pub items: Vec<Item>,
    /// The directories above it that are kept, outermost first; `below` is from where they are kept on.
    pub parents: Vec<Item>,
}

impl Tree {
    pub fn new(root: OwnedFd, ignore: Ignore) -> Tree {
        Tree { root, ignore, without: None, digests: Mutex::default() }
    }

    /// The same without this directory, wherever in it that is.
    pub fn without(self, directory: &Path) -> io::Result<Tree> {
        let found = match rfs::stat(directory) {
            Err(Errno::NOENT) => None,
            found => Some(found?),
        };
        Ok(Tree { without: found.map(|stat| (stat.st_dev, stat.st_ino)), ..self })
    }

    pub fn open(path: &Path, ignore: Ignore) -> io::Result<Tree> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Tree::new(rfs::open(path, flags, Mode::empty())?, ignore))
    }

    /// Everything that is not ignored.
    pub fn whole(&self) -> io::Result<Vec<Item>> {
        Ok(self.chosen(b"", b"", &Ignore::default())?.items)
    }

    /// What `source` stands for: one path, or those that match its wildcards. Parts of chosen directories that match
    /// `exclude` are left out.
    pub fn choose(&self, source: &str, exclude: &Ignore) -> io::Result<Vec<Chosen>> {
        let chosen = self.choose_paths(source, exclude)?;
        Ok(chosen.into_iter().map(|(_, chosen)| chosen).collect())
    }

    /// The same, each called by its path from the source's `/./` on, or by its whole one.
    pub fn choose_with_parents(&self, source: &str, exclude: &Ignore) -> io::Result<Vec<Chosen>> {
        let parts = |text: &str| text.split('/').filter(|part| !matches!(*part, "" | ".")).count();
        let (above, _) = source.split_once("/./").unwrap_or_default();
        if source.split('/').any(|part| part == "..") || above.contains("**") {
            let message = format!(
                "`{source}` does not say which directories are kept: write it without `..`, and `**` behind `/./`"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let mut all = Vec::new();
        for (path, mut chosen) in self.choose_paths(source, exclude)? {
            let path: Vec<&[u8]> =
                path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
            let (left, kept) = path.split_at(parts(above).min(path.len()));
            for end in 1..kept.len() {
                let real = self.resolve(&[left, &kept[..end]].concat().join(&b'/'))?;
                let stat = rfs::fstat(self.open_inside(&real, OFlags::PATH)?)?;
                let kind = FileType::from_raw_mode(stat.st_mode);
                chosen.parents.push(Item { path: real, below: kept[..end].join(&b'/'), kind, stat });
            }
            chosen.name = kept.join(&b'/');
            all.push(chosen);
        }
        Ok(all)
    }

    /// With the path of each as it was written.
    fn choose_paths(&self, source: &str, exclude: &Ignore) -> io::Result<Vec<(Vec<u8>, Chosen)>> {
        let mut paths = Vec::new();
        if pattern::has_wildcards(source) {
            let parts: Vec<&str> = source.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
            self.matching(b"", &parts, &mut paths)?;
            // What is left out does not match.
            paths.retain(|path| !self.is_ignored(path) || self.ignore.takes_back());
        } else {
            paths.push(source.trim_matches('/').as_bytes().to_vec());
        }
        if paths.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("nothing matches `{source}`")));
        }
        let mut all = Vec::new();
        for path in paths {
            let real = self.resolve(&path)?;
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            let chosen = self.chosen(&real, name, exclude)?;
            if chosen.items.is_empty() && !exclude_hides(exclude, name) {
                let message = format!("`{}` is left out by `.dockerignore`", shown(&path));
                return Err(io::Error::new(io::ErrorKind::NotFound, message));
            }
            all.push((path, chosen));
        }
        Ok(all)
    }

    /// Directories are entered, links are not.
    fn matching(&self, directory: &[u8], parts: &[&str], found: &mut Vec<Vec<u8>>) -> io::Result<()> {
        let Some((first, rest)) = parts.split_first() else { return Ok(()) };
        if directory.iter().filter(|byte| **byte == b'/').count() >= DEPTH_MAX {
            return Err(io::Error::other(format!("`{}` is nested too deeply", shown(directory))));
        }
        let opened = match self.open_inside(directory, OFlags::RDONLY | OFlags::DIRECTORY) {
            // No directory, or gone meanwhile. Anything else would make a build of a part of what was asked for.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ENOENT | libc::ELOOP)) => {
                return Ok(());
            }
            opened => opened?,
        };
        for name in names(opened.as_fd())? {
            let text = String::from_utf8_lossy(&name);
            let path = join(directory, &name);
            if *first == "**" {
                self.matching(&path, parts, found)?;
                self.matching(&path, rest, found)?;
            } else if pattern::Glob::new(first).matches(&text) {
                match rest.is_empty() {
                    true => found.push(path),
                    false => self.matching(&path, rest, found)?,
                }
            }
        }
        Ok(())
    }

    /// The path without links. Magic links of /proc are none here: nothing is mounted in a tree.
    fn resolve(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let path = if path.is_empty() { b".".as_slice() } else { path };
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let opened = crate::sys::path::openat2(&self.root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside);
        let opened = opened.map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => {
                io::Error::new(io::ErrorKind::NotFound, format!("`{}` is not there", shown(path)))
            }
            errno => errno.into(),
        })?;
        let (root, real) = (link_of(self.root.as_fd())?, link_of(opened.as_fd())?);
        let root = root.strip_suffix(b"/").unwrap_or(&root);
        let rest = real.strip_prefix(root).ok_or_else(|| io::Error::from_raw_os_error(libc::EXDEV))?;
        Ok(rest.strip_prefix(b"/").unwrap_or(rest).to_vec())
    }

    fn open_inside(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b".".as_slice() } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        // A pipe that somebody put there must not keep us waiting; openat2(2) wants nothing else beside O_PATH.
        let waits = if flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NONBLOCK };
        let flags = flags | waits | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(crate::sys::path::openat2(&self.root, path, flags, Mode::empty(), resolve)?)
    }

    fn chosen(&self, real: &[u8], name: &[u8], exclude: &Ignore) -> io::Result<Chosen> {
        let opened = self.open_inside(real, OFlags::PATH)?;
        let stat = rfs::fstat(&opened)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_directory = kind == FileType::Directory;
        let item = Item { path: real.to_vec(), below: Vec::new(), kind, stat };
        let mut items = Vec::new();
        if !is_directory {
            if !self.is_ignored(real) && !exclude_hides(exclude, name) {
                items.push(item);
            }
        } else if !self.is_ignored(real) || self.ignore.takes_back() {
            items.push(item);
            let directory = self.open_inside(real, OFlags::RDONLY | OFlags::DIRECTORY)?;
            self.walk(directory.as_fd(), &mut Walk { items: &mut items, exclude, depth: 0, path: real, below: b"" })?;
            if items.len() == 1 && self.is_ignored(real) {
                items.clear();
            }
        }
        Ok(Chosen { name: name.to_vec(), is_directory, items, parents: Vec::new() })
    }

    fn walk(&self, directory: BorrowedFd<'_>, at: &mut Walk<'_>) -> io::Result<()> {
        if at.depth >= DEPTH_MAX {
            return Err(io::Error::other(format!("`{}` is nested too deeply", shown(at.path))));
        }
        for name in names(directory)? {
            let (path, below) = (join(at.path, &name), join(at.below, &name));
            let stat = rfs::statat(directory, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let ignored = self.is_ignored(&path) || at.exclude.leaves_out(&String::from_utf8_lossy(&below));
            let may_hold = kind == FileType::Directory && (self.ignore.takes_back() || at.exclude.takes_back());
            let is_without = self.without == Some((stat.st_dev, stat.st_ino));
            // A socket is nothing without the process that listens on it.
            if kind == FileType::Socket || is_without || ignored && !may_hold {
                continue;
            }
            let before = at.items.len();
            at.items.push(Item { path: path.clone(), below: below.clone(), kind, stat });
            if kind == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inside = rfs::openat(directory, name.as_slice(), flags, Mode::empty())?;
                let (depth, exclude) = (at.depth + 1, at.exclude);
                self.walk(
                    inside.as_fd(),
                    &mut Walk { items: &mut *at.items, exclude, depth, path: &path, below: &below },
                )?;
            }
            if ignored && at.items.len() == before + 1 {
                at.items.truncate(before);
            }
        }
        Ok(())
    }

    fn is_ignored(&self, path: &[u8]) -> bool {
        !path.is_empty() && self.ignore.leaves_out(&String::from_utf8_lossy(path))
    }

    /// The item as it is now.
    pub fn again(&self, item: &Item) -> io::Result<Item> {
        let stat = rfs::fstat(self.open_path(item)?)?;
        Ok(Item { kind: FileType::from_raw_mode(stat.st_mode), stat, ..item.clone() })
    }

    /// A regular file, for reading.
    pub fn open_file(&self, item: &Item) -> io::Result<File> {
        Ok(File::from(self.open_inside(&item.path, OFlags::RDONLY)?))
    }

    /// Anything, without opening what is behind it.
    pub fn open_path(&self, item: &Item) -> io::Result<OwnedFd> {
        self.open_inside(&item.path, OFlags::PATH)
    }

    /// Where a symbolic link leads.
    pub fn target(&self, item: &Item) -> io::Result<Vec<u8>> {
        Ok(rfs::readlinkat(self.open_path(item)?, "", Vec::new())?.into_bytes())
    }

    /// The digest over names, kinds, modes and contents: what a copy of these items follows from. Owners count where
    /// they are copied, times never.
    pub fn contents(&self, items: &[Item], owners: Owners) -> io::Result<Digest> {
        let mut hasher = Sha256::new();
        let mut put = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for item in items {
            put(&item.below);
            put(&item.stat.st_mode.to_le_bytes());
            if owners == Owners::Kept {
                put(&item.stat.st_uid.to_le_bytes());
                put(&item.stat.st_gid.to_le_bytes());
            }
            match item.kind {
                FileType::RegularFile => put(self.file_digest(item)?.hex().as_bytes()),
                FileType::Symlink => put(&self.target(item)?),
                FileType::CharacterDevice | FileType::BlockDevice => put(&item.stat.st_rdev.to_le_bytes()),
                _ => {}
            }
        }
        Ok(Digest::from_sha256(&hasher.finalize().into()))
    }

    fn digests(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Digest>> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file_digest(&self, item: &Item) -> io::Result<Digest> {
        if let Some(known) = self.digests().get(&item.path) {
            return Ok(known.clone());
        }
        let mut file = self.open_file(item)?;
        let (mut hasher, mut buffer) = (Sha256::new(), vec![0; READ]);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        let digest = Digest::from_sha256(&hasher.finalize().into());
        self.digests().insert(item.path.clone(), digest.clone());
        Ok(digest)
    }
}

/// Whether a copy keeps owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    Kept,
    Replaced,
}

/// Where a walk is.
struct Walk<'w> {
    items: &'w mut Vec<Item>,
    exclude: &'w Ignore,
    depth: usize,
    path: &'w [u8],
    below: &'w [u8],
}

/// What tells cheaply whether items are what they were: kind, mode, owner, size, times and change time of each.
pub fn look(items: &[Item]) -> Digest {
    let mut hasher = Sha256::new();
    for Item { path, stat, .. } in items {
        hasher.update((path.len() as u64).to_le_bytes());
        hasher.update(path);
        for number in [u64::from(stat.st_mode), u64::from(stat.st_uid), u64::from(stat.st_gid), stat.st_rdev] {
            hasher.update(number.to_le_bytes());
        }
        // The size of a directory is its file system's affair.
        let size = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory { 0 } else { stat.st_size };
        hasher.update(size.to_le_bytes());
        for number in [stat.st_mtime, stat.st_mtime_nsec as i64, stat.st_ctime, stat.st_ctime_nsec as i64] {
            hasher.update(number.to_le_bytes());
        }
    }
    Digest::from_sha256(&hasher.finalize().into())
}

fn exclude_hides(exclude: &Ignore, name: &[u8]) -> bool {
    exclude.leaves_out(&String::from_utf8_lossy(name))
}

/// What is in a directory, in order.
fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rfs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(name.as_slice(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory.is_empty() {
        true => name.to_vec(),
        false => [directory, b"/", name].concat(),
    }
}

/// The path that the kernel knows for a descriptor (proc(5), /proc/PID/fd).
pub fn link_of(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    Ok(link.as_os_str().as_bytes().to_vec())
}

/// A path for people.
pub fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_do_not_look_deeper_than_a_tree_may_be() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join(vec!["d"; DEPTH_MAX + 8].join("/"))).unwrap();
        let tree = Tree::open(root.path(), Ignore::default()).unwrap();
        let error = tree.choose("**/x", &Ignore::default()).unwrap_err();
        assert!(error.to_string().contains("too deeply"), "{error}");
    }
}
