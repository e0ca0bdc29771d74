//! From a record and its image to the OCI configuration that the runtime executes.
//!
//! Everything here is a translation; the choices were made while planning. What this host cannot grant
//! (capabilities outside its bounding set, limits above its own hard ones) is cut, as the plan warned.
//!
//! # Decisions
//! Cgroups of containers lie at the root of the tree, not below the service's own, which systemd would let us have
//! (`Delegate=yes`). Three reasons: systemd puts a service's first process into the unit's cgroup itself, and the kernel
//! refuses that once the cgroup hands controllers on ("No Internal Process Constraint", cgroup-v2), so the service could
//! not be started again beside its containers; `MemoryMax=` of the service would be the limit of all containers
//! together; and the place would depend on whether `watch` or an `apply` by hand came first. What systemd takes from
//! the root when none of its units needs it stays, because a controller that a child uses cannot be taken (EBUSY).

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use oci_spec::runtime::{
    self as oci, Linux, LinuxCpu, LinuxIdMappingBuilder, LinuxMemory, LinuxNamespace, LinuxNamespaceType, LinuxPids,
    LinuxResources, LinuxSeccomp, PosixRlimit, Process, Root, Spec,
};

use super::devices::{Devices, devices};
use super::effective::Effective;
use super::{etc, mounts};
use crate::engine::error::EngineError;
use crate::model::actual::HostFacts;
use crate::model::container::{CapabilitySet, ContainerSpec, Namespace};
use crate::model::id::{ContainerId, RootTag};
use crate::model::network::NetworkMode;
use crate::model::paths::Paths;
use crate::model::record::ContainerRecord;
use crate::model::resources::{Resources, ULIMIT_NAMES, Ulimit};
use crate::model::seccomp::Seccomp;
use crate::model::security::{Capability, IdRange};
use crate::runtime::{capabilities, seccomp};

/// What the configuration follows from.
pub struct Inputs<'a> {
    pub record: &'a ContainerRecord,
    pub effective: &'a Effective,
    pub paths: &'a Paths,
    pub tag: &'a RootTag,
    pub host: &'a HostFacts,
    /// The pinned network namespace to join; `None` is the host's.
    pub netns: Option<PathBuf>,
}

/// Docker's list (moby, oci/defaults.go), which has `/proc/interrupts` too: its counters tell a neighbour's secrets, as
/// those of [`thermal_counters`] do. (CVE-2025-31133 is about the mounts themselves.)
const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// How often each processor was too hot, where the host counts that. Each is a mount of its own, some microseconds.
fn thermal_counters() -> impl Iterator<Item = String> {
    let processors = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let counters = processors.map(|entry| entry.path().join("thermal_throttle"));
    counters.filter(|counters| counters.exists()).filter_map(|counters| counters.into_os_string().into_string().ok())
}

/// `/evenkeel-<tag>/<id>` in every hierarchy.
pub fn cgroup_path(tag: &RootTag, id: &ContainerId) -> PathBuf {
    cgroup_parent(tag).join(id.as_str())
}

/// Holds the cgroups of all containers of a state root.
pub fn cgroup_parent(tag: &RootTag) -> PathBuf {
    PathBuf::from(format!("/evenkeel-{tag}"))
}

/// Holds the monitors of a state root, with cgroup version 2. No container's: those have names of hexadecimal digits.
pub fn monitors_path(tag: &RootTag) -> PathBuf {
    cgroup_parent(tag).join("monitors")
}

/// The whole configuration (config.json).
pub fn spec(inputs: &Inputs<'_>) -> Result<Spec, EngineError> {
    let ContainerSpec { privileged, read_only, sysctls, .. } = &inputs.record.spec;
    let invalid = |error: oci_spec::OciSpecError| EngineError::Configuration {
        name: inputs.record.full_name(),
        problem: error.to_string(),
    };
    let all = Capability::all().collect();
    // Over what is its own a container may have all; the host's bounding set is about the host.
    let bounding = if inputs.record.users.is_some() { &all } else { &inputs.host.bounding };
    let granted = capabilities(&inputs.record.spec, bounding);
    let Devices { nodes, rules } = devices(&inputs.record.spec)?;
    let mut resources = resources(&inputs.record.spec.resources);
    resources.set_devices(Some(rules));

    let mut linux = Linux::default();
    linux.set_namespaces(Some(namespaces(inputs)));
    linux.set_resources(Some(resources));
    linux.set_cgroups_path(Some(cgroup_path(inputs.tag, &inputs.record.id)));
    linux.set_devices(Some(nodes));
    linux.set_rootfs_propagation(Some("private".to_owned()));
    linux.set_sysctl((!sysctls.is_empty()).then(|| sysctls.clone().into_iter().collect::<HashMap<_, _>>()));
    if *privileged {
        linux.set_masked_paths(None).set_readonly_paths(None).set_seccomp(None);
    } else {
        linux.set_masked_paths(Some(MASKED_PATHS.map(str::to_owned).into_iter().chain(thermal_counters()).collect()));
        linux.set_readonly_paths(Some(READONLY_PATHS.map(str::to_owned).to_vec()));
        linux.set_seccomp(filter(inputs, &granted)?);
    }
    if let Some(IdRange { start, size }) = inputs.record.users {
        let mapping = LinuxIdMappingBuilder::default().container_id(0_u32).host_id(start).size(size).build();
        let mapping = mapping.map_err(invalid)?;
        linux.set_uid_mappings(Some(vec![mapping])).set_gid_mappings(Some(vec![mapping]));
    }

    let mut root = Root::default();
    // The runtime assembles the root from layers; the path of OCI is where a bundle would have it.
    root.set_path(PathBuf::from("rootfs")).set_readonly(Some(*read_only));

    let mut spec = Spec::default();
    spec.set_version("1.2.0".to_owned());
    spec.set_process(Some(process(inputs, &granted).map_err(invalid)?));
    spec.set_root(Some(root));
    spec.set_mounts(Some(mounts::mounts(inputs.record, inputs.paths)));
    let shares_uts = inputs.record.spec.network == NetworkMode::Host && inputs.record.spec.hostname.is_none();
    spec.set_hostname((!shares_uts).then(|| etc::hostname(inputs.record)));
    spec.set_linux(Some(linux));
    Ok(spec)
}

/// The filter that is declared.
fn filter(inputs: &Inputs<'_>, granted: &BTreeSet<Capability>) -> Result<Option<LinuxSeccomp>, EngineError> {
    let profile = match &inputs.record.spec.seccomp {
        Seccomp::Default => return Ok(Some(seccomp::default_profile(granted))),
        Seccomp::Unconfined => return Ok(None),
        Seccomp::Profile { profile, .. } => profile,
    };
    let failed = |problem: String| EngineError::Configuration { name: inputs.record.full_name(), problem };
    let kernel = rustix::system::uname().release().to_string_lossy().parse().map_err(failed)?;
    let on = seccomp::Surroundings { capabilities: granted, kernel };
    seccomp::from_docker(profile, &on).map(Some).map_err(|error| failed(error.to_string()))
}

fn process(inputs: &Inputs<'_>, granted: &BTreeSet<Capability>) -> Result<Process, oci_spec::OciSpecError> {
    let declared = &inputs.record.spec;
    let mut process = Process::default();
    process.set_args(Some(inputs.effective.arguments.clone()));
    process.set_env(Some(inputs.effective.environment.clone()));
    process.set_cwd(PathBuf::from(&inputs.effective.working_dir));
    process.set_terminal(Some(declared.tty));
    process.set_no_new_privileges(Some(!declared.privileged));
    process.set_capabilities(Some(capability_sets(granted)));
    process.set_rlimits(Some(rlimits(declared, inputs.host)?));
    process.set_oom_score_adj(declared.oom_score_adj);
    Ok(process)
}

/// Default, plus added, minus dropped (dropping one wins over adding all), and of those what the host allows.
pub fn capabilities(spec: &ContainerSpec, bounding: &BTreeSet<Capability>) -> BTreeSet<Capability> {
    let mut granted = match (spec.privileged, &spec.capabilities.add) {
        (true, _) | (_, CapabilitySet::All) => Capability::all().collect(),
        (false, CapabilitySet::Some(add)) => match &spec.capabilities.drop {
            CapabilitySet::All => add.clone(),
            CapabilitySet::Some(_) => &capabilities::default_set() | add,
        },
    };
    if let CapabilitySet::Some(drop) = &spec.capabilities.drop {
        granted.retain(|capability| !drop.contains(capability));
    }
    granted.retain(|capability| bounding.contains(capability));
    granted
}

/// Bounding, effective and permitted; inheritable stays empty (CVE-2022-24769) and so does ambient.
fn capability_sets(granted: &BTreeSet<Capability>) -> oci::LinuxCapabilities {
    let named = granted.iter().map(|capability| serde_json::Value::String(format!("CAP_{capability}")));
    // A name that OCI's type does not know is one that this crate's list is ahead of; it is then not granted.
    let set: oci::Capabilities = named.filter_map(|name| serde_json::from_value(name).ok()).collect();
    let mut sets = oci::LinuxCapabilities::default();
    sets.set_bounding(Some(set.clone())).set_effective(Some(set.clone())).set_permitted(Some(set));
    sets.set_inheritable(Some(oci::Capabilities::new())).set_ambient(Some(oci::Capabilities::new()));
    sets
}

fn rlimits(spec: &ContainerSpec, host: &HostFacts) -> Result<Vec<PosixRlimit>, oci_spec::OciSpecError> {
    let known = spec.ulimits.iter().filter_map(|(name, limit)| {
        ULIMIT_NAMES.iter().find(|(known, _)| known == name).map(|(_, suffix)| (name, *suffix, *limit))
    });
    known.map(|(name, suffix, limit)| rlimit(suffix, limit, host.hard_limits.get(name).copied())).collect()
}

fn rlimit(suffix: &str, limit: Ulimit, ceiling: Option<u64>) -> Result<PosixRlimit, oci_spec::OciSpecError> {
    let cut = |value: Option<u64>| value.unwrap_or(u64::MAX).min(ceiling.unwrap_or(u64::MAX));
    let name = serde_json::Value::String(format!("RLIMIT_{suffix}"));
    let typ: oci::PosixRlimitType =
        serde_json::from_value(name).map_err(|error| oci_spec::OciSpecError::Other(error.to_string()))?;
    oci::PosixRlimitBuilder::default().typ(typ).soft(cut(limit.soft)).hard(cut(limit.hard)).build()
}

fn namespaces(inputs: &Inputs<'_>) -> Vec<LinuxNamespace> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User, Uts};
    let namespace = |typ, path: Option<PathBuf>| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(typ).set_path(path);
        namespace
    };
    let mut all: Vec<_> = [Mount, Cgroup].map(|typ| namespace(typ, None)).to_vec();
    let ContainerSpec { pid, ipc, .. } = &inputs.record.spec;
    let own = [(Pid, pid), (Ipc, ipc)].into_iter().filter(|(_, whose)| **whose == Namespace::Private);
    all.extend(own.map(|(typ, _)| namespace(typ, None)));
    if inputs.record.spec.network != NetworkMode::Host || inputs.record.spec.hostname.is_some() {
        all.push(namespace(Uts, None));
    }
    if inputs.record.users.is_some() {
        all.push(namespace(User, None));
    }
    if let Some(path) = &inputs.netns {
        all.push(namespace(Network, Some(path.clone())));
    }
    all
}

/// Declared limits in OCI's words. What is not declared is said as "unlimited", so that an update lifts a limit
/// that was declared before.
pub fn resources(declared: &Resources) -> LinuxResources {
    let Resources { memory, memory_swap, memory_reservation, cpus, cpu_shares, cpuset, pids } = declared;
    const UNLIMITED: i64 = -1;
    let bytes = |size: &Option<crate::model::units::ByteSize>| size.map_or(UNLIMITED, |size| size.0 as i64);
    let mut in_memory = LinuxMemory::default();
    in_memory.set_limit(Some(bytes(memory))).set_reservation(Some(bytes(memory_reservation)));
    in_memory.set_swap(Some(bytes(memory_swap)));

    const PERIOD: u64 = 100_000;
    const DEFAULT_SHARES: u64 = 1024;
    let mut cpu = LinuxCpu::default();
    cpu.set_period(Some(PERIOD));
    cpu.set_quota(Some(cpus.map_or(UNLIMITED, |cpus| (u64::from(cpus.as_millis()) * PERIOD / 1000) as i64)));
    cpu.set_shares(Some(cpu_shares.unwrap_or(DEFAULT_SHARES)));
    // An empty list lifts it: OCI has no other word for that (see runtime::cgroup).
    cpu.set_cpus(Some(cpuset.clone().unwrap_or_default()));

    let mut processes = LinuxPids::default();
    processes.set_limit(pids.map_or(UNLIMITED, |limit| limit as i64));

    let mut resources = LinuxResources::default();
    resources.set_memory(Some(in_memory)).set_cpu(Some(cpu)).set_pids(Some(processes));
    resources
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::container::Capabilities;
    use crate::model::image::ImageSource;

    fn spec(add: CapabilitySet, drop: CapabilitySet) -> ContainerSpec {
        let source = ImageSource::Reference("docker.io/library/x:latest".into());
        ContainerSpec { capabilities: Capabilities { add, drop }, ..ContainerSpec::of(source) }
    }

    fn some(names: &[&str]) -> CapabilitySet {
        CapabilitySet::Some(names.iter().map(|name| name.parse().unwrap()).collect())
    }

    #[test]
    fn capabilities_are_default_plus_added_minus_dropped_within_the_hosts() {
        let all: BTreeSet<_> = Capability::all().collect();
        let names = |spec: &ContainerSpec, bounding: &BTreeSet<Capability>| {
            capabilities(spec, bounding).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names(&spec(some(&["NET_ADMIN"]), CapabilitySet::All), &all), ["NET_ADMIN"]);
        assert!(!names(&spec(some(&[]), some(&["CHOWN"])), &all).contains(&"CHOWN".to_owned()));
        assert_eq!(names(&spec(CapabilitySet::All, some(&["SYS_ADMIN"])), &all).len(), 40);
        let without_kill: BTreeSet<_> = Capability::all().filter(|c| c.to_string() != "KILL").collect();
        assert!(!names(&spec(some(&["KILL"]), some(&[])), &without_kill).contains(&"KILL".to_owned()));
    }

    #[test]
    fn every_capability_and_limit_has_a_name_in_oci() {
        let all: BTreeSet<_> = Capability::all().collect();
        assert_eq!(capability_sets(&all).bounding().as_ref().unwrap().len(), all.len());
        for (_, suffix) in ULIMIT_NAMES {
            rlimit(suffix, Ulimit { soft: Some(1), hard: Some(2) }, None).unwrap();
        }
    }

    #[test]
    fn a_limit_above_the_hosts_own_is_cut() {
        let limit = rlimit("NOFILE", Ulimit { soft: Some(100), hard: None }, Some(50)).unwrap();
        assert_eq!((limit.soft(), limit.hard()), (50, 50));
    }
}
