//! Those who were there before a container started and miss nothing of what it writes: `run` and `start --attach`.
//!
//! ```text
//! client                                    monitor
//!   | mkfifo stdout, stderr; opens them       |
//!   | writes the size of its terminal         |
//!   | ---- starts the container ------------> | opens them for writing, where somebody reads, and
//!   |                                         | gives the container's terminal that size
//!   | removes their names                     |
//!   | <============ bytes =================== | and stops reading from the container while they are full
//! ```
//!
//! # Decisions
//! * Named pipes in the run directory, not descriptors over the control socket: whoever starts a container does so
//!   through the engine, which passes no descriptors on, and a container may have written and ended before a socket is
//!   connected to.
//! * These slow the container down where they are slow, as a pipe in a shell does; those who come later do not (see
//!   `output`). One that closes its end is forgotten.
//! * What is unread when the container is over is left to a copy of the monitor that ends with the last byte, so that a
//!   pager does not keep a container from being over.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};

use super::error::MonitorError;
use super::logs::Stream;
use super::protocol::Window;
use crate::model::paths::run;
use crate::sys::clone::{Copy, clone3, exit_now};

/// The reading ends, for the client.
#[derive(Debug)]
pub struct Seats {
    pub stdout: OwnedFd,
    /// Nothing comes here from a container with a terminal.
    pub stderr: OwnedFd,
}

impl Seats {
    /// To be taken before the container is started; `directory` is its run directory, which is made if need be. A
    /// terminal of the container's is born with the size of `window`: a program that asks at once gets it right.
    pub fn take(directory: &Path, window: Option<Window>) -> Result<Seats, MonitorError> {
        std::fs::create_dir_all(directory).map_err(|source| MonitorError::file("create", directory, source))?;
        let take = |name: &str| {
            let path = directory.join(name);
            let made = || {
                forget(&path)?;
                rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR)?;
                // Without O_NONBLOCK it waits for a writer (fifo(7)).
                Ok(open(&path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)
            };
            made().map_err(|source: io::Error| MonitorError::file("make the pipe", &path, source))
        };
        let seats = Seats { stdout: take(run::STDOUT)?, stderr: take(run::STDERR)? };
        if let Some(window) = window {
            let path = directory.join(run::WINDOW);
            let written = serde_json::to_vec(&window).map_err(io::Error::from);
            let written = written.and_then(|text| std::fs::write(&path, text));
            written.map_err(|source| MonitorError::file("write", &path, source))?;
        }
        Ok(seats)
    }

    /// Once the container is started nobody else is to come in this way.
    pub fn close_the_doors(directory: &Path) -> io::Result<()> {
        [run::STDOUT, run::STDERR, run::WINDOW].iter().try_for_each(|name| forget(&directory.join(name)))
    }
}

fn forget(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The size of the terminal of somebody who sits there. Nobody, or one that cannot be read, is no size.
pub(super) fn window(directory: &Path) -> Option<Window> {
    serde_json::from_slice(&std::fs::read(directory.join(run::WINDOW)).ok()?).ok()
}

/// The writing ends, for the monitor.
#[derive(Debug, Default)]
pub(super) struct Audience(Vec<Seat>);

#[derive(Debug)]
struct Seat {
    stream: Stream,
    pipe: OwnedFd,
    /// What did not fit into the pipe.
    pending: Vec<u8>,
}

impl Audience {
    /// Those who sit there already. Nobody is no error.
    pub fn find(directory: &Path) -> Audience {
        let seat = |(name, stream): (&str, Stream)| {
            // Without a reader it fails with ENXIO (fifo(7)).
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let pipe = open(directory.join(name), flags, Mode::empty()).ok()?;
            Some(Seat { stream, pipe, pending: Vec::new() })
        };
        Audience([(run::STDOUT, Stream::Stdout), (run::STDERR, Stream::Stderr)].into_iter().filter_map(seat).collect())
    }

    pub fn tell(&mut self, stream: Stream, bytes: &[u8]) {
        if let Some(at) = self.0.iter().position(|seat| seat.stream == stream) {
            self.0[at].pending.extend_from_slice(bytes);
            self.catch_up(stream);
        }
    }

    /// Whether the container has to wait with this stream.
    pub fn is_behind(&self, stream: Stream) -> bool {
        self.0.iter().any(|seat| seat.stream == stream && !seat.pending.is_empty())
    }

    /// Descriptors that are writable when [`Audience::catch_up`] has something to do.
    pub fn interests(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        self.0.iter().filter(|seat| !seat.pending.is_empty()).map(|seat| (seat.stream, seat.pipe.as_fd()))
    }

    /// Writes what fits. Whoever closed their end is forgotten.
    pub fn catch_up(&mut self, stream: Stream) {
        self.0.retain_mut(|seat| seat.stream != stream || seat.write().is_ok());
    }

    /// The container is over. Whoever has not read all of it is served by a copy of this process.
    pub fn take_leave(mut self) -> io::Result<()> {
        self.0.retain(|seat| !seat.pending.is_empty());
        if self.0.is_empty() {
            return Ok(());
        }
        match clone3(0, None)? {
            Copy::Parent { .. } => Ok(()),
            Copy::Child(_) => exit_now(i32::from(self.finish().is_err())),
        }
    }

    /// The copy keeps nothing of the monitor's but the pipes; above all not the pipe of the handshake.
    fn finish(self) -> io::Result<()> {
        let null = std::fs::File::options().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&null)?;
        std::thread::scope(|scope| {
            // One that reads stderr last must not wait for itself.
            self.0.iter().for_each(|seat| drop(scope.spawn(|| seat.write_whole())));
        });
        Ok(())
    }
}

impl Seat {
    fn write(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            match rustix::io::write(&self.pipe, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.pending = Vec::new();
        Ok(())
    }

    fn write_whole(&self) -> io::Result<()> {
        fcntl_setfl(&self.pipe, fcntl_getfl(&self.pipe)? - OFlags::NONBLOCK)?;
        let mut rest = self.pending.as_slice();
        while !rest.is_empty() {
            rest = &rest[rustix::io::write(&self.pipe, rest)?..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn nothing_is_left_out_and_who_left_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let size = Window { rows: 31, columns: 97 };
        let seats = Seats::take(directory.path(), Some(size)).unwrap();
        let mut audience = Audience::find(directory.path());
        assert_eq!(window(directory.path()), Some(size));
        Seats::close_the_doors(directory.path()).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);

        let much: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        audience.tell(Stream::Stdout, &much);
        assert!(audience.is_behind(Stream::Stdout) && !audience.is_behind(Stream::Stderr));
        let (mut read, mut heard) = (std::fs::File::from(seats.stdout), Vec::new());
        while heard.len() < much.len() {
            let mut piece = [0; 10_000];
            let count = read.read(&mut piece).unwrap();
            heard.extend_from_slice(&piece[..count]);
            audience.catch_up(Stream::Stdout);
        }
        assert!(heard == much && !audience.is_behind(Stream::Stdout));

        drop((read, seats.stderr));
        audience.tell(Stream::Stdout, b"more");
        audience.tell(Stream::Stderr, b"more");
        assert!(audience.0.is_empty());
    }

    #[test]
    fn an_empty_house_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Audience::find(directory.path()).0.is_empty());
        drop(Seats::take(directory.path(), None).unwrap());
        assert_eq!(window(directory.path()), None);
        assert!(Audience::find(directory.path()).0.is_empty());
    }
}
