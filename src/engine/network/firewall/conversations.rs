//! Forgets UDP conversations that the rules would send elsewhere now.
//!
//! The kernel decides once for each connection where it goes. A TCP connection to a container that went ends by
//! itself; a UDP client that goes on sending (syslog, a resolver, a game) keeps its conversation alive, and with it the
//! address of a container that is no more. The same holds for one that was sending before its port was published. So
//! when the rules have changed, those conversations are deleted from connection tracking, and the next packet meets
//! the new rules. A crash in between leaves them; they end when the client pauses.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{parse_ip, parse_u16_be};

use super::super::netlink::{Netlink, attribute, attributes};
use crate::model::firewall::{PortTargets, Ruleset};
use crate::model::port::{HostAddress, HostPort, Protocol};

/// What changed for UDP from one ruleset to the next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stale {
    /// Where some port led, and does not any more.
    lost: BTreeSet<SocketAddr>,
    /// Ports that were not published.
    fresh: Vec<HostPort>,
}

/// One conversation: where the first packet was sent, and who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Conversation {
    sent_to: SocketAddr,
    answered_by: SocketAddr,
}

impl Stale {
    pub fn between(old: &Ruleset, new: &Ruleset) -> Stale {
        let is_udp = |(host, _): &(&HostPort, &PortTargets)| host.protocol == Protocol::Udp;
        let mut stale = Stale::default();
        for (host, targets) in old.ports.iter().filter(is_udp) {
            let kept = new.ports.get(host).map(all).unwrap_or_default();
            stale.lost.extend(all(targets).difference(&kept));
        }
        let fresh = new.ports.iter().filter(is_udp).filter(|(host, _)| !old.ports.contains_key(host));
        stale.fresh.extend(fresh.map(|(host, _)| *host));
        stale
    }

    fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.fresh.is_empty()
    }

    /// `own` are the addresses of the host.
    fn concerns(&self, conversation: Conversation, own: &BTreeSet<IpAddr>) -> bool {
        let Conversation { sent_to, answered_by } = conversation;
        match sent_to == answered_by {
            false => self.lost.contains(&answered_by),
            true => self.fresh.iter().any(|host| {
                host.port == sent_to.port()
                    && match host.address {
                        HostAddress::One(one) if !one.is_unspecified() => one == sent_to.ip(),
                        HostAddress::One(_) | HostAddress::Any => own.contains(&sent_to.ip()),
                    }
            }),
        }
    }
}

fn all(targets: &PortTargets) -> BTreeSet<SocketAddr> {
    let v4 = targets.v4.iter().copied().map(SocketAddr::from);
    v4.chain(targets.v6.iter().copied().map(SocketAddr::from)).collect()
}

/// linux/netfilter/nfnetlink_conntrack.h.
const CONNTRACK: u16 = 1 << 8;
const GET: u16 = CONNTRACK | 1;
const DELETE: u16 = CONNTRACK | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const IDENTIFIER: u16 = 12;
const ZONE: u16 = 18;

/// Deletes every conversation that `stale` concerns.
pub(super) fn forget(
    netlink: &mut Netlink,
    stale: &Stale,
    own: impl FnOnce() -> io::Result<BTreeSet<IpAddr>>,
) -> io::Result<()> {
    if stale.is_empty() {
        return Ok(());
    }
    let own = own()?;
    let entries = match netlink.dump(GET, &[0; 4]) {
        // A kernel that does not list its connections.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => return Ok(()),
        other => other?,
    };
    for (_, entry) in entries.iter() {
        let Some((header, rest)) = entry.split_at_checked(4) else { continue };
        if !conversation(rest).is_some_and(|conversation| stale.concerns(conversation, &own)) {
            continue;
        }
        let mut request = header.to_vec();
        let kept = attributes(rest).filter(|(kind, _)| matches!(*kind, TUPLE_ORIGINAL | IDENTIFIER | ZONE));
        request.extend(kept.flat_map(|(kind, value)| match kind {
            TUPLE_ORIGINAL => attribute(kind | NESTED, value),
            _ => attribute(kind, value),
        }));
        match netlink.command(DELETE, &request) {
            // It ended by itself.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            other => other?,
        }
    }
    Ok(())
}

const NESTED: u16 = netlink_packet_core::NLA_F_NESTED;

/// `None` for what is not UDP.
fn conversation(entry: &[u8]) -> Option<Conversation> {
    let tuple = |wanted| attributes(entry).find(|(kind, _)| *kind == wanted).map(|(_, tuple)| tuple);
    let (_, sent_to) = ends(tuple(TUPLE_ORIGINAL)?)?;
    let (answered_by, _) = ends(tuple(TUPLE_REPLY)?)?;
    Some(Conversation { sent_to, answered_by })
}

/// Source and destination of a tuple of UDP.
fn ends(tuple: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let part = |wanted| attributes(tuple).find(|(kind, _)| *kind == wanted).map(|(_, part)| part);
    // CTA_TUPLE_IP: CTA_IP_V4_SRC and _DST are 1 and 2, CTA_IP_V6_SRC and _DST are 3 and 4.
    let addresses: Vec<IpAddr> = attributes(part(1)?).filter_map(|(_, value)| parse_ip(value).ok()).collect();
    // CTA_TUPLE_PROTO: CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT.
    let protocol: Vec<&[u8]> = attributes(part(2)?).map(|(_, value)| value).collect();
    match (&addresses[..], &protocol[..]) {
        ([source, destination], [[number], from, to]) if i32::from(*number) == libc::IPPROTO_UDP => Some((
            SocketAddr::new(*source, parse_u16_be(from).ok()?),
            SocketAddr::new(*destination, parse_u16_be(to).ok()?),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruleset(ports: &[(&str, &str)]) -> Ruleset {
        let mut ruleset = Ruleset::default();
        for (host, target) in ports {
            ruleset.ports.entry(host.parse().unwrap()).or_default().v4.insert(target.parse().unwrap());
        }
        ruleset
    }

    fn concerned(stale: &Stale, sent_to: &str, answered_by: &str) -> bool {
        let conversation =
            Conversation { sent_to: sent_to.parse().unwrap(), answered_by: answered_by.parse().unwrap() };
        stale.concerns(conversation, &BTreeSet::from(["192.0.2.1".parse().unwrap()]))
    }

    #[test]
    fn conversations_with_a_target_that_was_lost_are_stale_and_those_with_one_that_stays_are_not() {
        let old = ruleset(&[("*:53/udp", "10.0.0.2:53"), ("*:53/udp", "10.0.0.3:53"), ("*:80", "10.0.0.2:80")]);
        let stale = Stale::between(&old, &ruleset(&[("*:53/udp", "10.0.0.3:53")]));
        assert!(concerned(&stale, "192.0.2.1:53", "10.0.0.2:53"));
        assert!(!concerned(&stale, "192.0.2.1:53", "10.0.0.3:53"));
        assert!(!concerned(&stale, "10.0.0.2:53", "10.0.0.2:53"), "directly, not by the port");
        assert!(!concerned(&stale, "192.0.2.1:80", "10.0.0.2:80"), "TCP");
    }

    #[test]
    fn conversations_with_the_host_are_stale_when_their_port_is_published() {
        let stale = Stale::between(&Ruleset::default(), &ruleset(&[("*:53/udp", "10.0.0.2:53")]));
        assert!(concerned(&stale, "192.0.2.1:53", "192.0.2.1:53"));
        assert!(!concerned(&stale, "198.51.100.1:53", "198.51.100.1:53"), "somebody else's resolver");
        assert!(!concerned(&stale, "192.0.2.1:54", "192.0.2.1:54"));
    }

    #[test]
    fn what_did_not_change_is_not_even_looked_for() {
        let ports = ruleset(&[("*:53/udp", "10.0.0.2:53")]);
        assert!(Stale::between(&ports, &ports).is_empty());
    }
}
