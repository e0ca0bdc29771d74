//! Making an image whole on this host.

use std::path::{Path, PathBuf};

use super::archive;
use super::build;
use super::config::{self, Configuration};
use super::error::ImageError;
use super::implied;
use super::layer::{Expected, Workshop};
use super::options::Options;
use super::progress::{Event, Progress};
use super::pull;
use super::rootfs;
use super::store::Store;
use super::store::record::{Stamp, sha256};
use super::store::session::{Commit, FinishedLayer, Session};
use crate::model::id::Digest;
use crate::model::image::{Image, ImageSource};

/// Makes `source` whole and fresh: what the registry has under the reference now, or what the file holds now. If that is
/// here already, nothing is transferred. Of several callers at once, in this process or others, one works and the
/// others take its result.
pub fn ensure(
    store: &Store,
    source: &ImageSource,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Image, ImageError> {
    let session = store.session(source)?;
    let before = store.find(source)?;
    let tools = Tools { options, progress };
    let image = match source {
        ImageSource::Reference(text) => pull::ensure_reference(session, source, text, tools),
        ImageSource::Archive(archived) => archive::ensure_archive(session, source, archived, tools),
        ImageSource::Rootfs(path) => ensure_rootfs(session, source, path, tools),
        ImageSource::Build(spec) => build::ensure_build(session, source, spec, tools),
    }?;
    // Also what was here already: who asks for it is about to use it.
    store.mark_used(&image.id)?;
    if before.as_ref() != Some(&image) {
        let action = match source {
            ImageSource::Reference(_) => "pull",
            ImageSource::Archive(_) => "load",
            ImageSource::Rootfs(_) => "import",
            ImageSource::Build(_) => "build",
        };
        store.teller.tell(&store.teller.of_image(action, &image, Some(source)));
    }
    Ok(image)
}

/// What the caller gave besides store and source.
#[derive(Clone, Copy)]
pub struct Tools<'a> {
    pub options: &'a Options,
    pub progress: &'a dyn Progress,
}

/// What an image is made of, besides the layers that are new.
pub(super) struct Parts {
    pub id: Digest,
    pub manifest: Option<Digest>,
    pub configuration: Configuration,
    pub blobs: Vec<Vec<u8>>,
    pub stamp: Option<Stamp>,
}

/// Those of an image's layers that are to be unpacked, each once: an image may have one twice, empty ones are common.
/// The caller has claimed them all.
pub(super) fn missing_layers(session: &Session<'_>, progress: &dyn Progress, all: Vec<Expected>) -> Vec<Expected> {
    let mut missing: Vec<Expected> = Vec::new();
    for layer in all {
        if layer.diff_id.as_ref().is_some_and(|diff_id| session.has_layer(diff_id)) {
            progress.report(Event::Present { layer: &layer.name });
        } else if missing.iter().all(|known| known.diff_id != layer.diff_id) {
            missing.push(layer);
        }
    }
    missing
}

/// Puts everything in place. Without a source the image is there and nothing stands for it.
pub(super) fn commit(
    workshop: &Workshop<'_>,
    source: Option<&ImageSource>,
    mut new: Vec<FinishedLayer>,
    parts: Parts,
) -> Result<Image, ImageError> {
    let Parts { id, manifest, configuration, blobs, stamp } = parts;
    let layers = stack(workshop, &mut new, &configuration.diff_ids)?.into_iter().map(|(layer, _)| layer).collect();
    let image = Image { id, manifest, layers, config: configuration.config };
    let named = source.map(|source| (source.clone(), stamp));
    workshop.session.commit(Commit { layers: new, blobs, image: image.clone(), named })?;
    Ok(image)
}

/// What to mount for an image of these layers, lowest first, and where that is now. A further layer that the image
/// needs is added to the new ones.
pub(super) fn stack(
    workshop: &Workshop<'_>,
    new: &mut Vec<FinishedLayer>,
    diff_ids: &[Digest],
) -> Result<Vec<(Digest, PathBuf)>, ImageError> {
    let (layers, visible) = visible_layers(workshop.session.store(), new, diff_ids)?;
    let correction = implied::correction(workshop, &visible)?;
    let mut all: Vec<_> = layers.into_iter().zip(visible.into_iter().map(|layer| layer.files)).collect();
    if let Some(correction) = correction {
        all.push((correction.diff_id.clone(), correction.staged.files()));
        new.push(correction);
    }
    Ok(all)
}

/// The layers without those below one whose root is opaque: overlayfs has no such mark for the root of a layer, and
/// nothing of them could be seen.
fn visible_layers(
    store: &Store,
    new: &[FinishedLayer],
    all: &[Digest],
) -> Result<(Vec<Digest>, Vec<implied::Layer>), ImageError> {
    let (mut ids, mut layers) = (Vec::new(), Vec::new());
    for diff_id in all {
        let (files, record) = match new.iter().find(|layer| layer.diff_id == *diff_id) {
            Some(layer) => (layer.staged.files(), layer.record.clone()),
            None => (store.layer_path(diff_id), store.layer_record(diff_id)?.unwrap_or_default()),
        };
        if record.opaque {
            ids.clear();
            layers.clear();
        }
        ids.push(diff_id.clone());
        layers.push(implied::Layer::new(files, record.implied));
    }
    Ok((ids, layers))
}

fn ensure_rootfs(
    session: Session<'_>,
    source: &ImageSource,
    path: &Path,
    tools: Tools<'_>,
) -> Result<Image, ImageError> {
    let stamp = rootfs::stamp(path)?;
    if let Some(record) = session.store().find_record(source)?
        && record.stamp.as_ref() == Some(&stamp)
    {
        return Ok(record.image);
    }
    read_rootfs(&session, source, path, Some(stamp), tools)
}

/// Makes an image of a root filesystem that has this stamp; without one nothing stands for it.
pub(super) fn read_rootfs(
    session: &Session<'_>,
    source: &ImageSource,
    path: &Path,
    stamp: Option<Stamp>,
    tools: Tools<'_>,
) -> Result<Image, ImageError> {
    let workshop = Workshop { session, options: tools.options, progress: tools.progress };
    let layer = match path.is_dir() {
        true => rootfs::unpack_directory(&workshop, path)?,
        false => rootfs::unpack_file(&workshop, path)?,
    };
    if let Some(stamp) = &stamp {
        check_unchanged(path, stamp)?;
    }
    let bytes = config::synthesize(&tools.options.platform, &layer.diff_id);
    let configuration = config::parse(&source.to_string(), &bytes)?;
    let id = sha256([bytes.as_slice()]);
    let named = stamp.as_ref().map(|_| source);
    let parts = Parts { id, manifest: None, configuration, blobs: vec![bytes], stamp };
    commit(&workshop, named, vec![layer], parts)
}

/// A file that changes while it is read is neither what it was nor what it will be.
pub(super) fn check_unchanged(path: &Path, before: &Stamp) -> Result<(), ImageError> {
    match before.difference(&rootfs::stamp(path)?) {
        None => Ok(()),
        Some(changed) => Err(ImageError::Malformed {
            subject: path.display().to_string(),
            problem: format!("{changed} while it was read; apply again"),
        }),
    }
}
