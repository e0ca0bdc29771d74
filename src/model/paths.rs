//! Where everything is on disk. One place builds every path; DESIGN's tree in code.
//!
//! ```text
//! ROOT (/var/lib/evenkeel)              RUN (/run/evenkeel), gone after a reboot
//!   images/ layers/     engine::image     root                    a link to the state root that it serves
//!   containers/<id>/                      netns/<id>              pinned network namespaces
//!     record.json       engine            networks/<id>.names     name tables; written by the engine
//!     upper/ work/      overlayfs         containers/<id>/
//!     logs/             monitor             launch.json config.json   written by the engine
//!     files/            engine: hosts, ..   status.json lock control  written by the monitor
//!   volumes/<key>/
//!     record.json data/
//!   networks/<id>/record.json
//!   generations/ last-good/ build-cache/
//!   trash/              removed volumes, and files that images call data, until they expire
//!   events/             the journal: see crate::journal
//!   trash.json          how long they have been there
//!   lock                one apply at a time
//!   run.json            the run directory that serves it since the last boot
//! ```

use std::path::{Path, PathBuf};

use super::id::{ContainerId, NetworkId, VolumeKey};

/// The two roots of one instance of Evenkeel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The state root: what must survive a reboot.
    pub root: PathBuf,
    /// The run directory: what must not.
    pub run: PathBuf,
}

impl Paths {
    /// What the containers before the present ones were made of.
    pub fn generations(&self) -> PathBuf {
        self.root.join("generations")
    }

    /// What is known of tags that are followed.
    pub fn followed(&self) -> PathBuf {
        self.root.join("followed")
    }

    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }
    pub fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(id.as_str())
    }
    pub fn container_logs(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("logs")
    }
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }
    pub fn volume(&self, key: &VolumeKey) -> PathBuf {
        self.volumes().join(key.to_string())
    }
    pub fn volume_data(&self, key: &VolumeKey) -> PathBuf {
        self.volume(key).join("data")
    }
    pub fn volume_image(&self, key: &VolumeKey) -> PathBuf {
        self.volume(key).join("image")
    }
    pub fn networks(&self) -> PathBuf {
        self.root.join("networks")
    }
    pub fn network(&self, id: &NetworkId) -> PathBuf {
        self.networks().join(id.as_str())
    }
    /// A link to the state root that the run directory serves.
    pub fn run_owner(&self) -> PathBuf {
        self.run.join("root")
    }
    pub fn last_good(&self) -> PathBuf {
        self.root.join("last-good")
    }
    pub fn inputs(&self) -> PathBuf {
        self.root.join("inputs")
    }
    /// The journal of what happens.
    pub fn events(&self) -> PathBuf {
        events(&self.root)
    }
    pub fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }
    pub fn trash_ages(&self) -> PathBuf {
        self.root.join("trash.json")
    }
    /// In the state root, so that two run directories share it.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }
    /// Where the lock is of those who know no other.
    pub fn lock_before(&self) -> PathBuf {
        self.run.join("lock")
    }
    pub fn served(&self) -> PathBuf {
        self.root.join("run.json")
    }
    pub fn netns_directory(&self) -> PathBuf {
        self.run.join("netns")
    }
    pub fn netns(&self, id: &ContainerId) -> PathBuf {
        self.netns_directory().join(id.as_str())
    }
    pub fn names_directory(&self) -> PathBuf {
        self.run.join("networks")
    }
    pub fn names(&self, id: &NetworkId) -> PathBuf {
        self.names_directory().join(format!("{id}.names"))
    }
    pub fn containers_run(&self) -> PathBuf {
        self.run.join("containers")
    }
    pub fn container_run(&self, id: &ContainerId) -> PathBuf {
        self.containers_run().join(id.as_str())
    }
}

/// The journal of a state root.
pub fn events(root: &Path) -> PathBuf {
    root.join("events")
}

/// The object's record inside its directory.
pub fn record(directory: &Path) -> PathBuf {
    directory.join("record.json")
}

/// Files inside a container's run directory ([`Paths::container_run`]).
pub mod run {
    pub const LAUNCH: &str = "launch.json";
    pub const CONFIG: &str = "config.json";
    pub const STATUS: &str = "status.json";
    /// Locked (F_OFD_SETLK, fcntl_locking(2)) by the monitor as long as it lives.
    pub const LOCK: &str = "lock";
    /// A seqpacket socket: see [`crate::monitor`].
    pub const CONTROL: &str = "control";
    /// Pipes of those who want to see everything from the first byte on, while the container is started.
    pub const STDOUT: &str = "stdout";
    pub const STDERR: &str = "stderr";
    /// The size of their terminal, as JSON.
    pub const WINDOW: &str = "window";
    /// Empty: what follows from the container's networks beside its links may not be as they are.
    pub const BEHIND: &str = "behind";
    /// A monitor's standard error: empty, unless it failed in a way that it could not report.
    pub const MONITOR_ERRORS: &str = "monitor.err";
}

/// The log file that is written to, inside [`Paths::container_logs`]; older ones are `container.log.1`, `.2`, ..
pub const LOG_FILE: &str = "container.log";
