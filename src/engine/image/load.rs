//! Images and root filesystems that somebody hands over: all images of an archive with their names, or one tar file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::archive::Archive;
use super::build;
use super::config;
use super::ensure::{Parts, Tools, commit};
use super::error::ImageError;
use super::layer::Workshop;
use super::rootfs;
use super::store::Store;
use super::store::record::sha256;
use crate::model::id::Digest;
use crate::model::image::{Image, ImageSource};
use crate::model::reference::Reference;

/// What is handed over.
pub struct Input {
    /// What errors call it.
    pub path: PathBuf,
    /// Or a directory, where an archive is wanted.
    pub file: File,
}

impl Input {
    /// What comes through a pipe is first written to a file without a name: an archive says at its end, or anywhere, what is
    /// where in it. That takes as long as the other end likes, so no lock should be held meanwhile.
    pub fn of_stream(store: &Store, path: &Path, stream: &mut dyn Read) -> Result<Input, ImageError> {
        let failed = |error| ImageError::file("keep what comes from", path)(error);
        let mut file = store.spool()?;
        io::copy(stream, &mut file).map_err(failed)?;
        io::Seek::rewind(&mut file).map_err(failed)?;
        Ok(Input { path: path.to_owned(), file })
    }
}

/// An image that was loaded, with the names that it has from now on.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub image: Image,
    pub names: Vec<Reference>,
    /// Names in the archive that are no references: a bare tag, for instance.
    pub ignored: Vec<String>,
}

/// What becomes of layers that are here already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Here {
    /// They are as good as those of the archive.
    Stay,
    /// They are unpacked again, and take the others' places: damage may be where nobody has looked. `but`: those stay, since
    /// who runs on a directory would lose the files.
    MadeAgain { but: BTreeSet<Digest> },
}

/// Loads every image of an archive that can run here. A name that stood for another image moves.
pub fn load(store: &Store, input: Input, here: Here, tools: Tools<'_>) -> Result<Vec<Loaded>, ImageError> {
    let Input { path, file } = input;
    let mut doubted = BTreeSet::new();
    if let Here::MadeAgain { but } = here {
        doubted.extend(store.layers()?.into_iter().filter(|layer| !but.contains(layer)));
    }
    let session = store.session(&ImageSource::Archive(path.clone().into()))?.doubting(doubted);
    let archive = Archive::open(&session, file, &path, tools.options)?;
    let mut loaded = Vec::new();
    for listing in archive.find(tools.options)? {
        let (mut names, mut ignored) = (Vec::new(), Vec::new());
        for name in &listing.names {
            match name.parse::<Reference>() {
                // `1.4` or `latest` alone is a tag of a repository that the archive does not name.
                Ok(reference) if name.contains(['/', ':']) => names.push(Reference { digest: None, ..reference }),
                _ => ignored.push(name.clone()),
            }
        }
        let found = archive.read(listing, tools.options)?;
        let image = archive.import(&session, found, None, tools)?;
        store.teller.tell(&store.teller.of_image("load", &image, None));
        for name in &names {
            session.name(&ImageSource::Reference(name.to_string()), &image)?;
        }
        loaded.push(Loaded { image, names, ignored });
    }
    Ok(loaded)
}

/// What becomes of a root filesystem.
#[derive(Debug, Clone, Default)]
pub struct Importing<'a> {
    /// The name that the image gets.
    pub name: Option<ImageSource>,
    /// Instructions of a Dockerfile that change the configuration.
    pub changes: &'a [String],
    /// For the image's history.
    pub message: Option<&'a str>,
}

/// Makes an image of one layer of a tar file, plain, gzip or zstd. The same file with the same changes is the same
/// image.
pub fn import(store: &Store, input: Input, importing: &Importing<'_>, tools: Tools<'_>) -> Result<Image, ImageError> {
    let Input { path, file } = input;
    let session = store.session(&ImageSource::Rootfs(path.clone()))?;
    let workshop = Workshop { session: &session, options: tools.options, progress: tools.progress };
    let layer = rootfs::unpack_open_file(&workshop, file, &path.display().to_string())?;
    let mut bytes = config::synthesize(&tools.options.platform, &layer.diff_id);
    if let Some(message) = importing.message {
        bytes = config::with_history(&bytes, BTreeMap::from([("comment", message)]));
    }
    bytes = build::changed(&path.display().to_string(), &bytes, importing.changes, &tools.options.platform)?;
    let configuration = config::parse(&path.display().to_string(), &bytes)?;
    let id = sha256([bytes.as_slice()]);
    let parts = Parts { id, manifest: None, configuration, blobs: vec![bytes], stamp: None };
    let image = commit(&workshop, importing.name.as_ref(), vec![layer], parts)?;
    store.teller.tell(&store.teller.of_image("import", &image, importing.name.as_ref()));
    Ok(image)
}
