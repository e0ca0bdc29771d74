//! How fast bytes have to come.
//!
//! Silence alone says little: a byte now and then would hold whoever waits for weeks, and with it what it has locked.

use std::io::{self, Read};
use std::time::{Duration, Instant};

/// So much has to come in so much time: a line that drips is as good as dead, and does not look so by its silence.
const MINUTE: Duration = Duration::from_secs(60);
const LEAST_A_MINUTE: u64 = 64 << 10;

/// What has come over one connection, each minute for itself.
pub struct Pace {
    since: Instant,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It is too early to say.
    Begun,
    Steady,
    /// Less than [`LEAST_A_MINUTE`] came in a [`MINUTE`].
    Drips,
}

impl Pace {
    pub fn begin() -> Pace {
        Pace { since: Instant::now(), bytes: 0 }
    }

    /// Counts what has come.
    pub fn flow(&mut self, count: u64) -> Flow {
        self.bytes += count;
        match (self.bytes >= LEAST_A_MINUTE, self.since.elapsed() < MINUTE) {
            (true, true) => Flow::Steady,
            (true, false) => {
                *self = Pace::begin();
                Flow::Steady
            }
            (false, true) => Flow::Begun,
            (false, false) => Flow::Drips,
        }
    }
}

/// What became of a connection that drips.
pub fn dripped() -> io::Error {
    let words = format!("less than {} KiB came in a minute", LEAST_A_MINUTE >> 10);
    io::Error::new(io::ErrorKind::TimedOut, words)
}

/// Bytes that come fast enough, or else `TimedOut`.
pub struct Paced<R> {
    reader: R,
    pace: Pace,
}

impl<R> Paced<R> {
    pub fn begin(reader: R) -> Paced<R> {
        Paced { reader, pace: Pace::begin() }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        match self.pace.flow(count as u64) {
            // The end is no sign of a slow line.
            Flow::Drips if count > 0 => Err(dripped()),
            Flow::Begun | Flow::Steady | Flow::Drips => Ok(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past() -> Instant {
        Instant::now().checked_sub(MINUTE).unwrap()
    }

    #[test]
    fn a_line_that_drips_is_a_dead_one() {
        let line = |since| Pace { since, bytes: 0 };
        assert_eq!(line(Instant::now()).flow(1), Flow::Begun, "a minute has not passed");
        assert_eq!(line(Instant::now()).flow(LEAST_A_MINUTE), Flow::Steady);
        assert_eq!(line(past()).flow(LEAST_A_MINUTE - 1), Flow::Drips);
        let mut enough = line(past());
        assert!(enough.flow(LEAST_A_MINUTE) == Flow::Steady && enough.bytes == 0, "each minute is counted for itself");
    }

    #[test]
    fn a_file_that_drips_is_not_waited_for() {
        let read = |bytes: &[u8]| {
            let mut paced = Paced { reader: bytes, pace: Pace { since: past(), bytes: 0 } };
            io::copy(&mut paced, &mut io::sink()).map_err(|error| error.kind())
        };
        assert_eq!(read(b"a"), Err(io::ErrorKind::TimedOut));
        assert_eq!(read(b""), Ok(0));
    }
}
