//! From what an instruction wrote to a layer.
//!
//! The upper directory of an overlay is already in the form in which the store keeps layers; what is missing is the
//! digest. So the directory is written as a tar stream into a hash, and then only renamed: whiteouts become `.wh.` files
//! and opaque directories `.wh..wh..opq` (OCI image-spec, layer.md), as the unpacker would read them back.

use std::collections::HashMap;
use std::fs::{self, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use crate::engine::image::error::ImageError;
use crate::engine::image::rootfs::{Entry, put, walk, write_member};
use crate::engine::image::store::record::LayerRecord;
use crate::engine::image::store::session::{FinishedLayer, StagedLayer};
use crate::model::id::Digest;

/// Attributes by which overlayfs remembers where it copied from: they mean nothing in a layer.
const OVERLAY_MEMORY: [&str; 4] =
    ["trusted.overlay.origin", "trusted.overlay.impure", "trusted.overlay.nlink", "trusted.overlay.uuid"];
const OPAQUE: &str = "trusted.overlay.opaque";

/// Gives the empty upper directory the look that `/` has below it.
pub fn dress_root(upper: &Path, below: &Path) -> Result<(), ImageError> {
    let failed = || ImageError::file("prepare", upper);
    let root = fs::metadata(below).map_err(ImageError::file("look at", below))?;
    chown(upper, Some(root.uid()), Some(root.gid())).map_err(failed())?;
    fs::set_permissions(upper, Permissions::from_mode(root.mode() & 0o7777)).map_err(failed())?;
    let time = Timespec { tv_sec: root.mtime(), tv_nsec: root.mtime_nsec() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, upper, &times, AtFlags::empty()).map_err(|errno| failed()(errno.into()))
}

/// Finishes the layer whose upper directory is `staged`. Nothing writes to it any more.
pub fn finish(staged: StagedLayer) -> Result<FinishedLayer, ImageError> {
    let root = staged.tree();
    let mut hashing = Hashing { hasher: Sha256::new(), size: 0 };
    let mut record = LayerRecord::default();
    write_each(&root, &mut hashing, &mut |entry| {
        record.entries += 1;
        let is_file = entry.metadata.is_file();
        record.content_size += if is_file { entry.metadata.size() } else { 0 };
        if is_whiteout(entry.metadata) { Ok(()) } else { forget(entry.path) }
    })?;
    record.tar_size = hashing.size;
    Ok(FinishedLayer { diff_id: Digest::from_sha256(&hashing.hasher.finalize().into()), staged, record })
}

/// The tar stream of a layer that was finished here.
pub fn write(root: &Path, out: &mut dyn Write) -> Result<(), ImageError> {
    write_each(root, out, &mut |_| Ok(()))
}

fn write_each(
    root: &Path,
    out: &mut dyn Write,
    before: &mut dyn FnMut(&Entry<'_>) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let mut stream = tar::Builder::new(out);
    let mut linked = HashMap::new();
    walk(root, &mut |entry| {
        before(&entry)?;
        if is_whiteout(entry.metadata) {
            return write_marker(&mut stream, &entry, &whiteout_name(entry.relative));
        }
        let opaque = entry.metadata.is_dir() && is_opaque(entry.path)?;
        write_member(&mut stream, &mut linked, &entry)?;
        match opaque {
            true => write_marker(&mut stream, &entry, &[entry.relative, b"/.wh..wh..opq"].concat()),
            false => Ok(()),
        }
    })?;
    stream.into_inner().map(drop).map_err(ImageError::file("read", root))
}

fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn whiteout_name(path: &[u8]) -> Vec<u8> {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => [&path[..=slash], b".wh.", &path[slash + 1..]].concat(),
        None => [b".wh.", path].concat(),
    }
}

/// An empty file whose name is all that it says.
fn write_marker<W: Write>(stream: &mut tar::Builder<W>, entry: &Entry<'_>, name: &[u8]) -> Result<(), ImageError> {
    let failed = |error| ImageError::file("read", entry.path)(error);
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0);
    header.set_size(0);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    let mut records = Vec::new();
    put(&mut header.as_old_mut().name, name, "path", &mut records);
    header.set_cksum();
    if !records.is_empty() {
        let records = records.iter().map(|(key, value): &(String, Vec<u8>)| (key.as_str(), value.as_slice()));
        stream.append_pax_extensions(records).map_err(failed)?;
    }
    stream.append(&header, io::empty()).map_err(failed)
}

fn is_opaque(path: &Path) -> Result<bool, ImageError> {
    let mut value = [0; 1];
    match rustix::fs::lgetxattr(path, OPAQUE, &mut value) {
        Ok(length) => Ok(length == 1 && value == *b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(ImageError::file("read the attributes of", path)(errno.into())),
    }
}

fn forget(path: &Path) -> Result<(), ImageError> {
    for name in OVERLAY_MEMORY {
        match rustix::fs::lremovexattr(path, name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(ImageError::file("remove the attributes of", path)(errno.into())),
        }
    }
    Ok(())
}

/// Counts and digests what is written, and keeps nothing.
struct Hashing {
    hasher: Sha256,
    size: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
