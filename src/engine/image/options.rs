//! What pulling needs to know besides the source.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::unpack::Limits;

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
    /// Files with credentials in Docker's form; the first that knows a registry decides. Missing files are fine.
    pub credentials: Vec<PathBuf>,
    pub limits: Limits,
}

impl Options {
    /// For this host, unpacking with `helper`, without credentials.
    pub fn new(helper: PathBuf) -> Options {
        Options { platform: Platform::host(), helper, credentials: Vec::new(), limits: Limits::default() }
    }
}

/// Where credentials are looked for: `$REGISTRY_AUTH_FILE`, or else `~/.docker/config.json`
/// (containers-auth.json(5)). The caller reads the environment.
pub fn credential_files(registry_auth_file: Option<OsString>, home: Option<OsString>) -> Vec<PathBuf> {
    let explicit = registry_auth_file.filter(|path| !path.is_empty()).map(PathBuf::from);
    let docker = home.map(|home| Path::new(&home).join(".docker/config.json"));
    explicit.or(docker).into_iter().collect()
}
