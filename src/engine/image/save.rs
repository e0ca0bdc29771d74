//! Images as files that other engines take: Docker's archive, and OCI's layout as an archive or a directory.
//!
//! ```text
//! docker  manifest.json  <id>.json  <diff id>.tar ..             docker load, skopeo docker-archive:
//! oci     oci-layout  index.json  blobs/sha256/<digest> ..       skopeo oci-archive: or oci:, umoci, podman load
//! ```
//!
//! # Decisions
//! * Layers are written uncompressed. Their digests are then the diff ids that the configuration names; the same images
//!   give the same bytes, on every host and in every version; and who wants it smaller compresses the whole.
//! * The OCI form has a manifest of its own, since that of a registry names compressed blobs. It is the same each time,
//!   so that what was loaded from here is saved with the digest that it had.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tar::{EntryType, Header};

use super::catalogue::Entry;
use super::error::ImageError;
use super::manifest::{OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use super::store::Store;
use super::store::record::sha256;
use crate::model::id::Digest;
use crate::model::reference::Reference;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Docker,
    Oci,
}

/// An image, and the names that it is saved with.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    pub entry: &'a Entry,
    pub names: BTreeSet<Reference>,
}

/// Writes what a file contains.
pub type Contents<'c> = dyn FnMut(&mut dyn Write) -> Result<(), ImageError> + 'c;

/// Where the files of an archive go.
pub trait Place {
    /// Adds a file of this length.
    fn file(&mut self, name: &str, size: u64, contents: &mut Contents<'_>) -> Result<(), ImageError>;
    fn finish(&mut self) -> Result<(), ImageError>;
}

/// Writes the images to `place`. An image that is wanted twice is written once, with the names of both.
pub fn save(store: &Store, wanted: &[Wanted<'_>], format: Format, place: &mut dyn Place) -> Result<(), ImageError> {
    // Nothing is removed meanwhile.
    let _held = store.hold()?;
    let mut images: BTreeMap<&Digest, Saved> = BTreeMap::new();
    for Wanted { entry, names } in wanted {
        let id = &entry.image.id;
        if !images.contains_key(id) {
            let config = store.configuration(id)?;
            let sized = |layer: &Digest| Ok::<_, ImageError>((layer.clone(), size(store, layer)?));
            let layers = entry.diff_ids.iter().map(sized).collect::<Result<_, _>>()?;
            images.insert(id, Saved { config, layers, names: BTreeSet::new() });
        }
        if let Some(saved) = images.get_mut(id) {
            saved.names.extend(names.iter().filter(|name| name.tag.is_some()).cloned());
        }
    }
    match format {
        Format::Docker => save_docker(store, &images, place)?,
        Format::Oci => save_oci(store, &images, place)?,
    }
    place.finish()?;
    for Wanted { entry, names: _ } in wanted {
        store.teller.tell(&store.teller.of_image("save", &entry.image, entry.sources.first()));
    }
    Ok(())
}

struct Saved {
    config: Vec<u8>,
    /// With the lengths of their tar streams.
    layers: Vec<(Digest, u64)>,
    names: BTreeSet<Reference>,
}

fn size(store: &Store, layer: &Digest) -> Result<u64, ImageError> {
    let record = store.layer_record(layer)?.ok_or_else(|| ImageError::NoLayer { diff_id: layer.clone() })?;
    Ok(record.tar_size)
}

fn save_docker(store: &Store, images: &BTreeMap<&Digest, Saved>, place: &mut dyn Place) -> Result<(), ImageError> {
    let layer = |digest: &Digest| format!("{}.tar", digest.hex());
    let described = |(id, saved): (&&Digest, &Saved)| {
        json!({
            "Config": format!("{}.json", id.hex()),
            "RepoTags": saved.names.iter().map(familiar).collect::<Vec<_>>(),
            "Layers": saved.layers.iter().map(|(digest, _)| layer(digest)).collect::<Vec<_>>(),
        })
    };
    let manifest: Vec<Value> = images.iter().map(described).collect();
    document(place, "manifest.json", &json!(manifest))?;
    for (id, saved) in images {
        bytes(place, &format!("{}.json", id.hex()), &saved.config)?;
    }
    layers(store, images, place, &layer)
}

/// Without the registry that Docker means anyway, as it writes names itself.
fn familiar(name: &Reference) -> String {
    let text = Reference { digest: None, ..name.clone() }.to_string();
    let hub = text.strip_prefix("docker.io/").unwrap_or(&text);
    hub.strip_prefix("library/").unwrap_or(hub).to_owned()
}

fn save_oci(store: &Store, images: &BTreeMap<&Digest, Saved>, place: &mut dyn Place) -> Result<(), ImageError> {
    let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let (mut listed, mut manifests) = (Vec::new(), BTreeMap::new());
    for (id, saved) in images {
        let layer = |(digest, size): &(Digest, u64)| json!({ "mediaType": OCI_LAYER, "digest": digest, "size": size });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": { "mediaType": OCI_CONFIG, "digest": id, "size": saved.config.len() },
            "layers": saved.layers.iter().map(layer).collect::<Vec<_>>(),
        });
        let text = manifest.to_string().into_bytes();
        let digest = sha256([text.as_slice()]);
        let descriptor = json!({ "mediaType": OCI_MANIFEST, "digest": digest, "size": text.len() });
        for name in &saved.names {
            let mut descriptor = descriptor.clone();
            let whole = Reference { digest: None, ..name.clone() };
            // The tag for who knows images by it, the whole name for containerd and for us (OCI image-spec,
            // annotations.md).
            descriptor["annotations"] = json!({
                "io.containerd.image.name": whole.to_string(),
                "org.opencontainers.image.ref.name": name.tag,
            });
            listed.push(descriptor);
        }
        if saved.names.is_empty() {
            listed.push(descriptor);
        }
        manifests.insert(digest, text);
    }
    document(place, "oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))?;
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed });
    document(place, "index.json", &index)?;
    for (digest, text) in &manifests {
        bytes(place, &blob(digest), text)?;
    }
    for (id, saved) in images {
        bytes(place, &blob(id), &saved.config)?;
    }
    layers(store, images, place, &blob)
}

/// The layers of all images, each once.
fn layers(
    store: &Store,
    images: &BTreeMap<&Digest, Saved>,
    place: &mut dyn Place,
    name: &dyn Fn(&Digest) -> String,
) -> Result<(), ImageError> {
    let all: BTreeMap<&Digest, u64> =
        images.values().flat_map(|saved| &saved.layers).map(|(digest, size)| (digest, *size)).collect();
    for (digest, size) in all {
        place.file(&name(digest), size, &mut |to| store.write_layer(digest, to).map(drop))?;
    }
    Ok(())
}

fn document(place: &mut dyn Place, name: &str, document: &Value) -> Result<(), ImageError> {
    bytes(place, name, document.to_string().as_bytes())
}

fn bytes(place: &mut dyn Place, name: &str, bytes: &[u8]) -> Result<(), ImageError> {
    place.file(name, bytes.len() as u64, &mut |to| to.write_all(bytes).map_err(ImageError::Output))
}

/// A tar file.
pub struct Archive<W: Write> {
    to: W,
}

impl<W: Write> Archive<W> {
    pub fn new(to: W) -> Archive<W> {
        Archive { to }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.to.write_all(bytes).map_err(ImageError::Output)
    }
}

const BLOCK: u64 = 512;
const ZEROS: [u8; 2 * BLOCK as usize] = [0; 2 * BLOCK as usize];

impl<W: Write> Place for Archive<W> {
    fn file(&mut self, name: &str, size: u64, contents: &mut Contents<'_>) -> Result<(), ImageError> {
        // GNU's form has sizes above 8 GiB.
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        self.write(header.as_bytes())?;
        contents(&mut self.to)?;
        self.write(&ZEROS[..(size.next_multiple_of(BLOCK) - size) as usize])
    }

    fn finish(&mut self) -> Result<(), ImageError> {
        self.write(&ZEROS)?;
        self.to.flush().map_err(ImageError::Output)
    }
}

/// A directory, which is there and empty.
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    pub fn new(path: &Path) -> Directory {
        Directory { path: path.to_owned() }
    }
}

impl Place for Directory {
    fn file(&mut self, name: &str, _: u64, contents: &mut Contents<'_>) -> Result<(), ImageError> {
        let path = self.path.join(name);
        let parent = path.parent().unwrap_or(&self.path);
        fs::create_dir_all(parent).map_err(ImageError::file("make the directory", parent))?;
        let file = File::create_new(&path).map_err(ImageError::file("make", &path))?;
        let mut file = io::BufWriter::with_capacity(256 << 10, file);
        contents(&mut file)?;
        file.flush().map_err(ImageError::file("write", &path))
    }

    fn finish(&mut self) -> Result<(), ImageError> {
        Ok(())
    }
}
