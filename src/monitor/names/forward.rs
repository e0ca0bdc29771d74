//! Queries that wait for an upstream server, from the host's network namespace.
//!
//! A query is forwarded as it is, but for its id, which is random, as is the port: one socket for each query, connected
//! to the server, so the kernel takes answers from nobody else (RFC 5452). An answer must carry that id and the same
//! question. A server that does not answer, or answers that it cannot or will not, is followed by the next. Over TCP
//! the query goes out over TCP too: that is what a client does after a truncated answer.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::message::{self, HEADER, Transport};

/// Clients ask again after five seconds (resolv.conf(5)); two servers have had their chance by then.
const PATIENCE: Duration = Duration::from_secs(2);

/// Each server is asked at most this many times.
const ROUNDS: usize = 2;

#[derive(Debug)]
enum Exchange {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, sent: usize, heard: Vec<u8> },
}

/// What came of a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Waiting,
    /// An answer for the client, with its own id.
    Answer(Vec<u8>),
    /// No server is left to ask.
    Failed,
}

/// One query that waits.
#[derive(Debug)]
pub struct Forward {
    /// As the client sent it.
    pub query: Vec<u8>,
    pub transport: Transport,
    servers: Vec<SocketAddr>,
    attempt: usize,
    id: [u8; 2],
    exchange: Option<Exchange>,
    pub deadline: Duration,
}

impl Forward {
    /// Asks the first server that can be asked. [`Forward::is_hopeless`] when there is none.
    pub fn begin(query: &[u8], transport: Transport, servers: &[SocketAddr], now: Duration) -> Forward {
        let mut forward = Forward {
            query: query.to_vec(),
            transport,
            servers: servers.to_vec(),
            attempt: 0,
            id: [0; 2],
            exchange: None,
            deadline: now,
        };
        forward.ask(now);
        forward
    }

    pub fn is_hopeless(&self) -> bool {
        self.exchange.is_none()
    }

    /// Asks the next server that can be asked.
    fn ask(&mut self, now: Duration) {
        self.exchange = None;
        while self.exchange.is_none() && self.attempt < ROUNDS * self.servers.len() {
            let server = self.servers[self.attempt % self.servers.len()];
            self.attempt += 1;
            self.deadline = now + PATIENCE;
            self.exchange = self.open(server).ok();
        }
    }

    fn open(&mut self, server: SocketAddr) -> io::Result<Exchange> {
        rustix::rand::getrandom(&mut self.id[..], rustix::rand::GetRandomFlags::empty())?;
        match self.transport {
            Transport::Udp => {
                let any: SocketAddr = match server {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                socket.connect(server)?;
                socket.send(&self.with_id())?;
                Ok(Exchange::Udp(socket))
            }
            Transport::Tcp => Ok(Exchange::Tcp { stream: begin_to_connect(server)?, sent: 0, heard: Vec::new() }),
        }
    }

    fn with_id(&self) -> Vec<u8> {
        let mut query = self.query.clone();
        query[..2].copy_from_slice(&self.id);
        query
    }

    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match self.exchange.as_ref()? {
            Exchange::Udp(socket) => Some((socket.as_fd(), PollFlags::IN)),
            Exchange::Tcp { stream, sent, .. } if *sent < self.query.len() + 2 => {
                Some((stream.as_fd(), PollFlags::OUT))
            }
            Exchange::Tcp { stream, .. } => Some((stream.as_fd(), PollFlags::IN)),
        }
    }

    /// The socket has something to say.
    pub fn advance(&mut self, now: Duration) -> Outcome {
        let framed = match &self.exchange {
            Some(Exchange::Tcp { .. }) => framed(&self.with_id()),
            _ => Vec::new(),
        };
        let heard = match &mut self.exchange {
            None => return Outcome::Failed,
            Some(Exchange::Udp(socket)) => receive(socket, longest_datagram(&self.query)),
            Some(Exchange::Tcp { stream, sent, heard }) => converse(stream, &framed, sent, heard),
        };
        match heard {
            Ok(Some(answer)) => match self.check(answer) {
                Some(answer) => Outcome::Answer(answer),
                // Over UDP it may be a forgery: the true answer may still come.
                None if self.transport == Transport::Udp => Outcome::Waiting,
                None => self.next_server(now),
            },
            Ok(None) => Outcome::Waiting,
            Err(_) => self.next_server(now),
        }
    }

    /// The server was given its time.
    pub fn time_is_over(&mut self, now: Duration) -> Outcome {
        self.next_server(now)
    }

    fn next_server(&mut self, now: Duration) -> Outcome {
        self.ask(now);
        if self.is_hopeless() { Outcome::Failed } else { Outcome::Waiting }
    }

    /// The server that was asked last.
    pub fn server(&self) -> Option<SocketAddr> {
        let last = self.attempt.checked_sub(1)?;
        self.servers.get(last % self.servers.len()).copied()
    }

    /// An answer to this very query, with the client's id put back, and no longer than the client takes.
    fn check(&mut self, mut answer: Vec<u8>) -> Option<Vec<u8>> {
        let query = message::read(&self.query).ok()?;
        let question = query.question();
        let theirs = answer.get(HEADER..HEADER + question.len())?;
        let is_ours = answer[..2] == self.id && answer[2] & 0x80 != 0 && theirs.eq_ignore_ascii_case(question);
        answer[..2].copy_from_slice(&self.query[..2]);
        // Not every server heeds the size that it is told.
        let is_too_long = self.transport == Transport::Udp && answer.len() > query.longest_datagram();
        is_ours.then(|| if is_too_long { query.truncated(&answer) } else { answer })
    }

    /// Whether an answer says that this server cannot help: SERVFAIL or REFUSED, and another one may.
    pub fn should_ask_on(&self, answer: &[u8]) -> bool {
        matches!(answer[3] & 15, 2 | 5) && self.attempt < self.servers.len()
    }
}

fn longest_datagram(query: &[u8]) -> usize {
    message::read(query).map_or(0, |query| query.longest_datagram())
}

/// A datagram; one that is longer than `most` comes with one byte more than that.
fn receive(socket: &UdpSocket, most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut answer = vec![0; most + 1];
    match socket.recv(&mut answer) {
        Ok(count) => {
            answer.truncate(count);
            Ok(Some(answer))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        // ICMP said that nobody listens (udp(7)).
        Err(error) => Err(error),
    }
}

/// Sends the rest of the query, then reads on; the answer when it is whole.
fn converse(
    stream: &mut TcpStream,
    framed: &[u8],
    sent: &mut usize,
    heard: &mut Vec<u8>,
) -> io::Result<Option<Vec<u8>>> {
    let later = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    while *sent < framed.len() {
        match stream.write(&framed[*sent..]) {
            Ok(count) => *sent += count,
            Err(error) if later(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let mut piece = [0; 2048];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => heard.extend_from_slice(&piece[..count]),
            Err(error) if later(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        if let Some(message) = unframed(heard) {
            return Ok(Some(message.to_vec()));
        }
    }
}

/// Two bytes of length before each message (RFC 1035, section 4.2.2).
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(&message[..usize::from(length)]);
    framed
}

/// The first message in what was heard, when it is whole.
pub fn unframed(heard: &[u8]) -> Option<&[u8]> {
    let (length, rest) = heard.split_first_chunk()?;
    rest.get(..usize::from(u16::from_be_bytes(*length)))
}

fn begin_to_connect(server: SocketAddr) -> io::Result<TcpStream> {
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket: OwnedFd = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    match connect(&socket, &server) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::names::message::tests::query;
    use rustix::event::{PollFd, Timespec, poll};

    fn server() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    fn wait(forward: &Forward) {
        let (fd, flags) = forward.interest().unwrap();
        let deadline = Timespec { tv_sec: 5, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(&deadline)).unwrap(), 1);
    }

    fn heard(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut packet = vec![0; 512];
        let (count, from) = socket.recv_from(&mut packet).unwrap();
        packet.truncate(count);
        (packet, from)
    }

    #[test]
    fn an_answer_needs_the_right_id_and_question() {
        let (socket, address) = server();
        let query = query("example.org", 1, None);
        let mut forward = Forward::begin(&query, Transport::Udp, &[address], Duration::ZERO);
        let (mut packet, from) = heard(&socket);
        assert_eq!(packet[2..], query[2..]);
        packet[2] |= 0x80;
        let mut forged = packet.clone();
        forged[0] ^= 1;
        let mut other = packet.clone();
        other[14] ^= 1;
        for wrong in [forged, other] {
            socket.send_to(&wrong, from).unwrap();
            wait(&forward);
            assert_eq!(forward.advance(Duration::ZERO), Outcome::Waiting);
        }
        socket.send_to(&packet, from).unwrap();
        wait(&forward);
        packet[..2].copy_from_slice(&query[..2]);
        assert_eq!(forward.advance(Duration::ZERO), Outcome::Answer(packet));
    }

    #[test]
    fn an_answer_that_its_client_does_not_take_is_left_to_tcp() {
        for (announced, length, fits) in
            [(None, 512, true), (None, 513, false), (Some(900), 900, true), (Some(900), 4000, false)]
        {
            let (socket, address) = server();
            let query = query("example.org", 16, announced);
            let mut forward = Forward::begin(&query, Transport::Udp, &[address], Duration::ZERO);
            let (mut packet, from) = heard(&socket);
            packet[2] |= 0x80;
            packet.resize(length, 0);
            socket.send_to(&packet, from).unwrap();
            wait(&forward);
            let Outcome::Answer(answer) = forward.advance(Duration::ZERO) else { panic!("{announced:?}") };
            let is_truncated = answer[2] & 2 != 0;
            assert_eq!((answer.len(), is_truncated), if fits { (length, false) } else { (query.len(), true) });
            assert_eq!(answer[..2], query[..2]);
        }
    }

    #[test]
    fn a_silent_or_absent_server_is_followed_by_the_next() {
        let (silent, silent_address) = server();
        let (_, absent) = server();
        let (last, last_address) = server();
        let query = query("example.org", 1, None);
        let servers = [silent_address, absent, last_address];
        let mut forward = Forward::begin(&query, Transport::Udp, &servers, Duration::ZERO);
        heard(&silent);
        assert_eq!(forward.deadline, PATIENCE);
        assert_eq!(forward.time_is_over(PATIENCE), Outcome::Waiting);
        wait(&forward);
        assert_eq!(forward.advance(PATIENCE), Outcome::Waiting);
        heard(&last);
        for _ in 0..2 {
            forward.time_is_over(PATIENCE);
        }
        while forward.time_is_over(PATIENCE) != Outcome::Failed {}
        assert!(forward.is_hopeless());
    }

    #[test]
    fn over_tcp_the_query_goes_out_over_tcp() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let query = query("example.org", 1, None);
        let servers = [listener.local_addr().unwrap()];
        let mut forward = Forward::begin(&query, Transport::Tcp, &servers, Duration::ZERO);
        let length = query.len();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = vec![0; length + 2];
            stream.read_exact(&mut heard).unwrap();
            heard[4] |= 0x80;
            for piece in heard.chunks(7) {
                stream.write_all(piece).unwrap();
            }
        });
        let answer = loop {
            wait(&forward);
            match forward.advance(Duration::ZERO) {
                Outcome::Waiting => {}
                Outcome::Answer(answer) => break answer,
                Outcome::Failed => panic!("failed"),
            }
        };
        assert_eq!(answer[..2], query[..2]);
        server.join().unwrap();
    }
}
