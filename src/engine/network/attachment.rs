//! A container's part in one network: a pair of links, addresses and the default route.
//!
//! ```text
//!   host: ek<tag>v<hash>, port of the bridge ══════ eth0: hardware address, addresses, default route
//! ```
//!
//! The interfaces of a container are eth0, eth1, .. in the order of their networks' identifiers, and the default
//! routes lead through its [`WayOut`]; so both follow from the records alone.
//!
//! Like a bridge, an attachment is compared first and repaired then, thing by thing: an address that someone took away
//! is put back without touching the process or its connections.

use std::net::IpAddr;

use crate::model::actual::Drift;
use crate::model::id::RootTag;
use crate::model::network::{bridge_name, mac_address, veth_name};
use crate::model::record::{ContainerRecord, NetworkRecord};
use crate::model::way_out::WayOut;

use super::bridge::DEFAULT_MTU;
use super::snapshot::{Families, Link, Snapshot};

/// An attachment as the records want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The host's end.
    pub link: String,
    pub bridge: String,
    /// The container's end: `eth0`.
    pub interface: String,
    pub hardware: [u8; 6],
    pub mtu: u32,
    /// Each with the length of its subnet's prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Where the default routes lead, if they lead by this network.
    pub gateways: Vec<IpAddr>,
    /// The network's other gateways. A default route by one is of the time when it led out: one that the container made
    /// itself leads elsewhere, or by something else.
    closed: Vec<IpAddr>,
}

/// One thing about an attachment that is not as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The pair is not there, or one of its ends is not where it belongs.
    Pair {
        found: &'static str,
    },
    Detached,
    Hairpin,
    HostDown,
    HostMtu {
        found: u32,
    },
    Hardware {
        found: Vec<u8>,
    },
    Mtu {
        found: u32,
    },
    Down,
    Address(IpAddr, u8),
    Gateway(IpAddr),
    /// A default route that leads out where nothing should.
    Closed(IpAddr),
}

impl Attachment {
    /// All attachments of a container, in the order of their interfaces. Networks that it has no address on are
    /// ignored, and so are addresses on networks that are not given.
    pub fn all_of<'a>(
        tag: &RootTag,
        container: &ContainerRecord,
        networks: impl IntoIterator<Item = &'a NetworkRecord>,
    ) -> Vec<Attachment> {
        let mut attached: Vec<_> =
            networks.into_iter().filter_map(|network| Some((network, container.addresses.get(&network.id)?))).collect();
        attached.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
        let way_out = WayOut::of(container, attached.iter().map(|(network, _)| *network));
        let mut attachments = Vec::new();
        for (number, (network, own)) in attached.into_iter().enumerate() {
            let v6 = network.subnet6.zip(own.v6);
            let mut addresses = vec![(IpAddr::V4(own.v4), network.subnet.prefix())];
            addresses.extend(v6.map(|(subnet, address)| (IpAddr::V6(address), subnet.prefix())));
            let gateways: Vec<IpAddr> = way_out.subnets_of(network).map(|subnet| subnet.gateway()).collect();
            let all = [Some(network.subnet), network.subnet6].into_iter().flatten().map(|subnet| subnet.gateway());
            let closed = all.filter(|gateway| !gateways.contains(gateway)).collect();
            attachments.push(Attachment {
                link: veth_name(tag, &container.id, &network.id),
                bridge: bridge_name(tag, &network.id),
                interface: format!("eth{number}"),
                hardware: mac_address(own.v4),
                mtu: network.spec.mtu.unwrap_or(DEFAULT_MTU),
                addresses,
                gateways,
                closed,
            });
        }
        attachments
    }

    /// What of a namespace must be seen to know what is not as these want it.
    pub(super) fn families<'a>(attachments: impl IntoIterator<Item = &'a Attachment>) -> Families {
        let mut addresses = attachments.into_iter().flat_map(|attachment| &attachment.addresses);
        if addresses.all(|(address, _)| address.is_ipv4()) { Families::V4 } else { Families::Both }
    }

    /// What of the host's end is not as wanted.
    pub(super) fn faults_outside(&self, host: &Snapshot) -> Vec<Fault> {
        let Some(outer) = host.links.get(&self.link) else { return vec![Fault::Pair { found: "missing" }] };
        let mut faults = Vec::new();
        // Without a bridge there is nothing to be a port of, and index 0 says so on both sides.
        let bridge = host.links.get(&self.bridge).map_or(0, |bridge| bridge.index);
        if outer.controller != bridge || bridge == 0 {
            faults.push(Fault::Detached);
        }
        // A port that left its bridge lost this, too.
        if !outer.returns_to_sender {
            faults.push(Fault::Hairpin);
        }
        if outer.mtu != self.mtu {
            faults.push(Fault::HostMtu { found: outer.mtu });
        }
        if !outer.is_up {
            faults.push(Fault::HostDown);
        }
        faults
    }

    /// What of the container's end is not as wanted, in the order in which it must be repaired: raising a link loses
    /// its routes, and an address brings the route to its gateway. A default route is the last: by it is seen whether
    /// whoever connected the container was cut short. Nothing where the host's end is missing.
    pub(super) fn faults_inside(&self, host: &Snapshot, inside: &Snapshot) -> Vec<Fault> {
        let Some(outer) = host.links.get(&self.link) else { return Vec::new() };
        let inner = match inside.links.get(&self.interface) {
            None => return vec![Fault::Pair { found: "missing inside" }],
            Some(inner) if !is_pair(outer, inner) => return vec![Fault::Pair { found: "another link" }],
            Some(inner) => inner,
        };
        let mut faults = Vec::new();
        if inner.hardware != self.hardware {
            faults.push(Fault::Hardware { found: inner.hardware.clone() });
        }
        if inner.mtu != self.mtu {
            faults.push(Fault::Mtu { found: inner.mtu });
        }
        if !inner.is_up {
            faults.push(Fault::Down);
        }
        let addresses = self.addresses.iter().filter(|(at, prefix)| !inside.has_address(inner.index, *at, *prefix));
        faults.extend(addresses.map(|(address, prefix)| Fault::Address(*address, *prefix)));
        let closed = self.closed.iter().filter(|gateway| inside.has_plain_gateway(inner.index, **gateway));
        faults.extend(closed.map(|gateway| Fault::Closed(*gateway)));
        let gateways = self.gateways.iter().filter(|gateway| !inside.has_gateway(inner.index, **gateway));
        faults.extend(gateways.map(|gateway| Fault::Gateway(*gateway)));
        faults
    }

    pub(super) fn drift(&self, host: &Snapshot, inside: &Snapshot) -> Vec<Drift> {
        let faults = self.faults_outside(host).into_iter().chain(self.faults_inside(host, inside));
        faults.map(|fault| self.describe(fault)).collect()
    }

    fn describe(&self, fault: Fault) -> Drift {
        let Attachment { link, bridge, interface, hardware, mtu, .. } = self;
        let missing = |object: String| (object, "missing".to_owned(), "present".to_owned());
        let down = |link: &str| (format!("link {link}"), "down".to_owned(), "up".to_owned());
        let (object, found, wanted) = match fault {
            Fault::Pair { found } => (format!("link {interface} ({link})"), found.to_owned(), "present".to_owned()),
            Fault::Detached => (format!("link {link}"), "on no bridge".to_owned(), format!("on {bridge}")),
            Fault::Hairpin => (format!("hairpin mode of {link}"), "off".to_owned(), "on".to_owned()),
            Fault::HostDown => down(link),
            Fault::Down => down(interface),
            Fault::HostMtu { found } => (format!("mtu of {link}"), found.to_string(), mtu.to_string()),
            Fault::Mtu { found } => (format!("mtu of {interface}"), found.to_string(), mtu.to_string()),
            Fault::Hardware { found } => (format!("mac address of {interface}"), colons(&found), colons(hardware)),
            Fault::Address(address, prefix) => missing(format!("address {address}/{prefix} of {interface}")),
            Fault::Gateway(gateway) => missing(format!("default route by {gateway} of {interface}")),
            Fault::Closed(gateway) => {
                (format!("default route by {gateway} of {interface}"), "present".to_owned(), "missing".to_owned())
            }
        };
        Drift { object, found, wanted }
    }
}

/// Whether each is the other's peer. Indexes are per namespace, so both directions must agree.
fn is_pair(outer: &Link, inner: &Link) -> bool {
    outer.kind == "veth" && inner.kind == "veth" && outer.peer == inner.index && inner.peer == outer.index
}

fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::container::{AfterEnd, ContainerSpec};
    use crate::model::image::ImageSource;
    use crate::model::network::NetworkSpec;
    use crate::model::record::Addresses;

    /// Network `n` is 10.0.n.0/24, with IPv6 where it is even. Their names are in the other order.
    fn network(n: u8, internal: bool) -> NetworkRecord {
        NetworkRecord {
            version: 1,
            id: format!("{n:08x}").parse().unwrap(),
            project: "shop".parse().unwrap(),
            name: format!("net{}", 9 - n).parse().unwrap(),
            spec: NetworkSpec { internal, ..NetworkSpec::default() },
            subnet: format!("10.0.{n}.0/24").parse().unwrap(),
            subnet6: n.is_multiple_of(2).then(|| format!("fd00:{n}::/64").parse().unwrap()),
        }
    }

    fn attachments(networks: &[NetworkRecord]) -> Vec<Attachment> {
        let at = |network: &NetworkRecord| {
            let IpAddr::V4(v4) = network.subnet.host(2).unwrap() else { unreachable!() };
            let v6 = network.subnet6.map(|subnet| match subnet.host(2).unwrap() {
                IpAddr::V6(v6) => v6,
                IpAddr::V4(_) => unreachable!(),
            });
            (network.id.clone(), Addresses { v4, v6 })
        };
        let container = ContainerRecord {
            version: 1,
            id: "0123456789ab".parse().unwrap(),
            project: "shop".parse().unwrap(),
            instance: "web".parse().unwrap(),
            spec: ContainerSpec::of(ImageSource::Rootfs("/".into())),
            image: None,
            addresses: networks.iter().map(at).collect(),
            network_of: None,
            users: None,
            way_out: Default::default(),
            after_end: AfterEnd::Keep,
            refused: None,
            before: None,
        };
        Attachment::all_of(&"ab12".parse().unwrap(), &container, networks)
    }

    /// A host and a namespace in which everything is as wanted.
    fn whole(attachment: &Attachment) -> (Snapshot, Snapshot) {
        let (mut host, mut inside) = (Snapshot::default(), Snapshot::default());
        let veth =
            Link { is_up: true, is_operational: true, mtu: attachment.mtu, kind: "veth".into(), ..Link::default() };
        let outer = Link { index: 9, controller: 7, peer: 2, returns_to_sender: true, ..veth.clone() };
        let inner = Link { index: 2, peer: 9, hardware: attachment.hardware.to_vec(), ..veth };
        host.links.insert(attachment.bridge.clone(), Link { index: 7, ..Link::default() });
        host.links.insert(attachment.link.clone(), outer);
        inside.links.insert(attachment.interface.clone(), inner);
        inside.addresses = attachment.addresses.iter().map(|(address, prefix)| (2, *address, *prefix)).collect();
        let route = |gateway: &IpAddr| super::super::snapshot::Route {
            destination: None,
            prefix: 0,
            gateway: Some(*gateway),
            link: 2,
            is_plain: true,
        };
        inside.routes = attachment.gateways.iter().map(route).collect();
        (host, inside)
    }

    #[test]
    fn interfaces_are_numbered_by_identifier_and_the_first_open_one_of_each_family_by_name_leads_out() {
        let found = attachments(&[network(3, false), network(1, true), network(2, false), network(5, false)]);
        let told: Vec<(&str, &str, Vec<String>)> = found
            .iter()
            .map(|a| (a.interface.as_str(), a.bridge.as_str(), a.gateways.iter().map(IpAddr::to_string).collect()))
            .collect();
        let expected = [
            ("eth0", "ekab12b00000001", vec![]),
            ("eth1", "ekab12b00000002", vec!["fd00:2::1".to_owned()]),
            ("eth2", "ekab12b00000003", vec![]),
            ("eth3", "ekab12b00000005", vec!["10.0.5.1".to_owned()]),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_as_wanted_has_no_faults() {
        let attachment = &attachments(&[network(2, false)])[0];
        let (host, inside) = whole(attachment);
        assert_eq!(attachment.drift(&host, &inside), []);
    }

    #[test]
    fn a_default_route_by_a_network_that_leads_out_no_more_is_a_fault_and_one_by_another_gateway_is_not() {
        let was = &attachments(&[network(2, false)])[0];
        let (host, mut inside) = whole(was);
        inside.routes[0].gateway = Some("10.0.2.77".parse().unwrap());
        let is = &attachments(&[network(2, true)])[0];
        assert_eq!(is.faults_inside(&host, &inside), [Fault::Closed("fd00:2::1".parse().unwrap())]);
    }

    #[test]
    fn an_interface_whose_other_end_is_elsewhere_is_not_ours() {
        let attachment = &attachments(&[network(2, false)])[0];
        let (host, mut inside) = whole(attachment);
        inside.links.get_mut("eth0").unwrap().peer = 10;
        assert_eq!(attachment.faults_inside(&host, &inside), [Fault::Pair { found: "another link" }]);
    }

    #[test]
    fn a_link_is_raised_before_it_gets_addresses_and_routes() {
        let attachment = &attachments(&[network(2, false)])[0];
        let (host, mut inside) = whole(attachment);
        inside.addresses.clear();
        inside.routes.clear();
        inside.links.get_mut("eth0").unwrap().is_up = false;
        let [v4, v6] = [("10.0.2.2", 24), ("fd00:2::2", 64)].map(|(at, prefix)| (at.parse().unwrap(), prefix));
        let [gateway4, gateway6] = ["10.0.2.1", "fd00:2::1"].map(|at| Fault::Gateway(at.parse().unwrap()));
        let expected = [Fault::Down, Fault::Address(v4.0, v4.1), Fault::Address(v6.0, v6.1), gateway4, gateway6];
        assert_eq!(attachment.faults_inside(&host, &inside), expected);
    }
}
