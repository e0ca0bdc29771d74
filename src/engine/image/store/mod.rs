//! Images on disk.
//!
//! ```text
//! images/                      an OCI image layout without the blobs of layers
//!   oci-layout  index.json     every image that has a manifest, with its reference; written anew from sources/
//!   blobs/sha256/<hex>         indexes, manifests and configurations
//!   sources/<hex>.json         one record a source: what it stood for when it was last made whole
//!   built/<hex>.json             one record an instruction of a build: see `build::cache`
//!   ids/<hex>.json             one image each, so that one whose name has moved on can still be looked up
//!   busy  claims  removing     locks; layers/.claims is the fourth
//! layers/<diff id>/            one unpacked layer each
//!   tree/                      its files, in overlayfs's own form; or else
//!   layer.erofs  mounted/        an image of such a tree, and where containers share it: see `runtime::layer`
//!   layer.json                 what is known of it
//!   recipe.zst                 how its tar stream is made again from the tree; layers of builds need none
//!   packed.json                as what it was last packed for a registry
//! layers/.tmp-*                what is being unpacked; removed by the next pull if its maker died
//! layers/.tmp-gone-*           what is being removed; the same
//! ```
//!
//! A layer is whole because it was renamed into place after one `syncfs` for the whole image; a source counts once its
//! record is there, and the record is written last. So a power cut leaves an image whole or absent, and at worst
//! unreferenced layers, which [`Store::collect`] removes.
//!
//! Writers: [`session::Session`] adds, `gc` removes; both hold locks, so that several processes may share a store.

pub mod gc;
pub(super) mod lock;
pub mod record;
pub mod session;
mod stream;
pub mod trash;
pub mod trial;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;

use super::build::cache::Built;
use super::error::ImageError;
use super::push::Packed;
use crate::engine::image::erofs;
use crate::engine::telling::Teller;
use crate::model::id::Digest;
use crate::model::image::{Image, ImageSource};
use crate::model::reference::Reference;
use crate::runtime::layer;
use record::{LayerRecord, SourceRecord, source_key};
use session::Form;

/// The name of a layer that is a directory, in its own.
const TREE: &str = "tree";
/// Beside a layer's files: as what it was packed.
const PACKED: &str = "packed.json";

/// The images of one state root. Costs nothing until it is asked.
#[derive(Debug, Clone)]
pub struct Store {
    images: PathBuf,
    layers: PathBuf,
    /// As what layers are unpacked; known when the first is. Copies share it: that is one trial for each process.
    best_form: Arc<OnceLock<Form>>,
    pub(in crate::engine) teller: Teller,
}

impl Store {
    pub fn new(state_root: &Path) -> Store {
        let (images, layers) = (state_root.join("images"), state_root.join("layers"));
        Store { images, layers, best_form: Arc::default(), teller: Teller::new(state_root) }
    }

    /// The same for whoever acts on it, in a word: `image save`.
    pub fn acting_for(self, who: &str) -> Store {
        Store { teller: self.teller.for_whom(who), ..self }
    }

    /// The same, which tells in the journal who does it.
    pub fn telling(self, teller: Teller) -> Store {
        Store { teller, ..self }
    }

    /// The image that `source` stood for when it was last made whole, if every layer of it is still there.
    pub fn find(&self, source: &ImageSource) -> Result<Option<Image>, ImageError> {
        Ok(self.find_record(source)?.map(|record| record.image))
    }

    /// What `source` was last known to stand for, whole or not.
    pub fn known_as(&self, source: &ImageSource) -> Result<Option<Image>, ImageError> {
        Ok(self.known_record(source)?.map(|record| record.image))
    }

    /// What is known of the image with this identifier, whether its layers are still there or not. What cannot be understood
    /// is an error: containers are made of it, and it is not fetched again by its identifier.
    pub fn known(&self, id: &Digest) -> Result<Option<Image>, ImageError> {
        read_strictly(&self.id_path(id))
    }

    /// The files of a layer: a directory, or an image. [`crate::runtime::layer`] opens either.
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        files_in(&self.layers.join(diff_id.hex()))
    }

    /// As what the layer is kept, if it is here.
    pub fn layer_form(&self, diff_id: &Digest) -> Option<Form> {
        let path = self.layer_path(diff_id);
        match path.ends_with(layer::IMAGE) {
            true => Some(Form::Image),
            false => path.is_dir().then_some(Form::Directory),
        }
    }

    /// The files of an image's layers, lowest first.
    pub fn layer_paths(&self, image: &Image) -> Vec<PathBuf> {
        image.layers.iter().map(|layer| self.layer_path(layer)).collect()
    }

    /// As what the layer was packed last, if it was.
    pub(super) fn packed(&self, diff_id: &Digest) -> Result<Option<Packed>, ImageError> {
        read_if_understood(&self.layers.join(diff_id.hex()).join(PACKED))
    }

    pub(super) fn remember_packed(&self, diff_id: &Digest, packed: &Packed) -> Result<(), ImageError> {
        session::replace_json(&self.layers.join(diff_id.hex()).join(PACKED), packed)
    }

    /// While what is returned lives, nothing is removed from the store.
    pub fn hold(&self) -> Result<fs::File, ImageError> {
        let path = self.images.join("busy");
        let busy = lock::open(&path)?;
        busy.lock_shared().map_err(ImageError::file("lock", &path))?;
        Ok(busy)
    }

    /// A file without a name on the store's file system.
    pub fn spool(&self) -> Result<fs::File, ImageError> {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.layers);
        made.map_err(ImageError::file("make the directory", &self.layers))?;
        let opened =
            fs::File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(&self.layers);
        opened.map_err(ImageError::file("make a file in", &self.layers))
    }

    /// The failure of `action` on such a file.
    pub(super) fn spool_failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> ImageError {
        ImageError::file(action, &self.layers)
    }

    /// The bytes of a manifest or a configuration.
    pub fn blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, ImageError> {
        let path = self.blob_path(digest);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ImageError::file("read", &path)(error)),
        }
    }

    /// The bytes of the configuration of an image, whose identifier is their digest.
    pub(super) fn configuration(&self, id: &Digest) -> Result<Vec<u8>, ImageError> {
        self.blob(id)?.ok_or_else(|| ImageError::Malformed {
            subject: id.to_string(),
            problem: "its configuration is not on this host".to_owned(),
        })
    }

    /// Every image that is known here, named or not.
    pub(super) fn images(&self) -> Result<Vec<Image>, ImageError> {
        let mut images: Vec<Image> = Vec::new();
        for path in entries(&self.images.join("ids"))? {
            images.extend(read_if_understood(&path)?);
        }
        Ok(images)
    }

    pub(super) fn find_record(&self, source: &ImageSource) -> Result<Option<SourceRecord>, ImageError> {
        self.find_record_that(source, |image| self.is_whole(image))
    }

    /// What the source was last known to stand for, also where its layers are not whole any more.
    pub(super) fn known_record(&self, source: &ImageSource) -> Result<Option<SourceRecord>, ImageError> {
        match self.find_record(source)? {
            Some(record) => Ok(Some(record)),
            None => self.find_record_that(source, |_| true),
        }
    }

    fn find_record_that(
        &self,
        source: &ImageSource,
        is_fit: impl Fn(&Image) -> bool,
    ) -> Result<Option<SourceRecord>, ImageError> {
        let record: Option<SourceRecord> = read_if_understood(&self.source_path(source))?;
        match record.filter(|record| record.source == *source && is_fit(&record.image)) {
            Some(record) => Ok(Some(record)),
            None => self.find_by_manifest(source, is_fit),
        }
    }

    /// For a reference with a digest: an image that was pulled by just this manifest under another name. What a digest
    /// stands for is the same wherever it is asked. That other name is likely the bare tag, so that is looked at first.
    fn find_by_manifest(
        &self,
        source: &ImageSource,
        is_fit: impl Fn(&Image) -> bool,
    ) -> Result<Option<SourceRecord>, ImageError> {
        let Some((wanted, tag)) = source.reference().and_then(|reference| {
            let digest = reference.digest.clone()?;
            Some((digest, Reference { digest: None, ..reference }))
        }) else {
            return Ok(None);
        };
        let is_it = |image: &Image| image.manifest.as_ref() == Some(&wanted) && is_fit(image);
        let found = |image: Image| SourceRecord { source: source.clone(), image, stamp: None };
        let tagged: Option<SourceRecord> =
            read_if_understood(&self.source_path(&ImageSource::Reference(tag.to_string())))?;
        if let Some(record) = tagged.filter(|record| is_it(&record.image)) {
            return Ok(Some(found(record.image)));
        }
        // Its document lies here if anything was ever pulled by it.
        if !self.blob_path(&wanted).exists() {
            return Ok(None);
        }
        let of_names = self.records()?.into_iter().map(|record| record.image);
        Ok(of_names.chain(self.images()?).find(is_it).map(found))
    }

    pub(super) fn has_layer(&self, diff_id: &Digest) -> bool {
        let files = self.layer_path(diff_id);
        // One that was damaged is as good as none: it is fetched, and takes the other's place.
        match files.file_name().is_some_and(|name| name == layer::IMAGE) {
            true => fs::File::open(&files).and_then(|file| erofs::is_whole(&file)).unwrap_or(false),
            false => files.exists(),
        }
    }

    /// Whether it is written down how the layer's stream is made again; layers of builds need that not.
    pub(super) fn has_recipe(&self, diff_id: &Digest) -> bool {
        self.layers.join(diff_id.hex()).join(super::recipe::NAME).exists()
    }

    /// What is said to be the digests of the documents that are here.
    pub(super) fn documents(&self) -> Result<Vec<Digest>, ImageError> {
        digests_in(&self.images.join("blobs/sha256"))
    }

    /// Every layer that is here, whoever has it.
    pub fn layers(&self) -> Result<Vec<Digest>, ImageError> {
        digests_in(&self.layers)
    }

    /// Takes the layers but these off the places where containers share them.
    pub fn detach_layers_but(&self, used: &BTreeSet<Digest>) -> Result<(), ImageError> {
        let used: BTreeSet<PathBuf> = used.iter().map(|diff_id| self.layers.join(diff_id.hex())).collect();
        for directory in entries(&self.layers)?.into_iter().filter(|directory| !used.contains(directory)) {
            layer::detach(&directory).map_err(ImageError::file("unmount the layer in", &directory))?;
        }
        Ok(())
    }

    /// Size and entries of an unpacked layer.
    pub fn layer_record(&self, diff_id: &Digest) -> Result<Option<LayerRecord>, ImageError> {
        read_if_understood(&self.layers.join(diff_id.hex()).join("layer.json"))
    }

    /// What an earlier build made of these inputs, if the layer is still there.
    pub(super) fn find_built(&self, key: &Digest) -> Result<Option<Built>, ImageError> {
        let built: Option<Built> = read_if_understood(&self.built_path(key))?;
        Ok(built.filter(|built| self.has_layer(&built.layer)))
    }

    /// Everything that builds remember.
    pub(super) fn built(&self) -> Result<Vec<Built>, ImageError> {
        let mut all: Vec<Built> = Vec::new();
        for path in entries(&self.images.join("built"))? {
            all.extend(read_if_understood(&path)?);
        }
        Ok(all)
    }

    /// The state root that this is the store of.
    pub(super) fn state_root(&self) -> &Path {
        // It was made by joining a name to it.
        self.images.parent().unwrap_or(Path::new("/"))
    }

    /// The layers of it that are not there, or that are damaged as far as can be seen at once.
    pub fn lacking(&self, image: &Image) -> BTreeSet<Digest> {
        image.layers.iter().filter(|layer| !self.has_layer(layer)).cloned().collect()
    }

    /// Whether every layer of it is there.
    pub fn is_whole(&self, image: &Image) -> bool {
        image.layers.iter().all(|layer| self.has_layer(layer))
    }

    pub(super) fn records(&self) -> Result<Vec<SourceRecord>, ImageError> {
        let mut records: Vec<SourceRecord> = Vec::new();
        for path in entries(&self.images.join("sources"))? {
            records.extend(read_if_understood(&path)?);
        }
        records.sort_by(|a, b| a.source.cmp(&b.source));
        Ok(records)
    }

    fn source_path(&self, source: &ImageSource) -> PathBuf {
        self.images.join("sources").join(format!("{}.json", source_key(source).hex()))
    }

    fn id_path(&self, id: &Digest) -> PathBuf {
        self.images.join("ids").join(format!("{}.json", id.hex()))
    }

    fn built_path(&self, key: &Digest) -> PathBuf {
        self.images.join("built").join(format!("{}.json", key.hex()))
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.images.join("blobs/sha256").join(digest.hex())
    }
}

/// The files of the layer in a directory of its own.
fn files_in(directory: &Path) -> PathBuf {
    let image = directory.join(layer::IMAGE);
    if image.is_file() { image } else { directory.join(TREE) }
}

fn digests_in(directory: &Path) -> Result<Vec<Digest>, ImageError> {
    let name = |path: &PathBuf| format!("sha256:{}", path.file_name()?.to_str()?).parse().ok();
    Ok(entries(directory)?.iter().filter_map(name).collect())
}

/// The paths in a directory, without temporary ones. A directory that is not there is empty.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let listing = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.map_err(ImageError::file("list", directory))?,
    };
    let mut paths = Vec::new();
    for entry in listing {
        let entry = entry.map_err(ImageError::file("list", directory))?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

/// A record; `None` when there is no such file. What is there and cannot be understood is an error: it may be of a newer
/// version, and what it names in use.
fn read_strictly<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ImageError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| ImageError::Malformed { subject: path.display().to_string(), problem: error.to_string() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ImageError::file("read", path)(error)),
    }
}

/// A record, or nothing if it is not there. One that cannot be understood counts as not there: it says what was
/// fetched, and fetching again writes it anew.
fn read_if_understood<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ImageError> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ImageError::file("read", path)(error)),
    }
}
