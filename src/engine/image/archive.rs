//! Images in files: what `docker save` and `podman save` write, and OCI archives; plain, gzip or zstd.
//!
//! ```text
//! index.json     an OCI image layout in a tar file: descriptors, and blobs/sha256/<hex>
//! manifest.json  Docker's form: names of the configuration and of the layers; newer ones hold both forms
//! ```
//!
//! A child lists where each file of the archive is; this process then reads just those ranges, and never tar headers.
//! An archive that is compressed as a whole is first inflated, by a child, into a file without a name.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::Deserialize;

use super::config;
use super::ensure::{Parts, Tools, check_unchanged, commit, missing_layers};
use super::error::ImageError;
use super::layer::{Bytes, Expected, Workshop, check_digest};
use super::manifest::{self, Descriptor, Document, Manifest};
use super::options::Options;
use super::pull::{check_count, check_platform};
use super::rootfs;
use super::store::record::sha256;
use super::store::session::Session;
use super::unpack::compression::{Compression, MAGIC};
use super::unpack::parent;
use super::unpack::report::Listed;
use crate::model::id::Digest;
use crate::model::image::{Image, ImageSource};

const DOCUMENT_MAX: u64 = 8 << 20;
/// Links in an archive lead to files in it, in one step; what needs more is a loop.
const LINKS_MAX: usize = 8;

/// Makes the image of an archive whole, unless the file is the one that was imported before.
pub(super) fn ensure_archive(
    session: Session<'_>,
    source: &ImageSource,
    path: &Path,
    tools: Tools<'_>,
) -> Result<Image, ImageError> {
    let stamp = rootfs::stamp(path)?;
    if let Some(record) = session.store().find_record(source)?
        && record.stamp.as_ref() == Some(&stamp)
    {
        return Ok(record.image);
    }
    let archive = Archive::open(&session, path, tools.options)?;
    let found = match archive.members.contains_key("index.json") {
        true => archive.find_oci(tools.options)?,
        false => archive.find_docker()?,
    };
    let name = path.display().to_string();
    let configuration = config::parse(&format!("the configuration in {name}"), &found.config)?;
    check_platform(&name, &configuration, tools.options)?;
    check_count(&name, found.layers.len(), &configuration)?;
    let (mut expected, mut places) = (Vec::new(), HashMap::new());
    for (layer, diff_id) in found.layers.into_iter().zip(&configuration.diff_ids) {
        places.insert(layer.place.name.clone(), (layer.place.offset, layer.place.size));
        expected.push(Expected {
            name: layer.place.name,
            digest: layer.digest,
            size: Some(layer.place.size),
            diff_id: Some(diff_id.clone()),
        });
    }
    let claimed = session.claim_layers(&configuration.diff_ids)?;
    let missing = missing_layers(&session, tools.progress, expected);
    let workshop = Workshop { session: &session, options: tools.options, progress: tools.progress };
    let failed = AtomicBool::new(false);
    let unpacked = workshop.unpack_all(&missing, &failed, &|layer| {
        // Every expected layer was given its place above.
        let (offset, size) = places.get(&layer.name).copied().unwrap_or_default();
        Ok(Box::new(Range { archive: &archive, offset, left: size }))
    })?;
    check_unchanged(path, &stamp)?;
    let id = sha256([found.config.as_slice()]);
    let blobs = [vec![found.config], found.documents].concat();
    let parts = Parts { id, manifest: found.manifest, configuration, blobs, stamp: Some(stamp) };
    let image = commit(&workshop, source, unpacked, parts)?;
    drop(claimed);
    Ok(image)
}

/// A tar file, uncompressed, and where its files are.
struct Archive {
    file: File,
    path: PathBuf,
    members: HashMap<String, Listed>,
}

/// The image that an archive holds.
struct Found {
    manifest: Option<Digest>,
    config: Vec<u8>,
    layers: Vec<FoundLayer>,
    /// Index and manifest.
    documents: Vec<Vec<u8>>,
}

struct FoundLayer {
    place: Listed,
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

impl Archive {
    fn open(session: &Session<'_>, path: &Path, options: &Options) -> Result<Archive, ImageError> {
        let mut file = File::open(path).map_err(ImageError::file("open", path))?;
        let mut start = [0; MAGIC];
        let count = file.read_at(&mut start, 0).map_err(ImageError::file("read", path))?;
        // Children work in a directory in which there is nothing.
        let empty = session.stage()?;
        let (helper, place, limits) = (&options.helper, empty.tree(), options.limits);
        let name = |error| match error {
            ImageError::Layer { problem, .. } => ImageError::Malformed { subject: path.display().to_string(), problem },
            error => error,
        };
        if Compression::of(&start[..count]) != Compression::None {
            let spool = session.spool()?;
            parent::inflate(helper, &file, &spool, &place, limits).map_err(name)?;
            file = spool;
        }
        file.seek(SeekFrom::Start(0)).map_err(ImageError::file("read", path))?;
        let listed = parent::list(helper, &file, &place, limits).map_err(name)?;
        let length = file.metadata().map_err(ImageError::file("read", path))?.len();
        // The child passes over contents without reading them, so it does not see where the file ends.
        if listed.iter().any(|member| member.offset.checked_add(member.size).is_none_or(|end| end > length)) {
            return Err(ImageError::Malformed {
                subject: path.display().to_string(),
                problem: "it ends early".to_owned(),
            });
        }
        // The last of several with one name, as when it is unpacked.
        let members = listed.into_iter().map(|member| (clean(&member.name), member)).collect();
        Ok(Archive { file, path: path.to_owned(), members })
    }

    fn find_oci(&self, options: &Options) -> Result<Found, ImageError> {
        let name = self.path.display().to_string();
        let index = self.document("index.json")?;
        let Document::Index(listed) = manifest::parse(&name, &index)? else {
            return Err(self.malformed("its index.json is not an index"));
        };
        let top = self.choose(&listed, options)?;
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
            let place = self.place(&blob_name(&layer.digest))?;
            Ok(FoundLayer {
                place: Listed { name: layer.digest.short().to_owned(), ..place },
                digest: Some(layer.digest),
            })
        };
        let layers = layers.into_iter().map(place).collect::<Result<_, _>>()?;
        Ok(Found { manifest: Some(top.digest.clone()), config: self.blob(&config)?, layers, documents })
    }

    /// The one image in the archive that can run here.
    fn choose<'a>(&self, listed: &'a [Descriptor], options: &Options) -> Result<&'a Descriptor, ImageError> {
        let fits = |descriptor: &&Descriptor| {
            descriptor.platform.is_none()
                || manifest::select("", std::slice::from_ref(descriptor), &options.platform).is_ok()
        };
        let mut fitting: Vec<&Descriptor> = listed.iter().filter(fits).collect();
        fitting.dedup_by(|a, b| a.digest == b.digest);
        let title = |descriptor: &Descriptor| {
            let notes = descriptor.annotations.as_ref()?;
            let keys = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
            keys.iter().find_map(|key| notes.get(*key)).map(|title| format!("`{title}`"))
        };
        match fitting.as_slice() {
            [only] => Ok(only),
            [] => manifest::select(&self.path.display().to_string(), listed, &options.platform),
            several => {
                let name = |descriptor: &&Descriptor| {
                    title(descriptor).unwrap_or_else(|| descriptor.digest.short().to_owned())
                };
                Err(ImageError::Ambiguous { path: self.path.clone(), names: several.iter().map(name).collect() })
            }
        }
    }

    fn find_docker(&self) -> Result<Found, ImageError> {
        if !self.members.contains_key("manifest.json") {
            return Err(self.malformed(
                "it has neither an index.json nor a manifest.json; a root filesystem is declared as `rootfs`",
            ));
        }
        let mut entries: Vec<DockerEntry> = serde_json::from_slice(&self.document("manifest.json")?)
            .map_err(|error| self.malformed(&error.to_string()))?;
        let entry = match (entries.pop(), entries.is_empty()) {
            (Some(entry), true) => entry,
            (None, _) => return Err(self.malformed("its manifest.json lists no image")),
            (Some(last), false) => {
                entries.push(last);
                let name = |entry: &DockerEntry| match entry.repo_tags.as_deref() {
                    Some([tag, ..]) => format!("`{tag}`"),
                    _ => entry.config.clone(),
                };
                return Err(ImageError::Ambiguous {
                    path: self.path.clone(),
                    names: entries.iter().map(name).collect(),
                });
            }
        };
        let config = self.document(&entry.config)?;
        // Docker names the configuration for its digest.
        let stem = entry.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        if let Ok(expected) = format!("sha256:{stem}").parse() {
            check_digest("the configuration", &expected, sha256([config.as_slice()]))?;
        }
        let place = |name: &String| -> Result<FoundLayer, ImageError> {
            Ok(FoundLayer { place: Listed { name: name.clone(), ..self.place(name)? }, digest: None })
        };
        let layers = entry.layers.iter().map(place).collect::<Result<_, _>>()?;
        Ok(Found { manifest: None, config, layers, documents: Vec::new() })
    }

    /// Where a file is, through links: Docker saves a layer that several images have once, and links to it.
    fn place(&self, name: &str) -> Result<Listed, ImageError> {
        let mut name = clean(name);
        for _ in 0..LINKS_MAX {
            let Some(member) = self.members.get(&name) else { break };
            match &member.link {
                None => return Ok(member.clone()),
                Some(link) => {
                    // From the archive's root, or for `../ID/layer.tar` from where it stands.
                    let beside = clean(&format!("{name}/../{link}"));
                    name = if self.members.contains_key(&beside) { beside } else { clean(link) };
                }
            }
        }
        Err(self.malformed(&format!("`{name}` is not in it")))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let place = self.place(name)?;
        if place.size > DOCUMENT_MAX {
            return Err(ImageError::TooLarge {
                subject: format!("{name} in {}", self.path.display()),
                limit: DOCUMENT_MAX,
            });
        }
        let mut bytes = vec![0; place.size as usize];
        self.file.read_exact_at(&mut bytes, place.offset).map_err(ImageError::file("read", &self.path))?;
        Ok(bytes)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let name = blob_name(&descriptor.digest);
        let bytes = self.document(&name)?;
        check_digest(&name, &descriptor.digest, sha256([bytes.as_slice()]))?;
        Ok(bytes)
    }

    fn malformed(&self, problem: &str) -> ImageError {
        ImageError::Malformed { subject: self.path.display().to_string(), problem: problem.to_owned() }
    }
}

/// A part of an archive.
struct Range<'a> {
    archive: &'a Archive,
    offset: u64,
    left: u64,
}

impl Bytes for Range<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.archive.file.read_at(&mut buffer[..wanted], self.offset);
        let count = read.map_err(ImageError::file("read", &self.archive.path))?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The name from the archive's root.
fn clean(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
