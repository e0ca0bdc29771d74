//! Layers that are damaged or gone, made again from what their image came from. The image stays the one that it is, and so do
//! the containers that are made of it.
//!
//! * Of a reference the manifest is fetched by its digest, whatever its tag stands for now.
//! * Of an archive or a root filesystem the file is read again, if it is the one that it was.
//! * A layer that several images have comes from whichever of them is found: that of a base serves the images built on it.
//!
//! What a build or a commit has added came from nowhere and cannot be made again.

use std::collections::BTreeSet;

use super::archive;
use super::ensure::{self, Tools};
use super::error::ImageError;
use super::options::Options;
use super::pull;
use super::rootfs;
use super::store::Store;
use super::store::record::SourceRecord;
use crate::model::id::Digest;
use crate::model::image::{Archived, Image, ImageSource};
use crate::model::reference::Reference;

/// Something that layers can be taken from.
struct Origin {
    /// A reference has a digest here.
    source: ImageSource,
    layers: Vec<Digest>,
}

/// Whether there is something to take every layer of the image from that is not whole. Whether it still gives them is not
/// asked. `names`: what containers call the image, which may stand for another one by now.
pub fn is_restorable(store: &Store, image: &Image, names: &BTreeSet<ImageSource>) -> Result<bool, ImageError> {
    let wanted = store.lacking(image);
    let origins = origins(store, image, &wanted, names)?;
    Ok(wanted.iter().all(|layer| origins.iter().any(|origin| origin.layers.contains(layer))))
}

/// Whether it is known that some layer cannot be had again: every registry that had it says that it has that image no more,
/// as after a clean-up of what has no tag. One that does not answer may have it yet.
pub fn is_lost(
    store: &Store,
    image: &Image,
    names: &BTreeSet<ImageSource>,
    options: &Options,
) -> Result<bool, ImageError> {
    let wanted = store.lacking(image);
    let origins = origins(store, image, &wanted, names)?;
    let mut left = wanted;
    for Origin { source, layers } in origins {
        let is_gone = match &source {
            ImageSource::Reference(text) => {
                matches!(pull::current_digest(text, options), Err(ImageError::NotFound { .. }))
            }
            _ => false,
        };
        left.retain(|layer| is_gone || !layers.contains(layer));
    }
    Ok(!left.is_empty())
}

/// Makes the layers of an image again that are not whole, and those that somebody has found to be `damaged`.
///
/// # Errors
/// [`ImageError::NotRestored`] with the first reason, where some of them are as they were.
pub fn restore(
    store: &Store,
    image: &Image,
    damaged: &BTreeSet<Digest>,
    names: &BTreeSet<ImageSource>,
    tools: Tools<'_>,
) -> Result<(), ImageError> {
    let mut wanted = store.lacking(image);
    wanted.extend(image.layers.iter().filter(|layer| damaged.contains(layer)).cloned());
    let mut reason = None;
    for Origin { source, layers } in origins(store, image, &wanted, names)? {
        let from_here: BTreeSet<Digest> = layers.into_iter().filter(|layer| wanted.contains(layer)).collect();
        if from_here.is_empty() {
            continue;
        }
        match take(store, &source, &from_here, tools) {
            Ok(taken) => wanted.retain(|layer| !(from_here.contains(layer) && taken.layers.contains(layer))),
            Err(error) => drop(reason.get_or_insert(Box::new(error))),
        }
    }
    match wanted.is_empty() {
        true => Ok(()),
        false => Err(ImageError::NotRestored { layers: wanted, reason }),
    }
}

/// What may have some of the wanted layers, the image's own sources first.
fn origins(
    store: &Store,
    image: &Image,
    wanted: &BTreeSet<Digest>,
    names: &BTreeSet<ImageSource>,
) -> Result<Vec<Origin>, ImageError> {
    let has_some = |image: &Image| image.layers.iter().any(|layer| wanted.contains(layer));
    let mut found: Vec<Origin> = Vec::new();
    let mut add = |source: ImageSource, layers: &[Digest]| {
        if found.iter().all(|known| known.source != source) {
            found.push(Origin { source, layers: layers.to_vec() });
        }
    };
    let (own, others): (Vec<_>, Vec<_>) =
        store.records()?.into_iter().filter(|record| has_some(&record.image)).partition(|r| r.image.id == image.id);
    // Files of this host before registries.
    for record in own.iter().chain(&others) {
        if let ImageSource::Archive(Archived { path, .. }) | ImageSource::Rootfs(path) = &record.source
            && rootfs::stamp(path).is_ok_and(|stamp| record.stamp.as_ref() == Some(&stamp))
        {
            add(record.source.clone(), &record.image.layers);
        }
    }
    let named = names.iter().map(|name| (name, image));
    for (source, image) in recorded(&own).chain(named).chain(recorded(&others)) {
        if let (Some(reference), Some(manifest)) = (source.reference(), &image.manifest) {
            let exact = Reference { digest: Some(manifest.clone()), ..reference };
            add(ImageSource::Reference(exact.to_string()), &image.layers);
        }
    }
    Ok(found)
}

fn recorded(records: &[SourceRecord]) -> impl Iterator<Item = (&ImageSource, &Image)> {
    records.iter().map(|record| (&record.source, &record.image))
}

/// Unpacks these layers anew, wherever they are wanted, and names nothing.
fn take(store: &Store, source: &ImageSource, layers: &BTreeSet<Digest>, tools: Tools<'_>) -> Result<Image, ImageError> {
    let session = store.session(source)?.doubting(layers.clone());
    match source {
        ImageSource::Reference(text) => pull::fetch(&session, text, None, tools),
        ImageSource::Archive(archived) => archive::read(&session, archived, None, tools),
        ImageSource::Rootfs(path) => ensure::read_rootfs(&session, source, path, None, tools),
        // None of them is an origin.
        ImageSource::Build(_) => Err(ImageError::NoImage { word: source.to_string() }),
    }
}
