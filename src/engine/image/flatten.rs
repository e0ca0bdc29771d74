//! The root filesystem of an image as a plain directory, or as an archive: hard links, owners, modes, times, attributes and devices as a
//! container would see them.
//!
//! ```text
//! layers ── overlay, for this process alone ── pack ──> tar ─┬─> child confined to the directory
//!                                                           └─> whoever takes the archive
//! ```

use std::fs;
use std::io::{self, Write};
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
    into_directory(&layers(store, entry)?, directory, tools)
}

/// Writes the same as a tar stream.
pub fn export_image(store: &Store, entry: &Entry, to: &mut (dyn Write + Send)) -> Result<(), ImageError> {
    let _held = store.hold()?;
    let layers = layers(store, entry)?;
    // Two blocks of zeros: an archive without members (pax(1), "ustar Interchange Format").
    let Some(top) = layers.last() else { return to.write_all(&[0; 1024]).map_err(ImageError::Output) };
    // Where the view is put is seen by nobody; it only has to be a directory.
    let place = top.parent().unwrap_or(top);
    let root = view::open(&layers, None, place).map_err(ImageError::file("look at the layers in", place))?;
    export(root.as_fd(), place, None, to)
}

fn layers(store: &Store, entry: &Entry) -> Result<Vec<PathBuf>, ImageError> {
    match entry.missing.first() {
        Some(missing) => Err(ImageError::NoLayer { diff_id: missing.clone() }),
        None => Ok(store.layer_paths(&entry.image)),
    }
}

/// The same with the one image of an archive, which does not become an image of this host.
pub fn flatten_archive(store: &Store, input: Input, directory: &Path, tools: Tools<'_>) -> Result<(), ImageError> {
    let Input { path, file } = input;
    let session = store.session(&ImageSource::Archive(path.clone().into()))?;
    let archive = Archive::open(&session, file, &path, tools.options)?;
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
