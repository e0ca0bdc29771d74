//! A blob's bytes, across broken connections.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Registry;
use super::http::{Method, Pauses, Request, Response, broken};
use crate::engine::image::error::ImageError;
use crate::engine::image::layer::Bytes;
use crate::engine::image::progress::{Event, Progress};
use crate::model::id::Digest;

/// A blob being read. When the connection breaks, it goes on from where it was. It does not verify the digest: whoever
/// reads it does, over all bytes, so that it does not matter which of several connections brought a wrong one.
pub struct Blob<'a> {
    registry: &'a Registry,
    digest: Digest,
    size: u64,
    name: &'a str,
    progress: &'a dyn Progress,
    /// Set when nobody wants the rest any more.
    stopped: &'a AtomicBool,
    connection: Option<Box<dyn Read + Send>>,
    offset: u64,
    pauses: Pauses,
}

impl Registry {
    /// Begins to read a blob of `size` bytes, which progress calls `name`.
    pub fn blob<'a>(
        &'a self,
        (digest, size): (Digest, u64),
        name: &'a str,
        progress: &'a dyn Progress,
        stopped: &'a AtomicBool,
    ) -> Blob<'a> {
        let pauses = Pauses::default();
        Blob { registry: self, digest, size, name, progress, stopped, connection: None, offset: 0, pauses }
    }
}

impl Blob<'_> {
    fn open(&self) -> Result<Box<dyn Read + Send>, ImageError> {
        let url = self.registry.blob_url(&self.digest);
        let range = (self.offset > 0).then(|| (self.offset, self.size - 1));
        let response =
            self.registry.send(&Request { range, ..Request::new(Method::Get, &url) }, self.digest.as_str())?;
        let length = response.header("content-length").and_then(|length| length.parse::<u64>().ok());
        let already = match (range, response.status()) {
            (None, _) => {
                if let Some(actual) = length.filter(|length| *length != self.size) {
                    let subject = self.name.to_owned();
                    return Err(ImageError::WrongSize { subject, expected: self.size, actual });
                }
                0
            }
            (Some((first, _)), 206) if starts_at(&response, first) => 0,
            // The whole blob again: what is here already is passed over.
            (Some((first, _)), 200) => first,
            (Some(_), status) => {
                let detail = "it answers another range than was asked for".to_owned();
                return Err(ImageError::Refused { url, status, detail });
            }
        };
        let mut reader = response.into_reader();
        let passed = std::io::copy(&mut (&mut reader).take(already), &mut std::io::sink());
        match passed {
            Ok(passed) if passed == already => Ok(Box::new(reader)),
            // Breaks again before the place is reached: the caller finds the end where it expects bytes.
            _ => Ok(Box::new(std::io::empty())),
        }
    }
}

impl Bytes for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError> {
        if self.offset >= self.size {
            // A last byte more than announced would be found here, and is not asked for.
            return Ok(0);
        }
        loop {
            let connection = match &mut self.connection {
                Some(connection) => connection,
                None => self.connection.insert(self.open()?),
            };
            let failure = match connection.read(buffer) {
                Ok(0) => std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it ended before the layer did"),
                Ok(count) => {
                    self.offset += count as u64;
                    self.pauses = Pauses::default();
                    return Ok(count);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => broken(error),
            };
            self.connection = None;
            match self.pauses.next(None) {
                Some(pause) if !self.stopped.load(Ordering::Relaxed) => {
                    self.progress.report(Event::Retrying { layer: self.name, reason: &failure.to_string() });
                    std::thread::sleep(pause);
                }
                _ => return Err(ImageError::Unreachable { registry: self.registry.name.clone(), source: failure }),
            }
        }
    }
}

/// Whether `Content-Range: bytes FIRST-LAST/SIZE` begins where it should.
fn starts_at(response: &Response, first: u64) -> bool {
    let range = response.header("content-range").and_then(|range| range.strip_prefix("bytes "));
    range.and_then(|range| range.split_once('-')).is_some_and(|(start, _)| start.parse() == Ok(first))
}
