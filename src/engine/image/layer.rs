//! From a layer's bytes to a finished layer: read, verified, unpacked; several at once.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::pipe::SpliceFlags;
use sha2::{Digest as _, Sha256};

use super::error::ImageError;
use super::options::Options;
use super::progress::{Event, Progress};
use super::side_by_side;
use super::store::session::{FinishedLayer, Session, StagedLayer};
use super::writeback::{self, Meter};
use crate::model::id::Digest;

/// Large enough that the time between two system calls is the copying's, small enough to stay in the cache.
const BUFFER: usize = 256 << 10;
/// What a pipe holds; so often progress is told.
const SPLICE: usize = 1 << 20;

/// The bytes of a layer, wherever they come from.
pub trait Bytes {
    /// Like [`std::io::Read::read`]: 0 is the end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError>;

    /// Moves some of them into a pipe, without a look at them: how many, 0 at the end. `None`: they have to be read.
    fn splice(&mut self, _pipe: BorrowedFd<'_>) -> Result<Option<usize>, ImageError> {
        Ok(None)
    }
}

/// Moves some bytes of a part of a file into a pipe. `None` where that cannot be.
pub fn splice(file: &File, mut offset: u64, length: u64, pipe: BorrowedFd<'_>) -> io::Result<Option<usize>> {
    let most = usize::try_from(length).unwrap_or(usize::MAX).min(SPLICE);
    loop {
        match rustix::pipe::splice(file, Some(&mut offset), pipe, None, most, SpliceFlags::empty()) {
            Ok(count) => return Ok(Some(count)),
            Err(Errno::INTR) => {}
            // Not every file system can (splice(2)). That nobody reads any more, writing finds out.
            Err(Errno::INVAL | Errno::PIPE) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    }
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
    /// Calls `unpack` with a place for a layer; and once more, from its beginning, where an image would need more memory
    /// than is allowed: of a directory less has to be remembered.
    pub fn stage<T>(&self, mut unpack: impl FnMut(StagedLayer) -> Result<T, ImageError>) -> Result<T, ImageError> {
        let staged = self.session.stage_to_unpack(self.options)?;
        let is_image = staged.is_image();
        match unpack(staged) {
            Err(ImageError::LayerMemory { .. }) if is_image => unpack(self.session.stage()?),
            unpacked => unpacked,
        }
    }

    /// Unpacks one layer, which `open` gives from its beginning. Nothing of it stays unless size and both digests are as
    /// expected.
    pub fn unpack<'b>(
        &self,
        expected: &Expected,
        mut open: impl FnMut() -> Result<Box<dyn Bytes + 'b>, ImageError>,
    ) -> Result<FinishedLayer, ImageError> {
        self.stage(|staged| self.fill(staged, expected, &mut *open()?))
    }

    fn fill(
        &self,
        staged: StagedLayer,
        expected: &Expected,
        bytes: &mut dyn Bytes,
    ) -> Result<FinishedLayer, ImageError> {
        let mut unpacking = staged.unpack(&expected.name, self.options)?;
        let mut hasher = expected.digest.as_ref().map(|_| Sha256::new());
        let mut buffer = vec![0; BUFFER];
        let (mut size, mut wanted) = (0u64, true);
        loop {
            // What only the child looks at goes to it without being copied here.
            let spliced = match (&hasher, unpacking.pipe()) {
                (None, Some(pipe)) => bytes.splice(pipe)?,
                _ => None,
            };
            let count = match spliced {
                Some(count) => count,
                None => bytes.read(&mut buffer)?,
            };
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
            wanted = wanted && (spliced.is_some() || unpacking.feed(&buffer[..count])?);
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
        writeback::meanwhile(self.session.layers(), |meter| {
            side_by_side::each(layers, failed, |layer| {
                self.unpack(layer, || Ok(Box::new(Together { bytes: open(layer)?, stopped: failed, meter })))
            })
        })
    }
}

/// Bytes of one of several layers: they end when another has failed, and are counted with those of the others.
struct Together<'a> {
    bytes: Box<dyn Bytes + 'a>,
    stopped: &'a AtomicBool,
    meter: &'a Meter,
}

impl Bytes for Together<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError> {
        if self.stopped.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let count = self.bytes.read(buffer)?;
        self.meter.passed(count as u64);
        Ok(count)
    }

    fn splice(&mut self, pipe: BorrowedFd<'_>) -> Result<Option<usize>, ImageError> {
        if self.stopped.load(Ordering::Relaxed) {
            return Ok(Some(0));
        }
        let moved = self.bytes.splice(pipe)?;
        self.meter.passed(moved.unwrap_or(0) as u64);
        Ok(moved)
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
