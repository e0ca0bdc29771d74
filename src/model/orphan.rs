//! What belongs to this state root by its name or place, though no record names it: its record was removed by hand, or
//! cannot be read.
//!
//! A record is written before anything of its object is on the host and goes after all of it is gone, so neither a run
//! that is under way nor one that was killed leaves orphans.

use serde::{Deserialize, Serialize};

use super::id::{ContainerId, Instance, NetworkId, ProjectName};

/// One thing that is put right by removing it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Orphan {
    Container {
        id: ContainerId,
        /// Whose it was, as the launch file of its monitor says; `None` when that is gone too.
        owner: Option<Owner>,
        /// Not empty.
        remains: Vec<Remains>,
    },
    /// The bridge of a network.
    Bridge { network: NetworkId },
    /// The host's end of a pair that joined a container to a network.
    Link { name: String },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    pub project: ProjectName,
    pub instance: Instance,
}

/// What there still is of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remains {
    Monitor,
    ControlGroup,
    NetworkNamespace,
    RunDirectory,
    /// Its directory in the state root: what it wrote, its log.
    Files,
}

impl Remains {
    /// As plans say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Remains::Monitor => "monitor",
            Remains::ControlGroup => "control group",
            Remains::NetworkNamespace => "network namespace",
            Remains::RunDirectory => "run directory",
            Remains::Files => "files",
        }
    }
}

impl Orphan {
    /// The project that it is known to be of.
    pub fn project(&self) -> Option<&ProjectName> {
        match self {
            Orphan::Container { owner, .. } => owner.as_ref().map(|owner| &owner.project),
            Orphan::Bridge { .. } | Orphan::Link { .. } => None,
        }
    }
}
