//! The way into a version 1 cgroup, for a process that goes there by itself, and the place of one that goes below a
//! container's own.
//!
//! # Decisions
//!
//! Moving a process from outside (`cgroup.procs`) keeps every process of the host from forking and ending meanwhile:
//! the kernel takes a lock whose writers wait for an RCU grace period, 15 to 40 ms on two busy processors, as measured
//! here. Who has one thread and moves itself (`0` into `tasks`) disturbs nobody's forks, so the kernel takes no such
//! lock (`cgroup_procs_write_start` in kernel/cgroup/cgroup.c): 0.25 ms for all five hierarchies. An older kernel that
//! knows no difference does the same, slower.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::process::Pid;

use super::{Cgroup, Layout, files};
use crate::runtime::error::{Context, RuntimeError, invalid};
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
        Entrance::to(&cgroup.map(Cgroup::directories).unwrap_or_default())
    }

    /// Of these directories, one in each hierarchy.
    fn to(directories: &[PathBuf]) -> Result<Entrance, RuntimeError> {
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

/// A cgroup below a container's own, which exists, for a further process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Below {
    /// By their names in version 1. None for all, which is the one way in version 2.
    pub controllers: Vec<String>,
    pub path: PathBuf,
}

/// Where a further process of a container goes: into its cgroup, or below it.
#[derive(Debug)]
pub(in crate::runtime) enum Place {
    /// Version 2: where it is born.
    Birthplace(OwnedFd),
    /// Version 1: a directory in each hierarchy.
    Directories(Vec<PathBuf>),
}

impl Place {
    pub(in crate::runtime) fn find(cgroup: &Cgroup, below: &[Below]) -> Result<Place, RuntimeError> {
        if below.iter().flat_map(|below| below.path.components()).any(|part| part == Component::ParentDir) {
            return Err(invalid("--cgroup", "it must be a path without `..`"));
        }
        match cgroup.hierarchy.layout() {
            Layout::V1 => in_hierarchies(cgroup, below).map(Place::Directories),
            Layout::V2 if below.iter().any(|below| !below.controllers.is_empty()) => {
                Err(invalid("--cgroup", "with cgroups of version 2 all controllers have one path, without their names"))
            }
            Layout::V2 => {
                let own = cgroup.hierarchy.unified().join(&cgroup.path);
                let place = below.iter().fold(own, |place, below| place.join(relative(&below.path)));
                files::open_directory(&place).map(Place::Birthplace)
            }
        }
    }

    /// Where the process `pid` of the container is: version 2 lets nobody into a cgroup that hands controllers on to others
    /// below it, and a container with a systemd of its own does (cgroups(7), "no internal processes" rule).
    pub(in crate::runtime) fn beside(cgroup: &Cgroup, pid: Pid) -> Result<Place, RuntimeError> {
        let own = Path::new("/").join(&cgroup.path);
        let file = format!("/proc/{}", pid.as_raw_nonzero());
        let text = files::read(Path::new(&file), "cgroup")?;
        let its = text.lines().find_map(|line| line.strip_prefix("0::")).map(Path::new);
        match its.filter(|its| its.starts_with(&own)) {
            Some(its) => {
                let directory = cgroup.hierarchy.unified().join(relative(its));
                files::open_directory(&directory).map(Place::Birthplace)
            }
            // Somebody has taken it out; its own is where a further process must not go.
            None => Err(rustix::io::Errno::BUSY).during("join the cgroup", own.display()),
        }
    }

    /// For the process itself, where it is not born there.
    pub(in crate::runtime) fn entrance(&self) -> Result<Entrance, RuntimeError> {
        match self {
            Place::Birthplace(_) => Entrance::to(&[]),
            Place::Directories(directories) => Entrance::to(directories),
        }
    }
}

/// What is not named stays at the container's own; what is missing is an error, since a process that is in no cgroup of a
/// hierarchy would be in the caller's, and have no limits.
fn in_hierarchies(cgroup: &Cgroup, below: &[Below]) -> Result<Vec<PathBuf>, RuntimeError> {
    let mut places: BTreeMap<PathBuf, PathBuf> =
        cgroup.directories().into_iter().map(|own| (own.clone(), own)).collect();
    for Below { controllers, path } in below {
        let path = relative(path);
        if controllers.is_empty() {
            places.iter_mut().for_each(|(own, place)| *place = own.join(path));
        }
        for name in controllers {
            let known = cgroup.hierarchy.controllers().into_iter().find(|controller| controller.name() == name);
            let Some(own) = known.and_then(|controller| cgroup.directory(controller)) else {
                return Err(invalid("--cgroup", format!("the container is in no cgroup of a controller `{name}`")));
            };
            let place = own.join(path);
            match places.insert(own.clone(), place.clone()) {
                Some(before) if before != own && before != place => {
                    let reason = format!("`{name}` shares a hierarchy with a controller that is to be elsewhere");
                    return Err(invalid("--cgroup", reason));
                }
                _ => {}
            }
        }
    }
    match places.values().find(|place| !place.is_dir()) {
        Some(missing) => Err(rustix::io::Errno::NOENT).during("find the cgroup", missing.display()),
        None => Ok(places.into_values().collect()),
    }
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}
