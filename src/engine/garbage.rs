//! What a state root needs of its images, and the removal of the rest.
//!
//! ```text
//! containers/*/record.json    what containers were made of, what they are declared with, updates that were refused
//! generations/*.json          what the container of a name was made of before
//! followed/*.json             tags that services follow: what is in force, was before, and is about to be
//! last-good/*.json            what is in force of each project
//! ```
//!
//! What is declared besides is an argument: manifests are not the engine's.
//!
//! # Decisions
//! * A way back is kept for what exists: for a container whose name is still used or declared. Who removes a container
//!   and does not declare it wants its image gone, too.
//! * Volumes in the trash are not touched: they have a time of their own, and are nobody's to fetch again.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::error::{At, EngineError};
use super::files::{self, Durability};
use super::followed;
use super::host::Host;
use super::image::ImageError;
use super::image::store::gc::{Patience, Removed};
use super::image::store::record::sha256;
use super::records;
use crate::model::desired::Desired;
use crate::model::garbage::{Chosen, Disk, Needs, Policy};
use crate::model::id::{Digest, Instance, Whose};
use crate::model::paths::Paths;
use crate::model::record::ContainerRecord;

/// What the container of a name was made of, before the one that has the name now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Generation {
    project: Whose,
    instance: Instance,
    image: Digest,
}

/// How long a way back is kept that no container and no manifest has a name for: `apply` may have been cut off between
/// the removal of a container and the making of its successor.
const CUT_OFF: Duration = Duration::from_secs(24 * 3600);

/// Keeps what a container was made of, before it is removed. Nobody goes back to one that was made by hand, or to one that
/// the container which stays has refused.
pub(super) fn remember(paths: &Paths, record: &ContainerRecord) -> Result<(), EngineError> {
    let (Whose::Project(_), Some(image)) = (&record.project, &record.image) else { return Ok(()) };
    files::create_directories(&paths.generations())?;
    let generation =
        Generation { project: record.project.clone(), instance: record.instance.clone(), image: image.clone() };
    let path = paths.generations().join(format!("{}.json", sha256([record.full_name().as_bytes()]).hex()));
    let known: Option<Generation> = records::unless_damaged(files::read_json(&path))?;
    // Containers are looked through only where that may matter: all of a large project may be on their way out.
    if known.as_ref() == Some(&generation) || (known.is_some() && is_refused(paths, record)?) {
        return Ok(());
    }
    files::write_json(&path, &generation, Durability::Durable)
}

fn is_refused(paths: &Paths, record: &ContainerRecord) -> Result<bool, EngineError> {
    let refuses = |other: &ContainerRecord| {
        let refused = other.refused.as_ref().and_then(|refused| refused.image.as_ref());
        other.project == record.project && other.instance == record.instance && refused == record.image.as_ref()
    };
    Ok(records::containers(paths)?.records.iter().any(|other| other.id != record.id && refuses(other)))
}

impl Host {
    /// What would be removed. The caller holds the lock of the state root, for this and for what follows from it.
    pub fn garbage(&self, declared: Option<&Desired>, policy: &Policy) -> Result<Vec<Chosen>, EngineError> {
        let needs = self.needs(declared)?;
        self.store.would_collect(&needs, policy).map_err(images)
    }

    /// Removes what may go and is wished to. Contents are only put aside: see [`Removed::trash`]. `None` when somebody
    /// was busy with images and was not waited for. The caller holds the lock of the state root.
    ///
    /// # Errors
    /// When it cannot be said what all containers need; nothing was removed then.
    pub fn remove_garbage(
        &self,
        declared: Option<&Desired>,
        policy: &Policy,
        patience: Patience,
    ) -> Result<Option<Removed>, EngineError> {
        let needs = self.needs(declared)?;
        self.store.collect(&needs, policy, patience).map_err(images)
    }

    /// How full the disk with the images is; `None` where there are none.
    pub fn image_disk(&self) -> Result<Option<Disk>, EngineError> {
        self.store.disk().map_err(images)
    }

    fn needs(&self, declared: Option<&Desired>) -> Result<Needs, EngineError> {
        let mut needs = Needs::default();
        let containers = self.every_container()?;
        for record in &containers {
            needs.made_of.extend(record.image.clone());
            needs.add_source(&record.spec.image);
            if let Some(refused) = &record.refused {
                needs.images.extend(refused.image.clone());
                needs.add_source(&refused.spec.image);
            }
        }
        let in_force = self.recall_all()?;
        for desired in in_force.iter().chain(declared) {
            desired.images.keys().for_each(|source| needs.add_source(source));
            needs.manifests.extend(desired.lock.bases.values().flat_map(|bases| bases.values().cloned()));
        }
        needs.manifests.extend(followed::needed(self.paths())?);
        for (_, generation) in self.generations()? {
            if is_way_back(&generation, &containers, declared) {
                needs.images.insert(generation.image);
            }
        }
        Ok(needs)
    }

    /// Forgets ways back for names that nothing has any more.
    pub fn forget_generations(&self, declared: Option<&Desired>, now: SystemTime) -> Result<(), EngineError> {
        let containers = records::containers(self.paths())?;
        for (path, generation) in self.generations()? {
            let written = path.metadata().and_then(|metadata| metadata.modified()).at("look at", &path)?;
            let is_old = now.duration_since(written).is_ok_and(|age| age > CUT_OFF);
            if is_old && !is_way_back(&generation, &containers.records, declared) {
                files::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn generations(&self) -> Result<Vec<(PathBuf, Generation)>, EngineError> {
        let mut generations = Vec::new();
        for path in files::objects(&self.paths().generations())? {
            // One of another version that cannot be read is none.
            if let Some(generation) = records::unless_damaged(files::read_json(&path))? {
                generations.push((path, generation));
            }
        }
        Ok(generations)
    }
}

fn is_way_back(generation: &Generation, containers: &[ContainerRecord], declared: Option<&Desired>) -> bool {
    let Generation { project, instance, image: _ } = generation;
    let is_declared =
        |desired: &Desired| desired.project == *project && desired.containers.contains_key(&instance.container);
    containers.iter().any(|record| record.project == *project && record.instance == *instance)
        || declared.is_some_and(is_declared)
}

fn images(source: ImageError) -> EngineError {
    EngineError::Images { source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::container::{AfterEnd, ContainerSpec};
    use crate::model::image::ImageSource;
    use crate::model::paths;
    use crate::model::record::Refused;

    fn container(id: &str, image: char) -> ContainerRecord {
        ContainerRecord {
            version: 1,
            id: id.parse().unwrap(),
            project: "shop".parse().unwrap(),
            instance: "web".parse().unwrap(),
            spec: ContainerSpec::of(ImageSource::Rootfs("/".into())),
            image: Some(format!("sha256:{}", String::from(image).repeat(64)).parse().unwrap()),
            addresses: Default::default(),
            network_of: None,
            users: None,
            way_out: Default::default(),
            after_end: AfterEnd::Keep,
            refused: None,
            before: None,
        }
    }

    #[test]
    fn the_way_back_is_to_what_ran_and_not_to_an_update_that_failed() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths { root: root.path().join("root"), run: root.path().join("run") };
        let kept = || {
            let [path] = files::objects(&paths.generations()).unwrap().try_into().unwrap();
            files::read_json::<Generation>(&path).unwrap().unwrap().image
        };
        let [before, mut now, failed] = [("aaaaaaaaaaaa", 'a'), ("bbbbbbbbbbbb", 'b'), ("cccccccccccc", 'c')]
            .map(|(id, image)| container(id, image));
        remember(&paths, &before).unwrap();
        let refused = Refused {
            spec: failed.spec.clone(),
            image: failed.image.clone(),
            at: SystemTime::UNIX_EPOCH,
            reason: "it ended".to_owned(),
        };
        now.refused = Some(Box::new(refused));
        let directory = paths.container(&now.id);
        files::create_directories(&directory).unwrap();
        files::write_json(&paths::record(&directory), &now, Durability::Durable).unwrap();
        remember(&paths, &failed).unwrap();
        assert_eq!(Some(kept()), before.image);
        remember(&paths, &now).unwrap();
        assert_eq!(Some(kept()), now.image);
    }
}
