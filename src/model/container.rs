//! A container as declared, resolved: every default filled in, every reference looked up.
//!
//! This is also what the engine stores when it applied it, and what the planner compares, field by field.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::extra_host::ExtraHost;
use super::health::Healthcheck;
use super::id::ResourceName;
use super::image::ImageSource;
use super::network::NetworkMode;
use super::port::HostPort;
use super::resources::{Resources, Ulimits};
use super::restart::RestartPolicy;
use super::seccomp::Seccomp;
use super::security::{Capability, Device, Users};
use super::units::{ByteSize, Signal, Timespan};
use super::volume::Mount;

/// What must hold of another container before this one starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    Started,
    Healthy,
    /// Ended with status 0.
    Completed,
}

/// Whether a declared container should run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    #[default]
    Running,
    Stopped,
}

/// What becomes of a container that ended for good. What is declared is kept: the next plan decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterEnd {
    #[default]
    Keep,
    /// It goes, and the volumes that were made for it alone: `run --rm`.
    Remove,
}

/// In which order a container and its replacement are started and stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    #[default]
    StopFirst,
    /// The new one must be started, and healthy where it has a check, before the old one stops.
    StartFirst,
}

/// What becomes of an update that fails: what is new, or changed and restarted, cannot be started, does not get healthy,
/// or does not stay so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureAction {
    /// What ran before runs again, as it was.
    #[default]
    Rollback,
    /// It stays as it is, for somebody to look at.
    Pause,
}

/// How a container is replaced by its successor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Update {
    pub order: UpdateOrder,
    pub failure_action: FailureAction,
    /// How long the successor must stay ready, without a restart, before the old one goes.
    pub monitor: Timespan,
}

/// Capabilities beside the default set.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Capabilities {
    pub add: CapabilitySet,
    pub drop: CapabilitySet,
}

/// Some capabilities, or all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapabilitySet {
    All,
    Some(BTreeSet<Capability>),
}

impl Default for CapabilitySet {
    fn default() -> CapabilitySet {
        CapabilitySet::Some(BTreeSet::new())
    }
}

/// Whose namespace of a kind a container is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespace {
    /// One of its own.
    #[default]
    Private,
    /// The host's.
    Host,
}

/// How a container's output is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Logging {
    /// A file that reached this size is rotated.
    pub max_size: ByteSize,
    /// How many files are kept, the one that is written to included. At least 1.
    pub max_files: u32,
}

impl Default for Logging {
    fn default() -> Logging {
        Logging { max_size: ByteSize::from_mib(10), max_files: 5 }
    }
}

/// One container of a project. Fields left to the image are `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub image: ImageSource,
    pub entrypoint: Option<Vec<String>>,
    pub command: Option<Vec<String>>,
    pub environment: BTreeMap<String, String>,
    pub user: Option<String>,
    pub group_add: BTreeSet<String>,
    pub working_dir: Option<String>,
    pub hostname: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub init: bool,
    pub tty: bool,
    pub stdin_open: bool,
    pub read_only: bool,
    pub privileged: bool,
    #[serde(default)]
    pub users: Users,
    /// Whose processes it sees.
    #[serde(default)]
    pub pid: Namespace,
    /// Whose shared memory, semaphores and message queues (ipc_namespaces(7)) it has, /dev/shm and /dev/mqueue among them.
    #[serde(default)]
    pub ipc: Namespace,
    #[serde(default)]
    pub seccomp: Seccomp,
    pub capabilities: Capabilities,
    pub devices: BTreeSet<Device>,
    pub ulimits: Ulimits,
    pub sysctls: BTreeMap<String, String>,
    pub shm_size: ByteSize,
    pub oom_score_adj: Option<i32>,
    pub network: NetworkMode,
    /// Host side to container side.
    pub ports: BTreeMap<HostPort, u16>,
    pub extra_hosts: BTreeMap<String, ExtraHost>,
    pub dns: Vec<IpAddr>,
    pub dns_search: Vec<String>,
    /// By absolute target path inside the container.
    pub mounts: BTreeMap<String, Mount>,
    pub resources: Resources,
    pub restart: RestartPolicy,
    /// `None` leaves it to the image.
    pub healthcheck: Option<Healthcheck>,
    pub stop_signal: Option<Signal>,
    pub stop_grace_period: Timespan,
    pub logging: Logging,
    pub depends_on: BTreeMap<ResourceName, Condition>,
    #[serde(default)]
    pub update: Update,
    pub state: RunState,
}

pub const DEFAULT_SHM_SIZE: ByteSize = ByteSize::from_mib(64);
pub const DEFAULT_STOP_GRACE_PERIOD: Timespan = Timespan::from_secs(10);

impl ContainerSpec {
    /// A container of this image with every default.
    pub fn of(image: ImageSource) -> ContainerSpec {
        ContainerSpec {
            image,
            entrypoint: None,
            command: None,
            environment: BTreeMap::new(),
            user: None,
            group_add: BTreeSet::new(),
            working_dir: None,
            hostname: None,
            labels: BTreeMap::new(),
            init: false,
            tty: false,
            stdin_open: false,
            read_only: false,
            privileged: false,
            users: Users::default(),
            pid: Namespace::default(),
            ipc: Namespace::default(),
            seccomp: Seccomp::default(),
            capabilities: Capabilities::default(),
            devices: BTreeSet::new(),
            ulimits: BTreeMap::new(),
            sysctls: BTreeMap::new(),
            shm_size: DEFAULT_SHM_SIZE,
            oom_score_adj: None,
            network: NetworkMode::Networks(BTreeMap::new()),
            ports: BTreeMap::new(),
            extra_hosts: BTreeMap::new(),
            dns: Vec::new(),
            dns_search: Vec::new(),
            mounts: BTreeMap::new(),
            resources: Resources::default(),
            restart: RestartPolicy::of(super::restart::RestartCondition::No),
            healthcheck: None,
            stop_signal: None,
            stop_grace_period: DEFAULT_STOP_GRACE_PERIOD,
            logging: Logging::default(),
            depends_on: BTreeMap::new(),
            update: Update::default(),
            state: RunState::default(),
        }
    }

    /// The named volumes it mounts.
    pub fn volumes(&self) -> impl Iterator<Item = &ResourceName> {
        self.mounts.values().filter_map(|mount| match mount {
            Mount::Volume { name, .. } => Some(name),
            Mount::Bind { .. } | Mount::Tmpfs { .. } => None,
        })
    }

    /// The paths of the host that it mounts.
    pub fn binds(&self) -> impl Iterator<Item = &Path> {
        self.mounts.values().filter_map(|mount| match mount {
            Mount::Bind { source, .. } => Some(source.as_path()),
            Mount::Volume { .. } | Mount::Tmpfs { .. } => None,
        })
    }
}
