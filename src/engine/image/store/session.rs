//! Adding to the store: layers are staged under temporary names, and become visible together with the record.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde_json::json;

use super::lock::{self, Claims};
use super::record::{LayerRecord, SourceRecord, Stamp, sha256, source_key};
use super::trash;
use super::trial;
use super::{Store, TREE, files_in};
use crate::engine::image::build::cache::Built;
use crate::engine::image::error::ImageError;
use crate::engine::image::manifest::OCI_INDEX;
use crate::engine::image::options::Options;
use crate::engine::image::recipe;
use crate::engine::image::unpack::{Destination, Unpacking};
use crate::engine::removal;
use crate::model::id::Digest;
use crate::model::image::{Image, ImageSource};
use crate::runtime::layer;

/// The right to add to a store. While it lasts nothing is removed from it.
pub struct Session<'a> {
    store: &'a Store,
    /// Layers that are made anew although they look whole.
    doubted: BTreeSet<Digest>,
    _busy: File,
    _source: Claims,
}

/// A layer that is being unpacked, or waits for the others of its image. Dropping it removes it.
pub struct StagedLayer {
    path: PathBuf,
    form: Form,
}

/// What a layer is kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Directory,
    Image,
}

/// A staged layer whose diff id is known to be right.
pub struct FinishedLayer {
    pub diff_id: Digest,
    pub staged: StagedLayer,
    pub record: LayerRecord,
}

/// Everything that makes an image whole.
pub struct Commit {
    pub layers: Vec<FinishedLayer>,
    /// Manifests and configurations.
    pub blobs: Vec<Vec<u8>>,
    pub image: Image,
    /// What stands for it from now on, and of a file how that looks.
    pub named: Option<(ImageSource, Option<Stamp>)>,
}

impl StagedLayer {
    /// Where files go, of a layer that is a directory.
    pub fn tree(&self) -> PathBuf {
        self.path.join(TREE)
    }

    /// The files of a layer that is finished: see [`Store::layer_path`].
    pub fn files(&self) -> PathBuf {
        files_in(&self.path)
    }

    pub fn is_image(&self) -> bool {
        self.form == Form::Image
    }

    /// Begins to unpack into it: see [`Unpacking::start`].
    pub fn unpack(&self, name: &str, options: &Options) -> Result<Unpacking, ImageError> {
        let (tree, image, mounted) = (self.tree(), self.path.join(layer::IMAGE), self.path.join(layer::MOUNTED));
        let destination = match self.form {
            Form::Directory => Destination::Directory(&tree),
            Form::Image => Destination::Image { file: &image, empty: &mounted },
        };
        Unpacking::start(&options.helper, name, destination, Some(&self.recipe()), options.limits)
    }
}

impl StagedLayer {
    /// Where it is written down how the layer's stream is made again.
    pub fn recipe(&self) -> PathBuf {
        self.path.join(recipe::NAME)
    }
}

impl Drop for StagedLayer {
    fn drop(&mut self) {
        // After a failure the report is about that failure; what cannot be removed now is removed by the next session.
        // It may have changed places with a damaged one that is attached.
        let _ = remove_any(&self.path);
    }
}

impl Store {
    /// Begins to make `source` whole, as the only one who does.
    pub fn session(&self, source: &ImageSource) -> Result<Session<'_>, ImageError> {
        for directory in
            ["blobs/sha256", "sources", "ids", "built"].map(|name| self.images.join(name)).iter().chain([&self.layers])
        {
            // What is in layers is set-user-ID programs of strangers: nobody but root may walk in.
            let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(ImageError::file("make the directory", directory))?;
        }
        let claimed = lock::claim(&self.images.join("claims"), [source_key(source)])?;
        self.sweep()?;
        let path = self.images.join("busy");
        let busy = lock::open(&path)?;
        busy.lock_shared().map_err(ImageError::file("lock", &path))?;
        Ok(Session { store: self, doubted: BTreeSet::new(), _busy: busy, _source: claimed })
    }

    /// Removes what is unfinished and belongs to somebody who died. While somebody adds or removes, that is left to later.
    pub fn sweep(&self) -> Result<(), ImageError> {
        if !self.images.exists() {
            return Ok(());
        }
        match self.alone()? {
            Some(_alone) => self.remove_leftovers(),
            None => Ok(()),
        }
    }

    /// Keeps everybody from adding, for as long as what this gives is kept; `None` while somebody adds or removes.
    pub fn alone(&self) -> Result<Option<File>, ImageError> {
        let busy = lock::open(&self.images.join("busy"))?;
        Ok(busy.try_lock().is_ok().then_some(busy))
    }

    fn remove_leftovers(&self) -> Result<(), ImageError> {
        // Somebody is at it already, and may take long.
        let is_in_removal = self.is_removing()?;
        for directory in ["blobs/sha256", "sources", "ids", "built", "."]
            .map(|name| self.images.join(name))
            .iter()
            .chain([&self.layers, &self.caches()])
        {
            // A store that an earlier version made has no directory of builds.
            let listing = match fs::read_dir(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                listing => listing.map_err(ImageError::file("list", directory))?,
            };
            for entry in listing {
                let entry = entry.map_err(ImageError::file("list", directory))?;
                let (name, is_gone) = (entry.file_name(), trash::is_trash(&entry.path()));
                if name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) && !(is_gone && is_in_removal) {
                    remove_any(&entry.path())?;
                }
            }
        }
        Ok(())
    }
}

impl Session<'_> {
    /// Holds these layers against other sessions, after waiting for those that make one of them.
    pub fn claim_layers(&self, diff_ids: &[Digest]) -> Result<Claims, ImageError> {
        // A file of their own: the claim of the source is held meanwhile, and must not be met again here.
        lock::claim(&self.store.layer_claims(), diff_ids.iter().cloned())
    }

    /// Makes the source stand for an image that is here already, as well as whatever else does.
    pub fn name(&self, source: &ImageSource, image: &Image) -> Result<(), ImageError> {
        let is_new = self.store.known_as(source)?.is_none_or(|known| known.id != image.id);
        let named = Some((source.clone(), None));
        self.commit(Commit { layers: Vec::new(), blobs: Vec::new(), image: image.clone(), named })?;
        if is_new {
            let teller = &self.store.teller;
            teller.tell(&teller.of_image("tag", image, Some(source)));
        }
        Ok(())
    }

    pub fn store(&self) -> &Store {
        self.store
    }

    /// Takes these layers for damaged, however they look.
    pub fn doubting(self, layers: BTreeSet<Digest>) -> Self {
        Session { doubted: layers, ..self }
    }

    /// Whether the layer is there and can be used.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        !self.doubted.contains(diff_id) && self.store.has_layer(diff_id)
    }

    /// Where layers are staged and stay.
    pub fn layers(&self) -> &Path {
        &self.store.layers
    }

    /// An empty place for a layer that becomes a directory, on the file system where it will stay.
    pub fn stage(&self) -> Result<StagedLayer, ImageError> {
        self.stage_as(Form::Directory)
    }

    /// The same for one that is unpacked: as the options say, or else an image where this kernel mounts such from that
    /// file system.
    pub fn stage_to_unpack(&self, options: &Options) -> Result<StagedLayer, ImageError> {
        let form = match options.form.or(self.store.best_form.get().copied()) {
            Some(form) => form,
            None => {
                let form = self.form_that_is_mounted()?;
                *self.store.best_form.get_or_init(|| form)
            }
        };
        self.stage_as(form)
    }

    pub(in crate::engine::image) fn stage_as(&self, form: Form) -> Result<StagedLayer, ImageError> {
        let staged = StagedLayer { path: self.store.layers.join(temporary_name()), form };
        let inside = if form == Form::Image { staged.path.join(layer::MOUNTED) } else { staged.tree() };
        for path in [staged.path.clone(), inside] {
            DirBuilder::new().mode(0o700).create(&path).map_err(ImageError::file("make the directory", &path))?;
        }
        Ok(staged)
    }

    fn form_that_is_mounted(&self) -> Result<Form, ImageError> {
        let staged = self.stage_as(Form::Image)?;
        Ok(if trial::mounts_images(&staged.path)? { Form::Image } else { Form::Directory })
    }

    /// A file without a name, for what is needed only while this session lasts.
    pub fn spool(&self) -> Result<File, ImageError> {
        self.store.spool()
    }

    /// Makes a layer visible before its image is: what a build has done so far, for the next one.
    pub fn publish(&self, layer: FinishedLayer, key: &Digest, built: &Built) -> Result<(), ImageError> {
        let store = self.store;
        self.replace(layer)?;
        replace_json(&store.built_path(key), built)
    }

    /// Makes a layer visible, in place of one that is there and not whole.
    pub fn replace(&self, layer: FinishedLayer) -> Result<(), ImageError> {
        let layers = self.layers();
        write_json(&layer.staged.path.join("layer.json"), &layer.record)?;
        let root = File::open(layers).map_err(ImageError::file("open", layers))?;
        rustix::fs::syncfs(&root).map_err(|e| ImageError::file("sync", layers)(e.into()))?;
        put_layer(&layer.staged.path, &layers.join(layer.diff_id.hex()), || self.has_layer(&layer.diff_id))?;
        root.sync_all().map_err(ImageError::file("sync", layers))
    }

    /// Makes the source whole: everything reaches the disk, then its place, and the record comes last.
    pub fn commit(&self, commit: Commit) -> Result<(), ImageError> {
        let store = self.store;
        for layer in &commit.layers {
            write_json(&layer.staged.path.join("layer.json"), &layer.record)?;
        }
        let mut blobs = Vec::new();
        for bytes in &commit.blobs {
            let path = store.blob_path(&sha256([bytes.as_slice()]));
            if !path.exists() {
                let temporary = path.with_file_name(temporary_name());
                fs::write(&temporary, bytes).map_err(ImageError::file("write", &temporary))?;
                blobs.push((temporary, path));
            }
        }
        let root = File::open(&store.layers).map_err(ImageError::file("open", &store.layers))?;
        if !(commit.layers.is_empty() && blobs.is_empty()) {
            rustix::fs::syncfs(&root).map_err(|e| ImageError::file("sync", &store.layers)(e.into()))?;
        }
        for layer in commit.layers {
            let place = store.layers.join(layer.diff_id.hex());
            put_layer(&layer.staged.path, &place, || self.has_layer(&layer.diff_id))?;
        }
        for (temporary, path) in blobs {
            rename(&temporary, &path)?;
        }
        root.sync_all().map_err(ImageError::file("sync", &store.layers))?;
        sync_directory(&store.images.join("blobs/sha256"))?;
        let image = commit.image;
        replace_json(&store.id_path(&image.id), &image)?;
        if let Some((source, stamp)) = commit.named {
            let place = store.source_path(&source);
            replace_json(&place, &SourceRecord { source, image, stamp })?;
        }
        store.write_index()
    }
}

impl Store {
    fn layer_claims(&self) -> PathBuf {
        self.layers.join(".claims")
    }

    /// Writes the OCI image layout's index from the records: it follows from them and nothing here reads it.
    pub(super) fn write_index(&self) -> Result<(), ImageError> {
        let _alone = lock::claim(&self.images.join("claims"), [sha256([b"index".as_slice()])])?;
        let mut manifests = Vec::new();
        for record in self.records()? {
            let Some(digest) = &record.image.manifest else { continue };
            let Some(bytes) = self.blob(digest)? else { continue };
            let media_type = crate::engine::image::manifest::media_type(&bytes);
            manifests.push(json!({
                "mediaType": media_type,
                "digest": digest,
                "size": bytes.len(),
                "annotations": { "org.opencontainers.image.ref.name": record.source.to_string() },
            }));
        }
        replace_json(&self.images.join("oci-layout"), &json!({ "imageLayoutVersion": "1.0.0" }))?;
        let index = json!({
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": manifests,
        });
        replace_json(&self.images.join("index.json"), &index)
    }
}

pub(super) const TEMPORARY: &str = ".tmp-";

/// A name that no other thread and no other process uses.
pub(super) fn temporary_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{TEMPORARY}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<(), ImageError> {
    fs::rename(from, to).map_err(ImageError::file("rename to", to))
}

/// Moves a layer to its place. One that is there is equal and stays, since containers may run on it; a directory that is
/// none, because somebody removed its tree by hand or its image is damaged, changes places with the new one.
fn put_layer(staged: &Path, place: &Path, is_there: impl Fn() -> bool) -> Result<(), ImageError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let moved = match renameat_with(CWD, staged, CWD, place, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::EXIST) if is_there() => Ok(()),
        Err(rustix::io::Errno::EXIST) => renameat_with(CWD, staged, CWD, place, RenameFlags::EXCHANGE),
        other => other,
    };
    moved.map_err(|errno| ImageError::file("rename to", place)(errno.into()))
}

/// Removes a file or a directory with all in it, and takes off a layer that is attached there. What is not there is
/// removed.
pub(super) fn remove_any(path: &Path) -> Result<(), ImageError> {
    layer::detach(path).and_then(|()| removal::remove(path)).map_err(ImageError::file("remove", path))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<File, ImageError> {
    let bytes = serde_json::to_vec(value).map_err(|e| ImageError::file("write", path)(e.into()))?;
    let mut file = File::create(path).map_err(ImageError::file("write", path))?;
    file.write_all(&bytes).map_err(ImageError::file("write", path))?;
    Ok(file)
}

/// Replaces a file so that a reader, or a power cut, finds the old or the new one.
pub(super) fn replace_json(path: &Path, value: &impl Serialize) -> Result<(), ImageError> {
    let temporary = path.with_file_name(temporary_name());
    let file = write_json(&temporary, value)?;
    file.sync_all().map_err(ImageError::file("sync", &temporary))?;
    rename(&temporary, path)?;
    sync_directory(path.parent().unwrap_or(Path::new("/")))
}

pub(super) fn sync_directory(directory: &Path) -> Result<(), ImageError> {
    let opened = File::open(directory).map_err(ImageError::file("open", directory))?;
    opened.sync_all().map_err(ImageError::file("sync", directory))
}
