//! Root filesystems that are no image yet: a directory, or a tar file of one.
//!
//! Both become an image of one layer with an empty configuration. A directory is written as a tar stream and unpacked
//! like any other layer.
//!
//! # Decisions
//! Why not copy a directory by reflinks: as a stream its digest comes for nothing, and is the same for the same
//! contents wherever they are; there is one writer of layers, and it is confined; the layer can be pushed later, because
//! its bytes can be made again. What it costs is reading the files once.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::error::ImageError;
use super::layer::{Bytes, Expected, Workshop};
use super::store::record::Stamp;
use super::store::session::FinishedLayer;
use super::unpack::Unpacking;
use crate::model::id::Digest;

/// How a file or a directory looks now.
pub fn stamp(path: &Path) -> Result<Stamp, ImageError> {
    let metadata = fs::metadata(path).map_err(ImageError::file("read", path))?;
    if !metadata.is_dir() {
        let modified = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        return Ok(Stamp::File { size: metadata.size(), modified, inode: metadata.ino() });
    }
    let (mut entries, mut hasher) = (0, Sha256::new());
    walk(path, &mut |entry| {
        entries += 1;
        hasher.update((entry.relative.len() as u64).to_le_bytes());
        hasher.update(entry.relative);
        let m = entry.metadata;
        for number in [u64::from(m.mode()), u64::from(m.uid()), u64::from(m.gid()), m.size(), m.rdev()] {
            hasher.update(number.to_le_bytes());
        }
        for number in [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()] {
            hasher.update(number.to_le_bytes());
        }
        Ok(())
    })?;
    Ok(Stamp::Tree { entries, digest: Digest::from_sha256(&hasher.finalize().into()) })
}

/// Unpacks a tar file, plain, gzip or zstd, as one layer.
pub fn unpack_file(workshop: &Workshop<'_>, path: &Path) -> Result<FinishedLayer, ImageError> {
    let file = File::open(path).map_err(ImageError::file("open", path))?;
    unpack_open_file(workshop, file, &path.display().to_string())
}

/// The same for a file that is open; `name` is what errors call it.
pub fn unpack_open_file(workshop: &Workshop<'_>, file: File, name: &str) -> Result<FinishedLayer, ImageError> {
    let path = PathBuf::from(name);
    let size = file.metadata().map_err(ImageError::file("read", &path))?.len();
    let expected = Expected { name: name.to_owned(), size: Some(size), ..Expected::default() };
    workshop.unpack(&expected, &mut WholeFile { file, path })
}

struct WholeFile {
    file: File,
    path: PathBuf,
}

impl Bytes for WholeFile {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError> {
        self.file.read(buffer).map_err(ImageError::file("read", &self.path))
    }
}

/// Copies a directory as one layer: owners, modes, times, links of both kinds, devices and attributes included. Other
/// file systems that are mounted in it are not entered, and sockets are left out, as tar(1) does.
pub fn unpack_directory(workshop: &Workshop<'_>, path: &Path) -> Result<FinishedLayer, ImageError> {
    let staged = workshop.session.stage()?;
    let options = workshop.options;
    let name = path.display().to_string();
    let mut unpacking = Unpacking::start(&options.helper, &name, &staged.tree(), options.limits)?;
    let mut stream = tar::Builder::new(Feeding { unpacking: &mut unpacking, failure: None });
    let mut linked = HashMap::new();
    let written = walk(path, &mut |entry| write_member(&mut stream, &mut linked, &entry))
        .and_then(|()| stream.finish().map_err(ImageError::file("read", path)));
    let failure = stream.get_mut().failure.take();
    drop(stream);
    // Why the child stopped reading is better known to the child.
    let unpacked = match (failure, written) {
        (Some(Stop::Failed(error)), _) | (None, Err(error)) => return Err(error),
        (Some(Stop::HungUp), _) | (None, Ok(())) => unpacking.finish()?,
    };
    Ok(FinishedLayer { diff_id: unpacked.diff_id, staged, record: unpacked.record })
}

/// Something in the directory.
pub(super) struct Entry<'a> {
    pub path: &'a Path,
    /// From the directory on, without a slash at either end; empty for the directory itself.
    pub relative: &'a [u8],
    pub metadata: &'a Metadata,
}

pub(super) type Visit<'v> = dyn FnMut(Entry<'_>) -> Result<(), ImageError> + 'v;

/// Visits the directory and everything in it, parents first, names in order.
pub(super) fn walk(root: &Path, visit: &mut Visit<'_>) -> Result<(), ImageError> {
    let metadata = fs::metadata(root).map_err(ImageError::file("read", root))?;
    visit(Entry { path: root, relative: b"", metadata: &metadata })?;
    walk_below(root, b"", metadata.dev(), visit)
}

fn walk_below(directory: &Path, relative: &[u8], device: u64, visit: &mut Visit<'_>) -> Result<(), ImageError> {
    let listing = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut names: Vec<_> =
        listing.map_err(ImageError::file("list", directory))?.into_iter().map(|entry| entry.file_name()).collect();
    names.sort_unstable();
    for name in names {
        let path = directory.join(&name);
        let relative = [relative, if relative.is_empty() { b"" } else { b"/" }, name.as_bytes()].concat();
        let metadata = fs::symlink_metadata(&path).map_err(ImageError::file("read", &path))?;
        if metadata.file_type().is_socket() {
            continue;
        }
        visit(Entry { path: &path, relative: &relative, metadata: &metadata })?;
        if metadata.is_dir() && metadata.dev() == device {
            walk_below(&path, &relative, device, visit)?;
        }
    }
    Ok(())
}

/// Why the stream to the child ended before the directory did.
enum Stop {
    HungUp,
    Failed(ImageError),
}

/// The child as something to write to.
struct Feeding<'a> {
    unpacking: &'a mut Unpacking,
    failure: Option<Stop>,
}

impl Write for Feeding<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.failure = match self.unpacking.feed(bytes) {
            Ok(true) => return Ok(bytes.len()),
            Ok(false) => Some(Stop::HungUp),
            Err(error) => Some(Stop::Failed(error)),
        };
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes one member, contents included. `linked` are the files with several names that were written before.
pub(super) fn write_member<W: Write>(
    stream: &mut tar::Builder<W>,
    linked: &mut HashMap<(u64, u64), Vec<u8>>,
    entry: &Entry<'_>,
) -> Result<(), ImageError> {
    let &Entry { path, relative, metadata } = entry;
    let failed = |error| ImageError::file("read", path)(error);
    if path.file_name().is_some_and(|name| name.as_bytes().starts_with(b".wh.")) {
        let problem = "a name that begins with `.wh.` means a removed file in a layer".to_owned();
        return Err(ImageError::Malformed { subject: path.display().to_string(), problem });
    }
    let mut header = Header::new_ustar();
    let mut records: Vec<(String, Vec<u8>)> = Vec::new();
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header.set_size(0);
    match (u64::try_from(metadata.mtime()), metadata.mtime_nsec()) {
        (Ok(seconds), 0) => header.set_mtime(seconds),
        _ => records.push(("mtime".to_owned(), pax_time(metadata).into_bytes())),
    }
    let kind = metadata.file_type();
    let known = (metadata.nlink() > 1 && !kind.is_dir()).then_some((metadata.dev(), metadata.ino()));
    let first = known.and_then(|key| linked.get(&key));
    let mut contents = None;
    let (kind, link) = if let Some(first) = first {
        (EntryType::Link, first.clone())
    } else if kind.is_symlink() {
        (EntryType::Symlink, fs::read_link(path).map_err(failed)?.into_os_string().into_encoded_bytes())
    } else if kind.is_file() {
        // Not through a link that somebody puts there meanwhile.
        contents = Some(File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path).map_err(failed)?);
        header.set_size(metadata.size());
        (EntryType::Regular, Vec::new())
    } else if kind.is_dir() {
        (EntryType::Directory, Vec::new())
    } else if kind.is_fifo() {
        (EntryType::Fifo, Vec::new())
    } else {
        header.set_device_major(rustix::fs::major(metadata.rdev())).map_err(failed)?;
        header.set_device_minor(rustix::fs::minor(metadata.rdev())).map_err(failed)?;
        (if kind.is_char_device() { EntryType::Char } else { EntryType::Block }, Vec::new())
    };
    header.set_entry_type(kind);
    if let (Some(key), None) = (known, first) {
        linked.insert(key, relative.to_vec());
    }
    let name = if relative.is_empty() { b"./" } else { relative };
    let fields = header.as_old_mut();
    put(&mut fields.name, name, "path", &mut records);
    put(&mut fields.linkname, &link, "linkpath", &mut records);
    if kind != EntryType::Link {
        records.extend(xattrs(path)?);
    }
    header.set_cksum();
    if !records.is_empty() {
        let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        stream.append_pax_extensions(records).map_err(failed)?;
    }
    match contents {
        None => stream.append(&header, io::empty()).map_err(failed),
        Some(file) => {
            let mut exact = Exact { file, left: metadata.size() };
            stream.append(&header, &mut exact).map_err(failed)
        }
    }
}

/// A field of 100 bytes, or a PAX record of the same meaning.
pub(super) fn put(field: &mut [u8; 100], value: &[u8], key: &str, records: &mut Vec<(String, Vec<u8>)>) {
    match field.get_mut(..value.len()) {
        Some(place) => place.copy_from_slice(value),
        None => records.push((key.to_owned(), value.to_vec())),
    }
}

/// Seconds with nine decimals (pax(1)); before 1970 they count down to the second and up again.
fn pax_time(metadata: &Metadata) -> String {
    let nanoseconds = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    let (sign, size) = if nanoseconds < 0 { ("-", -nanoseconds) } else { ("", nanoseconds) };
    format!("{sign}{}.{:09}", size / 1_000_000_000, size % 1_000_000_000)
}

/// The extended attributes, in order of their names; overlayfs's own mean nothing outside a layer.
fn xattrs(path: &Path) -> Result<Vec<(String, Vec<u8>)>, ImageError> {
    let failed = |errno: rustix::io::Errno| ImageError::file("read the attributes of", path)(errno.into());
    let mut names = vec![0u8; 64 << 10];
    let count = match rustix::fs::llistxattr(path, &mut names) {
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        count => count.map_err(failed)?,
    };
    let mut all = Vec::new();
    let meaningful = |name: &&[u8]| !name.is_empty() && !name.starts_with(b"trusted.overlay.");
    for name in names[..count].split(|byte| *byte == 0).filter(meaningful) {
        let mut value = vec![0u8; 64 << 10];
        let length = rustix::fs::lgetxattr(path, name, &mut value).map_err(failed)?;
        value.truncate(length);
        let name = std::str::from_utf8(name).map_err(|_| failed(rustix::io::Errno::ILSEQ))?;
        all.push((format!("SCHILY.xattr.{name}"), value));
    }
    all.sort_unstable();
    Ok(all)
}

/// A file of exactly the size that its header says, even if it grows or shrinks meanwhile.
struct Exact {
    file: File,
    left: u64,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        match self.file.read(&mut buffer[..wanted])? {
            0 if self.left > 0 => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read"))
            }
            count => {
                self.left -= count as u64;
                Ok(count)
            }
        }
    }
}
