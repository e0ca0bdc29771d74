//! The records of a state root: reading them all, writing one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{At, EngineError};
use super::{files, shares};
use crate::model::id::{ContainerId, Digest, NetworkId, VolumeKey};
use crate::model::image::ImageSource;
use crate::model::paths::{self, Paths};
use crate::model::record::{ContainerRecord, NetworkRecord, RECORD_VERSION, VolumeRecord};
use crate::model::unreadable::{Cause, Name, Object, Unreadable};
use crate::monitor::protocol::chain;

/// Every record of a state root.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    pub networks: BTreeMap<NetworkId, NetworkRecord>,
    pub volumes: BTreeMap<VolumeKey, VolumeRecord>,
    pub containers: BTreeMap<ContainerId, ContainerRecord>,
    pub unreadable: BTreeSet<Unreadable>,
}

impl Records {
    /// What containers that are made of this image call it.
    pub fn names_of(&self, image: &Digest) -> BTreeSet<ImageSource> {
        let made_of_it = self.containers.values().filter(|record| record.image.as_ref() == Some(image));
        made_of_it.map(|record| record.spec.image.clone()).collect()
    }
}

/// The records of one kind of object. One that cannot be read keeps nobody from the others.
#[derive(Debug)]
pub struct Found<T> {
    pub records: Vec<T>,
    pub unreadable: Vec<Unreadable>,
}

pub(super) fn read_all(paths: &Paths) -> Result<Records, EngineError> {
    let networks = networks(paths)?;
    let volumes = volumes(paths)?;
    let containers = containers(paths)?;
    Ok(Records {
        networks: networks.records.into_iter().map(|record| (record.id.clone(), record)).collect(),
        volumes: volumes.records.into_iter().map(|record| (record.key.clone(), record)).collect(),
        containers: containers.records.into_iter().map(|record| (record.id.clone(), record)).collect(),
        unreadable: [networks.unreadable, volumes.unreadable, containers.unreadable].into_iter().flatten().collect(),
    })
}

pub fn containers(paths: &Paths) -> Result<Found<ContainerRecord>, EngineError> {
    read_directory(&paths.containers(), Object::Container)
}

pub fn networks(paths: &Paths) -> Result<Found<NetworkRecord>, EngineError> {
    read_directory(&paths.networks(), Object::Network)
}

pub fn volumes(paths: &Paths) -> Result<Found<VolumeRecord>, EngineError> {
    read_directory(&paths.volumes(), Object::Volume)
}

pub fn container(paths: &Paths, id: &ContainerId) -> Result<Option<ContainerRecord>, EngineError> {
    read(&paths::record(&paths.container(id)))
}

pub fn network(paths: &Paths, id: &NetworkId) -> Result<Option<NetworkRecord>, EngineError> {
    read(&paths::record(&paths.network(id)))
}

/// The networks of a container, as far as they have records.
pub(super) fn networks_of(paths: &Paths, record: &ContainerRecord) -> Result<Vec<NetworkRecord>, EngineError> {
    record.addresses.keys().filter_map(|id| network(paths, id).transpose()).collect()
}

pub(super) fn volume(paths: &Paths, key: &VolumeKey) -> Result<Option<VolumeRecord>, EngineError> {
    read(&paths::record(&paths.volume(key)))
}

/// A record that is damaged is as good as none; any other that cannot be read is an error.
pub(super) fn unless_damaged<T>(record: Result<Option<T>, EngineError>) -> Result<Option<T>, EngineError> {
    match record {
        Err(EngineError::Record { .. }) => Ok(None),
        record => record,
    }
}

fn read_directory<T: Versioned + Send, I: FromStr>(
    directory: &Path,
    object: fn(I) -> Object,
) -> Result<Found<T>, EngineError> {
    let look = |place: &PathBuf| {
        // What has no object's name is none: a copy that somebody keeps beside it.
        let id = place.file_name().and_then(|name| name.to_str()?.parse().ok())?;
        let path = paths::record(place);
        // An object that went away since the listing is no object.
        read(&path).map_err(|error| unreadable(object(id), path, &error)).transpose()
    };
    let mut found = Found { records: Vec::new(), unreadable: Vec::new() };
    for looked in shares::each(&files::objects(directory)?, look).into_iter().flatten() {
        match looked {
            Ok(record) => found.records.push(record),
            Err(unreadable) => found.unreadable.push(unreadable),
        }
    }
    Ok(found)
}

fn unreadable(object: Object, path: PathBuf, error: &EngineError) -> Unreadable {
    let cause = match error {
        EngineError::Record { .. } => Cause::Damaged,
        EngineError::NewerRecord { .. } => Cause::Newer,
        _ => Cause::Unreachable,
    };
    let content: Option<Value> = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let content = content.as_ref();
    let (project, name) = match &object {
        Object::Container(_) => (part(content, "project"), part(content, "instance").map(Name::Container)),
        Object::Network(_) => (part(content, "project"), part(content, "name").map(Name::Network)),
        Object::Volume(key) => (Some(key.project.clone()), Some(Name::Volume(key.name.clone()))),
    };
    let (users, addresses) = (part(content, "users"), part(content, "addresses"));
    let addresses = addresses.unwrap_or_default();
    Unreadable { object, project, name, path, cause, problem: chain(error), users, addresses }
}

/// What every version has said in the same way, whatever else is new.
fn part<T: DeserializeOwned>(content: Option<&Value>, name: &str) -> Option<T> {
    T::deserialize(content?.get(name)?).ok()
}

/// Reads a record. One of a newer version may look like one of this, and would lose what is new in it.
fn read<T: Versioned>(path: &Path) -> Result<Option<T>, EngineError> {
    /// What records of every version have.
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("read", path),
    };
    let read: Result<T, serde_json::Error> = serde_json::from_slice(&bytes);
    let version = match &read {
        Ok(record) => record.version(),
        // Of what cannot be understood, whether that is because it is newer.
        Err(_) => serde_json::from_slice::<Version>(&bytes).map_or(RECORD_VERSION, |found| found.version),
    };
    if version > RECORD_VERSION {
        return Err(EngineError::NewerRecord { path: path.to_owned(), found: version, known: RECORD_VERSION });
    }
    read.map(Some).map_err(|source| EngineError::Record { path: path.to_owned(), source })
}

trait Versioned: DeserializeOwned {
    fn version(&self) -> u32;
}

impl Versioned for ContainerRecord {
    fn version(&self) -> u32 {
        self.version
    }
}

impl Versioned for NetworkRecord {
    fn version(&self) -> u32 {
        self.version
    }
}

impl Versioned for VolumeRecord {
    fn version(&self) -> u32 {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What serde does not know it passes over.
    #[test]
    fn a_newer_record_that_looks_like_one_of_today_is_not_taken_for_it() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths { root: root.path().to_owned(), run: root.path().to_owned() };
        let key = VolumeKey { project: "shop".parse().unwrap(), name: "data".parse().unwrap() };
        let record = VolumeRecord { version: RECORD_VERSION, key: key.clone(), spec: Default::default() };
        let mut value = serde_json::to_value(&record).unwrap();
        let place = paths::record(&paths.volume(&key));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, value.to_string()).unwrap();
        assert_eq!(volume(&paths, &key).unwrap(), Some(record));

        value["version"] = (RECORD_VERSION + 1).into();
        value["quota"] = "1GiB".into();
        std::fs::write(&place, value.to_string()).unwrap();
        assert!(matches!(volume(&paths, &key), Err(EngineError::NewerRecord { .. })));
        let causes: Vec<Cause> = volumes(&paths).unwrap().unreadable.into_iter().map(|record| record.cause).collect();
        assert_eq!(causes, [Cause::Newer]);
    }
}
