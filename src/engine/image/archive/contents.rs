//! Where the files of an archive are: at places in one tar file, or each for itself in a directory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::super::error::ImageError;
use super::super::layer::{self, Bytes};
use super::super::options::Options;
use super::super::store::session::Session;
use super::super::unpack::compression::{Compression, MAGIC};
use super::super::unpack::parent;
use super::super::unpack::report::Listed;
use crate::sys;

/// Links in an archive lead to files in it, in one step; what needs more is a loop.
const LINKS_MAX: usize = 8;

pub(super) enum Contents {
    /// A tar file, uncompressed, and what it holds, by the name from its root.
    Tar { file: Arc<File>, members: HashMap<String, Listed> },
    /// An OCI image layout as it stands, or what an archive was unpacked to.
    Directory(File),
}

/// A file of an archive.
pub(super) struct Place {
    file: Arc<File>,
    offset: u64,
    pub size: u64,
}

impl Contents {
    pub fn of(session: &Session<'_>, file: File, path: &Path, options: &Options) -> Result<Contents, ImageError> {
        match file.metadata().map_err(ImageError::file("read", path))?.is_dir() {
            true => Ok(Contents::Directory(file)),
            false => Contents::list(session, file, path, options),
        }
    }

    fn list(session: &Session<'_>, mut file: File, path: &Path, options: &Options) -> Result<Contents, ImageError> {
        let mut start = [0; MAGIC];
        let count = file.read_at(&mut start, 0).map_err(ImageError::file("read", path))?;
        // Children work in a directory in which there is nothing.
        let empty = session.stage()?;
        let (helper, place, limits) = (&options.helper, empty.tree(), options.limits);
        let name = |error| match error {
            ImageError::Layer { problem, .. } => ImageError::Malformed { subject: path.display().to_string(), problem },
            error => error,
        };
        if Compression::of(&start[..count]) != Compression::None {
            let spool = session.spool()?;
            parent::inflate(helper, &file, &spool, &place, limits).map_err(name)?;
            file = spool;
        }
        file.seek(SeekFrom::Start(0)).map_err(ImageError::file("read", path))?;
        let listed = parent::list(helper, &file, &place, limits).map_err(name)?;
        let length = file.metadata().map_err(ImageError::file("read", path))?.len();
        // The child passes over contents without reading them, so it does not see where the file ends.
        if listed.iter().any(|member| member.offset.checked_add(member.size).is_none_or(|end| end > length)) {
            return Err(ImageError::Malformed {
                subject: path.display().to_string(),
                problem: "it ends early".to_owned(),
            });
        }
        // The last of several with one name, as when it is unpacked.
        let members = listed.into_iter().map(|member| (clean(&member.name), member)).collect();
        Ok(Contents::Tar { file: Arc::new(file), members })
    }

    /// None where it has no such file.
    pub fn place(&self, name: &str, path: &Path) -> Result<Option<Place>, ImageError> {
        match self {
            Contents::Tar { file, members } => Ok(member(members, name).map(|member| Place {
                file: Arc::clone(file),
                offset: member.offset,
                size: member.size,
            })),
            Contents::Directory(directory) => {
                // Whoever made it may have put links there: they lead no further than to its root.
                let (flags, resolve) = (OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, ResolveFlags::IN_ROOT);
                let opened = sys::path::openat2(directory, clean(name), flags, Mode::empty(), resolve);
                let file = match opened {
                    Ok(file) => File::from(file),
                    Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
                    Err(error) => return Err(ImageError::file("open", &path.join(name))(error.into())),
                };
                let metadata = file.metadata().map_err(ImageError::file("read", &path.join(name)))?;
                Ok(metadata.is_file().then(|| Place { file: Arc::new(file), offset: 0, size: metadata.len() }))
            }
        }
    }
}

impl Place {
    /// All of it.
    pub fn read(&self, path: &Path) -> Result<Vec<u8>, ImageError> {
        let mut bytes = vec![0; self.size as usize];
        self.file.read_exact_at(&mut bytes, self.offset).map_err(ImageError::file("read", path))?;
        Ok(bytes)
    }

    pub fn stream<'a>(&'a self, path: &'a Path) -> Range<'a> {
        Range { file: &self.file, path, offset: self.offset, left: self.size }
    }
}

/// Where a file is, through links: Docker saves a layer that several images have once, and links to it.
fn member<'a>(members: &'a HashMap<String, Listed>, name: &str) -> Option<&'a Listed> {
    let mut name = clean(name);
    for _ in 0..LINKS_MAX {
        let member = members.get(&name)?;
        match &member.link {
            None => return Some(member),
            Some(link) => {
                // From the archive's root, or for `../ID/layer.tar` from where it stands.
                let beside = clean(&format!("{name}/../{link}"));
                name = if members.contains_key(&beside) { beside } else { clean(link) };
            }
        }
    }
    None
}

/// A part of a file.
pub(super) struct Range<'a> {
    file: &'a File,
    path: &'a Path,
    offset: u64,
    left: u64,
}

impl Bytes for Range<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..wanted], self.offset);
        let count = read.map_err(ImageError::file("read", self.path))?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }

    fn splice(&mut self, pipe: BorrowedFd<'_>) -> Result<Option<usize>, ImageError> {
        let moved = layer::splice(self.file, self.offset, self.left, pipe);
        let moved = moved.map_err(ImageError::file("read", self.path))?;
        self.offset += moved.unwrap_or(0) as u64;
        self.left -= moved.unwrap_or(0) as u64;
        Ok(moved)
    }
}

/// The name from the archive's root.
fn clean(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
