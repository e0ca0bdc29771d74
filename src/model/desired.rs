//! A project as its manifests declare it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::container::{AfterEnd, ContainerSpec};
use super::follow::Follow;
use super::id::{ContainerId, NetworkId, ResourceName, Whose};
use super::image::{ImageSource, Pull};
use super::lock::Locking;
use super::network::NetworkSpec;
use super::volume::VolumeSpec;

/// How often a declared container runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredContainer {
    pub replicas: u32,
    /// The same for every replica.
    pub spec: ContainerSpec,
    #[serde(default)]
    pub after_end: AfterEnd,
}

/// What belongs to others and is used as it is. A manifest borrows nothing; a container made by hand may look into a
/// project from inside its networks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Borrowed {
    pub networks: BTreeMap<ResourceName, NetworkId>,
    /// Whose network namespace is shared.
    pub containers: BTreeMap<ResourceName, ContainerId>,
}

/// Everything that one project declares. Every name in it is declared in it, dependencies have no cycle, and
/// no two containers publish the same port: the parser saw to that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// Whose all this is.
    pub project: Whose,
    /// Every image that a container uses or that is declared on its own account, and when it is looked up.
    #[serde(with = "super::pairs")]
    pub images: BTreeMap<ImageSource, Pull>,
    /// Includes `default` where a container relies on it.
    pub networks: BTreeMap<ResourceName, NetworkSpec>,
    pub volumes: BTreeMap<ResourceName, VolumeSpec>,
    pub containers: BTreeMap<ResourceName, DesiredContainer>,
    #[serde(default)]
    pub borrowed: Borrowed,
    /// Which of `images` are locked: their references have a digest that the manifest does not name.
    #[serde(default)]
    pub lock: Locking,
    /// Images whose tags `watch` follows, and how.
    #[serde(default, with = "super::pairs")]
    pub follow: BTreeMap<ImageSource, Follow>,
}

impl Desired {
    /// A project that declares nothing: what `down` wants.
    pub fn empty(project: Whose) -> Desired {
        Desired {
            project,
            images: BTreeMap::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            containers: BTreeMap::new(),
            borrowed: Borrowed::default(),
            lock: Locking::default(),
            follow: BTreeMap::new(),
        }
    }
}
