//! What can go wrong with an image, naming the subject, with the next step where it is known.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::model::id::Digest;
use crate::model::reference::ReferenceError;

#[derive(Debug, Error)]
pub enum ImageError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),

    #[error("nothing is removed while image `{}`, which a container was made of, cannot be read", _0.short())]
    UnknownImage(Digest),

    #[error("an image is being fetched, built, saved or pushed")]
    Busy,

    #[error("cannot reach {peer}")]
    Unreachable {
        peer: Peer,
        #[source]
        source: io::Error,
    },
    #[error("the connection to {peer} cannot be made secure: {}", insecurity.reason())]
    Insecure {
        peer: Peer,
        insecurity: Insecurity,
        #[source]
        source: io::Error,
    },
    #[error("the registry `{registry}` leads us {problem}")]
    Redirect { registry: String, problem: String },
    #[error("the host file blocks the registry `{registry}`")]
    Blocked { registry: String },
    #[error("the build begins with `{name}`, or takes files from it, and the lock file has no line for that")]
    Unlocked { name: String },
    #[error("the registry `{registry}` wants to be asked less{}", with_detail(detail))]
    TooMany { registry: String, detail: String },
    #[error("no mirror has it either ({})", passed.join("; "))]
    Mirrors {
        /// Each with its reason.
        passed: Vec<String>,
        #[source]
        source: Box<ImageError>,
    },
    #[error("the registry `{registry}` does not take these credentials{}", with_detail(detail))]
    Login { registry: String, detail: String },
    #[error("`{subject}` is not in the registry `{registry}`")]
    NotFound { subject: String, registry: String },
    #[error("the registry `{registry}` does not let us {verb} `{repository}`{}", with_detail(detail))]
    Unauthorized {
        registry: String,
        repository: String,
        /// What for: `read` or `write`.
        verb: &'static str,
        /// 401 for a question that was not answered well enough, 403 for a no.
        status: u16,
        detail: String,
        /// The file with the credentials that were shown.
        told_by: Option<PathBuf>,
    },
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
    #[error("the layer `{diff_id}` is not on this host")]
    NoLayer { diff_id: Digest },
    #[error("there is no image `{word}` on this host")]
    NoImage { word: String },
    #[error("`{word}` is the beginning of {} images: {}", ids.len(), ids.join(", "))]
    AmbiguousId { word: String, ids: Vec<String> },
    #[error("`{path}` holds no image `{image}`, but {}", names.join(", "))]
    NotInArchive { path: PathBuf, image: String, names: Vec<String> },
    #[error("cannot unpack the layer `{layer}`: {problem}")]
    Layer { layer: String, problem: String },
    #[error("cannot unpack the layer `{layer}`: it needs more memory than the limit allows")]
    LayerMemory { layer: String },
    #[error("the layer `{layer}` cannot be made again as it was")]
    Unrepeatable { layer: String },
    #[error("of the image {} cannot be made again", told(layers))]
    NotRestored {
        layers: std::collections::BTreeSet<Digest>,
        /// `None`: there is nothing to take them from.
        #[source]
        reason: Option<Box<ImageError>>,
    },
    #[error("the file system of `{path}` is full")]
    DiskFull { path: PathBuf },
    #[error("cannot start the unpacking process `{path}`")]
    Helper {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is not empty")]
    NotEmpty { path: PathBuf },
    #[error("cannot write the output")]
    Output(#[source] io::Error),
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
    #[error("cannot use the credentials in `{path}`: {problem}")]
    Credentials { path: PathBuf, problem: String },
}

/// Who was asked: a registry, or somebody to whom it has sent us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// As references name it.
    pub registry: String,
    /// Host and port of the other one: where it keeps its blobs, or gives its tokens.
    pub elsewhere: Option<String>,
}

impl Peer {
    pub fn registry(name: &str) -> Peer {
        Peer { registry: name.to_owned(), elsewhere: None }
    }

    fn address(&self) -> &str {
        self.elsewhere.as_ref().unwrap_or(&self.registry)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.elsewhere {
            None => write!(f, "the registry `{}`", self.registry),
            Some(elsewhere) => write!(f, "`{elsewhere}`, where the registry `{}` sends us", self.registry),
        }
    }
}

/// Why there is no secure connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insecurity {
    UnknownAuthority,
    Expired,
    NotValidYet,
    OtherName,
    /// The other side refused what we showed, or that we showed nothing.
    ClientCertificate,
    /// The other side does not speak TLS.
    NoTls,
    /// Its source says it.
    Other,
}

impl Insecurity {
    fn reason(self) -> &'static str {
        match self {
            Insecurity::UnknownAuthority => "its certificate is signed by an authority that this host does not trust",
            Insecurity::Expired => "its certificate has expired",
            Insecurity::NotValidYet => "its certificate is not valid yet",
            Insecurity::OtherName => "its certificate is for another name",
            Insecurity::ClientCertificate => "it does not accept the certificate of this host, or wants one",
            Insecurity::NoTls => "it does not answer in TLS",
            Insecurity::Other => "TLS failed",
        }
    }

    fn hint(self, registry: &str) -> String {
        let table = format!("`[registries.\"{registry}\"]` of the host file");
        match self {
            Insecurity::UnknownAuthority => {
                format!("if it is yours, name the authority's certificate in {table}: `ca = \"FILE\"`")
            }
            Insecurity::Expired => {
                "whoever runs the registry has to renew it; if it is valid, this host's clock is wrong".to_owned()
            }
            Insecurity::NotValidYet => "is this host's clock right?".to_owned(),
            Insecurity::OtherName => "use the registry by a name that its certificate has".to_owned(),
            Insecurity::ClientCertificate => {
                format!("name one that it knows in {table}: `client_certificate` and `client_key`")
            }
            Insecurity::NoTls => {
                format!("if it has no TLS, and the way to it is safe, say so in {table}: `plain_http = true`")
            }
            Insecurity::Other => {
                "the registry's certificate must be signed by an authority that this host trusts".to_owned()
            }
        }
    }
}

impl ImageError {
    /// What happened and why, in one line.
    pub(crate) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }

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
            ImageError::Unreachable { peer: Peer { elsewhere: Some(elsewhere), .. }, .. } => Some(format!(
                "can this host reach `{elsewhere}`? The registry answers, and this is where it has the rest"
            )),
            ImageError::Unreachable { peer, .. } => Some(format!(
                "is `{}` spelt right, and can this host reach it? An image that is here already needs no registry \
                 unless `pull = \"always\"`",
                peer.address()
            )),
            ImageError::Insecure { peer, insecurity, .. } => Some(insecurity.hint(&peer.registry)),
            ImageError::Redirect { .. } => {
                Some("whoever runs the registry has to mend that; a mirror of it may do until then".to_owned())
            }
            ImageError::Blocked { registry } => Some(format!(
                "take `blocked` out of `[registries.\"{registry}\"]` there, or give it mirrors: these are asked"
            )),
            // RFC 9110 has no better answer for who does not begin with TLS; some say so in words.
            ImageError::Refused { status: 400, url, detail }
                if url.starts_with("http://") && (detail.is_empty() || detail.contains("HTTPS")) =>
            {
                Some(
                "registries on loopback are spoken to without TLS; if this one has it, say so in its `[registries]` table of \
                 the host file: `plain_http = false`"
                        .to_owned(),
                )
            }
            // As nginx answers to whom it wants to know: within HTTP, not within TLS.
            ImageError::Refused { status: 400, url, detail }
                if url.starts_with("https://") && detail.contains("certificate") =>
            {
                let host = url.split('/').nth(2).unwrap_or_default();
                Some(Insecurity::ClientCertificate.hint(host))
            }
            ImageError::Unlocked { .. } => Some("`evenkeel lock` asks its registry and adds it".to_owned()),
            ImageError::TooMany { registry, .. } => Some(format!(
                "known users often have more: `evenkeel login {registry}`; or give it a mirror, `mirrors` in \
                 `[registries.\"{registry}\"]` of the host file"
            )),
            ImageError::Mirrors { source, .. } => source.hint(),
            ImageError::Unrepeatable { .. } => Some(
                "it was unpacked by an earlier version, or its tree was changed; fetch the image again, or copy \
                 it between registries"
                    .to_owned(),
            ),
            ImageError::Login { .. } => Some("nothing was kept".to_owned()),
            ImageError::NotFound { .. } => Some("is the name spelt right, and was this tag pushed?".to_owned()),
            ImageError::Unauthorized { registry, told_by: Some(file), .. } => Some(format!(
                "`{}` has the credentials that were shown; are they good, and may they do that? `evenkeel login {registry}` \
                 keeps others. Registries also answer so when the repository does not exist",
                file.display()
            )),
            ImageError::Unauthorized { registry, .. } => Some(format!(
                "`evenkeel login {registry}` keeps credentials for it; `docker login` and `podman login` do, too. Registries \
                 also answer so when the repository does not exist"
            )),
            ImageError::WrongDigest { .. } | ImageError::WrongSize { .. } => {
                Some("nothing of it was kept; the source or something between it and this host is damaged".to_owned())
            }
            ImageError::WrongPlatform { .. } => Some("use an image that was built for this host".to_owned()),
            ImageError::NotEmpty { .. } => Some("name a directory that is empty or not there".to_owned()),
            ImageError::NotRestored { .. } => Some(
                "nothing was changed; `evenkeel image load --repair` takes them from an archive, `evenkeel image pull` what the \
                 name stands for now"
                    .to_owned(),
            ),
            ImageError::NoLayer { .. } => Some("pull or load the image again".to_owned()),
            ImageError::Busy => Some("try again when that is done".to_owned()),
            ImageError::UnknownImage(_) => Some(
                "`evenkeel apply` fetches it again; a container made by hand is removed with `evenkeel rm`".to_owned(),
            ),
            ImageError::NoImage { .. } => Some("`evenkeel image ls` shows what there is".to_owned()),
            ImageError::AmbiguousId { .. } => Some("give more digits".to_owned()),
            ImageError::Ambiguous { .. } => {
                Some("choose one: `image = \"..\"` beside `archive` in the manifest, by its name or digest".to_owned())
            }
            ImageError::Instruction { source, .. } => source.hint(),
            ImageError::DiskFull { .. } => {
                Some("nothing half-made was kept; free some space and apply again".to_owned())
            }
            _ => None,
        }
    }
}

/// Layers in words.
pub fn told(layers: &std::collections::BTreeSet<Digest>) -> String {
    let short: Vec<&str> = layers.iter().map(Digest::short).collect();
    format!("{} {}", if short.len() == 1 { "the layer" } else { "the layers" }, short.join(", "))
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
