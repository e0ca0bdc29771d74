//! Removing from the store.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::lock;
use super::session::{remove_any, rename, temporary_name};
use super::{Store, entries, read_json};
use crate::engine::image::build::cache::Built;
use crate::engine::image::error::ImageError;
use crate::engine::image::manifest;
use crate::model::id::Digest;
use crate::model::image::{Image, ImageSource};

impl Store {
    /// Forgets what `source` stands for. The image and its layers stay until [`Store::remove_unused`].
    pub fn remove(&self, source: &ImageSource) -> Result<(), ImageError> {
        let path = self.source_path(source);
        if !path.exists() {
            return Ok(());
        }
        let _alone = self.lock_alone()?;
        remove_any(&path)?;
        self.write_index()
    }

    /// Removes every image whose identifier is not in `in_use`, and then the layers and blobs that no image has.
    pub fn remove_unused(&self, in_use: &BTreeSet<Digest>) -> Result<(), ImageError> {
        if !self.images.exists() {
            return Ok(());
        }
        let _alone = self.lock_alone()?;
        let (mut kept, mut records) = (Vec::new(), Vec::new());
        for record in self.records()? {
            match in_use.contains(&record.image.id) {
                true => kept.push(record.image),
                false => records.push(self.source_path(&record.source)),
            }
        }
        for path in entries(&self.images.join("ids"))? {
            match read_json::<Image>(&path)? {
                Some(image) if in_use.contains(&image.id) => kept.push(image),
                _ => records.push(path),
            }
        }
        let layers: BTreeSet<&str> = kept.iter().flat_map(|image| &image.layers).map(Digest::hex).collect();
        for path in entries(&self.images.join("built"))? {
            let built: Option<Built> = read_json(&path)?;
            if built.is_none_or(|built| !layers.contains(built.layer.hex())) {
                records.push(path);
            }
        }
        // Names before contents: a cut in between leaves contents without a name, never a name without contents.
        for path in records {
            remove_any(&path)?;
        }
        self.write_index()?;
        let mut blobs = BTreeSet::new();
        for image in &kept {
            blobs.insert(image.id.clone());
            let Some(digest) = &image.manifest else { continue };
            blobs.extend(self.blob(digest)?.iter().flat_map(|index| manifest::referenced(index)));
            blobs.insert(digest.clone());
        }
        let blobs: BTreeSet<&str> = blobs.iter().map(Digest::hex).collect();
        let mut failed = None;
        let unused = |directory: &Path, used: &BTreeSet<&str>| -> Result<Vec<PathBuf>, ImageError> {
            let is_used = |path: &PathBuf| {
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| used.contains(name))
            };
            Ok(entries(directory)?.into_iter().filter(|path| !is_used(path)).collect())
        };
        let all = [unused(&self.layers, &layers)?, unused(&self.images.join("blobs/sha256"), &blobs)?].concat();
        for path in all {
            // Away under a temporary name first, so that a half-removed layer is never taken for a whole one.
            let temporary = path.with_file_name(temporary_name());
            if let Err(error) = rename(&path, &temporary).and_then(|()| remove_any(&temporary)) {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Waits until nobody adds or removes.
    fn lock_alone(&self) -> Result<std::fs::File, ImageError> {
        let path = self.images.join("busy");
        let busy = lock::open(&path)?;
        busy.lock().map_err(ImageError::file("lock", &path))?;
        Ok(busy)
    }
}
