//! Where the first process of a created container waits until another process starts it.
//!
//! `create` and `start` of the OCI command line are two processes, and the first is gone when the second comes. So the
//! container's first process keeps a listening socket, made beside the container's state:
//!
//! ```text
//! first process                           start
//!   accept  <---------------------------- | connect to <state>/start
//!   | <--------------------------- Start  |
//!   | startContainer hooks, execve        |
//!   | - (end of file, or Failed(why)) --> |
//! ```
//!
//! From there on the connection is what the channel of `handshake` is to a parent: the reason of a failed execve(2)
//! arrives in the process that asked for it.
//!
//! # Decisions
//!
//! A pipe with a name (runc's way) says nothing back. The listener is close-on-exec, so the kernel itself knows whether
//! the command has been executed: until then connecting succeeds, from then on it is refused. A `start` that was killed
//! half-way leaves nothing that would lie about it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open as open_file};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};
use rustix::process::Pid;

use super::error::{Context, RuntimeError};
use super::handshake::{Channel, Report, Word};

const NAME: &str = "start";

/// Who only looks queues up too, and is passed over.
const BACKLOG: i32 = 128;

/// The first process's side.
pub struct Gate {
    listener: OwnedFd,
}

impl Gate {
    /// Makes the gate in `directory`, shut. Only who may write there can open it.
    pub fn make(directory: &Path) -> Result<Gate, RuntimeError> {
        let listener = socket(SocketFlags::CLOEXEC).during("make a socket in", directory.display())?;
        at(directory, |address| bind(&listener, address)).during("make a socket in", directory.display())?;
        listen(&listener, BACKLOG).during("listen in", directory.display())?;
        Ok(Gate { listener })
    }

    /// Waits until somebody says the word.
    pub(super) fn wait(&self) -> io::Result<Channel> {
        loop {
            let caller = match accept_with(&self.listener, SocketFlags::CLOEXEC) {
                Ok(socket) => Channel::over(socket),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(errno) => return Err(errno.into()),
            };
            // One that hangs up wanted to know whether we wait.
            if caller.expect(Word::Start).is_ok() {
                return Ok(caller);
            }
        }
    }
}

impl AsFd for Gate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Opens the gate in `directory`, at which `waiting` waits: returns when the command has been executed, or why it was not.
pub fn open(directory: &Path, waiting: Pid) -> Result<(), RuntimeError> {
    let socket = socket(SocketFlags::CLOEXEC).during("make a socket for", directory.display())?;
    at(directory, |address| connect(&socket, address)).during("reach the first process by", directory.display())?;
    let channel = Channel::over(socket);
    match channel.tell(Word::Start) {
        // It may be gone; what it said last is read below.
        Err(error) if error.raw_os_error() != Some(libc::EPIPE) => {
            return Err(error).during("talk to", "the container's first process");
        }
        _ => {}
    }
    match channel.report_of(waiting)? {
        Report::Closed => Ok(()),
        Report::Failed(error) => Err(error),
        _ => Err(RuntimeError::Died),
    }
}

/// Whether somebody waits at the gate in `directory`.
pub fn is_shut(directory: &Path) -> bool {
    let Ok(socket) = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else { return false };
    // A full queue is one that somebody listens to.
    matches!(at(directory, |address| connect(&socket, address)), Ok(()) | Err(Errno::AGAIN))
}

fn socket(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// Calls with the address of the socket. It leads over a descriptor, since a path of more than 107 bytes does not fit
/// (unix(7)).
fn at(directory: &Path, call: impl FnOnce(&SocketAddrUnix) -> Result<(), Errno>) -> Result<(), Errno> {
    let directory = open_file(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    call(&SocketAddrUnix::new(format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd()))?)
}

#[cfg(test)]
mod tests {
    use rustix::process::getpid;

    use super::*;

    #[test]
    fn a_gate_is_shut_until_its_listener_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_shut(directory.path()));
        let gate = Gate::make(directory.path()).unwrap();
        assert!(is_shut(directory.path()));
        drop(gate);
        assert!(!is_shut(directory.path()));
        assert!(open(directory.path(), getpid()).is_err());
    }

    #[test]
    fn who_only_looks_opens_nothing_and_who_opens_hears_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let gate = Gate::make(directory.path()).unwrap();
        std::thread::scope(|scope| {
            assert!(is_shut(directory.path()));
            let opener = scope.spawn(|| open(directory.path(), getpid()));
            let caller = gate.wait().unwrap();
            caller.failed(&RuntimeError::CommandNotFound { command: "x".into() }).unwrap();
            drop(caller);
            assert!(matches!(opener.join().unwrap(), Err(RuntimeError::CommandNotFound { .. })));
        });
    }

    #[test]
    fn a_long_path_has_a_gate_too() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("x".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let _gate = Gate::make(&deep).unwrap();
        assert!(is_shut(&deep));
    }
}
