//! A project as its manifests declare it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::container::ContainerSpec;
use super::id::{ProjectName, ResourceName};
use super::image::{ImageSource, Pull};
use super::network::NetworkSpec;
use super::volume::VolumeSpec;

/// How often a declared container runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredContainer {
    pub replicas: u32,
    /// The same for every replica.
    pub spec: ContainerSpec,
}

/// Everything that one project declares. Every name in it is declared in it, dependencies have no cycle, and
/// no two containers publish the same port: the parser saw to that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    pub project: ProjectName,
    /// Every image that a container uses or that is declared on its own account, and when it is looked up.
    #[serde(with = "super::pairs")]
    pub images: BTreeMap<ImageSource, Pull>,
    /// Includes `default` where a container relies on it.
    pub networks: BTreeMap<ResourceName, NetworkSpec>,
    pub volumes: BTreeMap<ResourceName, VolumeSpec>,
    pub containers: BTreeMap<ResourceName, DesiredContainer>,
}

impl Desired {
    /// A project that declares nothing: what `down` wants.
    pub fn empty(project: ProjectName) -> Desired {
        Desired {
            project,
            images: BTreeMap::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            containers: BTreeMap::new(),
        }
    }
}
