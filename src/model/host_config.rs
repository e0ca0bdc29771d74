//! The host file, read: what is true of this host and not of one project.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::reference::{Reference, ReferenceError};
use super::units::Timespan;

/// Everything that a host file says. Without one it is [`HostConfig::default`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// By the name that references have for them.
    pub registries: BTreeMap<RegistryName, RegistryConfig>,
    pub gc: GcConfig,
}

/// Host and perhaps port, as references name a registry: `docker.io`, `localhost:5000`, `[::1]:5000`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegistryName(String);

/// How one registry is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Asked before it, in this order.
    pub mirrors: Vec<Mirror>,
    /// Certificates, in PEM, of authorities that are trusted for it besides the host's own.
    pub ca: Option<PathBuf>,
    pub client: Option<ClientCertificate>,
    /// Without TLS; `None` for what suits the name: only this very host needs none.
    pub plain_http: Option<bool>,
    /// Never asked itself; its mirrors are.
    pub blocked: bool,
}

/// What this host shows to a registry that wants to know who comes. Both are files in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A registry that has what another has, perhaps below a path: `cache.example.org:5000/hub`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mirror {
    pub registry: RegistryName,
    /// Goes before the repository's name, without slashes around it; empty for none.
    pub path: String,
}

/// When images that nobody needs are removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcConfig {
    /// Percent of the file system in use from which on they are.
    pub high: u8,
    /// Percent in use at which that ends.
    pub low: u8,
    /// What was used within this time stays.
    pub min_age: Timespan,
}

impl Default for GcConfig {
    fn default() -> GcConfig {
        GcConfig { high: 85, low: 75, min_age: Timespan::from_secs(24 * 3600) }
    }
}

const DOCKER_HUB: &str = "docker.io";

impl RegistryName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<RegistryName> for String {
    fn from(name: RegistryName) -> String {
        name.0
    }
}

impl TryFrom<String> for RegistryName {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<RegistryName, ReferenceError> {
        text.parse()
    }
}

/// Docker Hub has several names, of which references know one.
impl FromStr for RegistryName {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<RegistryName, ReferenceError> {
        if matches!(text, "index.docker.io" | "registry-1.docker.io") {
            return Ok(RegistryName(DOCKER_HUB.to_owned()));
        }
        // What a reference takes for a registry in front of a repository is one.
        match format!("{text}/x").parse::<Reference>() {
            Ok(reference) if reference.registry == text => Ok(RegistryName(reference.registry)),
            _ => Err(ReferenceError::Registry(text.to_owned())),
        }
    }
}

impl FromStr for Mirror {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Mirror, ReferenceError> {
        let (registry, path) = text.split_once('/').unwrap_or((text, ""));
        let registry: RegistryName = registry.parse()?;
        if !path.is_empty() {
            // The same rules as for a repository, of which it becomes a part.
            format!("{registry}/{path}/x:1").parse::<Reference>()?;
        }
        Ok(Mirror { registry, path: path.to_owned() })
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => self.registry.fmt(f),
            path => write!(f, "{}/{path}", self.registry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_named_as_references_name_them() {
        for text in ["registry.example.org", "localhost:5000", "[::1]:5000", "docker.io", "localhost"] {
            assert_eq!(text.parse::<RegistryName>().unwrap().as_str(), text);
        }
        assert_eq!("index.docker.io".parse::<RegistryName>().unwrap().as_str(), "docker.io");
        for text in ["", "https://example.org", "example.org/", "shop", "example.org/shop", "a b.org", "example.org:0"]
        {
            assert!(text.parse::<RegistryName>().is_err(), "{text}");
        }
    }

    #[test]
    fn mirrors_may_have_a_path() {
        for text in ["cache.example.org", "cache.example.org:5000/hub/x", "[::1]:5000"] {
            assert_eq!(text.parse::<Mirror>().unwrap().to_string(), text);
        }
        for text in ["http://cache.example.org", "cache.example.org/Hub", "cache.example.org//x", "cache"] {
            assert!(text.parse::<Mirror>().is_err(), "{text}");
        }
    }
}
