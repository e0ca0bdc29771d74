//! Volumes: a record, and a directory of data that no apply removes.
//!
//! ```text
//! volumes/<project>.<name>/record.json
//!                          data/          what containers mount
//! trash/<project>.<name>.<seconds since 1970>/   removed by confirmation; `mv` brings it back
//! ```
//!
//! A volume is filled from the image at its mount point the first time that a container with it is created,
//! as Docker does: into an aside directory that is renamed over the empty one, so that a crash leaves it either
//! empty or whole.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::SystemTime;

use super::{copy, view};
use crate::engine::error::{At, EngineError};
use crate::engine::files::{self, Durability};
use crate::model::actual::Drift;
use crate::model::id::VolumeKey;
use crate::model::paths::{self, Paths};
use crate::model::record::VolumeRecord;
use crate::model::units::FileMode;
use crate::model::volume::Owner;

/// Directory and record are there, owner and mode as declared.
pub fn ensure(paths: &Paths, record: &VolumeRecord) -> Result<(), EngineError> {
    let directory = paths.volume(&record.key);
    let data = paths.volume_data(&record.key);
    if !directory.exists() {
        files::create_directories(&paths.volumes())?;
        let aside = files::beside(&directory);
        let aside_data = aside.join("data");
        fs::create_dir_all(&aside_data).at("create the volume", &aside_data)?;
        fs::set_permissions(&aside_data, fs::Permissions::from_mode(0o755)).at("set the mode of", &aside_data)?;
        files::write_json(&paths::record(&aside), record, Durability::Durable)?;
        files::publish(&aside, &directory)?;
    } else {
        fs::create_dir_all(&data).at("create the volume", &data)?;
        files::write_json(&paths::record(&directory), record, Durability::Durable)?;
    }
    match record.spec.owner {
        Some(owner) => own(&data, owner),
        None => Ok(()),
    }
}

/// Moves the volume to the trash, where it stays until it is emptied.
pub fn remove(paths: &Paths, key: &VolumeKey, now: SystemTime) -> Result<(), EngineError> {
    let directory = paths.volume(key);
    if !directory.exists() {
        return Ok(());
    }
    files::create_directories(&paths.trash())?;
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    files::publish(&directory, &paths.trash().join(format!("{key}.{seconds}")))
}

/// What is not as the record says.
pub fn drift(paths: &Paths, record: &VolumeRecord) -> Vec<Drift> {
    let data = paths.volume_data(&record.key);
    let found = match fs::metadata(&data) {
        Ok(metadata) if metadata.is_dir() => {
            let mode = FileMode(metadata.mode() & 0o7777);
            Some(Owner { uid: metadata.uid(), gid: metadata.gid(), mode })
        }
        // A file where the directory should be, or nothing: either way it is not there.
        _ => None,
    };
    let of = |object: String, found: String, wanted: String| vec![Drift { object, found, wanted }];
    match (found, record.spec.owner) {
        (None, _) => of(format!("directory {}", data.display()), "missing".into(), "a directory".into()),
        (Some(found), Some(wanted)) if found != wanted => {
            of(format!("owner of {}", data.display()), words(found), words(wanted))
        }
        _ => Vec::new(),
    }
}

fn words(owner: Owner) -> String {
    format!("{}:{} {}", owner.uid, owner.gid, owner.mode)
}

/// Fills an empty volume with what the image has at `target`. Without a declared owner the root directory takes
/// the image's, too.
pub fn fill(paths: &Paths, record: &VolumeRecord, root: BorrowedFd<'_>, target: &str) -> Result<(), EngineError> {
    let data = paths.volume_data(&record.key);
    if !is_empty(&data).at("list", &data)? {
        return Ok(());
    }
    let aside = files::beside(&data);
    let copied = copy_out(root, target, &aside);
    if !matches!(copied, Ok(true)) {
        // Nothing to copy, or a failure that is reported: either way nothing half-made stays.
        let _ = fs::remove_dir_all(&aside);
        return copied.map(|_| ()).at("copy the image's files into the volume", &data);
    }
    if let Some(owner) = record.spec.owner {
        own(&aside, owner)?;
    }
    // rename(2) replaces an empty directory in one step.
    files::publish(&aside, &data)
}

/// Whether the image has the directory.
fn copy_out(root: BorrowedFd<'_>, target: &str, aside: &Path) -> io::Result<bool> {
    let Some(source) = view::directory(root, target)? else { return Ok(false) };
    fs::create_dir(aside)?;
    let directory = fs::File::open(aside)?;
    copy::copy_tree(source.as_fd(), directory.as_fd())?;
    rustix::fs::syncfs(&directory)?;
    Ok(true)
}

fn is_empty(directory: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(directory)?.next().is_none())
}

fn own(data: &Path, Owner { uid, gid, mode }: Owner) -> Result<(), EngineError> {
    std::os::unix::fs::chown(data, Some(uid), Some(gid)).at("set the owner of", data)?;
    fs::set_permissions(data, fs::Permissions::from_mode(mode.0)).at("set the mode of", data)
}
