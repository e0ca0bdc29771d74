//! Giving a repository what it has not: blobs and manifests (OCI distribution-spec, "Push").
//!
//! ```text
//! HEAD blob ── there ───────────────────────────────────────────────> done
//!    └── POST ?mount&from ── 201: another repository had it ────────> done
//!            └── 202 ── small, or no chunks wanted: PUT, the whole ─> done
//!                  ├── chunks wanted: PATCH, PATCH, .., PUT ────────> done
//!                  └── broken: GET how far it is; PATCH from there, PUT
//! ```
//!
//! # Decisions
//! The whole blob in one request is what every registry takes. Parts are sent only to those that ask for them
//! (`OCI-Chunk-Min-Length`), that refuse the whole as too large, or that have kept a part when a line broke.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Registry;
use super::http::{self, Method, Pauses, Payload, Request, Response, Stream};
use super::token::encode;
use crate::engine::image::error::{ImageError, Peer};
use crate::engine::image::progress::{Event, Progress};
use crate::engine::image::store::record::sha256;
use crate::model::id::Digest;

/// A part of a blob where parts are sent. Held in memory once for each upload at a time.
const CHUNK: u64 = 8 << 20;
/// No registry has a reason to ask for larger ones.
const CHUNK_MAX: u64 = 128 << 20;
const OCTETS: &str = "application/octet-stream";

/// A blob to be uploaded: a file that can be read from any place.
#[derive(Clone, Copy)]
pub struct Upload<'a> {
    pub digest: &'a Digest,
    pub size: u64,
    pub file: &'a File,
    /// What progress calls it.
    pub name: &'a str,
    pub progress: &'a dyn Progress,
    /// Set when nobody wants it any more.
    pub stopped: &'a AtomicBool,
}

/// What became of an attempt to mount.
pub enum Mounted {
    Done,
    /// It is not to be had there: the place for an upload.
    Instead(Session),
}

/// An upload that the registry has begun.
pub struct Session {
    location: String,
    /// The registry wants parts of at least this size.
    chunk_min: Option<u64>,
}

impl Registry {
    /// Whether the repository has a blob.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, ImageError> {
        let url = self.blob_url(digest);
        match self.send(&Request::new(Method::Head, &url), digest.as_str()) {
            Ok(_) => Ok(true),
            Err(ImageError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes a blob from another repository of the same registry.
    pub fn mount(&self, digest: &Digest, from: &str) -> Result<Mounted, ImageError> {
        let query = format!("?mount={}&from={}", encode(digest.as_str()), encode(from));
        let response = self.begin_upload(&query)?;
        match response.status() {
            201 => Ok(Mounted::Done),
            _ => self.session(response).map(Mounted::Instead),
        }
    }

    pub fn begin(&self) -> Result<Session, ImageError> {
        let response = self.begin_upload("")?;
        self.session(response)
    }

    fn begin_upload(&self, query: &str) -> Result<Response, ImageError> {
        let url = format!("{}/v2/{}/blobs/uploads/{query}", self.base, self.repository);
        self.send(&Request::new(Method::Post, &url), &self.repository)
    }

    fn session(&self, response: Response) -> Result<Session, ImageError> {
        let base = format!("{}/v2/{}/blobs/uploads/", self.base, self.repository);
        let location = self.http.location(&base, &response)?;
        let chunk_min = response.header("oci-chunk-min-length").and_then(|length| length.parse().ok());
        match location {
            Some(location) => Ok(Session { location, chunk_min }),
            None => Err(self.strange(&base, &response, "it names no place for the upload")),
        }
    }

    /// Uploads a blob, from the place that a mount has given or a new one.
    pub fn upload(&self, upload: &Upload<'_>, session: Option<Session>) -> Result<(), ImageError> {
        let mut session = match session {
            Some(session) => session,
            None => self.begin()?,
        };
        let mut pauses = Pauses::default();
        let mut in_parts = session.chunk_min.is_some();
        let mut offset = 0;
        // What was reached once is no progress when it is reached again, in another session.
        let mut furthest = 0;
        loop {
            let sent = match in_parts || offset > 0 {
                false => self.put_whole(upload, &session),
                true => self.send_parts(upload, &mut session, &mut offset),
            };
            let failure = match sent {
                Ok(()) => return Ok(()),
                // A proxy on the way has a limit that the registry has not.
                Err(ImageError::Refused { status: 413, .. }) if !in_parts => {
                    in_parts = true;
                    session = self.begin()?;
                    continue;
                }
                Err(error) if is_passing(&error) && !upload.stopped.load(Ordering::Relaxed) => error,
                Err(error) => return Err(error),
            };
            if offset > furthest {
                furthest = offset;
                pauses = Pauses::default();
            }
            let Some(pause) = pauses.next(None) else { return Err(failure) };
            upload.progress.report(Event::Retrying { layer: upload.name, reason: &failure.with_causes() });
            std::thread::sleep(pause);
            match self.how_far(&session) {
                // More than there is cannot have come from here.
                Ok((location, reached)) if reached <= upload.size => {
                    session.location = location;
                    offset = reached;
                }
                Ok(_) | Err(_) => {
                    session = self.begin()?;
                    offset = 0;
                }
            }
        }
    }

    /// The whole blob in one request.
    fn put_whole(&self, upload: &Upload<'_>, session: &Session) -> Result<(), ImageError> {
        let mut reader = Reading { upload, at: 0 };
        let url = with_digest(&session.location, upload.digest);
        let stream = Stream { length: upload.size, kind: OCTETS, reader: &mut reader };
        let response = self.send_stream(Method::Put, &url, stream)?;
        self.judge(response, &Request::new(Method::Put, &url), upload.digest.as_str()).map(drop)
    }

    fn send_parts(&self, upload: &Upload<'_>, session: &mut Session, offset: &mut u64) -> Result<(), ImageError> {
        let size = session.chunk_min.unwrap_or(0).clamp(CHUNK, CHUNK_MAX);
        while *offset < upload.size {
            if upload.stopped.load(Ordering::Relaxed) {
                return Err(self.broken(io::Error::other("another layer has failed")));
            }
            let length = size.min(upload.size - *offset);
            let mut bytes = vec![0; length as usize];
            upload.file.read_exact_at(&mut bytes, *offset).map_err(|error| self.broken(error))?;
            let range = Some((*offset, *offset + length - 1));
            let payload = Some(Payload { bytes: &bytes, kind: OCTETS, range });
            let request = Request { payload, ..Request::new(Method::Patch, &session.location) };
            let response = self.send_once(&request, upload.digest.as_str())?;
            *offset = after_part(reached(&response), *offset, *offset + length).ok_or_else(|| {
                let detail = "it says that it has other bytes of the blob than were sent";
                self.strange(&session.location, &response, detail)
            })?;
            if let Some(location) = self.http.location(&session.location, &response)? {
                session.location = location;
            }
            self.tell(upload, *offset);
        }
        let url = with_digest(&session.location, upload.digest);
        self.send_once(&Request::new(Method::Put, &url), upload.digest.as_str()).map(drop)
    }

    /// Where the upload goes on, and how many bytes the registry has.
    fn how_far(&self, session: &Session) -> Result<(String, u64), ImageError> {
        let response = self.send(&Request::new(Method::Get, &session.location), "the upload")?;
        let location = self.http.location(&session.location, &response)?;
        Ok((location.unwrap_or_else(|| session.location.clone()), reached(&response).unwrap_or(0)))
    }

    /// Puts a document where `version`, a tag or a digest, finds it.
    pub fn put_manifest(&self, version: &str, kind: &str, bytes: &[u8]) -> Result<(), ImageError> {
        let url = format!("{}/v2/{}/manifests/{version}", self.base, self.repository);
        let payload = Some(Payload { bytes, kind, range: None });
        let response = self.send(&Request { payload, ..Request::new(Method::Put, &url) }, &self.named(version))?;
        let said = response.header("docker-content-digest").and_then(|digest| digest.parse::<Digest>().ok());
        let expected = sha256([bytes]);
        match said {
            Some(actual) if actual != expected => {
                Err(ImageError::WrongDigest { subject: self.named(version), expected, actual })
            }
            _ => Ok(()),
        }
    }

    fn tell(&self, upload: &Upload<'_>, bytes: u64) {
        upload.progress.report(Event::Sent { layer: upload.name, bytes, total: upload.size });
    }

    fn broken(&self, source: io::Error) -> ImageError {
        ImageError::Unreachable { peer: Peer::registry(&self.name), source }
    }

    fn strange(&self, url: &str, response: &Response, detail: &str) -> ImageError {
        let (url, status) = (http::bare(url).to_owned(), response.status());
        ImageError::Refused { url, status, detail: detail.to_owned() }
    }
}

/// Worth another try: the line, or the server for a moment; and 401, since a token may end in the middle of a blob,
/// and 416, when both sides disagree where they were.
fn is_passing(error: &ImageError) -> bool {
    match error {
        ImageError::Unreachable { .. } | ImageError::TooMany { .. } | ImageError::NotFound { .. } => true,
        ImageError::Refused { status, .. } => matches!(status, 408 | 416 | 500 | 502 | 503 | 504),
        ImageError::Unauthorized { status, .. } => *status == 401,
        _ => false,
    }
}

/// The number of bytes of `Range: 0-1023`. Nothing at all is said as `0-0`.
fn reached(response: &Response) -> Option<u64> {
    let range = response.header("range")?;
    let (_, last) = range.strip_prefix("bytes=").unwrap_or(range).split_once('-')?;
    match last.trim().parse::<u64>().ok()? {
        0 => Some(0),
        last => last.checked_add(1),
    }
}

/// Where the next part begins when the registry says that it has `said` bytes, after one from `begin` to `end`: all was
/// taken where nothing is said. `None` for what would have us send the same for ever, or pass over something.
fn after_part(said: Option<u64>, begin: u64, end: u64) -> Option<u64> {
    match said {
        None => Some(end),
        // A blob of a single byte is `0-0` as well.
        Some(0) if end == 1 => Some(1),
        Some(reached) => (reached > begin && reached <= end).then_some(reached),
    }
}

fn with_digest(location: &str, digest: &Digest) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}digest={}", encode(digest.as_str()))
}

/// A file as it is sent, from its beginning.
struct Reading<'a> {
    upload: &'a Upload<'a>,
    at: u64,
}

impl io::Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.upload.stopped.load(Ordering::Relaxed) {
            return Err(io::Error::other("another layer has failed"));
        }
        let count = self.upload.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        let (layer, total) = (self.upload.name, self.upload.size);
        self.upload.progress.report(Event::Sent { layer, bytes: self.at, total });
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_brings_an_upload_nearer_to_its_end() {
        for (said, expected) in [
            (None, Some(20)),
            (Some(20), Some(20)),
            (Some(11), Some(11)),
            (Some(10), None),
            (Some(0), None),
            (Some(21), None),
            (Some(u64::MAX), None),
        ] {
            assert_eq!(after_part(said, 10, 20), expected, "{said:?}");
        }
        assert_eq!(after_part(Some(0), 0, 20), None);
        assert_eq!(after_part(Some(0), 0, 1), Some(1));
    }
}
