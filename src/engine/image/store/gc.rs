//! Removing from the store.
//!
//! ```text
//! records of what goes ─> rename layers and blobs that nothing has any more to .tmp-* ─> remove those, without the lock
//! ```
//!
//! Names before contents: a cut in between leaves contents without a name, never a name without contents. What has a
//! temporary name and was not removed yet, the next session sweeps.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::lock;
use super::record::SourceRecord;
use super::session::{remove_any, rename, temporary_name};
use super::{Store, entries, read_json, read_known};
use crate::engine::image::build::cache::Built;
use crate::engine::image::config;
use crate::engine::image::error::ImageError;
use crate::engine::image::manifest;
use crate::model::id::Digest;
use crate::model::image::{Image, ImageSource};

/// What becomes of layers that builds made and that no image has: they make the next build faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildCache {
    Keep,
    Remove,
}

/// What went.
#[derive(Debug, Default)]
pub struct Removed {
    pub sources: Vec<ImageSource>,
    pub images: BTreeSet<Digest>,
    /// Layers that no image has any more, by diff id.
    pub layers: Vec<Digest>,
    /// Bytes of the files in them.
    pub bytes: u64,
    /// Where they lie until they are removed.
    pub trash: Vec<PathBuf>,
}

impl Store {
    /// Forgets what `source` stands for. The image and its layers stay.
    pub fn remove(&self, source: &ImageSource) -> Result<(), ImageError> {
        let path = self.source_path(source);
        if !path.exists() {
            return Ok(());
        }
        let _alone = self.lock_alone()?;
        remove_any(&path)?;
        self.write_index()
    }

    /// Removes the images for which `goes` holds with all their names, and what nothing has any more afterwards.
    /// Contents are only renamed: the caller sees to [`Removed::trash`], at once or in another process.
    ///
    /// # Errors
    /// While a record cannot be read, whose layers would be taken for nobody's: nothing is removed.
    pub fn remove_where(&self, goes: impl Fn(&Image) -> bool, builds: BuildCache) -> Result<Removed, ImageError> {
        let mut removed = Removed::default();
        if !self.images.exists() {
            return Ok(removed);
        }
        let _alone = self.lock_alone()?;
        let (mut kept, mut records) = (Vec::new(), Vec::new());
        for path in entries(&self.images.join("sources"))? {
            let Some(record) = read_known::<SourceRecord>(&path)? else { continue };
            if goes(&record.image) {
                records.push(path);
                removed.images.insert(record.image.id);
                removed.sources.push(record.source);
            } else {
                kept.push(record.image);
            }
        }
        for path in entries(&self.images.join("ids"))? {
            match read_known::<Image>(&path)? {
                Some(image) if !goes(&image) => kept.push(image),
                Some(image) => {
                    removed.images.insert(image.id);
                    records.push(path);
                }
                None => {}
            }
        }
        let mut layers: BTreeSet<Digest> = BTreeSet::new();
        for image in &kept {
            layers.extend(image.layers.iter().cloned());
            // Those that a higher one hides whole are not mounted, but they are saved and pushed.
            let configuration = self.blob(&image.id)?.and_then(|bytes| config::parse("", &bytes).ok());
            layers.extend(configuration.into_iter().flat_map(|configuration| configuration.diff_ids));
        }
        for path in entries(&self.images.join("built"))? {
            let built: Option<Built> = read_json(&path)?;
            match (built, builds) {
                (Some(built), BuildCache::Remove) if layers.contains(&built.layer) => {}
                (Some(built), BuildCache::Keep) => drop(layers.insert(built.layer)),
                _ => records.push(path),
            }
        }
        for path in records {
            remove_any(&path)?;
        }
        self.write_index()?;
        self.put_away(&kept, &layers, &mut removed)?;
        Ok(removed)
    }

    /// Gives temporary names to layers and blobs that are not among these, so that a half-removed layer is never taken
    /// for a whole one.
    fn put_away(&self, kept: &[Image], layers: &BTreeSet<Digest>, removed: &mut Removed) -> Result<(), ImageError> {
        let mut blobs = BTreeSet::new();
        for image in kept {
            blobs.insert(image.id.clone());
            let Some(digest) = &image.manifest else { continue };
            blobs.extend(self.blob(digest)?.iter().flat_map(|index| manifest::referenced(index)));
            blobs.insert(digest.clone());
        }
        for path in unused(&self.layers, layers)? {
            if let Some(digest) = digest_of(&path) {
                removed.bytes += self.layer_record(&digest)?.map_or(0, |record| record.content_size);
                removed.layers.push(digest);
            }
            removed.trash.push(put_aside(&path)?);
        }
        for path in unused(&self.images.join("blobs/sha256"), &blobs)? {
            removed.trash.push(put_aside(&path)?);
        }
        Ok(())
    }

    /// Waits until nobody adds or removes.
    fn lock_alone(&self) -> Result<std::fs::File, ImageError> {
        let path = self.images.join("busy");
        let busy = lock::open(&path)?;
        busy.lock().map_err(ImageError::file("lock", &path))?;
        Ok(busy)
    }
}

fn unused(directory: &Path, used: &BTreeSet<Digest>) -> Result<Vec<PathBuf>, ImageError> {
    let is_used = |path: &PathBuf| digest_of(path).is_some_and(|digest| used.contains(&digest));
    Ok(entries(directory)?.into_iter().filter(|path| !is_used(path)).collect())
}

/// The digest that something in the store is named for.
fn digest_of(path: &Path) -> Option<Digest> {
    format!("sha256:{}", path.file_name()?.to_str()?).parse().ok()
}

fn put_aside(path: &Path) -> Result<PathBuf, ImageError> {
    let temporary = path.with_file_name(temporary_name());
    rename(path, &temporary)?;
    Ok(temporary)
}
