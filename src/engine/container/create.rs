//! The files of a container: record, writable layer, logs. No process and no kernel object yet.
//!
//! Everything is made in an aside directory and renamed into place, the record within, so a container exists
//! whole or not at all.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::etc;
use crate::engine::error::{At, EngineError};
use crate::engine::files::{self, Durability};
use crate::engine::image::Store;
use crate::engine::storage::{view, volume};
use crate::engine::{records, removal};
use crate::model::id::VolumeKey;
use crate::model::image::Image;
use crate::model::paths::{self, Paths};
use crate::model::record::{ContainerRecord, VolumeRecord};
use crate::model::volume::{Filling, MissingSource, Mount};
use crate::runtime::layer;

/// The image that `record` names, or that its source stands for where the record leaves it open.
pub fn image(store: &Store, record: &ContainerRecord) -> Result<Image, EngineError> {
    let source = &record.spec.image;
    let found = match &record.image {
        Some(id) => store.known(id),
        None => store.known_as(source),
    };
    let failed = |source_error| EngineError::Image { source_name: source.to_string(), source: Box::new(source_error) };
    let image = found.map_err(failed)?.ok_or_else(|| EngineError::NoImage(source.to_string()))?;
    let layers = store.lacking(&image);
    match layers.is_empty() {
        true => Ok(image),
        false => Err(EngineError::DamagedImage { image: source.to_string(), layers }),
    }
}

/// Makes the container's directory, and fills its volumes that are still empty.
pub fn create(paths: &Paths, store: &Store, record: &ContainerRecord) -> Result<(), EngineError> {
    let image = image(store, record)?;
    let record = ContainerRecord { image: Some(image.id.clone()), ..record.clone() };
    let directory = paths.container(&record.id);
    let layers = store.layer_paths(&image);
    if directory.exists() {
        files::write_json_of_object(&paths::record(&directory), &record, Durability::Durable)?;
    } else {
        files::create_directories(&paths.containers())?;
        let aside = files::beside(&directory);
        // The directory comes last: once it is there nobody fills its volumes any more.
        let made = make(&aside, &layers, &record, paths)
            .and_then(|()| furnish(paths, &record, &layers, &aside))
            .and_then(|()| files::publish(&aside, &directory));
        if let Err(error) = made {
            // The error that matters is the first; a leftover is swept when the lock is taken.
            let _ = removal::remove(&aside);
            return Err(error);
        }
        return Ok(());
    }
    furnish(paths, &record, &layers, &directory)
}

/// What it mounts is there, and named volumes that are empty hold what the image has.
fn furnish(paths: &Paths, record: &ContainerRecord, layers: &[PathBuf], directory: &Path) -> Result<(), EngineError> {
    create_bind_sources(record)?;
    fill_volumes(paths, record, layers, directory)
}

fn make(aside: &Path, layers: &[PathBuf], record: &ContainerRecord, paths: &Paths) -> Result<(), EngineError> {
    for name in ["upper", "work", "logs"] {
        let directory = aside.join(name);
        fs::create_dir_all(&directory).at("create the directory", &directory)?;
    }
    // What a log says is for root alone, as Docker has it.
    let logs = aside.join("logs");
    fs::set_permissions(&logs, fs::Permissions::from_mode(0o700)).at("set the mode of", logs)?;
    // `/` of the container has owner and mode of the upper directory: those of the topmost layer's root.
    if let Some(top) = layers.last() {
        let upper = aside.join("upper");
        let root = layer::open(top).and_then(|root| fs::File::from(root).metadata()).at("look at the layer", top)?;
        // In the container's own numbers, where it has any: its root must be able to write here.
        let first = record.users.map_or(0, |range| range.start);
        let owner = |inside: u32| Some(first.saturating_add(inside));
        chown(&upper, owner(root.uid()), owner(root.gid())).at("set the owner of", &upper)?;
        fs::set_permissions(&upper, fs::Permissions::from_mode(root.mode() & 0o7777)).at("set the mode of", &upper)?;
    }
    etc::write(aside, record, paths)?;
    files::write_json(&paths::record(aside), record, Durability::Durable)
}

fn create_bind_sources(record: &ContainerRecord) -> Result<(), EngineError> {
    for mount in record.spec.mounts.values() {
        if let Mount::Bind { source, missing: MissingSource::Create, .. } = mount
            && !source.exists()
        {
            fs::create_dir_all(source).at("create the directory", source)?;
        }
    }
    Ok(())
}

/// `directory`: the container's, where the image is mounted meanwhile.
fn fill_volumes(
    paths: &Paths,
    record: &ContainerRecord,
    layers: &[PathBuf],
    directory: &Path,
) -> Result<(), EngineError> {
    let mut empty: Vec<(VolumeRecord, &str)> = Vec::new();
    for (target, mount) in &record.spec.mounts {
        let Mount::Volume { name, filling: Filling::Image, .. } = mount else { continue };
        let key = VolumeKey { project: record.project.clone(), name: name.clone() };
        if volume::is_unfilled(paths, &key)?
            && let Some(volume) = records::volume(paths, &key)?
        {
            empty.push((volume, target));
        }
    }
    if empty.is_empty() {
        return Ok(());
    }
    let place = etc::directory(directory);
    let filled = view::with_layers(layers, &place, |root| {
        Ok(empty.iter().try_for_each(|(volume, target)| volume::fill(paths, volume, root, target)))
    });
    filled.at("look into the image of", directory)?
}
