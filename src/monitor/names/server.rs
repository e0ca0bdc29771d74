//! The sockets of the name service, as descriptors of the monitor's poll loop.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use super::answer::{Decision, decide, nowhere, unanswered};
use super::forward::{Forward, Outcome, framed, unframed};
use super::message::{Transport, UDP_SIZE};
use super::tables::Tables;
use crate::model::launch::Resolver;
use crate::monitor::netns::Home;

/// Where containers ask; the same address as Docker's.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
pub const PORT: u16 = 53;

/// Queries that wait for an upstream at one time, each with a socket of its own: half of what a process may usually
/// have open (getrlimit(2)).
const MOST_WAITING: usize = 512;

/// TCP connections at one time. More wait to be accepted.
const MOST_CONNECTIONS: usize = 64;

/// A connection on which nothing happens.
const IDLE: Duration = Duration::from_secs(10);

/// Datagrams taken in one turn of the loop: names must not keep logs waiting.
const DATAGRAMS_A_TURN: usize = 16;

/// Which descriptor is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    Datagram,
    Listener,
    Connection(u32),
    Upstream(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Datagram(SocketAddr),
    Connection(u32),
}

/// A client over TCP: one query after another.
#[derive(Debug)]
struct Connection {
    number: u32,
    stream: TcpStream,
    heard: Vec<u8>,
    /// What is still to be sent.
    answer: Vec<u8>,
    is_waiting: bool,
    deadline: Duration,
}

#[derive(Debug)]
struct Waiting {
    number: u32,
    client: Client,
    forward: Forward,
    /// A server answered that it cannot, and another one was asked.
    was_sent_on: bool,
}

#[derive(Debug)]
pub struct Server {
    datagrams: UdpSocket,
    listener: TcpListener,
    tables: Tables,
    /// The one that answered last comes first, so that one that is down delays one query and not every one.
    upstreams: Vec<SocketAddr>,
    connections: Vec<Connection>,
    /// In the order in which they came.
    waiting: Vec<Waiting>,
    /// For numbers of connections and forwards, and for taking turns.
    count: u32,
}

impl Server {
    /// Opens the sockets inside the network namespace. `None` when somebody serves there already: containers that
    /// share a namespace have one name service, that of its owner.
    pub fn open(home: &Home, netns: &Path, resolver: &Resolver) -> io::Result<Option<Server>> {
        let sockets = home.within(Some(netns), || Ok((udp_socket()?, tcp_socket()?)));
        let (datagrams, listener) = match sockets {
            Ok(sockets) => sockets,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut server = Server {
            datagrams,
            listener,
            tables: Tables::default(),
            upstreams: Vec::new(),
            connections: Vec::new(),
            waiting: Vec::new(),
            count: 0,
        };
        server.set_resolver(resolver);
        Ok(Some(server))
    }

    pub fn set_resolver(&mut self, resolver: &Resolver) {
        self.tables = Tables::new(&resolver.tables);
        self.upstreams = resolver.upstreams.iter().map(|address| SocketAddr::new(*address, PORT)).collect();
    }

    /// What to wait for.
    pub fn interests(&self) -> impl Iterator<Item = (Ready, BorrowedFd<'_>, PollFlags)> {
        let accepts = self.connections.len() < MOST_CONNECTIONS;
        let listener = accepts.then(|| (Ready::Listener, self.listener.as_fd(), PollFlags::IN));
        let connections = self.connections.iter().map(|connection| {
            let flags = match (connection.answer.is_empty(), connection.is_waiting) {
                (false, _) => PollFlags::OUT,
                (true, false) => PollFlags::IN,
                (true, true) => PollFlags::empty(),
            };
            (Ready::Connection(connection.number), connection.stream.as_fd(), flags)
        });
        let waiting = self.waiting.iter().filter_map(|waiting| {
            let (fd, flags) = waiting.forward.interest()?;
            Some((Ready::Upstream(waiting.number), fd, flags))
        });
        let datagrams = (Ready::Datagram, self.datagrams.as_fd(), PollFlags::IN);
        [datagrams].into_iter().chain(listener).chain(connections).chain(waiting)
    }

    /// When [`Server::expire`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        let idle = self.connections.iter().filter(|connection| !connection.is_waiting);
        let connections = idle.map(|connection| connection.deadline);
        connections.chain(self.waiting.iter().map(|waiting| waiting.forward.deadline)).min()
    }

    pub fn serve(&mut self, ready: Ready, now: Duration) {
        match ready {
            Ready::Datagram => self.take_datagrams(now),
            Ready::Listener => self.accept(now),
            Ready::Connection(number) => self.converse(number, now),
            Ready::Upstream(number) => self.hear_upstream(number, now),
        }
    }

    fn take_datagrams(&mut self, now: Duration) {
        let mut packet = [0; UDP_SIZE as usize];
        for _ in 0..DATAGRAMS_A_TURN {
            match self.datagrams.recv_from(&mut packet) {
                Ok((count, from)) => self.take_query(&packet[..count], Client::Datagram(from), now),
                // Nothing more; or an error that an earlier answer met, which is the asker's loss.
                Err(_) => return,
            }
        }
    }

    fn take_query(&mut self, packet: &[u8], client: Client, now: Duration) {
        let transport = match client {
            Client::Datagram(_) => Transport::Udp,
            Client::Connection(_) => Transport::Tcp,
        };
        self.tables.refresh();
        self.count = self.count.wrapping_add(1);
        let answer = match decide(packet, transport, &self.tables, self.count as usize) {
            Decision::Answer(answer) => Some(answer),
            Decision::Drop => None,
            Decision::Forward if self.upstreams.is_empty() => nowhere(packet, transport),
            // The client lost patience; what it asked before is still under way.
            Decision::Forward if self.is_waiting(packet, client) => return,
            Decision::Forward => {
                self.make_room(now);
                let forward = Forward::begin(packet, transport, &self.upstreams, now);
                if !forward.is_hopeless() {
                    self.waiting.push(Waiting { number: self.count, client, forward, was_sent_on: false });
                    return;
                }
                unanswered(packet, transport)
            }
        };
        self.deliver(client, answer, now);
    }

    fn is_waiting(&self, packet: &[u8], client: Client) -> bool {
        self.waiting.iter().any(|waiting| waiting.client == client && waiting.forward.query == packet)
    }

    /// The query that has waited longest gives way to a new one. Servers that answer do so within milliseconds: it is
    /// names whose servers are silent that fill the room, and they must not keep others from an answer.
    fn make_room(&mut self, now: Duration) {
        if self.waiting.len() >= MOST_WAITING {
            self.conclude(0, Outcome::Failed, now);
        }
    }

    /// Sends an answer; a client over TCP that gets none is dropped.
    fn deliver(&mut self, client: Client, answer: Option<Vec<u8>>, now: Duration) {
        match (client, answer) {
            (Client::Datagram(to), Some(answer)) => {
                // A full buffer or a client that is gone: it asks again, or it does not.
                let _ = self.datagrams.send_to(&answer, to);
            }
            (Client::Datagram(_), None) => {}
            (Client::Connection(number), Some(answer)) => {
                if let Some(connection) = self.connections.iter_mut().find(|connection| connection.number == number) {
                    connection.answer = framed(&answer);
                    connection.is_waiting = false;
                    connection.deadline = now + IDLE;
                }
            }
            (Client::Connection(number), None) => self.connections.retain(|connection| connection.number != number),
        }
    }

    fn accept(&mut self, now: Duration) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        if stream.set_nonblocking(true).is_ok() {
            self.count = self.count.wrapping_add(1);
            self.connections.push(Connection {
                number: self.count,
                stream,
                heard: Vec::new(),
                answer: Vec::new(),
                is_waiting: false,
                deadline: now + IDLE,
            });
        }
    }

    fn converse(&mut self, number: u32, now: Duration) {
        let Some(connection) = self.connections.iter_mut().find(|connection| connection.number == number) else {
            return;
        };
        match connection.advance(now) {
            Ok(None) => {}
            Ok(Some(query)) => self.take_query(&query, Client::Connection(number), now),
            Err(_) => self.connections.retain(|connection| connection.number != number),
        }
    }

    fn hear_upstream(&mut self, number: u32, now: Duration) {
        let Some(at) = self.waiting.iter().position(|waiting| waiting.number == number) else { return };
        let mut outcome = self.waiting[at].forward.advance(now);
        if let Outcome::Answer(answer) = &outcome {
            let waiting = &mut self.waiting[at];
            if waiting.forward.should_ask_on(answer) {
                // For this name alone: that says nothing against the server.
                waiting.was_sent_on = true;
                outcome = waiting.forward.time_is_over(now);
            } else if !waiting.was_sent_on
                && let Some(server) = waiting.forward.server()
                && let Some(place) = self.upstreams.iter().position(|upstream| *upstream == server)
            {
                self.upstreams.rotate_left(place);
            }
        }
        self.conclude(at, outcome, now);
    }

    fn conclude(&mut self, at: usize, outcome: Outcome, now: Duration) {
        let answer = match outcome {
            Outcome::Waiting => return,
            Outcome::Answer(answer) => Some(answer),
            Outcome::Failed => {
                let Forward { query, transport, .. } = &self.waiting[at].forward;
                unanswered(query, *transport)
            }
        };
        let waiting = self.waiting.remove(at);
        self.deliver(waiting.client, answer, now);
    }

    /// Gives up on what was given its time.
    pub fn expire(&mut self, now: Duration) {
        for at in (0..self.waiting.len()).rev() {
            if self.waiting[at].forward.deadline <= now {
                let outcome = self.waiting[at].forward.time_is_over(now);
                self.conclude(at, outcome, now);
            }
        }
        // One that waits for an upstream gets an answer when that one's time is over.
        self.connections.retain(|connection| connection.is_waiting || connection.deadline > now);
    }
}

impl Connection {
    /// Sends what is to be sent, or reads on; a query when one is whole.
    fn advance(&mut self, now: Duration) -> io::Result<Option<Vec<u8>>> {
        self.deadline = now + IDLE;
        if !self.answer.is_empty() {
            let sent = self.stream.write(&self.answer)?;
            self.answer.drain(..sent);
            if !self.answer.is_empty() {
                return Ok(None);
            }
        } else {
            let mut piece = [0; 512];
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.heard.extend_from_slice(&piece[..count]),
            }
        }
        match unframed(&self.heard).map(<[u8]>::to_vec) {
            Some(query) => {
                self.heard.drain(..query.len() + 2);
                self.is_waiting = true;
                Ok(Some(query))
            }
            // No query is longer; whoever sends more has something else in mind.
            None if self.heard.len() > usize::from(UDP_SIZE) => Err(io::ErrorKind::InvalidData.into()),
            None => Ok(None),
        }
    }
}

fn udp_socket() -> io::Result<UdpSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    bind(&socket, &SocketAddr::new(IpAddr::V4(ADDRESS), PORT))?;
    Ok(UdpSocket::from(socket))
}

fn tcp_socket() -> io::Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    // Connections of an earlier monitor may be in TIME_WAIT (socket(7)).
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &SocketAddr::new(IpAddr::V4(ADDRESS), PORT))?;
    listen(&socket, 16)?;
    Ok(TcpListener::from(socket))
}
