//! What pulling needs to know besides the source.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use super::registry::Tokens;
use super::store::session::Form;
use super::unpack::Limits;
use crate::model::host_config::{RegistryConfig, RegistryName};
use crate::model::lock::Locks;

/// An operating system and an architecture, in Go's words (OCI image-spec, image-index.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

impl Platform {
    /// The platform that this program was built for.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: variant.map(str::to_owned) }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Options {
    pub platform: Platform,
    /// The `evenkeel` binary, which the unpacking children execute.
    pub helper: PathBuf,
    /// Files with credentials: see [`super::registry::credentials::files`].
    pub credentials: Vec<PathBuf>,
    /// How registries are reached, as the host file says; those that it does not name as their names say.
    pub registries: Registries,
    /// What registries gave to be let in. Copies of these options share them.
    pub tokens: Arc<Tokens>,
    pub limits: Limits,
    /// Variables of whoever builds, for secrets that are in them.
    pub variable: fn(&str) -> Option<String>,
    /// As what layers are kept that are unpacked; by default as images, where this host mounts such.
    pub form: Option<Form>,
    /// What the bases of a build are locked to: one that is not named here is not taken. `None` where nothing is locked.
    pub bases: Option<Locks>,
}

/// How registries are reached. Copies share it, so that a service can read its host file again.
#[derive(Debug, Clone, Default)]
pub struct Registries(Arc<RwLock<BTreeMap<RegistryName, RegistryConfig>>>);

impl Registries {
    /// What is said of the registry that references call so; what holds where nothing is said.
    pub fn of(&self, name: &str) -> RegistryConfig {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        name.parse().ok().and_then(|name| known.get(&name).cloned()).unwrap_or_default()
    }

    /// From now on this holds, and nothing else.
    pub fn replace(&self, all: BTreeMap<RegistryName, RegistryConfig>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = all;
    }
}

impl Options {
    /// For this host, unpacking with `helper`, without credentials, variables and a host file.
    pub fn new(helper: PathBuf) -> Options {
        Options {
            platform: Platform::host(),
            helper,
            credentials: Vec::new(),
            registries: Registries::default(),
            tokens: Arc::default(),
            limits: Limits::default(),
            variable: |_| None,
            form: None,
            bases: None,
        }
    }
}
