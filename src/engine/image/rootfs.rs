//! Root filesystems that are no image yet: a directory, or a tar file of one.
//!
//! Both become an image of one layer with an empty configuration. A directory is written as a tar stream and unpacked
//! like any other layer.
//!
//! # Decisions
//! Why not copy a directory by reflinks: as a stream its digest comes for nothing, and is the same for the same
//! contents wherever they are; there is one writer of layers, and it is confined; the layer can be pushed later, because
//! its bytes can be made again. What it costs is reading the files once.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::error::ImageError;
use super::layer::{Bytes, Expected, Workshop};
use super::pack::{Packer, Purpose, walk};
use super::store::record::Stamp;
use super::store::session::FinishedLayer;
use crate::model::id::Digest;

/// How a file or a directory looks now.
pub fn stamp(path: &Path) -> Result<Stamp, ImageError> {
    let metadata = fs::metadata(path).map_err(ImageError::file("read", path))?;
    if !metadata.is_dir() {
        let modified = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        return Ok(Stamp::File { size: metadata.size(), modified, inode: metadata.ino() });
    }
    let (mut entries, mut hasher) = (0, Sha256::new());
    walk(path, Purpose::Layer, &mut |entry| {
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
    workshop.unpack(&expected, || {
        let mut file = file.try_clone().map_err(ImageError::file("use", &path))?;
        file.rewind().map_err(ImageError::file("read", &path))?;
        Ok(Box::new(WholeFile { file, path: path.clone() }))
    })
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
    unpack_stream(workshop, &path.display().to_string(), |stream| {
        let mut packer = Packer::of_layer(stream);
        walk(path, Purpose::Layer, &mut |entry| packer.member(&entry))?;
        packer.finish(path)
    })
}

/// Unpacks what `write` writes, a tar stream, as one layer. `name` is what errors call it.
pub fn unpack_stream(
    workshop: &Workshop<'_>,
    name: &str,
    write: impl Fn(&mut (dyn Write + Send)) -> Result<(), ImageError>,
) -> Result<FinishedLayer, ImageError> {
    workshop.stage(|staged| {
        let unpacking = staged.unpack(name, workshop.options)?;
        let unpacked = unpacking.feed_all(&write)?;
        Ok(FinishedLayer { diff_id: unpacked.diff_id, staged, record: unpacked.record })
    })
}
