//! One change at a time per state root.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use super::error::{At, EngineError};
use super::files;

/// Held while a plan is made and executed. The kernel drops it with the process (flock(2)).
#[derive(Debug)]
pub struct Lock {
    _file: File,
    _beside: Option<File>,
}

impl Lock {
    /// Takes another one as well, where somebody made it: an Evenkeel that was not started anew since an upgrade may hold
    /// the lock where it was before.
    pub fn beside(self, path: &Path, timeout: Duration) -> Result<Lock, EngineError> {
        let beside = if path.exists() { Some(take(path, timeout)?._file) } else { None };
        Ok(Lock { _beside: beside, ..self })
    }
}

/// For a process that an apply was about to start when it was killed: between fork and exec it holds what its parent held.
const LAST_BREATH: Duration = Duration::from_millis(500);

/// Whoever can open a file, for whatever, can lock it (flock(2)) and keep everybody waiting.
const OWNER_ALONE: u32 = 0o600;

/// Takes the lock, waiting up to `timeout` for another holder, and never less than a moment.
pub fn take(path: &Path, timeout: Duration) -> Result<Lock, EngineError> {
    if let Some(parent) = path.parent() {
        files::create_directories(parent)?;
    }
    let file = File::options().create(true).append(true).mode(OWNER_ALONE).open(path).at("open the lock", path)?;
    if file.metadata().at("look at the lock", path)?.mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(OWNER_ALONE)).at("close the lock to others", path)?;
    }
    let deadline = Instant::now() + timeout.max(LAST_BREATH);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock { _file: file, _beside: None }),
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                // flock has no time limit of its own; fifty tries a second cost nothing.
                std::thread::sleep(Duration::from_millis(20).min(deadline.saturating_duration_since(Instant::now())));
            }
            Err(std::fs::TryLockError::WouldBlock) => return Err(EngineError::Locked { path: path.to_owned() }),
            Err(std::fs::TryLockError::Error(source)) => return Err::<Lock, io::Error>(source).at("lock", path),
        }
    }
}
