//! A layer as a directory of the file system, in the form in which overlayfs stacks it on others.
//!
//! Directories are `0700 root` until everything is made, so that neither set-group-ID bits nor default ACLs nor times are
//! disturbed by what is made inside.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::ground::{At, Ground, Keep, Refusal, Sort, Thing};
use super::members::{Kind, Member};
use super::report::Problem;
use super::tree::{Attributes, Directory};
use super::xattrs::{self, kept, kept_of_special};
use crate::engine::image::erofs::Shape;

/// Everything is made by descriptors below this one.
pub struct Directories {
    root: Rc<OwnedFd>,
}

/// A file that is open.
pub struct Making {
    fd: OwnedFd,
    /// Where it has holes: its length, which no write says.
    length: Option<u64>,
}

impl Directories {
    /// Makes what is in `root`, an empty directory.
    pub fn new(root: OwnedFd) -> Directories {
        Directories { root: Rc::new(root) }
    }
}

impl Ground for Directories {
    /// Opened with `O_PATH`.
    type Handle = Rc<OwnedFd>;
    type File = Making;
    type Done = ();

    fn root(&self) -> Result<Rc<OwnedFd>, Errno> {
        Ok(self.root.clone())
    }

    fn open(&self, parent: &Rc<OwnedFd>, name: &[u8]) -> Result<Rc<OwnedFd>, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, Mode::empty()).map(Rc::new)
    }

    fn look(&self, parent: &Rc<OwnedFd>, name: &[u8]) -> Result<Thing, Errno> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let sort = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Sort::Directory,
            FileType::Symlink => Sort::Link,
            FileType::CharacterDevice if stat.st_rdev == 0 => Sort::Whiteout,
            _ => Sort::Other,
        };
        Ok(Thing { sort, identity: (stat.st_dev, stat.st_ino) })
    }

    fn target(&self, parent: &Rc<OwnedFd>, name: &[u8]) -> Result<Vec<u8>, Errno> {
        Ok(rustix::fs::readlinkat(parent, name, Vec::new())?.into_bytes())
    }

    fn make_directory(&mut self, parent: &Rc<OwnedFd>, name: &[u8]) -> Result<(), Errno> {
        rustix::fs::mkdirat(parent, name, Mode::RWXU)
    }

    fn make_whiteout(&mut self, parent: &Rc<OwnedFd>, name: &[u8]) -> Result<(), Errno> {
        rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
    }

    fn make_special(&mut self, at: &At<'_, Rc<OwnedFd>>, member: &Member) -> Result<(), Refusal> {
        let (parent, name) = (&at.directory.handle, at.name);
        let made = match member.kind {
            Kind::SymbolicLink => rustix::fs::symlinkat(member.link.as_slice(), parent, name),
            kind => {
                let kind = match kind {
                    Kind::Character => FileType::CharacterDevice,
                    Kind::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = rustix::fs::makedev(member.device.0, member.device.1);
                rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(member.mode), device)
            }
        };
        made.map_err(|errno| Refusal::of(errno, "make", &at.real()))?;
        set_attributes(at, member).map_err(Refusal::Failed)
    }

    fn begin_file(&mut self, at: &At<'_, Rc<OwnedFd>>, member: &Member, shape: Shape<'_>) -> Result<Making, Refusal> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&at.directory.handle, at.name, flags, Mode::from_raw_mode(member.mode));
        let fd = made.map_err(|errno| Refusal::of(errno, "make", &at.real()))?;
        Ok(Making { fd, length: shape.parts.map(|_| shape.length) })
    }

    fn write(&mut self, file: &mut Making, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
        while !bytes.is_empty() {
            let written = rustix::io::pwrite(&file.fd, bytes, at)?;
            bytes = &bytes[written..];
            at += written as u64;
        }
        Ok(())
    }

    fn end_file(&mut self, file: Making, at: &At<'_, Rc<OwnedFd>>, member: &Member) -> Result<(), Problem> {
        let failed = |errno| Problem::on("write", &at.real(), errno);
        let Making { fd, length } = file;
        if let Some(length) = length {
            rustix::fs::ftruncate(&fd, length).map_err(failed)?;
        }
        if (member.uid, member.gid) != (0, 0) {
            let (uid, gid) = (rustix::fs::Uid::from_raw(member.uid), rustix::fs::Gid::from_raw(member.gid));
            rustix::fs::fchown(&fd, Some(uid), Some(gid)).map_err(failed)?;
            if member.mode & 0o6000 != 0 {
                // chown(2) cleared them.
                rustix::fs::fchmod(&fd, Mode::from_raw_mode(member.mode)).map_err(failed)?;
            }
        }
        // After chown(2), which also clears file capabilities.
        for (key, value) in kept(&member.xattrs) {
            rustix::fs::fsetxattr(&fd, key, value, XattrFlags::empty())
                .map_err(|errno| xattrs::problem(&at.real(), key, errno))?;
        }
        rustix::fs::futimens(&fd, &times(member.modified)).map_err(failed)
    }

    fn link(&mut self, from: &At<'_, Rc<OwnedFd>>, to: &At<'_, Rc<OwnedFd>>) -> Result<(), Refusal> {
        let (old, new) = (&from.directory.handle, &to.directory.handle);
        let made = rustix::fs::linkat(old, from.name, new, to.name, AtFlags::empty());
        made.map_err(|errno| Refusal::of(errno, "make", &to.real()))
    }

    fn remove(&mut self, parent: &Rc<OwnedFd>, name: &[u8]) -> Result<(), Errno> {
        remove(parent, name)
    }

    fn files(&self, at: &At<'_, Rc<OwnedFd>>, keep: &mut Keep<'_>) -> Result<(), Problem> {
        let (parent, name, real) = (&at.directory.handle, at.name, at.real());
        let failed = |errno| Problem::on("read again", &real, errno);
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let file = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(failed)?;
                keep(&real, &File::from(file)).map_err(|error| Problem::writing("write the recipe", &error))
            }
            FileType::Directory => {
                let flags = flags | OFlags::DIRECTORY;
                let fd = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(failed)?;
                let mut names = names(&fd).map_err(failed)?;
                // In an order that is not the file system's, so that one stream has one recipe.
                names.sort();
                let directory = Directory { handle: Rc::new(fd), real: real.clone() };
                names.iter().try_for_each(|name| self.files(&At { directory: &directory, name: name.to_bytes() }, keep))
            }
            _ => Ok(()),
        }
    }

    fn finish(self, directories: &BTreeMap<Vec<u8>, Attributes>) -> Result<(), Problem> {
        for (real, attributes) in directories {
            let failed = |errno| Problem::on("set the attributes of", real, errno);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let resolve = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
            let path = if real.is_empty() { b"." } else { real.as_slice() };
            let directory =
                crate::sys::path::openat2(&*self.root, path, flags, Mode::empty(), resolve).map_err(failed)?;
            let (uid, gid) = (rustix::fs::Uid::from_raw(attributes.uid), rustix::fs::Gid::from_raw(attributes.gid));
            rustix::fs::fchown(&directory, Some(uid), Some(gid)).map_err(failed)?;
            for (key, value) in kept(&attributes.xattrs) {
                rustix::fs::fsetxattr(&directory, key, value, XattrFlags::empty())
                    .map_err(|errno| xattrs::problem(real, key, errno))?;
            }
            for (key, value) in attributes.marks() {
                rustix::fs::fsetxattr(&directory, key, value, XattrFlags::empty()).map_err(failed)?;
            }
            rustix::fs::fchmod(&directory, Mode::from_raw_mode(attributes.mode)).map_err(failed)?;
            rustix::fs::futimens(&directory, &times(attributes.modified)).map_err(failed)?;
        }
        Ok(())
    }
}

/// Owner, attributes and times of what is neither a file nor a directory.
fn set_attributes(at: &At<'_, Rc<OwnedFd>>, member: &Member) -> Result<(), Problem> {
    let (parent, name) = (&at.directory.handle, at.name);
    let failed = |errno| Problem::on("set the attributes of", &at.real(), errno);
    if (member.uid, member.gid) != (0, 0) {
        let (uid, gid) = (rustix::fs::Uid::from_raw(member.uid), rustix::fs::Gid::from_raw(member.gid));
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        if member.kind != Kind::SymbolicLink && member.mode & 0o6000 != 0 {
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(member.mode), AtFlags::empty()).map_err(failed)?;
        }
    }
    for (key, value) in kept_of_special(&member.xattrs) {
        // There is no call that takes a descriptor and a name; this process has no other use for its directory.
        rustix::process::fchdir(parent).map_err(failed)?;
        rustix::fs::lsetxattr(name, key, value, XattrFlags::empty())
            .map_err(|errno| xattrs::problem(&at.real(), key, errno))?;
    }
    let times = times(member.modified);
    rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
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

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
