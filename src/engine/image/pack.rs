//! A directory as a tar stream, always the same for the same directory.
//!
//! Members come parents first and names in order; headers are ustar with PAX records for what does not fit: long names,
//! parts of a second, extended attributes.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::io::Errno;
use tar::{EntryType, Header};

use super::error::ImageError;
use super::unpack::xattrs;
use crate::model::security::IdRange;

/// Something in the directory.
pub struct Entry<'a> {
    pub path: &'a Path,
    /// From the directory on, without a slash at either end; empty for the directory itself.
    pub relative: &'a [u8],
    pub metadata: &'a Metadata,
}

pub type Visit<'v> = dyn FnMut(Entry<'_>) -> Result<(), ImageError> + 'v;

/// Visits the directory and everything in it, parents first, names in order. Other file systems that are mounted in it
/// are not entered, and sockets are left out, as tar(1) does.
pub fn walk(root: &Path, purpose: Purpose, visit: &mut Visit<'_>) -> Result<(), ImageError> {
    let metadata = fs::metadata(root).map_err(ImageError::file("read", root))?;
    visit(Entry { path: root, relative: b"", metadata: &metadata })?;
    Walk { device: metadata.dev(), purpose, visit }.below(root, b"")
}

struct Walk<'a, 'v> {
    device: u64,
    purpose: Purpose,
    visit: &'a mut Visit<'v>,
}

impl Walk<'_, '_> {
    fn below(&mut self, directory: &Path, relative: &[u8]) -> Result<(), ImageError> {
        let listing = match fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Err(error) if self.purpose.tolerates(&error) => return Ok(()),
            listing => listing.map_err(ImageError::file("list", directory))?,
        };
        let mut names: Vec<_> = listing.into_iter().map(|entry| entry.file_name()).collect();
        names.sort_unstable();
        for name in names {
            let path = directory.join(&name);
            let relative = [relative, if relative.is_empty() { b"" } else { b"/" }, name.as_bytes()].concat();
            let metadata = match fs::symlink_metadata(&path) {
                Err(error) if self.purpose.tolerates(&error) => continue,
                metadata => metadata.map_err(ImageError::file("read", &path))?,
            };
            if metadata.file_type().is_socket() {
                continue;
            }
            (self.visit)(Entry { path: &path, relative: &relative, metadata: &metadata })?;
            if metadata.is_dir() && metadata.dev() == self.device {
                self.below(&path, &relative)?;
            }
        }
        Ok(())
    }
}

/// Writes the files below `root`, the layers of a container or an image as one, as a whole archive. `users`: see
/// [`Packer::new`]; `path` is what errors call it.
pub fn export(
    root: BorrowedFd<'_>,
    path: &Path,
    users: Option<IdRange>,
    to: &mut (dyn Write + Send),
) -> Result<(), ImageError> {
    within(root, || {
        let mut packer = Packer::new(to, Purpose::Export, users);
        walk(Path::new("/"), Purpose::Export, &mut |entry| match is_whiteout(entry.metadata) {
            // Overlayfs shows none; a single layer is looked at as it is.
            true => Ok(()),
            false => packer.member(&entry),
        })?;
        packer.finish(path)
    })
}

/// Calls `work` on a thread whose root directory this is, so that no link of a tree that somebody else is changing
/// leads out of it (CVE-2018-15664 is about one that did).
pub fn within<T: Send>(
    root: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, ImageError> + Send,
) -> Result<T, ImageError> {
    let confined = || {
        let failed = |error: io::Error| ImageError::file("enter", Path::new("/"))(error);
        // It unshares working directory and root too, so only this thread changes (unshare(2), CLONE_NEWNS).
        crate::sys::namespace::unshare(libc::CLONE_NEWNS).map_err(failed)?;
        rustix::process::fchdir(root).map_err(|errno| failed(errno.into()))?;
        rustix::process::chroot(".").map_err(|errno| failed(errno.into()))?;
        work()
    };
    let done = std::thread::scope(|scope| scope.spawn(confined).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What the stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A layer: names that begin with `.wh.` mean removed files there, so no file may have one.
    Layer,
    /// Files as they are, of a tree that somebody may be changing: what has gone is left out, and a file that became
    /// shorter is filled up with zeros.
    Export,
}

impl Purpose {
    /// What was listed and has gone, or has become something else, since.
    fn tolerates(self, error: &io::Error) -> bool {
        let gone = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENXIO));
        self == Purpose::Export && gone
    }
}

/// Writes members of a tar stream.
pub struct Packer<W: Write> {
    stream: tar::Builder<W>,
    /// The files with several names that were written before.
    linked: HashMap<(u64, u64), Vec<u8>>,
    purpose: Purpose,
    /// The host's numbers of a container's users, which are written as the container's own.
    users: Option<IdRange>,
}

impl<W: Write> Packer<W> {
    pub fn of_layer(to: W) -> Packer<W> {
        Packer::new(to, Purpose::Layer, None)
    }

    /// `users`: the host's numbers of a container's users, which are written as the container's own.
    pub fn new(to: W, purpose: Purpose, users: Option<IdRange>) -> Packer<W> {
        Packer { stream: tar::Builder::new(to), linked: HashMap::new(), purpose, users }
    }

    /// Ends the archive. `path` is what errors call it.
    pub fn finish(mut self, path: &Path) -> Result<(), ImageError> {
        self.stream.finish().map_err(ImageError::file("pack", path))
    }

    /// An empty file that no directory has: its name is all that it says.
    pub fn marker(&mut self, path: &Path, name: &[u8]) -> Result<(), ImageError> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0);
        header.set_size(0);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let mut records = Vec::new();
        put(&mut header.as_old_mut().name, name, "path", &mut records);
        self.append(&mut header, &records, io::empty()).map_err(ImageError::file("pack", path))
    }

    /// One member, contents included.
    pub fn member(&mut self, entry: &Entry<'_>) -> Result<(), ImageError> {
        match self.write(entry) {
            Err(ImageError::File { source, .. }) if self.purpose.tolerates(&source) => Ok(()),
            other => other,
        }
    }

    /// One entry of a directory in overlayfs's form: whiteouts become `.wh.` files, and opaque directories get a
    /// `.wh..wh..opq` (OCI image-spec, layer.md), as the unpacker would read them back.
    pub fn layer_member(&mut self, entry: &Entry<'_>) -> Result<(), ImageError> {
        if is_whiteout(entry.metadata) {
            return self.marker(entry.path, &whiteout_name(entry.relative));
        }
        self.member(entry)?;
        match entry.metadata.is_dir() && is_opaque(entry.path)? {
            true => self.marker(entry.path, &[entry.relative, b"/.wh..wh..opq"].concat()),
            false => Ok(()),
        }
    }

    fn append(&mut self, header: &mut Header, records: &[(String, Vec<u8>)], contents: impl Read) -> io::Result<()> {
        header.set_cksum();
        if !records.is_empty() {
            let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
            self.stream.append_pax_extensions(records)?;
        }
        self.stream.append(header, contents)
    }

    fn write(&mut self, entry: &Entry<'_>) -> Result<(), ImageError> {
        let &Entry { path, relative, metadata } = entry;
        let failed = |error| ImageError::file("read", path)(error);
        let is_marker = path.file_name().is_some_and(|name| name.as_bytes().starts_with(b".wh."));
        if is_marker && self.purpose == Purpose::Layer {
            let problem = "a name that begins with `.wh.` means a removed file in a layer".to_owned();
            return Err(ImageError::Malformed { subject: path.display().to_string(), problem });
        }
        let mut header = Header::new_ustar();
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        header.set_mode(metadata.mode() & 0o7777);
        header.set_uid(self.inside(metadata.uid()).into());
        header.set_gid(self.inside(metadata.gid()).into());
        header.set_size(0);
        match (u64::try_from(metadata.mtime()), metadata.mtime_nsec()) {
            (Ok(seconds), 0) => header.set_mtime(seconds),
            _ => records.push(("mtime".to_owned(), pax_time(metadata).into_bytes())),
        }
        let kind = metadata.file_type();
        let known = (metadata.nlink() > 1 && !kind.is_dir()).then_some((metadata.dev(), metadata.ino()));
        let first = known.and_then(|key| self.linked.get(&key));
        let mut contents = None;
        let (kind, link) = if let Some(first) = first {
            (EntryType::Link, first.clone())
        } else if kind.is_symlink() {
            (EntryType::Symlink, fs::read_link(path).map_err(failed)?.into_os_string().into_encoded_bytes())
        } else if kind.is_file() {
            // Not through a link that somebody puts there meanwhile, and not waiting for the other end of a pipe.
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
            let file = File::options().read(true).custom_flags(flags).open(path).map_err(failed)?;
            // Nor of a device that took the name: what its node may be opened for in a container is more for us. Nor of
            // another file: the owner and the mode of this one are not for its contents.
            let opened = file.metadata().map_err(failed)?;
            if !opened.is_file() || (opened.dev(), opened.ino()) != (metadata.dev(), metadata.ino()) {
                return Err(failed(io::Error::from_raw_os_error(libc::ENXIO)));
            }
            contents = Some(file);
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
        if kind != EntryType::Link {
            // A record's name ends where the first `=` stands (pax(1)), so there is none for such an attribute.
            let attributes = xattrs(path, contents.as_ref())?.into_iter().filter(|(name, _)| !name.contains('='));
            let attributes = attributes.map(|(name, value)| match name.as_str() {
                "security.capability" if self.users.is_some() => (name, of_no_namespace(value)),
                _ => (name, value),
            });
            let attributes = attributes.map(|(name, value)| (format!("SCHILY.xattr.{name}"), value));
            let attributes: Vec<_> = attributes.collect();
            let name = if relative.is_empty() { b"./" } else { relative };
            let fields = header.as_old_mut();
            put(&mut fields.name, name, "path", &mut records);
            put(&mut fields.linkname, &link, "linkpath", &mut records);
            records.extend(attributes);
        } else {
            let fields = header.as_old_mut();
            put(&mut fields.name, relative, "path", &mut records);
            put(&mut fields.linkname, &link, "linkpath", &mut records);
        }
        match contents {
            None => self.append(&mut header, &records, io::empty()).map_err(failed)?,
            Some(file) => {
                let exact = Exact { file, left: metadata.size(), purpose: self.purpose };
                self.append(&mut header, &records, exact).map_err(failed)?;
            }
        }
        if let (Some(key), true) = (known, kind != EntryType::Link) {
            self.linked.insert(key, relative.to_vec());
        }
        Ok(())
    }

    /// A number of the host as the container has it. Files of an image's layers have the image's own numbers already.
    fn inside(&self, number: u32) -> u32 {
        self.users.and_then(|range| range.inside(number)).unwrap_or(number)
    }
}

/// What overlayfs has in place of something that was removed.
pub fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn whiteout_name(path: &[u8]) -> Vec<u8> {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => [&path[..=slash], b".wh.", &path[slash + 1..]].concat(),
        None => [b".wh.", path].concat(),
    }
}

fn is_opaque(path: &Path) -> Result<bool, ImageError> {
    let mut value = [0; 1];
    match rustix::fs::lgetxattr(path, xattrs::OPAQUE.0, &mut value) {
        Ok(length) => Ok(length == 1 && value == *b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(ImageError::file("read the attributes of", path)(errno.into())),
    }
}

/// File capabilities that count only where this host's number of a container's root is root (capabilities(7), version 3)
/// as those that count for whoever is root (version 2).
fn of_no_namespace(mut value: Vec<u8>) -> Vec<u8> {
    const VERSION: usize = 3;
    // struct vfs_ns_cap_data: magic with flags, two pairs of sets, the number of root; little-endian.
    if value.len() == 24 && value[VERSION] == 3 {
        value[VERSION] = 2;
        value.truncate(20);
    }
    value
}

/// A field of 100 bytes, or a PAX record of the same meaning.
fn put(field: &mut [u8; 100], value: &[u8], key: &str, records: &mut Vec<(String, Vec<u8>)>) {
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

/// The extended attributes, in order of their names; overlayfs's own mean nothing outside a layer. `opened`: the file that
/// they are of, whatever has its name by now.
fn xattrs(path: &Path, opened: Option<&File>) -> Result<Vec<(String, Vec<u8>)>, ImageError> {
    let failed = |errno: rustix::io::Errno| ImageError::file("read the attributes of", path)(errno.into());
    let mut names = vec![0u8; 64 << 10];
    let listed = match opened {
        Some(file) => rustix::fs::flistxattr(file, &mut names),
        None => rustix::fs::llistxattr(path, &mut names),
    };
    let count = match listed {
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        count => count.map_err(failed)?,
    };
    let mut all = Vec::new();
    let meaningful = |name: &&[u8]| !name.is_empty() && !name.starts_with(b"trusted.overlay.");
    for name in names[..count].split(|byte| *byte == 0).filter(meaningful) {
        let mut value = vec![0u8; 64 << 10];
        let length = match opened {
            Some(file) => rustix::fs::fgetxattr(file, name, &mut value),
            None => rustix::fs::lgetxattr(path, name, &mut value),
        };
        let length = length.map_err(failed)?;
        value.truncate(length);
        let name = std::str::from_utf8(name).map_err(|_| failed(rustix::io::Errno::ILSEQ))?;
        all.push((name.to_owned(), value));
    }
    all.sort_unstable();
    Ok(all)
}

/// A file of exactly the size that its header says, even if it grows or shrinks meanwhile.
struct Exact {
    file: File,
    left: u64,
    purpose: Purpose,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        match self.file.read(&mut buffer[..wanted])? {
            0 if self.left > 0 && self.purpose == Purpose::Export => {
                buffer[..wanted].fill(0);
                self.left -= wanted as u64;
                Ok(wanted)
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_took_the_name_of_another_is_not_written_as_that() {
        let directory = tempfile::tempdir().unwrap();
        let (listed, path) = (directory.path().join("listed"), directory.path().join("path"));
        fs::write(&listed, "its own").unwrap();
        fs::write(&path, "his").unwrap();
        let written = |metadata: &Metadata| {
            let mut packer = Packer::new(Vec::new(), Purpose::Export, None);
            packer.member(&Entry { path: &path, relative: b"path", metadata }).unwrap();
            packer.stream.get_ref().len()
        };
        assert_eq!(written(&fs::metadata(&listed).unwrap()), 0);
        assert!(written(&fs::metadata(&path).unwrap()) > 0);
    }

    #[test]
    fn files_of_layers_and_of_the_container_are_the_containers() {
        let users = IdRange { start: 100_000, size: 65_536 };
        let packer = Packer::new(Vec::new(), Purpose::Export, Some(users));
        assert_eq!([100_000, 100_007, 0, 33].map(|number| packer.inside(number)), [0, 7, 0, 33]);
    }
}
