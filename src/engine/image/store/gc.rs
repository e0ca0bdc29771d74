//! Removing from the store.
//!
//! ```text
//! look ─> choose ─> unlink records of what goes ─> fsync ─> rename contents to .gone-*  ── all of it with `busy` held
//!                                                            └─> remove those, without the lock: see `trash`
//! ```
//!
//! Names before contents: a cut in between leaves contents without a name, never a name without contents. They belong to
//! nothing then, and go the next time.
//!
//! Everybody who adds holds `busy` from before the first look at what is here until the record is written, so no layer
//! goes that a pull counts on. What goes is [`choose`]n with the lock held, from facts that hold as long.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::record::SourceRecord;
use super::session::{remove_any, rename, sync_directory};
use super::{Store, entries, lock, read_if_understood, read_strictly, trash};
use crate::engine::image::build::cache::Built;
use crate::engine::image::catalogue::Entry;
use crate::engine::image::error::ImageError;
use crate::engine::image::manifest;
use crate::model::event::Event;
use crate::model::garbage::{
    CacheFact, Chosen, Disk, Extent, Facts, ImageFact, Needs, Policy, StepFact, Thing, choose,
};
use crate::model::id::Digest;
use crate::model::image::{Image, ImageSource};

/// What went.
#[derive(Debug, Default)]
pub struct Removed {
    pub chosen: Vec<Chosen>,
    /// Names of the images that went.
    pub sources: Vec<ImageSource>,
    /// Where the contents lie until they are removed.
    pub trash: Vec<PathBuf>,
}

impl Removed {
    /// Bytes of the files that went.
    pub fn bytes(&self) -> u64 {
        self.chosen.iter().map(|chosen| chosen.bytes).sum()
    }
}

/// What happens while somebody adds or removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    Wait,
    /// Nothing is done then.
    GiveUp,
}

/// Whoever fetches, saves or pushes holds the store for as long as that takes; waiting here holds the lock of the root.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

impl Store {
    /// Forgets what `source` stands for. The image and its layers stay.
    pub fn remove(&self, source: &ImageSource) -> Result<(), ImageError> {
        let path = self.source_path(source);
        if !path.exists() {
            return Ok(());
        }
        let _alone = self.lock_alone(Patience::Wait)?;
        let record: Option<SourceRecord> = read_if_understood(&path)?;
        remove_any(&path)?;
        record.iter().for_each(|record| self.teller.tell(&self.teller.of_image("untag", &record.image, Some(source))));
        self.write_index()
    }

    /// Removes what [`choose`] chooses. Contents are only renamed: the caller sees to [`Removed::trash`], at once or
    /// elsewhere. `None` when somebody was busy with the store and was not waited for.
    ///
    /// # Errors
    /// While a record cannot be read, whose layers would be taken for nobody's: nothing was removed then.
    pub fn collect(&self, needs: &Needs, policy: &Policy, patience: Patience) -> Result<Option<Removed>, ImageError> {
        if !self.images.exists() {
            return Ok(Some(Removed::default()));
        }
        let Some(_alone) = self.lock_alone(patience)? else { return Ok(None) };
        let facts = self.facts(policy)?;
        let chosen = choose_knowing_all(&facts, needs, policy)?;
        self.carry_out(&facts, chosen).map(Some)
    }

    /// What [`Store::collect`] would remove now.
    pub fn would_collect(&self, needs: &Needs, policy: &Policy) -> Result<Vec<Chosen>, ImageError> {
        if !self.images.exists() {
            return Ok(Vec::new());
        }
        let _alone = self.lock_alone(Patience::Wait)?;
        choose_knowing_all(&self.facts(policy)?, needs, policy)
    }

    fn carry_out(&self, facts: &Facts, chosen: Vec<Chosen>) -> Result<Removed, ImageError> {
        let mut removed = Removed::default();
        let mut records = Vec::new();
        for Chosen { thing, .. } in &chosen {
            match thing {
                Thing::Record(path) => records.push(self.state_root().join(path)),
                Thing::Image(id) => {
                    let names = facts.images.iter().filter(|image| image.id == *id).flat_map(|image| &image.names);
                    removed.sources.extend(names.cloned());
                    records.push(self.id_path(id));
                }
                Thing::Step(key) => records.push(self.built_path(key)),
                Thing::Cache(_) | Thing::Layer(_) | Thing::Blob(_) => {}
            }
        }
        // While its other record is there, an image is found; so names are first among the records, too.
        let names = removed.sources.iter().map(|source| self.source_path(source));
        let all: Vec<PathBuf> = names.chain(records).collect();
        let mut events = Vec::new();
        for Chosen { thing, why, .. } in &chosen {
            if let Thing::Image(id) = thing {
                events.extend(self.removal_events(id, facts)?.into_iter().map(|event| event.with("reason", why)));
            }
        }
        for path in &all {
            remove_any(path)?;
        }
        events.iter().for_each(|event| self.teller.tell(event));
        if !all.is_empty() {
            for directory in ["sources", "ids", "built"].map(|name| self.images.join(name)) {
                sync_directory(&directory)?;
            }
            self.write_index()?;
        }
        for Chosen { thing, .. } in &chosen {
            let path = match thing {
                Thing::Record(_) | Thing::Image(_) | Thing::Step(_) => continue,
                Thing::Cache(name) => self.caches().join(name),
                Thing::Layer(diff_id) => self.layers.join(diff_id.hex()),
                Thing::Blob(digest) => self.blob_path(digest),
            };
            removed.trash.push(put_aside(&path)?);
        }
        removed.chosen = chosen;
        Ok(removed)
    }

    /// What is told when this image goes: of each of its names, and then of itself.
    fn removal_events(&self, id: &Digest, facts: &Facts) -> Result<Vec<Event>, ImageError> {
        let Some(image) = self.known(id)? else { return Ok(Vec::new()) };
        let names = facts.images.iter().filter(|fact| fact.id == *id).flat_map(|fact| &fact.names);
        let mut events: Vec<Event> = names.map(|name| self.teller.of_image("untag", &image, Some(name))).collect();
        events.push(self.teller.of_image("delete", &image, None));
        Ok(events)
    }

    /// Everything here that could go; the caller is alone with the store. What takes long to measure is looked at only
    /// where it may go.
    ///
    /// # Errors
    /// When the record of an image cannot be read.
    fn facts(&self, policy: &Policy) -> Result<Facts, ImageError> {
        let mut facts = Facts::default();
        for path in entries(&self.images.join("ids"))? {
            read_strictly::<Image>(&path)?;
        }
        for path in entries(&self.images.join("sources"))? {
            read_strictly::<SourceRecord>(&path)?;
        }
        for entry in self.catalogue()? {
            facts.images.push(self.image_fact(entry)?);
        }
        for path in entries(&self.images.join("built"))? {
            let built: Option<Built> = read_if_understood(&path)?;
            match (built, digest_of(&path)) {
                (Some(built), Some(key)) if self.has_layer(&built.layer) => {
                    facts.steps.push(StepFact { key, layer: built.layer, used: modified(&path)? });
                }
                _ => drop(facts.damaged.insert(self.name_of(&path))),
            }
        }
        for digest in digests(&self.layers)? {
            let size = self.layer_record(&digest)?.map_or(0, |record| record.content_size);
            facts.layers.insert(digest, size);
        }
        for digest in digests(&self.images.join("blobs/sha256"))? {
            let path = self.blob_path(&digest);
            let metadata = fs::metadata(&path).map_err(ImageError::file("look at", &path))?;
            facts.blobs.insert(digest, metadata.len());
        }
        if policy.only.is_none() && matches!(policy.extent, Extent::All | Extent::Bytes(_)) {
            for path in entries(&self.caches())? {
                let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
                let (name, bytes) = (name.to_owned(), size_of(&path)?);
                facts.caches.push(CacheFact { name, bytes, used: modified(&path)? });
            }
        }
        Ok(facts)
    }

    fn image_fact(&self, entry: Entry) -> Result<ImageFact, ImageError> {
        let Image { id, manifest, layers, config: _ } = entry.image;
        let mut blobs = BTreeSet::from([id.clone()]);
        for digest in entry.manifests.values().chain(&manifest) {
            blobs.extend(self.blob(digest)?.iter().flat_map(|index| manifest::referenced(index)));
            blobs.insert(digest.clone());
        }
        let path = self.id_path(&id);
        let used = match entry.sources.first() {
            Some(source) if !path.exists() => modified(&self.source_path(source))?,
            _ => modified(&path)?,
        };
        Ok(ImageFact {
            manifests: entry.manifests.into_values().chain(manifest).collect(),
            names: entry.sources.into_iter().collect(),
            layers: layers.into_iter().chain(entry.diff_ids).collect(),
            blobs,
            used,
            id,
        })
    }

    /// The image is used now: until it was unused for long enough, it stays.
    pub fn mark_used(&self, id: &Digest) -> Result<(), ImageError> {
        mark_used(&self.id_path(id))
    }

    /// The same for what a build remembers.
    pub(in crate::engine::image) fn mark_step_used(&self, key: &Digest) -> Result<(), ImageError> {
        mark_used(&self.built_path(key))
    }

    /// How full the file system with the layers is; `None` where there are none.
    pub fn disk(&self) -> Result<Option<Disk>, ImageError> {
        if !self.layers.exists() {
            return Ok(None);
        }
        let found = rustix::fs::statvfs(&self.layers);
        let found = found.map_err(|errno| ImageError::file("look at", &self.layers)(errno.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        let used = bytes(found.f_blocks.saturating_sub(found.f_bfree));
        Ok(Some(Disk { used, available: bytes(found.f_bavail) }))
    }

    /// Where builds keep directories for their commands.
    pub fn caches(&self) -> PathBuf {
        self.state_root().join("build-cache")
    }

    fn name_of(&self, path: &Path) -> String {
        path.strip_prefix(self.state_root()).unwrap_or(path).display().to_string()
    }

    /// Alone with the store: nobody adds or removes.
    fn lock_alone(&self, patience: Patience) -> Result<Option<File>, ImageError> {
        let path = self.images.join("busy");
        let busy = lock::open(&path)?;
        match patience {
            Patience::Wait => {
                let deadline = Instant::now() + LONGEST_WAIT;
                loop {
                    match busy.try_lock() {
                        Ok(()) => break,
                        Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(BETWEEN_TRIES),
                        Err(TryLockError::WouldBlock) => return Err(ImageError::Busy),
                        Err(TryLockError::Error(error)) => return Err(ImageError::file("lock", &path)(error)),
                    }
                }
            }
            Patience::GiveUp => match busy.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(ImageError::file("lock", &path)(error)),
            },
        }
        Ok(Some(busy))
    }
}

/// The digest that something in the store is named for.
fn digest_of(path: &Path) -> Option<Digest> {
    format!("sha256:{}", path.file_stem()?.to_str()?).parse().ok()
}

fn digests(directory: &Path) -> Result<Vec<Digest>, ImageError> {
    Ok(entries(directory)?.iter().filter_map(|path| digest_of(path)).collect())
}

fn modified(path: &Path) -> Result<SystemTime, ImageError> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(ImageError::file("look at", path))
}

/// Sets the time of a file; one that is not there is not used.
fn mark_used(path: &Path) -> Result<(), ImageError> {
    match File::open(path).and_then(|file| file.set_modified(SystemTime::now())) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ImageError::file("mark as used", path)(error))
        }
        _ => Ok(()),
    }
}

/// Bytes of a file, or of the files in a directory.
fn size_of(path: &Path) -> Result<u64, ImageError> {
    let (mut bytes, mut open) = (0, vec![path.to_owned()]);
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path).map_err(ImageError::file("look at", &path))?;
        if !metadata.is_dir() {
            bytes += metadata.len();
            continue;
        }
        for entry in fs::read_dir(&path).map_err(ImageError::file("list", &path))? {
            open.push(entry.map_err(ImageError::file("list", &path))?.path());
        }
    }
    Ok(bytes)
}

/// Nothing is chosen while the layers of a container are not known.
fn choose_knowing_all(facts: &Facts, needs: &Needs, policy: &Policy) -> Result<Vec<Chosen>, ImageError> {
    match needs.unknown(facts) {
        Some(id) => Err(ImageError::UnknownImage(id.clone())),
        None => Ok(choose(facts, needs, policy)),
    }
}

fn put_aside(path: &Path) -> Result<PathBuf, ImageError> {
    let aside = path.with_file_name(trash::name());
    rename(path, &aside)?;
    Ok(aside)
}
