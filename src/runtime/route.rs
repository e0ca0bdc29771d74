//! The little of rtnetlink(7) that moving a network device takes: links and addresses of one network namespace.
//!
//! # Decisions
//! * By hand, not by the library that the engine speaks netlink with: the runtime is started several times in a
//!   container's life, and what it does not link it need not load (see [`super::launch`]).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with};

/// The length of `struct nlmsghdr`, of `struct ifinfomsg` and of `struct ifaddrmsg`.
const HEADER: usize = 16;
const LINK: usize = 16;
const ADDRESS: usize = 8;

/// Messages and attributes begin at multiples of it.
const ALIGNMENT: usize = 4;

/// The kernel's dumps use at most 32 KiB a datagram.
const LARGEST: usize = 64 << 10;

/// The kernel answers at once; who waits longer waits for an answer that was lost.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// linux/if_addr.h. `libc` lacks some of the attributes and flags.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_PERMANENT: u32 = 0x80;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

/// A socket, which stays in the network namespace that it was opened in.
pub(super) struct Routes {
    socket: OwnedFd,
    sequence: u32,
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub index: i32,
    pub name: String,
    pub is_up: bool,
}

/// An address as it is given to a device: its family, the length of its prefix, and the attributes that make it what
/// it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    family: u8,
    prefix: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Routes {
    /// Opens one in the network namespace of this thread.
    pub(super) fn open() -> io::Result<Routes> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Routes { socket, sequence: 0 })
    }

    /// All devices.
    pub(super) fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.ask(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; LINK])?;
        Ok(answers.iter().filter_map(|body| link(body)).collect())
    }

    /// The addresses of a device that somebody has given to it for good and that are valid everywhere.
    pub(super) fn addresses(&mut self, device: i32) -> io::Result<Vec<Address>> {
        let answers = self.ask(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; ADDRESS])?;
        Ok(answers.iter().filter_map(|body| address(body, device)).collect())
    }

    /// Moves a device into another namespace under a name, in which `%d` stands for a number that is free there. The
    /// device is then down and has no addresses.
    pub(super) fn move_link(&mut self, device: i32, namespace: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        let mut body = link_header(device, 0);
        attribute(&mut body, libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        attribute(&mut body, libc::IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
        self.ask(libc::RTM_SETLINK, libc::NLM_F_ACK, &body).map(drop)
    }

    pub(super) fn add_address(&mut self, device: i32, address: &Address) -> io::Result<()> {
        let mut body = vec![address.family, address.prefix, 0, libc::RT_SCOPE_UNIVERSE];
        body.extend(device.to_ne_bytes());
        for (kind, value) in &address.attributes {
            attribute(&mut body, *kind, value);
        }
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.ask(libc::RTM_NEWADDR, flags, &body).map(drop)
    }

    pub(super) fn raise(&mut self, device: i32) -> io::Result<()> {
        let up = libc::IFF_UP as u32;
        self.ask(libc::RTM_SETLINK, libc::NLM_F_ACK, &link_header(device, up)).map(drop)
    }

    /// Sends one request and reads until its end: the bodies of the answers.
    fn ask(&mut self, kind: u16, flags: i32, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.sequence += 1;
        let mut request = Vec::with_capacity(HEADER + body.len());
        request.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend(((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend([0; 4]);
        request.extend(body);
        send(&self.socket, &request, SendFlags::empty())?;
        let mut answers = Vec::new();
        let mut datagram = vec![0; LARGEST];
        loop {
            let (received, _) = recv(&self.socket, datagram.as_mut_slice(), RecvFlags::empty())?;
            for message in pieces(&datagram[..received], HEADER, |head| number(head, 0).map(|n| n as usize)) {
                let sequence = number(message, 8);
                let kind = message.get(4..6).and_then(|two| two.try_into().ok()).map(u16::from_ne_bytes);
                match (sequence == Some(self.sequence), kind.map(i32::from)) {
                    (true, Some(libc::NLMSG_DONE)) => return Ok(answers),
                    (true, Some(libc::NLMSG_ERROR)) => match number(message, HEADER) {
                        Some(0) => return Ok(answers),
                        Some(errno) => return Err(io::Error::from_raw_os_error((errno as i32).wrapping_neg())),
                        None => return Err(io::ErrorKind::UnexpectedEof.into()),
                    },
                    (true, _) => answers.push(message[HEADER..].to_vec()),
                    (false, _) => {}
                }
            }
        }
    }
}

/// `struct ifinfomsg`: `up` is what IFF_UP is to be, where it is to change.
fn link_header(device: i32, up: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(device.to_ne_bytes());
    body.extend(up.to_ne_bytes());
    body.extend(up.to_ne_bytes());
    body
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(((ALIGNMENT + value.len()) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(ALIGNMENT), 0);
}

fn link(body: &[u8]) -> Option<Link> {
    let name = attributes(body.get(LINK..)?).find(|(kind, _)| *kind == libc::IFLA_IFNAME)?.1;
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    Some(Link {
        index: number(body, 4)? as i32,
        name: String::from_utf8_lossy(name).into_owned(),
        is_up: number(body, 8)? & libc::IFF_UP as u32 != 0,
    })
}

fn address(body: &[u8], device: i32) -> Option<Address> {
    let [family, prefix, short_flags, scope] = *body.first_chunk::<4>()?;
    if number(body, 4)? as i32 != device || scope != libc::RT_SCOPE_UNIVERSE {
        return None;
    }
    let all: Vec<(u16, &[u8])> = attributes(body.get(ADDRESS..)?).collect();
    let long_flags = all.iter().find(|(kind, _)| *kind == IFA_FLAGS).and_then(|(_, value)| number(value, 0));
    let flags = long_flags.unwrap_or(short_flags.into());
    if flags & IFA_F_PERMANENT == 0 {
        return None;
    }
    let is_kept = |kind: &u16| [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_RT_PRIORITY].contains(kind);
    let mut attributes: Vec<(u16, Vec<u8>)> =
        all.iter().filter(|(kind, _)| is_kept(kind)).map(|(kind, value)| (*kind, value.to_vec())).collect();
    let flags = flags & (IFA_F_NODAD | IFA_F_NOPREFIXROUTE);
    attributes.push((IFA_FLAGS, flags.to_ne_bytes().to_vec()));
    Some(Address { family, prefix, attributes })
}

/// `struct rtattr`: length and kind, then the value.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let short = |bytes: &[u8], at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    pieces(bytes, ALIGNMENT, move |head| short(head, 0).map(usize::from))
        .filter_map(move |piece| Some((short(piece, 2)?, &piece[ALIGNMENT..])))
}

/// What stands one behind the other, each with its length, which counts its head, in front. What is cut off is none.
fn pieces(mut bytes: &[u8], head: usize, length: impl Fn(&[u8]) -> Option<usize>) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = length(bytes).filter(|length| (head..=bytes.len()).contains(length))?;
        let piece = &bytes[..length];
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(piece)
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_read_back_as_they_were_written() {
        let mut body = Vec::new();
        attribute(&mut body, 3, b"lo\0");
        attribute(&mut body, 5, &[1, 2, 3, 4]);
        assert_eq!(body.len(), 16);
        let found: Vec<(u16, &[u8])> = attributes(&body).collect();
        assert_eq!(found, [(3, &b"lo\0"[..]), (5, &[1, 2, 3, 4])]);
    }

    #[test]
    fn lengths_that_lead_nowhere_end_the_list() {
        for bytes in [&[0, 0, 1, 0][..], &[3, 0, 1, 0], &[9, 0, 1, 0, 0, 0, 0, 0], &[4, 0], &[]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
    }

    #[test]
    fn every_namespace_has_a_loopback_link() {
        let links = Routes::open().unwrap().links().unwrap();
        assert!(links.iter().any(|link| (link.index, link.name.as_str()) == (1, "lo")), "{links:?}");
    }
}
