//! The records of a state root: reading them all, writing one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::{At, EngineError};
use super::files;
use crate::model::id::{ContainerId, NetworkId, VolumeKey};
use crate::model::paths::{self, Paths};
use crate::model::record::{ContainerRecord, NetworkRecord, RECORD_VERSION, VolumeRecord};

/// Every record of a state root.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    pub networks: BTreeMap<NetworkId, NetworkRecord>,
    pub volumes: BTreeMap<VolumeKey, VolumeRecord>,
    pub containers: BTreeMap<ContainerId, ContainerRecord>,
}

pub(super) fn read_all(paths: &Paths) -> Result<Records, EngineError> {
    let mut records = Records::default();
    for record in read_directory::<NetworkRecord>(&paths.networks())? {
        records.networks.insert(record.id.clone(), record);
    }
    for record in read_directory::<VolumeRecord>(&paths.volumes())? {
        records.volumes.insert(record.key.clone(), record);
    }
    for record in containers(paths)? {
        records.containers.insert(record.id.clone(), record);
    }
    Ok(records)
}

pub fn containers(paths: &Paths) -> Result<Vec<ContainerRecord>, EngineError> {
    read_directory(&paths.containers())
}

pub fn container(paths: &Paths, id: &ContainerId) -> Result<Option<ContainerRecord>, EngineError> {
    read(&paths::record(&paths.container(id)))
}

pub fn network(paths: &Paths, id: &NetworkId) -> Result<Option<NetworkRecord>, EngineError> {
    read(&paths::record(&paths.network(id)))
}

pub(super) fn volume(paths: &Paths, key: &VolumeKey) -> Result<Option<VolumeRecord>, EngineError> {
    read(&paths::record(&paths.volume(key)))
}

fn read_directory<T: DeserializeOwned>(directory: &Path) -> Result<Vec<T>, EngineError> {
    let objects: Vec<PathBuf> = files::objects(directory)?;
    // An object that went away since the listing is no object.
    objects.iter().filter_map(|object| read(&paths::record(object)).transpose()).collect()
}

/// Reads a record, whose version comes first: a newer format must not be misread.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, EngineError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("read", path),
    };
    let wrong = |source| EngineError::Record { path: path.to_owned(), source };
    match serde_json::from_slice(&bytes) {
        Ok(record) => Ok(Some(record)),
        Err(source) => match serde_json::from_slice::<Versioned>(&bytes) {
            Ok(Versioned { version }) if version > RECORD_VERSION => {
                Err(EngineError::NewerRecord { path: path.to_owned(), found: version, known: RECORD_VERSION })
            }
            _ => Err(wrong(source)),
        },
    }
}
