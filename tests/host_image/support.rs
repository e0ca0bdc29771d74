//! A state root of its own, and layers made by hand.

#[path = "same.rs"]
mod same;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use evenkeel::engine::host::tag;
use evenkeel::engine::image::build::sandbox::cgroup_parent;
use evenkeel::engine::image::store::gc::Patience;
use evenkeel::engine::image::store::trash;
use evenkeel::engine::image::{self, ImageError, Options, Silent, Store};
use evenkeel::model::garbage::{Extent, Needs, Policy};
use evenkeel::model::id::Digest;
use evenkeel::model::image::{Image, ImageSource};
use evenkeel::runtime::{cgroup, layer};
use tar::{EntryType, Header};
use tempfile::TempDir;

/// A state root that goes away with the test.
pub struct Host {
    pub directory: TempDir,
    pub store: Store,
    pub options: Options,
}

/// What an engine does when the last container is gone: these tests have none.
impl Drop for Host {
    fn drop(&mut self) {
        let Ok(state) = self.path("state").canonicalize() else { return };
        self.store.detach_layers_but(&Default::default()).unwrap();
        let builds = cgroup_parent(&tag(&state));
        let hierarchy = cgroup::detect().unwrap();
        for group in [Some(builds.as_path()), builds.parent()].into_iter().flatten() {
            cgroup::open(&hierarchy, group).remove().unwrap();
        }
    }
}

impl Host {
    pub fn new() -> Host {
        assert!(rustix::process::geteuid().is_root(), "host tests need root");
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(&directory.path().join("state"));
        Host { directory, store, options: Options::new(PathBuf::from(env!("CARGO_BIN_EXE_evenkeel"))) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Removes every image but these, and what only the others had.
    pub fn keep_only(&self, kept: &[&Image]) -> Result<(), ImageError> {
        let needs = Needs { images: kept.iter().map(|image| image.id.clone()).collect(), ..Needs::default() };
        let policy = Policy { extent: Extent::All, only: None, unused_for: Duration::ZERO, now: SystemTime::now() };
        let removed = self.store.collect(&needs, &policy, Patience::Wait)?.unwrap();
        trash::remove(&self.store.removing(), &removed.trash)
    }

    /// The files of a layer, where they can be looked at.
    pub fn tree(&self, diff_id: &Digest) -> PathBuf {
        let files = self.store.layer_path(diff_id);
        layer::attach(&files).unwrap();
        layer::place(&files)
    }

    pub fn ensure(&self, source: &ImageSource) -> Result<Image, ImageError> {
        image::ensure(&self.store, source, &self.options, &Silent)
    }

    /// Unpacks a tar stream as the only layer of an image; its tree. As an image that is the same as as a directory.
    pub fn unpack(&self, tar: &[u8]) -> Result<PathBuf, ImageError> {
        let path = self.path("rootfs.tar");
        fs::write(&path, tar).unwrap();
        let source = ImageSource::Rootfs(path);
        let image = self.ensure(&source)?;
        // Whatever it was: the same stream comes out again. The store itself checks its digest.
        self.store.write_layer(&image.layers[0], &mut io::sink()).unwrap();
        let tree = self.tree(&image.layers[0]);
        if tree != self.store.layer_path(&image.layers[0]) {
            same::assert_same_as_directory(&source, &tree, &self.options);
        }
        Ok(tree)
    }

    /// Whatever was begun and not finished.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut directories = vec![self.path("state/images"), self.path("state/layers")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(".tmp-") {
                    found.push(entry.path());
                } else if entry.path().is_dir()
                    && !["tree", layer::IMAGE].iter().any(|name| entry.path().join(name).exists())
                {
                    directories.push(entry.path());
                }
            }
        }
        found
    }

    pub fn layers(&self) -> Vec<String> {
        let listing = fs::read_dir(self.path("state/layers")).into_iter().flatten().flatten();
        listing.map(|entry| entry.file_name().into_string().unwrap()).filter(|name| !name.starts_with('.')).collect()
    }
}

/// One member of a tar stream, with whatever name it is given.
#[derive(Clone)]
pub struct Member {
    pub header: Header,
    pub body: Vec<u8>,
    pub pax: Vec<(String, Vec<u8>)>,
}

pub fn member(kind: EntryType, name: &str) -> Member {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header.set_size(0);
    let mut pax = Vec::new();
    match header.as_old_mut().name.get_mut(..name.len()) {
        Some(place) => place.copy_from_slice(name.as_bytes()),
        None => pax.push(("path".to_owned(), name.as_bytes().to_vec())),
    }
    Member { header, body: Vec::new(), pax }
}

pub fn file(name: &str, body: &str) -> Member {
    let mut member = member(EntryType::Regular, name);
    member.header.set_size(body.len() as u64);
    member.body = body.as_bytes().to_vec();
    member
}

pub fn directory(name: &str) -> Member {
    member(EntryType::Directory, name)
}

pub fn link(kind: EntryType, name: &str, target: &str) -> Member {
    let mut member = member(kind, name);
    match member.header.as_old_mut().linkname.get_mut(..target.len()) {
        Some(place) => place.copy_from_slice(target.as_bytes()),
        None => member.pax.push(("linkpath".to_owned(), target.as_bytes().to_vec())),
    }
    member
}

pub fn symlink(name: &str, target: &str) -> Member {
    link(EntryType::Symlink, name, target)
}

pub fn hard_link(name: &str, target: &str) -> Member {
    link(EntryType::Link, name, target)
}

pub fn device(kind: EntryType, name: &str, major: u32, minor: u32) -> Member {
    let mut member = member(kind, name);
    member.header.set_device_major(major).unwrap();
    member.header.set_device_minor(minor).unwrap();
    member
}

impl Member {
    pub fn mode(mut self, mode: u32) -> Member {
        self.header.set_mode(mode);
        self
    }

    pub fn owner(mut self, uid: u64, gid: u64) -> Member {
        self.header.set_uid(uid);
        self.header.set_gid(gid);
        self
    }

    pub fn pax(mut self, key: &str, value: &[u8]) -> Member {
        self.pax.push((key.to_owned(), value.to_vec()));
        self
    }
}

pub fn tar(members: &[Member]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for Member { header, body, pax } in members {
        if !pax.is_empty() {
            builder.append_pax_extensions(pax.iter().map(|(key, value)| (key.as_str(), value.as_slice()))).unwrap();
        }
        let mut header = header.clone();
        header.set_cksum();
        builder.append(&header, body.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

pub fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    let length = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    value.truncate(length);
    Some(value)
}
