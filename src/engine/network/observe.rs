//! What of networks and attachments is not as recorded.
//!
//! The host's namespace is read once. Each container's namespace is read by a thread that goes from one to the next:
//! entering it, opening a socket and three small dumps are some tens of microseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use netlink_sys::protocols::NETLINK_ROUTE;
use nix::sched::{CloneFlags, setns};

use crate::model::actual::Drift;
use crate::model::id::{ContainerId, NetworkId, RootTag};
use crate::model::network::link_prefix;
use crate::model::record::NetworkRecord;

use super::NetworkError;
use super::attachment::Attachment;
use super::bridge::Bridge;
use super::netlink::Netlink;
use super::netns;
use super::snapshot::Snapshot;

/// A container that should be connected.
#[derive(Debug, Clone)]
pub struct Connected {
    pub container: ContainerId,
    pub namespace: PathBuf,
    pub attachments: Vec<Attachment>,
}

/// What is not as recorded; objects that are have no entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    pub networks: BTreeMap<NetworkId, Vec<Drift>>,
    pub containers: BTreeMap<ContainerId, Vec<Drift>>,
    /// Every bridge and pair of the host that has this root's prefix.
    pub own_links: BTreeSet<String>,
}

/// Compares the calling thread's namespace, as the host's, and those of the containers with the records.
pub fn observe<'a>(
    tag: &RootTag,
    networks: impl IntoIterator<Item = &'a NetworkRecord>,
    containers: &[Connected],
) -> Result<Observation, NetworkError> {
    let host = Netlink::open(NETLINK_ROUTE)
        .and_then(|mut netlink| Snapshot::of_links(&mut netlink))
        .map_err(|source| NetworkError::Look { place: "the host".to_owned(), source })?;
    let mut observation = Observation { own_links: own_links(tag, &host), ..Observation::default() };
    for record in networks {
        let drift = Bridge::of(tag, record).drift(&host);
        if !drift.is_empty() {
            observation.networks.insert(record.id.clone(), drift);
        }
    }
    for (connected, inside) in containers.iter().zip(look_inside(containers)) {
        let inside = inside.map_err(|source| NetworkError::Look {
            place: format!("the network namespace `{}`", connected.namespace.display()),
            source,
        })?;
        let drift = drift_of(connected, &host, inside.as_ref());
        if !drift.is_empty() {
            observation.containers.insert(connected.container.clone(), drift);
        }
    }
    Ok(observation)
}

fn own_links(tag: &RootTag, host: &Snapshot) -> BTreeSet<String> {
    let prefix = link_prefix(tag);
    let is_own = |kind: &str| matches!(kind, "bridge" | "veth");
    let links = host.links.iter().filter(|(name, link)| name.starts_with(&prefix) && is_own(&link.kind));
    links.map(|(name, _)| name.clone()).collect()
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

/// One look into each namespace; `None` where nothing is pinned.
fn look_inside(containers: &[Connected]) -> Vec<io::Result<Option<Snapshot>>> {
    if containers.is_empty() {
        return Vec::new();
    }
    std::thread::scope(|scope| {
        let visits = scope.spawn(|| containers.iter().map(visit).collect());
        visits.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Takes the calling thread into the namespace and leaves it there.
fn visit(connected: &Connected) -> io::Result<Option<Snapshot>> {
    let namespace = match netns::open(&connected.namespace) {
        Ok(namespace) => namespace,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    setns(&namespace, CloneFlags::CLONE_NEWNET)?;
    Snapshot::of_everything(&mut Netlink::open(NETLINK_ROUTE)?).map(Some)
}
