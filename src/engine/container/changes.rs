//! What a container changed in its image's files: its writable layer against the layers below.
//!
//! overlayfs (Documentation/filesystems/overlayfs.rst): what was removed is a character device 0:0 of that name, and a
//! directory that hides what is below it has the attribute `trusted.overlay.opaque`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::etc;
use crate::engine::error::{At, EngineError};
use crate::engine::storage::view;
use crate::engine::walk::{Directory, Entry};
use crate::model::paths::Paths;
use crate::model::record::ContainerRecord;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Added,
    Changed,
    Deleted,
}

/// One path that is not as in the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    pub kind: Kind,
    pub path: PathBuf,
}

/// Places that the runtime makes in every container, to mount on.
const RUNTIME: [&str; 4] = ["/proc", "/dev", "/sys", "/.dockerenv"];

/// Everything that changed, by path.
pub fn changes(paths: &Paths, layers: &[PathBuf], record: &ContainerRecord) -> Result<Vec<Change>, EngineError> {
    let container = paths.container(&record.id);
    let upper = container.join("upper");
    let fixed = etc::MOUNTED.iter().map(|(target, _)| *target).chain(RUNTIME);
    let mounted: BTreeSet<PathBuf> =
        record.spec.mounts.keys().map(String::as_str).chain(fixed).map(PathBuf::from).collect();
    let place = etc::directory(&container);
    let walked = view::with_layers(layers, &place, |image| {
        let mut walk = Walk { image, mounted: &mounted, found: Vec::new() };
        walk.directory(&Directory::top(&upper)?, Path::new("/"), true)?;
        Ok(walk.found)
    });
    let mut found = walked.at("compare", &upper)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

struct Walk<'a> {
    image: BorrowedFd<'a>,
    /// Nothing that a container does appears at these places, so what is there was made for the mount.
    mounted: &'a BTreeSet<PathBuf>,
    found: Vec<Change>,
}

impl Walk<'_> {
    /// `is_merged`: what the image has in this directory is seen through it.
    fn directory(&mut self, here: &Directory, path: &Path, is_merged: bool) -> io::Result<()> {
        for entry in here.entries()? {
            let path = path.join(&entry.name);
            let is_whiteout = entry.kind() == FileType::CharacterDevice && entry.stat.st_rdev == 0;
            let in_image = is_merged && self.is_in_image(&path)?;
            let kind = match (is_whiteout, in_image) {
                (true, true) => Kind::Deleted,
                (true, false) => continue,
                (false, true) => Kind::Changed,
                (false, false) => Kind::Added,
            };
            if self.mounted.contains(&path) {
                continue;
            }
            let at = self.found.len();
            self.found.push(Change { kind, path: path.clone() });
            if let Some(inner) = directory_of(here, &entry)? {
                let opaque = inner.has_attribute("trusted.overlay.opaque", b'y');
                self.directory(&inner, &path, in_image && !opaque)?;
                if in_image && opaque {
                    self.hidden(&inner, &path)?;
                }
                // Made to hold a place to mount on, and nothing else.
                let is_way = self.mounted.iter().any(|target| target.starts_with(&path));
                if is_way && self.found.len() == at + 1 {
                    self.found.truncate(at);
                }
            }
        }
        Ok(())
    }

    /// What the image has in a directory that was replaced by another.
    fn hidden(&mut self, here: &Directory, path: &Path) -> io::Result<()> {
        let Some(directory) = view::directory(self.image, &below(path).to_string_lossy())? else { return Ok(()) };
        for entry in rustix::fs::Dir::read_from(directory.as_fd())? {
            let name = entry?.file_name().to_owned();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let name = OsStr::from_bytes(name.to_bytes());
            if here.look(name)?.is_none() {
                self.found.push(Change { kind: Kind::Deleted, path: path.join(name) });
            }
        }
        Ok(())
    }

    fn is_in_image(&self, path: &Path) -> io::Result<bool> {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match crate::sys::path::openat2(self.image, below(path), flags, Mode::empty(), how) {
            Ok(_) => Ok(true),
            // A container can nest directories until their path is longer than any that an image is unpacked at.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn directory_of(here: &Directory, entry: &Entry) -> io::Result<Option<Directory>> {
    match entry.kind() {
        FileType::Directory => here.enter(&entry.name),
        _ => Ok(None),
    }
}

fn below(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}
