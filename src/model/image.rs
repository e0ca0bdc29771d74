//! Images: where they come from and what they are known by.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::build::BuildSpec;
use super::id::Digest;
use super::reference::Reference;
use super::volume::Mount;

/// When a reference is looked up at its registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pull {
    /// Only when the host does not have it.
    #[default]
    Missing,
    /// At every observation; a moved tag is a change that the plan shows.
    Always,
    /// Never: a missing image is an error.
    Never,
}

/// Where an image comes from. The source is also the key under which the host remembers it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageSource {
    /// A normalised reference: `docker.io/library/nginx:1.27`, with tag or digest never absent.
    Reference(String),
    /// In a file on this host.
    Archive(Archived),
    /// An absolute path of a directory, or of a tar file (plain, gzip or zstd), that is a root filesystem.
    Rootfs(PathBuf),
    /// Made on this host, as a Dockerfile says.
    Build(Box<BuildSpec>),
}

/// An image in a `docker save` or OCI archive, plain, gzip or zstd. In JSON it is the path alone where that is all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "ArchivedForm", into = "ArchivedForm")]
pub struct Archived {
    /// Absolute.
    pub path: PathBuf,
    /// Which one of several: by a name that the archive gives it, or by its digest.
    pub image: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum ArchivedForm {
    Only(PathBuf),
    OneOf { path: PathBuf, image: String },
}

impl From<ArchivedForm> for Archived {
    fn from(form: ArchivedForm) -> Archived {
        match form {
            ArchivedForm::Only(path) => Archived { path, image: None },
            ArchivedForm::OneOf { path, image } => Archived { path, image: Some(image) },
        }
    }
}

impl From<Archived> for ArchivedForm {
    fn from(Archived { path, image }: Archived) -> ArchivedForm {
        match image {
            None => ArchivedForm::Only(path),
            Some(image) => ArchivedForm::OneOf { path, image },
        }
    }
}

/// The only image in it.
impl<P: AsRef<Path>> From<P> for Archived {
    fn from(path: P) -> Archived {
        Archived { path: path.as_ref().to_owned(), image: None }
    }
}

/// What happens to a source that is not on this host, or not as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Making {
    pub verb: &'static str,
    pub doing: &'static str,
    pub done: &'static str,
}

impl ImageSource {
    /// The reference that it is.
    pub fn reference(&self) -> Option<Reference> {
        match self {
            // It is normalised: see there.
            ImageSource::Reference(text) => text.parse().ok(),
            ImageSource::Archive(_) | ImageSource::Rootfs(_) | ImageSource::Build(_) => None,
        }
    }

    pub fn how_made(&self) -> Making {
        match self {
            ImageSource::Build(_) => Making { verb: "build", doing: "building", done: "built" },
            ImageSource::Reference(_) | ImageSource::Archive(_) | ImageSource::Rootfs(_) => {
                Making { verb: "fetch", doing: "fetching", done: "fetched" }
            }
        }
    }
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageSource::Reference(reference) => f.pad(reference),
            ImageSource::Archive(Archived { path, image: None }) => write!(f, "archive {}", path.display()),
            ImageSource::Archive(Archived { path, image: Some(image) }) => {
                write!(f, "{image} of archive {}", path.display())
            }
            ImageSource::Rootfs(path) => write!(f, "rootfs {}", path.display()),
            ImageSource::Build(spec) => spec.fmt(f),
        }
    }
}

/// The part of an image's configuration that containers take from it (OCI image-spec, config.md).
///
/// What it lacks is as an image says that says nothing: a store outlives the version that wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    /// `NAME=value` in the image's order, names distinct.
    pub environment: Vec<(String, String)>,
    pub working_dir: Option<String>,
    pub user: Option<String>,
    pub stop_signal: Option<super::units::Signal>,
    pub healthcheck: Option<super::health::Healthcheck>,
    pub labels: BTreeMap<String, String>,
    /// `80/tcp` and the like; documentation, nothing is published by it.
    pub exposed_ports: Vec<String>,
    /// Directories that the image declares as volumes.
    pub volumes: Vec<String>,
}

impl ImageConfig {
    /// What a container runs that declares these: entrypoint, then command; empty when nobody says. A declared entrypoint
    /// discards the image's command.
    pub fn arguments(&self, entrypoint: Option<&[String]>, command: Option<&[String]>) -> Vec<String> {
        let (entrypoint, own) = match entrypoint {
            Some(declared) => (declared, [].as_slice()),
            None => (self.entrypoint.as_slice(), self.command.as_slice()),
        };
        entrypoint.iter().chain(command.unwrap_or(own)).cloned().collect()
    }

    /// Directories that the image declares as volumes and that none of these mounts covers: what is written there is in
    /// the container alone.
    pub fn unmounted_volumes(&self, mounts: &BTreeMap<String, Mount>) -> Vec<&str> {
        let is_mounted = |path: &str| {
            let mut targets = mounts.keys().map(|target| target.trim_end_matches('/'));
            targets.any(|target| path.strip_prefix(target).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        };
        self.volumes.iter().map(|path| path.trim_end_matches('/')).filter(|path| !is_mounted(path)).collect()
    }
}

/// An image that is whole on this host: configuration known, every layer unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The digest of the configuration: the image's identifier.
    pub id: Digest,
    /// The digest of the manifest that it was pulled by, as `docker inspect` shows in RepoDigests.
    pub manifest: Option<Digest>,
    /// What to mount, lowest first: digests of the uncompressed layers. Usually those of the configuration; without
    /// those that a higher one hides whole, and with one more where a layer leaves attributes of directories open.
    pub layers: Vec<Digest>,
    pub config: ImageConfig,
}

/// The reference with registry, repository and version spelt out: the form that [`ImageSource::Reference`] holds.
pub fn normalize_reference(text: &str) -> Result<String, super::reference::ReferenceError> {
    text.parse::<super::reference::Reference>().map(|reference| reference.to_string())
}
