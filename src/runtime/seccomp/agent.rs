//! Who answers the notifications of a filter (runtime-spec, config-linux.md, "The Container Process State").
//!
//! ```text
//! caller                       process of the container                        agent
//!   connect to listenerPath -------------------------------------------------> accept
//!   clone3 -------------------> the number that the host knows it by
//!                               .. the container is built ..
//!                               seccomp(2): filter, descriptor
//!                               sendmsg(2): state [+descriptor] -------------> answers from here on
//!                               execve(2)
//! ```
//!
//! # Decisions
//!
//! The connection is made while the host's tree is there to find the socket in, and before anything of the container
//! exists: an agent that is not there is an error that leaves nothing. The process itself sends the descriptor, since
//! whoever created it may be gone when it is started. So the filter must allow what that takes: a call that is notified
//! waits for an agent that does not have the descriptor yet.

use std::cell::Cell;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{ContainerProcessState, ContainerState, SECCOMP_FD_NAME, State};
use rustix::fs::{Mode, OFlags, open, readlinkat};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, shutdown, socket_with,
};

use crate::runtime::error::{Context, RuntimeError};

/// `linux.seccomp.listenerPath` and `listenerMetadata`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::runtime) struct Address {
    pub path: PathBuf,
    pub metadata: Option<String>,
}

/// A connection to it, for one process.
pub(in crate::runtime) struct Agent {
    path: PathBuf,
    socket: OwnedFd,
    /// The link /proc/self, which tells whoever reads it its own number. Not a directory: the container may see it.
    own: OwnedFd,
    message: ContainerProcessState,
    /// Of the process, as the caller sees it.
    pid: Cell<Option<i32>>,
}

impl Agent {
    /// What [`Agent::send`] calls behind the filter.
    pub(super) const CALLS: [&str; 2] = ["sendmsg", "shutdown"];

    /// Connects. `state` is the container's, `status` what it will be when the filter is installed.
    pub(in crate::runtime) fn reach(
        address: &Address,
        state: &State,
        status: ContainerState,
    ) -> Result<Agent, RuntimeError> {
        let mut state = state.clone();
        state.set_status(status);
        let mut message = ContainerProcessState::default();
        message
            .set_version(state.version().clone())
            .set_fds(vec![SECCOMP_FD_NAME.to_owned()])
            .set_metadata(address.metadata.clone())
            .set_state(state);
        let socket = connect_to(&address.path).during("connect to the seccomp agent at", address.path.display())?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let own = open("/proc/self", flags, Mode::empty()).during("open", "/proc/self")?;
        Ok(Agent { path: address.path.clone(), socket, own, message, pid: Cell::new(None) })
    }

    /// This process is the one.
    pub(in crate::runtime) fn serve_this_process(&self) -> Result<(), RuntimeError> {
        let number = readlinkat(&self.own, "", Vec::new()).during("read", "/proc/self")?;
        self.pid.set(number.to_str().ok().and_then(|number| number.parse().ok()));
        Ok(())
    }

    /// What a process must keep open to use it.
    pub(in crate::runtime) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.socket.as_fd(), self.own.as_fd()]
    }

    /// The message, to be made before the filter forbids to make it.
    pub(super) fn message(&self) -> Result<Vec<u8>, RuntimeError> {
        let pid = self.pid.get().unwrap_or_default();
        let mut message = self.message.clone();
        message.set_pid(pid);
        message.state_mut().set_pid(Some(pid));
        serde_json::to_vec(&message)
            .map_err(std::io::Error::from)
            .during("describe the process to", "the seccomp agent")
    }

    /// Sends it, with the descriptor, and ends the connection: an agent may read to its end before it answers, and
    /// this process's copies of the socket last until execve(2).
    pub(super) fn send(&self, message: &[u8], notifications: BorrowedFd<'_>) -> Result<(), RuntimeError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rest = message;
        let descriptors = [notifications];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        while !rest.is_empty() {
            // The descriptor goes with the first part only.
            let sent = sendmsg(&self.socket, &[IoSlice::new(rest)], &mut ancillary, SendFlags::NOSIGNAL)
                .during("send the notifications to the seccomp agent at", self.path.display())?;
            rest = &rest[sent..];
            ancillary.clear();
        }
        shutdown(&self.socket, Shutdown::Both)
            .during("close the connection to the seccomp agent at", self.path.display())
    }
}

/// Over a descriptor of the socket, since a path of more than 107 bytes fits no address (unix(7)).
fn connect_to(path: &Path) -> Result<OwnedFd, rustix::io::Errno> {
    let place = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(format!("/proc/self/fd/{}", place.as_raw_fd()))?)?;
    Ok(socket)
}
