//! Version 2: one directory (Linux, admin-guide/cgroup-v2).
//!
//! A cgroup other than the root either has processes or hands on controllers, not both. So the controllers are enabled
//! from the top down to the parent, whose processes, if it has any, make that fail with EBUSY; the container's own
//! cgroup hands nothing on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::hierarchy::inherited;
use super::settings::Setting;
use super::{Cgroup, Controller, Layout, files, pids_max, settings};
use crate::runtime::error::{RuntimeError, invalid};

/// Enabled where there are any: limits may come later, and statistics are always wanted.
const WANTED: [Controller; 4] = [Controller::Memory, Controller::Pids, Controller::Cpu, Controller::Cpuset];

/// Whose the root is may take a controller from it again that nothing below has yet, between two steps of ours: systemd, as
/// units come and go.
const ATTEMPTS: usize = 10;

/// Makes the directory, enables the controllers above it, and sets the limits.
pub(super) fn make(cgroup: &Cgroup, resources: &LinuxResources) -> Result<(), RuntimeError> {
    let directory = cgroup.hierarchy.unified().join(&cgroup.path);
    let settings = settings::of(resources, Layout::V2)?;
    let unified = unified(resources)?;
    let mut wanted: BTreeSet<&str> = WANTED.iter().filter_map(|controller| controller.unified_name()).collect();
    wanted.extend(settings.iter().filter_map(|setting| setting.controller.unified_name()));
    wanted.extend(unified.iter().filter_map(|(controller, ..)| *controller));
    files::make(&directory, &mut |_| Ok(()))?;
    let mut refused = BTreeMap::new();
    for _ in 0..ATTEMPTS {
        refused = enable_controllers(cgroup, &wanted)?;
        let has_arrived = words(&files::read(&directory, "cgroup.controllers")?);
        let of_the_root = words(&files::read(cgroup.hierarchy.unified(), "cgroup.controllers")?);
        let is_due = |name: &&str| of_the_root.contains(*name) && !refused.contains_key(*name);
        if wanted.iter().copied().filter(is_due).all(|name| has_arrived.contains(name)) {
            break;
        }
    }
    set_all(&directory, resources, settings, unified).map_err(|error| match &error {
        // Why it is not there is worth more than that it is not.
        RuntimeError::Controller { controller, .. } => refused.remove(*controller).unwrap_or(error),
        _ => error,
    })
}

fn set_all(
    directory: &Path,
    resources: &LinuxResources,
    settings: Vec<Setting>,
    unified: Vec<Unified<'_>>,
) -> Result<(), RuntimeError> {
    let controllers = Enabled { directory, names: words(&files::read(directory, "cgroup.controllers")?) };
    if let Some(memory) = resources.memory() {
        limit_memory(&controllers, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        limit_cpu(&controllers, cpu)?;
    }
    if let Some(pids) = resources.pids() {
        controllers.set(Controller::Pids, "pids.max", &Value::of_limit(pids_max(pids.limit())))?;
    }
    for setting in settings {
        match controllers.names.contains(setting.controller.unified_name().unwrap_or_default()) {
            true => setting.write(directory)?,
            false if setting.lifts => {}
            false => return Err(missing(setting.controller.name(), setting.field.to_owned())),
        }
    }
    for (controller, file, value) in unified {
        if let Some(controller) = controller.filter(|controller| !controllers.names.contains(*controller)) {
            let reason = format!("this host's cgroups have no controller `{controller}`");
            return Err(invalid(format!("linux.resources.unified.{file}"), reason));
        }
        // Files about devices take one at a time.
        value.lines().try_for_each(|line| files::write(directory, file, line))?;
    }
    Ok(())
}

/// What is to be written as it is: the controller, the file and its lines, in the order of the files' names.
type Unified<'a> = (Option<&'a str>, &'a str, &'a str);

fn unified(resources: &LinuxResources) -> Result<Vec<Unified<'_>>, RuntimeError> {
    let mut all = Vec::new();
    for (file, value) in resources.unified().iter().flatten() {
        if file.contains('/') || !file.contains('.') {
            return Err(invalid("linux.resources.unified", format!("`{file}` is not the name of a cgroup's file")));
        }
        // The kernel's own files begin with `cgroup`, pressure's with the resource.
        let controller = file.split('.').next().filter(|name| *name != "cgroup" && !file.ends_with(".pressure"));
        all.push((controller, file.as_str(), value.as_str()));
    }
    all.sort_unstable();
    Ok(all)
}

fn missing(controller: &'static str, field: String) -> RuntimeError {
    RuntimeError::Controller { controller, field }
}

/// As far as the kernel lets it. What it refused comes back by the controllers' names: most containers can do without.
fn enable_controllers(
    cgroup: &Cgroup,
    wanted: &BTreeSet<&str>,
) -> Result<BTreeMap<String, RuntimeError>, RuntimeError> {
    let mut refused = BTreeMap::new();
    let mut directory = cgroup.hierarchy.unified().to_owned();
    let parents: Vec<_> = cgroup.path.parent().into_iter().flat_map(Path::components).collect();
    for step in 0..=parents.len() {
        if step > 0 {
            directory.push(parents[step - 1]);
        }
        let available = words(&files::read(&directory, "cgroup.controllers")?);
        let enabled = words(&files::read(&directory, "cgroup.subtree_control")?);
        let missing: Vec<&str> =
            wanted.iter().copied().filter(|name| available.contains(*name) && !enabled.contains(*name)).collect();
        // One write for all; it does nothing where one of them is refused, as `cpu` is beside realtime processes
        // (cgroup-v2, "CPU").
        match hand_on(&directory, &missing) {
            Err(error @ RuntimeError::Populated { .. }) => return Err(error),
            Err(_) if missing.len() > 1 => {
                for name in missing {
                    refused.extend(hand_on(&directory, &[name]).err().map(|error| (name.to_owned(), error)));
                }
            }
            Err(error) => refused.extend(missing.first().map(|name| ((*name).to_owned(), error))),
            Ok(()) => {}
        }
    }
    Ok(refused)
}

/// The root alone may have processes and hand controllers on.
fn hand_on(directory: &Path, controllers: &[&str]) -> Result<(), RuntimeError> {
    if controllers.is_empty() {
        return Ok(());
    }
    let words: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
    files::write(directory, "cgroup.subtree_control", &words.join(" ")).map_err(|error| match error {
        RuntimeError::Cgroup { source, .. } if source.raw_os_error() == Some(libc::EBUSY) => {
            RuntimeError::Populated { path: directory.to_owned(), controllers: controllers.join(", ") }
        }
        other => other,
    })
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A value for a file, and whether it limits anything: lifting a limit that cannot exist is no error.
enum Value {
    Limit(String),
    NoLimit(&'static str),
}

impl Value {
    fn of_limit(limit: Option<String>) -> Value {
        limit.map_or(Value::NoLimit("max"), Value::Limit)
    }
}

/// The controllers that arrived in a directory.
struct Enabled<'a> {
    directory: &'a Path,
    names: BTreeSet<String>,
}

impl Enabled<'_> {
    fn set(&self, controller: Controller, file: &str, value: &Value) -> Result<(), RuntimeError> {
        let is_there = self.names.contains(controller.name()) && self.directory.join(file).exists();
        match (value, is_there) {
            (Value::Limit(text), true) => files::write(self.directory, file, text),
            (Value::NoLimit(text), true) => files::write(self.directory, file, text),
            (Value::NoLimit(_), false) => Ok(()),
            (Value::Limit(_), false) => Err(missing(controller.name(), format!("`{file}`"))),
        }
    }
}

fn limit_memory(controllers: &Enabled<'_>, memory: &LinuxMemory) -> Result<(), RuntimeError> {
    let fields = [
        ("linux.resources.memory.swappiness", memory.swappiness().is_some()),
        ("linux.resources.memory.disableOOMKiller", memory.disable_oom_killer() == Some(true)),
        ("linux.resources.memory.kernelTCP", memory.kernel_tcp().is_some_and(|bytes| bytes > 0)),
    ];
    if let Some((field, _)) = fields.into_iter().find(|(_, set)| *set) {
        return Err(invalid(field, "cgroups of version 2 have no such setting"));
    }
    let value = |bytes: i64| Value::of_limit((bytes > 0).then(|| bytes.to_string()));
    if memory.check_before_update() == Some(true) {
        refuse_less_than_is_used(controllers, memory)?;
    }
    if let Some(limit) = memory.limit().filter(|limit| *limit != 0) {
        controllers.set(Controller::Memory, "memory.max", &value(limit))?;
    }
    if let Some(swap) = memory.swap().filter(|swap| *swap != 0) {
        controllers.set(Controller::Memory, "memory.swap.max", &swap_alone(swap, memory.limit())?)?;
    }
    match memory.reservation() {
        None | Some(0) => Ok(()),
        Some(bytes) if bytes > 0 => controllers.set(Controller::Memory, "memory.low", &Value::Limit(bytes.to_string())),
        Some(_) => controllers.set(Controller::Memory, "memory.low", &Value::NoLimit("0")),
    }
}

/// The kernel would end processes to come below the limit (config-linux.md, "Memory", `checkBeforeUpdate`). What it keeps
/// of files it gives back without that.
fn refuse_less_than_is_used(controllers: &Enabled<'_>, memory: &LinuxMemory) -> Result<(), RuntimeError> {
    let file = "memory.current";
    let Some(limit) = memory.limit().filter(|limit| *limit > 0) else { return Ok(()) };
    if !controllers.directory.join(file).exists() {
        return Ok(());
    }
    let used: u64 = files::read(controllers.directory, file)?.trim().parse().unwrap_or(0);
    let used = used.saturating_sub(reclaimable(&files::read(controllers.directory, "memory.stat")?));
    match used > limit.unsigned_abs() {
        true => Err(RuntimeError::InUse { used, limit: limit.unsigned_abs() }),
        false => Ok(()),
    }
}

/// Of a `memory.stat`: what processes do not notice the loss of (cgroup-v2, "Memory Interface Files").
fn reclaimable(stat: &str) -> u64 {
    let is_cache = |name: &str| ["active_file", "inactive_file", "slab_reclaimable"].contains(&name);
    let lines = stat.lines().filter_map(|line| line.split_once(' ')).filter(|(name, _)| is_cache(name));
    lines.filter_map(|(_, bytes)| bytes.parse::<u64>().ok()).sum()
}

/// OCI counts memory and swap together, version 2 swap alone.
fn swap_alone(both: i64, memory: Option<i64>) -> Result<Value, RuntimeError> {
    let field = "linux.resources.memory.swap";
    match (both, memory) {
        (both, _) if both < 0 => Ok(Value::NoLimit("max")),
        (both, Some(memory)) if memory > 0 && both >= memory => Ok(Value::Limit((both - memory).to_string())),
        (_, Some(memory)) if memory > 0 => Err(invalid(field, "it counts memory too and must not be below its limit")),
        _ => Err(invalid(field, "it needs a limit of memory beside it")),
    }
}

fn limit_cpu(controllers: &Enabled<'_>, cpu: &LinuxCpu) -> Result<(), RuntimeError> {
    refuse_realtime(cpu)?;
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        let weight = weight(shares);
        let value = if weight == weight_default() { Value::NoLimit("100") } else { Value::Limit(weight.to_string()) };
        controllers.set(Controller::Cpu, "cpu.weight", &value)?;
    }
    let period = cpu.period().filter(|period| *period != 0);
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        // A quota alone leaves the period as it is (cgroup-v2, "cpu.max").
        let text = period.map_or_else(|| quota.to_string(), |period| format!("{quota} {period}"));
        let value = Value::of_limit((quota > 0).then_some(text));
        controllers.set(Controller::Cpu, "cpu.max", &value)?;
    } else if let Some(period) = period {
        // It is written with its quota, which stays. Alone it limits nothing, and counts for a quota that comes later.
        let quota = current_quota(controllers)?;
        if quota.is_some() || period != DEFAULT_PERIOD {
            let quota = quota.unwrap_or_else(|| "max".to_owned());
            controllers.set(Controller::Cpu, "cpu.max", &Value::Limit(format!("{quota} {period}")))?;
        }
    }
    if let Some(burst) = cpu.burst().filter(|burst| *burst != 0) {
        controllers.set(Controller::Cpu, "cpu.max.burst", &Value::Limit(burst.to_string()))?;
    }
    if let Some(idle) = cpu.idle() {
        controllers.set(Controller::Cpu, "cpu.idle", &Value::Limit(idle.to_string()))?;
    }
    for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        match list {
            Some(list) if list.is_empty() => lift_cpuset(controllers, file)?,
            Some(list) => controllers.set(Controller::Cpuset, file, &Value::Limit(list.clone()))?,
            None => {}
        }
    }
    Ok(())
}

fn refuse_realtime(cpu: &LinuxCpu) -> Result<(), RuntimeError> {
    let field = match (cpu.realtime_runtime(), cpu.realtime_period()) {
        (Some(1..), _) => "linux.resources.cpu.realtimeRuntime",
        (_, Some(1..)) => "linux.resources.cpu.realtimePeriod",
        _ => return Ok(()),
    };
    Err(invalid(field, "cgroups of version 2 have no such limit"))
}

fn current_quota(controllers: &Enabled<'_>) -> Result<Option<String>, RuntimeError> {
    let file = "cpu.max";
    match controllers.directory.join(file).exists() {
        true => Ok(files::read(controllers.directory, file)?.split_whitespace().next().map(str::to_owned)),
        false => Ok(None),
    }
}

/// A list may not become empty while there are processes (ENOSPC); then the parent's is written.
fn lift_cpuset(controllers: &Enabled<'_>, file: &str) -> Result<(), RuntimeError> {
    let directory = controllers.directory;
    if !directory.join(file).exists() || files::read(directory, file)?.trim().is_empty() {
        return Ok(());
    }
    files::write(directory, file, "\n").or_else(|_| files::write(directory, file, &inherited(directory, file)?))
}

const DEFAULT_PERIOD: u64 = 100_000;

/// Shares of version 1 (2 to 262144, usually 1024) as a weight (1 to 10000, usually 100). The usual shares are the
/// usual weight; the rest is the straight line that runc and systemd draw.
pub(super) fn weight(shares: u64) -> u64 {
    match shares {
        1024 => weight_default(),
        shares => 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142,
    }
}

fn weight_default() -> u64 {
    100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        assert_eq!([weight(2), weight(1024), weight(262_144), weight(0)], [1, 100, 10_000, 1]);
    }

    #[test]
    fn time_for_realtime_processes_is_refused_by_its_field() {
        let refused = |runtime: Option<i64>, period: Option<u64>| {
            let mut cpu = LinuxCpu::default();
            cpu.set_realtime_runtime(runtime).set_realtime_period(period);
            refuse_realtime(&cpu).err().map(|error| error.to_string())
        };
        assert_eq!((refused(None, None), refused(Some(0), Some(0))), (None, None));
        assert!(refused(Some(1000), Some(2000)).unwrap().contains("realtimeRuntime"));
        assert!(refused(None, Some(2000)).unwrap().contains("realtimePeriod"));
    }

    #[test]
    fn swap_is_what_is_left_of_both() {
        assert!(matches!(swap_alone(300, Some(100)), Ok(Value::Limit(text)) if text == "200"));
        assert!(matches!(swap_alone(-1, None), Ok(Value::NoLimit("max"))));
        assert!(swap_alone(50, Some(100)).is_err());
        assert!(swap_alone(50, None).is_err());
    }
}
