//! Names and identifiers.
//!
//! Names come from manifests, identifiers are chosen while planning ([`Ids`]), so that a plan can print them and
//! its execution has no choices left. A [`RootTag`] keeps two state roots on one host apart.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a text is not a name, an identifier or a digest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdError {
    #[error("a name has 1 to 63 characters, this one has {0}")]
    NameLength(usize),
    #[error("`{0}` is not allowed in a name: use a-z, 0-9, `_` and `-`, beginning with a letter or a digit")]
    NameCharacter(char),
    #[error("expected {expected} lower-case hexadecimal digits")]
    Hex { expected: usize },
    #[error("expected `sha256:` and 64 lower-case hexadecimal digits")]
    Digest,
    #[error("the replica number after the dot is not a number above 1")]
    Replica,
}

/// Gives a text newtype its `Display`, `FromStr` through a check, and serde through both.
macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                $check(text)?;
                Ok($name(text.to_owned()))
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                $check(&text)?;
                Ok($name(text))
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }
    };
}

text_newtype!(
    /// The name of a project: the boundary of ownership.
    ProjectName, check_name
);
text_newtype!(
    /// The name of an image, network, volume, restart policy or container inside a project.
    ResourceName, check_name
);
text_newtype!(
    /// A container's identifier: 12 hexadecimal digits, unique within a state root.
    ContainerId, check_hex::<12>
);
text_newtype!(
    /// A network's identifier: 8 hexadecimal digits, unique within a state root.
    NetworkId, check_hex::<8>
);
text_newtype!(
    /// Four hexadecimal digits of a hash of the state root's path. Link names, the firewall table and cgroup
    /// parents carry it, so that two state roots never meet.
    RootTag, check_hex::<4>
);
text_newtype!(
    /// `sha256:` and 64 hexadecimal digits (OCI image-spec, descriptor.md). Evenkeel accepts no other algorithm.
    Digest, check_digest
);

fn check_name(text: &str) -> Result<(), IdError> {
    if text.is_empty() || text.len() > 63 {
        return Err(IdError::NameLength(text.chars().count()));
    }
    for (at, c) in text.char_indices() {
        let plain = c.is_ascii_lowercase() || c.is_ascii_digit();
        if !(plain || (at > 0 && matches!(c, '_' | '-'))) {
            return Err(IdError::NameCharacter(c));
        }
    }
    Ok(())
}

fn check_hex<const LENGTH: usize>(text: &str) -> Result<(), IdError> {
    match text.len() == LENGTH && is_lower_hex(text) {
        true => Ok(()),
        false => Err(IdError::Hex { expected: LENGTH }),
    }
}

fn check_digest(text: &str) -> Result<(), IdError> {
    match text.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 && is_lower_hex(hex) => Ok(()),
        _ => Err(IdError::Digest),
    }
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl Digest {
    /// The digest of these 32 bytes of SHA-256.
    pub fn from_sha256(bytes: &[u8; 32]) -> Digest {
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        text.extend(
            bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|n| char::from(b"0123456789abcdef"[usize::from(n)])),
        );
        Digest(text)
    }

    /// The 64 digits behind `sha256:`.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The first 12 digits: what people read.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

impl RootTag {
    /// The tag of the state root whose canonical path hashes to these bytes.
    pub fn from_hash(bytes: [u8; 2]) -> RootTag {
        RootTag(format!("{:02x}{:02x}", bytes[0], bytes[1]))
    }
}

/// One replica of a declared container. Replica 1 is written as the bare name, so that `web` means the same
/// container with one replica or with five; the others are `web.2`, `web.3`, .. (a name holds no dot).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Instance {
    pub container: ResourceName,
    /// Counted from 1.
    pub replica: u32,
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.replica {
            1 => self.container.fmt(f),
            n => f.pad(&format!("{}.{n}", self.container)),
        }
    }
}

impl FromStr for Instance {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.split_once('.') {
            None => Ok(Instance { container: text.parse()?, replica: 1 }),
            Some((name, number)) => match number.parse() {
                Ok(replica) if replica > 1 => Ok(Instance { container: name.parse()?, replica }),
                _ => Err(IdError::Replica),
            },
        }
    }
}

impl TryFrom<String> for Instance {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Instance> for String {
    fn from(value: Instance) -> String {
        value.to_string()
    }
}

/// Whose an object is. What nobody declares was made by hand (`evenkeel run`): no manifest can name it, so no plan of
/// a project ever is about it. In records it is the project's name, or `null`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "Option<ProjectName>", from = "Option<ProjectName>")]
pub enum Whose {
    Nobody,
    Project(ProjectName),
}

impl Whose {
    /// `_` for nobody, which is no name of a project.
    pub fn as_str(&self) -> &str {
        match self {
            Whose::Nobody => "_",
            Whose::Project(name) => name.as_str(),
        }
    }

    pub fn project(&self) -> Option<&ProjectName> {
        match self {
            Whose::Nobody => None,
            Whose::Project(name) => Some(name),
        }
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Reads the name of a project: nobody's name cannot be written.
impl FromStr for Whose {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        text.parse().map(Whose::Project)
    }
}

impl From<ProjectName> for Whose {
    fn from(name: ProjectName) -> Whose {
        Whose::Project(name)
    }
}

impl From<Option<ProjectName>> for Whose {
    fn from(name: Option<ProjectName>) -> Whose {
        name.map_or(Whose::Nobody, Whose::Project)
    }
}

impl From<Whose> for Option<ProjectName> {
    fn from(owner: Whose) -> Option<ProjectName> {
        match owner {
            Whose::Nobody => None,
            Whose::Project(name) => Some(name),
        }
    }
}

impl PartialEq<ProjectName> for Whose {
    fn eq(&self, name: &ProjectName) -> bool {
        self.project() == Some(name)
    }
}

/// A volume is known by its project and its name, since its data outlives every container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct VolumeKey {
    pub project: Whose,
    pub name: ResourceName,
}

/// `project.volume`, or `_.volume` for one that nobody declares: also the name of its directory.
impl fmt::Display for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.project, self.name)
    }
}

impl FromStr for VolumeKey {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (project, name) = text.split_once('.').ok_or(IdError::NameLength(0))?;
        let project = if project == Whose::Nobody.as_str() { Whose::Nobody } else { project.parse()? };
        Ok(VolumeKey { project, name: name.parse()? })
    }
}

impl TryFrom<String> for VolumeKey {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<VolumeKey> for String {
    fn from(value: VolumeKey) -> String {
        value.to_string()
    }
}

/// Chooses identifiers while planning. The seed is an argument: the same seed and the same input give the same
/// plan.
#[derive(Debug, Clone)]
pub struct Ids {
    state: u64,
}

impl Ids {
    pub fn from_seed(seed: u64) -> Ids {
        Ids { state: seed }
    }

    pub fn container(&mut self) -> ContainerId {
        ContainerId(format!("{:012x}", self.next() >> 16))
    }

    pub fn network(&mut self) -> NetworkId {
        NetworkId(format!("{:08x}", self.next() >> 32))
    }

    /// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
    /// Identifiers need to be distinct, not secret.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_without_dots() {
        assert!("web-1_a".parse::<ResourceName>().is_ok());
        for bad in ["", "-web", "Web", "a.b", "a/b", &"x".repeat(64)] {
            assert!(bad.parse::<ResourceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn instances_read_back_what_they_print() {
        for text in ["web", "web.2", "web.17"] {
            assert_eq!(text.parse::<Instance>().unwrap().to_string(), text);
        }
        assert!("web.1".parse::<Instance>().is_err());
        assert!("web.x".parse::<Instance>().is_err());
    }

    #[test]
    fn nobody_is_no_project() {
        let key: VolumeKey = "_.data".parse().unwrap();
        assert_eq!((key.project.clone(), key.to_string().as_str()), (Whose::Nobody, "_.data"));
        assert!("_".parse::<Whose>().is_err());
        assert_eq!(serde_json::to_string(&Whose::Nobody).unwrap(), "null");
        assert_eq!(serde_json::from_str::<Whose>("\"shop\"").unwrap(), "shop".parse::<Whose>().unwrap());
    }

    #[test]
    fn a_digest_prints_its_bytes() {
        let digest = Digest::from_sha256(&[0xab; 32]);
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert_eq!(digest.short(), "abababababab");
    }

    #[test]
    fn identifiers_follow_from_the_seed() {
        let (mut a, mut b) = (Ids::from_seed(1), Ids::from_seed(1));
        let first = a.container();
        assert_eq!(first, b.container());
        assert_ne!(first, a.container());
    }
}
