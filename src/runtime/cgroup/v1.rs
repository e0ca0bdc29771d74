//! Version 1: a directory in each hierarchy (Linux, admin-guide/cgroup-v1).

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::hierarchy::inherited;
use super::{Cgroup, Controller, Layout, files, pids_max, settings};
use crate::runtime::error::{RuntimeError, invalid};

/// Joined wherever they exist; see the module's head.
const ALWAYS: [Controller; 5] =
    [Controller::Freezer, Controller::Memory, Controller::Devices, Controller::Cpuacct, Controller::Pids];

/// What cpu.cfs_period_us says where nothing was said, microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

/// What cpu.shares says where nothing was said.
const DEFAULT_SHARES: u64 = 1024;

/// Makes the directories and sets the limits.
pub(super) fn make(cgroup: &Cgroup, resources: &LinuxResources) -> Result<(), RuntimeError> {
    for controller in ALWAYS {
        if let Some(mount) = cgroup.hierarchy.mount(controller) {
            make_directory(&mount.join(&cgroup.path))?;
        }
    }
    limit(cgroup, resources)
}

/// Sets the limits. A hierarchy that is joined for one of them takes the processes over.
pub(super) fn update(cgroup: &Cgroup, resources: &LinuxResources) -> Result<(), RuntimeError> {
    let before = cgroup.directories();
    limit(cgroup, resources)?;
    for directory in cgroup.directories().iter().filter(|directory| !before.contains(directory)) {
        move_all(cgroup, directory)?;
    }
    Ok(())
}

/// Until no process is found outside: one may be born while the others are moved.
fn move_all(cgroup: &Cgroup, directory: &Path) -> Result<(), RuntimeError> {
    loop {
        let inside = files::processes(directory)?;
        let outside: Vec<_> = cgroup.processes()?.into_iter().filter(|pid| !inside.contains(pid)).collect();
        if outside.is_empty() {
            return Ok(());
        }
        for pid in outside {
            match files::write(directory, "cgroup.procs", &pid.as_raw_nonzero().to_string()) {
                // It ended meanwhile.
                Err(RuntimeError::Cgroup { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {}
                other => other?,
            }
        }
    }
}

fn limit(cgroup: &Cgroup, resources: &LinuxResources) -> Result<(), RuntimeError> {
    if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
        return Err(invalid("linux.resources.unified", "this host has cgroups of version 1"));
    }
    if let Some(memory) = resources.memory() {
        limit_memory(cgroup, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        limit_cpu(cgroup, cpu)?;
        limit_cpuset(cgroup, cpu)?;
    }
    if let Some(pids) = resources.pids() {
        let value = pids_max(pids.limit()).unwrap_or_else(|| "max".to_owned());
        let need = need(pids.limit() >= 0, "linux.resources.pids");
        if let Some(directory) = join(cgroup, Controller::Pids, need)? {
            files::write(&directory, "pids.max", &value)?;
        }
    }
    for setting in settings::of(resources, Layout::V1)? {
        if let Some(directory) = join(cgroup, setting.controller, need(!setting.lifts, setting.field))? {
            setting.write(&directory)?;
        }
    }
    Ok(())
}

fn limit_memory(cgroup: &Cgroup, memory: &LinuxMemory) -> Result<(), RuntimeError> {
    let is_limit = |value: Option<i64>| value.is_some_and(|value| value > 0);
    let limits = [memory.limit(), memory.swap(), memory.reservation(), memory.kernel_tcp()].into_iter().any(is_limit);
    let Some(directory) = join(cgroup, Controller::Memory, need(limits, "linux.resources.memory"))? else {
        return Ok(());
    };
    let set = |file: &str, value: Option<i64>| match value {
        // 0 is what callers of runc write for "not set".
        None | Some(0) => Ok(()),
        Some(value) => files::write(&directory, file, &value.max(-1).to_string()),
    };
    let has_swap = directory.join(SWAP_FILE).exists();
    if is_limit(memory.swap()) && !has_swap {
        return Err(missing("memory (swap accounting)", "linux.resources.memory.swap"));
    }
    // No limit of memory is above every limit of memory and swap.
    let lifted = memory.limit().filter(|limit| *limit < 0);
    let swap = memory.swap().filter(|swap| *swap != 0).or(lifted).filter(|_| has_swap);
    // The limit of memory must never be above that of memory and swap together, in between neither: going up, the sum
    // goes first, going down, last.
    match set(LIMIT_FILE, memory.limit()) {
        Err(RuntimeError::Cgroup { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) && swap.is_some() => {
            set(SWAP_FILE, swap)?;
            set(LIMIT_FILE, memory.limit())?;
        }
        // It has taken back what it could.
        Err(RuntimeError::Cgroup { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => {
            let used = files::read(&directory, "memory.usage_in_bytes")?.trim().parse().unwrap_or(0);
            return Err(RuntimeError::InUse { used, limit: memory.limit().unwrap_or(0).unsigned_abs() });
        }
        other => {
            other?;
            set(SWAP_FILE, swap)?;
        }
    }
    set("memory.soft_limit_in_bytes", memory.reservation())?;
    set("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp())?;
    if let Some(swappiness) = memory.swappiness() {
        files::write(&directory, "memory.swappiness", &swappiness.to_string())?;
    }
    if let Some(disable) = memory.disable_oom_killer() {
        files::write(&directory, "memory.oom_control", &u8::from(disable).to_string())?;
    }
    Ok(())
}

const LIMIT_FILE: &str = "memory.limit_in_bytes";
const SWAP_FILE: &str = "memory.memsw.limit_in_bytes";

fn limit_cpu(cgroup: &Cgroup, cpu: &LinuxCpu) -> Result<(), RuntimeError> {
    let shares = cpu.shares().filter(|shares| *shares != 0);
    let limits = cpu.quota().is_some_and(|quota| quota > 0)
        || cpu.period().is_some_and(|period| period != 0 && period != DEFAULT_PERIOD)
        || shares.is_some_and(|shares| shares != DEFAULT_SHARES)
        || cpu.burst().is_some_and(|burst| burst > 0)
        || cpu.realtime_runtime().is_some_and(|runtime| runtime > 0)
        || cpu.idle().is_some_and(|idle| idle != 0);
    let Some(directory) = join(cgroup, Controller::Cpu, need(limits, "linux.resources.cpu"))? else { return Ok(()) };
    let set = |file: &str, value: Option<String>| match value {
        Some(value) => files::write(&directory, file, &value),
        None => Ok(()),
    };
    let period = cpu.period().filter(|period| *period != 0).map(|period| period.to_string());
    let quota = cpu.quota().filter(|quota| *quota != 0).map(|quota| quota.to_string());
    let burst = || set("cpu.cfs_burst_us", cpu.burst().map(|burst| burst.to_string()));
    set("cpu.shares", shares.map(|shares| shares.to_string()))?;
    // The burst must never be above the quota, in between neither: what is saved up of a quota that goes down goes
    // first.
    let is_below = is_below(cpu.quota(), &directory)?;
    if is_below {
        burst()?;
    }
    share_of_time(&directory, ("cpu.cfs_period_us", period), ("cpu.cfs_quota_us", quota))?;
    if !is_below {
        burst()?;
    }
    let period = cpu.realtime_period().map(|period| period.to_string());
    let runtime = cpu.realtime_runtime().map(|runtime| runtime.to_string());
    share_of_time(&directory, ("cpu.rt_period_us", period), ("cpu.rt_runtime_us", runtime))?;
    set("cpu.idle", cpu.idle().map(|idle| idle.to_string()))
}

/// The kernel takes no share above that of the cgroup above, in between neither: where the period cannot go first, the
/// time in it does.
fn share_of_time(
    directory: &Path,
    (period_file, period): (&str, Option<String>),
    (time_file, time): (&str, Option<String>),
) -> Result<(), RuntimeError> {
    let set =
        |file, value: &Option<String>| value.as_ref().map_or(Ok(()), |value| files::write(directory, file, value));
    match set(period_file, &period) {
        Err(RuntimeError::Cgroup { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) && time.is_some() => {
            set(time_file, &time)?;
            set(period_file, &period)
        }
        other => other.and_then(|()| set(time_file, &time)),
    }
}

/// Whether `quota` is less than what may be saved up now.
fn is_below(quota: Option<i64>, directory: &Path) -> Result<bool, RuntimeError> {
    let Some(quota) = quota.filter(|quota| *quota > 0) else { return Ok(false) };
    let file = "cpu.cfs_burst_us";
    Ok(directory.join(file).exists()
        && files::read(directory, file)?.trim().parse::<i64>().is_ok_and(|burst| quota < burst))
}

fn limit_cpuset(cgroup: &Cgroup, cpu: &LinuxCpu) -> Result<(), RuntimeError> {
    let limits = [cpu.cpus(), cpu.mems()].into_iter().flatten().any(|list| !list.is_empty());
    let need = need(limits, "linux.resources.cpu.cpus");
    let Some(directory) = join(cgroup, Controller::Cpuset, need)? else { return Ok(()) };
    for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        match list {
            Some(list) if list.is_empty() => files::write(&directory, file, &inherited(&directory, file)?)?,
            Some(list) => files::write(&directory, file, list)?,
            None => {}
        }
    }
    Ok(())
}

/// Whether a hierarchy has to be joined, and for which field.
#[derive(Clone, Copy)]
enum Need {
    Limit(&'static str),
    Nothing,
}

fn need(limits: bool, field: &'static str) -> Need {
    if limits { Need::Limit(field) } else { Need::Nothing }
}

/// The directory of a controller; made when a limit needs it, `None` when none does and it is not there.
fn join(cgroup: &Cgroup, controller: Controller, need: Need) -> Result<Option<PathBuf>, RuntimeError> {
    match (need, cgroup.hierarchy.mount(controller)) {
        (Need::Nothing, _) => Ok(cgroup.directory(controller)),
        (Need::Limit(field), None) => Err(missing(controller.name(), field)),
        (Need::Limit(_), Some(mount)) => {
            let directory = mount.join(&cgroup.path);
            make_directory(&directory)?;
            Ok(Some(directory))
        }
    }
}

fn missing(controller: &'static str, field: &str) -> RuntimeError {
    RuntimeError::Controller { controller, field: field.to_owned() }
}

/// A cpuset takes no process before it has processors and memory nodes, at every level.
fn make_directory(directory: &Path) -> Result<(), RuntimeError> {
    files::make(directory, &mut |made| {
        if made.join("cpuset.cpus").exists() {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                files::write(made, file, &inherited(made, file)?)?;
            }
        }
        Ok(())
    })
}
