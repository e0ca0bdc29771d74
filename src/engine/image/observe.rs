//! Looking whether an image on this host is still what its source stands for.

use std::io;

use super::build;
use super::error::ImageError;
use super::options::Options;
use super::pull;
use super::rootfs;
use super::store::Store;
use crate::model::actual::ActualImage;
use crate::model::id::Digest;
use crate::model::image::{Archived, ImageSource, Pull};
use crate::model::reference::Reference;

/// What the tag of a reference stands for at its registry now, whatever digest the reference has.
pub fn tag_digest(source: &ImageSource, options: &Options) -> Result<Digest, ImageError> {
    let text = match source {
        ImageSource::Reference(text) => text,
        other => return Err(ImageError::NoImage { word: other.to_string() }),
    };
    let reference = Reference { digest: None, ..text.parse()? };
    pull::current_digest(&reference.to_string(), options)
}

/// What this host knows of `source`, and whether the source has moved on since. Files are compared with the stamp of
/// their import; the registry is asked only for [`Pull::Always`]; for [`Pull::Never`] nothing but the store is looked at.
/// A file that is gone is no reason to do anything: the image is here. Whether its layers are whole is not looked at.
///
/// # Errors
/// When the source cannot be looked at, above all when the registry does not answer. The caller decides whether the rest
/// of the host waits for that.
pub fn observe(store: &Store, source: &ImageSource, pull: Pull, options: &Options) -> Result<ActualImage, ImageError> {
    let Some(record) = store.known_record(source)? else { return Ok(ActualImage::default()) };
    let moved = match source {
        _ if pull == Pull::Never => None,
        ImageSource::Archive(Archived { path, .. }) | ImageSource::Rootfs(path) => {
            match (&record.stamp, rootfs::stamp(path)) {
                (_, Err(ImageError::File { source, .. })) if source.kind() == io::ErrorKind::NotFound => None,
                (Some(stamp), now) => stamp.difference(&now?),
                (None, now) => now.map(|_| Some("how it looked is not known".to_owned()))?,
            }
        }
        ImageSource::Build(spec) => match &record.stamp {
            Some(stamp) => build::moved(store, spec, stamp, options)?,
            None => Some("how it looked is not known".to_owned()),
        },
        ImageSource::Reference(_) if pull != Pull::Always => None,
        // A digest stands for the same forever.
        ImageSource::Reference(text) if text.contains('@') => None,
        ImageSource::Reference(text) => {
            let now = pull::current_digest(text, options)?;
            let was = record.image.manifest.as_ref();
            (was != Some(&now)).then(|| {
                format!("it is {} at the registry and {} here", now.short(), was.map_or("not known", Digest::short))
            })
        }
    };
    Ok(ActualImage { image: Some(record.image), moved, unasked: None, tag: None })
}
