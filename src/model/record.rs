//! What the engine stores of each object: the whole applied spec and every choice that planning made.
//!
//! A record is written before its object is on the host as a process, a kernel object or a directory of its own name, and
//! removed after that is gone. What is made before it (the source of a bind, what a volume is filled with, the directory
//! aside that is renamed into place) belongs to somebody else, or is swept. Each carries the version of its format.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::container::{AfterEnd, ContainerSpec};
use super::id::{ContainerId, Digest, Instance, NetworkId, ResourceName, VolumeKey, Whose};
use super::network::{NetworkSpec, Subnet};
use super::security::IdRange;
use super::volume::VolumeSpec;
use super::way_out::Order;

/// The version that this Evenkeel writes. It reads this one and those before it.
///
/// 2 has what 1 does not understand, or would leave out of what it writes back: `extra_hosts` by name, options of a tmpfs,
/// volumes that are not filled, images of an archive of several, and what an update in place goes back to.
/// 3 has namespaces of the host, and a way out that is found by names of networks.
pub const RECORD_VERSION: u32 = 3;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    pub version: u32,
    pub id: NetworkId,
    pub project: Whose,
    pub name: ResourceName,
    pub spec: NetworkSpec,
    /// The declared subnet, or the one that was chosen.
    pub subnet: Subnet,
    pub subnet6: Option<Subnet>,
}

impl NetworkRecord {
    /// `shop/front`, or `front` for one that nobody declares.
    pub fn full_name(&self) -> String {
        full_name(&self.project, &self.name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    pub version: u32,
    pub key: VolumeKey,
    pub spec: VolumeSpec,
}

impl VolumeRecord {
    /// `shop/pgdata`, or `pgdata` for one that nobody declares.
    pub fn full_name(&self) -> String {
        full_name(&self.key.project, &self.key.name)
    }
}

/// The addresses of a container on one network, kept over restarts and, where possible, replacements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Addresses {
    pub v4: Ipv4Addr,
    pub v6: Option<Ipv6Addr>,
}

impl Addresses {
    pub fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.v4 == v4,
            IpAddr::V6(v6) => self.v6 == Some(v6),
        }
    }

    /// Whether one of them is the other's, too.
    pub fn collide(&self, other: &Addresses) -> bool {
        self.v4 == other.v4 || self.v6.is_some_and(|v6| other.v6 == Some(v6))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub version: u32,
    pub id: ContainerId,
    pub project: Whose,
    pub instance: Instance,
    pub spec: ContainerSpec,
    /// The image that it was made of. A plan that pulls first leaves this open; creating the container fills it in.
    pub image: Option<Digest>,
    pub addresses: BTreeMap<NetworkId, Addresses>,
    /// Whose network namespace it joins, for `network_mode = "container:NAME"`.
    pub network_of: Option<ContainerId>,
    /// The host's numbers of its users and groups, where they are not the host's own.
    #[serde(default)]
    pub users: Option<IdRange>,
    /// How its way out is found among its networks.
    #[serde(default, skip_serializing_if = "Order::is_default")]
    pub way_out: Order,
    /// What becomes of it when it has ended for good.
    #[serde(default)]
    pub after_end: AfterEnd,
    /// The update that failed, so that this container runs in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Box<Refused>>,
    /// What it was before an update in place that has not proven itself yet, and what it is changed back to if that fails.
    /// It outlives whoever waits for the verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<ContainerSpec>>,
}

/// An update that was rolled back. It is remembered whole: the same wish with the same image is not tried again by
/// itself, any other is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub spec: ContainerSpec,
    /// The image that the failed container was made of.
    pub image: Option<Digest>,
    pub at: SystemTime,
    /// Why it failed: the error of the step, its causes, and the last that the container wrote.
    pub reason: String,
}

impl ContainerRecord {
    /// Whether it mounts this volume: by name, as containers of the volume's project do, or by the place of its data, as
    /// `run -v PROJECT/NAME` has it.
    pub fn uses_volume(&self, key: &VolumeKey, data: &Path) -> bool {
        let by_name = self.project == key.project && self.spec.volumes().any(|name| *name == key.name);
        by_name || self.spec.binds().any(|source| source == data)
    }

    /// `shop/web`, or `web` for one that nobody declares: the name by which every command takes it.
    pub fn full_name(&self) -> String {
        full_name(&self.project, &self.instance)
    }
}

fn full_name(project: &Whose, name: &dyn std::fmt::Display) -> String {
    match project {
        Whose::Nobody => name.to_string(),
        Whose::Project(project) => format!("{project}/{name}"),
    }
}
