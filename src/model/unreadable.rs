//! Records that are there and cannot be read: which object each is of, why, and what becomes of it.
//!
//! # Decisions
//! What only holds what can be made again is made again: a container, a network. A volume's record says less than the
//! manifest does, so it is written anew around the data. What another version wrote, or a disk does not give, is whole
//! as far as anybody knows: nothing is done to it until somebody has looked, and what does not need it goes on.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::id::{ContainerId, Instance, NetworkId, ResourceName, VolumeKey, Whose};
use super::record::Addresses;
use super::security::IdRange;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unreadable {
    pub object: Object,
    /// Whose it is, where that is known.
    pub project: Option<Whose>,
    /// Which declared object it is of, where that is known.
    pub name: Option<Name>,
    pub path: PathBuf,
    pub cause: Cause,
    /// The error and its causes; it names the path.
    pub problem: String,
    /// What of the rest could be read, so that nobody else is given it.
    pub users: Option<IdRange>,
    pub addresses: BTreeMap<NetworkId, Addresses>,
}

/// As the manifest and the plan call it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    Container(Instance),
    Network(ResourceName),
    Volume(ResourceName),
}

/// As the name of the record's directory says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Object {
    Container(ContainerId),
    Network(NetworkId),
    Volume(VolumeKey),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its content is no record.
    Damaged,
    /// A newer version wrote it.
    Newer,
    /// The file cannot be read.
    Unreachable,
}

impl Unreadable {
    /// What becomes of the object, or what somebody has to do.
    pub fn next_step(&self) -> &'static str {
        match (self.cause, &self.object) {
            (Cause::Newer, _) => "use the newer version, or move the record away to give its object up",
            (Cause::Unreachable, _) => "see to the file and its disk, then try again",
            (Cause::Damaged, Object::Container(_)) => {
                "`evenkeel apply` moves what is left of the container to the trash, and makes anew what is declared"
            }
            (Cause::Damaged, Object::Network(_)) => {
                "`evenkeel apply` takes what is left of the network away, and makes anew what is declared"
            }
            (Cause::Damaged, Object::Volume(_)) => {
                "the data is kept, and `evenkeel apply` of the manifest that declares the volume writes its record anew"
            }
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.problem, self.next_step())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Container(instance) => write!(f, "container {instance}"),
            Name::Network(name) => write!(f, "network {name}"),
            Name::Volume(name) => write!(f, "volume {name}"),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Container(id) => write!(f, "container {id}"),
            Object::Network(id) => write!(f, "network {id}"),
            Object::Volume(key) => write!(f, "volume {}", key.name),
        }
    }
}
