//! What is in force and what is used, read back from the kernel.

use std::path::Path;

use super::hierarchy::{is_everything, online};
use super::{Cgroup, Controller, Hierarchy, Layout, files, v2};
use crate::model::resources::Resources;
use crate::model::units::{ByteSize, Cpus};
use crate::runtime::error::RuntimeError;

/// Memory and processes as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// In use, page cache that could be dropped at once not counted, as `docker stats` does.
    pub memory: u64,
    pub memory_limit: Option<u64>,
    pub pids: u64,
    pub pids_limit: Option<u64>,
}

const DEFAULT_SHARES: u64 = 1024;
const DEFAULT_WEIGHT: u64 = 100;

/// The kernel counts limits of memory in pages, whose size is the kernel's own choice on some processors.
fn whole_pages(bytes: u64) -> u64 {
    let page = crate::sys::memory::page_size() as u64;
    bytes / page * page
}

/// Version 1 has no word for "no limit": it says the largest number of bytes in whole pages.
fn is_limit_v1(bytes: &u64) -> bool {
    *bytes < whole_pages(i64::MAX as u64)
}

impl Cgroup {
    /// The limits that are set, read back from the kernel. Compare them with [`observable`], since the kernel rounds.
    pub fn observe(&self) -> Result<Resources, RuntimeError> {
        match self.hierarchy.layout() {
            Layout::V1 => self.observe_v1(),
            Layout::V2 => self.observe_v2(),
        }
    }

    pub fn stats(&self) -> Result<Stats, RuntimeError> {
        let mut stats = Stats::default();
        let is_v1 = self.hierarchy.layout() == Layout::V1;
        if let Some(directory) = self.place_in(Controller::Memory) {
            let (usage, cache, limit) = match is_v1 {
                true => ("memory.usage_in_bytes", "total_inactive_file", "memory.limit_in_bytes"),
                false => ("memory.current", "inactive_file", "memory.max"),
            };
            let cache = keyed(&directory, "memory.stat", cache)?.unwrap_or(0);
            stats.memory = number(&directory, usage)?.unwrap_or(0).saturating_sub(cache);
            stats.memory_limit = number(&directory, limit)?.filter(is_limit_v1);
        }
        if let Some(directory) = self.place_in(Controller::Pids) {
            stats.pids = number(&directory, "pids.current")?.unwrap_or(0);
            stats.pids_limit = number(&directory, "pids.max")?;
        }
        Ok(stats)
    }

    /// What its processes have had of all processors so far, 0 where nobody counts; `None` when there is no such cgroup.
    pub fn cpu_nanoseconds(&self) -> Result<Option<u64>, RuntimeError> {
        let Some(directory) = self.place_in(Controller::Cpuacct) else { return Ok(Some(0)) };
        match self.hierarchy.layout() {
            Layout::V1 => number(&directory, "cpuacct.usage"),
            Layout::V2 => {
                let microseconds = keyed(&directory, "cpu.stat", "usage_usec")?;
                Ok(microseconds.map(|microseconds| microseconds.saturating_mul(1000)))
            }
        }
    }

    /// Bytes that its processes read from disks and wrote to them; `None` where nobody counts.
    pub fn block_bytes(&self) -> Result<Option<(u64, u64)>, RuntimeError> {
        let Some(directory) = self.place_in(Controller::Io) else { return Ok(None) };
        let file = match self.hierarchy.layout() {
            Layout::V1 => "blkio.throttle.io_service_bytes_recursive",
            Layout::V2 => "io.stat",
        };
        Ok(optional(&directory, file)?.map(|text| read_and_written(&text)))
    }

    /// How many processes of this cgroup the kernel killed for lack of memory, since it exists.
    pub fn oom_kills(&self) -> Result<u64, RuntimeError> {
        let Some(directory) = self.place_in(Controller::Memory) else { return Ok(0) };
        let file = match self.hierarchy.layout() {
            Layout::V1 => "memory.oom_control",
            Layout::V2 => "memory.events",
        };
        Ok(keyed(&directory, file, "oom_kill")?.unwrap_or(0))
    }

    fn observe_v1(&self) -> Result<Resources, RuntimeError> {
        let mut found = Resources::default();
        if let Some(directory) = self.place_in(Controller::Memory) {
            let bytes = |file| Ok(number(&directory, file)?.filter(is_limit_v1).map(ByteSize));
            found.memory = bytes("memory.limit_in_bytes")?;
            // The kernel keeps the second at or above the first (cgroup-v1/memory.rst, 3): above no limit is none.
            if found.memory.is_some() {
                found.memory_swap = bytes("memory.memsw.limit_in_bytes")?;
            }
            found.memory_reservation = bytes("memory.soft_limit_in_bytes")?;
        }
        if let Some(directory) = self.directory(Controller::Cpu) {
            let quota = number(&directory, "cpu.cfs_quota_us")?;
            found.cpus = quota.zip(number(&directory, "cpu.cfs_period_us")?).and_then(cpus);
            found.cpu_shares = number(&directory, "cpu.shares")?.filter(|shares| *shares != DEFAULT_SHARES);
        }
        if let Some(directory) = self.directory(Controller::Cpuset) {
            found.cpuset = cpuset(&directory)?;
        }
        found.pids = self.pids_limit()?;
        Ok(found)
    }

    fn observe_v2(&self) -> Result<Resources, RuntimeError> {
        let mut found = Resources::default();
        if let Some(directory) = self.place_in(Controller::Memory) {
            found.memory = number(&directory, "memory.max")?.map(ByteSize);
            let swap = number(&directory, "memory.swap.max")?;
            found.memory_swap = found.memory.zip(swap).map(|(memory, swap)| ByteSize(memory.0 + swap));
            found.memory_reservation = number(&directory, "memory.low")?.filter(|low| *low != 0).map(ByteSize);
        }
        if let Some(directory) = self.place_in(Controller::Cpu) {
            let text = optional(&directory, "cpu.max")?.unwrap_or_default();
            let mut parts = text.split_whitespace().map(|part| part.parse().ok());
            found.cpus = parts.next().flatten().zip(parts.next().flatten()).and_then(cpus);
            let weight = number(&directory, "cpu.weight")?;
            found.cpu_shares = weight.filter(|weight| *weight != DEFAULT_WEIGHT).map(shares);
        }
        if let Some(directory) = self.place_in(Controller::Cpuset) {
            found.cpuset = cpuset(&directory)?;
        }
        found.pids = self.pids_limit()?;
        Ok(found)
    }

    fn pids_limit(&self) -> Result<Option<u64>, RuntimeError> {
        match self.place_in(Controller::Pids) {
            Some(directory) => number(&directory, "pids.max"),
            None => Ok(None),
        }
    }
}

fn cpuset(directory: &Path) -> Result<Option<String>, RuntimeError> {
    let Some(list) = optional(directory, "cpuset.cpus")? else { return Ok(None) };
    let list = list.trim();
    Ok((!is_everything(directory, list)?).then(|| list.to_owned()))
}

/// What [`Cgroup::observe`] reads when `wanted` is in force on such a host: units rounded as the kernel does, words
/// of a list as it prints them.
pub fn observable(hierarchy: &Hierarchy, wanted: &Resources) -> Resources {
    let Resources { memory, memory_swap, memory_reservation, cpus, cpu_shares, cpuset, pids } = wanted.clone();
    let pages = |size: ByteSize| ByteSize(whole_pages(size.0));
    let (memory, memory_reservation) = (memory.map(pages), memory_reservation.map(pages));
    let cpuset = cpuset.map(|list| canonical(&list)).filter(|list| Some(list) != online().as_ref());
    match hierarchy.layout() {
        Layout::V1 => Resources {
            memory,
            memory_swap: memory_swap.map(pages),
            memory_reservation,
            cpus,
            cpu_shares: cpu_shares.map(|shares| shares.clamp(2, 262_144)).filter(|shares| *shares != DEFAULT_SHARES),
            cpuset,
            pids,
        },
        Layout::V2 => Resources {
            memory,
            memory_swap: memory.and(memory_swap).map(pages),
            memory_reservation,
            cpus,
            cpu_shares: cpu_shares.map(v2::weight).filter(|weight| *weight != DEFAULT_WEIGHT).map(shares),
            cpuset,
            pids,
        },
    }
}

/// The least shares that give this weight: weights are coarser.
fn shares(weight: u64) -> u64 {
    2 + ((weight.max(1) - 1) * 262_142).div_ceil(9999)
}

fn cpus((quota, period): (u64, u64)) -> Option<Cpus> {
    let millis = quota.saturating_mul(1000).checked_div(period)?;
    u32::try_from(millis).ok().map(Cpus::from_millis)
}

/// A list of processors as the kernel prints it: sorted, neighbours joined.
fn canonical(list: &str) -> String {
    let mut numbers: Vec<u32> = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.trim().parse::<u32>(), last.trim().parse::<u32>()) else {
            return list.to_owned();
        };
        numbers.extend(first..=last.min(first.saturating_add(8192)));
    }
    numbers.sort_unstable();
    numbers.dedup();
    let ranges = numbers.chunk_by(|a, b| a + 1 == *b).map(|range| match range {
        [one] => one.to_string(),
        range => format!("{}-{}", range[0], range[range.len() - 1]),
    });
    ranges.collect::<Vec<_>>().join(",")
}

/// The number in a file; `None` for "max", for -1, and where there is no such file.
pub(super) fn number(directory: &Path, file: &str) -> Result<Option<u64>, RuntimeError> {
    Ok(optional(directory, file)?.and_then(|text| text.trim().parse().ok()))
}

/// The sums over all devices of `8:0 Read 4096` (cgroup-v1/blkio-controller.rst), or of `8:0 rbytes=4096 wbytes=0 ..`
/// (cgroup-v2, IO).
fn read_and_written(text: &str) -> (u64, u64) {
    let mut sums = (0_u64, 0_u64);
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let named = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.parse().ok()).unwrap_or(0);
        let (read, written) = match words.as_slice() {
            [_, "Read", bytes] => (bytes.parse().unwrap_or(0), 0),
            [_, "Write", bytes] => (0, bytes.parse().unwrap_or(0)),
            _ => (named("rbytes="), named("wbytes=")),
        };
        sums = (sums.0.saturating_add(read), sums.1.saturating_add(written));
    }
    sums
}

/// The number behind a word at the beginning of a line.
pub(super) fn keyed(directory: &Path, file: &str, key: &str) -> Result<Option<u64>, RuntimeError> {
    let text = optional(directory, file)?.unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    Ok(lines.find(|(word, _)| *word == key).and_then(|(_, value)| value.trim().parse().ok()))
}

pub(super) fn optional(directory: &Path, file: &str) -> Result<Option<String>, RuntimeError> {
    match files::read_piece(directory, file) {
        Err(error) if files::is_gone(&error) => Ok(None),
        text => text.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_all_devices_are_summed_up() {
        let first = "8:16 Read 4096\n8:16 Write 8192\n8:16 Sync 1\n8:0 Read 1\nTotal 12289\n";
        assert_eq!(read_and_written(first), (4097, 8192));
        let second = "8:16 rbytes=4096 wbytes=10 rios=1 wios=1 dbytes=7\n8:0 rbytes=1 wbytes=2\n";
        assert_eq!(read_and_written(second), (4097, 12));
        assert_eq!(read_and_written(""), (0, 0));
    }

    #[test]
    fn lists_of_processors_are_printed_as_the_kernel_does() {
        for (given, printed) in [("1,0", "0-1"), ("3,0-1", "0-1,3"), ("2", "2"), ("0,1,2,5-6", "0-2,5-6")] {
            assert_eq!(canonical(given), printed);
        }
    }

    #[test]
    fn weights_and_shares_go_back_and_forth() {
        for weight in [1, 2, 99, 101, 5000, 10_000] {
            assert_eq!(v2::weight(shares(weight)), weight);
        }
    }
}
