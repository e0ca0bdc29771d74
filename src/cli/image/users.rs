//! Which containers keep an image here: those that were made of it, and those whose declaration names it. And which run on
//! a layer.

use super::find::failure;
use crate::cli::failure::Failure;
use crate::engine::image::catalogue::Entry;
use crate::engine::image::store::Store;
use crate::engine::records;
use crate::model::actual::Actual;
use crate::model::garbage::Needs;
use crate::model::id::Digest;
use crate::model::image::ImageSource;
use crate::model::paths::Paths;
use crate::model::record::ContainerRecord;

/// The containers of this state root.
pub struct Users {
    records: Vec<ContainerRecord>,
    unreadable: Vec<String>,
}

impl Users {
    pub fn read(paths: &Paths) -> Result<Users, Failure> {
        let found = records::containers(paths)?;
        Ok(Users { records: found.records, unreadable: found.unreadable.iter().map(ToString::to_string).collect() })
    }

    /// Containers that were made of the image, or will be: one that no image is known of yet, by the source.
    pub fn of_image(&self, entry: &Entry) -> Vec<String> {
        let is_user = |record: &&ContainerRecord| match &record.image {
            Some(id) => *id == entry.image.id,
            None => entry.sources.contains(&record.spec.image),
        };
        self.records.iter().filter(is_user).map(ContainerRecord::full_name).collect()
    }

    /// Containers whose declaration has this name.
    pub fn of_name(&self, source: &ImageSource) -> Vec<String> {
        let has_name = |record: &&ContainerRecord| record.spec.image == *source;
        self.records.iter().filter(has_name).map(ContainerRecord::full_name).collect()
    }

    /// The images that they were made of.
    pub fn needs(&self) -> Needs {
        let made_of = self.records.iter().filter_map(|record| record.image.clone()).collect();
        Needs { made_of, ..Needs::default() }
    }

    /// An error while there are containers of which nobody can say what they are made of.
    pub fn ensure_all_known(&self) -> Result<(), Failure> {
        match self.unreadable.is_empty() {
            true => Ok(()),
            false => Err(Failure::list("not all containers can be read", self.unreadable.iter().cloned()).hint(
                "images that they use would be taken for unused; `evenkeel plan` says what can be done about them",
            )),
        }
    }
}

/// The containers that may run on a layer: they would lose the files that take others' places, since an overlay does not
/// hold what lies below it. What cannot be read is among them, and whoever builds: a build by hand holds no lock of the root.
pub fn running_on(layer: &Digest, store: &Store, actual: &Actual, all: &[Entry]) -> Result<Vec<String>, Failure> {
    let has_it = |id: &Digest| all.iter().any(|entry| entry.image.id == *id && entry.image.layers.contains(layer));
    let runs_on_it = actual
        .containers
        .values()
        .filter(|container| container.liveness.is_up() && container.record.image.as_ref().is_none_or(has_it));
    let running = runs_on_it.map(|container| container.record.full_name());
    let unreadable = actual.unreadable.iter().map(|record| record.problem.clone());
    // Whoever is at it fetches, or builds.
    let building = store.alone().map_err(failure)?.is_none().then(|| "an image that is being made".to_owned());
    Ok(running.chain(unreadable).chain(building).collect())
}
