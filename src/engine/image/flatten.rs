//! The root filesystem of an image as a plain directory: hard links, owners, modes, times, attributes and devices as a
//! container would see them.
//!
//! ```text
//! layers ── overlay, for this process alone ── pack ──> tar ──> child confined to the directory
//! ```

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::archive::Archive;
use super::catalogue::Entry;
use super::ensure::Tools;
use super::error::ImageError;
use super::load::Input;
use super::pack::export;
use super::store::Store;
use super::unpack::{Destination, Unpacking};
use crate::engine::storage::view;
use crate::model::image::ImageSource;

/// Fills an empty directory with what an image of this host has.
pub fn flatten_image(store: &Store, entry: &Entry, directory: &Path, tools: Tools<'_>) -> Result<(), ImageError> {
    let _held = store.hold()?;
    if let Some(missing) = entry.missing.first() {
        return Err(ImageError::NoLayer { diff_id: missing.clone() });
    }
    into_directory(&store.layer_paths(&entry.image), directory, tools)
}

/// The same with the one image of an archive, which does not become an image of this host.
pub fn flatten_archive(store: &Store, input: Input<'_>, directory: &Path, tools: Tools<'_>) -> Result<(), ImageError> {
    let path = input.path;
    let session = store.session(&ImageSource::Archive(path.into()))?;
    let archive = Archive::open(&session, input.into_file(&session)?, path, tools.options)?;
    let mut unpacked = archive.unpack(&session, archive.only(tools.options)?, tools)?;
    into_directory(&unpacked.trees()?, directory, tools)
}

fn into_directory(layers: &[PathBuf], directory: &Path, tools: Tools<'_>) -> Result<(), ImageError> {
    ensure_empty(directory)?;
    if layers.is_empty() {
        return Ok(());
    }
    let root = view::open(layers, None, directory).map_err(ImageError::file("look at the layers in", directory))?;
    let name = directory.display().to_string();
    let unpacking =
        Unpacking::start(&tools.options.helper, &name, Destination::Directory(directory), None, tools.options.limits)?;
    unpacking.feed_all(|stream| export(root.as_fd(), directory, None, stream)).map(drop)
}

/// What is there already would be mixed with the image.
fn ensure_empty(directory: &Path) -> Result<(), ImageError> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir(directory).map_err(ImageError::file("make the directory", directory))
        }
        listing => match listing.map_err(ImageError::file("list", directory))?.next() {
            None => Ok(()),
            Some(_) => Err(ImageError::NotEmpty { path: directory.to_owned() }),
        },
    }
}
