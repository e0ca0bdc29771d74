//! Pausing, ending.

use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, kill_process};

use super::{Cgroup, Controller, Layout, files};
use crate::runtime::error::RuntimeError;

/// How long processes may take to stop: a process in an uninterruptible wait stops only behind it.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Stops every process inside; `Ok` when all have stopped. Otherwise all go on.
    pub fn freeze(&self) -> Result<(), RuntimeError> {
        match (self.hierarchy.layout(), self.directory(Controller::Freezer)) {
            (_, None) => Err(RuntimeError::Controller { controller: "freezer", field: "pausing".to_owned() }),
            (Layout::V1, Some(directory)) => freeze_v1(&directory),
            (Layout::V2, Some(directory)) => {
                files::write(&directory, "cgroup.freeze", "1")?;
                wait_for_frozen(&directory).or_else(|error| {
                    files::write(&directory, "cgroup.freeze", "0")?;
                    Err(error)
                })
            }
        }
    }

    /// Lets every process inside go on.
    pub fn thaw(&self) -> Result<(), RuntimeError> {
        match (self.hierarchy.layout(), self.directory(Controller::Freezer)) {
            (_, None) => Ok(()),
            (Layout::V1, Some(directory)) => files::write(&directory, "freezer.state", "THAWED"),
            (Layout::V2, Some(directory)) => files::write(&directory, "cgroup.freeze", "0"),
        }
    }

    /// Whether it is stopped, or about to be.
    pub fn is_frozen(&self) -> bool {
        let Some(directory) = self.directory(Controller::Freezer) else { return false };
        match self.hierarchy.layout() {
            Layout::V1 => files::read(&directory, "freezer.state").is_ok_and(|state| state.trim() != "THAWED"),
            Layout::V2 => files::read(&directory, "cgroup.freeze").is_ok_and(|state| state.trim() == "1"),
        }
    }

    /// Ends every process inside with SIGKILL, frozen or not. It does not wait for their end.
    pub fn kill(&self) -> Result<(), RuntimeError> {
        let Some(directory) = self.members() else { return Ok(()) };
        // Linux 5.14: one write that no fork escapes.
        if directory.join("cgroup.kill").exists() {
            return files::write(&directory, "cgroup.kill", "1");
        }
        // Frozen, none can fork while the others are killed. Where there is no freezer, the loop catches up.
        let frozen = self.freeze();
        for _ in 0..KILL_ROUNDS {
            let processes = files::processes(&directory)?;
            for pid in &processes {
                // It may have ended by itself.
                let _ = kill_process(*pid, Signal::KILL);
            }
            if frozen.is_ok() || processes.is_empty() {
                break;
            }
        }
        // A cgroup below may be frozen for itself, by a container's own containers.
        match self.hierarchy.layout() {
            Layout::V1 => thaw_all(&directory),
            Layout::V2 => self.thaw(),
        }
    }
}

/// The directory and all below it, where version 1 freezes.
fn thaw_all(directory: &Path) -> Result<(), RuntimeError> {
    match files::write(directory, "freezer.state", "THAWED") {
        // Nobody is in what has been removed meanwhile, or in a hierarchy without a freezer.
        Err(error) if files::is_gone(&error) => Ok(()),
        other => {
            other?;
            files::children(directory)?.iter().try_for_each(|below| thaw_all(below))
        }
    }
}

const KILL_ROUNDS: usize = 100;

/// Writing the state again catches processes that were forked meanwhile (cgroup-v1/freezer-subsystem).
fn freeze_v1(directory: &Path) -> Result<(), RuntimeError> {
    const STEP: Duration = Duration::from_millis(1);
    for _ in 0..PATIENCE.as_millis() {
        files::write(directory, "freezer.state", "FROZEN")?;
        if files::read(directory, "freezer.state")?.trim() == "FROZEN" {
            return Ok(());
        }
        std::thread::sleep(STEP);
    }
    files::write(directory, "freezer.state", "THAWED")?;
    Err(files::failure("freeze", directory, std::io::ErrorKind::TimedOut.into()))
}

/// `cgroup.events` signals each change as an exceptional condition (cgroup-v2, "Basic operations").
fn wait_for_frozen(directory: &Path) -> Result<(), RuntimeError> {
    let path = directory.join("cgroup.events");
    let failure = |error| files::failure("freeze", directory, error);
    let events = std::fs::File::open(&path).map_err(failure)?;
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    loop {
        let mut text = [0; 128];
        let length = rustix::io::pread(&events, &mut text, 0).map_err(|errno| failure(errno.into()))?;
        if String::from_utf8_lossy(&text[..length]).lines().any(|line| line == "frozen 1") {
            return Ok(());
        }
        match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&patience)) {
            Ok(0) => return Err(failure(std::io::ErrorKind::TimedOut.into())),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(failure(errno.into())),
        }
    }
}
