//! The mounts of a container, in the words of OCI (runtime-spec, config.md, "Mounts").
//!
//! The fixed ones are those that the runtime specification's Linux part requires, with Docker's options; then
//! the three files of [`super::etc`]; then what the manifest declares, which may cover any of them. A mount on a
//! path comes before the mounts below it.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount as OciMount;

use super::etc;
use crate::model::container::{ContainerSpec, Namespace};
use crate::model::id::VolumeKey;
use crate::model::paths::Paths;
use crate::model::record::ContainerRecord;
use crate::model::volume::{Access, Mount, Propagation};

/// Every mount, in the order in which they are made.
pub fn mounts(record: &ContainerRecord, paths: &Paths) -> Vec<OciMount> {
    let spec = &record.spec;
    let mut mounts = fixed(spec);
    let files = etc::directory(&paths.container(&record.id));
    for (target, name) in etc::MOUNTED {
        if !spec.mounts.contains_key(target) {
            // Part of the root filesystem for whoever is in it.
            let access = if spec.read_only { Access::ReadOnly } else { Access::ReadWrite };
            let options = bind_options(access, Propagation::Rprivate);
            mounts.push(bind(target, &files.join(name), as_the_containers_own(record, options)));
        }
    }
    let mut declared: Vec<_> = spec.mounts.iter().collect();
    declared.sort_by_key(|(target, _)| Path::new(target.as_str()).components().count());
    for (target, mount) in declared {
        mounts.push(declared_mount(record, paths, target, mount));
    }
    mounts
}

fn fixed(spec: &ContainerSpec) -> Vec<OciMount> {
    let sys = if spec.privileged { "rw" } else { "ro" };
    let shm = format!("size={}", spec.shm_size.0);
    let table: [(&str, &str, &str, &[&str]); 7] = [
        ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", sys]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", sys]),
        ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
    ];
    let declared = |target: &str| spec.mounts.contains_key(target);
    table
        .into_iter()
        .filter(|(target, ..)| !declared(target))
        .map(|(target, typ, source, options)| match (target, spec.ipc) {
            // Shared memory of POSIX is files, and which they are is the mount's affair; queues are the namespace's.
            ("/dev/shm", Namespace::Host) => {
                bind(target, Path::new(target), ["rbind", "rprivate"].map(str::to_owned).to_vec())
            }
            _ => {
                let options = options.iter().map(|option| (*option).to_owned()).collect();
                mount(target, typ, Path::new(source), options)
            }
        })
        .collect()
}

fn declared_mount(record: &ContainerRecord, paths: &Paths, target: &str, declared: &Mount) -> OciMount {
    match declared {
        Mount::Volume { name, access, filling: _ } => {
            let key = VolumeKey { project: record.project.clone(), name: name.clone() };
            let options = as_the_containers_own(record, bind_options(*access, Propagation::Rprivate));
            bind(target, &paths.volume_data(&key), options)
        }
        Mount::Bind { source, access, propagation, missing: _ } => {
            bind(target, source, bind_options(*access, *propagation))
        }
        Mount::Tmpfs { size, mode, options: further } => {
            let mut options = ["nosuid", "nodev"].map(str::to_owned).to_vec();
            options.extend(size.map(|size| format!("size={}", size.0)));
            options.push(mode.map_or("mode=1777".into(), |mode| format!("mode={mode}")));
            options.extend(further.iter().map(ToString::to_string));
            mount(target, "tmpfs", Path::new("tmpfs"), options)
        }
    }
}

/// What is the engine's shows its owners through the container's users, and keeps on disk those that it would have
/// without any: a volume can be mounted by a container with users of its own and by one without. A path of the host's
/// is shown as it is.
fn as_the_containers_own(record: &ContainerRecord, mut options: Vec<String>) -> Vec<String> {
    options.extend(record.users.map(|_| "idmap".to_owned()));
    options
}

/// A read-only bind is so recursively (`rro`): a mount below its source must not be a way to write.
fn bind_options(access: Access, propagation: Propagation) -> Vec<String> {
    let access = match access {
        Access::ReadWrite => "rw",
        Access::ReadOnly => "rro",
    };
    let propagation = match propagation {
        Propagation::Rprivate => "rprivate",
        Propagation::Private => "private",
        Propagation::Rshared => "rshared",
        Propagation::Shared => "shared",
        Propagation::Rslave => "rslave",
        Propagation::Slave => "slave",
    };
    ["rbind", access, propagation].map(str::to_owned).to_vec()
}

fn bind(target: &str, source: &Path, options: Vec<String>) -> OciMount {
    mount(target, "bind", source, options)
}

fn mount(target: &str, typ: &str, source: &Path, options: Vec<String>) -> OciMount {
    let mut mount = OciMount::default();
    mount.set_destination(PathBuf::from(target));
    mount.set_typ(Some(typ.to_owned()));
    mount.set_source(Some(source.to_owned()));
    mount.set_options(Some(options));
    mount
}
