//! What others use of the host: the ports that are listened on, whether it is a router, and firewalls that drop what is
//! forwarded. Of its routes [`Outside`](super::observe::Outside) knows.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_SOCK_DIAG};

use crate::model::actual::Forwards;
use crate::model::port::{HostAddress, HostPort, Protocol};

use super::NetworkError;
use super::bridge::{FORWARD_V4, FORWARD_V6};
use super::netlink::{Netlink, attributes};
use super::sysctl;

/// The ports that sockets of this namespace listen on (TCP) or are bound to (UDP). By sock_diag(7), because reading
/// /proc/net/tcp walks the table of all connections.
pub fn listening_ports() -> Result<BTreeSet<HostPort>, NetworkError> {
    let mut ports = BTreeSet::new();
    let mut netlink = Netlink::open(NETLINK_SOCK_DIAG).map_err(NetworkError::Sockets)?;
    for (protocol, number, states) in
        [(Protocol::Tcp, libc::IPPROTO_TCP, TCP_LISTEN), (Protocol::Udp, libc::IPPROTO_UDP, TCP_CLOSE)]
    {
        for family in [libc::AF_INET, libc::AF_INET6] {
            // struct inet_diag_req_v2: family, protocol, extensions, padding, states, and an empty inet_diag_sockid.
            let mut body = [0; 56];
            (body[0], body[1]) = (family as u8, number as u8);
            body[4..8].copy_from_slice(&(1u32 << states).to_ne_bytes());
            let frames = match netlink.dump(SOCK_DIAG_BY_FAMILY, &body) {
                // A kernel without IPv6.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) && family == libc::AF_INET6 => continue,
                other => other.map_err(NetworkError::Sockets)?,
            };
            ports.extend(frames.iter().filter_map(|(_, payload)| listener(payload, protocol)));
        }
    }
    Ok(ports)
}

/// Whether this namespace is a router.
pub fn forwards() -> Forwards {
    let is_on = |key| sysctl::read(key).as_deref() == Some("1");
    Forwards { v4: is_on(FORWARD_V4), v6: is_on(FORWARD_V6) }
}

/// Base chains of nftables that drop by policy what this host would forward: those of Docker, ufw and firewalld, and of
/// iptables where it is one of nftables. What they accept is not looked into. Our own tables accept by policy.
pub fn forward_drops() -> Result<BTreeSet<String>, NetworkError> {
    let failed = |source| NetworkError::Look { place: "the host's firewall".to_owned(), source };
    let mut netlink = Netlink::open(NETLINK_NETFILTER).map_err(failed)?;
    // struct nfgenmsg: every family, version 0, no resource.
    match netlink.dump(GETCHAIN, &[0; 4]) {
        Ok(chains) => Ok(chains.iter().filter_map(|(_, chain)| dropping_chain(chain)).collect()),
        // A kernel without nftables has no chains; setting our own will tell.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(BTreeSet::new()),
        Err(error) => Err(failed(error)),
    }
}

/// linux/netfilter/nf_tables.h: NFT_MSG_GETCHAIN of the subsystem, attributes of chains and of their hooks.
const GETCHAIN: u16 = 10 << 8 | 4;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
/// linux/netfilter.h: enum nf_inet_hooks, verdicts, families.
const HOOK_FORWARD: u32 = 2;
const DROP: u32 = 0;

/// `FAMILY TABLE CHAIN` of a chain at the forward hook of IPv4, IPv6 or both, whose policy is to drop.
fn dropping_chain(message: &[u8]) -> Option<String> {
    let (header, rest) = message.split_at_checked(4)?;
    let family = match header[0] {
        1 => "inet",
        2 => "ip",
        10 => "ip6",
        _ => return None,
    };
    let find = |bytes, wanted| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_be_bytes);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let hook = number(find(find(rest, CHAIN_HOOK)?, HOOK_NUMBER)?)?;
    let policy = number(find(rest, CHAIN_POLICY)?)?;
    let (table, chain) = (text(find(rest, CHAIN_TABLE)?), text(find(rest, CHAIN_NAME)?));
    (hook == HOOK_FORWARD && policy == DROP).then(|| format!("{family} {table} {chain}"))
}

/// linux/sock_diag.h; the states are those of net/tcp_states.h, which UDP borrows.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;
/// linux/inet_diag.h.
const INET_DIAG_SKV6ONLY: u16 = 11;

/// struct inet_diag_msg: family, state, timer, retransmits; source port, destination port, source address, ..
fn listener(payload: &[u8], protocol: Protocol) -> Option<HostPort> {
    let (header, rest) = payload.split_at_checked(72)?;
    let port = u16::from_be_bytes([header[4], header[5]]);
    let address: [u8; 16] = header[8..24].try_into().ok()?;
    let only_v6 = attributes(rest).any(|(kind, value)| kind == INET_DIAG_SKV6ONLY && value.first() == Some(&1));
    let address = match i32::from(header[0]) {
        libc::AF_INET => HostAddress::One(Ipv4Addr::new(address[0], address[1], address[2], address[3]).into()),
        // One socket for both families.
        _ if Ipv6Addr::from(address).is_unspecified() && !only_v6 => HostAddress::Any,
        _ => match Ipv6Addr::from(address).to_ipv4_mapped() {
            Some(v4) => HostAddress::One(v4.into()),
            None => HostAddress::One(Ipv6Addr::from(address).into()),
        },
    };
    (port > 0).then_some(HostPort { address, port, protocol })
}
