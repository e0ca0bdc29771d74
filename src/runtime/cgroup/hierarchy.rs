//! Where this host's controllers are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::runtime::error::RuntimeError;

use super::files;

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
    Hugetlb,
    /// Version 1 only, as [`Controller::NetPrio`].
    NetCls,
    NetPrio,
    Rdma,
}

/// Which version has the controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    V1,
    V2,
}

/// The cgroup hierarchies of this host. Cheap to clone: every [`Cgroup`](super::Cgroup) has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    layout: Layout,
    /// Where each controller is mounted: in version 2 the same place for all.
    controllers: Arc<BTreeMap<Controller, PathBuf>>,
    unified: Arc<Path>,
}

/// By the names of version 1, with that of version 2 where it has another.
const NAMES: [(Controller, &str); 12] = [
    (Controller::Cpu, "cpu"),
    (Controller::Cpuacct, "cpuacct"),
    (Controller::Cpuset, "cpuset"),
    (Controller::Memory, "memory"),
    (Controller::Pids, "pids"),
    (Controller::Devices, "devices"),
    (Controller::Freezer, "freezer"),
    (Controller::Io, "blkio"),
    (Controller::Hugetlb, "hugetlb"),
    (Controller::NetCls, "net_cls"),
    (Controller::NetPrio, "net_prio"),
    (Controller::Rdma, "rdma"),
];

/// So many at the end are not mounted on most hosts.
const RARE: usize = 4;

/// Version 2 has these without a controller of that name: bandwidth accounting, a BPF program, `cgroup.freeze`.
const BUILT_IN: [Controller; 3] = [Controller::Cpuacct, Controller::Devices, Controller::Freezer];

/// Linux, magic.h: what statfs(2) says of a version 2 tree.
const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// And of a version 1 hierarchy.
const CGROUP_MAGIC: i64 = 0x0027_e0eb;

const USUAL_PLACE: &str = "/sys/fs/cgroup";

/// Looks at the usual places, then at this process's mounts: their table can be long, and the kernel writes it anew for
/// each reader.
pub fn detect() -> Result<Hierarchy, RuntimeError> {
    if is_of(Path::new(USUAL_PLACE), CGROUP2_MAGIC) {
        return unified(Path::new(USUAL_PLACE));
    }
    if let Some(controllers) = at_usual_places() {
        return Ok(Hierarchy::new(Layout::V1, controllers, Path::new(USUAL_PLACE)));
    }
    let table = files::read(Path::new("/proc/self"), "mountinfo")?;
    let mounts: Vec<(PathBuf, String, BTreeSet<String>)> = table.lines().filter_map(mount).collect();
    let mut controllers = BTreeMap::new();
    for (point, _, options) in mounts.iter().filter(|(_, kind, _)| kind == "cgroup") {
        for (controller, name) in NAMES {
            if options.contains(name) {
                controllers.entry(controller).or_insert_with(|| point.clone());
            }
        }
    }
    if !controllers.is_empty() {
        return Ok(Hierarchy::new(Layout::V1, controllers, Path::new(USUAL_PLACE)));
    }
    match mounts.iter().find(|(_, kind, _)| kind == "cgroup2") {
        Some((point, ..)) => unified(point),
        // Nothing is mounted: nothing can be limited, and who asks for it is told so.
        None => Ok(Hierarchy::new(Layout::V1, controllers, Path::new(USUAL_PLACE))),
    }
}

fn is_of(path: &Path, filesystem: i64) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == filesystem)
}

/// A directory of the controller's name for each; a link where several share a hierarchy (`cpu` to `cpu,cpuacct`).
/// `None` where one is missing: it may be elsewhere. Those that few hosts have, and few containers ask for, may be.
fn at_usual_places() -> Option<BTreeMap<Controller, PathBuf>> {
    let place = |(controller, name): (Controller, &str)| {
        let path = Path::new(USUAL_PLACE).join(name);
        let point = fs::read_link(&path).map_or_else(|_| path.clone(), |target| Path::new(USUAL_PLACE).join(target));
        is_of(&point, CGROUP_MAGIC).then_some((controller, point))
    };
    let (usual, rare) = NAMES.split_at(NAMES.len() - RARE);
    let usual: Option<BTreeMap<Controller, PathBuf>> = usual.iter().copied().map(place).collect();
    Some(usual?.into_iter().chain(rare.iter().copied().filter_map(place)).collect())
}

fn unified(point: &Path) -> Result<Hierarchy, RuntimeError> {
    let available = files::read(point, "cgroup.controllers")?;
    let available: BTreeSet<&str> = available.split_whitespace().collect();
    let controllers = NAMES
        .into_iter()
        .filter(|(controller, name)| {
            BUILT_IN.contains(controller)
                || available.contains(if *controller == Controller::Io { "io" } else { *name })
        })
        .map(|(controller, _)| (controller, point.to_owned()))
        .collect();
    Ok(Hierarchy::new(Layout::V2, controllers, point))
}

/// Mount point, filesystem type and superblock options of a line of mountinfo (proc(5)).
fn mount(line: &str) -> Option<(PathBuf, String, BTreeSet<String>)> {
    let (front, back) = line.split_once(" - ")?;
    let point = front.split(' ').nth(4)?;
    let mut back = back.split(' ');
    let (kind, options) = (back.next()?, back.nth(1)?);
    kind.starts_with("cgroup")
        .then(|| (PathBuf::from(point), kind.to_owned(), options.split(',').map(str::to_owned).collect()))
}

impl Hierarchy {
    fn new(layout: Layout, controllers: BTreeMap<Controller, PathBuf>, unified: &Path) -> Hierarchy {
        Hierarchy { layout, controllers: Arc::new(controllers), unified: Arc::from(unified) }
    }

    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// What can be limited here.
    pub fn controllers(&self) -> BTreeSet<Controller> {
        self.controllers.keys().copied().collect()
    }

    pub(super) fn mount(&self, controller: Controller) -> Option<&Path> {
        self.controllers.get(&controller).map(PathBuf::as_path)
    }

    /// Where the controllers are mounted; several may share a mount.
    pub(super) fn mounts(&self) -> impl Iterator<Item = &Path> {
        self.controllers.values().map(PathBuf::as_path)
    }

    pub(super) fn unified(&self) -> &Path {
        &self.unified
    }
}

impl Controller {
    /// Its name in version 2, where it can be enabled by it.
    pub(super) fn unified_name(self) -> Option<&'static str> {
        match self {
            Controller::Io => Some("io"),
            controller if BUILT_IN.contains(&controller) => None,
            controller => Some(controller.name()),
        }
    }

    /// Its name in version 1, and in messages.
    pub(super) fn name(self) -> &'static str {
        NAMES.iter().find(|(controller, _)| *controller == self).map_or("", |(_, name)| name)
    }
}

/// The processors or memory nodes that a cgroup's parent may use: what a version 1 cpuset must be given before it
/// takes a process, and what lifts the limit of one that has processes.
pub(super) fn inherited(directory: &Path, file: &str) -> Result<String, RuntimeError> {
    let parent = directory.parent().unwrap_or(directory);
    let effective = format!("{file}.effective");
    let list = match parent.join(&effective).exists() {
        true => files::read(parent, &effective)?,
        false => files::read(parent, file)?,
    };
    Ok(list.trim().to_owned())
}

/// Whether a list of processors limits nothing: it is empty, all that the parent has, or all that there are.
pub(super) fn is_everything(directory: &Path, list: &str) -> Result<bool, RuntimeError> {
    Ok(list.is_empty() || list == inherited(directory, "cpuset.cpus")? || Some(list) == online().as_deref())
}

/// The processors of this host.
pub(super) fn online() -> Option<String> {
    fs::read_to_string("/sys/devices/system/cpu/online").ok().map(|list| list.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo_are_read() {
        let line = "33 24 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct";
        let (point, kind, options) = mount(line).unwrap();
        assert_eq!((point.to_str().unwrap(), kind.as_str()), ("/sys/fs/cgroup/cpu,cpuacct", "cgroup"));
        assert!(options.contains("cpu") && options.contains("cpuacct"));
        assert!(mount("24 1 0:5 / /proc rw - proc proc rw").is_none());
    }
}
