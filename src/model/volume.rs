//! Volumes and mounts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::id::ResourceName;
use super::tmpfs::TmpfsOption;
use super::units::{ByteSize, FileMode};

/// Who owns a volume's root directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
    pub mode: FileMode,
}

/// A volume as declared.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Without it the directory keeps what the image had at the mount point, or root and 0755.
    pub owner: Option<Owner>,
    pub labels: BTreeMap<String, String>,
}

/// The label of a volume that was made for one container alone, and goes with it when that is asked for.
pub const ANONYMOUS: &str = "evenkeel.anonymous";

impl VolumeSpec {
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
    }
}

/// How mounts made later on one side reach the other (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Propagation {
    #[default]
    Rprivate,
    Private,
    Rshared,
    Shared,
    Rslave,
    Slave,
}

/// Whether a container may write to a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    #[default]
    ReadWrite,
    ReadOnly,
}

/// What a volume that nothing was written to yet has when a container mounts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filling {
    /// What the image has at the target, and the owner and mode of that directory.
    #[default]
    Image,
    Nothing,
}

/// What is done when the source of a bind mount is not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingSource {
    #[default]
    Refuse,
    /// A directory is made, owned by root, mode 0755.
    Create,
}

/// What is mounted at a target inside a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mount {
    Volume {
        name: ResourceName,
        access: Access,
        #[serde(default)]
        filling: Filling,
    },
    /// A path of the host, absolute.
    Bind { source: PathBuf, access: Access, propagation: Propagation, missing: MissingSource },
    Tmpfs {
        size: Option<ByteSize>,
        mode: Option<FileMode>,
        /// A later one wins over an earlier one. Before them: `nosuid` and `nodev`.
        #[serde(default)]
        options: Vec<TmpfsOption>,
    },
}
