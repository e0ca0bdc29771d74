//! What a container's first process and its parent say to each other before execve(2).
//!
//! One SOCK_SEQPACKET pair, close-on-exec on both sides:
//!
//! ```text
//! parent                                child
//!   | <----- Born(pid) [+pidfd] --------- |   where a process in between made the first process (see `init`)
//!   | <-------------------------- Apart - |   (where the pid namespace is another's: it is in all other namespaces;
//!   |                                     |    Born follows after Hooked)
//!   | -- Connected ---------------------> |   (where network devices are moved: they are there)
//!   | <--------------------- Assembled -- |   (where hooks run before pivot_root: all is mounted)
//!   | -- Hooked ------------------------> |   (the parent's hooks have run)
//!   | -- Known -------------------------> |   who has to remember the process has done so
//!   | <------------- Created [+terminal]- |   all is set up; only execve is left
//!   | -- Start -------------------------> |
//!   | <---------------- (end of file) --- |   execve has succeeded
//!   | <-- Failed(what, subject, errno) -- |   at any point: the reason, then the child is gone
//! ```
//!
//! A message is one packet: a tag byte and a body. When the parent dies, the child reads the end of file and ends.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, send, sendmsg, socketpair,
};
use rustix::process::Pid;

use super::error::{Context, RuntimeError};

const ASSEMBLED: u8 = b'A';
const APART: u8 = b'P';
const CONNECTED: u8 = b'N';
const KNOWN: u8 = b'K';
const HOOKED: u8 = b'H';
const CREATED: u8 = b'C';
const BORN: u8 = b'B';
const START: u8 = b'S';
const FAILED: u8 = b'F';
const ASKS: u8 = b'Q';

/// A longer subject than this is cut: a packet must fit the socket's buffer.
const LONGEST_PACKET: usize = 8192;

/// How often in a row a process must be found stopped, a second between two looks.
const PATIENCE: u32 = 5;
const A_SECOND: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// One end of the pair.
pub(super) struct Channel {
    socket: OwnedFd,
}

/// What the child says.
pub(super) enum Report {
    Apart,
    Assembled,
    Born {
        pid: Pid,
        pidfd: OwnedFd,
    },
    Created {
        terminal: Option<OwnedFd>,
    },
    /// A call of its own needs to be granted (see `joined_proc`).
    Asks {
        notifications: OwnedFd,
    },
    Failed(RuntimeError),
    /// End of file: execve closed the channel, or the child died.
    Closed,
}

/// What the parent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Connected,
    Hooked,
    Known,
    Start,
}

impl Word {
    fn tag(self) -> u8 {
        match self {
            Word::Connected => CONNECTED,
            Word::Hooked => HOOKED,
            Word::Known => KNOWN,
            Word::Start => START,
        }
    }
}

/// The parent's end and the child's.
pub(super) fn pair() -> Result<(Channel, Channel), RuntimeError> {
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .during("make a channel to", "the container's first process")?;
    Ok((Channel { socket: above_stdio(a)? }, Channel { socket: above_stdio(b)? }))
}

/// The child replaces descriptors 0 to 2, which may be free in this process: the channel must not be one of them.
fn above_stdio(fd: OwnedFd) -> Result<OwnedFd, RuntimeError> {
    rustix::io::fcntl_dupfd_cloexec(&fd, 3).during("duplicate", "a descriptor")
}

impl Channel {
    /// A conversation over a connection.
    pub(super) fn over(socket: OwnedFd) -> Channel {
        Channel { socket }
    }

    pub(super) fn tell(&self, word: Word) -> io::Result<()> {
        Ok(send(&self.socket, &[word.tag()], SendFlags::NOSIGNAL).map(drop)?)
    }

    /// Waits for `word`; an error when the parent is gone.
    pub(super) fn expect(&self, word: Word) -> io::Result<()> {
        let (packet, _) = self.receive()?;
        match packet.first() {
            Some(tag) if *tag == word.tag() => Ok(()),
            _ => Err(io::Error::from_raw_os_error(libc::EPIPE)),
        }
    }

    pub(super) fn apart(&self) -> io::Result<()> {
        Ok(send(&self.socket, &[APART], SendFlags::NOSIGNAL).map(drop)?)
    }

    pub(super) fn assembled(&self) -> io::Result<()> {
        Ok(send(&self.socket, &[ASSEMBLED], SendFlags::NOSIGNAL).map(drop)?)
    }

    pub(super) fn created(&self, terminal: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.send_with(&[CREATED], terminal)
    }

    pub(super) fn asks(&self, notifications: BorrowedFd<'_>) -> io::Result<()> {
        self.send_with(&[ASKS], Some(notifications))
    }

    /// What the process in between says of the first process.
    pub(super) fn born(&self, pid: Pid, pidfd: BorrowedFd<'_>) -> io::Result<()> {
        let mut packet = vec![BORN];
        packet.extend(pid.as_raw_nonzero().get().to_ne_bytes());
        self.send_with(&packet, Some(pidfd))
    }

    fn send_with(&self, packet: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        Ok(sendmsg(&self.socket, &[IoSlice::new(packet)], &mut ancillary, SendFlags::NOSIGNAL).map(drop)?)
    }

    pub(super) fn failed(&self, error: &RuntimeError) -> io::Result<()> {
        Ok(send(&self.socket, &encode(error), SendFlags::NOSIGNAL).map(drop)?)
    }

    pub(super) fn report(&self) -> Result<Report, RuntimeError> {
        let (packet, descriptor) = self.receive().during("hear from", "the container's first process")?;
        Ok(match packet.split_first() {
            None => Report::Closed,
            Some((&APART, _)) => Report::Apart,
            Some((&ASSEMBLED, _)) => Report::Assembled,
            Some((&CREATED, _)) => Report::Created { terminal: descriptor },
            Some((&ASKS, _)) => descriptor.map_or(Report::Closed, |notifications| Report::Asks { notifications }),
            Some((&BORN, number)) => match (pid(number), descriptor) {
                (Some(pid), Some(pidfd)) => Report::Born { pid, pidfd },
                _ => Report::Closed,
            },
            Some((_, body)) => Report::Failed(decode(body)),
        })
    }

    /// As [`Channel::report`], of a process that others may stop (kill(2), ptrace(2)): its own container's, or those whose
    /// pid namespace it joins. Kept so for [`PATIENCE`] and silent all the while, it is not waited for.
    pub(super) fn report_of(&self, child: Pid) -> Result<Report, RuntimeError> {
        let mut looks_in_vain = 0;
        while looks_in_vain < PATIENCE {
            match poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&A_SECOND)) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) if is_stopped(child) => looks_in_vain += 1,
                Ok(0) => looks_in_vain = 0,
                other => {
                    other.during("hear from", "the container's first process")?;
                    return self.report();
                }
            }
        }
        Err(RuntimeError::Held { pid: child.as_raw_nonzero().get() })
    }

    fn receive(&self) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
        let mut packet = vec![0; LONGEST_PACKET];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut body = [IoSliceMut::new(&mut packet)];
            match recvmsg(&self.socket, &mut body, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                // A child that ends with words of ours unread resets the connection. That is said once, before
                // what the child said last: the next call gives it, or the end of file.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => continue,
                other => break other?.bytes,
            }
        };
        packet.truncate(received);
        let mut descriptors = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        Ok((packet, descriptors.next().and_then(|mut fds| fds.next())))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// By a signal, or by who traces it (proc(5), /proc/pid/stat: `T` and `t`, behind the name in brackets).
fn is_stopped(pid: Pid) -> bool {
    let stat = std::fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    // The name may be no text.
    String::from_utf8_lossy(&stat).rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with(['T', 't']))
}

fn pid(bytes: &[u8]) -> Option<Pid> {
    bytes.try_into().ok().map(i32::from_ne_bytes).and_then(Pid::from_raw)
}

/// A failure as a packet: tag, kind, errno, and two texts with a zero byte between.
fn encode(error: &RuntimeError) -> Vec<u8> {
    let (kind, errno, first, second) = match error {
        RuntimeError::CommandNotFound { command } => (b'n', 0, command.clone(), String::new()),
        RuntimeError::InterpreterNotFound { command } => (b'i', 0, command.clone(), String::new()),
        RuntimeError::CommandNotExecutable { command, source } => (b'x', errno(source), command.clone(), String::new()),
        RuntimeError::WorkingDirectory { path, source } => {
            (b'w', errno(source), path.to_string_lossy().into_owned(), String::new())
        }
        RuntimeError::UserNotFound { name } => (b'u', 0, name.clone(), String::new()),
        RuntimeError::Invalid { field, reason } => (b'v', 0, field.clone(), reason.clone()),
        RuntimeError::Unsupported { field, reason } => (b's', 0, field.clone(), reason.clone()),
        RuntimeError::Hook { hook, reason } => (b'h', 0, hook.clone(), reason.clone()),
        RuntimeError::Step { step, subject, source } => (b'e', errno(source), step.to_string(), subject.clone()),
        // The child makes no others; their text loses nothing if one ever does.
        other => (b'e', libc::EIO, "set up".to_owned(), other.to_string()),
    };
    let mut packet = vec![FAILED, kind];
    packet.extend(errno.to_ne_bytes());
    packet.extend(first.bytes().chain([0]).chain(second.bytes()).take(LONGEST_PACKET - packet.len()));
    packet
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn decode(body: &[u8]) -> RuntimeError {
    let Some((&kind, rest)) = body.split_first() else { return RuntimeError::Died };
    let Some((number, texts)) = rest.split_first_chunk::<4>() else { return RuntimeError::Died };
    let source = io::Error::from_raw_os_error(i32::from_ne_bytes(*number));
    let texts = String::from_utf8_lossy(texts);
    let (first, second) = texts.split_once('\0').unwrap_or((&texts, ""));
    let (first, second) = (first.to_owned(), second.to_owned());
    match kind {
        b'n' => RuntimeError::CommandNotFound { command: first },
        b'i' => RuntimeError::InterpreterNotFound { command: first },
        b'x' => RuntimeError::CommandNotExecutable { command: first, source },
        b'w' => RuntimeError::WorkingDirectory { path: PathBuf::from(first), source },
        b'u' => RuntimeError::UserNotFound { name: first },
        b'v' => RuntimeError::Invalid { field: first, reason: second },
        b'h' => RuntimeError::Hook { hook: first, reason: second },
        b's' => RuntimeError::Unsupported { field: first, reason: second },
        _ => RuntimeError::Step { step: first.into(), subject: second, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_arrives_as_it_was_sent() {
        let source = || io::Error::from_raw_os_error(libc::ENOENT);
        let cases = [
            RuntimeError::CommandNotFound { command: "/bin/x".into() },
            RuntimeError::CommandNotExecutable { command: "/etc".into(), source: source() },
            RuntimeError::WorkingDirectory { path: "/gone".into(), source: source() },
            RuntimeError::UserNotFound { name: "web".into() },
            RuntimeError::Invalid { field: "mounts[0]".into(), reason: "why".into() },
            RuntimeError::Hook { hook: "createContainer hook `/x`".into(), reason: "why".into() },
            RuntimeError::Step { step: "mount".into(), subject: "/proc".into(), source: source() },
        ];
        for case in cases {
            let (parent, child) = pair().unwrap();
            child.failed(&case).unwrap();
            let Report::Failed(got) = parent.report().unwrap() else { panic!("no failure arrived") };
            assert_eq!(format!("{got:?}"), format!("{case:?}"));
        }
    }

    #[test]
    fn a_subject_longer_than_a_packet_is_cut() {
        let (parent, child) = pair().unwrap();
        child.failed(&RuntimeError::UserNotFound { name: "x".repeat(1 << 20) }).unwrap();
        assert!(matches!(parent.report().unwrap(), Report::Failed(RuntimeError::UserNotFound { .. })));
    }

    #[test]
    fn a_descriptor_travels_with_created() {
        let (parent, child) = pair().unwrap();
        child.created(Some(child.as_fd())).unwrap();
        assert!(matches!(parent.report().unwrap(), Report::Created { terminal: Some(_) }));
    }

    #[test]
    fn the_end_of_the_child_is_seen() {
        let (parent, child) = pair().unwrap();
        drop(child);
        assert!(matches!(parent.report().unwrap(), Report::Closed));
    }
}
