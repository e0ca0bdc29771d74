//! `RUN --mount`: files of the context, a stage or an image, cache directories, memory.
//!
//! ```text
//! STATE/build-cache/<digest of the id>/     one cache directory each, for every build of this state root
//! ```

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use super::copy::{Devices, Look, Target};
use super::files::Files;
use super::sandbox::Point;
use super::stage::{Builder, Stage, problem};
use super::tree::{Chosen, Owners};
use crate::engine::image::error::ImageError;
use crate::engine::image::store::record::sha256;
use crate::model::dockerfile::pattern::Ignore;
use crate::model::dockerfile::{RunMount, RunMountKind, Sharing};
use crate::model::units::ByteSize;
use crate::model::volume::{Access, MissingSource, Mount, Propagation};

/// The mounts of one `RUN`, found but not made.
pub struct Mounts<'a> {
    all: Vec<(String, Kind<'a>)>,
}

enum Kind<'a> {
    Files { files: Files<'a>, chosen: Chosen, access: Access },
    Cache { directory: PathBuf, sharing: Sharing, access: Access, look: (u32, u32, u32) },
    Memory { size: Option<u64> },
}

/// Mounts that can be made, and the locks of cache directories meanwhile.
pub struct Made {
    pub mounts: Vec<(String, Mount, Point)>,
    _locks: Vec<File>,
}

impl<'a> Mounts<'a> {
    /// Finds what the mounts show. `place` is an empty directory.
    pub fn find(
        builder: &Builder<'a>,
        stage: &Stage,
        declared: &[RunMount],
        place: &Path,
    ) -> Result<Mounts<'a>, ImageError> {
        let expand = |text: &str| builder.scope.expand(text, &|name| stage.variable(name)).map_err(problem);
        let mut all = Vec::new();
        for mount in declared {
            let target = stage.absolute(&expand(&mount.target)?);
            let kind = match &mount.kind {
                RunMountKind::Bind { from, source, writable } => {
                    let files = Files::of(builder, from.as_deref(), place)?;
                    let source = expand(source)?;
                    let mut found = files.tree().choose(&source, &Ignore::default()).map_err(found_nothing)?;
                    let (1, Some(chosen)) = (found.len(), found.pop()) else {
                        return Err(problem(format!("`{source}` stands for several files; a mount shows one")));
                    };
                    let access = if *writable { Access::ReadWrite } else { Access::ReadOnly };
                    Kind::Files { files, chosen, access }
                }
                RunMountKind::Cache { id, read_only, sharing, mode, uid, gid } => Kind::Cache {
                    directory: builder.caches().join(sha256([expand(id)?.as_bytes()]).hex()),
                    sharing: *sharing,
                    access: if *read_only { Access::ReadOnly } else { Access::ReadWrite },
                    look: (*mode, *uid, *gid),
                },
                RunMountKind::Tmpfs { size } => Kind::Memory { size: *size },
            };
            all.push((target, kind));
        }
        Ok(Mounts { all })
    }

    /// What a layer follows from: files by their contents, caches and memory only by being there.
    pub fn key(&self) -> Result<Value, ImageError> {
        let mut key = Vec::new();
        for (target, kind) in &self.all {
            key.push(match kind {
                Kind::Files { files, chosen, .. } => {
                    let digest = files.tree().contents(&chosen.items, Owners::Kept).map_err(found_nothing)?;
                    json!({ "target": target, "files": digest })
                }
                Kind::Cache { directory, .. } => {
                    json!({ "target": target, "cache": directory.file_name().map(|name| name.to_string_lossy()) })
                }
                Kind::Memory { size } => json!({ "target": target, "memory": size }),
            });
        }
        Ok(Value::Array(key))
    }

    /// Makes what is to be mounted, below `place`.
    pub fn make(&self, place: &Path) -> Result<Made, ImageError> {
        let mut made = Made { mounts: Vec::new(), _locks: Vec::new() };
        for (number, (target, kind)) in self.all.iter().enumerate() {
            let (mount, point) = match kind {
                Kind::Files { files, chosen, access } => {
                    let source = copied(files, chosen, &place.join(format!("mount-{number}")))?;
                    let point = if chosen.is_directory { Point::Directory } else { Point::File };
                    (bind(source, *access), point)
                }
                Kind::Cache { directory, sharing, access, look } => {
                    let opened = cache_directory(directory, *look)?;
                    if *sharing == Sharing::Locked {
                        opened.lock().map_err(ImageError::file("lock", directory))?;
                        made._locks.push(opened);
                    }
                    (bind(directory.clone(), *access), Point::Directory)
                }
                Kind::Memory { size } => {
                    let memory = Mount::Tmpfs { size: size.map(ByteSize), mode: None, options: Vec::new() };
                    (memory, Point::Directory)
                }
            };
            made.mounts.push((target.clone(), mount, point));
        }
        Ok(made)
    }
}

fn found_nothing(error: io::Error) -> ImageError {
    problem(error.to_string())
}

pub(super) fn bind(source: PathBuf, access: Access) -> Mount {
    Mount::Bind { source, access, propagation: Propagation::Rprivate, missing: MissingSource::Refuse }
}

/// The chosen files as a directory of our own, or as a file in one.
fn copied(files: &Files<'_>, chosen: &Chosen, directory: &Path) -> Result<PathBuf, ImageError> {
    let failed = || ImageError::file("copy to", directory);
    fs::create_dir(directory).map_err(failed())?;
    let root = OwnedFd::from(File::open(directory).map_err(failed())?);
    let owner = (files.owners() == Owners::Replaced).then_some((0, 0));
    let look = Look { owner, mode: None, devices: Devices::Refused };
    Target::new(root.as_fd().try_clone_to_owned().map_err(failed())?)
        .copy(files.tree(), chosen, b"files", look)
        .map_err(failed())?;
    Ok(directory.join("files"))
}

/// The cache directory, open, made if it is not there.
fn cache_directory(path: &Path, (mode, uid, gid): (u32, u32, u32)) -> Result<File, ImageError> {
    let failed = || ImageError::file("make the directory", path);
    let parent = path.parent().unwrap_or(Path::new("/"));
    // What commands of builds leave there may have the set-user-ID bit.
    DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed())?;
    match fs::create_dir(path) {
        Ok(()) => {
            chown(path, Some(uid), Some(gid)).map_err(failed())?;
            fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed())?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed()(error)),
    }
    let opened = File::open(path).map_err(failed())?;
    // A cache that builds use is not old (`store::gc`).
    opened.set_modified(SystemTime::now()).map_err(failed())?;
    Ok(opened)
}
