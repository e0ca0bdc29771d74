//! What packets meet: the rules that follow from a ruleset.
//!
//! As nft(8) would write them, `BRIDGES` being all our bridges and `INTERNAL` those of internal networks:
//!
//! ```text
//! chain guard        raw prerouting    iifname BRIDGES ip daddr 127.0.0.0/8 drop; the same for ip saddr
//! chain prerouting   dstnat            ip daddr 127.0.0.0/8 return; fib daddr type local jump publish
//! chain output       dstnat            ip6 daddr ::1 return;        fib daddr type local jump publish
//! chain publish                        dnat to ADDRESS . PORT, by maps of (daddr .) l4proto . dport
//! chain input        filter            iifname INTERNAL: established, ICMP accept, the rest drop
//! chain forward      filter            iifname . oifname of one bridge accept
//!                                      iifname INTERNAL drop; oifname INTERNAL drop
//!                                      oifname BRIDGES: established accept, dnat accept, the rest drop
//! chain postrouting  srcnat            oifname BRIDGES ip saddr 127.0.0.0/8 masquerade
//!                                      ip saddr SUBNET ct status dnat oifname BRIDGE masquerade
//!                                      ip saddr SUBNET oifname != BRIDGE masquerade
//! ```
//!
//! - Every chain's policy is accept and every verdict is for packets from or to our bridges only: other tables are not
//!   disturbed. They may drop what we accept, as nftables works.
//! - A container's ports that are not published are reached by its networks and by the host, by nobody else: not by
//!   the outside, not by other networks. Published ones are reached by every network that is not internal.
//! - A packet to 127.0.0.1 reaches a container by `route_localnet` of its bridge alone. What comes in by a bridge with
//!   a loopback address is dropped before anything else sees it, and what comes in from elsewhere is not published
//!   (CVE-2020-8558). IPv6 has no such setting: a port on every address is not reached by `::1`.
//! - An internal network's containers reach each other and nothing else: they are not forwarded, and of the host they
//!   reach ICMP (IPv6 needs it to find neighbours) and answers.
//! - A connection that comes back to the bridge it came from is masqueraded, or the answer would go to the asker
//!   directly, from an address that it did not ask.
//! - Where a port has several targets, `numgen random` chooses one when the connection begins.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_netfilter::nftables::InetHookNumber;

use crate::model::firewall::{NetworkRules, PortTargets, Ruleset};
use crate::model::id::RootTag;
use crate::model::network::{Subnet, bridge_name};
use crate::model::port::{HostAddress, HostPort, Protocol};

use super::expression::{self as say, Expression, Family, Side};
use super::record;
use super::table::{Chain, DIGEST, Element, Hook, Kind, RECORD, Set, Table};

/// Names of sets of links.
const BRIDGES: &str = "bridges";
const INTERNAL: &str = "internal";
const SAME: &str = "same_bridge";

const PUBLISH: &str = "publish";

/// Netfilter's own priorities (linux/netfilter_ipv4.h).
const RAW: i32 = -300;
const DESTINATION_NAT: i32 = -100;
const FILTER: i32 = 0;
const SOURCE_NAT: i32 = 100;

pub(super) fn table(tag: &RootTag, ruleset: &Ruleset) -> io::Result<Table> {
    let Ruleset { networks, ports } = ruleset;
    let bridges: Vec<(String, &NetworkRules)> =
        networks.iter().map(|(id, rules)| (bridge_name(tag, id), rules)).collect();
    let published = Published::of(ports);
    let mut sets = link_sets(&bridges);
    let note =
        |(number, note): (u32, Vec<u8>)| Element { key: number.to_be_bytes().to_vec(), note, ..Element::default() };
    sets.push(Set {
        name: RECORD.to_owned(),
        key: &[Kind::Number],
        value: &[],
        elements: (0..).zip(record::write(ruleset)?).map(note).collect(),
    });
    sets.push(Set { name: DIGEST.to_owned(), key: &[Kind::Number], value: &[], elements: Vec::new() });
    let chains = vec![
        Chain { name: "guard", hook: hook("filter", InetHookNumber::PreRouting, RAW), rules: guard() },
        Chain { name: PUBLISH, hook: None, rules: published.rules() },
        Chain {
            name: "prerouting",
            hook: hook("nat", InetHookNumber::PreRouting, DESTINATION_NAT),
            rules: vec![from_loopback(Side::Destination, say::leave_chain()), publish()],
        },
        Chain {
            name: "output",
            hook: hook("nat", InetHookNumber::LocalOut, DESTINATION_NAT),
            rules: vec![to_ipv6_loopback(say::leave_chain()), publish()],
        },
        Chain { name: "input", hook: hook("filter", InetHookNumber::LocalIn, FILTER), rules: input() },
        Chain { name: "forward", hook: hook("filter", InetHookNumber::Forward, FILTER), rules: forward() },
        Chain {
            name: "postrouting",
            hook: hook("nat", InetHookNumber::PostRouting, SOURCE_NAT),
            rules: postrouting(&bridges),
        },
    ];
    sets.extend(published.maps.into_values());
    Ok(Table { sets, chains })
}

fn hook(kind: &'static str, place: InetHookNumber, priority: i32) -> Option<Hook> {
    Some(Hook { kind, place, priority })
}

/// A rule of words and a last word.
fn rule<const N: usize>(words: [Vec<Expression>; N], end: Expression) -> Vec<Expression> {
    words.into_iter().flatten().chain([end]).collect()
}

fn link_sets(bridges: &[(String, &NetworkRules)]) -> Vec<Set> {
    let element = |name: &String| Element { key: say::link_name(name), ..Element::default() };
    let all = bridges.iter().map(|(name, _)| element(name)).collect();
    let internal = bridges.iter().filter(|(_, rules)| rules.internal).map(|(name, _)| element(name)).collect();
    let twice = |(name, _): &(String, _)| Element { key: say::link_name(name).repeat(2), ..Element::default() };
    vec![
        Set { name: BRIDGES.to_owned(), key: &[Kind::Link], value: &[], elements: all },
        Set { name: INTERNAL.to_owned(), key: &[Kind::Link], value: &[], elements: internal },
        Set {
            name: SAME.to_owned(),
            key: &[Kind::Link, Kind::Link],
            value: &[],
            elements: bridges.iter().map(twice).collect(),
        },
    ]
}

/// `ip saddr 127.0.0.0/8` or `ip daddr ..`, and what to do then.
fn from_loopback(side: Side, end: Expression) -> Vec<Expression> {
    let within = say::is_within(Family::V4, side, &[127, 0, 0, 0], 8);
    rule([say::is_family(Family::V4).into(), within], end)
}

fn to_ipv6_loopback(end: Expression) -> Vec<Expression> {
    let loopback = std::net::Ipv6Addr::LOCALHOST.octets();
    let within = say::is_within(Family::V6, Side::Destination, &loopback, 128);
    rule([say::is_family(Family::V6).into(), within], end)
}

fn publish() -> Vec<Expression> {
    rule([say::is_for_this_host().into()], say::jump(PUBLISH))
}

fn guard() -> Vec<Vec<Expression>> {
    let from_bridge = |side| [say::came_by(BRIDGES).into(), from_loopback(side, say::drop())].concat();
    vec![from_bridge(Side::Destination), from_bridge(Side::Source)]
}

fn input() -> Vec<Vec<Expression>> {
    let internal = || Vec::from(say::came_by(INTERNAL));
    vec![
        rule([internal(), say::is_known_connection().into()], say::accept()),
        rule([internal(), say::is_protocol(libc::IPPROTO_ICMP).into()], say::accept()),
        rule([internal(), say::is_protocol(libc::IPPROTO_ICMPV6).into()], say::accept()),
        rule([internal()], say::drop()),
    ]
}

fn forward() -> Vec<Vec<Expression>> {
    let inward = || Vec::from(say::leaves_by_one_of(BRIDGES));
    vec![
        // Seen here only where the module br_netfilter shows bridged packets to the firewall.
        rule([say::passes_by(SAME).into()], say::accept()),
        rule([say::came_by(INTERNAL).into()], say::drop()),
        rule([say::leaves_by_one_of(INTERNAL).into()], say::drop()),
        rule([inward(), say::is_known_connection().into()], say::accept()),
        rule([inward(), say::was_redirected().into()], say::accept()),
        rule([inward()], say::drop()),
    ]
}

fn postrouting(bridges: &[(String, &NetworkRules)]) -> Vec<Vec<Expression>> {
    let mut rules =
        vec![[say::leaves_by_one_of(BRIDGES).into(), from_loopback(Side::Source, say::masquerade())].concat()];
    for (bridge, NetworkRules { subnet, subnet6, internal }) in bridges {
        if *internal {
            continue;
        }
        for subnet in std::iter::once(subnet).chain(subnet6) {
            let back = [&say::leaves_by(bridge)[..], &say::was_redirected()[..]].concat();
            rules.push(rule([from_subnet(subnet), back], say::masquerade()));
            rules.push(rule([from_subnet(subnet), say::leaves_not_by(bridge).into()], say::masquerade()));
        }
    }
    rules
}

fn from_subnet(subnet: &Subnet) -> Vec<Expression> {
    let (family, bytes) = bytes_of(subnet.address());
    let mut words = Vec::from(say::is_family(family));
    words.extend(say::is_within(family, Side::Source, &bytes, subnet.prefix()));
    words
}

fn bytes_of(address: IpAddr) -> (Family, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (Family::V4, v4.octets().to_vec()),
        IpAddr::V6(v6) => (Family::V6, v6.octets().to_vec()),
    }
}

/// The maps of published ports. One for each way in which a packet is looked up: by which family, whether by its
/// address too, and among how many targets.
struct Published {
    maps: BTreeMap<Way, Set>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    is_ipv4: bool,
    /// Ports of one address come before ports of every address.
    by: By,
    targets: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    Address,
    Port,
}

impl Published {
    fn of(ports: &BTreeMap<HostPort, PortTargets>) -> Published {
        let mut maps = BTreeMap::new();
        for (host, PortTargets { v4, v6 }) in ports {
            let v4: BTreeSet<SocketAddr> = v4.iter().copied().map(SocketAddr::from).collect();
            let v6: BTreeSet<SocketAddr> = v6.iter().copied().map(SocketAddr::from).collect();
            for (is_ipv4, targets) in [(true, v4), (false, v6)] {
                let address = match host.address {
                    HostAddress::Any => None,
                    HostAddress::One(one) if one.is_ipv4() != is_ipv4 => continue,
                    HostAddress::One(one) => Some(one).filter(|one| !one.is_unspecified()),
                };
                let Ok(count) = u32::try_from(targets.len()) else { continue };
                if count == 0 {
                    continue;
                }
                let way = Way { is_ipv4, by: address.map_or(By::Port, |_| By::Address), targets: count };
                let map: &mut Set = maps.entry(way).or_insert_with(|| way.map());
                let elements =
                    (0..).zip(&targets).map(|(number, target)| element(host, address, (count, number), *target));
                map.elements.extend(elements);
            }
        }
        Published { maps }
    }

    fn rules(&self) -> Vec<Vec<Expression>> {
        self.maps.iter().map(|(way, map)| way.rule(&map.name)).collect()
    }
}

impl Way {
    fn family(self) -> Family {
        if self.is_ipv4 { Family::V4 } else { Family::V6 }
    }

    fn map(self) -> Set {
        use Kind::{Number, Port, Protocol, V4, V6};
        let key: &[Kind] = match (self.by, self.is_ipv4, self.targets > 1) {
            (By::Port, _, false) => &[Protocol, Port],
            (By::Port, _, true) => &[Protocol, Port, Number],
            (By::Address, true, false) => &[V4, Protocol, Port],
            (By::Address, true, true) => &[V4, Protocol, Port, Number],
            (By::Address, false, false) => &[V6, Protocol, Port],
            (By::Address, false, true) => &[V6, Protocol, Port, Number],
        };
        let value: &[Kind] = if self.is_ipv4 { &[V4, Port] } else { &[V6, Port] };
        let by = match self.by {
            By::Address => "address",
            By::Port => "port",
        };
        let family = if self.is_ipv4 { "4" } else { "6" };
        let name = format!("published{family}_by_{by}_{}", self.targets);
        Set { name, key, value, elements: Vec::new() }
    }

    /// `dnat ip to ip daddr . meta l4proto . th dport . numgen random mod N map @MAP`.
    fn rule(self, map: &str) -> Vec<Expression> {
        let family = self.family();
        let mut words = Vec::from(say::is_family(family));
        let mut next = 0;
        if self.by == By::Address {
            words.push(say::load_address(family, Side::Destination, next));
            next += family.registers();
        }
        words.extend(say::load_protocol_and_port(next));
        if self.targets > 1 {
            words.push(say::load_random(self.targets, next + 2));
        }
        words.extend([say::look_up(map), say::redirect(family)]);
        words
    }
}

/// One target of a port; `choice` is the number of targets and which of them this is.
fn element(host: &HostPort, address: Option<IpAddr>, choice: (u32, u32), target: SocketAddr) -> Element {
    let protocol = match host.protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
    };
    let mut key = address.map(|address| bytes_of(address).1).unwrap_or_default();
    // Each part of a concatenation is padded to four bytes.
    key.extend([protocol as u8, 0, 0, 0]);
    key.extend(host.port.to_be_bytes());
    key.extend([0, 0]);
    if let (2.., number) = choice {
        // numgen writes its number in the order of the host.
        key.extend(number.to_ne_bytes());
    }
    let mut value = bytes_of(target.ip()).1;
    value.extend(target.port().to_be_bytes());
    value.extend([0, 0]);
    Element { key, value, ..Element::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of the maps with the number of their elements, in the order in which a packet is looked up.
    fn maps(ports: &[(&str, &[&str])]) -> Vec<(String, usize)> {
        let mut published = BTreeMap::new();
        for (host, targets) in ports {
            let entry: &mut PortTargets = published.entry(host.parse().unwrap()).or_default();
            for target in *targets {
                match target.parse().unwrap() {
                    SocketAddr::V4(v4) => drop(entry.v4.insert(v4)),
                    SocketAddr::V6(v6) => drop(entry.v6.insert(v6)),
                }
            }
        }
        Published::of(&published).maps.into_values().map(|map| (map.name, map.elements.len())).collect()
    }

    #[test]
    fn ports_of_one_way_share_a_map() {
        let found =
            maps(&[("*:80", &["10.0.0.2:80"]), ("*:81/udp", &["10.0.0.2:80"]), ("0.0.0.0:82", &["10.0.0.3:1"])]);
        assert_eq!(found, [("published4_by_port_1".to_owned(), 3)]);
    }

    #[test]
    fn a_port_on_one_address_comes_before_one_on_every_address() {
        let found =
            maps(&[("*:80", &["10.0.0.2:80", "[fd00::2]:80"]), ("127.0.0.1:81", &["10.0.0.2:80", "10.0.0.3:80"])]);
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["published6_by_port_1", "published4_by_address_2", "published4_by_port_1"]);
    }

    #[test]
    fn an_address_of_one_family_publishes_no_target_of_the_other() {
        assert_eq!(maps(&[("127.0.0.1:80", &["[fd00::2]:80"]), ("[::1]:80", &["10.0.0.2:80"])]), []);
    }

    #[test]
    fn parts_of_a_key_are_padded_to_four_bytes() {
        let target = "10.0.0.2:8080".parse().unwrap();
        let address = Some("192.0.2.1".parse().unwrap());
        let element = element(&"192.0.2.1:53/udp".parse().unwrap(), address, (2, 1), target);
        let one = 1u32.to_ne_bytes();
        assert_eq!(element.key, [&[192, 0, 2, 1, 17, 0, 0, 0, 0, 53, 0, 0][..], &one].concat());
        assert_eq!(element.value, [10, 0, 0, 2, 0x1f, 0x90, 0, 0]);
    }

    #[test]
    fn an_internal_network_is_not_masqueraded() {
        let network = |internal| NetworkRules { subnet: "10.0.0.0/24".parse().unwrap(), subnet6: None, internal };
        assert_eq!(postrouting(&[("ekb".to_owned(), &network(true))]).len(), 1);
        assert_eq!(postrouting(&[("ekb".to_owned(), &network(false))]).len(), 3);
    }
}
