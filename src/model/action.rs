//! One engine operation. Each is idempotent: done means "it is so now".

use serde::{Deserialize, Serialize};

use super::container::Condition;
use super::firewall::Ruleset;
use super::id::{ContainerId, Digest, NetworkId, VolumeKey};
use super::image::ImageSource;
use super::lock::Locks;
use super::names::NameTable;
use super::orphan::Orphan;
use super::record::{ContainerRecord, NetworkRecord, VolumeRecord};
use super::units::Timespan;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// The image is whole on this host, fresh from its source: pulled, imported or built.
    FetchImage {
        source: ImageSource,
        /// What the bases of a build are locked to, all of them. `None` where there is no lock file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bases: Option<Locks>,
    },
    /// The layers of this image are whole again, taken from what it came from. It stays the same image.
    RestoreImage { id: Digest },
    /// Directory and record are there, owner and mode as declared.
    EnsureVolume { record: VolumeRecord },
    /// The volume's data went to the trash. Refused while a container's record names it.
    RemoveVolume { key: VolumeKey },
    /// Record, bridge, addresses and settings are there. Repairs what is missing, keeps what is right.
    EnsureNetwork { record: NetworkRecord },
    /// Bridge and record are gone. Refused while a container's record names it.
    RemoveNetwork { id: NetworkId },
    /// The whole table is this, replaced in one transaction.
    SetFirewall { ruleset: Ruleset },
    /// Containers on this network resolve these names.
    SetNames { network: NetworkId, names: NameTable },
    /// The record is stored, the writable layer is there, named volumes that are empty hold what the image has.
    CreateContainer { record: Box<ContainerRecord> },
    /// The record is this one, and a running container has its live fields: limits, restart policy, health check,
    /// log settings, stop settings.
    UpdateContainer { record: Box<ContainerRecord> },
    /// Network namespace, links, addresses and routes are there, and names of the outside are asked if a network leads
    /// there. Does not touch processes.
    ConnectContainer { id: ContainerId },
    /// A monitor runs it. Includes `ConnectContainer`. Done when the first process runs, or when it could not
    /// be started and the restart policy has nothing more to say (then an error).
    StartContainer { id: ContainerId },
    /// Its processes go on, if they were frozen.
    ResumeContainer { id: ContainerId },
    /// It has ended and its monitor too: stop signal, grace period, SIGKILL. Network and files stay.
    StopContainer { id: ContainerId },
    /// Its network namespace and its links are gone, as after a boot; files and record stay. Refused while it runs.
    DisconnectContainer { id: ContainerId },
    /// The record is this one, as before the update, and remembers what `failed` was to be and why it could not. That is
    /// the container that was to take the place of this one, or this one itself where it was updated in place.
    RefuseUpdate { record: Box<ContainerRecord>, failed: ContainerId, reason: String },
    /// Process, monitor, links, namespace, cgroup, files and record are gone. Volumes stay.
    RemoveContainer { id: ContainerId },
    /// Nothing of it is left: monitor, processes, control group, namespace, links. Refused where a record names it.
    RemoveOrphan { orphan: Orphan },
    /// Waits until the condition holds, and then until it has held for as long as `stays` without a restart; an error
    /// when it cannot hold any more, or does not hold after `timeout`.
    AwaitContainer {
        id: ContainerId,
        condition: Condition,
        timeout: Timespan,
        #[serde(default)]
        stays: Timespan,
    },
}

impl Action {
    /// What it does, in one word of the present tense.
    pub fn verb(&self) -> &'static str {
        match self {
            Action::FetchImage { source, bases: _ } => source.how_made().verb,
            Action::RestoreImage { .. } => "restore",
            Action::EnsureVolume { .. } | Action::EnsureNetwork { .. } => "set up",
            Action::RemoveVolume { .. }
            | Action::RemoveNetwork { .. }
            | Action::RemoveContainer { .. }
            | Action::RemoveOrphan { .. } => "remove",
            Action::SetFirewall { .. } | Action::SetNames { .. } => "set",
            Action::CreateContainer { .. } => "create",
            Action::UpdateContainer { .. } => "update",
            Action::ConnectContainer { .. } => "connect",
            Action::DisconnectContainer { .. } => "disconnect",
            Action::RefuseUpdate { .. } => "refuse the update of",
            Action::StartContainer { .. } => "start",
            Action::ResumeContainer { .. } => "resume",
            Action::StopContainer { .. } => "stop",
            Action::AwaitContainer { .. } => "await",
        }
    }
}
