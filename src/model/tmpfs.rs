//! Mount options of a filesystem in memory.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One of tmpfs(5) or mount(8), such as `noexec` or `uid=1000`. Size and mode are not among them, but for a size in
/// percent of the host's memory: they have fields of their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TmpfsOption(String);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "expected one of {}, or uid=, gid=, nr_inodes=, nr_blocks= with a number, mpol=POLICY, size=PERCENT%",
    WORDS.join(", ")
)]
pub struct TmpfsOptionError;

const WORDS: [&str; 20] = [
    "rw",
    "ro",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "sync",
    "async",
    "dirsync",
    "defaults",
];

impl TmpfsOption {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TmpfsOption {
    type Err = TmpfsOptionError;

    fn from_str(text: &str) -> Result<TmpfsOption, TmpfsOptionError> {
        let is_known = match text.split_once('=') {
            None => WORDS.contains(&text),
            // The largest number is nobody's (chown(2)).
            Some(("uid" | "gid", value)) => value.parse::<u32>().is_ok_and(|number| number != u32::MAX),
            Some(("nr_inodes" | "nr_blocks", value)) => {
                let digits = value.strip_suffix(['k', 'm', 'g', 'K', 'M', 'G']).unwrap_or(value);
                digits.parse::<u64>().is_ok()
            }
            Some(("mpol", value)) => !value.is_empty(),
            Some(("size", value)) => value.strip_suffix('%').is_some_and(|percent| percent.parse::<u8>().is_ok()),
            Some(_) => false,
        };
        match is_known {
            true => Ok(TmpfsOption(text.to_owned())),
            false => Err(TmpfsOptionError),
        }
    }
}

impl fmt::Display for TmpfsOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for TmpfsOption {
    type Error = TmpfsOptionError;
    fn try_from(text: String) -> Result<Self, TmpfsOptionError> {
        text.parse()
    }
}

impl From<TmpfsOption> for String {
    fn from(option: TmpfsOption) -> String {
        option.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_does_not_know_is_no_option() {
        for known in ["noexec", "uid=1000", "gid=0", "nr_inodes=10k", "mpol=bind:0", "size=10%"] {
            assert_eq!(known.parse::<TmpfsOption>().unwrap().to_string(), known);
        }
        for wrong in ["", "bind", "uid=", "uid=4294967295", "uid=x", "size=1m", "mode=755", "nr_inodes=k", "noexec="] {
            assert!(wrong.parse::<TmpfsOption>().is_err(), "{wrong}");
        }
    }
}
