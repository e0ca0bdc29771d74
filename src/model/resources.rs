//! Limits of a container: cgroup resources and rlimits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::units::{ByteSize, Cpus};

/// What a container may use. All of it can change while it runs. `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resources {
    pub memory: Option<ByteSize>,
    /// Memory and swap together, as Docker counts (`memory.memsw` in cgroup v1).
    pub memory_swap: Option<ByteSize>,
    /// What stays when the host is short (`memory.low`, `memory.soft_limit_in_bytes`).
    pub memory_reservation: Option<ByteSize>,
    pub cpus: Option<Cpus>,
    /// Relative weight, Docker's shares: 2 to 262144, 1024 is usual.
    pub cpu_shares: Option<u64>,
    /// Processors it may run on, in the kernel's list format: `0-1,3`.
    pub cpuset: Option<String>,
    pub pids: Option<u64>,
}

/// A soft and a hard limit (setrlimit(2)). `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ulimit {
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

/// By the name of ulimit(1p) as Docker spells them: `nofile`, `nproc`, `core`, ..
pub type Ulimits = BTreeMap<String, Ulimit>;

/// The names that are understood, with the suffix of the kernel's `RLIMIT_` constants.
pub const ULIMIT_NAMES: [(&str, &str); 16] = [
    ("as", "AS"),
    ("core", "CORE"),
    ("cpu", "CPU"),
    ("data", "DATA"),
    ("fsize", "FSIZE"),
    ("locks", "LOCKS"),
    ("memlock", "MEMLOCK"),
    ("msgqueue", "MSGQUEUE"),
    ("nice", "NICE"),
    ("nofile", "NOFILE"),
    ("nproc", "NPROC"),
    ("rss", "RSS"),
    ("rtprio", "RTPRIO"),
    ("rttime", "RTTIME"),
    ("sigpending", "SIGPENDING"),
    ("stack", "STACK"),
];
