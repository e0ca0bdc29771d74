//! Copying chosen files into the files of a stage.
//!
//! Both sides are strangers': the target is resolved with the stage's root as the root, so a link in the image leads
//! into the image and nowhere else (CVE-2018-15664 is what joining paths does), and every file is made new.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::SystemTime;

use rustix::fs::{self as rfs, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::tree::{Chosen, Item, Tree, link_of, shown};
use crate::engine::storage::copy::copy_contents;
use crate::model::dockerfile::chmod::Chmod;
use crate::runtime::identity;

/// As the kernel counts for one lookup (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// What copies look like.
#[derive(Debug, Clone, Copy)]
pub struct Look<'m> {
    /// `None` keeps the owners of the source.
    pub owner: Option<(u32, u32)>,
    pub mode: Option<&'m Chmod>,
    pub devices: Devices,
}

/// Whether device nodes and pipes are copied: those of an image, not those of a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    Copied,
    Refused,
}

/// A file that has no source in a tree.
pub struct Fresh<'f> {
    pub contents: &'f mut dyn io::Read,
    /// Unless the look says another.
    pub mode: u32,
    pub modified: Option<SystemTime>,
}

/// The files of a stage, writable.
pub struct Target {
    root: OwnedFd,
}

impl Target {
    pub fn new(root: OwnedFd) -> Target {
        Target { root }
    }

    /// The text of a passwd(5) or group(5) of the stage, if it is a regular file.
    pub fn read_accounts(&self, path: &str) -> io::Result<Option<String>> {
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match crate::sys::path::openat2(&self.root, path, flags, Mode::empty(), inside) {
            Ok(fd) => identity::read_accounts(fd),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    pub fn is_directory(&self, path: &[u8]) -> bool {
        self.open(path, OFlags::PATH | OFlags::DIRECTORY).is_ok()
    }

    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b".".as_slice() } else { path };
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        crate::sys::path::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), inside)
    }

    /// The directory at `path`, made with its parents where they are not there.
    pub fn make_directories(&self, path: &[u8], owner: Option<(u32, u32)>) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut end = 0;
        loop {
            let rest = &path[end..];
            let step = rest.iter().position(|byte| *byte != b'/').map(|skipped| {
                let begin = end + skipped;
                path[begin..].iter().position(|byte| *byte == b'/').map_or(path.len(), |length| begin + length)
            });
            let Some(next) = step else { return Ok(self.open(path, flags)?) };
            let (parent, name) = (&path[..end], path[end..next].strip_prefix(b"/").unwrap_or(&path[end..next]));
            match self.open(&path[..next], OFlags::PATH | OFlags::DIRECTORY) {
                Ok(_) => {}
                Err(Errno::NOENT) => {
                    let parent = self.open(parent, OFlags::PATH | OFlags::DIRECTORY)?;
                    rfs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)).map_err(|errno| match errno {
                        Errno::EXIST => leads_nowhere(&path[..next]),
                        errno => errno.into(),
                    })?;
                    let made = rfs::openat(&parent, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                    let (uid, gid) = owner.unwrap_or((0, 0));
                    rfs::fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
                    rfs::fchmod(&made, Mode::from_raw_mode(0o755))?;
                }
                Err(Errno::NOTDIR) => {
                    return Err(io::Error::other(format!("`{}` is not a directory", shown(&path[..next]))));
                }
                Err(errno) => return Err(errno.into()),
            }
            end = next;
        }
    }

    /// Copies what was chosen: what is in a directory goes into the directory `path`, a file becomes `path`.
    pub fn copy(&self, from: &Tree, chosen: &Chosen, path: &[u8], look: Look<'_>) -> io::Result<()> {
        if !chosen.is_directory {
            let Some(item) = chosen.items.first() else { return Ok(()) };
            let (directory, name) = self.place(path, look.owner)?;
            return put(from, item, directory.as_fd(), &name, look);
        }
        let is_new = !self.is_directory(path);
        let top = self.make_directories(path, look.owner)?;
        // Items come parents first, so the open directories are always those above the item. One that is left has
        // everything in it, and gets its look: times change with what is made inside.
        let mut open: Vec<(&Item, OwnedFd)> = Vec::new();
        for item in &chosen.items {
            let (parent, name) = match item.below.iter().rposition(|byte| *byte == b'/') {
                _ if item.below.is_empty() => continue,
                Some(slash) => (&item.below[..slash], &item.below[slash + 1..]),
                None => (&b""[..], item.below.as_slice()),
            };
            while let Some((left, fd)) = open.pop_if(|(above, _)| above.below != parent) {
                dress(from, left, fd.as_fd(), look)?;
            }
            let directory = open.last().map_or(top.as_fd(), |(_, fd)| fd.as_fd());
            match item.kind {
                FileType::Directory => {
                    let inside = enter_or_make(directory, name, &item.below)?;
                    open.push((item, inside));
                }
                _ => put(from, item, directory, name, look)?,
            }
        }
        while let Some((left, fd)) = open.pop() {
            dress(from, left, fd.as_fd(), look)?;
        }
        match chosen.items.first().filter(|_| is_new) {
            Some(item) => dress(from, item, top.as_fd(), look),
            None => Ok(()),
        }
    }

    /// The same as the file or directory `path`, in directories that look as those of the source, where they are new.
    pub fn copy_with_parents(&self, from: &Tree, chosen: &Chosen, path: &[u8], look: Look<'_>) -> io::Result<()> {
        // Whoever keeps parents has the whole name at the end of the path.
        let top = path.strip_suffix(chosen.name.as_slice()).unwrap_or(path);
        let mut new = Vec::new();
        for parent in &chosen.parents {
            let path = [top, &parent.below].concat();
            if !self.is_directory(&path) {
                new.push((parent, self.make_directories(&path, look.owner)?));
            }
        }
        self.copy(from, chosen, path, look)?;
        // Innermost first: times change with what is made inside.
        new.iter().rev().try_for_each(|(parent, fd)| dress(from, parent, fd.as_fd(), look))
    }

    /// A new file.
    pub fn write(&self, path: &[u8], fresh: Fresh<'_>, look: Look<'_>) -> io::Result<()> {
        let (directory, name) = self.place(path, look.owner)?;
        let file = make_file(directory.as_fd(), &name)?;
        io::copy(fresh.contents, &mut &file)?;
        let (uid, gid) = look.owner.unwrap_or((0, 0));
        rfs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        rfs::fchmod(&file, Mode::from_raw_mode(look.mode.map_or(fresh.mode, |mode| mode.apply(fresh.mode, false))))?;
        match fresh.modified {
            Some(modified) => file.set_modified(modified),
            None => Ok(()),
        }
    }

    /// The directory and the name of a file to be: links at its place are followed, inside.
    fn place(&self, path: &[u8], owner: Option<(u32, u32)>) -> io::Result<(OwnedFd, Vec<u8>)> {
        let mut path = path.to_vec();
        for _ in 0..LINKS_MAX {
            let slash = path.iter().rposition(|byte| *byte == b'/');
            let (parent, name) = slash.map_or((&b""[..], path.as_slice()), |at| (&path[..at], &path[at + 1..]));
            let directory = self.make_directories(parent, owner)?;
            let found = match rfs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => return Ok((directory, name.to_vec())),
                found => found?,
            };
            match FileType::from_raw_mode(found.st_mode) {
                FileType::Symlink => {
                    let link = rfs::readlinkat(&directory, name, Vec::new())?.into_bytes();
                    if link.starts_with(b"/") {
                        path = link;
                    } else {
                        let (root, real) = (link_of(self.root.as_fd())?, link_of(directory.as_fd())?);
                        let root = root.strip_suffix(b"/").unwrap_or(&root);
                        let real = real.strip_prefix(root).ok_or_else(|| io::Error::from_raw_os_error(libc::EXDEV))?;
                        path = [real, b"/", &link].concat();
                    }
                }
                FileType::Directory => return Err(io::Error::other(format!("`{}` is a directory", shown(&path)))),
                _ => return Ok((directory, name.to_vec())),
            }
        }
        Err(leads_nowhere(&path))
    }
}

fn leads_nowhere(path: &[u8]) -> io::Error {
    io::Error::other(format!("`{}` is a link that leads nowhere", shown(path)))
}

/// A directory that is there, or a new one.
fn enter_or_make(parent: BorrowedFd<'_>, name: &[u8], shown_as: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rfs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    rfs::openat(parent, name, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(|errno| match errno {
        Errno::NOTDIR | Errno::LOOP => {
            io::Error::other(format!("`{}` is a directory in the source and none in the target", shown(shown_as)))
        }
        errno => errno.into(),
    })
}

fn make_file(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<std::fs::File> {
    match rfs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(Errno::ISDIR) => return Err(io::Error::other(format!("`{}` is a directory", shown(name)))),
        Err(errno) => return Err(errno.into()),
    }
    let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(std::fs::File::from(rfs::openat(directory, name, new, Mode::RUSR | Mode::WUSR)?))
}

/// Makes one thing that is no directory.
fn put(from: &Tree, item: &Item, directory: BorrowedFd<'_>, name: &[u8], look: Look<'_>) -> io::Result<()> {
    if item.kind == FileType::RegularFile {
        let file = make_file(directory, name)?;
        copy_contents(&from.open_file(item)?, &file)?;
        return dress(from, item, file.as_fd(), look);
    }
    match rfs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let (uid, gid) = owner(item, look);
    match item.kind {
        FileType::Symlink => rfs::symlinkat(from.target(item)?, directory, name)?,
        // What overlayfs takes for a file that was removed (overlayfs.rst, "whiteouts and opaque directories").
        FileType::CharacterDevice if item.stat.st_rdev == 0 => {
            return Err(io::Error::other(format!("`{}` is a whiteout, which cannot be copied", shown(&item.path))));
        }
        kind if look.devices == Devices::Copied => {
            let mode = Mode::from_raw_mode(mode(item, look));
            rfs::mknodat(directory, name, kind, mode, item.stat.st_rdev)?;
            rfs::chmodat(directory, name, mode, AtFlags::empty())?;
        }
        _ => {
            let message = format!("`{}` is a device or a pipe; those of a context are not copied", shown(&item.path));
            return Err(io::Error::other(message));
        }
    }
    rfs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(rfs::utimensat(directory, name, &times(item), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn owner(item: &Item, look: Look<'_>) -> (Uid, Gid) {
    let (uid, gid) = look.owner.unwrap_or((item.stat.st_uid, item.stat.st_gid));
    (Uid::from_raw(uid), Gid::from_raw(gid))
}

fn mode(item: &Item, look: Look<'_>) -> u32 {
    let mode = item.stat.st_mode;
    look.mode.map_or(mode, |change| change.apply(mode, item.kind == FileType::Directory))
}

fn times(item: &Item) -> Timestamps {
    let time = Timespec { tv_sec: item.stat.st_mtime, tv_nsec: item.stat.st_mtime_nsec as i64 };
    Timestamps { last_access: time, last_modification: time }
}

/// Owner, mode, attributes and times of a file or directory. Owner first: chown(2) clears set-user-ID bits and
/// capabilities. Times last: everything else touches them.
fn dress(from: &Tree, item: &Item, to: BorrowedFd<'_>, look: Look<'_>) -> io::Result<()> {
    let (uid, gid) = owner(item, look);
    rfs::fchown(to, Some(uid), Some(gid))?;
    copy_attributes(from, item, to)?;
    rfs::fchmod(to, Mode::from_raw_mode(mode(item, look) & 0o7777))?;
    Ok(rfs::futimens(to, &times(item))?)
}

/// Attributes that mean the same in every tree: the user's own, and capabilities.
fn copy_attributes(from: &Tree, item: &Item, to: BorrowedFd<'_>) -> io::Result<()> {
    let source = match item.kind {
        FileType::RegularFile => OwnedFd::from(from.open_file(item)?),
        _ => return Ok(()),
    };
    let mut names = vec![0u8; 64 << 10];
    let length = match rfs::flistxattr(&source, names.as_mut_slice()) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let mut value = vec![0u8; 64 << 10];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name == b"security.capability" || name.starts_with(b"user.") {
            let length = rfs::fgetxattr(&source, name, value.as_mut_slice())?;
            rfs::fsetxattr(to, name, &value[..length], rfs::XattrFlags::empty())?;
        }
    }
    Ok(())
}
