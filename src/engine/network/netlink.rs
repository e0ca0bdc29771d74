//! A blocking netlink socket: requests out in one datagram, answers in (netlink(7)).
//!
//! It belongs to the network namespace of the thread that opened it. It knows nothing of what it carries; routing
//! and netfilter messages are built by `rtnetlink` and `netlink-packet-netfilter`.

use std::io;
use std::time::{Duration, Instant};

use netlink_packet_core::{
    ErrorBuffer, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_ALIGNTO, NLMSG_DONE, NLMSG_ERROR,
    NetlinkBuffer, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_sys::Socket;
use rustix::net::sockopt;

/// The kernel's dumps use at most 32 KiB a datagram (netlink_dump of af_netlink.c); acknowledgements are small.
const RECEIVE: usize = 64 << 10;

/// The kernel answers at once; who waits longer waits for an answer that was lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a dump is begun again that others' changes disturb.
const DUMP_PATIENCE: Duration = Duration::from_secs(3);

/// Pauses between tries of what others disturb, until it has been tried for `patience`. They grow, so that whoever starts a
/// hundred containers is waited for, and each is another one, so that two who disturb each other do not keep in step.
pub(super) struct Tries {
    end: Instant,
    pause: Duration,
}

impl Tries {
    const FIRST: Duration = Duration::from_micros(200);
    const LONGEST: Duration = Duration::from_millis(50);

    pub fn until(patience: Duration) -> Tries {
        // The thread's own number: whoever is disturbed by this process is another thread.
        let skew = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs() % 97;
        Tries { end: Instant::now() + patience, pause: Tries::FIRST + Duration::from_micros(skew.into()) }
    }

    /// Whether it is to be tried again; waits before.
    pub fn again(&mut self) -> bool {
        if Instant::now() >= self.end {
            return false;
        }
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(Tries::LONGEST);
        true
    }
}

pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
    /// What was received last.
    answer: Vec<u8>,
}

/// Requests that travel together. Each is acknowledged.
pub(super) struct Batch {
    bytes: Vec<u8>,
    first: u32,
    next: u32,
}

/// The messages of a dump, one behind the other as they came.
#[derive(Default)]
pub(super) struct Frames(Vec<u8>);

impl Netlink {
    /// A socket in the namespace of the calling thread.
    pub fn open(protocol: isize) -> io::Result<Netlink> {
        let socket = Socket::new(protocol)?;
        // Filters in dump requests are obeyed, not ignored (Linux 4.20). Only NETLINK_ROUTE knows the option.
        if protocol == netlink_sys::protocols::NETLINK_ROUTE {
            socket.set_netlink_get_strict_chk(true)?;
        }
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        Ok(Netlink { socket, sequence: 1, answer: Vec::with_capacity(RECEIVE) })
    }

    /// Room for batches and their acknowledgements beyond the host's limits; needs CAP_NET_ADMIN (socket(7)).
    pub fn widen(&self, bytes: usize) -> io::Result<()> {
        sockopt::set_socket_send_buffer_size_force(&self.socket, bytes)?;
        Ok(sockopt::set_socket_recv_buffer_size_force(&self.socket, bytes)?)
    }

    pub fn batch(&self) -> Batch {
        Batch { bytes: Vec::new(), first: self.sequence, next: self.sequence }
    }

    /// Sends the batch and waits until every request of it is acknowledged: the first refusal is the error. The answers to the
    /// requests behind it stay in the socket; they are skipped by whoever reads next.
    pub fn send(&mut self, batch: Batch) -> io::Result<()> {
        let Batch { bytes, first, next } = batch;
        self.sequence = next;
        self.socket.send(&bytes, 0)?;
        let mut open = next - first;
        while open > 0 {
            self.receive()?;
            for frame in frames(&self.answer) {
                let frame = frame?;
                if frame.sequence_number() < first || frame.message_type() != NLMSG_ERROR {
                    continue;
                }
                match refusal(&frame) {
                    Some(error) => return Err(error),
                    None => open -= 1,
                }
            }
        }
        Ok(())
    }

    /// Everything that a dump request lists: `kind` with the fixed header and attributes in `body`.
    pub fn dump(&mut self, kind: u16, body: &[u8]) -> io::Result<Frames> {
        let mut tries = Tries::until(DUMP_PATIENCE);
        loop {
            let sequence = self.request(kind, NLM_F_DUMP, body)?;
            match self.collect(sequence) {
                Ok(Some(frames)) => return Ok(frames),
                Ok(None) => {}
                Err(error) if is_disturbance(&error) => {}
                Err(error) => return Err(error),
            }
            if !tries.again() {
                let why = "it changed while it was read, again and again";
                return Err(io::Error::new(io::ErrorKind::Interrupted, why));
            }
        }
    }

    /// The one message that answers a request.
    pub fn get(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
        let sequence = self.request(kind, 0, body)?;
        loop {
            self.receive()?;
            for frame in frames(&self.answer) {
                let frame = frame?;
                if frame.sequence_number() != sequence {
                    continue;
                }
                return match frame.message_type() {
                    NLMSG_ERROR => Err(refusal(&frame).unwrap_or_else(|| malformed("an empty answer"))),
                    _ => Ok(frame.payload().to_vec()),
                };
            }
        }
    }

    /// Waits until the one request is acknowledged.
    pub fn command(&mut self, kind: u16, body: &[u8]) -> io::Result<()> {
        let sequence = self.request(kind, NLM_F_ACK, body)?;
        loop {
            self.receive()?;
            for frame in frames(&self.answer) {
                let frame = frame?;
                if frame.sequence_number() == sequence && frame.message_type() == NLMSG_ERROR {
                    return refusal(&frame).map_or(Ok(()), Err);
                }
            }
        }
    }

    fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<u32> {
        let sequence = self.sequence;
        self.sequence += 1;
        let mut bytes = vec![0; 16 + body.len()];
        let length = bytes.len();
        let mut header = NetlinkBuffer::new(&mut bytes);
        header.set_length(u32::try_from(length).map_err(io::Error::other)?);
        header.set_message_type(kind);
        header.set_flags(NLM_F_REQUEST | flags);
        header.set_sequence_number(sequence);
        bytes[16..].copy_from_slice(body);
        self.socket.send(&bytes, 0)?;
        Ok(sequence)
    }

    /// `None` when the kernel says that the list changed under the dump (NLM_F_DUMP_INTR).
    fn collect(&mut self, sequence: u32) -> io::Result<Option<Frames>> {
        let mut kept = Vec::new();
        let mut whole = true;
        loop {
            self.receive()?;
            for frame in frames(&self.answer) {
                let frame = frame?;
                if frame.sequence_number() != sequence {
                    continue;
                }
                whole &= frame.flags() & NLM_F_DUMP_INTR == 0;
                match frame.message_type() {
                    NLMSG_DONE => return ended(&frame).map_or(Ok(whole.then_some(Frames(kept))), Err),
                    NLMSG_ERROR => return Err(refusal(&frame).unwrap_or_else(|| malformed("an empty answer"))),
                    _ => kept.extend_from_slice(frame.into_inner()),
                }
            }
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        self.answer.clear();
        self.socket.recv(&mut self.answer, 0)?;
        Ok(())
    }
}

impl Batch {
    /// Adds a request; `flags` are those beside NLM_F_REQUEST and NLM_F_ACK.
    pub fn push<M: NetlinkSerializable>(&mut self, message: M, flags: u16) {
        let mut message = NetlinkMessage::new(Default::default(), NetlinkPayload::InnerMessage(message));
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        message.header.sequence_number = self.next;
        self.next += 1;
        self.write(message);
    }

    /// Adds a message that is not acknowledged: the brackets of a netfilter batch.
    pub fn push_silent<M: NetlinkSerializable>(&mut self, message: M) {
        let mut message = NetlinkMessage::new(Default::default(), NetlinkPayload::InnerMessage(message));
        message.header.flags = NLM_F_REQUEST;
        message.header.sequence_number = self.next;
        self.write(message);
    }

    fn write<M: NetlinkSerializable>(&mut self, mut message: NetlinkMessage<M>) {
        message.finalize();
        let start = self.bytes.len();
        self.bytes.resize(start + message.buffer_len().next_multiple_of(usize::from(NLMSG_ALIGNTO)), 0);
        message.serialize(&mut self.bytes[start..start + message.buffer_len()]);
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl Frames {
    /// Type and payload of each message.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &[u8])> {
        // Each was checked when it came in.
        frames(&self.0).flatten().map(|frame| (frame.message_type(), frame.payload()))
    }
}

/// One attribute, padded (rtnetlink(3)).
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Kind (without the flags NLA_F_NESTED and NLA_F_NET_BYTEORDER) and value of each attribute.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|nla| {
        let (header, length) = (nla.kind(), nla.value_length());
        let whole: &[u8] = nla.into_inner();
        (header, &whole[4..4 + length])
    })
}

fn frames(mut bytes: &[u8]) -> impl Iterator<Item = io::Result<NetlinkBuffer<&[u8]>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let frame = match NetlinkBuffer::new_checked(bytes) {
            Ok(frame) => frame,
            Err(error) => {
                bytes = &[];
                return Some(Err(io::Error::other(error)));
            }
        };
        let length = usize::try_from(frame.length()).unwrap_or(usize::MAX).next_multiple_of(4).min(bytes.len());
        let (this, rest) = bytes.split_at(length);
        bytes = rest;
        Some(Ok(NetlinkBuffer::new(this)))
    })
}

/// Why a dump ended in the middle, which its last message tells (netlink_dump_done of af_netlink.c).
fn ended(frame: &NetlinkBuffer<&[u8]>) -> Option<io::Error> {
    let code = i32::from_ne_bytes(frame.payload().get(..4)?.try_into().ok()?);
    (code < 0).then(|| io::Error::from_raw_os_error(code.saturating_neg()))
}

/// Whether others were in the way, and it is to be tried again.
fn is_disturbance(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EINTR))
}

/// The error of an NLMSG_ERROR; `None` when it is an acknowledgement.
fn refusal(frame: &NetlinkBuffer<&[u8]>) -> Option<io::Error> {
    match ErrorBuffer::new_checked(frame.payload()) {
        Ok(error) => error.code().map(|code| io::Error::from_raw_os_error(code.get().saturating_neg())),
        Err(error) => Some(io::Error::other(error)),
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
