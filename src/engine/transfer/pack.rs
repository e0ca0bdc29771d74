//! A file or a tree as tar.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self as rfs, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use super::{TransferError, XATTR, XATTR_LIST_MAX, XATTR_SIZE_MAX, below, carried, failed};
use crate::model::security::IdRange;

/// What is packed: it stays what it was when it was opened, wherever its name leads later.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    opened: OwnedFd,
    stat: Stat,
}

/// Filesystems of the kernel that are no files of a container: `statfs(2)` has the numbers.
const OF_THE_KERNEL: [i64; 6] = [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270, 0x1cd1, 0x1980_0202];

/// One descriptor is open for every level.
const MAX_DEPTH: u32 = 256;

impl Source {
    /// What is at `path` below `root`: with `links` the thing that a link names, else the link itself.
    pub fn open(root: BorrowedFd<'_>, path: &Path, links: Links) -> Result<Source, TransferError> {
        let is_dot = path.as_os_str().as_bytes().ends_with(b"/") || path.as_os_str().as_bytes().ends_with(b"/.");
        let follow = match links {
            Links::Follow => OFlags::empty(),
            Links::Keep if is_dot => OFlags::empty(),
            Links::Keep => OFlags::NOFOLLOW,
        };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let opened = loop {
            match crate::sys::path::openat2(
                root,
                below(path),
                OFlags::PATH | OFlags::CLOEXEC | follow,
                Mode::empty(),
                how,
            ) {
                // A rename anywhere on the host made the walk uncertain (openat2(2)).
                Err(Errno::AGAIN) => {}
                result => break result.map_err(|error| failed("find", path)(error.into()))?,
            }
        };
        let stat = rfs::fstat(&opened).map_err(|error| failed("look at", path)(error.into()))?;
        Ok(Source { path: path.to_owned(), opened, stat })
    }

    pub fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }
}

/// Whether a link at the end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    Keep,
    Follow,
}

/// Writes `source` under the name `top`, and if it is a directory what is in it below that name. Owners are those that
/// the container sees whose `users` these are.
pub fn pack(source: &Source, top: &Path, users: Option<IdRange>, to: impl Write) -> Result<(), TransferError> {
    let mut packer = Packer { builder: Builder::new(to), links: BTreeMap::new(), users };
    match source.is_directory() {
        true => packer.directory(&source.opened, &source.stat, top, &source.path, 0)?,
        false => {
            // The name is gone through again by the number of the descriptor, so it is the same file.
            let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&source.opened));
            match FileType::from_raw_mode(source.stat.st_mode) {
                FileType::RegularFile => {
                    // Somebody's lease on it is no reason to wait (fcntl(2), F_SETLEASE).
                    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(name);
                    let file = file.map_err(failed("open", &source.path))?;
                    packer.file(file, &source.stat, top, &source.path)?;
                }
                FileType::Symlink => {
                    let target = rfs::readlinkat(&source.opened, "", Vec::new());
                    let target = target.map_err(|error| failed("read", &source.path)(error.into()))?;
                    packer.link(
                        &source.stat,
                        top,
                        EntryType::Symlink,
                        Path::new(std::ffi::OsStr::from_bytes(target.as_bytes())),
                    )?;
                }
                kind => packer.special(kind, &source.stat, top)?,
            }
        }
    }
    packer.builder.into_inner().and_then(|mut to| to.flush()).map_err(|source| TransferError::Stream { source })
}

struct Packer<W: Write> {
    builder: Builder<W>,
    /// Where files with several names were packed first, by device and number.
    links: BTreeMap<(u64, u64), PathBuf>,
    users: Option<IdRange>,
}

impl<W: Write> Packer<W> {
    fn directory(
        &mut self,
        directory: impl AsFd,
        stat: &Stat,
        name: &Path,
        path: &Path,
        depth: u32,
    ) -> Result<(), TransferError> {
        if depth > MAX_DEPTH {
            return Err(failed("walk", path)(io::Error::other("directories are nested too deeply")));
        }
        self.append(self.header(stat, EntryType::Directory, 0), name, io::empty())?;
        let open = || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = rfs::openat(&directory, ".", flags, Mode::empty())?;
            let kind = rfs::fstatfs(&opened)?.f_type;
            Ok::<_, Errno>((!OF_THE_KERNEL.contains(&(kind as i64))).then_some(opened))
        };
        let cannot = |error: Errno| failed("list", path)(error.into());
        let Some(opened) = open().map_err(cannot)? else { return Ok(()) };
        for entry in Dir::read_from(&opened).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let file_name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
            if !matches!(file_name.as_bytes(), b"." | b"..") {
                self.entry(opened.as_fd(), Path::new(file_name), &name.join(file_name), &path.join(file_name), depth)?;
            }
        }
        Ok(())
    }

    /// What is gone since the listing is no part of the tree any more.
    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        file_name: &Path,
        name: &Path,
        path: &Path,
        depth: u32,
    ) -> Result<(), TransferError> {
        let cannot = |error: Errno| failed("read", path)(error.into());
        let stat = match rfs::statat(parent, file_name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.map_err(cannot)?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match rfs::openat(parent, file_name, flags, Mode::empty()) {
                    // It became something else.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
                    opened => self.directory(opened.map_err(cannot)?, &stat, name, path, depth + 1),
                }
            }
            FileType::RegularFile => {
                // Another kind of file may have taken its name: a pipe would keep us waiting without O_NONBLOCK.
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                let opened = match rfs::openat(parent, file_name, flags, Mode::empty()) {
                    Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(()),
                    opened => opened.map_err(cannot)?,
                };
                let stat = rfs::fstat(&opened).map_err(cannot)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile => self.file(File::from(opened), &stat, name, path),
                    _ => Ok(()),
                }
            }
            FileType::Symlink => match rfs::readlinkat(parent, file_name, Vec::new()) {
                Err(Errno::NOENT | Errno::INVAL) => Ok(()),
                target => {
                    let target = target.map_err(cannot)?;
                    let target = Path::new(std::ffi::OsStr::from_bytes(target.as_bytes()));
                    self.link(&stat, name, EntryType::Symlink, target)
                }
            },
            kind => self.special(kind, &stat, name),
        }
    }

    /// As many bytes as it had when it was looked at: one that shrinks meanwhile is filled up with zeroes.
    fn file(&mut self, file: File, stat: &Stat, name: &Path, path: &Path) -> Result<(), TransferError> {
        let key = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&key).cloned() {
                return self.link(stat, name, EntryType::Link, &first);
            }
            self.links.insert(key, name.to_owned());
        }
        let attributes = attributes(&file).map_err(|error| failed("read the attributes of", path)(error.into()))?;
        let attributes = attributes.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        self.builder.append_pax_extensions(attributes).map_err(|source| TransferError::Stream { source })?;
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        let failure = std::cell::Cell::new(None);
        let content = Whole { file, left: size, failure: &failure };
        self.append(self.header(stat, EntryType::Regular, size), name, content)?;
        failure.take().map_or(Ok(()), |error| Err(failed("read", path)(error)))
    }

    fn link(&mut self, stat: &Stat, name: &Path, kind: EntryType, target: &Path) -> Result<(), TransferError> {
        let mut header = self.header(stat, kind, 0);
        self.builder.append_link(&mut header, name, target).map_err(|source| TransferError::Stream { source })
    }

    fn special(&mut self, kind: FileType, stat: &Stat, name: &Path) -> Result<(), TransferError> {
        let kind = match kind {
            FileType::Fifo => EntryType::Fifo,
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            // A socket is nothing without the process that listens at it.
            _ => return Ok(()),
        };
        let mut header = self.header(stat, kind, 0);
        let numbers = (rfs::major(stat.st_rdev), rfs::minor(stat.st_rdev));
        let set = header.set_device_major(numbers.0).and_then(|()| header.set_device_minor(numbers.1));
        set.map_err(|source| TransferError::Stream { source })?;
        self.append(header, name, io::empty())
    }

    fn header(&self, stat: &Stat, kind: EntryType, size: u64) -> Header {
        // Where the container does not run, files of its image have the image's own numbers already.
        let inside = |number| self.users.and_then(|range| range.inside(number)).unwrap_or(number);
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(inside(stat.st_uid).into());
        header.set_gid(inside(stat.st_gid).into());
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or_default());
        header
    }

    fn append(&mut self, mut header: Header, name: &Path, content: impl Read) -> Result<(), TransferError> {
        self.builder.append_data(&mut header, name, content).map_err(|source| TransferError::Stream { source })
    }
}

/// Those of [`carried`], under the names that they have in archives.
fn attributes(file: &File) -> Result<Vec<(String, Vec<u8>)>, Errno> {
    let mut names = vec![0; XATTR_LIST_MAX];
    let length = match rfs::flistxattr(file, names.as_mut_slice()) {
        // The filesystem has none.
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok()) {
        // A record's name ends where the first `=` stands (pax(1)), so there is none for such a one.
        if carried(name) && !name.contains('=') {
            let mut value = vec![0; XATTR_SIZE_MAX];
            match rfs::fgetxattr(file, name, value.as_mut_slice()) {
                Ok(length) => found.push((format!("{XATTR}{name}"), value[..length].to_vec())),
                // It was taken away meanwhile.
                Err(Errno::NODATA) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// Exactly so many bytes, whatever becomes of the file. An error of the file is kept apart from those of the stream.
struct Whole<'a> {
    file: File,
    left: u64,
    failure: &'a std::cell::Cell<Option<io::Error>>,
}

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = match self.file.read(&mut buffer[..wanted]) {
            Ok(0) => {
                buffer[..wanted].fill(0);
                wanted
            }
            Ok(count) => count,
            Err(error) => {
                self.failure.set(Some(error));
                buffer[..wanted].fill(0);
                wanted
            }
        };
        self.left -= count as u64;
        Ok(count)
    }
}
