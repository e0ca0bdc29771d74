//! Digesting and counting what is written, on its way to somewhere.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

use crate::model::id::Digest;

/// Passes on what is written to it, and knows the digest and the length of that.
pub struct Digesting<W> {
    to: W,
    hasher: Sha256,
    size: u64,
    failure: Option<io::Error>,
}

impl<W: Write> Digesting<W> {
    pub fn new(to: W) -> Digesting<W> {
        Digesting { to, hasher: Sha256::new(), size: 0, failure: None }
    }

    /// Why no more could be passed on: whoever wrote here may have failed for a reason of its own.
    pub fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Digest and length of what was passed on.
    pub fn finish(self) -> (Digest, u64) {
        (Digest::from_sha256(&self.hasher.finalize().into()), self.size)
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes).map_err(|error| {
            let same = error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
            self.failure = Some(error);
            same
        })?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
