//! What a container's first process reads and writes: pipes or a terminal, into the log and to those who look on.
//!
//! # Decisions
//! * Onlookers get a copy of what is read for the log. They never slow the container down: what does not fit into
//!   their socket's buffer is left out for them; the log has it.
//! * Who was there before the start misses nothing: see [`super::audience`].
//! * The buffer exists only while something comes. A container that has been silent for [`QUIET`] costs none.
//! * A pipe that flows is left to gather for [`GATHER`] after a read. Else a container that writes line by line and its
//!   monitor wake each other for every line, which costs both several times what the line does. What comes after a
//!   silence is read at once, and a terminal always: somebody may be typing there. What comes on the other stream ends the
//!   gathering, so that the log has both in the order in which they were written.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{SendFlags, send};
use rustix::pipe::{PipeFlags, pipe_with};

use super::audience::Audience;
use super::clock::Now;
use super::errand::Descriptors;
use super::error::MonitorError;
use super::logs::Stream;
use super::logs::splitter::Splitter;
use super::logs::writer::Writer;
use crate::model::container::Logging;
use crate::model::launch::Terminal;
use crate::sys::memory;

/// As much as a pipe holds (pipe(7)).
const READ_SIZE: usize = 64 * 1024;

/// Between two reads from one pipe, unless the first found it half full. At 100 MB/s that much time fills less than half
/// of a pipe, so nobody waits for it.
const GATHER: Duration = Duration::from_micros(250);

/// After this long without a byte, buffers are given back.
const QUIET: Duration = Duration::from_secs(1);

/// More who look on are refused.
const MOST_ONLOOKERS: usize = 16;

/// What a process may have left in its pipes when it ended, and a bound on what others go on to write.
const DRAIN_READS: usize = 64;

/// One stream that comes from the container.
#[derive(Debug)]
struct Source {
    stream: Stream,
    file: File,
    splitter: Splitter,
    /// It gathers until then.
    gathers_until: Duration,
}

/// Somebody who looks on.
#[derive(Debug)]
struct Onlooker {
    stdout: OwnedFd,
    stderr: OwnedFd,
}

#[derive(Debug)]
pub struct Output {
    terminal: Terminal,
    audience: Audience,
    writer: Writer,
    sources: Vec<Source>,
    /// Where standard input is fed, when it stays open.
    input: Option<OwnedFd>,
    onlookers: Vec<Onlooker>,
    buffer: Vec<u8>,
    last_read: Duration,
}

impl Output {
    pub fn new(terminal: Terminal, audience: Audience, logs: PathBuf, logging: Logging) -> Output {
        Output {
            terminal,
            audience,
            writer: Writer::new(logs, logging),
            sources: Vec::new(),
            input: None,
            onlookers: Vec::new(),
            buffer: Vec::new(),
            last_read: Duration::ZERO,
        }
    }

    pub fn set_logging(&mut self, logging: Logging) {
        self.writer.set_logging(logging);
    }

    /// Makes pipes for a process about to be started and keeps our ends; `None` when it gets a terminal.
    pub fn prepare(&mut self) -> Result<Option<Descriptors>, MonitorError> {
        let failed = |source: io::Error| MonitorError::system("make pipes", "the container", source);
        self.sources.clear();
        self.input = None;
        let stdin = match self.terminal {
            Terminal::Tty => return Ok(None),
            Terminal::None => File::open("/dev/null").map_err(failed)?.into(),
            Terminal::StdinOpen => {
                let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
                self.input = Some(ours);
                theirs
            }
        };
        let stdout = self.add_pipe(Stream::Stdout).map_err(failed)?;
        let stderr = self.add_pipe(Stream::Stderr).map_err(failed)?;
        Ok(Some(Descriptors { stdin, stdout, stderr }))
    }

    fn add_pipe(&mut self, stream: Stream) -> io::Result<OwnedFd> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        self.add_source(stream, ours)?;
        Ok(theirs)
    }

    fn add_source(&mut self, stream: Stream, fd: OwnedFd) -> io::Result<()> {
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        let (file, splitter) = (File::from(fd), Splitter::new(stream));
        self.sources.push(Source { stream, file, splitter, gathers_until: Duration::ZERO });
        Ok(())
    }

    /// Takes the master side of the terminal that the process got.
    pub fn take_terminal(&mut self, master: OwnedFd) -> Result<(), MonitorError> {
        let failed = |source| MonitorError::system("use the terminal", "the container", source);
        let ours = master.try_clone().map_err(failed)?;
        self.input = Some(master);
        self.add_source(Stream::Stdout, ours).map_err(failed)
    }

    /// Descriptors that are readable when [`Output::read`] has something to do at the time `now`, with their streams.
    pub fn interests(&self, now: Duration) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        let heard = self
            .sources
            .iter()
            .filter(move |source| source.gathers_until <= now && !self.audience.is_behind(source.stream));
        heard.map(|source| (source.stream, source.file.as_fd()))
    }

    pub fn audience(&mut self) -> &mut Audience {
        &mut self.audience
    }

    /// Descriptors that are writable when the audience can catch up.
    pub fn audience_interests(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        self.audience.interests()
    }

    /// Reads once from a stream and logs it. What gathers in another came before: it is read first.
    pub fn read(&mut self, stream: Stream, now: Now) {
        let gathering = self.sources.iter().filter(|source| source.gathers_until > now.monotonic);
        let earlier = gathering.map(|source| source.stream).find(|gathering| *gathering != stream);
        for stream in earlier.into_iter().chain([stream]) {
            if let Some(at) = self.sources.iter().position(|source| source.stream == stream)
                && self.read_from(at, now) == Outcome::End
            {
                self.sources.remove(at);
            }
        }
        if earlier.is_some() {
            // Two that flow are read as they come: what gathers in both has lost its order.
            self.sources.iter_mut().for_each(|source| source.gathers_until = Duration::ZERO);
        }
    }

    fn read_from(&mut self, at: usize, now: Now) -> Outcome {
        self.buffer.resize(READ_SIZE, 0);
        self.last_read = now.monotonic;
        let source = &mut self.sources[at];
        match source.file.read(&mut self.buffer) {
            Ok(count @ 1..) => {
                source.splitter.take(&self.buffer[..count], now, &mut self.writer);
                if self.terminal != Terminal::Tty && count < READ_SIZE / 2 {
                    source.gathers_until = now.monotonic + GATHER;
                }
                let (stream, bytes) = (source.stream, &self.buffer[..count]);
                self.onlookers.retain(|onlooker| onlooker.show(stream, bytes));
                self.audience.tell(stream, bytes);
                Outcome::More
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Outcome::NothingNow
            }
            // End of file; of a terminal, EIO when its last user is gone (pty(7)).
            Ok(0) | Err(_) => {
                source.splitter.finish(now, &mut self.writer);
                Outcome::End
            }
        }
    }

    /// The process ended: logs what it left in its pipes and closes them.
    pub fn finish(&mut self, now: Now) {
        // What gathers came before what is left of the other.
        self.sources.sort_by_key(|source| std::cmp::Reverse(source.gathers_until));
        for at in 0..self.sources.len() {
            let ended = (0..DRAIN_READS).map(|_| self.read_from(at, now)).find(|outcome| *outcome != Outcome::More);
            if ended != Some(Outcome::End) {
                self.sources[at].splitter.finish(now, &mut self.writer);
            }
        }
        self.sources.clear();
        self.input = None;
    }

    /// Lets somebody look on from now, and gives them the container's standard input where it is open.
    pub fn attach(&mut self, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Option<OwnedFd>> {
        self.onlookers.retain(Onlooker::is_there);
        if self.onlookers.len() >= MOST_ONLOOKERS {
            return Err(io::Error::other("too many look on already"));
        }
        let input = self.input()?;
        self.onlookers.push(Onlooker { stdout, stderr });
        Ok(input)
    }

    fn input(&self) -> io::Result<Option<OwnedFd>> {
        self.input.as_ref().map(OwnedFd::try_clone).transpose()
    }

    /// Gives the container's standard input to somebody alone: it ends when they close it, as with a pipe in a shell. A
    /// terminal has no such end, and goes on being ours too.
    pub fn hand_over_input(&mut self) -> io::Result<Option<OwnedFd>> {
        match self.terminal {
            Terminal::Tty => self.input(),
            Terminal::None | Terminal::StdinOpen => Ok(self.input.take()),
        }
    }

    /// The container is over, and nothing more comes.
    pub fn take_leave(self) -> io::Result<()> {
        self.audience.take_leave()
    }

    /// When [`Output::rest`] has something to do, or [`Output::interests`] has more than at the time `now`.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        let gathered = self.sources.iter().map(|source| source.gathers_until).filter(|until| *until > now);
        gathered.chain(self.quiet()).min()
    }

    /// Until when nothing may come for buffers to be given back.
    fn quiet(&self) -> Option<Duration> {
        (!self.buffer.is_empty()).then(|| self.last_read + QUIET)
    }

    /// Gives memory back after a while of silence.
    pub fn rest(&mut self, now: Now) {
        if self.quiet().is_some_and(|deadline| deadline <= now.monotonic) {
            self.buffer = Vec::new();
            self.writer.release_memory();
            memory::trim();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    More,
    NothingNow,
    End,
}

impl Onlooker {
    /// A silent container would never learn by writing that they are gone.
    fn is_there(&self) -> bool {
        let mut polled = [PollFd::new(&self.stdout, PollFlags::empty())];
        let result = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        result.is_ok() && !polled[0].revents().contains(PollFlags::HUP)
    }

    /// Whether they are still there.
    fn show(&self, stream: Stream, bytes: &[u8]) -> bool {
        let socket = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => true,
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::monitor::logs::{Reader, Selection};

    #[test]
    fn what_gathers_on_one_stream_comes_before_what_arrives_on_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let (directory, logs) = (directory.path(), directory.path().join("logs"));
        let mut output = Output::new(Terminal::None, Audience::find(directory), logs.clone(), Logging::default());
        let Descriptors { stdout, stderr, .. } = output.prepare().unwrap().unwrap();
        let (mut stdout, mut stderr) = (File::from(stdout), File::from(stderr));
        let now = Now::read();
        let heard = |output: &Output, at| output.interests(at).map(|(stream, _)| stream).collect::<Vec<_>>();

        stdout.write_all(b"1\n").unwrap();
        output.read(Stream::Stdout, now);
        assert_eq!(heard(&output, now.monotonic), [Stream::Stderr]);
        assert_eq!(output.deadline(now.monotonic), Some(now.monotonic + GATHER));
        stdout.write_all(b"2\n").unwrap();
        stderr.write_all(b"3\n").unwrap();
        output.read(Stream::Stderr, now);
        assert_eq!(heard(&output, now.monotonic + GATHER), [Stream::Stdout, Stream::Stderr]);

        let mut reader = Reader::open(&logs, &Selection::default()).unwrap();
        let entries = std::iter::from_fn(|| reader.next().unwrap()).filter_map(|passage| passage.into_entry());
        assert_eq!(entries.map(|entry| entry.text).collect::<Vec<_>>(), ["1\n", "2\n", "3\n"]);
    }
}
