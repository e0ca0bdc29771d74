//! Tar as files below a directory of a root.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self as rfs, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use super::{TransferError, XATTR, below, carried, failed};
use crate::runtime::look;

/// Whose the files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// As the archive has it.
    Archive,
    /// Of this owner, and with no power beyond the owner's: without set-user-ID, set-group-ID and capabilities. Devices
    /// are refused.
    Fixed { uid: u32, gid: u32 },
}

/// Puts what `from` holds below `into`, a directory of `root`. Files, links and devices of the same name are replaced;
/// directories that are there stay as they are.
pub fn unpack(root: BorrowedFd<'_>, into: &Path, from: impl Read, ownership: Ownership) -> Result<(), TransferError> {
    let mut archive = Archive::new(from);
    let unpacker = Unpacker { root, into, ownership };
    for entry in archive.entries().map_err(|source| TransferError::Archive { source })? {
        unpacker.entry(&mut entry.map_err(|source| TransferError::Archive { source })?)?;
    }
    Ok(())
}

struct Unpacker<'a> {
    root: BorrowedFd<'a>,
    into: &'a Path,
    ownership: Ownership,
}

impl Unpacker<'_> {
    fn entry<R: Read>(&self, entry: &mut Entry<'_, R>) -> Result<(), TransferError> {
        let written = entry.path().map_err(|source| TransferError::Archive { source })?.into_owned();
        let Some((parent, name)) = split(&written)? else { return Ok(()) };
        let place = self.into.join(&written);
        let parent = self.directory(&parent)?;
        let cannot = |error: Errno| failed("write", &place)(error.into());
        match entry.header().entry_type() {
            EntryType::Directory => match rfs::mkdirat(&parent, &name, Mode::from_bits_truncate(0o700)) {
                Ok(()) => self.dress(entry, parent.as_fd(), &name).map_err(cannot),
                Err(Errno::EXIST) => match kind(parent.as_fd(), &name).map_err(cannot)? {
                    Some(FileType::Directory) => Ok(()),
                    _ => Err(TransferError::NoDirectory(place)),
                },
                Err(error) => Err(cannot(error)),
            },
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                make_room(parent.as_fd(), &name, &place)?;
                let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rfs::openat(&parent, &name, new, Mode::from_bits_truncate(0o600)).map_err(cannot)?;
                let mut file = File::from(file);
                let attributes = self.attributes(entry)?;
                io::copy(entry, &mut file).map_err(failed("write", &place))?;
                self.dress_file(entry, &file).map_err(cannot)?;
                set_attributes(&file, &attributes).map_err(cannot)
            }
            EntryType::Symlink => {
                let target = link_of(entry)?;
                make_room(parent.as_fd(), &name, &place)?;
                rfs::symlinkat(&target, &parent, &name).map_err(cannot)?;
                self.own(entry, parent.as_fd(), &name).map_err(cannot)
            }
            EntryType::Link => {
                let target = link_of(entry)?;
                let Some((of, other)) = split(&target)? else { return Err(TransferError::Escapes(target)) };
                let of = self.directory(&of)?;
                make_room(parent.as_fd(), &name, &place)?;
                rfs::linkat(&of, &other, &parent, &name, AtFlags::empty()).map_err(cannot)
            }
            EntryType::Char | EntryType::Block if self.ownership != Ownership::Archive => {
                Err(TransferError::Device(place))
            }
            special @ (EntryType::Fifo | EntryType::Char | EntryType::Block) => {
                let kind = match special {
                    EntryType::Fifo => FileType::Fifo,
                    EntryType::Char => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                let number = |number: io::Result<Option<u32>>| number.ok().flatten().unwrap_or_default();
                let header = entry.header();
                let device = rfs::makedev(number(header.device_major()), number(header.device_minor()));
                make_room(parent.as_fd(), &name, &place)?;
                rfs::mknodat(&parent, &name, kind, Mode::from_bits_truncate(0o600), device).map_err(cannot)?;
                self.dress(entry, parent.as_fd(), &name).map_err(cannot)
            }
            // Headers of the archive as a whole say nothing about files.
            _ => Ok(()),
        }
    }

    /// A directory of the archive, below the one that is unpacked into.
    fn directory(&self, path: &Path) -> Result<OwnedFd, TransferError> {
        let place = self.into.join(path);
        let opened = look::ensure_directory(self.root, below(&place)).map_err(failed("open", &place))?;
        match rfs::fstat(&opened).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::Directory) => Ok(opened),
            Ok(_) => Err(TransferError::NoDirectory(place)),
            Err(error) => Err(failed("look at", &place)(error.into())),
        }
    }

    /// Those that go with the file.
    fn attributes<R: Read>(&self, entry: &mut Entry<'_, R>) -> Result<Vec<(String, Vec<u8>)>, TransferError> {
        let mut found = Vec::new();
        if self.ownership == Ownership::Archive {
            let archive = |source| TransferError::Archive { source };
            for extension in entry.pax_extensions().map_err(archive)?.into_iter().flatten() {
                let extension = extension.map_err(archive)?;
                let name = extension.key().ok().and_then(|key| key.strip_prefix(XATTR)).filter(|name| carried(name));
                found.extend(name.map(|name| (name.to_owned(), extension.value_bytes().to_vec())));
            }
        }
        Ok(found)
    }

    fn ids<R: Read>(&self, entry: &Entry<'_, R>) -> (Option<Uid>, Option<Gid>) {
        let (uid, gid) = match self.ownership {
            Ownership::Fixed { uid, gid } => (uid, gid),
            Ownership::Archive => {
                let id = |id: io::Result<u64>| id.ok().and_then(|id| u32::try_from(id).ok()).unwrap_or_default();
                (id(entry.header().uid()), id(entry.header().gid()))
            }
        };
        (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
    }

    /// Whoever takes the owner away takes its privileges away, too.
    fn mode<R: Read>(&self, entry: &Entry<'_, R>) -> Mode {
        let kept = match self.ownership {
            Ownership::Archive => 0o7777,
            Ownership::Fixed { .. } => 0o1777,
        };
        Mode::from_bits_truncate(entry.header().mode().unwrap_or(0o644) & kept)
    }

    fn own<R: Read>(&self, entry: &Entry<'_, R>, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        let (uid, gid) = self.ids(entry);
        rfs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// The owner first: changing it takes set-user-ID bits away (chown(2)).
    fn dress_file<R: Read>(&self, entry: &Entry<'_, R>, file: &File) -> Result<(), Errno> {
        let (uid, gid) = self.ids(entry);
        rfs::fchown(file, uid, gid)?;
        rfs::fchmod(file, self.mode(entry))?;
        let time = Timespec { tv_sec: entry.header().mtime().unwrap_or_default() as i64, tv_nsec: 0 };
        rfs::futimens(file, &Timestamps { last_access: time, last_modification: time })
    }

    /// Of what is not opened for that: a device could do something when it is.
    fn dress<R: Read>(&self, entry: &Entry<'_, R>, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        let opened = rfs::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let (uid, gid) = self.ids(entry);
        rfs::chownat(&opened, "", uid, gid, AtFlags::EMPTY_PATH)?;
        // fchmod(2) takes no O_PATH descriptor; its name in /proc leads to the same file and nowhere else.
        let number = std::os::fd::AsRawFd::as_raw_fd(&opened);
        rfs::chmod(format!("/proc/self/fd/{number}"), self.mode(entry))
    }
}

/// Last: a change of the owner takes capabilities away (chown(2)).
fn set_attributes(file: &File, attributes: &[(String, Vec<u8>)]) -> Result<(), Errno> {
    for (name, value) in attributes {
        match rfs::fsetxattr(file, name.as_str(), value, XattrFlags::empty()) {
            // Notes of users are no part of what a file does; not every filesystem takes them.
            Err(Errno::OPNOTSUPP) if name.starts_with("user.") => {}
            other => other?,
        }
    }
    Ok(())
}

fn link_of<R: Read>(entry: &Entry<'_, R>) -> Result<PathBuf, TransferError> {
    let name = entry.link_name().map_err(|source| TransferError::Archive { source })?;
    Ok(name.map(std::borrow::Cow::into_owned).unwrap_or_default())
}

fn kind(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Option<FileType>, Errno> {
    match rfs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Nothing of this name is there.
fn make_room(parent: BorrowedFd<'_>, name: &OsStr, place: &Path) -> Result<(), TransferError> {
    match rfs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(TransferError::IsDirectory(place.to_owned())),
        Err(error) => Err(failed("replace", place)(error.into())),
    }
}

/// The directory and the name in it; `None` for the directory that is unpacked into.
fn split(written: &Path) -> Result<Option<(PathBuf, OsString)>, TransferError> {
    let mut clean = PathBuf::new();
    for component in written.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(TransferError::Escapes(written.to_owned())),
        }
    }
    let name = clean.file_name().map(OsStr::to_owned);
    Ok(name.map(|name| (clean.parent().unwrap_or(Path::new("")).to_owned(), name)))
}

#[cfg(test)]
mod tests {
    use super::super::pack::{Links, Source, pack};
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn root(path: &Path) -> OwnedFd {
        rfs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    /// cap_net_raw, permitted and effective: VFS_CAP_REVISION_2 (capabilities(7)).
    const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn a_tree_comes_out_as_it_went_in() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let tree = from.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::write(tree.join("a/b/file"), "text").unwrap();
        std::fs::set_permissions(tree.join("a/b/file"), std::fs::Permissions::from_mode(0o4640)).unwrap();
        rfs::setxattr(tree.join("a/b/file"), "security.capability", &CAPABILITY, XattrFlags::empty()).unwrap();
        std::fs::hard_link(tree.join("a/b/file"), tree.join("other")).unwrap();
        symlink("/etc/passwd", tree.join("link")).unwrap();
        let mut bytes = Vec::new();
        let opened = root(from.path());
        let source = Source::open(opened.as_fd(), Path::new("/tree"), Links::Keep).unwrap();
        pack(&source, Path::new("copy"), &mut bytes).unwrap();
        unpack(root(to.path()).as_fd(), Path::new("/"), bytes.as_slice(), Ownership::Archive).unwrap();
        let copy = to.path().join("copy");
        assert_eq!(std::fs::read_to_string(copy.join("a/b/file")).unwrap(), "text");
        let file = std::fs::metadata(copy.join("a/b/file")).unwrap();
        assert_eq!((file.mode() & 0o7777, file.nlink()), (0o4640, 2));
        let mut kept = [0; 64];
        let length = rfs::getxattr(copy.join("a/b/file"), "security.capability", &mut kept[..]).unwrap();
        assert_eq!(kept[..length], CAPABILITY);
        // As somebody else's it has no power.
        let fixed = tempfile::tempdir().unwrap();
        unpack(root(fixed.path()).as_fd(), Path::new("/"), bytes.as_slice(), Ownership::Fixed { uid: 0, gid: 0 })
            .unwrap();
        let taken = rfs::getxattr(fixed.path().join("copy/a/b/file"), "security.capability", &mut kept[..]);
        assert_eq!(taken, Err(Errno::NODATA));
        let mode = std::fs::metadata(fixed.path().join("copy/a/b/file")).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o640);
        assert_eq!(std::fs::read_link(copy.join("link")).unwrap(), Path::new("/etc/passwd"));
    }

    #[test]
    fn links_and_dots_lead_nowhere() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        symlink(outside.path(), inside.path().join("away")).unwrap();
        symlink(outside.path().join("secret"), inside.path().join("file")).unwrap();
        let opened = root(inside.path());
        // Out: the link leads below the container's own root, where there is nothing.
        assert!(Source::open(opened.as_fd(), Path::new("/away/secret"), Links::Keep).is_err());
        assert!(Source::open(opened.as_fd(), Path::new("/file"), Links::Follow).is_err());
        // In: the file is replaced, not what the link names, and the directory is made inside.
        let archive = |name: &str| {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(3);
            header.set_mode(0o644);
            // `set_path` refuses dots; an attacker does not.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, &b"new"[..]).unwrap();
            builder.into_inner().unwrap()
        };
        let put = |name: &str, into: &str| {
            unpack(opened.as_fd(), Path::new(into), archive(name).as_slice(), Ownership::Archive)
        };
        put("file", "/").unwrap();
        put("secret", "/away").unwrap();
        assert!(matches!(put("../up", "/"), Err(TransferError::Escapes(_))));
        assert_eq!(std::fs::read_to_string(outside.path().join("secret")).unwrap(), "secret");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
        assert_eq!(std::fs::read_to_string(inside.path().join("file")).unwrap(), "new");
    }
}
