//! What one run takes: time, CPU time, and memory at its highest.
//!
//! CPU time is that of the processes that worked, and of those they waited for; what the kernel does later to bring
//! their files to the disk is nobody's and not in it. Memory is what is resident of all of them together, looked at
//! every 20 ms: what two share counts twice.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::Result;

#[derive(Debug, Clone, Copy)]
pub struct Taken {
    pub seconds: f64,
    pub cpu: f64,
    pub bytes: u64,
}

/// Measures `work`, which this process does with children and, where there is one, a daemon.
pub fn measure(daemon: Option<u32>, work: impl FnOnce() -> Result<()>) -> Result<Taken> {
    let before = cpu(daemon)?;
    let (done, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let (result, elapsed) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(resident(daemon), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let begun = Instant::now();
        let result = work();
        let elapsed = begun.elapsed();
        done.store(true, Ordering::Relaxed);
        (result, elapsed)
    });
    result?;
    Ok(Taken { seconds: elapsed.as_secs_f64(), cpu: cpu(daemon)? - before, bytes: peak.load(Ordering::Relaxed) })
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Seconds of the children that have ended, and of the daemon's processes.
fn cpu(daemon: Option<u32>) -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let ended = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    let running: u64 = daemon.into_iter().flat_map(family).map(ticks).sum();
    Ok(ended as f64 / 1e6 + running as f64 / TICKS)
}

/// In a second, in what the kernel tells (time(7), "The software clock, HZ, and jiffies": USER_HZ).
const TICKS: f64 = 100.0;

/// User and system time of a process and of the children that it has waited for (proc_pid_stat(5), fields 14 to 17).
fn ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name before it may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// Bytes in memory of everything that was started here for the run.
fn resident(daemon: Option<u32>) -> u64 {
    let own = std::process::id();
    let clients = children(own).into_iter().filter(|child| is_of_the_run(*child)).flat_map(family);
    clients.chain(daemon.into_iter().flat_map(family)).map(resident_of).sum()
}

/// The registry is there for all; a daemon is counted by itself.
fn is_of_the_run(child: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
    !["docker-registry", "dockerd"].contains(&name.trim())
}

fn resident_of(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    kibibytes.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// A process and all below it.
fn family(process: u32) -> Vec<u32> {
    let mut all = vec![process];
    let mut at = 0;
    while let Some(process) = all.get(at) {
        all.extend(children(*process));
        at += 1;
    }
    all
}

fn children(process: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    let of_thread = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children")).unwrap_or_default();
    let lists: Vec<String> = threads.flatten().map(of_thread).collect();
    lists.iter().flat_map(|list| list.split_whitespace()).filter_map(|child| child.parse().ok()).collect()
}
