//! Pushing: from an image of this host to a repository.
//!
//! ```text
//! layer: what it was pulled as ── there, or mountable ──────────────────────────────┐
//!        └─ what it was packed as before ── there ──────────────────────────────────┤
//!               └─ tree ─ recipe ─> tar = diff id ─ gzip ─> file without name ─ PUT ┤
//! configuration, unchanged: the image keeps its identifier                          ├─> manifest by tag
//! ```
//!
//! # Decisions
//! * Blobs of layers are not kept: a second copy of every image for the few that are pushed on. Their tar streams are
//!   made again byte by byte, packed with gzip, always at the same level and without a time, so that one layer packed
//!   twice is one blob. Its digest is remembered beside the layer, and so it is packed only where it is missing.
//! * An image whose layers are all there as they were pulled keeps its manifest, too, byte by byte. One that had to be
//!   packed gets a new manifest of the same kind; its identifier, the configuration's digest, stays.

use std::fs::File;
use std::io::{Seek, Write};
use std::sync::atomic::AtomicBool;

use flate2::{Compression, GzBuilder};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::config;
use super::digesting::Digesting;
use super::error::ImageError;
use super::manifest::{
    self, DOCKER_CONFIG, DOCKER_LAYER_GZIP, DOCKER_MANIFEST, Descriptor, Document, Manifest, OCI_CONFIG,
    OCI_LAYER_GZIP, OCI_MANIFEST,
};
use super::options::Options;
use super::progress::{Event, Progress};
use super::registry::Registry;
use super::registry::upload::{Mounted, Session, Upload};
use super::side_by_side;
use super::store::Store;
use super::store::record::sha256;
use crate::model::id::Digest;
use crate::model::image::{Image, ImageSource};
use crate::model::reference::Reference;

/// What to push and where to.
pub struct Push<'a> {
    /// Names of the image, the likeliest first: from another repository of the same registry its blobs need not be sent.
    pub names: &'a [ImageSource],
    pub image: &'a Image,
    pub destination: &'a Reference,
}

/// What the repository has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    pub manifest: Digest,
    pub size: u64,
}

/// A layer as it is in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    pub digest: Digest,
    pub size: u64,
}

/// Makes the repository have the image, under the tag or digest of the destination.
pub fn push(store: &Store, push: &Push<'_>, options: &Options, progress: &dyn Progress) -> Result<Pushed, ImageError> {
    let Push { names, image, destination } = push;
    let _held = store.hold()?;
    let config = store.configuration(&image.id)?;
    let configuration = config::parse(&format!("the configuration of {}", image.id), &config)?;
    let original = original(store, image)?;
    let registry = Registry::to_push(destination, options)?;
    let from = names.iter().find_map(|name| mountable(name, destination));
    let from = from.map(|from| Registry::to_mount(destination, &from, options).map(|opened| (opened, from)));
    let from = from.transpose()?;
    let failed = AtomicBool::new(false);
    let work = Work { store, registry: &registry, from: from.as_ref(), progress, failed: &failed };
    let layers = original.as_ref().map(|original| original.manifest.layers.as_slice()).unwrap_or_default();
    let placed = work.place_all(&configuration.diff_ids, layers)?;
    work.place_bytes(&image.id, &config)?;
    let unchanged = placed.iter().all(|placed| placed.was.is_some());
    let (kind, bytes) = match &original {
        Some(original) if unchanged => (original.kind.clone(), original.bytes.clone()),
        original => {
            let docker = original.as_ref().is_some_and(|original| original.kind == DOCKER_MANIFEST);
            compose(&image.id, config.len(), &placed, docker)
        }
    };
    let manifest = sha256([bytes.as_slice()]);
    let version = match &destination.digest {
        Some(digest) if *digest != manifest => {
            return Err(ImageError::WrongDigest {
                subject: destination.to_string(),
                expected: digest.clone(),
                actual: manifest,
            });
        }
        _ => destination.version(),
    };
    registry.put_manifest(version, &kind, &bytes)?;
    Ok(Pushed { manifest, size: bytes.len() as u64 })
}

/// The repository that this name is of, if it is another one of the destination's registry. Whether the image was ever
/// pulled or pushed there only the registry knows; where it was not, the blobs are sent.
fn mountable(name: &ImageSource, destination: &Reference) -> Option<String> {
    let ImageSource::Reference(text) = name else { return None };
    let name: Reference = text.parse().ok()?;
    let differs = name.repository != destination.repository;
    (name.registry == destination.registry && differs).then_some(name.repository)
}

/// The manifest that the image was pulled by.
struct Original {
    kind: String,
    bytes: Vec<u8>,
    manifest: Manifest,
}

/// That of this host's platform, where an index was pulled; none for an image that no registry has given.
fn original(store: &Store, image: &Image) -> Result<Option<Original>, ImageError> {
    let Some(mut bytes) = image.manifest.as_ref().map(|digest| store.blob(digest)).transpose()?.flatten() else {
        return Ok(None);
    };
    let subject = image.id.to_string();
    if let Document::Index(manifests) = manifest::parse(&subject, &bytes)? {
        let mut of_image = None;
        for descriptor in manifests {
            // Of those for other platforms only the index is here.
            let Some(candidate) = store.blob(&descriptor.digest)? else { continue };
            if let Ok(Document::Manifest(manifest)) = manifest::parse(&subject, &candidate)
                && manifest.config.digest == image.id
            {
                of_image = Some(candidate);
            }
        }
        match of_image {
            Some(found) => bytes = found,
            None => return Ok(None),
        }
    }
    match manifest::parse(&subject, &bytes)? {
        Document::Manifest(manifest) => Ok(Some(Original { kind: manifest::media_type(&bytes), bytes, manifest })),
        Document::Index(_) => Ok(None),
    }
}

/// What the repository has of a layer now.
struct Placed {
    packed: Packed,
    /// Its media type in the manifest that the image was pulled by, if it is the blob of that.
    was: Option<String>,
}

impl Placed {
    fn as_it_was(original: &Descriptor) -> Placed {
        let packed = Packed { digest: original.digest.clone(), size: original.size };
        Placed { packed, was: Some(original.media_type.clone()) }
    }
}

/// A manifest for layers of which some were packed anew.
fn compose(id: &Digest, config_size: usize, placed: &[Placed], docker: bool) -> (String, Vec<u8>) {
    let (kind, config, layer) = match docker {
        true => (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER_GZIP),
        false => (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER_GZIP),
    };
    let descriptor = |placed: &Placed| {
        let kind = placed.was.as_deref().filter(|kind| !kind.is_empty()).unwrap_or(layer);
        json!({ "mediaType": kind, "digest": placed.packed.digest, "size": placed.packed.size })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": kind,
        "config": { "mediaType": config, "digest": id, "size": config_size },
        "layers": placed.iter().map(descriptor).collect::<Vec<_>>(),
    });
    (kind.to_owned(), manifest.to_string().into_bytes())
}

struct Work<'a> {
    store: &'a Store,
    registry: &'a Registry,
    /// Where blobs may be mounted from, and the destination for who may read that, too. A token for both may be had by
    /// somebody who may only write, or not at all; so it is not what blobs are sent with.
    from: Option<&'a (Registry, String)>,
    progress: &'a dyn Progress,
    failed: &'a AtomicBool,
}

impl Work<'_> {
    fn place_all(&self, diff_ids: &[Digest], original: &[Descriptor]) -> Result<Vec<Placed>, ImageError> {
        let layers: Vec<_> = diff_ids.iter().enumerate().map(|(at, diff_id)| (diff_id, original.get(at))).collect();
        side_by_side::each(&layers, self.failed, |(diff_id, original)| self.place(diff_id, *original))
    }

    fn place(&self, diff_id: &Digest, original: Option<&Descriptor>) -> Result<Placed, ImageError> {
        let name = diff_id.short();
        let mut session = None;
        if let Some(original) = original
            && self.has_or_mounts(&original.digest, name, &mut session)?
        {
            return Ok(Placed::as_it_was(original));
        }
        if let Some(packed) = self.store.packed(diff_id)?
            && self.has_or_mounts(&packed.digest, name, &mut session)?
        {
            return Ok(Placed { packed, was: None });
        }
        let (packed, file) = pack(self.store, diff_id)?;
        self.store.remember_packed(diff_id, &packed)?;
        let how = match self.registry.has_blob(&packed.digest)? {
            true => "already there",
            false => {
                let (digest, size) = (&packed.digest, packed.size);
                let (progress, stopped) = (self.progress, self.failed);
                self.registry.upload(&Upload { digest, size, file: &file, name, progress, stopped }, session)?;
                "sent"
            }
        };
        self.progress.report(Event::Stored { layer: name, how });
        // It may have been packed to just what the image was pulled as.
        let was = original.filter(|original| original.digest == packed.digest).map(|was| was.media_type.clone());
        Ok(Placed { packed, was })
    }

    /// Whether the repository has this blob, or has it now from the other one. Where the registry begins an upload in
    /// place of mounting (OCI distribution-spec, "Mounting a blob from another repository"), that is the session; one that
    /// is not used ends there by itself. A registry that refuses to mount is sent the blob.
    fn has_or_mounts(&self, blob: &Digest, layer: &str, session: &mut Option<Session>) -> Result<bool, ImageError> {
        let how = if self.registry.has_blob(blob)? {
            "already there"
        } else if let Some((registry, from)) = self.from {
            match registry.mount(blob, from) {
                Ok(Mounted::Done) => "mounted",
                Ok(Mounted::Instead(begun)) => {
                    *session = Some(begun);
                    return Ok(false);
                }
                Err(_) => return Ok(false),
            }
        } else {
            return Ok(false);
        };
        self.progress.report(Event::Stored { layer, how });
        Ok(true)
    }

    fn place_bytes(&self, digest: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
        if self.registry.has_blob(digest)? {
            return Ok(());
        }
        let mut file = self.store.spool()?;
        file.write_all(bytes).map_err(self.store.spool_failed("write"))?;
        let (size, name) = (bytes.len() as u64, digest.short());
        let (progress, stopped) = (self.progress, self.failed);
        self.registry.upload(&Upload { digest, size, file: &file, name, progress, stopped }, None)
    }
}

/// A layer as a gzip stream (RFC 1952) that depends on nothing but its bytes: no name, no time, one level.
pub fn pack(store: &Store, diff_id: &Digest) -> Result<(Packed, File), ImageError> {
    let file = store.spool()?;
    let digesting = Digesting::new(&file);
    let mut gzip = GzBuilder::new().mtime(0).operating_system(255).write(digesting, Compression::default());
    store.write_layer(diff_id, &mut gzip)?;
    let (digest, size) = gzip.finish().map_err(store.spool_failed("write"))?.finish();
    let mut file = file;
    file.rewind().map_err(store.spool_failed("read"))?;
    Ok((Packed { digest, size }, file))
}
