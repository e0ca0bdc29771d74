//! Capabilities, devices and users.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected a capability such as \"NET_ADMIN\", or \"ALL\"")]
pub struct CapabilityError;

/// A capability by its number, read and printed as `NET_ADMIN` (capabilities(7)); `CAP_` and lower case are
/// read too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Capability(u8);

/// In the kernel's order: the index is the number (linux/capability.h).
pub const CAPABILITY_NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl Capability {
    pub fn from_number(number: u8) -> Option<Capability> {
        (usize::from(number) < CAPABILITY_NAMES.len()).then_some(Capability(number))
    }

    pub const fn number(self) -> u8 {
        self.0
    }

    pub fn all() -> impl Iterator<Item = Capability> {
        (0..CAPABILITY_NAMES.len() as u8).map(Capability)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(CAPABILITY_NAMES[usize::from(self.0)])
    }
}

impl FromStr for Capability {
    type Err = CapabilityError;
    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        Capability::all().find(|c| CAPABILITY_NAMES[usize::from(c.0)] == name).ok_or(CapabilityError)
    }
}

impl TryFrom<String> for Capability {
    type Error = CapabilityError;
    fn try_from(text: String) -> Result<Self, CapabilityError> {
        text.parse()
    }
}

impl From<Capability> for String {
    fn from(value: Capability) -> String {
        value.to_string()
    }
}

/// Whose users and groups those of a container are (user_namespaces(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Users {
    /// The host's: root inside is root outside.
    #[default]
    Host,
    /// Of its own, in a range of the host's numbers that planning chooses.
    Auto,
    /// Of its own, in this range.
    Range(IdRange),
}

/// `size` numbers of the host's from `start` on: 0 inside is `start` outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IdRange {
    pub start: u32,
    pub size: u32,
}

impl IdRange {
    /// As many as a usual system has users, nobody (65534) included.
    pub const USUAL_SIZE: u32 = 65536;

    /// A user of the host as whoever has this range sees him. `None`: one of those that he has not.
    pub fn inside(&self, number: u32) -> Option<u32> {
        number.checked_sub(self.start).filter(|inside| *inside < self.size)
    }

    /// Nobody, in a range of the usual size: whom whoever has it sees in the place of all others (user_namespaces(7)).
    pub fn last(&self) -> u32 {
        self.start.saturating_add(65534.min(self.size.saturating_sub(1)))
    }

    /// Who on the host this user is of those in the range.
    pub fn outside(&self, number: u32) -> Option<u32> {
        (number < self.size).then(|| self.start.saturating_add(number))
    }

    pub fn overlaps(&self, other: &IdRange) -> bool {
        let end = |range: &IdRange| u64::from(range.start) + u64::from(range.size);
        u64::from(self.start) < end(other) && u64::from(other.start) < end(self)
    }
}

/// A device of the host inside a container: source, target, and what may be done with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Device {
    pub source: String,
    pub target: String,
    /// A subset of `rwm`: read, write, mknod.
    pub permissions: String,
}
