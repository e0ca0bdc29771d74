//! The way into a version 1 cgroup, for a process that goes there by itself.
//!
//! # Decisions
//!
//! Moving a process from outside (`cgroup.procs`) keeps every process of the host from forking and ending meanwhile:
//! the kernel takes a lock whose writers wait for an RCU grace period, 15 to 40 ms on two busy processors, as measured
//! here. Who has one thread and moves itself (`0` into `tasks`) disturbs nobody's forks, so the kernel takes no such
//! lock (`cgroup_procs_write_start` in kernel/cgroup/cgroup.c): 0.25 ms for all five hierarchies. An older kernel that
//! knows no difference does the same, slower.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Cgroup, Layout, files};
use crate::runtime::error::{Context, RuntimeError};
use crate::sys::clone::OneThread;

/// The lists of tasks of a cgroup, open for writing: who holds them gets inside, whatever tree and user it has by then.
#[derive(Debug)]
pub(in crate::runtime) struct Entrance {
    lists: Vec<(PathBuf, File)>,
}

impl Entrance {
    /// Of `cgroup`, which must exist. Version 2 has none: there a process is born inside.
    pub(in crate::runtime) fn open(cgroup: Option<&Cgroup>) -> Result<Entrance, RuntimeError> {
        let cgroup = cgroup.filter(|cgroup| cgroup.hierarchy.layout() == Layout::V1);
        let directories = cgroup.map(Cgroup::directories).unwrap_or_default();
        let open = |directory: &PathBuf| {
            let path = directory.join("tasks");
            match fs::OpenOptions::new().write(true).open(&path) {
                Ok(list) => Ok((path, list)),
                Err(error) => Err(files::failure("open", &path, error)),
            }
        };
        Ok(Entrance { lists: directories.iter().map(open).collect::<Result<_, _>>()? })
    }

    /// Moves this process inside.
    pub(in crate::runtime) fn enter(self, _: &OneThread) -> Result<(), RuntimeError> {
        let join = |(path, mut list): (PathBuf, File)| {
            let directory = path.parent().unwrap_or(Path::new("/"));
            list.write_all(b"0").during("join the cgroup", directory.display())
        };
        self.lists.into_iter().try_for_each(join)
    }
}
