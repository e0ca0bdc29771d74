//! The links, addresses and routes of one network namespace, as far as they are compared with records.
//!
//! Read with one dump each (rtnetlink(7)). Only the attributes that are compared are decoded: a link has some sixty
//! others, and a check of a host reads hundreds of links.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{parse_ip, parse_string, parse_u32};

use super::netlink::{Netlink, attribute, attributes};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub index: u32,
    pub is_up: bool,
    /// It carries packets: up, its other end too, and the kernel has noticed (RFC 2863).
    pub is_operational: bool,
    pub mtu: u32,
    /// The index of the bridge that it is a port of; 0 without one.
    pub controller: u32,
    /// A frame may leave by the port that it came in by (hairpin mode).
    pub returns_to_sender: bool,
    /// The other end of a veth, as an index in the other's namespace.
    pub peer: u32,
    pub kind: String,
    pub hardware: Vec<u8>,
}

/// A route with its destination and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub destination: Option<IpAddr>,
    pub prefix: u8,
    pub gateway: Option<IpAddr>,
    pub link: u32,
    /// Looks as the engine makes one: in the main table, static, and of no metric. What a container made for itself in another
    /// table or with a metric is its own affair.
    pub is_plain: bool,
}

#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub links: BTreeMap<String, Link>,
    /// Index of the link, address, length of its prefix.
    pub addresses: Vec<(u32, IpAddr, u8)>,
    pub routes: Vec<Route>,
}

/// Which addresses and routes are of interest. Those of both families take the kernel a third longer than those of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Families {
    V4,
    Both,
}

impl Families {
    /// What a dump is asked for; without a family the kernel lists all.
    fn number(self) -> u8 {
        match self {
            Families::V4 => INET,
            Families::Both => libc::AF_UNSPEC as u8,
        }
    }
}

/// Address families of routes (socket(2)).
const INET: u8 = libc::AF_INET as u8;
const INET6: u8 = libc::AF_INET6 as u8;

impl Snapshot {
    /// All links and addresses.
    pub fn of_links(netlink: &mut Netlink) -> io::Result<Snapshot> {
        Ok(Snapshot { links: links(netlink)?, addresses: addresses(netlink, Families::Both)?, routes: Vec::new() })
    }

    /// All links, and the addresses and routes of the main table of these families.
    pub fn of_everything(netlink: &mut Netlink, families: Families) -> io::Result<Snapshot> {
        let (routes, addresses) = (routes(netlink, families)?, addresses(netlink, families)?);
        Ok(Snapshot { links: links(netlink)?, addresses, routes })
    }

    /// These links, as far as they are there, without addresses: what one attachment needs of a host that has
    /// hundreds of them.
    pub fn of_named(netlink: &mut Netlink, names: &[&str]) -> io::Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        for name in names {
            let mut body = vec![0; 16];
            body.extend(attribute(libc::IFLA_IFNAME, &[name.as_bytes(), &[0]].concat()));
            body.extend(attribute(libc::IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes()));
            match netlink.get(libc::RTM_GETLINK, &body) {
                Ok(answer) => snapshot.links.extend(link(&answer)),
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(snapshot)
    }

    pub fn has_address(&self, link: u32, address: IpAddr, prefix: u8) -> bool {
        self.addresses.contains(&(link, address, prefix))
    }

    /// Whether the default route of this family leads through `gateway`.
    pub fn has_gateway(&self, link: u32, gateway: IpAddr) -> bool {
        self.default_routes(link, gateway).next().is_some()
    }

    /// Whether the engine may have made one that does.
    pub fn has_plain_gateway(&self, link: u32, gateway: IpAddr) -> bool {
        self.default_routes(link, gateway).any(|route| route.is_plain)
    }

    fn default_routes(&self, link: u32, gateway: IpAddr) -> impl Iterator<Item = &Route> {
        self.routes
            .iter()
            .filter(move |route| route.prefix == 0 && route.link == link && route.gateway == Some(gateway))
    }
}

fn links(netlink: &mut Netlink) -> io::Result<BTreeMap<String, Link>> {
    // struct ifinfomsg, all zero, and IFLA_EXT_MASK: without the statistics, which are most of a link's message.
    let mut body = vec![0; 16];
    body.extend_from_slice(&attribute(libc::IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes()));
    let frames = netlink.dump(libc::RTM_GETLINK, &body)?;
    Ok(frames.iter().filter_map(|(_, payload)| link(payload)).collect())
}

/// linux/rtnetlink.h.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

/// linux/if_link.h.
const IFLA_BRPORT_MODE: u16 = 4;
/// linux/if.h.
const IF_OPER_UP: u8 = 6;

fn link(payload: &[u8]) -> Option<(String, Link)> {
    let (header, rest) = payload.split_at_checked(16)?;
    let mut link = Link {
        index: parse_u32(&header[4..8]).ok()?,
        is_up: parse_u32(&header[8..12]).ok()? & libc::IFF_UP as u32 != 0,
        ..Link::default()
    };
    let mut name = None;
    for (kind, value) in attributes(rest) {
        match kind {
            libc::IFLA_IFNAME => name = parse_string(value).ok(),
            libc::IFLA_OPERSTATE => link.is_operational = value == [IF_OPER_UP],
            libc::IFLA_MTU => link.mtu = parse_u32(value).ok()?,
            libc::IFLA_MASTER => link.controller = parse_u32(value).ok()?,
            libc::IFLA_LINK => link.peer = parse_u32(value).ok()?,
            libc::IFLA_ADDRESS => link.hardware = value.to_vec(),
            libc::IFLA_LINKINFO => {
                let within = |wanted| attributes(value).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
                let kind = within(libc::IFLA_INFO_KIND).and_then(|name| parse_string(name).ok());
                link.kind = kind.unwrap_or_default();
                let port = within(libc::IFLA_INFO_SLAVE_DATA).unwrap_or_default();
                link.returns_to_sender = attributes(port).any(|(kind, on)| kind == IFLA_BRPORT_MODE && on == [1]);
            }
            _ => {}
        }
    }
    Some((name?, link))
}

fn addresses(netlink: &mut Netlink, families: Families) -> io::Result<Vec<(u32, IpAddr, u8)>> {
    // struct ifaddrmsg: family, prefixlen, flags, scope, index.
    let mut body = [0; 8];
    body[0] = families.number();
    let frames = netlink.dump(libc::RTM_GETADDR, &body)?;
    Ok(frames.iter().filter_map(|(_, payload)| address(payload)).collect())
}

fn address(payload: &[u8]) -> Option<(u32, IpAddr, u8)> {
    let (header, rest) = payload.split_at_checked(8)?;
    // IFA_LOCAL is the own address where there is a peer; IPv6 without one has IFA_ADDRESS only.
    let value = |wanted| attributes(rest).find(|(kind, _)| *kind == wanted).and_then(|(_, value)| parse_ip(value).ok());
    let own = value(libc::IFA_LOCAL).or_else(|| value(libc::IFA_ADDRESS))?;
    Some((parse_u32(&header[4..8]).ok()?, own, header[1]))
}

/// The unicast routes of the main table.
fn routes(netlink: &mut Netlink, families: Families) -> io::Result<Vec<Route>> {
    // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
    let mut body = [0; 12];
    (body[0], body[4]) = (families.number(), libc::RT_TABLE_MAIN);
    let frames = netlink.dump(libc::RTM_GETROUTE, &body)?;
    Ok(frames.iter().filter_map(|(_, payload)| route(payload)).collect())
}

/// What the kernel gives a route that was made without one: for IPv6 IP6_RT_PRIO_USER (linux/ipv6_route.h).
fn usual_metric(family: u8) -> u32 {
    if family == INET6 { 1024 } else { 0 }
}

fn route(payload: &[u8]) -> Option<Route> {
    let (header, rest) = payload.split_at_checked(12)?;
    if !matches!(header[0], INET | INET6) || header[7] != libc::RTN_UNICAST {
        return None;
    }
    // A table whose number needs more than a byte is RT_TABLE_COMPAT here, and a dump has those of every table.
    let is_plain = header[4] == libc::RT_TABLE_MAIN && header[5] == libc::RTPROT_STATIC;
    let mut route = Route { destination: None, prefix: header[1], gateway: None, link: 0, is_plain };
    for (kind, value) in attributes(rest) {
        match kind {
            libc::RTA_DST => route.destination = parse_ip(value).ok(),
            libc::RTA_GATEWAY => route.gateway = parse_ip(value).ok(),
            libc::RTA_OIF => route.link = parse_u32(value).ok()?,
            libc::RTA_PRIORITY => route.is_plain &= parse_u32(value).ok()? == usual_metric(header[0]),
            _ => {}
        }
    }
    Some(route)
}
