//! The monitor's end of the control socket: connections, and who waits for what.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::Mode;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, accept_with, bind, listen, shutdown, socket_with};

use super::error::MonitorError;
use super::packet::{self, Packet};
use super::protocol::Answer;
use crate::model::paths::run;

/// More clients than this at one time wait to be accepted.
const MOST_CONNECTIONS: usize = 64;

/// What a client was promised an answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// The container is over.
    Over,
    /// It runs again, or is over.
    Running,
    /// A further process started, or ended.
    Job,
}

/// Which descriptor is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    Listener,
    Connection(u32),
}

#[derive(Debug)]
struct Connection {
    number: u32,
    socket: OwnedFd,
    promise: Option<Promise>,
}

#[derive(Debug)]
pub struct Control {
    listener: OwnedFd,
    connections: Vec<Connection>,
    count: u32,
}

impl Control {
    /// Opens the socket in a run directory. What an earlier monitor left there is replaced; the lock says that it is
    /// gone.
    pub fn open(directory: &Path) -> Result<Control, MonitorError> {
        let path = directory.join(run::CONTROL);
        let open = || {
            let opened = packet::open_directory(directory)?;
            let address = packet::address(&opened, run::CONTROL)?;
            remove(directory)?;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            bind(&listener, &address)?;
            // Before anybody can connect: that takes listen(2).
            rustix::fs::chmod(&path, Mode::RUSR | Mode::WUSR)?;
            listen(&listener, 128)?;
            Ok(listener)
        };
        let listener = open().map_err(|source: std::io::Error| MonitorError::file("listen on", &path, source))?;
        Ok(Control { listener, connections: Vec::new(), count: 0 })
    }

    pub fn interests(&self) -> impl Iterator<Item = (Ready, BorrowedFd<'_>)> {
        let accepts = self.connections.len() < MOST_CONNECTIONS;
        let connections =
            self.connections.iter().map(|connection| (Ready::Connection(connection.number), connection.socket.as_fd()));
        accepts.then(|| (Ready::Listener, self.listener.as_fd())).into_iter().chain(connections)
    }

    pub fn accept(&mut self) {
        // One that gave up meanwhile is no news.
        if let Ok(socket) = accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            self.count = self.count.wrapping_add(1);
            self.connections.push(Connection { number: self.count, socket, promise: None });
        }
    }

    /// Nobody can connect any more. Those who did and were promised nothing are promised `last`; what they asked for is
    /// not heard any more. Whoever speaks after this learns that nobody listens.
    pub fn hear_no_more(&mut self, last: Promise) {
        let mut before = None;
        while before.replace(self.connections.len()) != Some(self.connections.len()) {
            self.accept();
        }
        for connection in &mut self.connections {
            connection.promise.get_or_insert(last);
            // A socket that is closed with something unread takes back what it sent (unix(7), ECONNRESET). One that is
            // not connected any more has nobody to tell.
            let _ = shutdown(&connection.socket, Shutdown::Read);
            while packet::receive(&connection.socket).is_ok_and(|packet| packet.is_some()) {}
        }
    }

    /// The next message of a connection. At its end, or when it does not keep to the rules, it is closed.
    pub fn receive(&mut self, number: u32) -> Option<Packet> {
        let socket = &self.connections.iter().find(|connection| connection.number == number)?.socket;
        match packet::receive(socket) {
            Ok(Some(packet)) => Some(packet),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            Ok(None) | Err(_) => {
                self.close(number);
                None
            }
        }
    }

    pub fn promise(&mut self, number: u32, promise: Promise) {
        if let Some(connection) = self.connections.iter_mut().find(|connection| connection.number == number) {
            connection.promise = Some(promise);
        }
    }

    /// What the other end says that it is: see [`packet::introduction`].
    pub fn asker(&self, number: u32) -> Option<String> {
        let connection = self.connections.iter().find(|connection| connection.number == number)?;
        packet::introduced(&connection.socket)
    }

    /// Whether this connection has a promise to wait for; meanwhile it may not ask for more.
    pub fn is_promised(&self, number: u32) -> bool {
        self.connections.iter().any(|connection| connection.number == number && connection.promise.is_some())
    }

    pub fn has(&self, number: u32) -> bool {
        self.connections.iter().any(|connection| connection.number == number)
    }

    /// Keeps a promise to one client.
    pub fn answer(&mut self, number: u32, answer: &Answer, descriptors: &[BorrowedFd<'_>]) {
        let Some(connection) = self.connections.iter_mut().find(|connection| connection.number == number) else {
            return;
        };
        connection.promise = None;
        // One that does not listen has lost its turn.
        if packet::send(&connection.socket, answer, descriptors).is_err() {
            self.close(number);
        }
    }

    /// Keeps a promise to all who have it.
    pub fn keep(&mut self, promise: Promise, answer: &Answer) {
        let holders: Vec<u32> = self
            .connections
            .iter()
            .filter(|connection| connection.promise == Some(promise))
            .map(|connection| connection.number)
            .collect();
        for number in holders {
            self.answer(number, answer, &[]);
        }
    }

    fn close(&mut self, number: u32) {
        self.connections.retain(|connection| connection.number != number);
    }
}

/// Nobody is to connect any more.
pub fn remove(directory: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(directory.join(run::CONTROL)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
