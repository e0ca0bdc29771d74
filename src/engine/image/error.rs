//! What can go wrong with an image, naming the subject, with the next step where it is known.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::model::id::Digest;
use crate::model::reference::ReferenceError;

#[derive(Debug, Error)]
pub enum ImageError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),

    #[error("cannot reach the registry `{registry}`")]
    Unreachable {
        registry: String,
        #[source]
        source: io::Error,
    },
    #[error("the connection to `{registry}` cannot be made secure")]
    Insecure {
        registry: String,
        #[source]
        source: io::Error,
    },
    #[error("`{subject}` is not in the registry `{registry}`")]
    NotFound { subject: String, registry: String },
    #[error("the registry `{registry}` does not let us read `{repository}`{}", with_detail(detail))]
    Unauthorized { registry: String, repository: String, detail: String },
    #[error("the registry answered {status} to `{url}`{}", with_detail(detail))]
    Refused { url: String, status: u16, detail: String },

    #[error("`{subject}` has the digest `{actual}`, expected `{expected}`")]
    WrongDigest { subject: String, expected: Digest, actual: Digest },
    #[error("`{subject}` has {actual} bytes, expected {expected}")]
    WrongSize { subject: String, expected: u64, actual: u64 },
    #[error("`{image}` is not made for `{wanted}`, only for {}", available.join(", "))]
    WrongPlatform { image: String, wanted: String, available: Vec<String> },
    #[error("`{subject}` is larger than {limit} bytes")]
    TooLarge { subject: String, limit: u64 },
    #[error("`{subject}` is not valid: {problem}")]
    Malformed { subject: String, problem: String },

    #[error("`{path}` holds {} images: {}", names.len(), names.join(", "))]
    Ambiguous { path: PathBuf, names: Vec<String> },
    #[error("cannot unpack the layer `{layer}`: {problem}")]
    Layer { layer: String, problem: String },
    #[error("the file system of `{path}` is full")]
    DiskFull { path: PathBuf },
    #[error("cannot start the unpacking process `{path}`")]
    Helper {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot {action} `{path}`")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot do `{text}` ({}:{line})", file.display())]
    Instruction {
        file: PathBuf,
        line: usize,
        text: String,
        #[source]
        source: Box<ImageError>,
    },
    #[error("{problem}")]
    Build { problem: String },
    #[error("the command {how}{}", with_output(output))]
    Command { how: String, output: Vec<String> },
    #[error("cannot prepare the command")]
    Sandbox(#[source] Box<crate::engine::error::EngineError>),
    #[error("cannot read the credentials in `{path}`: {problem}")]
    Credentials { path: PathBuf, problem: String },
}

impl ImageError {
    /// The failure of `action` on `path`; a full disk is named as such.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ImageError::DiskFull { path },
            _ => ImageError::File { action, path, source },
        }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            ImageError::Unreachable { registry, .. } => Some(format!(
                "is `{registry}` spelt right, and can this host reach it? An image that is here already needs no registry \
                 unless `pull = \"always\"`"
            )),
            ImageError::Insecure { .. } => {
                Some("the registry's certificate must be signed by an authority that this host trusts".to_owned())
            }
            ImageError::NotFound { .. } => Some("is the name spelt right, and was this tag pushed?".to_owned()),
            ImageError::Unauthorized { registry, .. } => Some(format!(
                "put credentials for `{registry}` into `~/.docker/config.json` or the file that `$REGISTRY_AUTH_FILE` names; \
                 registries also answer so when the repository does not exist"
            )),
            ImageError::WrongDigest { .. } | ImageError::WrongSize { .. } => {
                Some("nothing of it was kept; the source or something between it and this host is damaged".to_owned())
            }
            ImageError::WrongPlatform { .. } => Some("use an image that was built for this host".to_owned()),
            ImageError::Ambiguous { .. } => Some("save one image per archive".to_owned()),
            ImageError::Instruction { source, .. } => source.hint(),
            ImageError::DiskFull { .. } => {
                Some("nothing half-made was kept; free some space and apply again".to_owned())
            }
            _ => None,
        }
    }
}

/// What a command said last, a line each.
fn with_output(output: &[String]) -> String {
    output.iter().fold(String::new(), |text, line| format!("{text}\n             | {line}"))
}

fn with_detail(detail: &str) -> String {
    match detail {
        "" => String::new(),
        detail => format!(": {detail}"),
    }
}
