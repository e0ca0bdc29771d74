//! Seccomp profiles as Docker writes them: a filter with conditions of where its rules hold.
//!
//! The format is that of Docker's `--security-opt seccomp=FILE`: OCI's `linux.seccomp` with `archMap`, and with
//! `includes` and `excludes` for every rule. What a profile becomes on a host, for a container's capabilities, is
//! `runtime::seccomp`'s to say.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a text is no profile.
#[derive(Debug, Error)]
#[error("it is no seccomp profile")]
pub struct ProfileError(#[from] serde_json::Error);

/// Which system calls the processes of a container may make.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// The profile of those that declare none.
    #[default]
    Default,
    /// All of them.
    Unconfined,
    /// What a file says. The whole of it is kept, so that an edit is a difference.
    Profile { path: String, profile: Box<Profile> },
}

/// A profile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    pub default_action: Action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// Architectures by their names in libseccomp. `arch_map` is the same by processor; one of both is used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arch_map: Vec<Architecture>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub syscalls: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Architecture {
    pub architecture: String,
    #[serde(default)]
    pub sub_architectures: Option<Vec<String>>,
}

/// What happens to some calls.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// One name, as older profiles write it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub action: Action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<Argument>>,
    /// For readers.
    #[serde(default, skip_serializing)]
    pub comment: Option<String>,
    #[serde(default, skip_serializing_if = "Filter::is_empty")]
    pub includes: Filter,
    #[serde(default, skip_serializing_if = "Filter::is_empty")]
    pub excludes: Filter,
}

/// Where a rule holds: all that is named must be so, or, as an exclusion, none of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Filter {
    /// Capabilities of the container.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub caps: BTreeSet<String>,
    /// Processors, by Go's names.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub arches: BTreeSet<String>,
    /// The oldest kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_kernel: Option<KernelVersion>,
}

impl Filter {
    fn is_empty(&self) -> bool {
        *self == Filter::default()
    }
}

/// A comparison of an argument.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Argument {
    pub index: u32,
    pub value: u64,
    #[serde(default)]
    pub value_two: u64,
    pub op: Comparison,
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $(#[serde(rename = $word)] $variant,)*
        }
    };
}

words!(
    /// What happens to a call.
    Action {
        Kill = "SCMP_ACT_KILL",
        KillProcess = "SCMP_ACT_KILL_PROCESS",
        KillThread = "SCMP_ACT_KILL_THREAD",
        Trap = "SCMP_ACT_TRAP",
        Errno = "SCMP_ACT_ERRNO",
        Trace = "SCMP_ACT_TRACE",
        Allow = "SCMP_ACT_ALLOW",
        Log = "SCMP_ACT_LOG",
    }
);

words!(
    /// How an argument is compared with a value.
    Comparison {
        NotEqual = "SCMP_CMP_NE",
        Below = "SCMP_CMP_LT",
        AtMost = "SCMP_CMP_LE",
        Equal = "SCMP_CMP_EQ",
        AtLeast = "SCMP_CMP_GE",
        Above = "SCMP_CMP_GT",
        MaskedEqual = "SCMP_CMP_MASKED_EQ",
    }
);

/// The first two numbers of a kernel's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct KernelVersion(pub u32, pub u32);

impl FromStr for KernelVersion {
    type Err = String;

    /// Reads `6.1`, and what uname(2) says: `6.1.0-18-amd64`.
    fn from_str(text: &str) -> Result<KernelVersion, String> {
        let mut numbers = text.split(['.', '-', '+']).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(KernelVersion(major, minor)),
            _ => Err(format!("{text:?} is no version of a kernel such as \"6.1\"")),
        }
    }
}

impl TryFrom<String> for KernelVersion {
    type Error = String;
    fn try_from(text: String) -> Result<KernelVersion, String> {
        text.parse()
    }
}

impl From<KernelVersion> for String {
    fn from(version: KernelVersion) -> String {
        version.to_string()
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl FromStr for Profile {
    type Err = ProfileError;
    fn from_str(text: &str) -> Result<Profile, ProfileError> {
        Ok(serde_json::from_str(text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_in_dockers_words_is_read() {
        let profile: Profile = r#"{
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [{
                "names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "x",
                "includes": {"minKernel": "4.8", "caps": ["CAP_SYS_PTRACE"]}, "excludes": {"arches": ["s390"]}
            }]
        }"#
        .parse()
        .unwrap();
        assert_eq!(profile.syscalls[0].includes.min_kernel, Some(KernelVersion(4, 8)));
        let again: Profile = serde_json::to_string(&profile).unwrap().parse().unwrap();
        assert_eq!(again.syscalls[0].excludes, profile.syscalls[0].excludes);
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        for text in ["", "{}", r#"{"defaultAction": "SCMP_ACT_MAYBE"}"#, r#"{"defaultAction": "SCMP_ACT_LOG", "x": 1}"#]
        {
            assert!(text.parse::<Profile>().is_err(), "{text}");
        }
        let version = |text: &str| text.parse::<KernelVersion>();
        assert_eq!(version("6.1.0-18-amd64"), Ok(KernelVersion(6, 1)));
        assert!(version("six").is_err() && version("6").is_err());
        assert!(KernelVersion(4, 19) > KernelVersion(4, 8));
    }
}
