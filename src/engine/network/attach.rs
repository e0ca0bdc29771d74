//! Makes an attachment as its record wants it.
//!
//! ```text
//!   look at the host's end ── missing ──> make the pair
//!   repair the host's end
//!   on a thread inside: look, and repair everything in one datagram ── not a pair ──> remove it, begin again
//!   wait until packets pass
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::{LinkBridgePort, LinkUnspec, RouteMessageBuilder};

use super::NetworkError;
use super::attachment::{Attachment, Fault};
use super::link::{Links, PUT, address_message};
use super::netlink::Netlink;
use super::netns;
use super::snapshot::{Link, Snapshot};

/// What there was to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    Nothing,
    /// It was there, and not all of it as it should be.
    Repaired,
    Made,
}

impl Links {
    /// Pair, addresses and routes are there, and packets pass. The namespace must be ([`netns::ensure`]), and the
    /// bridge too. Sends nothing where nothing is missing.
    pub fn ensure_attachment(&self, attachment: &Attachment, namespace: &Path) -> Result<Done, NetworkError> {
        let entered = netns::open(namespace).map_err(|source| NetworkError::Namespace {
            verb: "open",
            path: namespace.to_owned(),
            source,
        })?;
        if let Some(done) = self.ensure_once(attachment, namespace, &entered)? {
            return Ok(done);
        }
        self.remove(&attachment.link)?;
        match self.ensure_once(attachment, namespace, &entered)? {
            Some(done) => Ok(done),
            None => Err(NetworkError::Interface {
                interface: attachment.interface.clone(),
                path: namespace.to_owned(),
                source: io::Error::other("somebody takes it away again"),
            }),
        }
    }

    /// `None` when the host's end is there, but its other end is not where it belongs.
    fn ensure_once(
        &self,
        attachment: &Attachment,
        namespace: &Path,
        entered: &OwnedFd,
    ) -> Result<Option<Done>, NetworkError> {
        let mut host = self.look_at(attachment)?;
        let is_new = !host.links.contains_key(&attachment.link);
        if is_new {
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
            return Ok(None);
        }
        if faults.iter().any(|fault| matches!(fault, Fault::Down | Fault::HostDown | Fault::Detached)) {
            await_carrier(|| self.look_at(attachment))?;
        }
        Ok(Some(match (is_new, faults.is_empty()) {
            (true, _) => Done::Made,
            (false, false) => Done::Repaired,
            (false, true) => Done::Nothing,
        }))
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
                | Fault::Gateway(_)
                | Fault::Closed(_) => continue,
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
        let inside = Snapshot::of_everything(&mut netlink, Attachment::families([self]))?;
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
            Fault::Closed(gateway) => Some((RouteNetlinkMessage::DelRoute(default_route(index, *gateway)), 0)),
            Fault::Pair { .. } | Fault::Detached | Fault::Hairpin | Fault::HostDown | Fault::HostMtu { .. } => None,
        };
        faults.iter().filter_map(repair).collect()
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
        IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(v4).output_interface(index).build(),
        IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(v6).output_interface(index).build(),
    }
}
