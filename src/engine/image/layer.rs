//! From a layer's bytes to a finished layer: read, verified, unpacked; several at once.

use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest as _, Sha256};

use super::error::ImageError;
use super::options::Options;
use super::progress::{Event, Progress};
use super::side_by_side;
use super::store::session::{FinishedLayer, Session};
use super::unpack::Unpacking;
use crate::model::id::Digest;

/// Large enough that the time between two system calls is the copying's, small enough to stay in the cache.
const BUFFER: usize = 256 << 10;

/// The bytes of a layer, wherever they come from.
pub trait Bytes {
    /// Like [`std::io::Read::read`]: 0 is the end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError>;
}

/// What is known of a layer before it is read.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// What errors and progress call it.
    pub name: String,
    /// Of the bytes as they come.
    pub digest: Option<Digest>,
    pub size: Option<u64>,
    /// Of the bytes when inflated.
    pub diff_id: Option<Digest>,
}

/// Begins to read a layer.
pub type Open<'l> = dyn Fn(&'l Expected) -> Result<Box<dyn Bytes + 'l>, ImageError> + Sync + 'l;

/// Everything that unpacking a layer needs besides the layer.
#[derive(Clone, Copy)]
pub struct Workshop<'a> {
    pub session: &'a Session<'a>,
    pub options: &'a Options,
    pub progress: &'a dyn Progress,
}

impl Workshop<'_> {
    /// Unpacks one layer. Nothing of it stays unless size and both digests are as expected.
    pub fn unpack(&self, expected: &Expected, bytes: &mut dyn Bytes) -> Result<FinishedLayer, ImageError> {
        let staged = self.session.stage()?;
        let Options { helper, limits, .. } = self.options;
        let mut unpacking = Unpacking::start(helper, &expected.name, &staged.tree(), Some(&staged.recipe()), *limits)?;
        let mut hasher = expected.digest.as_ref().map(|_| Sha256::new());
        let mut buffer = vec![0; BUFFER];
        let (mut size, mut wanted) = (0u64, true);
        loop {
            let count = bytes.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            size += count as u64;
            if expected.size.is_some_and(|expected| size > expected) {
                break;
            }
            if let Some(hasher) = &mut hasher {
                hasher.update(&buffer[..count]);
            }
            // A child that gives up on damaged bytes is right, but that they have the wrong digest is the better
            // answer: so they are read to the end.
            wanted = wanted && unpacking.feed(&buffer[..count])?;
            if !wanted && hasher.is_none() {
                break;
            }
            self.progress.report(Event::Read { layer: &expected.name, bytes: size, total: expected.size });
        }
        if wanted || hasher.is_some() {
            check_size(expected, size)?;
        }
        if let (Some(hasher), Some(digest)) = (hasher, &expected.digest) {
            check_digest(&expected.name, digest, Digest::from_sha256(&hasher.finalize().into()))?;
        }
        let unpacked = unpacking.finish()?;
        if let Some(diff_id) = &expected.diff_id {
            check_digest(&format!("{}, inflated", expected.name), diff_id, unpacked.diff_id.clone())?;
        }
        self.progress.report(Event::Unpacked { layer: &expected.name });
        Ok(FinishedLayer { diff_id: unpacked.diff_id, staged, record: unpacked.record })
    }

    /// Unpacks several layers at once. The first failure sets `failed` and so ends the others.
    pub fn unpack_all<'l>(
        &self,
        layers: &'l [Expected],
        failed: &'l AtomicBool,
        open: &Open<'l>,
    ) -> Result<Vec<FinishedLayer>, ImageError> {
        side_by_side::each(layers, failed, |layer| {
            open(layer).and_then(|bytes| self.unpack(layer, &mut Stoppable { bytes, stopped: failed }))
        })
    }
}

/// Bytes that end when another layer has failed.
struct Stoppable<'a> {
    bytes: Box<dyn Bytes + 'a>,
    stopped: &'a AtomicBool,
}

impl Bytes for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError> {
        match self.stopped.load(Ordering::Relaxed) {
            true => Ok(0),
            false => self.bytes.read(buffer),
        }
    }
}

fn check_size(expected: &Expected, actual: u64) -> Result<(), ImageError> {
    match expected.size {
        Some(size) if size != actual => {
            Err(ImageError::WrongSize { subject: expected.name.clone(), expected: size, actual })
        }
        _ => Ok(()),
    }
}

/// An error that names `subject` unless both digests are equal.
pub fn check_digest(subject: &str, expected: &Digest, actual: Digest) -> Result<(), ImageError> {
    match *expected == actual {
        true => Ok(()),
        false => Err(ImageError::WrongDigest { subject: subject.to_owned(), expected: expected.clone(), actual }),
    }
}
