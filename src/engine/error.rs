//! What can go wrong in the engine, by operation and subject.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::image::error::told;
use super::removal;

use crate::model::id::{ContainerId, Digest, NetworkId, VolumeKey};
use crate::model::unreadable::Object;
use crate::monitor::error::MonitorError;
use crate::runtime::{RuntimeError, layer};

/// An engine operation that did not become true. Each variant names the operation and its subject; the cause is
/// its source.
#[derive(Debug, Error)]
pub enum EngineError {
    #[error("cannot {operation} `{}`", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is not a record of Evenkeel", path.display())]
    Record {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{}` was written by a newer Evenkeel: its format is {found}, this one reads up to {known}", path.display())]
    NewerRecord { path: PathBuf, found: u32, known: u32 },
    #[error("the run directory `{}` serves the state root `{}`", .run.display(), .owner.display())]
    RunDirectory { run: PathBuf, owner: PathBuf },
    #[error("containers of the state root `{}` run in the run directory `{}`", .root.display(), .run.display())]
    StateRoot { root: PathBuf, run: PathBuf },
    #[error("the state root `{}` has the same short hash as `{}`, which is on this host", .root.display(), .owner.display())]
    Tag { root: PathBuf, owner: PathBuf },
    #[error("there is no container `{0}`")]
    NoContainer(ContainerId),
    #[error("there is no network `{0}`")]
    NoNetwork(NetworkId),
    #[error("container `{0}` has a record: it is no orphan")]
    HasRecord(ContainerId),
    #[error("volume `{key}` is used by container `{user}`")]
    VolumeInUse { key: VolumeKey, user: String },
    #[error("network `{id}` is used by container `{user}`")]
    NetworkInUse { id: NetworkId, user: String },
    #[error("cannot tidy the images")]
    Images {
        #[source]
        source: Box<super::image::ImageError>,
    },
    #[error("cannot {operation} container `{name}`")]
    Commit {
        operation: &'static str,
        name: String,
        #[source]
        source: Box<super::image::ImageError>,
    },
    #[error("cannot have image `{source_name}`")]
    Image {
        source_name: String,
        #[source]
        source: Box<super::image::ImageError>,
    },
    #[error("cannot push `{destination}`")]
    Push {
        destination: String,
        #[source]
        source: Box<super::image::ImageError>,
    },
    #[error("image `{0}` is not on this host")]
    NoImage(String),
    #[error("cannot {operation} {subject}")]
    Network {
        operation: &'static str,
        subject: String,
        #[source]
        source: Box<super::network::NetworkError>,
    },
    #[error("cannot use the control groups of this host")]
    Cgroups {
        #[source]
        source: Box<RuntimeError>,
    },
    #[error("of image `{image}` {} damaged or gone", are(layers))]
    DamagedImage { image: String, layers: BTreeSet<Digest> },
    #[error("container `{name}` cannot be configured: {problem}")]
    Configuration { name: String, problem: String },
    #[error("it is not known who uses it, since the record of {object} cannot be read")]
    UsersUnknown { object: Object, hint: &'static str },
    #[error("container `{name}` still runs")]
    Running { name: String },
    #[error("cannot start container `{name}`")]
    Start {
        name: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot {operation} container `{name}`")]
    Monitor {
        operation: &'static str,
        name: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("container `{name}` {state}")]
    Await { name: String, state: String },
    #[error("another evenkeel holds the lock of this state root")]
    Locked { path: PathBuf },
}

impl EngineError {
    /// Whether a disk, or what somebody may have of it, is full.
    pub fn is_for_want_of_space(&self) -> bool {
        let kind = match self {
            EngineError::File { source, .. } => source.kind(),
            _ => return false,
        };
        matches!(kind, std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
    }

    /// The next step, where one is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            EngineError::NewerRecord { .. } => {
                Some("use the newer version, or move the record away to give its object up".into())
            }
            EngineError::Record { .. } => {
                Some("move the file away; `evenkeel plan` then says what follows from that".into())
            }
            EngineError::RunDirectory { .. } => Some(
                "give this state root another one with `--run`, or remove the link `root` in it if nothing runs there"
                    .into(),
            ),
            EngineError::Tag { .. } => Some(
                "links, control groups and firewall of the two would be taken for one another's: give this one another path with \
                 `--root`, or remove the other directory when nothing of it runs"
                    .into(),
            ),
            EngineError::StateRoot { run, .. } => Some(format!(
                "give `--run {}`; another run directory may serve it when no container runs, or after a boot",
                run.display()
            )),
            EngineError::UsersUnknown { hint, .. } => Some((*hint).into()),
            EngineError::Locked { .. } => Some("wait for it, or give --lock-timeout".into()),
            EngineError::NoImage(_) => Some("apply fetches it; with pull = \"never\" load it first".into()),
            EngineError::DamagedImage { .. } => Some(
                "`evenkeel apply` takes them anew for what is declared, `evenkeel image check --repair` for all; containers \
                 keep what they wrote"
                    .into(),
            ),
            EngineError::File { source, .. } if removal::mounted(source).is_some() => {
                let point = removal::mounted(source).unwrap_or(Path::new("")).display();
                Some(format!("`umount {point}` first: what is on it stays there"))
            }
            EngineError::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("make room on the disk, then apply again: nothing half-made was kept".into())
            }
            EngineError::File { path, source, .. } if path.file_name().is_some_and(|name| name == layer::IMAGE) => {
                layer_hint(path, source)
            }
            EngineError::Image { source, .. } | EngineError::Push { source, .. } | EngineError::Images { source } => {
                source.hint()
            }
            EngineError::Start { source, .. } | EngineError::Monitor { source, .. } => {
                match source.downcast_ref::<RuntimeError>() {
                    Some(RuntimeError::InUse { .. }) => {
                        Some("declare more than is in use, or stop the container first: `evenkeel stop`".into())
                    }
                    _ => source.downcast_ref::<MonitorError>().and_then(MonitorError::hint).map(str::to_owned),
                }
            }
            EngineError::Await { name, .. } => {
                let name = short_name(name);
                Some(format!(
                    "see `evenkeel logs {name}`; after a rollback `record.refused` of `evenkeel inspect {name}` has its last lines"
                ))
            }
            _ => None,
        }
    }
}

fn are(layers: &BTreeSet<Digest>) -> String {
    format!("{} {}", told(layers), if layers.len() == 1 { "is" } else { "are" })
}

/// What to do about a layer that is not mounted, by what the kernel says.
fn layer_hint(image: &Path, error: &io::Error) -> Option<String> {
    match error.raw_os_error()? {
        libc::ENODEV => {
            Some("this kernel has no EROFS: load its module, `modprobe erofs`, or boot one that has it".into())
        }
        libc::ENOTBLK => Some("this kernel mounts images from devices only: `modprobe loop`".into()),
        libc::EUCLEAN | libc::EINVAL | libc::EIO | libc::EBADMSG | libc::EOPNOTSUPP => Some(format!(
            "if the file is damaged, `rm {}` and apply, or `evenkeel image check --repair`: the layer is taken anew from what \
             the image came from, and containers keep what they wrote",
            image.display()
        )),
        _ => None,
    }
}

/// `shop/web` as commands take it within the project: `web`.
fn short_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Attaches operation and path to an [`io::Error`].
pub(super) trait At<T> {
    fn at(self, operation: &'static str, path: impl Into<PathBuf>) -> Result<T, EngineError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, operation: &'static str, path: impl Into<PathBuf>) -> Result<T, EngineError> {
        self.map_err(|source| EngineError::File { operation, path: path.into(), source: source.into() })
    }
}
