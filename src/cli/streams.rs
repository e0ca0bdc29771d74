//! The standard descriptors of a further process that has no terminal of its own.
//!
//! ```text
//! a pipe, a socket or /dev/null of ours   the process gets it as it is: no byte is copied
//! a terminal, a file, another device      it gets a pipe, and bytes are copied here
//! ```
//!
//! A container never gets a terminal or a file of the host. Through `/proc/self/fd/1` it could open either anew, in any
//! mode that root may (proc(5)): read a file from its beginning, or write to what was given to be read. And a process
//! that stays behind could read what is typed into the terminal long after its caller went on (CVE-2016-2568 is a
//! terminal that was given away).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat, fstatfs, major, minor};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::failure::Failure;
use crate::monitor::client::Descriptors;

const CHUNK: usize = 64 << 10;

/// The descriptors for the process. Dropped when it has them: only then can their end be seen.
pub struct Theirs {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Theirs {
    pub fn descriptors(&self) -> Descriptors<'_> {
        Descriptors { stdin: self.stdin.as_fd(), stdout: self.stdout.as_fd(), stderr: self.stderr.as_fd() }
    }
}

/// Our ends of the process's pipes.
pub struct Streams {
    /// Readable ends, and where their bytes go.
    outputs: Vec<(OwnedFd, OwnedFd)>,
    input: Option<Input>,
}

/// Our standard input on its way into a pipe.
struct Input {
    from: OwnedFd,
    to: OwnedFd,
    /// Read, and not yet taken by the process. Nothing more is read until it is gone.
    pending: Vec<u8>,
    is_over: bool,
}

/// What a descriptor of [`Streams::interests`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    Output(usize),
    /// There is something to read, or room to write what was read.
    Input,
}

/// Whether the process may see our standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listening {
    Yes,
    No,
}

impl Streams {
    pub fn open(listening: Listening) -> io::Result<(Streams, Theirs)> {
        let mut outputs = Vec::new();
        let mut output = |ours: BorrowedFd<'_>| -> io::Result<OwnedFd> {
            if may_be_given(ours)? {
                return ours.try_clone_to_owned();
            }
            let (readable, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
            outputs.push((readable, ours.try_clone_to_owned()?));
            Ok(theirs)
        };
        let (our_stdout, our_stderr) = (io::stdout(), io::stderr());
        let stdout = output(our_stdout.as_fd())?;
        // Into one place by one way, or their lines would change places.
        let stderr = match are_same(our_stdout.as_fd(), our_stderr.as_fd())? {
            true => stdout.try_clone()?,
            false => output(our_stderr.as_fd())?,
        };
        let mut input = None;
        let stdin = match listening {
            Listening::No => File::open("/dev/null")?.into(),
            Listening::Yes if may_be_given(io::stdin().as_fd())? => io::stdin().as_fd().try_clone_to_owned()?,
            Listening::Yes => {
                let (theirs, to) = pipe_with(PipeFlags::CLOEXEC)?;
                // A process that reads nothing must not keep its output from being shown.
                fcntl_setfl(&to, fcntl_getfl(&to)? | OFlags::NONBLOCK)?;
                let from = io::stdin().as_fd().try_clone_to_owned()?;
                input = Some(Input { from, to, pending: Vec::new(), is_over: false });
                theirs
            }
        };
        Ok((Streams { outputs, input }, Theirs { stdin, stdout, stderr }))
    }

    /// What to wait for.
    pub fn interests(&self) -> impl Iterator<Item = (Ready, BorrowedFd<'_>, PollFlags)> {
        let outputs = self.outputs.iter().enumerate();
        let outputs = outputs.map(|(at, (from, _))| (Ready::Output(at), from.as_fd(), PollFlags::IN));
        let input = self.input.iter().map(|input| match input.pending.is_empty() {
            true => (Ready::Input, input.from.as_fd(), PollFlags::IN),
            false => (Ready::Input, input.to.as_fd(), PollFlags::OUT),
        });
        outputs.chain(input)
    }

    /// Copies once what is ready. Of several that are, outputs must be served from the last to the first: one that is
    /// over is gone.
    pub fn serve(&mut self, ready: Ready) -> Result<(), Failure> {
        match ready {
            Ready::Output(at) => {
                if let Some((from, to)) = self.outputs.get(at)
                    && !copy(from.as_fd(), to.as_fd())?
                {
                    self.outputs.remove(at);
                }
            }
            Ready::Input => {
                if let Some(input) = &mut self.input
                    && !input.advance()?
                {
                    self.input = None;
                }
            }
        }
        Ok(())
    }

    /// Copies what an ended process left in its pipes. What others hold open is not waited for.
    pub fn drain(&mut self) -> Result<(), Failure> {
        for (from, to) in &self.outputs {
            while is_readable(from.as_fd())? && copy(from.as_fd(), to.as_fd())? {}
        }
        Ok(())
    }
}

impl Input {
    /// `false` when there is nothing more to pass on, or nobody who takes it.
    fn advance(&mut self) -> Result<bool, Failure> {
        if self.pending.is_empty() {
            self.is_over = !read(self.from.as_fd(), &mut self.pending)?;
        }
        match rustix::io::write(&self.to, &self.pending) {
            Ok(written) => drop(self.pending.drain(..written)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::PIPE) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        Ok(!(self.is_over && self.pending.is_empty()))
    }
}

/// Whether both lead to the same file.
fn are_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let (one, other) = (fstat(one)?, fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Linux, magic.h: what statfs(2) says of a pipe without a name.
const PIPEFS_MAGIC: i64 = 0x5049_5045;

/// Whether a process in a container may get this very descriptor. Who gets one owns it, so a pipe that has a name on the
/// host is none of these.
fn may_be_given(descriptor: BorrowedFd<'_>) -> io::Result<bool> {
    let found = fstat(descriptor)?;
    Ok(match FileType::from_raw_mode(found.st_mode) {
        FileType::Fifo => fstatfs(descriptor)?.f_type == PIPEFS_MAGIC,
        FileType::Socket => true,
        // /dev/null (null(4)).
        FileType::CharacterDevice => (major(found.st_rdev), minor(found.st_rdev)) == (1, 3),
        _ => false,
    })
}

/// One read, appended; `false` at the end, which a pseudo-terminal whose other side is closed tells by EIO.
pub fn read(from: BorrowedFd<'_>, to: &mut Vec<u8>) -> Result<bool, Failure> {
    let begin = to.len();
    to.resize(begin + CHUNK, 0);
    let result = rustix::io::read(from, &mut to[begin..]);
    to.truncate(begin + result.unwrap_or(0));
    match result {
        Ok(0) | Err(Errno::IO) => Ok(false),
        Ok(_) | Err(Errno::INTR | Errno::AGAIN) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// One read, written out whole. `false` at the end.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<bool, Failure> {
    let mut bytes = Vec::new();
    let more = read(from, &mut bytes)?;
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            // Somebody else made the descriptor so.
            Err(Errno::AGAIN) => wait(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)], None)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::stdout(&error.into())),
        }
    }
    Ok(more)
}

pub fn is_readable(descriptor: BorrowedFd<'_>) -> Result<bool, Failure> {
    let mut polled = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
    wait(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(polled[0].revents().contains(PollFlags::IN))
}

/// poll(2), where a signal only means to look again.
pub fn wait(polled: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> Result<(), Failure> {
    match poll(polled, timeout) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
