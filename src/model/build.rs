//! Building an image: what a manifest says of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::image::Pull;

/// Everything that a build follows from, except the contents of the files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BuildSpec {
    /// The directory that `COPY` and `ADD` take files from; absolute.
    pub context: PathBuf,
    /// The Dockerfile; absolute.
    pub dockerfile: PathBuf,
    /// The stage to build; `None` is the last.
    pub target: Option<String>,
    /// Values for `ARG`s.
    pub args: BTreeMap<String, String>,
    /// Labels of the image, beside those of the Dockerfile, which give way.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What a `RUN --mount=type=secret` may ask for, by its id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretSource>,
    pub network: BuildNetwork,
    /// Run every instruction, whatever was built before.
    pub no_cache: bool,
    /// [`Pull::Always`] looks the bases up at their registries at every observation, so that a moved one is a change.
    /// Otherwise those that are on this host are taken.
    pub pull: Pull,
}

/// Where a secret is read when a command asks for it. Its contents are nobody's to keep: no layer, no configuration, no
/// record and no key of a step has them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretSource {
    /// A file of this host; absolute.
    File(PathBuf),
    /// A variable of whoever builds.
    Environment(String),
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretSource::File(path) => write!(f, "the file `{}`", path.display()),
            SecretSource::Environment(name) => write!(f, "the environment variable `{name}`"),
        }
    }
}

/// What a `RUN` reaches that says nothing itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildNetwork {
    /// The host's network.
    #[default]
    Host,
    /// Nothing but a loopback interface of its own.
    None,
}

impl BuildSpec {
    /// As a manifest says it that says no more than where the context is.
    pub fn of(context: PathBuf) -> BuildSpec {
        BuildSpec {
            dockerfile: context.join("Dockerfile"),
            context,
            target: None,
            args: BTreeMap::new(),
            labels: BTreeMap::new(),
            secrets: BTreeMap::new(),
            network: BuildNetwork::default(),
            no_cache: false,
            pull: Pull::Missing,
        }
    }

    /// The Dockerfile as seen from the context, if it is in it.
    pub fn dockerfile_in_context(&self) -> PathBuf {
        self.dockerfile.strip_prefix(&self.context).map_or_else(|_| self.dockerfile.clone(), PathBuf::from)
    }
}

impl fmt::Display for BuildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "build {}", self.context.display())?;
        let file = self.dockerfile_in_context();
        if file.as_os_str() != "Dockerfile" {
            write!(f, " from {}", file.display())?;
        }
        match &self.target {
            Some(target) => write!(f, " to {target}"),
            None => Ok(()),
        }
    }
}
