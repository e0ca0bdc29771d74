//! Making an image whole on this host.

use std::path::Path;

use super::config;
use super::error::ImageError;
use super::layer::{Unpacked, Workshop};
use super::options::Options;
use super::progress::Progress;
use super::rootfs;
use super::store::Store;
use super::store::record::{SourceRecord, sha256};
use super::store::session::{Commit, Session};
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
    match source {
        ImageSource::Reference(_) => Err(ImageError::Absent { source_name: source.clone() }),
        ImageSource::Archive(_) => Err(ImageError::Absent { source_name: source.clone() }),
        ImageSource::Rootfs(path) => ensure_rootfs(session, source, path, Tools { options, progress }),
    }
}

/// What the caller gave besides store and source.
#[derive(Clone, Copy)]
pub(super) struct Tools<'a> {
    pub options: &'a Options,
    pub progress: &'a dyn Progress,
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
    let workshop = Workshop { session: &session, options: tools.options, progress: tools.progress };
    let Unpacked { layer, .. } = match path.is_dir() {
        true => rootfs::unpack_directory(&workshop, path)?,
        false => rootfs::unpack_file(&workshop, path)?,
    };
    if let Some(changed) = stamp.difference(&rootfs::stamp(path)?) {
        let problem = format!("{changed} while it was read; apply again");
        return Err(ImageError::Malformed { subject: path.display().to_string(), problem });
    }
    let _claimed = session.claim_layers(std::slice::from_ref(&layer.diff_id))?;
    let configuration = config::synthesize(&tools.options.platform, &layer.diff_id);
    let image = Image {
        id: sha256([configuration.as_slice()]),
        manifest: None,
        layers: vec![layer.diff_id.clone()],
        config: config::parse(&source.to_string(), &configuration)?.config,
    };
    let record = SourceRecord { source: source.clone(), image: image.clone(), stamp: Some(stamp) };
    session.commit(Commit { layers: vec![layer], blobs: vec![configuration], record })?;
    Ok(image)
}
