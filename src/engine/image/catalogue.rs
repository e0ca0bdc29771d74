//! What a store has, image by image: every name of each, and what its configuration tells of it.
//!
//! ```text
//! sources/*.json   names: references, archives, root filesystems, builds  ─┐
//! ids/*.json       images, also those that nothing names any more         ─┴─> one Entry an image
//! blobs/           configurations: when made, by whom, instruction by instruction
//! ```
//!
//! An image without a name is dangling: its name stands for another one now, or it was loaded without one. A word on a
//! command line means an image by a name, by a digest, or by the beginning of its identifier, in this order, as
//! Docker's users know it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::ImageError;
use super::store::Store;
use crate::model::id::Digest;
use crate::model::image::{Archived, Image, ImageSource};
use crate::model::reference::Reference;

/// One image and everything that leads to it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub image: Image,
    /// What stands for it, sorted. Empty for a dangling image.
    pub sources: Vec<ImageSource>,
    /// The manifest by which a source was pulled, for those that were.
    pub manifests: BTreeMap<ImageSource, Digest>,
    /// What its configuration says; nothing where the configuration is not on this host.
    pub description: Description,
    /// Its layers, lowest first, as the configuration has them.
    pub diff_ids: Vec<Digest>,
    /// Bytes of the files in its layers, each layer counted once.
    pub size: u64,
    /// Layers that should be on this host and are not: containers cannot be made of it.
    pub missing: Vec<Digest>,
}

/// The words of a configuration that are for people (OCI image-spec, config.md).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Description {
    /// RFC 3339, as it is written.
    pub created: Option<String>,
    pub author: Option<String>,
    pub architecture: String,
    pub os: String,
    pub variant: Option<String>,
    /// The part that containers take from it, as it is written.
    pub config: Value,
    pub history: Vec<HistoryStep>,
    rootfs: Layers,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Layers {
    diff_ids: Option<Vec<Digest>>,
}

/// One instruction that an image was made by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryStep {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// It wrote no files.
    pub empty_layer: bool,
}

impl Description {
    pub fn created_at(&self) -> Option<SystemTime> {
        humantime::parse_rfc3339(self.created.as_deref()?).ok()
    }
}

/// A layer that a build made and that no image has: the next build goes on from there.
#[derive(Debug, Clone)]
pub struct BuildStep {
    pub layer: Digest,
    /// RFC 3339.
    pub created: String,
    /// Bytes of the files in it.
    pub size: u64,
}

/// What a word on a command line means.
#[derive(Debug, Clone, Copy)]
pub enum Meaning<'a> {
    /// An image by one of its names.
    Named(&'a Entry, &'a ImageSource),
    /// An image as such.
    Image(&'a Entry),
}

impl<'a> Meaning<'a> {
    pub fn entry(&self) -> &'a Entry {
        match self {
            Meaning::Named(entry, _) | Meaning::Image(entry) => entry,
        }
    }
}

impl Entry {
    pub fn is_dangling(&self) -> bool {
        self.sources.is_empty()
    }

    /// The references among its names.
    pub fn references(&self) -> impl Iterator<Item = (&ImageSource, Reference)> {
        self.sources.iter().filter_map(|source| Some((source, source.reference()?)))
    }

    /// `REPOSITORY@DIGEST` of what it was pulled by.
    pub fn repository_digests(&self) -> BTreeSet<String> {
        let by_digest = self.references().filter_map(|(source, reference)| {
            let digest = self.manifests.get(source)?;
            Some(format!("{}/{}@{digest}", reference.registry, reference.repository))
        });
        by_digest.collect()
    }
}

impl Store {
    /// Every image of this store, newest first; those of one age by identifier.
    pub fn catalogue(&self) -> Result<Vec<Entry>, ImageError> {
        let mut found: BTreeMap<Digest, (Image, BTreeMap<ImageSource, Option<Digest>>)> = BTreeMap::new();
        for image in self.images()? {
            found.insert(image.id.clone(), (image, BTreeMap::new()));
        }
        for record in self.records()? {
            let manifest = record.image.manifest.clone();
            let (_, sources) = found.entry(record.image.id.clone()).or_insert_with(|| (record.image, BTreeMap::new()));
            sources.insert(record.source, manifest);
        }
        let entries = found.into_values().map(|(image, sources)| self.entry(image, sources));
        let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.description.created_at()));
        Ok(entries)
    }

    /// What builds keep for the next one besides the layers of images, newest first.
    pub fn build_steps(&self) -> Result<Vec<BuildStep>, ImageError> {
        let of_images: BTreeSet<Digest> =
            self.catalogue()?.into_iter().flat_map(|entry| [entry.diff_ids, entry.image.layers]).flatten().collect();
        let mut steps = Vec::new();
        for built in self.built()?.into_iter().filter(|built| !of_images.contains(&built.layer)) {
            let size = self.layer_record(&built.layer)?.map_or(0, |record| record.content_size);
            steps.push(BuildStep { layer: built.layer, created: built.created, size });
        }
        steps.sort_by(|a, b| (&b.created, &a.layer).cmp(&(&a.created, &b.layer)));
        steps.dedup_by(|a, b| a.layer == b.layer);
        Ok(steps)
    }

    fn entry(&self, image: Image, sources: BTreeMap<ImageSource, Option<Digest>>) -> Result<Entry, ImageError> {
        let description: Description = match self.blob(&image.id)? {
            // A configuration was read when the image was made; what cannot be read now was damaged since.
            Some(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            None => Description::default(),
        };
        let diff_ids = description.rootfs.diff_ids.clone().unwrap_or_else(|| image.layers.clone());
        let distinct: BTreeSet<&Digest> = image.layers.iter().chain(&diff_ids).collect();
        let mut size = 0;
        for layer in distinct {
            size += self.layer_record(layer)?.map_or(0, |record| record.content_size);
        }
        let missing = image.layers.iter().filter(|layer| !self.has_layer(layer)).cloned().collect();
        Ok(Entry {
            manifests: sources.iter().filter_map(|(source, digest)| Some((source.clone(), digest.clone()?))).collect(),
            sources: sources.into_keys().collect(),
            image,
            description,
            diff_ids,
            size,
            missing,
        })
    }
}

/// The image that `word` means.
///
/// # Errors
/// [`ImageError::NoImage`] where it means none, [`ImageError::AmbiguousId`] where the beginning of an identifier is that
/// of several.
pub fn find<'a>(entries: &'a [Entry], word: &str) -> Result<Meaning<'a>, ImageError> {
    if let Some(named) = by_name(entries, word) {
        return Ok(named);
    }
    let digits = word.strip_prefix("sha256:").unwrap_or(word);
    let is_prefix = !digits.is_empty() && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let of_id = |entry: &&Entry| is_prefix && entry.image.id.hex().starts_with(digits);
    match entries.iter().filter(of_id).collect::<Vec<_>>().as_slice() {
        [only] => Ok(Meaning::Image(only)),
        [] => Err(ImageError::NoImage { word: word.to_owned() }),
        several => {
            let candidate = |entry: &&Entry| match entry.sources.first() {
                Some(source) => format!("{} ({source})", entry.image.id.hex()),
                None => entry.image.id.hex().to_owned(),
            };
            Err(ImageError::AmbiguousId { word: word.to_owned(), ids: several.iter().map(candidate).collect() })
        }
    }
}

/// By a reference as it was given, by `REPOSITORY@DIGEST` of what it was pulled by, or by the path of what it was made of.
fn by_name<'a>(entries: &'a [Entry], word: &str) -> Option<Meaning<'a>> {
    let wanted: Option<Reference> = word.parse().ok();
    let whole = wanted.as_ref().map(ToString::to_string);
    for entry in entries {
        for source in &entry.sources {
            let is_meant = match source {
                ImageSource::Reference(text) => whole.as_ref() == Some(text),
                ImageSource::Archive(Archived { path, .. }) | ImageSource::Rootfs(path) => path.as_os_str() == word,
                ImageSource::Build(_) => false,
            };
            if is_meant || source.to_string() == word {
                return Some(Meaning::Named(entry, source));
            }
        }
    }
    let wanted = wanted.filter(|wanted| wanted.digest.is_some())?;
    let repository = |reference: &Reference| (reference.registry.clone(), reference.repository.clone());
    entries.iter().find_map(|entry| {
        let is_meant = entry.references().any(|(source, known)| {
            repository(&known) == repository(&wanted)
                && (entry.manifests.get(source) == wanted.digest.as_ref()
                    || Some(&entry.image.id) == wanted.digest.as_ref())
        });
        // A digest is no name of its own: what is meant is the image.
        is_meant.then_some(Meaning::Image(entry))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::image::ImageConfig;

    fn entry(first: char, names: &[&str]) -> Entry {
        let id: Digest = format!("sha256:{first}{}", "0".repeat(63)).parse().unwrap();
        let sources: Vec<ImageSource> = names.iter().map(|name| ImageSource::Reference((*name).to_owned())).collect();
        Entry {
            image: Image { id: id.clone(), manifest: None, layers: Vec::new(), config: ImageConfig::default() },
            manifests: sources.iter().map(|source| (source.clone(), id.clone())).collect(),
            sources,
            description: Description::default(),
            diff_ids: Vec::new(),
            size: 0,
            missing: Vec::new(),
        }
    }

    #[test]
    fn a_name_wins_over_the_beginning_of_an_identifier() {
        let entries = [entry('a', &["docker.io/library/b:latest"]), entry('b', &[])];
        assert!(
            matches!(find(&entries, "b").unwrap(), Meaning::Named(entry, _) if entry.image.id.hex().starts_with('a'))
        );
        assert!(
            matches!(find(&entries, "b0").unwrap(), Meaning::Image(entry) if entry.image.id.hex().starts_with('b'))
        );
        assert!(matches!(find(&entries, "sha256:b").unwrap(), Meaning::Image(_)));
    }

    #[test]
    fn a_digest_of_a_repository_means_the_image() {
        let entries = [entry('a', &["localhost/web:1"])];
        let digest = entries[0].image.id.clone();
        assert!(matches!(find(&entries, &format!("localhost/web@{digest}")).unwrap(), Meaning::Image(_)));
        assert!(find(&entries, &format!("localhost/other@{digest}")).is_err());
        assert!(find(&entries, "localhost/web:2").is_err());
    }

    #[test]
    fn an_ambiguous_identifier_lists_the_candidates() {
        let mut other = entry('a', &[]);
        other.image.id = format!("sha256:a1{}", "0".repeat(62)).parse().unwrap();
        let entries = [entry('a', &["localhost/web:1"]), other];
        let error = find(&entries, "a").unwrap_err();
        let ImageError::AmbiguousId { ids, .. } = &error else { panic!("{error}") };
        assert_eq!(ids.len(), 2);
        assert!(ids[0].ends_with("(localhost/web:1)"), "{ids:?}");
        assert!(matches!(find(&entries, "a1").unwrap(), Meaning::Image(_)));
        assert!(matches!(find(&entries, "zz").unwrap_err(), ImageError::NoImage { .. }));
    }
}
