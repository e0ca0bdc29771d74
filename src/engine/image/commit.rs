//! An image made of another one and one more layer, by hand.

use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use super::build;
use super::config;
use super::ensure::{Parts, Tools, commit as put_in_place};
use super::error::ImageError;
use super::layer::Workshop;
use super::rootfs;
use super::store::Store;
use super::store::record::sha256;
use crate::model::container::ContainerSpec;
use crate::model::id::Digest;
use crate::model::image::{Image, ImageSource};

/// What the new image is besides its files.
#[derive(Debug, Clone)]
pub struct Committing<'a> {
    /// The name that it gets.
    pub name: Option<ImageSource>,
    pub author: Option<&'a str>,
    pub message: Option<&'a str>,
    /// Instructions of a Dockerfile that change the configuration.
    pub changes: &'a [String],
    pub created: SystemTime,
}

/// The step of the image's history.
#[derive(Debug, Clone, Copy)]
pub struct CommittedStep<'a> {
    pub diff_id: &'a Digest,
    /// RFC 3339.
    pub created: &'a str,
    pub author: Option<&'a str>,
    pub message: Option<&'a str>,
}

/// Writes a tar stream.
pub type Files<'f> = dyn Fn(&mut (dyn Write + Send)) -> Result<(), ImageError> + 'f;

/// Makes an image of `base`, what `spec` says of how it runs, and one more layer, a tar stream that `files` writes. `place`
/// is what errors call it.
pub fn commit(
    store: &Store,
    base: (&Image, &ContainerSpec),
    committing: &Committing<'_>,
    (place, files): (&Path, &Files<'_>),
    tools: Tools<'_>,
) -> Result<Image, ImageError> {
    let (image, spec) = base;
    let subject = place.display().to_string();
    let session = store.session(&ImageSource::Rootfs(place.to_owned()))?;
    let bytes = store.configuration(&image.id)?;
    let workshop = Workshop { session: &session, options: tools.options, progress: tools.progress };
    let layer = rootfs::unpack_stream(&workshop, &subject, |stream| files(stream))?;
    let created = humantime::format_rfc3339_nanos(committing.created).to_string();
    let Committing { author, message, changes, .. } = *committing;
    let step = CommittedStep { diff_id: &layer.diff_id, created: &created, author, message };
    let bytes = build::committed(&subject, &bytes, spec, &step)?;
    let bytes = build::changed(&subject, &bytes, changes, &tools.options.platform)?;
    let configuration = config::parse(&subject, &bytes)?;
    let id = sha256([bytes.as_slice()]);
    let parts = Parts { id, manifest: None, configuration, blobs: vec![bytes], stamp: None };
    put_in_place(&workshop, committing.name.as_ref(), vec![layer], parts)
}
