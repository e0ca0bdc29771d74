//! A blob's bytes, across broken connections.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Registry;
use super::http::{Method, Pauses, Request, Response, broken};
use super::sources::Sources;
use crate::engine::image::error::ImageError;
use crate::engine::image::layer::Bytes;
use crate::engine::image::progress::{Event, Progress};
use crate::model::id::Digest;

/// A blob being read. When the connection breaks, it goes on from where it was. It does not verify the digest: whoever
/// reads it does, over all bytes, so that it does not matter which of several connections brought a wrong one.
pub struct Blob<'a> {
    sources: &'a Sources,
    digest: Digest,
    size: u64,
    name: &'a str,
    progress: &'a dyn Progress,
    /// Set when nobody wants the rest any more.
    stopped: &'a AtomicBool,
    connection: Option<Connection>,
    offset: u64,
    pauses: Pauses,
}

/// Where bytes come from, and how fast.
struct Connection {
    reader: Box<dyn Read + Send>,
    /// Which of the sources it leads to.
    at: usize,
    since: Instant,
    bytes: u64,
}

/// So much has to come in so much time: a line that drips is as good as dead, and does not look so by its silence.
const MINUTE: Duration = Duration::from_secs(60);
const LEAST_A_MINUTE: u64 = 64 << 10;

impl Connection {
    /// Counts what has come; whether that is enough.
    fn flows(&mut self, count: u64) -> bool {
        self.bytes += count;
        if self.since.elapsed() < MINUTE {
            return true;
        }
        let enough = self.bytes >= LEAST_A_MINUTE;
        (self.since, self.bytes) = (Instant::now(), 0);
        enough
    }
}

impl Sources {
    /// Begins to read a blob of `size` bytes, which progress calls `name`.
    pub fn blob<'a>(
        &'a self,
        (digest, size): (Digest, u64),
        name: &'a str,
        progress: &'a dyn Progress,
        stopped: &'a AtomicBool,
    ) -> Blob<'a> {
        let pauses = Pauses::default();
        Blob { sources: self, digest, size, name, progress, stopped, connection: None, offset: 0, pauses }
    }
}

impl Blob<'_> {
    /// Connects to the first of the sources that has it.
    fn open(&self) -> Result<Connection, ImageError> {
        loop {
            let (at, registry) = self.sources.current();
            match self.open_at(registry) {
                Ok(reader) => return Ok(Connection { reader, at, since: Instant::now(), bytes: 0 }),
                Err(error) if self.sources.pass_over(at, &error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn open_at(&self, registry: &Registry) -> Result<Box<dyn Read + Send>, ImageError> {
        let url = registry.blob_url(&self.digest);
        let range = (self.offset > 0).then(|| (self.offset, self.size - 1));
        let response = registry.send(&Request { range, ..Request::new(Method::Get, &url) }, self.digest.as_str())?;
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
            let at = connection.at;
            let failure = match connection.reader.read(buffer) {
                Ok(0) => std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it ended before the layer did"),
                // What has come is not taken twice: the next connection goes on from where this one was.
                Ok(count) if !connection.flows(count as u64) => {
                    self.offset += count as u64;
                    self.connection = None;
                    return Ok(count);
                }
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
                _ => {
                    let registry = self.sources.current().1.name.clone();
                    let error = ImageError::Unreachable { registry, source: failure };
                    if self.stopped.load(Ordering::Relaxed) || !self.sources.pass_over(at, &error) {
                        return Err(error);
                    }
                    self.pauses = Pauses::default();
                }
            }
        }
    }
}

/// Whether `Content-Range: bytes FIRST-LAST/SIZE` begins where it should.
fn starts_at(response: &Response, first: u64) -> bool {
    let range = response.header("content-range").and_then(|range| range.strip_prefix("bytes "));
    range.and_then(|range| range.split_once('-')).is_some_and(|(start, _)| start.parse() == Ok(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_drips_is_a_dead_one() {
        let past = Instant::now().checked_sub(MINUTE).unwrap();
        let line = |since| Connection { reader: Box::new(std::io::empty()), at: 0, since, bytes: 0 };
        assert!(line(Instant::now()).flows(1), "a minute has not passed");
        assert!(!line(past).flows(LEAST_A_MINUTE - 1));
        let mut enough = line(past);
        assert!(enough.flows(LEAST_A_MINUTE) && enough.bytes == 0, "each minute is counted for itself");
    }
}
