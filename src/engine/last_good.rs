//! The last manifest of each project that nothing spoke against, so that a service which starts with one that is broken
//! or refused keeps what was running.
//!
//! `last-good/<project>.json` in the state root is written by whoever brings a manifest into force, `apply` too: a memory
//! of `watch` alone would be as old as its last run, and going back to it would undo what came by hand meanwhile.
//! `inputs/<digest of the inputs' paths>.json` says which project they declared, since a broken manifest does not. Both are
//! a memory, not a source: what is declared is what the manifests say.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::EngineError;
use super::files::{self, Durability};
use super::host::Host;
use super::image::store::record::sha256;
use crate::model::desired::Desired;
use crate::model::id::{ResourceName, Whose};

impl Host {
    /// Keeps `desired` as what is in force, and that `inputs` declared it. What nobody declares is not kept.
    pub fn remember(&self, inputs: &[PathBuf], desired: &Desired) -> Result<(), EngineError> {
        if desired.project == Whose::Nobody {
            return Ok(());
        }
        keep(&self.last_good(&desired.project), desired)?;
        if inputs.is_empty() { Ok(()) } else { keep(&self.inputs(inputs), &desired.project) }
    }

    /// Only `containers` of `desired` are in force, with what they use; the rest is as remembered. Nothing is kept where
    /// nothing is known of the rest.
    pub fn remember_some(&self, desired: &Desired, containers: &BTreeSet<ResourceName>) -> Result<(), EngineError> {
        let Some(mut known) = self.recall(&desired.project)? else { return Ok(()) };
        known.images.extend(desired.images.clone());
        known.lock.references.extend(desired.lock.references.clone());
        known.lock.bases.extend(desired.lock.bases.clone());
        known.follow.extend(desired.follow.clone());
        known.networks.extend(desired.networks.clone());
        known.volumes.extend(desired.volumes.clone());
        let some = desired.containers.iter().filter(|(name, _)| containers.contains(*name));
        known.containers.extend(some.map(|(name, container)| (name.clone(), container.clone())));
        self.remember(&[], &known)
    }

    /// What is in force of this project. A memory of another version that cannot be read is none.
    pub fn recall(&self, project: &Whose) -> Result<Option<Desired>, EngineError> {
        read(&self.last_good(project))
    }

    /// What is in force of the project that these inputs declared last.
    pub fn recall_inputs(&self, inputs: &[PathBuf]) -> Result<Option<Desired>, EngineError> {
        let project: Option<Whose> = read(&self.inputs(inputs))?;
        project.map_or(Ok(None), |project| self.recall(&project))
    }

    /// What is in force of every project.
    pub(super) fn recall_all(&self) -> Result<Vec<Desired>, EngineError> {
        let mut all = Vec::new();
        for path in files::objects(&self.paths().last_good())? {
            all.extend(read::<Desired>(&path)?);
        }
        Ok(all)
    }

    /// After `down` nothing of the project is in force any more.
    pub fn forget(&self, project: &Whose) -> Result<(), EngineError> {
        files::remove_file(&self.last_good(project))
    }

    fn last_good(&self, project: &Whose) -> PathBuf {
        self.paths().last_good().join(format!("{}.json", project.as_str()))
    }

    fn inputs(&self, inputs: &[PathBuf]) -> PathBuf {
        let separated = inputs.iter().flat_map(|input| [input.as_os_str().as_bytes(), b"\0"]);
        self.paths().inputs().join(format!("{}.json", sha256(separated).hex()))
    }
}

/// Waits for the disk only where this is not what is kept already.
fn keep<T: Serialize + DeserializeOwned + PartialEq>(path: &Path, value: &T) -> Result<(), EngineError> {
    if read::<T>(path)?.as_ref() == Some(value) {
        return Ok(());
    }
    path.parent().map_or(Ok(()), files::create_directories)?;
    files::write_json(path, value, Durability::Durable)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, EngineError> {
    match files::read_json(path) {
        Err(EngineError::Record { .. }) => Ok(None),
        other => other,
    }
}
