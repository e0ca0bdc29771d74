//! Tar as files below a directory of a root.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self as rfs, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{TransferError, below, carried, failed};
use crate::engine::image::segment::Segment;
use crate::engine::image::unpack::members::{Kind, Member, Members, Stream};
use crate::engine::image::unpack::report::Problem;
use crate::model::security::IdRange;
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

/// Whether a link may stand where a name in the archive has a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Never. The root is the host's, where a link that came with the archive would lead to any file of it.
    WithoutLinks,
    /// It leads on, inside of the root, as for a program there.
    ThroughLinks,
}

/// Puts what `from` holds below `into`, a directory of `root`. Files, links and devices of the same name are replaced;
/// directories that are there stay as they are. Links in `into` itself are followed inside of the root. Owners are meant
/// as the container sees them whose `users` these are.
pub fn unpack(
    (root, into): (BorrowedFd<'_>, &Path),
    users: Option<IdRange>,
    from: impl Read + Send,
    ownership: Ownership,
    way: Way,
) -> Result<(), TransferError> {
    let Some(range) = users else { return unpack_here((root, into), None, from, ownership, way) };
    let unpacked = std::thread::scope(|scope| {
        let as_its_root = || {
            become_root_of(range).map_err(failed("write as its root to", into))?;
            unpack_here((root, into), users, from, ownership, way)
        };
        scope.spawn(as_its_root).join()
    });
    unpacked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// For files, this thread is who root is in the range, with all that it may do now: a volume of the container is mounted
/// with its users, and has no room for what others make (mount_setattr(2), EOVERFLOW).
fn become_root_of(range: IdRange) -> io::Result<()> {
    nix::unistd::setfsgid(range.start.into());
    nix::unistd::setfsuid(range.start.into());
    // Each says what was before, and nothing of a failure (setfsuid(2)).
    if nix::unistd::setfsuid(range.start.into()).as_raw() != range.start {
        return Err(Errno::PERM.into());
    }
    // Leaving user 0 took the capabilities over files from the effective set (capabilities(7)).
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective = sets.permitted;
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

fn unpack_here(
    (root, into): (BorrowedFd<'_>, &Path),
    users: Option<IdRange>,
    from: impl Read,
    ownership: Ownership,
    way: Way,
) -> Result<(), TransferError> {
    let ground = match way {
        Way::ThroughLinks => root.try_clone_to_owned(),
        Way::WithoutLinks => look::ensure_directory(root, below(into)),
    };
    let ground = ground.map_err(failed("open", into))?;
    let mut members = Members::new(Piped(BufReader::with_capacity(64 * 1024, from)));
    let unpacker = Unpacker { ground, into, users, ownership, way };
    while let Some(member) = members.next().map_err(unreadable)? {
        unpacker.make(&member, &mut members)?;
    }
    Ok(())
}

/// A stream that is read to be passed over.
struct Piped<R>(BufReader<R>);

impl<R: Read> Read for Piped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Stream for Piped<R> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut self.0).take(bytes), &mut io::sink())?;
        if skipped < bytes { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

fn unreadable(problem: Problem) -> TransferError {
    TransferError::Archive { source: io::Error::other(problem.to_string()) }
}

struct Unpacker<'a> {
    /// What directories of the archive are looked for in: with links the root, where they may lead anywhere; else `into`.
    ground: OwnedFd,
    into: &'a Path,
    users: Option<IdRange>,
    ownership: Ownership,
    way: Way,
}

impl Unpacker<'_> {
    fn make<S: Stream>(&self, member: &Member, members: &mut Members<S>) -> Result<(), TransferError> {
        let Some((parent, name)) = split(Path::new(OsStr::from_bytes(&member.path)))? else { return Ok(()) };
        let place = self.into.join(&parent).join(&name);
        let parent = self.directory(&parent)?;
        let cannot = |error: Errno| failed("write", &place)(error.into());
        match member.kind {
            Kind::Directory => match rfs::mkdirat(&parent, &name, Mode::from_bits_truncate(0o700)) {
                Ok(()) => self.dress(member, parent.as_fd(), &name).map_err(cannot),
                Err(Errno::EXIST) => match kind(parent.as_fd(), &name).map_err(cannot)? {
                    Some(FileType::Directory) => Ok(()),
                    _ => Err(TransferError::NoDirectory(place)),
                },
                Err(error) => Err(cannot(error)),
            },
            Kind::File => {
                make_room(parent.as_fd(), &name, &place)?;
                let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rfs::openat(&parent, &name, new, Mode::from_bits_truncate(0o600)).map_err(cannot)?;
                let file = File::from(file);
                fill(&file, member, members, &place)?;
                self.dress_file(member, &file).map_err(cannot)
            }
            Kind::SymbolicLink => {
                make_room(parent.as_fd(), &name, &place)?;
                rfs::symlinkat(member.link.as_slice(), &parent, &name).map_err(cannot)?;
                self.own(member, parent.as_fd(), &name).map_err(cannot)
            }
            Kind::HardLink => {
                let target = PathBuf::from(OsString::from_vec(member.link.clone()));
                let Some((of, other)) = split(&target)? else { return Err(TransferError::Escapes(target)) };
                let of = self.directory(&of)?;
                make_room(parent.as_fd(), &name, &place)?;
                rfs::linkat(&of, &other, &parent, &name, AtFlags::empty()).map_err(cannot)
            }
            Kind::Character | Kind::Block if self.ownership != Ownership::Archive => Err(TransferError::Device(place)),
            special @ (Kind::Fifo | Kind::Character | Kind::Block) => {
                let kind = match special {
                    Kind::Fifo => FileType::Fifo,
                    Kind::Character => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                let device = rfs::makedev(member.device.0, member.device.1);
                make_room(parent.as_fd(), &name, &place)?;
                rfs::mknodat(&parent, &name, kind, Mode::from_bits_truncate(0o600), device).map_err(cannot)?;
                self.dress(member, parent.as_fd(), &name).map_err(cannot)
            }
        }
    }

    /// A directory of the archive, below the one that is unpacked into.
    fn directory(&self, path: &Path) -> Result<OwnedFd, TransferError> {
        let place = self.into.join(path);
        let opened = match self.way {
            Way::ThroughLinks => look::ensure_directory(self.ground.as_fd(), below(&place)),
            Way::WithoutLinks if path.as_os_str().is_empty() => self.ground.try_clone(),
            Way::WithoutLinks => look::ensure_directory_without_links(self.ground.as_fd(), path),
        };
        let opened = opened.map_err(failed("open", &place))?;
        match rfs::fstat(&opened).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::Directory) => Ok(opened),
            Ok(_) => Err(TransferError::NoDirectory(place)),
            Err(error) => Err(failed("look at", &place)(error.into())),
        }
    }

    fn ids(&self, member: &Member) -> (Option<Uid>, Option<Gid>) {
        let (uid, gid) = match self.ownership {
            Ownership::Fixed { uid, gid } => (uid, gid),
            Ownership::Archive => (member.uid, member.gid),
        };
        // Whom the container does not have is nobody there.
        let outside = |number| self.users.map_or(number, |range| range.outside(number).unwrap_or_else(|| range.last()));
        (Some(Uid::from_raw(outside(uid))), Some(Gid::from_raw(outside(gid))))
    }

    /// Whoever takes the owner away takes its privileges away, too.
    fn mode(&self, member: &Member) -> Mode {
        let kept = match self.ownership {
            Ownership::Archive => 0o7777,
            Ownership::Fixed { .. } => 0o1777,
        };
        Mode::from_bits_truncate(member.mode & kept)
    }

    fn own(&self, member: &Member, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        let (uid, gid) = self.ids(member);
        rfs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// The owner first: changing it takes set-user-ID bits and capabilities away (chown(2)).
    fn dress_file(&self, member: &Member, file: &File) -> Result<(), Errno> {
        let (uid, gid) = self.ids(member);
        rfs::fchown(file, uid, gid)?;
        rfs::fchmod(file, self.mode(member))?;
        if self.ownership == Ownership::Archive {
            set_attributes(file, member)?;
        }
        let time = Timespec { tv_sec: member.modified.0, tv_nsec: member.modified.1.into() };
        rfs::futimens(file, &Timestamps { last_access: time, last_modification: time })
    }

    /// Of what is not opened for that: a device could do something when it is.
    fn dress(&self, member: &Member, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        let opened = rfs::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let (uid, gid) = self.ids(member);
        rfs::chownat(&opened, "", uid, gid, AtFlags::EMPTY_PATH)?;
        // fchmod(2) takes no O_PATH descriptor; its name in /proc leads to the same file and nowhere else.
        let number = std::os::fd::AsRawFd::as_raw_fd(&opened);
        rfs::chmod(format!("/proc/self/fd/{number}"), self.mode(member))
    }
}

/// The contents, with the holes that the archive left out.
fn fill<S: Stream>(file: &File, member: &Member, members: &mut Members<S>, place: &Path) -> Result<(), TransferError> {
    let whole = [Segment { offset: 0, length: member.size }];
    let (segments, length) = match &member.sparse {
        Some((segments, length)) => (segments.as_slice(), *length),
        None => (whole.as_slice(), member.size),
    };
    let mut buffer = vec![0; 64 * 1024];
    for segment in segments {
        let (mut at, end) = (segment.offset, segment.offset + segment.length);
        while at < end {
            let wanted = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let count = members.read_body(&mut buffer[..wanted]).map_err(unreadable)?;
            if count == 0 {
                return Err(failed("write", place)(io::ErrorKind::UnexpectedEof.into()));
            }
            file.write_all_at(&buffer[..count], at).map_err(failed("write", place))?;
            at += count as u64;
        }
    }
    match member.sparse {
        Some(_) => file.set_len(length).map_err(failed("write", place)),
        None => Ok(()),
    }
}

/// Those that go with the file. Not every file system takes the notes of users, and they are no part of what a file does.
fn set_attributes(file: &File, member: &Member) -> Result<(), Errno> {
    let named = member.xattrs.iter().filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value)));
    for (name, value) in named.filter(|(name, _)| carried(name)) {
        match rfs::fsetxattr(file, name, value, XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP) if name.starts_with("user.") => {}
            other => other?,
        }
    }
    Ok(())
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
        pack(&source, Path::new("copy"), None, &mut bytes).unwrap();
        let unpack = |to: &tempfile::TempDir, ownership| {
            unpack((root(to.path()).as_fd(), Path::new("/")), None, bytes.as_slice(), ownership, Way::WithoutLinks)
                .unwrap();
        };
        unpack(&to, Ownership::Archive);
        let copy = to.path().join("copy");
        assert_eq!(std::fs::read_to_string(copy.join("a/b/file")).unwrap(), "text");
        let file = std::fs::metadata(copy.join("a/b/file")).unwrap();
        assert_eq!((file.mode() & 0o7777, file.nlink()), (0o4640, 2));
        let mut kept = [0; 64];
        let length = rfs::getxattr(copy.join("a/b/file"), "security.capability", &mut kept[..]).unwrap();
        assert_eq!(kept[..length], CAPABILITY);
        // As somebody else's it has no power.
        let fixed = tempfile::tempdir().unwrap();
        unpack(&fixed, Ownership::Fixed { uid: 0, gid: 0 });
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
            let into = (opened.as_fd(), Path::new(into));
            unpack(into, None, archive(name).as_slice(), Ownership::Archive, Way::ThroughLinks)
        };
        put("file", "/").unwrap();
        put("secret", "/away").unwrap();
        assert!(matches!(put("../up", "/"), Err(TransferError::Escapes(_))));
        // Where the root is the host's, not even that: its own root is everywhere.
        let without_links = |name: &str, into: &str| {
            unpack(
                (opened.as_fd(), Path::new(into)),
                None,
                archive(name).as_slice(),
                Ownership::Archive,
                Way::WithoutLinks,
            )
        };
        without_links("other", "/away").unwrap();
        assert!(without_links("away/other", "/").is_err());
        assert_eq!(std::fs::read_to_string(outside.path().join("secret")).unwrap(), "secret");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
        assert_eq!(std::fs::read_to_string(inside.path().join("file")).unwrap(), "new");
    }
}
