//! Whether the layers of the store are what they were when they were unpacked.
//!
//! A layer is looked at in the way it was made. Its stream is made again, as its recipe says, and must have the digest that
//! the layer is named by; of that stream a second image is unpacked beside the first, and the two must be the same to the
//! byte, since an image follows from its stream. So everything is seen: contents, names, owners, modes, times, attributes.
//!
//! # What is seen otherwise
//! Each look at the host, and so each `apply` and each round of `watch`, sees of a layer that is an image that its file is
//! gone or cut short, or that its superblock is damaged (it has a checksum), and of one that is a directory that the directory
//! is gone. Damage behind that is seen here, or by whoever meets it: the kernel finds fault with some of it (EUCLEAN) and
//! hands out the rest as it is.
//!
//! # What is not seen
//! * Of a layer that is a directory: owners, modes, times and attributes, unless a build made it, which packs it again.
//! * Of an image that another version laid out in another way: the same.
//!
//! # Decisions
//! * Why no digest of the image beside it: its parts are not written in their order, so it would have to be read once more
//!   when it is unpacked, by everybody, for a question that is asked seldom.
//! * Why not fs-verity, for the same reason: the kernel reads and digests the whole file when it is switched on. It would
//!   answer with EIO where now damage is handed out, but not every file system has it, and it stops nobody who can write to
//!   the state root: whoever exchanges the file gives the new one a digest of its own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Advice, fadvise};

use super::ensure::Tools;
use super::erofs;
use super::error::ImageError;
use super::layer::Workshop;
use super::store::Store;
use super::store::record::sha256;
use super::store::session::{FinishedLayer, Form, Session};
use crate::model::id::Digest;
use crate::model::image::ImageSource;
use crate::runtime::layer;

const BUFFER: usize = 256 << 10;

/// How a layer was found.
pub enum Found {
    Whole,
    /// And why, in words. It stays as it is.
    Damaged(String),
    /// The same, and what it should be could be made of what is left: it is in its place again.
    Mended(String),
}

/// What to do about damage that can be undone without asking anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mending {
    Leave,
    Mend,
}

impl Store {
    /// Looks at every byte of a layer. Nothing is removed from the store meanwhile.
    ///
    /// # Errors
    /// Where it cannot be looked at: no room on the disk for a second one, no process to unpack it.
    pub fn check_layer(&self, diff_id: &Digest, mending: Mending, tools: Tools<'_>) -> Result<Found, ImageError> {
        let files = self.layer_path(diff_id);
        let session = self.session(&ImageSource::Rootfs(files.clone()))?;
        let _claim = session.claim_layers(std::slice::from_ref(diff_id))?;
        if !self.has_layer(diff_id) {
            let why = match files.exists() {
                true => "its file is cut short, or its beginning is damaged",
                false => "its files are gone",
            };
            return Ok(Found::Damaged(why.to_owned()));
        }
        let is_image = files.file_name().is_some_and(|name| name == layer::IMAGE);
        let has_recipe = self.has_recipe(diff_id);
        match is_image && has_recipe {
            true => check_image(session, diff_id, &files, mending, tools),
            false => Ok(match self.write_layer(diff_id, &mut io::sink()) {
                Ok(_) => Found::Whole,
                Err(error) => Found::Damaged(unless_of_host(error)?),
            }),
        }
    }

    /// The documents, manifests and configurations, that are not what their names say.
    pub fn damaged_documents(&self) -> Result<Vec<Digest>, ImageError> {
        let mut damaged = Vec::new();
        for digest in self.documents()? {
            if self.blob(&digest)?.is_some_and(|bytes| sha256([bytes.as_slice()]) != digest) {
                damaged.push(digest);
            }
        }
        Ok(damaged)
    }
}

fn check_image(
    session: Session<'_>,
    diff_id: &Digest,
    files: &Path,
    mending: Mending,
    tools: Tools<'_>,
) -> Result<Found, ImageError> {
    let session = session.doubting([diff_id.clone()].into());
    let store = session.store();
    let failed = || ImageError::file("read", files);
    let image = File::open(files).map_err(failed())?;
    // What is on the disk counts, not what is remembered of it.
    fadvise(&image, 0, None, Advice::DontNeed).map_err(|errno| failed()(errno.into()))?;
    let workshop = Workshop { session: &session, options: tools.options, progress: tools.progress };
    let staged = workshop.session.stage_as(Form::Image)?;
    let unpacking = staged.unpack(diff_id.short(), tools.options)?;
    let unpacked = match unpacking.feed_all(|stream| store.write_layer(diff_id, stream).map(drop)) {
        Ok(unpacked) => unpacked,
        Err(error) => return Ok(Found::Damaged(unless_of_host(error)?)),
    };
    let again = File::open(staged.files()).map_err(failed())?;
    match difference(&image, &again).map_err(failed())? {
        None => Ok(Found::Whole),
        Some(at) => {
            let why = format!("its file is not what it was at byte {at}");
            if mending == Mending::Leave {
                return Ok(Found::Damaged(why));
            }
            // The stream had the right digest, and this is made of it.
            session.replace(FinishedLayer { diff_id: unpacked.diff_id, staged, record: unpacked.record })?;
            Ok(Found::Mended(why))
        }
    }
}

/// Where two images begin to differ, their superblocks aside, which have checksums.
fn difference(one: &File, other: &File) -> io::Result<Option<u64>> {
    if erofs::name(one)? != erofs::name(other)? {
        return Ok(None);
    }
    let (length, wanted) = (one.metadata()?.len(), other.metadata()?.len());
    let mut at = erofs::BEHIND_SUPERBLOCK;
    let (mut left, mut right) = (vec![0; BUFFER], vec![0; BUFFER]);
    while at < length.min(wanted) {
        let count = BUFFER.min(usize::try_from(length.min(wanted) - at).unwrap_or(BUFFER));
        one.read_exact_at(&mut left[..count], at)?;
        other.read_exact_at(&mut right[..count], at)?;
        if let Some(place) = (0..count).find(|place| left[*place] != right[*place]) {
            return Ok(Some(at + place as u64));
        }
        at += count as u64;
    }
    Ok((length != wanted).then_some(at))
}

/// What is wrong with a layer, in words, unless it is with the host.
fn unless_of_host(error: ImageError) -> Result<String, ImageError> {
    match error {
        ImageError::Unrepeatable { .. } => Ok("its files are not what they were".to_owned()),
        // The kernel finds fault with it, or a file is not there any more.
        ImageError::File { .. } | ImageError::Layer { .. } | ImageError::Malformed { .. } => Ok(error.with_causes()),
        error => Err(error),
    }
}
