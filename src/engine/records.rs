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
use crate::model::way_out::Order;
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
    read.map(|record| Some(record.explicit())).map_err(|source| EngineError::Record { path: path.to_owned(), source })
}

trait Versioned: DeserializeOwned {
    fn version(&self) -> u32;

    /// With what was not written by the version that wrote it, since it went without saying.
    fn explicit(self) -> Self {
        self
    }
}

impl Versioned for ContainerRecord {
    fn version(&self) -> u32 {
        self.version
    }

    fn explicit(self) -> ContainerRecord {
        let way_out = if self.version < 3 { Order::Identifiers } else { self.way_out };
        ContainerRecord { way_out, ..self }
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
    use crate::model::container::ContainerSpec;
    use crate::model::record::Addresses;
    use crate::model::way_out::WayOut;

    /// A default route that moves breaks connections: an upgrade is no reason for one.
    #[test]
    fn a_container_of_an_earlier_version_keeps_the_way_out_that_it_has() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths { root: root.path().to_owned(), run: root.path().to_owned() };
        let network = |id: &str, name: &str| NetworkRecord {
            version: 2,
            id: id.parse().unwrap(),
            project: "shop".parse().unwrap(),
            name: name.parse().unwrap(),
            spec: Default::default(),
            subnet: "10.0.0.0/24".parse().unwrap(),
            subnet6: None,
        };
        // By identifier `back` is the first, by name `aside`.
        let networks = [network("00000001", "back"), network("00000002", "aside")];
        let own = |v4: &str| Addresses { v4: v4.parse().unwrap(), v6: None };
        let id: ContainerId = "0123456789ab".parse().unwrap();
        let place = paths::record(&paths.container(&id));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        for (version, way_out) in [(2, "back"), (RECORD_VERSION, "aside")] {
            let record = ContainerRecord {
                version,
                id: id.clone(),
                project: "shop".parse().unwrap(),
                instance: "web".parse().unwrap(),
                spec: ContainerSpec::of(ImageSource::Rootfs("/".into())),
                image: None,
                addresses: [(networks[0].id.clone(), own("10.0.0.2")), (networks[1].id.clone(), own("10.0.1.2"))]
                    .into(),
                network_of: None,
                users: None,
                way_out: Order::Names,
                after_end: Default::default(),
                refused: None,
                before: None,
            };
            std::fs::write(&place, serde_json::to_vec(&record).unwrap()).unwrap();
            let read = container(&paths, &id).unwrap().unwrap();
            assert_eq!(WayOut::of(&read, &networks).v4.unwrap().name.as_str(), way_out);
            // Whatever is changed of it while it runs.
            std::fs::write(&place, serde_json::to_vec(&ContainerRecord { version: 3, ..read }).unwrap()).unwrap();
            let read = container(&paths, &id).unwrap().unwrap();
            assert_eq!(WayOut::of(&read, &networks).v4.unwrap().name.as_str(), way_out);
        }
    }

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
