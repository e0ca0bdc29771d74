//! From the configuration to what the child needs, before anything on the host is touched.
//!
//! Everything is read here once: what the runtime does not support is refused by the name of its field, what
//! contradicts the specification too. The child then has no decisions left that could have been taken earlier.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxDevice, LinuxNamespaceType, Mount, Spec};
use rustix::fs::{Mode, OFlags, open};

use super::error::{Context, RuntimeError, invalid, unsupported};
use super::hooks;
use super::label;
use super::launch::{Caller, FirstProcess, Request, Stdio};
use super::mount_options::{self, MountOptions, Propagation};
use super::mounts;
use super::net_devices::{self, NetDevice};
use super::program::{self, Program};
use super::sysctl::{self, Sysctl};
use super::time_namespace::{self, Offsets};
use super::user_namespace::{Mapping, Origin};
use crate::model::launch::RootFilesystem;

/// Everything that the child of clone3(2) does.
pub(super) struct Setup<'a> {
    pub spec: &'a Spec,
    pub caller: Caller<'a>,
    /// Whether hooks run between the last mount and pivot_root(2).
    pub is_hooked: bool,
    pub namespaces: Namespaces,
    pub net_devices: Vec<NetDevice>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub root: &'a RootFilesystem,
    pub access: Access,
    pub propagation: Option<Propagation>,
    pub mounts: Vec<MountPoint>,
    pub directories: &'a [PathBuf],
    pub devices: Vec<LinuxDevice>,
    pub masked: Vec<PathBuf>,
    pub read_only: Vec<PathBuf>,
    pub sysctls: Vec<Sysctl>,
    pub stdio: Stdio<'a>,
    pub first: FirstProcess,
    pub program: Program,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    ReadOnly,
    ReadWrite,
}

/// The namespaces of a new container.
#[derive(Default)]
pub(super) struct Namespaces {
    /// `CLONE_NEW*` bits for clone3(2).
    pub fresh: u64,
    /// A new cgroup namespace shows the cgroup of the process that makes it as its root, so it is made after the
    /// process is in place, not at birth (cgroup_namespaces(7)).
    pub fresh_cgroup: bool,
    /// Existing ones to join: the bit, the namespace, and its path for messages.
    pub join: Vec<(i32, OwnedFd, PathBuf)>,
    /// An existing pid namespace: only children of the process that joins it live in it.
    pub join_pid: Option<(OwnedFd, PathBuf)>,
    /// The container's own users.
    pub user: Option<Origin>,
    /// A new time namespace: only children of the process that makes it live in it (time_namespaces(7)).
    pub time: Option<Offsets>,
}

impl Namespaces {
    /// Whether the container gets new ones of this `CLONE_NEW*` bit.
    pub(super) fn makes(&self, bit: i32) -> bool {
        self.fresh & bit as u64 != 0
    }

    /// Whether a process in between makes the first one (see `init`).
    pub(super) fn need_a_process_between(&self) -> bool {
        self.user.is_some() || self.time.is_some()
    }
}

/// One entry of `mounts`.
#[derive(Debug, Clone)]
pub(super) struct MountPoint {
    pub target: PathBuf,
    pub kind: String,
    pub source: Option<PathBuf>,
    pub options: MountOptions,
    /// Whose mapping its owners are shown through.
    pub owners: Option<Owners>,
}

/// A mapping for an idmapped mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owners {
    /// That of the container's user namespace.
    OfContainer,
    /// One of its own.
    Mapped(Mapping),
}

impl Setup<'_> {
    /// Whether /dev comes from elsewhere, devices and all.
    pub(super) fn binds_dev(&self) -> bool {
        self.mounts.iter().any(|mount| mount.options.bind.is_some() && mount.target == Path::new("/dev"))
    }
}

pub(super) fn prepare<'a>(request: &Request<'a>) -> Result<Setup<'a>, RuntimeError> {
    let spec = request.spec;
    check_version(spec.version())?;
    refuse_unsupported(spec)?;
    hooks::check(spec, request.caller.state)?;
    let process = spec.process().as_ref().ok_or_else(|| invalid("process", "it is needed"))?;
    let linux = spec.linux().as_ref().ok_or_else(|| invalid("linux", "it is needed"))?;
    refuse_unsupported_linux(linux)?;
    if process.terminal() == Some(true) && !matches!(request.stdio, Stdio::Terminal(_)) {
        return Err(invalid("process.terminal", "the caller brought descriptors in place of a terminal"));
    }
    let namespaces = namespaces(linux)?;
    let mut mounts: Vec<MountPoint> =
        spec.mounts().iter().flatten().enumerate().map(mount_point).collect::<Result<_, _>>()?;
    refuse_foreign_filesystems(&mounts)?;
    if let Some(label) = label::of_mounts(linux)? {
        label_mounts(&mut mounts, &label);
    }
    if let Some(at) = mounts.iter().position(|mount| mount.owners == Some(Owners::OfContainer))
        && namespaces.user.is_none()
    {
        return Err(invalid(format!("mounts[{at}]"), "`idmap` needs mappings, its own or those of a user namespace"));
    }
    let kinds = namespaces.fresh | namespaces.join.iter().fold(0, |bits, (bit, ..)| bits | *bit as u64);
    needs_own(spec.hostname().is_some(), "hostname", kinds)?;
    needs_own(spec.domainname().is_some(), "domainname", kinds)?;
    let sysctls = sysctl::prepare(linux.sysctl().as_ref(), kinds)?;
    for (field, name, path) in
        [("hostname", spec.hostname(), "kernel/hostname"), ("domainname", spec.domainname(), "kernel/domainname")]
    {
        let differs = |sysctl: &Sysctl| sysctl.path == path && name.as_ref().is_some_and(|name| *name != sysctl.value);
        if sysctls.iter().any(differs) {
            return Err(invalid(field, "`linux.sysctl` says otherwise"));
        }
    }
    let program = program::prepare(process, request.identity, Some(linux))?;
    if request.first == FirstProcess::Init && !program.labels.is_empty() {
        // They are set by the task that executes the command, and that is another one then.
        return Err(unsupported("process.apparmorProfile", "labels and an init of the runtime's"));
    }
    Ok(Setup {
        spec,
        caller: request.caller,
        is_hooked: hooks::interrupt_creation(spec),
        hostname: spec.hostname().clone(),
        domainname: spec.domainname().clone(),
        root: request.root,
        access: match spec.root().as_ref().and_then(|root| root.readonly()) {
            Some(true) => Access::ReadOnly,
            _ => Access::ReadWrite,
        },
        propagation: root_propagation(linux)?,
        mounts,
        directories: request.directories,
        devices: linux.devices().clone().unwrap_or_default(),
        masked: absolute("linux.maskedPaths", linux.masked_paths())?,
        read_only: absolute("linux.readonlyPaths", linux.readonly_paths())?,
        sysctls,
        stdio: request.stdio,
        first: request.first,
        program,
        net_devices: net_devices::prepare(linux, kinds)?,
        namespaces,
    })
}

/// The newest version of the specification that is read; all from 1.0 on are.
pub const NEWEST_VERSION: &str = "1.3.0";

/// A version is three numbers, with `-` or `+` and a word behind them before its release (SemVer 2.0.0).
fn check_version(version: &str) -> Result<(), RuntimeError> {
    let numbers: Option<Vec<u32>> =
        version.split(['-', '+']).next().and_then(|core| core.split('.').map(|number| number.parse().ok()).collect());
    match numbers.as_deref() {
        Some([1, 0..=3, _]) => Ok(()),
        Some([_, _, _]) => Err(unsupported("ociVersion", format!("version `{version}`; 1.0 to 1.3 are read"))),
        _ => Err(invalid("ociVersion", format!("`{version}` is not a version such as `{NEWEST_VERSION}`"))),
    }
}

fn refuse_unsupported(spec: &Spec) -> Result<(), RuntimeError> {
    let fields = [
        ("solaris", spec.solaris().is_some(), "this is Linux"),
        ("windows", spec.windows().is_some(), "this is Linux"),
        ("vm", spec.vm().is_some(), "containers are processes here"),
        ("zos", spec.zos().is_some(), "this is Linux"),
    ];
    first_set(fields)
}

fn refuse_unsupported_linux(linux: &Linux) -> Result<(), RuntimeError> {
    first_set([("linux.intelRdt", linux.intel_rdt().is_some(), "Intel RDT is not set up")])
}

fn first_set<const N: usize>(fields: [(&str, bool, &str); N]) -> Result<(), RuntimeError> {
    match fields.into_iter().find(|(_, set, _)| *set) {
        Some((field, _, reason)) => Err(unsupported(field, reason)),
        None => Ok(()),
    }
}

fn namespaces(linux: &Linux) -> Result<Namespaces, RuntimeError> {
    let mut found = Namespaces::default();
    let mut seen = Vec::new();
    for (at, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let field = format!("linux.namespaces[{at}]");
        let kind = namespace.typ();
        if seen.contains(&kind) {
            return Err(invalid(field, format!("a second namespace of type `{kind}`")));
        }
        seen.push(kind);
        let mapping = || Mapping::parse("linux", linux.uid_mappings(), linux.gid_mappings());
        // The specification has an empty path for none (config-linux.md, "Namespaces").
        match (namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()), kind) {
            (None, LinuxNamespaceType::User) => match mapping()? {
                Some(mapping) => found.user = Some(Origin::New(mapping)),
                None => return Err(invalid(field, "a new user namespace needs `linux.uidMappings` and `gidMappings`")),
            },
            (Some(path), LinuxNamespaceType::User) => found.user = Some(Origin::Joined(path.clone(), mapping()?)),
            (None, LinuxNamespaceType::Time) => found.time = Some(time_namespace::offsets(linux)?),
            (None, LinuxNamespaceType::Cgroup) => found.fresh_cgroup = true,
            (None, kind) => found.fresh |= bit(kind) as u64,
            // The mounts would be made before everybody's eyes there, and pivot_root(2) moves their root too.
            (Some(_), LinuxNamespaceType::Mount) => {
                return Err(unsupported(field, "a mount namespace that others live in; a container needs a new one"));
            }
            (Some(path), LinuxNamespaceType::Pid) => found.join_pid = Some((open_namespace(path)?, path.clone())),
            (Some(path), kind) => found.join.push((bit(kind), open_namespace(path)?, path.clone())),
        }
    }
    if found.fresh & libc::CLONE_NEWNS as u64 == 0 {
        return Err(unsupported("linux.namespaces", "a container without a mount namespace of its own"));
    }
    if found.user.is_none() && Mapping::parse("linux", linux.uid_mappings(), linux.gid_mappings())?.is_some() {
        return Err(invalid("linux.uidMappings", "mappings need a namespace of type `user`"));
    }
    if found.time.is_none() && linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty()) {
        return Err(invalid("linux.timeOffsets", "offsets need a new namespace of type `time`"));
    }
    Ok(found)
}

fn bit(kind: LinuxNamespaceType) -> i32 {
    match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => libc::CLONE_NEWTIME,
    }
}

fn open_namespace(path: &Path) -> Result<OwnedFd, RuntimeError> {
    open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).during("open the namespace", path.display())
}

/// Without a namespace of its own a container would rename the host.
fn needs_own(is_set: bool, field: &str, kinds: u64) -> Result<(), RuntimeError> {
    match is_set && kinds & libc::CLONE_NEWUTS as u64 == 0 {
        true => Err(invalid(field, "it needs a UTS namespace")),
        false => Ok(()),
    }
}

fn root_propagation(linux: &Linux) -> Result<Option<Propagation>, RuntimeError> {
    let Some(word) = linux.rootfs_propagation().as_deref().filter(|word| !word.is_empty()) else { return Ok(None) };
    let found = mount_options::propagation(word);
    found.map(Some).ok_or_else(|| invalid("linux.rootfsPropagation", format!("`{word}` is not a propagation type")))
}

fn mount_point((at, mount): (usize, &Mount)) -> Result<MountPoint, RuntimeError> {
    let field = format!("mounts[{at}]");
    let options = mount_options::parse(&field, mount.options().as_deref().unwrap_or_default())?;
    let remounts = options.remounts;
    if !remounts && options.bind.is_some() && !mount.source().as_ref().is_some_and(|source| source.is_absolute()) {
        return Err(invalid(format!("{field}.source"), "a bind mount needs an absolute path"));
    }
    let kind = mount.typ().clone().unwrap_or_default();
    if !remounts && options.bind.is_none() && matches!(kind.as_str(), "" | "none" | "bind") {
        return Err(invalid(format!("{field}.type"), "a filesystem type, or the option `bind`, is needed"));
    }
    let own = Mapping::parse(&field, mount.uid_mappings(), mount.gid_mappings())?;
    let owners = match (own, options.map_owners) {
        (Some(mapping), _) => Some(Owners::Mapped(mapping)),
        (None, Some(_)) => Some(Owners::OfContainer),
        (None, None) => None,
    };
    if owners.is_some() && options.bind.is_none() {
        return Err(invalid(field, "only a bind mount has its owners mapped"));
    }
    Ok(MountPoint { target: mount.destination().clone(), kind, source: mount.source().clone(), options, owners })
}

/// Filesystems that are new with each mount. Others are one for a namespace, a device or the host, whoever mounts them.
const NEW_WITH_EACH_MOUNT: [&str; 5] = ["devpts", "overlay", "proc", "ramfs", "tmpfs"];

/// Options of a filesystem are the same for all who see it: only one that the container has made is its to change.
fn refuse_foreign_filesystems(mounts: &[MountPoint]) -> Result<(), RuntimeError> {
    for (at, mount) in mounts.iter().enumerate().filter(|(_, mount)| mount.options.remounts) {
        let is_there = |earlier: &&MountPoint| mounts::names(&earlier.target) == mounts::names(&mount.target);
        let is_new =
            |found: &MountPoint| found.options.bind.is_none() && NEW_WITH_EACH_MOUNT.contains(&found.kind.as_str());
        let is_own =
            mounts[..at].iter().filter(|earlier| !earlier.options.remounts).rfind(is_there).is_some_and(is_new);
        if let (Some((key, _)), false) = (mount.options.data.first(), is_own) {
            let reason = format!("`{key}` would change a filesystem that is not the container's own");
            return Err(invalid(format!("mounts[{at}]"), reason));
        }
    }
    Ok(())
}

/// One that has a context of its own keeps it.
fn label_mounts(mounts: &mut [MountPoint], label: &str) {
    let is_made = |mount: &&mut MountPoint| mount.options.bind.is_none() && !mount.options.remounts;
    for mount in mounts.iter_mut().filter(is_made).filter(|mount| label::is_by_option(&mount.kind)) {
        if !mount.options.data.iter().any(|(key, _)| key.ends_with("context")) {
            mount.options.data.push(("context".to_owned(), Some(label.to_owned())));
        }
    }
}

fn absolute(field: &str, paths: &Option<Vec<String>>) -> Result<Vec<PathBuf>, RuntimeError> {
    let paths: Vec<PathBuf> = paths.iter().flatten().map(PathBuf::from).collect();
    match paths.iter().find(|path| !path.is_absolute()) {
        Some(path) => Err(invalid(field, format!("`{}` is not absolute", path.display()))),
        None => Ok(paths),
    }
}
