//! Everything that the kernel counts of a cgroup, for who keeps the account: `evenkeel-runtime events`.

use std::collections::BTreeMap;
use std::path::Path;

use super::observe::{keyed, number, optional};
use super::{Cgroup, Controller, Layout};
use crate::runtime::error::RuntimeError;

/// Since the cgroup exists, 0 and nothing where nobody counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    pub cpu: CpuCounters,
    pub memory: MemoryCounters,
    pub pids: u64,
    pub pids_limit: Option<u64>,
    pub disks: Vec<DiskCounter>,
}

/// Nanoseconds; periods in which there was a quota, and those in which it was used up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuCounters {
    pub total: u64,
    pub user: u64,
    pub kernel: u64,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled: u64,
}

/// Bytes, page cache included; how often the limit was hit; `memory.stat` as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryCounters {
    pub usage: u64,
    pub peak: u64,
    pub limit: Option<u64>,
    pub failures: u64,
    pub statistics: BTreeMap<String, u64>,
}

/// What went to or came from one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskCounter {
    pub major: u64,
    pub minor: u64,
    /// `Read`, `Write` and what else the kernel tells apart.
    pub operation: String,
    pub unit: DiskUnit,
    pub value: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskUnit {
    Bytes,
    Requests,
}

impl Cgroup {
    pub fn counters(&self) -> Result<Counters, RuntimeError> {
        let mut counters = Counters::default();
        let layout = self.hierarchy.layout();
        if let (Some(directory), Layout::V1) = (self.place_in(Controller::Cpuacct), layout) {
            let value = |file| Ok(number(&directory, file)?.unwrap_or(0));
            let cpu = &mut counters.cpu;
            cpu.total = value("cpuacct.usage")?;
            (cpu.user, cpu.kernel) = (value("cpuacct.usage_user")?, value("cpuacct.usage_sys")?);
        }
        if let Some(directory) = self.place_in(Controller::Cpu) {
            count_time(&directory, layout, &mut counters.cpu)?;
        }
        if let Some(directory) = self.place_in(Controller::Memory) {
            counters.memory = memory(&directory, layout)?;
        }
        if let Some(directory) = self.place_in(Controller::Pids) {
            counters.pids = number(&directory, "pids.current")?.unwrap_or(0);
            counters.pids_limit = number(&directory, "pids.max")?;
        }
        if let Some(directory) = self.place_in(Controller::Io) {
            counters.disks = disks(&directory, layout)?;
        }
        Ok(counters)
    }
}

fn count_time(directory: &Path, layout: Layout, cpu: &mut CpuCounters) -> Result<(), RuntimeError> {
    let value = |key| Ok(keyed(directory, "cpu.stat", key)?.unwrap_or(0));
    (cpu.periods, cpu.throttled_periods) = (value("nr_periods")?, value("nr_throttled")?);
    match layout {
        Layout::V1 => cpu.throttled = value("throttled_time")?,
        Layout::V2 => {
            let nanoseconds = |key| Ok(value(key)?.saturating_mul(1000));
            cpu.throttled = nanoseconds("throttled_usec")?;
            cpu.total = nanoseconds("usage_usec")?;
            (cpu.user, cpu.kernel) = (nanoseconds("user_usec")?, nanoseconds("system_usec")?);
        }
    }
    Ok(())
}

fn memory(directory: &Path, layout: Layout) -> Result<MemoryCounters, RuntimeError> {
    let [usage, peak, limit] = match layout {
        Layout::V1 => ["memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.limit_in_bytes"],
        Layout::V2 => ["memory.current", "memory.peak", "memory.max"],
    };
    let failures = match layout {
        Layout::V1 => number(directory, "memory.failcnt")?,
        Layout::V2 => keyed(directory, "memory.events", "max")?,
    };
    let text = optional(directory, "memory.stat")?.unwrap_or_default();
    let statistics = text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    });
    Ok(MemoryCounters {
        usage: number(directory, usage)?.unwrap_or(0),
        peak: number(directory, peak)?.unwrap_or(0),
        limit: number(directory, limit)?,
        failures: failures.unwrap_or(0),
        statistics: statistics.collect(),
    })
}

fn disks(directory: &Path, layout: Layout) -> Result<Vec<DiskCounter>, RuntimeError> {
    let text = |file| Ok(optional(directory, file)?.unwrap_or_default());
    Ok(match layout {
        Layout::V1 => {
            let bytes = disks_v1(&text("blkio.throttle.io_service_bytes_recursive")?, DiskUnit::Bytes);
            let requests = disks_v1(&text("blkio.throttle.io_serviced_recursive")?, DiskUnit::Requests);
            [bytes, requests].concat()
        }
        Layout::V2 => disks_v2(&text("io.stat")?),
    })
}

fn device(word: &str) -> Option<(u64, u64)> {
    let (major, minor) = word.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `8:0 Read 4096`; the last line is the sum of all.
fn disks_v1(text: &str, unit: DiskUnit) -> Vec<DiskCounter> {
    let counter = |line: &str| {
        let mut words = line.split(' ');
        let (major, minor) = device(words.next()?)?;
        let operation = words.next()?.to_owned();
        Some(DiskCounter { major, minor, operation, unit, value: words.next()?.parse().ok()? })
    };
    text.lines().filter_map(counter).collect()
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 ..`, by the names of version 1.
fn disks_v2(text: &str) -> Vec<DiskCounter> {
    const KEYS: [(&str, &str, DiskUnit); 6] = [
        ("rbytes", "Read", DiskUnit::Bytes),
        ("wbytes", "Write", DiskUnit::Bytes),
        ("dbytes", "Discard", DiskUnit::Bytes),
        ("rios", "Read", DiskUnit::Requests),
        ("wios", "Write", DiskUnit::Requests),
        ("dios", "Discard", DiskUnit::Requests),
    ];
    let mut counters = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        counters.extend(words.filter_map(|word| {
            let (key, value) = word.split_once('=')?;
            let (_, operation, unit) = KEYS.into_iter().find(|(known, ..)| *known == key)?;
            let value = value.parse().ok()?;
            Some(DiskCounter { major, minor, operation: operation.to_owned(), unit, value })
        }));
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_counted_alike_in_both_versions() {
        let first = disks_v1("8:0 Read 4096\n8:0 Write 0\nTotal 4096\n", DiskUnit::Bytes);
        let second = disks_v2("8:0 rbytes=4096 wbytes=0 cost.usage=3\n");
        assert_eq!(first, second);
        assert_eq!((first.len(), first[0].value, first[0].operation.as_str()), (2, 4096, "Read"));
    }
}
