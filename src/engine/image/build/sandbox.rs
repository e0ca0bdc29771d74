//! What a `RUN` runs in: a container like any other, without a name and without a record.
//!
//! # Decisions
//! * The configuration comes from the same translation as a container's (`container::oci`), so a build has the same
//!   capabilities, filter, masks and devices, and no second place says what is safe.
//! * Mount points that the image lacks are directories of a layer of their own between the image and what the command
//!   writes. So they are not found in what it wrote, and nothing has to be cleaned away.
//! * What a `bind` mount shows is a copy: a command cannot write into the context, sees nothing that `.dockerignore`
//!   leaves out, and no link of the context can be swapped for another between looking and mounting.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};
use rustix::fs::{self as rfs, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::child::Task;
use crate::engine::container::effective::Effective;
use crate::engine::container::{etc, oci};
use crate::engine::error::EngineError;
use crate::engine::facts;
use crate::engine::host::tag;
use crate::model::build::BuildNetwork;
use crate::model::container::{AfterEnd, ContainerSpec};
use crate::model::id::{Ids, RootTag, Whose};
use crate::model::image::ImageSource;
use crate::model::launch::{Identity, RootFilesystem};
use crate::model::network::NetworkMode;
use crate::model::paths::Paths;
use crate::model::record::{ContainerRecord, RECORD_VERSION};
use crate::model::units::Signal;
use crate::model::volume::Mount;
use crate::runtime::cgroup;

/// What a container's own mounts need.
const MOUNT_POINTS: [(&str, Point); 6] = [
    ("proc", Point::Directory),
    ("dev", Point::Directory),
    ("sys", Point::Directory),
    ("etc/hosts", Point::File),
    ("etc/hostname", Point::File),
    ("etc/resolv.conf", Point::File),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    Directory,
    File,
}

/// One command.
pub struct Command {
    pub arguments: Vec<String>,
    pub environment: Vec<String>,
    pub working_dir: String,
    pub user: String,
    pub network: BuildNetwork,
    /// By target.
    pub mounts: Vec<(String, Mount, Point)>,
}

/// Holds the cgroups of all commands of builds of a state root.
pub fn cgroup_parent(tag: &RootTag) -> PathBuf {
    oci::cgroup_parent(tag).join("build")
}

/// What a command runs on.
pub struct Ground<'a> {
    pub state_root: &'a Path,
    /// An empty directory for what is needed meanwhile.
    pub place: &'a Path,
    /// Lowest first.
    pub lower: &'a [PathBuf],
    /// Where changes go.
    pub upper: &'a Path,
    /// What is in `lower`.
    pub view: BorrowedFd<'a>,
}

/// The task for the child.
pub fn task(command: Command, on: &Ground<'_>) -> Result<Task, EngineError> {
    let Ground { state_root, place, lower, upper, view } = *on;
    let hierarchy = cgroup::detect().map_err(|source| EngineError::Cgroups { source: Box::new(source) })?;
    let at = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| EngineError::File { operation, path, source }
    };
    let (points, work) = (place.join("points"), place.join("work"));
    for directory in [&points, &work] {
        fs::create_dir(directory).map_err(at("create the directory", directory))?;
    }
    let own = command.mounts.iter().map(|(target, _, point)| (target.trim_matches('/'), *point));
    let wanted: Vec<(&str, Point)> = MOUNT_POINTS.into_iter().chain(own).collect();
    make_points(view, &points, &wanted).map_err(at("make mount points in", &points))?;

    let canonical = state_root.canonicalize().map_err(at("find", state_root))?;
    let tag = tag(&canonical);
    let record = record(&command, state_root);
    let paths = Paths { root: place.to_owned(), run: place.to_owned() };
    etc::write(&paths.container(&record.id), &record, &paths)?;
    let effective = Effective {
        arguments: command.arguments,
        environment: command.environment,
        working_dir: command.working_dir,
        user: command.user.clone(),
        stop_signal: Signal::TERM,
        healthcheck: None,
    };
    let facts = facts::facts(&hierarchy);
    let inputs =
        oci::Inputs { record: &record, effective: &effective, paths: &paths, tag: &tag, host: &facts, netns: None };
    let mut spec = oci::spec(&inputs)?;
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let cgroup = cgroup_parent(&tag).join(name);
    if let Some(linux) = spec.linux_mut() {
        linux.set_cgroups_path(Some(cgroup.clone()));
        if command.network == BuildNetwork::None {
            let mut network = LinuxNamespace::default();
            network.set_typ(LinuxNamespaceType::Network);
            let mut all = linux.namespaces().clone().unwrap_or_default();
            all.push(network);
            linux.set_namespaces(Some(all));
        }
    }
    let lower = lower.iter().cloned().chain([points]).collect();
    let root = RootFilesystem::Overlay { lower, upper: upper.to_owned(), work };
    Ok(Task { spec, root, identity: Identity { user: command.user, groups: Vec::new() }, cgroup })
}

/// The container that the translation is asked about.
fn record(command: &Command, state_root: &Path) -> ContainerRecord {
    let spec = ContainerSpec {
        network: match command.network {
            BuildNetwork::Host => NetworkMode::Host,
            BuildNetwork::None => NetworkMode::None,
        },
        hostname: Some("build".to_owned()),
        mounts: command.mounts.iter().map(|(target, mount, _)| (target.clone(), mount.clone())).collect(),
        ..ContainerSpec::of(ImageSource::Rootfs(state_root.to_owned()))
    };
    ContainerRecord {
        version: RECORD_VERSION,
        // Seen by nobody: it only makes paths below a directory of this command's own.
        id: Ids::from_seed(0).container(),
        project: Whose::Nobody,
        instance: "build".parse().expect("a word of small letters is a name"),
        spec,
        image: None,
        addresses: Default::default(),
        network_of: None,
        users: None,
        way_out: Default::default(),
        after_end: AfterEnd::Keep,
        refused: None,
        before: None,
    }
}

/// Makes in `layer` what of `wanted` is not in `view`, with the parents as they look there.
fn make_points(view: BorrowedFd<'_>, layer: &Path, wanted: &[(&str, Point)]) -> io::Result<()> {
    for (target, point) in wanted {
        let parts: Vec<&str> = target.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        let covered = matches!(parts.first(), Some(&("dev" | "proc" | "sys"))) && parts.len() > 1;
        if covered || parts.contains(&"..") {
            continue;
        }
        let mut looks = Vec::new();
        for end in 1..=parts.len() {
            match find(view, &parts[..end].join("/")) {
                Ok(stat) => looks.push(Some(stat)),
                Err(Errno::NOENT) => looks.push(None),
                // A link or something else is on the way: whoever mounts there finds out where it leads.
                Err(_) => break,
            }
        }
        if looks.len() < parts.len() || looks.iter().all(Option::is_some) {
            continue;
        }
        let mut path = layer.to_owned();
        for (at, (part, look)) in parts.iter().zip(&looks).enumerate() {
            path.push(part);
            match (at + 1 == parts.len(), point) {
                (true, Point::File) => fs::write(&path, "")?,
                _ if path.is_dir() => {}
                _ => fs::create_dir(&path)?,
            }
            if let Some(stat) = look {
                dress(&path, stat)?;
            } else {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            }
        }
    }
    Ok(())
}

fn find(view: BorrowedFd<'_>, path: &str) -> Result<Stat, Errno> {
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rfs::fstat(crate::sys::path::openat2(view, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside)?)
}

fn dress(path: &Path, stat: &Stat) -> io::Result<()> {
    chown(path, Some(stat.st_uid), Some(stat.st_gid))?;
    fs::set_permissions(path, fs::Permissions::from_mode(stat.st_mode & 0o7777))?;
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as i64 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rfs::utimensat(rfs::CWD, path, &times, rfs::AtFlags::empty())?)
}
