//! Directories that a layer only implies.
//!
//! A layer with `tmp/x` and no member `tmp` says nothing of who owns `/tmp` and with what mode. Unpacked by itself it
//! still has a directory there, and overlayfs shows the attributes of the uppermost one: `/tmp` would lose its sticky
//! bit. Engines that unpack each image's layers one onto the other copy the attributes from below; here layers are
//! shared by all images that have them, whatever is below in each.
//!
//! So an image in which this makes a difference gets one more layer on top, with just those directories as they should
//! look. It is made as a tar stream and unpacked like any other, so that it has a digest and is shared where equal.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tar::{EntryType, Header};

use super::error::ImageError;
use super::layer::{Bytes, Expected, Workshop};
use super::store::session::FinishedLayer;
use super::unpack::xattrs::OPAQUE;
use crate::runtime::layer;

/// A layer of the image: where it is, and which of its directories it implies.
pub struct Layer {
    pub files: PathBuf,
    implied: BTreeSet<Vec<u8>>,
    /// Its root directory, opened when it is looked at.
    root: OnceCell<OwnedFd>,
}

impl Layer {
    pub fn new(files: PathBuf, implied: Vec<Vec<u8>>) -> Layer {
        Layer { files, implied: implied.into_iter().collect(), root: OnceCell::new() }
    }

    fn root(&self) -> Result<BorrowedFd<'_>, ImageError> {
        let root = match self.root.get() {
            Some(root) => root,
            None => {
                let root = layer::open(&self.files).map_err(ImageError::file("look at", &self.files))?;
                self.root.get_or_init(|| root)
            }
        };
        Ok(root.as_fd())
    }
}

/// How a directory should look: mode, owner, group, and what else is in a tar header.
#[derive(Clone, PartialEq, Eq)]
struct Look {
    mode: u32,
    uid: u32,
    gid: u32,
    modified: u64,
}

/// What an implied directory looks like by itself.
const PLAIN: (u32, u32, u32) = (0o755, 0, 0);

/// The further layer for an image of these, lowest first; none where it would change nothing.
pub fn correction(workshop: &Workshop<'_>, layers: &[Layer]) -> Result<Option<FinishedLayer>, ImageError> {
    let mut wrong: BTreeMap<Vec<u8>, Look> = BTreeMap::new();
    for path in layers.iter().skip(1).flat_map(|layer| &layer.implied) {
        if let Some(look) = look(layers, path)?
            && look.is_implied
            && (look.look.mode, look.look.uid, look.look.gid) != PLAIN
        {
            wrong.insert(path.clone(), look.look);
        }
    }
    if wrong.is_empty() {
        return Ok(None);
    }
    // Their parents become uppermost too, and must say how they look.
    let mut all = wrong.clone();
    for path in wrong.keys() {
        for parent in parents(path) {
            if let Some(found) = look(layers, parent)? {
                all.insert(parent.to_vec(), found.look);
            }
        }
    }
    let bytes = stream(&all).map_err(ImageError::file("describe directories in", &layers[0].files))?;
    let expected = Expected { name: "attributes of directories".to_owned(), ..Expected::default() };
    workshop.unpack(&expected, || Ok(Box::new(Memory { bytes: bytes.clone(), at: 0 }))).map(Some)
}

struct Found {
    look: Look,
    /// The uppermost layer that has it only implies it.
    is_implied: bool,
}

/// How the directory at `path` should look in the image: as the uppermost layer says that says anything.
fn look(layers: &[Layer], path: &[u8]) -> Result<Option<Found>, ImageError> {
    let mut found: Option<Found> = None;
    for layer in layers.iter().rev() {
        match at(layer, path)? {
            Place::Nothing { hidden: false } => {}
            Place::Nothing { hidden: true } => break,
            Place::Directory { metadata, is_within_opaque } => {
                let is_implied = layer.implied.contains(path);
                let look = Look {
                    mode: metadata.mode() & 0o7777,
                    uid: metadata.uid(),
                    gid: metadata.gid(),
                    modified: u64::try_from(metadata.mtime()).unwrap_or(0),
                };
                match &mut found {
                    None => found = Some(Found { look, is_implied }),
                    Some(found) => found.look = look,
                }
                if !is_implied || is_within_opaque {
                    break;
                }
            }
        }
    }
    Ok(found)
}

enum Place {
    /// Not in this layer; `hidden` if the layer also hides what lower ones have there.
    Nothing { hidden: bool },
    Directory {
        metadata: Metadata,
        /// Nothing of lower layers is there. A directory that is opaque itself is still the one that they have, emptied; one
        /// that was removed and made anew is not implied.
        is_within_opaque: bool,
    },
}

/// What one layer has at a path. A layer's tree is a stranger's, so no link of it is followed.
fn at(layer: &Layer, path: &[u8]) -> Result<Place, ImageError> {
    let shown = || layer.files.join(std::ffi::OsStr::from_bytes(path));
    let failed = |errno: Errno| ImageError::file("look at", &shown())(errno.into());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory: OwnedFd = rustix::fs::openat(layer.root()?, ".", flags, Mode::empty()).map_err(failed)?;
    let (mut opaque, mut is_within_opaque) = (false, false);
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let found = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(Place::Nothing { hidden: opaque }),
            found => found.map_err(failed)?,
        };
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            // A whiteout, or something else in its place: either way nothing of a lower layer shows.
            return Ok(Place::Nothing { hidden: true });
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        directory = crate::sys::path::openat2(&directory, name, flags, Mode::empty(), resolve).map_err(failed)?;
        let mut value = [0; 1];
        is_within_opaque = opaque;
        opaque |= rustix::fs::fgetxattr(&directory, OPAQUE.0, &mut value).is_ok_and(|_| value == *OPAQUE.1);
    }
    let metadata = File::from(directory).metadata().map_err(ImageError::file("look at", &shown()))?;
    Ok(Place::Directory { metadata, is_within_opaque })
}

/// The directories above a path; the root is the uppermost.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let root = (!path.is_empty()).then_some(b"".as_slice());
    root.into_iter().chain(path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at]))
}

fn stream(directories: &BTreeMap<Vec<u8>, Look>) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, look) in directories {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(look.mode);
        header.set_uid(look.uid.into());
        header.set_gid(look.gid.into());
        header.set_mtime(look.modified);
        header.set_size(0);
        match path.is_empty() {
            true => {
                header.as_old_mut().name[..2].copy_from_slice(b"./");
                header.set_cksum();
                tar.append(&header, std::io::empty())?;
            }
            false => tar.append_data(&mut header, Path::new(std::ffi::OsStr::from_bytes(path)), std::io::empty())?,
        }
    }
    tar.into_inner()
}

struct Memory {
    bytes: Vec<u8>,
    at: usize,
}

impl Bytes for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError> {
        let count = buffer.len().min(self.bytes.len() - self.at);
        buffer[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_those_from_the_root_to_the_path() {
        assert_eq!(parents(b"a/b/c").collect::<Vec<_>>(), [b"".as_slice(), b"a", b"a/b"]);
        assert_eq!(parents(b"").count(), 0);
    }
}
