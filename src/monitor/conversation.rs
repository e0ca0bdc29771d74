//! Health probes over TCP and HTTP: a connection from inside the container's network namespace, by the monitor itself.
//!
//! No process is started in the container and nothing blocks: the socket is one more descriptor of the poll loop. It
//! goes to 127.0.0.1 and, when that refuses, to ::1, since a server may listen on either.
//!
//! Not done on purpose: redirects are an answer (status 3xx is healthy, as for kubelet), not followed; the body is not
//! read; HTTP/1.0 and 1.1 status lines only.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::PollFlags;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with, sockopt,
};

use super::netns::Home;

/// A status line that has not ended after this many bytes is none.
const LONGEST_STATUS_LINE: usize = 512;

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub healthy: bool,
    /// For people.
    pub output: String,
}

/// A probe under way.
#[derive(Debug)]
pub struct Conversation {
    address: SocketAddr,
    socket: OwnedFd,
    /// Where to go when the first address refuses: made with the other one, inside the network namespace.
    other: Option<(SocketAddr, OwnedFd)>,
    /// The request and how much of it was sent; `None` when a connection is all that is wanted.
    request: Option<(String, usize)>,
    connected: bool,
    heard: Vec<u8>,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub enum Question<'a> {
    Connection,
    Get { path: &'a str },
}

impl Conversation {
    /// Begins to connect to a port inside the network namespace at `netns`.
    pub fn begin(home: &Home, netns: Option<&Path>, port: u16, question: Question<'_>) -> io::Result<Conversation> {
        let request = match question {
            Question::Connection => None,
            Question::Get { path } => Some((request(port, path), 0)),
        };
        let [first, second] =
            [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
        home.within(netns, || {
            // Of a kernel without IPv6 there is no second address.
            let mut other = socket_for(second).ok().map(|socket| (second, socket));
            let (address, socket) = match socket_for(first).and_then(|socket| begin_to_connect(socket, first)) {
                Ok(socket) => (first, socket),
                // Loopback mostly refuses at once. The first reason is the one to tell.
                Err(problem) => match other.take() {
                    Some((address, socket)) => (address, begin_to_connect(socket, address).map_err(|_| problem)?),
                    None => return Err(problem),
                },
            };
            Ok(Conversation { address, socket, other, request, connected: false, heard: Vec::new() })
        })
    }

    pub fn interest(&self) -> PollFlags {
        match (self.connected, &self.request) {
            (true, Some((text, sent))) if *sent == text.len() => PollFlags::IN,
            _ => PollFlags::OUT,
        }
    }

    /// Goes on as far as it can; the verdict when there is one.
    pub fn advance(&mut self) -> Option<Verdict> {
        match self.advance_or_fail() {
            Ok(verdict) => verdict,
            Err(error) => Some(Verdict { healthy: false, output: format!("{}: {error}", self.address) }),
        }
    }

    fn advance_or_fail(&mut self) -> io::Result<Option<Verdict>> {
        if !self.connected {
            match (sockopt::socket_error(&self.socket)?, self.other.take()) {
                (Ok(()), _) => self.connected = true,
                (Err(refused), Some((address, socket))) => {
                    self.socket = begin_to_connect(socket, address).map_err(|_| refused)?;
                    self.address = address;
                    return Ok(None);
                }
                (Err(error), None) => return Err(error.into()),
            }
        }
        let Some((text, sent)) = &mut self.request else {
            return Ok(Some(Verdict { healthy: true, output: format!("connected to {}", self.address) }));
        };
        while *sent < text.len() {
            match send(&self.socket, &text.as_bytes()[*sent..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => *sent += count,
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        loop {
            let mut piece = [0_u8; LONGEST_STATUS_LINE];
            match recv(&self.socket, &mut piece[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Ok(Some(judge(&self.heard))),
                Ok((count, _)) => self.heard.extend_from_slice(&piece[..count]),
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            if self.heard.contains(&b'\n') || self.heard.len() >= LONGEST_STATUS_LINE {
                return Ok(Some(judge(&self.heard)));
            }
        }
    }
}

impl AsFd for Conversation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn socket_for(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?)
}

fn begin_to_connect(socket: OwnedFd, address: SocketAddr) -> io::Result<OwnedFd> {
    match connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

fn request(port: u16, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: evenkeel-monitor/{}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// `HTTP/1.1 200 OK` (RFC 9112, section 4); 200 to 399 is healthy.
fn judge(heard: &[u8]) -> Verdict {
    let line = heard.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).trim_end().to_owned();
    let code = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split_ascii_whitespace().nth(1))
        .filter(|code| code.len() == 3)
        .and_then(|code| code.parse::<u16>().ok());
    match code {
        Some(code) => Verdict { healthy: (200..400).contains(&code), output: line },
        None if line.is_empty() => Verdict { healthy: false, output: "the connection ended without an answer".into() },
        None => Verdict { healthy: false, output: format!("not an HTTP answer: {line}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, Timespec, poll};
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Serves one connection with these words and gives the verdict.
    fn ask(question: Question<'_>, answer: &'static [u8]) -> (Verdict, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = vec![0; 4096];
            let count = if answer.is_empty() { 0 } else { stream.read(&mut heard).unwrap() };
            for piece in answer.chunks(5) {
                // Whoever has read enough does not stay for the rest.
                if stream.write_all(piece).is_err() {
                    break;
                }
            }
            String::from_utf8_lossy(&heard[..count]).into_owned()
        });
        let mut conversation = Conversation::begin(&Home::open().unwrap(), None, port, question).unwrap();
        let verdict = loop {
            let interest = conversation.interest();
            let deadline = Timespec { tv_sec: 5, tv_nsec: 0 };
            assert_eq!(poll(&mut [PollFd::new(&conversation, interest)], Some(&deadline)).unwrap(), 1);
            if let Some(verdict) = conversation.advance() {
                break verdict;
            }
        };
        drop(conversation);
        (verdict, server.join().unwrap())
    }

    #[test]
    fn a_status_line_decides() {
        for (answer, healthy) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"[..], true),
            (b"HTTP/1.0 302 Found\r\n\r\n", true),
            (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", false),
            (b"SSH-2.0-OpenSSH_9.2\r\n", false),
            (b"HTTP/1.1 2000 OK\r\n", false),
        ] {
            let (verdict, request) = ask(Question::Get { path: "/ready" }, answer);
            assert_eq!(verdict.healthy, healthy, "{verdict:?}");
            assert!(request.starts_with("GET /ready HTTP/1.1\r\nHost: localhost:"), "{request}");
        }
    }

    #[test]
    fn a_connection_is_enough_for_tcp() {
        assert!(ask(Question::Connection, b"").0.healthy);
    }

    fn verdict(mut conversation: Conversation) -> Verdict {
        loop {
            let interest = conversation.interest();
            let deadline = Timespec { tv_sec: 10, tv_nsec: 0 };
            assert_eq!(poll(&mut [PollFd::new(&conversation, interest)], Some(&deadline)).unwrap(), 1);
            if let Some(verdict) = conversation.advance() {
                return verdict;
            }
        }
    }

    #[test]
    fn the_other_address_is_asked_also_when_the_first_refuses_late() {
        // The queue of a listener with a backlog of 0 holds one: the next connection waits until the listener is gone,
        // and is refused when the kernel asks again, after a second.
        let busy = socket_for(([127, 0, 0, 1], 0).into()).unwrap();
        rustix::net::bind(&busy, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        rustix::net::listen(&busy, 0).unwrap();
        let busy = TcpListener::from(busy);
        let address = busy.local_addr().unwrap();
        let _first = std::net::TcpStream::connect(address).unwrap();
        let other = TcpListener::bind((Ipv6Addr::LOCALHOST, address.port())).unwrap();
        let begin = || Conversation::begin(&Home::open().unwrap(), None, address.port(), Question::Connection).unwrap();
        let waiting = begin();
        drop(busy);
        let found = verdict(waiting);
        assert!(found.healthy && found.output.contains("[::1]"), "{found:?}");
        // And one that is refused at once.
        let found = verdict(begin());
        assert!(found.healthy && found.output.contains("[::1]"), "{found:?}");
        drop(other);
    }

    #[test]
    fn a_closed_port_is_unhealthy_and_says_so() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let home = Home::open().unwrap();
        match Conversation::begin(&home, None, port, Question::Connection) {
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED)),
            Ok(conversation) => {
                let verdict = verdict(conversation);
                assert!(!verdict.healthy && verdict.output.contains("refused"), "{verdict:?}");
            }
        }
    }
}
