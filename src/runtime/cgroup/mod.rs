//! Control groups, version 1 and 2: limits, statistics, freezing, killing.
//!
//! A [`Cgroup`] is a path (`linux.cgroupsPath`); what exists of it is what the kernel says, nothing is remembered.
//! Version 2 has one directory for it. Version 1 has one in each hierarchy that is joined; controllers that are
//! mounted together share one. A host with controllers in version 1 and a version 2 tree beside them ("hybrid") is
//! treated as version 1.
//!
//! # Which version 1 hierarchies are joined
//!
//! These are always joined where they exist: freezer (pause, and a list of processes that cannot be left), memory (kills
//! and use), devices (deny by default), cpuacct and pids (statistics). cpu, cpuset and blkio follow when a limit asks
//! for them, then or later. Each costs 0.15 ms: to make it, to join it, to remove it. What would cost a hundred times
//! that is to move a process from outside, so a new one goes in by itself (`entrance`); only joining a further
//! hierarchy later moves those that are there. In version 2 a process is born in its cgroup (`CLONE_INTO_CGROUP`).

mod access;
mod counters;
mod devices;
mod entrance;
mod files;
mod freeze;
mod hierarchy;
mod observe;
mod pressure;
mod settings;
mod v1;
mod v2;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::process::Pid;

pub use self::counters::{Counters, CpuCounters, DiskCounter, DiskUnit, MemoryCounters};
pub use self::entrance::Below;
pub(super) use self::entrance::{Entrance, Place};
pub use self::hierarchy::{Controller, Hierarchy, Layout, detect};
pub use self::observe::{Stats, observable};
pub use self::pressure::{Pressure, Stall, Stalls};
use super::error::{RuntimeError, invalid, unsupported};

/// One cgroup.
#[derive(Debug, Clone)]
pub struct Cgroup {
    hierarchy: Hierarchy,
    path: PathBuf,
}

/// Makes the cgroup at `path` (`linux.cgroupsPath`) exist with these limits. What is there already stays.
pub fn create(hierarchy: &Hierarchy, path: &Path, resources: &LinuxResources) -> Result<Cgroup, RuntimeError> {
    if path.components().any(|part| matches!(part, std::path::Component::ParentDir)) || path == Path::new("/") {
        return Err(invalid("linux.cgroupsPath", "it must name a cgroup below the root, without `..`"));
    }
    refuse_unsupported(resources)?;
    let cgroup = open(hierarchy, path);
    match hierarchy.layout() {
        Layout::V1 => v1::make(&cgroup, resources)?,
        Layout::V2 => v2::make(&cgroup, resources)?,
    }
    access::apply(&cgroup, resources.devices().as_deref().unwrap_or_default())?;
    Ok(cgroup)
}

/// The cgroup at `path`, which may or may not exist.
pub fn open(hierarchy: &Hierarchy, path: &Path) -> Cgroup {
    Cgroup { hierarchy: hierarchy.clone(), path: path.strip_prefix("/").unwrap_or(path).to_owned() }
}

/// A cgroup for processes of our own that are to outlive whoever starts them: without limits, and the directory in which
/// they can be born (`CLONE_INTO_CGROUP`). `None` with version 1, where nobody can.
pub fn shelter(hierarchy: &Hierarchy, path: &Path) -> Result<Option<PathBuf>, RuntimeError> {
    match hierarchy.layout() {
        Layout::V1 => Ok(None),
        Layout::V2 => {
            let directory = hierarchy.unified().join(&open(hierarchy, path).path);
            match std::fs::create_dir_all(&directory) {
                Ok(()) => Ok(Some(directory)),
                Err(error) => Err(files::failure("create", &directory, error)),
            }
        }
    }
}

/// Takes this process out of such a cgroup, so that it can be removed: to the root, the one cgroup that may hold
/// processes beside other cgroups (cgroups(7)). Nothing is done with version 1.
pub fn leave_shelter(hierarchy: &Hierarchy) -> Result<(), RuntimeError> {
    match hierarchy.layout() {
        Layout::V1 => Ok(()),
        Layout::V2 => {
            let file = hierarchy.unified().join("cgroup.procs");
            std::fs::write(&file, "0").map_err(|error| files::failure("write", &file, error))
        }
    }
}

impl Cgroup {
    pub fn exists(&self) -> bool {
        // Its processes are in that of the freezer; who has it need not be looked for in the others.
        self.members().is_some()
    }

    /// Sets limits. Those that `resources` does not name stay as they are; -1 lifts one, and an empty list of
    /// processors allows all.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), RuntimeError> {
        refuse_unsupported(resources)?;
        match self.hierarchy.layout() {
            Layout::V1 => v1::update(self, resources)?,
            Layout::V2 => v2::make(self, resources)?,
        }
        match resources.devices() {
            Some(rules) => access::apply(self, rules),
            None => Ok(()),
        }
    }

    /// The processes inside, cgroups below included.
    pub fn processes(&self) -> Result<Vec<Pid>, RuntimeError> {
        match self.members() {
            Some(directory) => files::processes(&directory),
            None => Ok(Vec::new()),
        }
    }

    /// The names of the cgroups right below, in any hierarchy.
    pub fn children(&self) -> Result<BTreeSet<String>, RuntimeError> {
        let mut children = BTreeSet::new();
        for directory in self.directories() {
            let failed = |error| files::failure("list", &directory, error);
            for entry in std::fs::read_dir(&directory).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                // One that was removed meanwhile is none.
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    children.extend(entry.file_name().into_string());
                }
            }
        }
        Ok(children)
    }

    /// Removes the cgroup and those below it. `Ok` when there is none. Waits a second at most for processes that are
    /// about to be gone.
    pub fn remove(&self) -> Result<(), RuntimeError> {
        self.directories().iter().try_for_each(|directory| files::remove(directory))
    }

    /// Removes the cgroup where nothing is in it, neither processes nor cgroups. `Ok` also when there is.
    pub fn remove_if_empty(&self) -> Result<(), RuntimeError> {
        self.directories().iter().try_for_each(|directory| match std::fs::remove_dir(directory) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|error| files::failure("remove", directory, error)),
        })
    }

    /// The directories that exist, each once.
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        let all: BTreeSet<PathBuf> = self.hierarchy.mounts().map(|mount| mount.join(&self.path)).collect();
        all.into_iter().filter(|directory| directory.is_dir()).collect()
    }

    /// Whether [`clone3`](crate::sys::clone::clone3) puts a process here at birth.
    pub(super) fn birthplace(&self) -> Result<Option<OwnedFd>, RuntimeError> {
        match self.hierarchy.layout() {
            Layout::V1 => Ok(None),
            Layout::V2 => files::open_directory(&self.hierarchy.unified().join(&self.path)).map(Some),
        }
    }

    /// The directory of `controller`, if it exists.
    fn directory(&self, controller: Controller) -> Option<PathBuf> {
        self.place_in(controller).filter(|directory| directory.is_dir())
    }

    /// Where the directory of `controller` is or would be.
    fn place_in(&self, controller: Controller) -> Option<PathBuf> {
        Some(self.hierarchy.mount(controller)?.join(&self.path))
    }

    /// The directory whose list of processes is complete.
    fn members(&self) -> Option<PathBuf> {
        self.directory(Controller::Freezer).or_else(|| self.directories().into_iter().next())
    }
}

/// What pids.max is to say; `None` for no limit. 0 is a limit, by which nobody can fork (config-linux.md, "PIDs"): 1 says
/// the same of a cgroup whose first process is about to come, and lets it be born there.
fn pids_max(limit: i64) -> Option<String> {
    (limit >= 0).then(|| limit.max(1).to_string())
}

fn refuse_unsupported(resources: &LinuxResources) -> Result<(), RuntimeError> {
    let memory = resources.memory();
    // 0 is what Docker writes for "not set", -1 asks for none.
    let is_limit = |value: Option<i64>| value.is_some_and(|value| value > 0);
    let fields = [
        (
            "linux.resources.memory.kernel",
            memory.as_ref().is_some_and(|memory| is_limit(memory.kernel())),
            "kernels since 5.16 set no such limit; `limit` counts the kernel's memory too",
        ),
        (
            "linux.resources.memory.useHierarchy",
            memory.as_ref().is_some_and(|memory| memory.use_hierarchy() == Some(false)),
            "kernels since 5.11 count what is below a cgroup with it, always",
        ),
    ];
    match fields.into_iter().find(|(_, set, _)| *set) {
        Some((field, _, reason)) => Err(unsupported(field, reason)),
        None => Ok(()),
    }
}
