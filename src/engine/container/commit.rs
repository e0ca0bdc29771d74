//! A container as an image, and its files as a tar stream.
//!
//! What a container changed is its upper directory, which is written as a layer: overlayfs's whiteouts become `.wh.` files
//! and opaque directories `.wh..wh..opq`; the host's numbers of its users become its own; what the runtime made to mount
//! on is left out, as `diff` leaves it out. The stream goes through the child that unpacks every layer, so the layer has
//! digest and recipe like any other.
//!
//! # Decisions
//! Export looks at the image's layers with the upper directory as the topmost, in a mount of its own: volumes are not
//! part of it, and nothing of the container's own mounts is in the way. A container that runs meanwhile is not paused,
//! as with Docker: what changes during the walk is there as it was or as it is.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use super::{changes, create, etc};
use crate::engine::error::{At, EngineError};
use crate::engine::image::commit::{self, Committing};
use crate::engine::image::pack::{self, Packer, Purpose, walk, within};
use crate::engine::image::{ImageError, Store, Tools};
use crate::engine::storage::view;
use crate::model::image::Image;
use crate::model::paths::Paths;
use crate::model::record::ContainerRecord;

/// Makes an image of the container's image and of what the container changed in it. Its configuration is what the
/// container runs with.
pub fn commit(
    paths: &Paths,
    store: &Store,
    record: &ContainerRecord,
    committing: &Committing<'_>,
    tools: Tools<'_>,
) -> Result<Image, EngineError> {
    let base = create::image(store, record)?;
    let changed = changes::changes(paths, &store.layer_paths(&base), record)?;
    let below = |path: &Path| path.strip_prefix("/").unwrap_or(path).as_os_str().as_bytes().to_vec();
    let changed: BTreeSet<Vec<u8>> = changed.iter().map(|change| below(&change.path)).collect();
    let upper = paths.container(&record.id).join("upper");
    let root = open(&upper)?;
    let write = |stream: &mut (dyn Write + Send)| {
        within(root.as_fd(), || {
            let mut packer = Packer::new(stream, Purpose::Layer, record.users);
            walk(Path::new("/"), Purpose::Layer, &mut |entry| match entry.relative.is_empty()
                || changed.contains(entry.relative)
            {
                true => packer.layer_member(&entry),
                false => Ok(()),
            })?;
            packer.finish(&upper)
        })
    };
    let made = commit::commit(store, (&base, &record.spec), committing, (&upper, &write), tools);
    let made = made.map_err(|source| failed("commit", record, source))?;
    let event = store.teller.of_container("commit", record).with("imageID", &made.id);
    store.teller.tell(&match &committing.name {
        Some(name) => event.with("imageRef", name),
        None => event,
    });
    Ok(made)
}

/// Writes the files of a container as a tar stream, without its volumes.
pub fn export(
    paths: &Paths,
    store: &Store,
    record: &ContainerRecord,
    to: &mut (dyn Write + Send),
) -> Result<(), EngineError> {
    let base = create::image(store, record)?;
    let container = paths.container(&record.id);
    let mut layers = store.layer_paths(&base);
    layers.push(container.join("upper"));
    let root = view::open(&layers, None, &etc::directory(&container)).at("look at the files in", &container)?;
    pack::export(root.as_fd(), &container, record.users, to).map_err(|source| failed("export", record, source))?;
    store.teller.tell(&store.teller.of_container("export", record));
    Ok(())
}

fn open(directory: &Path) -> Result<OwnedFd, EngineError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, directory, flags, Mode::empty());
    opened.map_err(std::io::Error::from).at("open", directory)
}

fn failed(operation: &'static str, record: &ContainerRecord, source: ImageError) -> EngineError {
    EngineError::Commit { operation, name: record.full_name(), source: Box::new(source) }
}
