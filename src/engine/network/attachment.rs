//! A container's part in one network: a pair of links, addresses and the default route.
//!
//! ```text
//!   host: ek<tag>v<hash>, port of the bridge ══════ eth0: hardware address, addresses, default route
//! ```
//!
//! The interfaces of a container are eth0, eth1, .. in the order of their networks' identifiers, and the default
//! route leads through the first network that is not internal; so both follow from the record alone.
//!
//! Like a bridge, an attachment is compared first and repaired then, thing by thing: an address that someone took away
//! is put back without touching the process or its connections.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::{LinkBridgePort, LinkUnspec};

use crate::model::actual::Drift;
use crate::model::id::RootTag;
use crate::model::network::{bridge_name, mac_address, veth_name};
use crate::model::record::{ContainerRecord, NetworkRecord};

use super::NetworkError;
use super::bridge::DEFAULT_MTU;
use super::link::{Links, PUT, address_message};
use super::netlink::Netlink;
use super::netns;
use super::snapshot::{Link, Snapshot};

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
    /// Where the default route leads, per family; none on internal networks and on all but the first other.
    pub gateways: Vec<IpAddr>,
}

/// One thing about an attachment that is not as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
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
        let (mut routed4, mut routed6) = (false, false);
        let mut attachments = Vec::new();
        for (number, (network, own)) in attached.into_iter().enumerate() {
            let v6 = network.subnet6.zip(own.v6);
            let mut addresses = vec![(IpAddr::V4(own.v4), network.subnet.prefix())];
            addresses.extend(v6.map(|(subnet, address)| (IpAddr::V6(address), subnet.prefix())));
            let mut gateways = Vec::new();
            if !network.spec.internal {
                gateways.extend((!routed4).then(|| network.subnet.gateway()));
                gateways.extend(v6.filter(|_| !routed6).map(|(subnet, _)| subnet.gateway()));
                (routed4, routed6) = (true, routed6 || v6.is_some());
            }
            attachments.push(Attachment {
                link: veth_name(tag, &container.id, &network.id),
                bridge: bridge_name(tag, &network.id),
                interface: format!("eth{number}"),
                hardware: mac_address(own.v4),
                mtu: network.spec.mtu.unwrap_or(DEFAULT_MTU),
                addresses,
                gateways,
            });
        }
        attachments
    }

    /// What of the host's end is not as wanted.
    fn faults_outside(&self, host: &Snapshot) -> Vec<Fault> {
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
    /// its routes, and an address brings the route to its gateway. Nothing where the host's end is missing.
    fn faults_inside(&self, host: &Snapshot, inside: &Snapshot) -> Vec<Fault> {
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
        };
        Drift { object, found, wanted }
    }

    /// The requests that repair what is wrong inside, and their flags. Empty when nothing is.
    fn repairs_inside(&self, faults: &[Fault], index: u32) -> Vec<(RouteNetlinkMessage, u16)> {
        let link = || LinkUnspec::new_with_index(index);
        let repair = |fault: &Fault| match fault {
            Fault::Hardware { .. } => {
                Some((RouteNetlinkMessage::NewLink(link().address(self.hardware.to_vec()).build()), 0))
            }
            Fault::Mtu { .. } => Some((RouteNetlinkMessage::NewLink(link().mtu(self.mtu).build()), 0)),
            Fault::Down => Some((RouteNetlinkMessage::NewLink(link().up().build()), 0)),
            Fault::Address(address, prefix) => {
                Some((RouteNetlinkMessage::NewAddress(address_message(index, (*address, *prefix))), PUT))
            }
            Fault::Gateway(gateway) => Some((RouteNetlinkMessage::NewRoute(default_route(index, *gateway)), PUT)),
            Fault::Pair { .. } | Fault::Detached | Fault::Hairpin | Fault::HostDown | Fault::HostMtu { .. } => None,
        };
        faults.iter().filter_map(repair).collect()
    }
}

impl Links {
    /// Pair, addresses and routes are there, and packets pass. The namespace must be ([`netns::ensure`]), and the
    /// bridge too. Sends nothing where nothing is missing.
    pub fn ensure_attachment(&self, attachment: &Attachment, namespace: &Path) -> Result<(), NetworkError> {
        let entered = netns::open(namespace).map_err(|source| NetworkError::Namespace {
            verb: "open",
            path: namespace.to_owned(),
            source,
        })?;
        if !self.ensure_once(attachment, namespace, &entered)? {
            self.remove(&attachment.link)?;
            self.ensure_once(attachment, namespace, &entered)?;
        }
        Ok(())
    }

    /// `false` when the host's end is there, but its other end is not where it belongs.
    fn ensure_once(&self, attachment: &Attachment, namespace: &Path, entered: &OwnedFd) -> Result<bool, NetworkError> {
        let mut host = self.look_at(attachment)?;
        if !host.links.contains_key(&attachment.link) {
            host = self.create(attachment, &host, entered)?;
        }
        let mut faults = attachment.faults_outside(&host);
        self.repair_outside(attachment, &faults, &host)?;
        let inside = netns::inside(entered, || attachment.set_up_inside(&host)).and_then(|faults| faults);
        faults.extend(inside.map_err(|source| NetworkError::Interface {
            interface: attachment.interface.clone(),
            path: namespace.to_owned(),
            source,
        })?);
        if faults.iter().any(|fault| matches!(fault, Fault::Pair { .. })) {
            return Ok(false);
        }
        if faults.iter().any(|fault| matches!(fault, Fault::Down | Fault::HostDown | Fault::Detached)) {
            await_carrier(|| self.look_at(attachment))?;
        }
        Ok(true)
    }

    /// The pair is gone, both ends.
    pub fn remove_attachment(&self, attachment: &Attachment) -> Result<(), NetworkError> {
        self.remove(&attachment.link)
    }

    fn look_at(&self, attachment: &Attachment) -> Result<Snapshot, NetworkError> {
        self.look(|netlink| Snapshot::of_named(netlink, &[&attachment.link, &attachment.bridge]))
    }

    /// What the host has afterwards.
    fn create(&self, attachment: &Attachment, host: &Snapshot, namespace: &OwnedFd) -> Result<Snapshot, NetworkError> {
        let bridge = attachment.bridge_of(host)?;
        match self.create_pair(attachment, bridge.index, namespace.as_fd()) {
            // A network that came or went moved the names of the interfaces behind it: who holds this one goes, and
            // comes back under its own.
            Err(NetworkError::Link { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => {
                let removed = netns::inside(namespace, || remove_inside(&attachment.interface)).and_then(|done| done);
                let link = || attachment.interface.clone();
                removed.map_err(|source| NetworkError::Link { verb: "remove", link: link(), source })?;
                self.create_pair(attachment, bridge.index, namespace.as_fd())?;
            }
            other => other?,
        }
        self.look_at(attachment)
    }

    fn repair_outside(&self, attachment: &Attachment, faults: &[Fault], host: &Snapshot) -> Result<(), NetworkError> {
        let Some(link) = host.links.get(&attachment.link) else { return Ok(()) };
        let message = || LinkUnspec::new_with_index(link.index);
        for fault in faults {
            let message = match fault {
                Fault::Detached => message().controller(attachment.bridge_of(host)?.index).build(),
                // Where the module br_netfilter is loaded, a connection to a published port is redirected before the
                // bridge forwards it, and one from the target itself has to go back where it came from.
                Fault::Hairpin => LinkBridgePort::new(link.index).hairpin(true).build(),
                Fault::HostDown => message().up().build(),
                Fault::HostMtu { .. } => message().mtu(attachment.mtu).build(),
                Fault::Pair { .. }
                | Fault::Hardware { .. }
                | Fault::Mtu { .. }
                | Fault::Down
                | Fault::Address(..)
                | Fault::Gateway(_) => continue,
            };
            self.change(&attachment.link, message)?;
        }
        Ok(())
    }
}

/// Waits until the kernel has noticed that all links that `look` finds are up. Until its work queue got to them, they
/// drop what they are given and have no routes of IPv6; a container whose first question about a neighbour is dropped
/// repeats it after a second. Asking for a link hastens the kernel where it is new enough; nothing is wrong when it
/// takes its time.
fn await_carrier<E>(mut look: impl FnMut() -> Result<Snapshot, E>) -> Result<(), E> {
    let deadline = Instant::now() + CARRIER_PATIENCE;
    while !look()?.links.values().all(|link| link.is_operational) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}

/// The kernel looks after carriers at least once a second (linkwatch).
const CARRIER_PATIENCE: Duration = Duration::from_millis(1200);

impl Attachment {
    fn bridge_of<'a>(&self, host: &'a Snapshot) -> Result<&'a Link, NetworkError> {
        let missing = || NetworkError::NoBridge { link: self.link.clone(), bridge: self.bridge.clone() };
        host.links.get(&self.bridge).ok_or_else(missing)
    }

    /// Runs on a thread inside the namespace: repairs what is wrong there in one datagram, and says everything that
    /// was wrong.
    fn set_up_inside(&self, host: &Snapshot) -> io::Result<Vec<Fault>> {
        let mut netlink = Netlink::open(NETLINK_ROUTE)?;
        let inside = Snapshot::of_everything(&mut netlink)?;
        let faults = self.faults_inside(host, &inside);
        let Some(link) = inside.links.get(&self.interface) else { return Ok(faults) };
        let mut batch = netlink.batch();
        for (message, flags) in self.repairs_inside(&faults, link.index) {
            batch.push(message, flags);
        }
        if !batch.is_empty() {
            netlink.send(batch)?;
        }
        if faults.contains(&Fault::Down) {
            await_carrier(|| Snapshot::of_named(&mut netlink, &[&self.interface]))?;
        }
        Ok(faults)
    }
}

fn remove_inside(interface: &str) -> io::Result<()> {
    let mut netlink = Netlink::open(NETLINK_ROUTE)?;
    let mut batch = netlink.batch();
    batch.push(RouteNetlinkMessage::DelLink(LinkUnspec::new_with_name(interface).build()), 0);
    netlink.send(batch)
}

fn default_route(index: u32, gateway: IpAddr) -> RouteMessage {
    match gateway {
        IpAddr::V4(v4) => {
            rtnetlink::RouteMessageBuilder::<std::net::Ipv4Addr>::new().gateway(v4).output_interface(index).build()
        }
        IpAddr::V6(v6) => {
            rtnetlink::RouteMessageBuilder::<std::net::Ipv6Addr>::new().gateway(v6).output_interface(index).build()
        }
    }
}

/// Whether each is the other's peer. Indexes are per namespace, so both directions must agree.
fn is_pair(outer: &Link, inner: &Link) -> bool {
    outer.kind == "veth" && inner.kind == "veth" && outer.peer == inner.index && inner.peer == outer.index
}

fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
