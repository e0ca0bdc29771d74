//! What of networks and attachments is not as recorded.
//!
//! The host's namespace is read once ([`Outside`]). Each container's is read by a thread that goes from one to the next
//! ([`Connected::look`]): entering it, opening a socket and three small dumps are some tens of microseconds, which many
//! threads may do side by side. [`observe`] then compares, and asks the kernel nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use netlink_sys::protocols::NETLINK_ROUTE;
use nix::sched::{CloneFlags, setns};

use crate::model::actual::Drift;
use crate::model::id::{ContainerId, NetworkId, RootTag};
use crate::model::network::{Subnet, link_prefix};
use crate::model::record::NetworkRecord;

use super::NetworkError;
use super::attachment::Attachment;
use super::bridge::Bridge;
use super::netlink::Netlink;
use super::netns;
use super::snapshot::{Families, Snapshot};

/// The host's own namespace at one moment.
#[derive(Debug)]
pub struct Outside(Snapshot);

/// A container that should be connected.
#[derive(Debug, Clone)]
pub struct Connected {
    pub container: ContainerId,
    pub namespace: PathBuf,
    pub attachments: Vec<Attachment>,
}

/// What is in a container's namespace; nothing where none is pinned.
#[derive(Debug)]
pub struct Inside(Option<Snapshot>);

/// What is not as recorded; objects that are have no entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    pub networks: BTreeMap<NetworkId, Vec<Drift>>,
    pub containers: BTreeMap<ContainerId, Vec<Drift>>,
}

impl Outside {
    /// Looks at the calling thread's namespace.
    pub fn look() -> Result<Outside, NetworkError> {
        let looked =
            Netlink::open(NETLINK_ROUTE).and_then(|mut netlink| Snapshot::of_everything(&mut netlink, Families::Both));
        looked.map(Outside).map_err(|source| NetworkError::Look { place: "the host".to_owned(), source })
    }

    /// Every bridge and pair that has this root's prefix.
    pub fn own_links(&self, tag: &RootTag) -> BTreeSet<String> {
        let prefix = link_prefix(tag);
        let is_own = |kind: &str| matches!(kind, "bridge" | "veth");
        let links = self.0.links.iter().filter(|(name, link)| name.starts_with(&prefix) && is_own(&link.kind));
        links.map(|(name, _)| name.clone()).collect()
    }

    /// Destinations of the main table's routes that lead through no bridge of this root, default routes excepted.
    pub fn foreign_routes(&self, tag: &RootTag) -> BTreeSet<Subnet> {
        let ours = format!("{}b", link_prefix(tag));
        let ours: BTreeSet<u32> =
            self.0.links.iter().filter(|(name, _)| name.starts_with(&ours)).map(|(_, link)| link.index).collect();
        let foreign = self.0.routes.iter().filter(|route| !ours.contains(&route.link));
        let destinations = foreign.filter_map(|route| Subnet::holding(route.destination?, route.prefix));
        // Every link has the link-local network of its own; it is never a choice for a subnet.
        let is_link_local = |subnet: &Subnet| matches!(subnet.address(), IpAddr::V6(v6) if v6.is_unicast_link_local());
        destinations.filter(|subnet| !is_link_local(subnet)).collect()
    }
}

impl Connected {
    /// Looks into its namespace. **Takes the calling thread there and leaves it there.**
    pub fn look(&self) -> Result<Inside, NetworkError> {
        let place = || format!("the network namespace `{}`", self.namespace.display());
        let families = Attachment::families(&self.attachments);
        let looked = enter(&self.namespace).and_then(|is_there| match is_there {
            true => Snapshot::of_everything(&mut Netlink::open(NETLINK_ROUTE)?, families).map(Some),
            false => Ok(None),
        });
        looked.map(Inside).map_err(|source| NetworkError::Look { place: place(), source })
    }
}

/// Takes the calling thread into a namespace, if it is pinned there.
fn enter(path: &Path) -> io::Result<bool> {
    match netns::open(path) {
        Ok(namespace) => Ok(setns(&namespace, CloneFlags::CLONE_NEWNET).map(|()| true)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Compares what was seen with the records.
pub fn observe<'a>(
    tag: &RootTag,
    networks: impl IntoIterator<Item = &'a NetworkRecord>,
    outside: &Outside,
    containers: impl IntoIterator<Item = &'a (Connected, Inside)>,
) -> Observation {
    let networks = networks.into_iter().map(|record| (record.id.clone(), Bridge::of(tag, record).drift(&outside.0)));
    let containers = containers
        .into_iter()
        .map(|(connected, inside)| (connected.container.clone(), drift_of(connected, &outside.0, inside.0.as_ref())));
    Observation {
        networks: networks.filter(|(_, drift)| !drift.is_empty()).collect(),
        containers: containers.filter(|(_, drift)| !drift.is_empty()).collect(),
    }
}

fn drift_of(connected: &Connected, host: &Snapshot, inside: Option<&Snapshot>) -> Vec<Drift> {
    let Some(inside) = inside else {
        let object = format!("network namespace {}", connected.namespace.display());
        return vec![Drift { object, found: "missing".to_owned(), wanted: "present".to_owned() }];
    };
    let mut drift = Vec::new();
    if !inside.links.get("lo").is_some_and(|link| link.is_up) {
        drift.push(Drift { object: "link lo".to_owned(), found: "down".to_owned(), wanted: "up".to_owned() });
    }
    drift.extend(connected.attachments.iter().flat_map(|attachment| attachment.drift(host, inside)));
    drift
}
