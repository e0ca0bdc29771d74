//! A host as the engine sees it: what [`crate::plan`] compares with [`super::desired`].
//!
//! It holds every project of the state root, because ports, subnets and firewall rules are shared by all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::firewall::Ruleset;
use super::id::{ContainerId, Digest, NetworkId, VolumeKey};
use super::image::{Image, ImageConfig, ImageSource};
use super::names::NameTable;
use super::network::Subnet;
use super::orphan::Orphan;
use super::port::HostPort;
use super::record::{ContainerRecord, NetworkRecord, VolumeRecord};
use super::resources::Resources;
use super::security::Capability;
use super::status::{Phase, Status};
use super::unreadable::Unreadable;

/// What this host can do, and what it already uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Capabilities that a container can get here.
    pub bounding: BTreeSet<Capability>,
    /// cgroup controllers that are mounted or delegated: `memory`, `cpu`, `pids`, `cpuset`, `devices`, ..
    pub controllers: BTreeSet<String>,
    /// Hard limits by ulimit name; absent is unlimited. Relevant only without CAP_SYS_RESOURCE.
    pub hard_limits: BTreeMap<String, u64>,
    /// Destinations of the host's routes that are not ours: new subnets stay away from them.
    pub routes: BTreeSet<Subnet>,
    /// Ports of the host that other processes listen on.
    pub listening: BTreeSet<HostPort>,
    /// Chains of other firewalls that drop what they do not accept of what this host forwards: `ip filter FORWARD`.
    #[serde(default)]
    pub forward_drops: BTreeSet<String>,
    /// Whether it is a router already.
    #[serde(default)]
    pub forwards: Forwards,
    /// `linux/amd64` and the like.
    pub platform: String,
    /// Why no container can have users of its own here.
    #[serde(default)]
    pub no_users: Option<String>,
}

/// Whether a host lets packets pass from link to link, by family (ip-sysctl.rst, `ip_forward` and `forwarding`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwards {
    pub v4: bool,
    pub v6: bool,
}

/// What is known of an image source on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActualImage {
    /// The image that the source stood for when it was last made whole.
    pub image: Option<Image>,
    /// Why the source now stands for something else: a moved tag, an edited archive.
    pub moved: Option<String>,
    /// Why it is not known whether the source moved: its registry could not be asked, its files could not be read.
    #[serde(default)]
    pub unasked: Option<String>,
    /// Of a locked reference: what its tag stands for at its registry, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
}

/// What a registry says of a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tag {
    Is(Digest),
    /// Why it did not say.
    Unknown(String),
}

/// One kernel object of a network or a container that is not as the record says: what, as it is, as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Drift {
    /// `bridge ek12abb01234567`, `address 10.89.0.2/24 of eth0`, `sysctl route_localnet of ..`.
    pub object: String,
    pub found: String,
    pub wanted: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActualNetwork {
    pub record: NetworkRecord,
    /// Empty when bridge, addresses and settings are as they should be.
    pub drift: Vec<Drift>,
    /// The names that its containers resolve now.
    pub names: NameTable,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActualVolume {
    pub record: VolumeRecord,
    /// Where its data is on this host.
    #[serde(default)]
    pub data: PathBuf,
    /// Empty when the data directory is there with the declared owner and mode.
    pub drift: Vec<Drift>,
}

/// Whether the monitor of a container is there. It holds a lock that the kernel drops with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// Never started since boot, or stopped and forgotten.
    Absent,
    /// The monitor runs, and this is what it says.
    Monitored(Status),
    /// The monitor is gone without having said goodbye; the last status is stale.
    Lost(Option<Status>),
    /// The monitor ended after its container did; this is how it ended.
    Ended(Status),
}

impl Liveness {
    /// Whether it runs or is being kept running, so that there is something to stop.
    pub fn is_up(&self) -> bool {
        matches!(self, Liveness::Monitored(_) | Liveness::Lost(_))
    }

    /// Whether a monitor keeps it, so that its network must be there.
    pub fn is_supervised(&self) -> bool {
        matches!(self, Liveness::Monitored(_))
    }

    /// Whether it has processes, as its monitor says: limits in force, and something to freeze.
    pub fn has_processes(&self) -> bool {
        matches!(self, Liveness::Monitored(status) if matches!(status.phase, Phase::Running | Phase::Paused))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActualContainer {
    pub record: ContainerRecord,
    pub liveness: Liveness,
    /// Links, addresses, routes, namespaces that are not as recorded. Empty for a container that does not run.
    pub network_drift: Vec<Drift>,
    /// What the cgroup says, for a container that runs; `None` where it does not.
    pub limits: Option<Resources>,
    /// It lacks something that only making it anew can bring back (upper layer gone, layers missing).
    pub broken: Option<Broken>,
}

/// What a container lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// In words: `its image .. is gone`.
    pub why: String,
    /// Whether what it wrote is still there.
    pub has_files: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actual {
    pub host: HostFacts,
    /// For the sources of the scope and of every record.
    #[serde(with = "super::pairs")]
    pub images: BTreeMap<ImageSource, ActualImage>,
    /// Of the images that containers were made of, as far as this host still knows: a name may have moved on, a layer may
    /// be gone.
    #[serde(default)]
    pub made_of: BTreeMap<Digest, ImageConfig>,
    /// Images, in use or declared, that are not whole and can be made so from what they came from: their layers that are
    /// damaged or gone.
    #[serde(default)]
    pub damaged: BTreeMap<Digest, BTreeSet<Digest>>,
    pub networks: BTreeMap<NetworkId, ActualNetwork>,
    pub volumes: BTreeMap<VolumeKey, ActualVolume>,
    pub containers: BTreeMap<ContainerId, ActualContainer>,
    /// The ruleset that is in the kernel; `None` when the table is missing or was changed by somebody.
    pub firewall: Option<Ruleset>,
    /// What no record names, of any project.
    pub orphans: BTreeSet<Orphan>,
    /// Records that are there and that nobody can read. What is left of such a container or network is an orphan.
    #[serde(default)]
    pub unreadable: BTreeSet<Unreadable>,
}
