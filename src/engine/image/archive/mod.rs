//! Images in files: what `docker save` and `podman save` write, and OCI archives, plain, gzip or zstd; and directories
//! with the same files in them.
//!
//! ```text
//! index.json     an OCI image layout: descriptors, and blobs/sha256/<hex>
//! manifest.json  Docker's form: names of the configuration and of the layers; newer ones hold both forms
//! ```
//!
//! A child lists where each file of the archive is; this process then reads just those ranges, and never tar headers.
//! An archive that is compressed as a whole is first inflated, by a child, into a file without a name ([`contents`]).

mod contents;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use contents::{Contents, Place};
use serde::Deserialize;

use super::config;
use super::ensure::{Parts, Tools, check_unchanged, commit, missing_layers, stack};
use super::error::ImageError;
use super::layer::{Expected, Workshop, check_digest};
use super::manifest::{self, Descriptor, Document, Manifest};
use super::options::Options;
use super::pull::{check_count, check_platform};
use super::rootfs;
use super::store::lock::Claims;
use super::store::record::{Stamp, sha256};
use super::store::session::{FinishedLayer, Session};
use crate::model::id::Digest;
use crate::model::image::{Archived, Image, ImageSource, normalize_reference};

const DOCUMENT_MAX: u64 = 8 << 20;
/// Makes the image of an archive whole, unless the file is the one that was imported before.
pub(super) fn ensure_archive(
    session: Session<'_>,
    source: &ImageSource,
    archived: &Archived,
    tools: Tools<'_>,
) -> Result<Image, ImageError> {
    let stamp = rootfs::stamp(&archived.path)?;
    if let Some(record) = session.store().find_record(source)?
        && record.stamp.as_ref() == Some(&stamp)
    {
        return Ok(record.image);
    }
    read(&session, archived, Some((source, Some(stamp))), tools)
}

/// Makes the image of an archive whole: see [`Archive::import`].
pub(super) fn read(
    session: &Session<'_>,
    archived: &Archived,
    named: Option<(&ImageSource, Option<Stamp>)>,
    tools: Tools<'_>,
) -> Result<Image, ImageError> {
    let Archived { path, image: wanted } = archived;
    let file = File::open(path).map_err(ImageError::file("open", path))?;
    let archive = Archive::open(session, file, path, tools.options)?;
    let found = archive.one(wanted.as_deref(), tools.options)?;
    archive.import(session, found, named, tools)
}

/// An archive whose files can be read.
pub(super) struct Archive {
    contents: Contents,
    path: PathBuf,
}

/// An image that an archive lists.
pub(super) struct Listing {
    /// What messages call it.
    title: String,
    /// References, as the archive has them.
    pub names: Vec<String>,
    what: Described,
}

impl Listing {
    /// Whether this is its name, as it stands or as a reference that leaves out what is usual, or its digest.
    fn is(&self, wanted: &str) -> bool {
        let digest = match &self.what {
            Described::Oci(top) => Some(top.digest.clone()),
            Described::Docker(entry) => entry.digest(),
        };
        let whole = normalize_reference(wanted).ok();
        let is_name = |name: &String| name == wanted || (whole.is_some() && normalize_reference(name).ok() == whole);
        self.names.iter().any(is_name) || self.title == wanted || digest.is_some_and(|d| d.to_string() == wanted)
    }
}

/// By what an archive knows an image.
enum Described {
    Oci(Descriptor),
    Docker(DockerEntry),
}

/// An image that an archive holds.
pub(super) struct Found {
    manifest: Option<Digest>,
    config: Vec<u8>,
    layers: Vec<FoundLayer>,
    /// Index and manifest.
    documents: Vec<Vec<u8>>,
}

/// An image whose layers are all there, some of them not in place yet.
pub(super) struct Unpacked<'a> {
    workshop: Workshop<'a>,
    new: Vec<FinishedLayer>,
    parts: Parts,
    _claims: Claims,
}

impl Unpacked<'_> {
    /// What to mount, lowest first, while this lives.
    pub fn trees(&mut self) -> Result<Vec<PathBuf>, ImageError> {
        let diff_ids = &self.parts.configuration.diff_ids;
        Ok(stack(&self.workshop, &mut self.new, diff_ids)?.into_iter().map(|(_, tree)| tree).collect())
    }
}

struct FoundLayer {
    /// What messages call it.
    name: String,
    place: Place,
    digest: Option<Digest>,
}

/// One image in Docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl DockerEntry {
    /// Docker names the configuration for its digest.
    fn digest(&self) -> Option<Digest> {
        let stem = self.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        format!("sha256:{stem}").parse().ok()
    }
}

impl Archive {
    /// `path` is what errors call it.
    pub fn open(session: &Session<'_>, file: File, path: &Path, options: &Options) -> Result<Archive, ImageError> {
        Ok(Archive { contents: Contents::of(session, file, path, options)?, path: path.to_owned() })
    }

    /// The images in it that can run here, each once; there is at least one.
    pub fn find(&self, options: &Options) -> Result<Vec<Listing>, ImageError> {
        match self.contents.place("index.json", &self.path)? {
            Some(index) => self.find_oci(&index, options),
            None => self.find_docker(),
        }
    }

    /// Reads the documents of an image.
    pub fn read(&self, listing: Listing, options: &Options) -> Result<Found, ImageError> {
        match listing.what {
            Described::Oci(top) => self.read_oci(&top, options),
            Described::Docker(entry) => self.read_docker(&entry),
        }
    }

    /// The only image in it.
    pub fn only(&self, options: &Options) -> Result<Found, ImageError> {
        self.one(None, options)
    }

    /// The image in it that is wanted, or the only one.
    fn one(&self, wanted: Option<&str>, options: &Options) -> Result<Found, ImageError> {
        let listed = self.find(options)?;
        let (mut found, others): (Vec<Listing>, Vec<Listing>) =
            listed.into_iter().partition(|listing| wanted.is_none_or(|wanted| listing.is(wanted)));
        if let (Some(wanted), true) = (wanted, found.is_empty()) {
            let names = others.into_iter().map(|listing| listing.title).collect();
            return Err(ImageError::NotInArchive { path: self.path.clone(), image: wanted.to_owned(), names });
        }
        match (found.pop(), found.is_empty()) {
            (Some(only), true) => self.read(only, options),
            (last, _) => {
                let names = found.into_iter().chain(last).map(|listing| listing.title).collect();
                Err(ImageError::Ambiguous { path: self.path.clone(), names })
            }
        }
    }

    /// Unpacks what is missing of an image and puts everything in place. The file must not change meanwhile; where
    /// there is a stamp of it, that is checked.
    pub fn import(
        &self,
        session: &Session<'_>,
        found: Found,
        named: Option<(&ImageSource, Option<Stamp>)>,
        tools: Tools<'_>,
    ) -> Result<Image, ImageError> {
        let Unpacked { workshop, new, mut parts, _claims } = self.unpack(session, found, tools)?;
        if let Some((_, Some(stamp))) = &named {
            check_unchanged(&self.path, stamp)?;
        }
        let (source, stamp) = named.unzip();
        parts.stamp = stamp.flatten();
        commit(&workshop, source, new, parts)
    }

    /// Unpacks what is missing of an image.
    pub fn unpack<'s>(
        &self,
        session: &'s Session<'s>,
        found: Found,
        tools: Tools<'s>,
    ) -> Result<Unpacked<'s>, ImageError> {
        let name = self.path.display().to_string();
        let configuration = config::parse(&format!("the configuration in {name}"), &found.config)?;
        check_platform(&name, &configuration, tools.options)?;
        check_count(&name, found.layers.len(), &configuration)?;
        let (mut expected, mut places) = (Vec::new(), HashMap::new());
        for (layer, diff_id) in found.layers.into_iter().zip(&configuration.diff_ids) {
            expected.push(Expected {
                name: layer.name.clone(),
                digest: layer.digest,
                size: Some(layer.place.size),
                diff_id: Some(diff_id.clone()),
            });
            places.insert(layer.name, layer.place);
        }
        let _claims = session.claim_layers(&configuration.diff_ids)?;
        let missing = missing_layers(session, tools.progress, expected);
        let workshop = Workshop { session, options: tools.options, progress: tools.progress };
        let failed = AtomicBool::new(false);
        let new = workshop.unpack_all(&missing, &failed, &|layer| {
            // Every expected layer was given its place above.
            let place = places.get(&layer.name).ok_or_else(|| self.not_in_it(&layer.name))?;
            Ok(Box::new(place.stream(&self.path)))
        })?;
        let id = sha256([found.config.as_slice()]);
        let blobs = [vec![found.config], found.documents].concat();
        let parts = Parts { id, manifest: found.manifest, configuration, blobs, stamp: None };
        Ok(Unpacked { workshop, new, parts, _claims })
    }

    fn find_oci(&self, index: &Place, options: &Options) -> Result<Vec<Listing>, ImageError> {
        let name = self.path.display().to_string();
        let index = self.read_document("index.json", index)?;
        let Document::Index(listed) = manifest::parse(&name, &index)? else {
            return Err(self.malformed("its index.json is not an index"));
        };
        let fits = |descriptor: &&Descriptor| {
            descriptor.platform.is_none()
                || manifest::select("", std::slice::from_ref(*descriptor), &options.platform).is_ok()
        };
        let mut fitting: Vec<&Descriptor> = Vec::new();
        for descriptor in listed.iter().filter(fits) {
            if fitting.iter().all(|known| known.digest != descriptor.digest) {
                fitting.push(descriptor);
            }
        }
        if fitting.is_empty() {
            fitting.push(manifest::select(&name, &listed, &options.platform)?);
        }
        let found = fitting.into_iter().map(|top| {
            let named = listed.iter().filter(|descriptor| descriptor.digest == top.digest);
            let names: Vec<String> = named.filter_map(annotated_name).collect();
            let title = names.first().map_or_else(|| top.digest.to_string(), |name| format!("`{name}`"));
            Listing { title, names, what: Described::Oci(top.clone()) }
        });
        Ok(found.collect())
    }

    fn read_oci(&self, top: &Descriptor, options: &Options) -> Result<Found, ImageError> {
        let name = self.path.display().to_string();
        let bytes = self.blob(top)?;
        let mut documents = vec![bytes.clone()];
        let manifest = match manifest::parse(&name, &bytes)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(listed) => {
                let chosen = self.blob(manifest::select(&name, &listed, &options.platform)?)?;
                documents.push(chosen.clone());
                match manifest::parse(&name, &chosen)? {
                    Document::Manifest(manifest) => manifest,
                    Document::Index(_) => {
                        return Err(self.malformed("its index lists a further index for this platform"));
                    }
                }
            }
        };
        let Manifest { config, layers } = manifest;
        let place = |layer: Descriptor| -> Result<FoundLayer, ImageError> {
            let (name, place) = (layer.digest.short().to_owned(), self.place(&blob_name(&layer.digest))?);
            Ok(FoundLayer { name, place, digest: Some(layer.digest) })
        };
        let layers = layers.into_iter().map(place).collect::<Result<_, _>>()?;
        let config = self.blob(&config)?;
        Ok(Found { manifest: Some(top.digest.clone()), config, layers, documents })
    }

    fn find_docker(&self) -> Result<Vec<Listing>, ImageError> {
        let Some(list) = self.contents.place("manifest.json", &self.path)? else {
            return Err(self.malformed(
                "it has neither an index.json nor a manifest.json; a root filesystem is declared as `rootfs`",
            ));
        };
        let entries: Vec<DockerEntry> = serde_json::from_slice(&self.read_document("manifest.json", &list)?)
            .map_err(|error| self.malformed(&error.to_string()))?;
        if entries.is_empty() {
            return Err(self.malformed("its manifest.json lists no image"));
        }
        let listing = |entry: DockerEntry| {
            let names = entry.repo_tags.clone().unwrap_or_default();
            let title = names.first().map_or_else(|| entry.config.clone(), |name| format!("`{name}`"));
            Listing { title, names, what: Described::Docker(entry) }
        };
        Ok(entries.into_iter().map(listing).collect())
    }

    fn read_docker(&self, entry: &DockerEntry) -> Result<Found, ImageError> {
        let config = self.document(&entry.config)?;
        if let Some(expected) = entry.digest() {
            check_digest("the configuration", &expected, sha256([config.as_slice()]))?;
        }
        let place = |name: &String| -> Result<FoundLayer, ImageError> {
            Ok(FoundLayer { name: name.clone(), place: self.place(name)?, digest: None })
        };
        let layers = entry.layers.iter().map(place).collect::<Result<_, _>>()?;
        Ok(Found { manifest: None, config, layers, documents: Vec::new() })
    }

    fn place(&self, name: &str) -> Result<Place, ImageError> {
        self.contents.place(name, &self.path)?.ok_or_else(|| self.not_in_it(name))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        self.read_document(name, &self.place(name)?)
    }

    fn read_document(&self, name: &str, place: &Place) -> Result<Vec<u8>, ImageError> {
        if place.size > DOCUMENT_MAX {
            return Err(ImageError::TooLarge {
                subject: format!("{name} in {}", self.path.display()),
                limit: DOCUMENT_MAX,
            });
        }
        place.read(&self.path)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let name = blob_name(&descriptor.digest);
        let bytes = self.document(&name)?;
        check_digest(&name, &descriptor.digest, sha256([bytes.as_slice()]))?;
        Ok(bytes)
    }

    fn not_in_it(&self, name: &str) -> ImageError {
        self.malformed(&format!("`{name}` is not in it"))
    }

    fn malformed(&self, problem: &str) -> ImageError {
        ImageError::Malformed { subject: self.path.display().to_string(), problem: problem.to_owned() }
    }
}

/// The reference that a descriptor of an index has: the whole one that containerd and Docker write, or what stands where
/// often only a tag does.
fn annotated_name(descriptor: &Descriptor) -> Option<String> {
    let notes = descriptor.annotations.as_ref()?;
    let whole = notes.get("io.containerd.image.name");
    whole.or_else(|| notes.get("org.opencontainers.image.ref.name")).cloned()
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
