//! Pulling: from a reference to a whole image.

use std::sync::atomic::AtomicBool;

use super::ensure::{Parts, Tools, commit, missing_layers};
use super::error::ImageError;
use super::layer::{Expected, Workshop};
use super::manifest::{self, Descriptor, Document, Manifest};
use super::options::Options;
use super::registry::Fetched;
use super::registry::sources::Sources;
use super::store::session::Session;
use crate::engine::image::config::{self, Configuration};
use crate::model::id::Digest;
use crate::model::image::{Image, ImageSource};
use crate::model::reference::Reference;

/// Makes the image of a reference whole, unless the registry still has the same under that name.
pub(super) fn ensure_reference(
    session: Session<'_>,
    source: &ImageSource,
    text: &str,
    tools: Tools<'_>,
) -> Result<Image, ImageError> {
    let reference: Reference = text.parse()?;
    let known = session.store().find_record(source)?.map(|record| record.image);
    if let (Some(image), Some(_)) = (&known, &reference.digest) {
        // A digest stands for the same forever.
        return Ok(image.clone());
    }
    let registry = Sources::of(&reference, tools.options)?;
    if let Some(image) = known
        && image.manifest == Some(registry.manifest_digest(reference.version())?)
    {
        return Ok(image);
    }
    take(&session, (text, &reference), &registry, Some(source), tools)
}

/// Makes the image of a reference whole as its registry has it. Without a `source` nothing stands for it.
pub(super) fn fetch(
    session: &Session<'_>,
    text: &str,
    source: Option<&ImageSource>,
    tools: Tools<'_>,
) -> Result<Image, ImageError> {
    let reference: Reference = text.parse()?;
    take(session, (text, &reference), &Sources::of(&reference, tools.options)?, source, tools)
}

fn take(
    session: &Session<'_>,
    (text, reference): (&str, &Reference),
    registry: &Sources,
    source: Option<&ImageSource>,
    tools: Tools<'_>,
) -> Result<Image, ImageError> {
    let top = registry.manifest(reference.version())?;
    let (manifest, further) = resolve(registry, text, &top, tools.options)?;
    let config = registry.config(&manifest.config.digest)?;
    let configuration = config::parse(&format!("the configuration of {text}"), &config.bytes)?;
    check_platform(text, &configuration, tools.options)?;
    check_count(text, manifest.layers.len(), &configuration)?;
    let expect = |(descriptor, diff_id): (&Descriptor, &Digest)| Expected {
        name: descriptor.digest.short().to_owned(),
        digest: Some(descriptor.digest.clone()),
        size: Some(descriptor.size),
        diff_id: Some(diff_id.clone()),
    };
    let all = manifest.layers.iter().zip(&configuration.diff_ids).map(expect).collect();
    let claimed = session.claim_layers(&configuration.diff_ids)?;
    let missing = missing_layers(session, tools.progress, all);
    let workshop = Workshop { session, options: tools.options, progress: tools.progress };
    let failed = AtomicBool::new(false);
    let unpacked = workshop.unpack_all(&missing, &failed, &|layer| {
        // Both are always there: they were put in above.
        let blob = layer.digest.clone().zip(layer.size).ok_or_else(|| ImageError::Malformed {
            subject: layer.name.clone(),
            problem: "it has no digest".to_owned(),
        })?;
        Ok(Box::new(registry.blob(blob, &layer.name, tools.progress, &failed)))
    })?;
    let mut blobs = vec![config.bytes, top.bytes];
    blobs.extend(further.map(|further| further.bytes));
    let parts = Parts { id: config.digest, manifest: Some(top.digest), configuration, blobs, stamp: None };
    let image = commit(&workshop, source, unpacked, parts)?;
    drop(claimed);
    Ok(image)
}

/// The digest that the registry has under a reference now.
pub fn current_digest(text: &str, options: &Options) -> Result<Digest, ImageError> {
    let reference: Reference = text.parse()?;
    Sources::of(&reference, options)?.manifest_digest(reference.version())
}

/// The tags that the registry has of a reference's repository.
pub fn tags(reference: &Reference, options: &Options) -> Result<Vec<String>, ImageError> {
    Sources::of(reference, options)?.tags()
}

/// The manifest for this host, and its document if it is not the top one.
fn resolve(
    registry: &Sources,
    name: &str,
    top: &Fetched,
    options: &Options,
) -> Result<(Manifest, Option<Fetched>), ImageError> {
    let manifests = match manifest::parse(name, &top.bytes)? {
        Document::Manifest(manifest) => return Ok((manifest, None)),
        Document::Index(manifests) => manifests,
    };
    let chosen = manifest::select(name, &manifests, &options.platform)?;
    let fetched = registry.manifest(chosen.digest.as_str())?;
    match manifest::parse(name, &fetched.bytes)? {
        Document::Manifest(manifest) => Ok((manifest, Some(fetched))),
        Document::Index(_) => Err(ImageError::Malformed {
            subject: name.to_owned(),
            problem: "its index lists a further index for this platform".to_owned(),
        }),
    }
}

/// An image may say for which platform it is; then it must be for this one.
pub fn check_platform(name: &str, configuration: &Configuration, options: &Options) -> Result<(), ImageError> {
    let (actual, wanted) = (&configuration.platform, &options.platform);
    let differs = |actual: &str, wanted: &str| !actual.is_empty() && actual != wanted;
    if differs(&actual.os, &wanted.os) || differs(&actual.architecture, &wanted.architecture) {
        return Err(ImageError::WrongPlatform {
            image: name.to_owned(),
            wanted: wanted.to_string(),
            available: vec![format!("`{actual}`")],
        });
    }
    Ok(())
}

/// Manifest and configuration name the same layers.
pub fn check_count(name: &str, layers: usize, configuration: &Configuration) -> Result<(), ImageError> {
    match configuration.diff_ids.len() {
        count if count == layers => Ok(()),
        count => Err(ImageError::Malformed {
            subject: name.to_owned(),
            problem: format!("it has {layers} layers and its configuration has {count}"),
        }),
    }
}
