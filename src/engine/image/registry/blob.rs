//! A blob's bytes, across broken connections.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Registry;
use super::http::{Method, Pauses, Request, Response, broken};
use super::pace::{self, Flow, Pace};
use super::sources::Sources;
use crate::engine::image::error::{ImageError, Peer};
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
    /// The source whose connection was given up for dripping.
    dripped: Option<usize>,
}

/// Where bytes come from, and how fast.
struct Connection {
    reader: Box<dyn Read + Send>,
    /// Which of the sources it leads to.
    at: usize,
    pace: Pace,
    /// Bytes that are here already and come again.
    already: u64,
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
        let (connection, dripped) = (None, None);
        Blob { sources: self, digest, size, name, progress, stopped, connection, offset: 0, pauses, dripped }
    }
}

impl Blob<'_> {
    /// Connects to the first of the sources that has it.
    fn open(&self) -> Result<Connection, ImageError> {
        loop {
            let (at, registry) = self.sources.current();
            match self.open_at(registry) {
                Ok((reader, already)) => {
                    return Ok(Connection { reader, at, pace: Pace::begin(), already });
                }
                Err(error) if self.sources.pass_over(at, &error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// And how many bytes come before those that are asked for.
    fn open_at(&self, registry: &Registry) -> Result<(Box<dyn Read + Send>, u64), ImageError> {
        if self.offset > 0
            && let Some(rest) = self.rest(registry)?
        {
            return Ok((Box::new(rest.into_reader()), 0));
        }
        let response = self.ask(registry, None)?;
        let length = response.header("content-length").and_then(|length| length.parse::<u64>().ok());
        if let Some(actual) = length.filter(|length| *length != self.size) {
            let subject = self.name.to_owned();
            return Err(ImageError::WrongSize { subject, expected: self.size, actual });
        }
        // The whole blob again: what is here already is passed over.
        Ok((Box::new(response.into_reader()), self.offset))
    }

    /// What is still to come, and nothing else; `None` from a registry, or a proxy before it, that cannot count.
    fn rest(&self, registry: &Registry) -> Result<Option<Response>, ImageError> {
        match self.ask(registry, Some((self.offset, self.size - 1))) {
            Ok(response) => {
                let is_rest = response.status() == 206 && starts_at(&response, self.offset);
                Ok(is_rest.then_some(response))
            }
            Err(ImageError::Refused { status: 416, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn ask(&self, registry: &Registry, range: Option<(u64, u64)>) -> Result<Response, ImageError> {
        let url = registry.blob_url(&self.digest);
        registry.send(&Request { range, ..Request::new(Method::Get, &url) }, self.digest.as_str())
    }

    /// Reads once; bytes that are here already are passed over.
    fn read_once(&mut self, buffer: &mut [u8]) -> Result<Once, ImageError> {
        if let Some(at) = self.dripped.take() {
            return Ok(Once::Broken(at, pace::dripped()));
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(self.open()?),
        };
        let (at, already) = (connection.at, connection.already);
        let limit = if already > 0 { already.min(buffer.len() as u64) as usize } else { buffer.len() };
        let count = match connection.reader.read(&mut buffer[..limit]) {
            Ok(0) => {
                let error = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it ended before the layer did");
                return Ok(Once::Broken(at, error));
            }
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(Once::Nothing),
            Err(error) => return Ok(Once::Broken(at, broken(error))),
        };
        let flow = connection.pace.flow(count as u64);
        connection.already -= already.min(count as u64);
        match flow {
            Flow::Begun => {}
            // Only now has the connection proven better than the one before.
            Flow::Steady => self.pauses = Pauses::default(),
            // What has come is not taken twice: the next connection goes on from where this one was.
            Flow::Drips => (self.connection, self.dripped) = (None, Some(at)),
        }
        if already > 0 {
            return Ok(Once::Nothing);
        }
        self.offset += count as u64;
        Ok(Once::Read(count))
    }
}

enum Once {
    Read(usize),
    Nothing,
    /// The connection to the source of this number.
    Broken(usize, std::io::Error),
}

impl Bytes for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError> {
        if self.offset >= self.size {
            // A last byte more than announced would be found here, and is not asked for.
            return Ok(0);
        }
        loop {
            let (at, failure) = match self.read_once(buffer)? {
                Once::Read(count) => return Ok(count),
                Once::Nothing if self.stopped.load(Ordering::Relaxed) => {
                    let peer = Peer::registry(&self.sources.current().1.name);
                    return Err(ImageError::Unreachable { peer, source: std::io::ErrorKind::Interrupted.into() });
                }
                Once::Nothing => continue,
                Once::Broken(at, failure) => (at, failure),
            };
            self.connection = None;
            match self.pauses.next(None) {
                Some(pause) if !self.stopped.load(Ordering::Relaxed) => {
                    self.progress.report(Event::Retrying { layer: self.name, reason: &failure.to_string() });
                    std::thread::sleep(pause);
                }
                _ => {
                    let peer = Peer::registry(&self.sources.current().1.name);
                    let error = ImageError::Unreachable { peer, source: failure };
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
