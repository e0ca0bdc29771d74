//! What a monitor reads when it starts: the launch file, written by the engine.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::container::Logging;
use super::event::Traits;
use super::health::Healthcheck;
use super::id::ContainerId;
use super::restart::RestartPolicy;
use super::units::{Signal, Timespan};

pub const LAUNCH_VERSION: u32 = 1;

/// What becomes a container's `/`. It is mounted inside the container's own mount namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootFilesystem {
    Overlay {
        /// Lowest layer first.
        lower: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
    },
    Directory(PathBuf),
}

/// Who a container's process runs as, by names that only the container's own `/etc/passwd` and `/etc/group` know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `USER` or `USER:GROUP`, names or numbers, as in an image's configuration. Empty is root.
    pub user: String,
    /// Further groups, names or numbers.
    pub groups: Vec<String>,
}

/// How a container's standard input is fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Terminal {
    /// Three pipes; standard input is empty.
    None,
    /// Three pipes; standard input stays open for `attach`.
    StdinOpen,
    /// A pseudo-terminal.
    Tty,
}

/// Name service inside the container's network namespace, at 127.0.0.11 port 53.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// Name tables ([`super::names::NameTable`] as JSON) of the container's networks, in order of preference.
    pub tables: Vec<PathBuf>,
    /// Where other names are asked, from the host's namespace. Empty for containers without a way out.
    pub upstreams: Vec<IpAddr>,
}

/// What the monitor tells of the container, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telling {
    /// The directory of the journal.
    pub journal: PathBuf,
    /// Who wrote this, for a start: `apply`, `watch`, `run`.
    #[serde(default)]
    pub by: Option<String>,
    /// Always empty in what a monitor has in memory: it reads them again when there is something to tell.
    #[serde(default)]
    pub traits: Traits,
}

/// The launch file: `launch.json` in the container's run directory. The engine is its only writer; a running
/// monitor reads it again when it is told to, and takes over what is live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    pub version: u32,
    pub id: ContainerId,
    /// `project/instance`, for messages.
    pub name: String,
    /// The OCI configuration (config.json).
    pub config: PathBuf,
    pub root: RootFilesystem,
    /// Made in the root filesystem where they are missing: what the image declares as volumes.
    #[serde(default)]
    pub directories: Vec<PathBuf>,
    /// Takes the place of `process.user` in the OCI configuration.
    pub identity: Option<Identity>,
    /// Whether a small init of ours is process 1.
    pub init: bool,
    /// The pinned network namespace; `None` for the host's.
    pub netns: Option<PathBuf>,
    pub terminal: Terminal,
    /// The directory of the log files.
    pub logs: PathBuf,
    pub resolver: Option<Resolver>,
    pub restart: RestartPolicy,
    pub healthcheck: Option<Healthcheck>,
    pub stop_signal: Signal,
    pub stop_grace_period: Timespan,
    pub logging: Logging,
    /// `None` in what was written before there was a journal.
    #[serde(default)]
    pub telling: Option<Telling>,
    /// What the monitor executes as its last act, when the container is over: program and arguments. Empty is nothing.
    #[serde(default)]
    pub after_end: Vec<OsString>,
}
