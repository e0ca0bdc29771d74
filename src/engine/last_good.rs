//! The last manifest of each project that nothing spoke against, so that a service which starts with one that is broken
//! or refused keeps what was running.
//!
//! `last-good/<project>.json` in the state root is written by whoever brings a manifest into force, `apply` too: a memory
//! of `watch` alone would be as old as its last run, and going back to it would undo what came by hand meanwhile.
//! `inputs/<digest of the inputs' paths>.json` says which project they declared, since a broken manifest does not. Both are
//! a memory, not a source: what is declared is what the manifests say.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::EngineError;
use super::files::{self, Durability};
use super::host::Host;
use super::image::store::record::sha256;
use crate::model::desired::Desired;
use crate::model::id::{ResourceName, Whose};

/// What this process knows to be in the file of the project that it kept last.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Option<(Looks, Desired)>>);

/// Whoever replaces a file makes another one, and whoever writes to it changes its times (inode(7)).
#[derive(Debug, PartialEq, Eq)]
struct Looks {
    file: (u64, u64),
    changed: (i64, i64),
}

impl Looks {
    fn of(path: &Path) -> Option<Looks> {
        let metadata = std::fs::metadata(path).ok()?;
        let (file, changed) = ((metadata.dev(), metadata.ino()), (metadata.ctime(), metadata.ctime_nsec()));
        Some(Looks { file, changed })
    }
}

impl Host {
    /// Keeps `desired` as what is in force, and that `inputs` declared it. What nobody declares is not kept.
    pub fn remember(&self, inputs: &[PathBuf], desired: &Desired) -> Result<(), EngineError> {
        if desired.project == Whose::Nobody {
            return Ok(());
        }
        self.keep_in_force(desired)?;
        if inputs.is_empty() { Ok(()) } else { keep(&self.inputs(inputs), &desired.project) }
    }

    /// `watch` does so every round: what this process wrote or saw last is known by the looks of its file.
    fn keep_in_force(&self, desired: &Desired) -> Result<(), EngineError> {
        let path = self.last_good(&desired.project);
        let mut kept = self.kept.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_kept = |(looks, known): &(Looks, Desired)| Looks::of(&path).as_ref() == Some(looks) && known == desired;
        if kept.as_ref().is_some_and(is_kept) {
            return Ok(());
        }
        keep(&path, desired)?;
        *kept = Looks::of(&path).map(|looks| (looks, desired.clone()));
        Ok(())
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
