//! Monitors whose run directory was removed under them: with its lock file went the sign that they live.
//!
//! The kernel still knows of them: the container's control group is there, and a process of this host was started as
//! `evenkeel-monitor DIRECTORY`. As long as the lock file is there, its lock alone says whether a monitor lives.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::engine::error::{At, EngineError};
use crate::model::paths::run;
use crate::monitor::client::KILL_PATIENCE;
use crate::monitor::error::MonitorError;
use crate::monitor::hanging;

const PAUSE: Duration = Duration::from_millis(20);

/// The monitors of a run directory that has no lock file. None where there is one.
pub fn monitors(directory: &Path) -> Result<Vec<Pid>, EngineError> {
    if directory.join(run::LOCK).exists() {
        return Ok(Vec::new());
    }
    let processes = std::fs::read_dir("/proc").at("list", "/proc")?;
    let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let here = std::fs::read_link("/proc/self/ns/pid").ok();
    let is_monitor = |number: &i32| {
        // A process that ended meanwhile has no file, a zombie an empty one. One in a container may call itself what it
        // likes, but it has another process namespace, or the container's control group.
        let line = std::fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        let groups = || std::fs::read_to_string(format!("/proc/{number}/cgroup")).unwrap_or_default();
        is_monitor_of(&line, directory)
            && is_ours(*number)
            && std::fs::read_link(format!("/proc/{number}/ns/pid")).ok() == here
            && !is_in_a_container(&groups())
    };
    Ok(numbers.filter(is_monitor).filter_map(Pid::from_raw).collect())
}

/// Anybody may call a process what he likes. /proc/PID itself is root's for every process that is not to be dumped.
fn is_ours(number: i32) -> bool {
    let status = std::fs::read(format!("/proc/{number}/status")).unwrap_or_default();
    let user = String::from_utf8_lossy(&status).lines().find_map(|line| {
        let numbers = line.strip_prefix("Uid:")?;
        numbers.split_whitespace().next()?.parse::<u32>().ok()
    });
    user == Some(rustix::process::getuid().as_raw())
}

fn is_monitor_of(command_line: &[u8], directory: &Path) -> bool {
    let mut words = command_line.split(|byte| *byte == 0);
    let program = words.next().map(|word| Path::new(OsStr::from_bytes(word)));
    program.is_some_and(|program| program.file_name() == Some(OsStr::new("evenkeel-monitor")))
        && words.next() == Some(directory.as_os_str().as_bytes())
}

/// By /proc/PID/cgroup (cgroups(7)): below the group of a state root there are containers, and `monitors`.
fn is_in_a_container(groups: &str) -> bool {
    let below = |path: &str| {
        let mut parts = path.split('/').skip_while(|part| !part.starts_with("evenkeel-"));
        parts.next().and(parts.next()).is_some_and(|name| name != "monitors")
    };
    groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).any(below)
}

/// They are gone: with the container's stop sequence, as when the host goes down, or killed after `patience`.
pub fn end(directory: &Path, patience: Duration) -> Result<(), EngineError> {
    let deadline = Instant::now() + patience;
    signal(&monitors(directory)?, Signal::TERM);
    loop {
        let left = monitors(directory)?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline + KILL_PATIENCE {
            let hanging = hanging::of(left.iter().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()));
            let overdue = MonitorError::Overdue { what: "end", time: patience + KILL_PATIENCE, hanging };
            let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Err(EngineError::Monitor { operation: "end the monitor of", name, source: Box::new(overdue) });
        }
        if Instant::now() >= deadline {
            signal(&left, Signal::KILL);
        }
        std::thread::sleep(PAUSE);
    }
}

fn signal(monitors: &[Pid], signal: Signal) {
    for pid in monitors {
        // One that has ended since is what is wanted.
        let _ = kill_process(*pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_is_known_by_its_command_line() {
        let directory = Path::new("/run/evenkeel/containers/0123456789ab");
        let is = |line: &[u8]| is_monitor_of(line, directory);
        assert!(is(b"/usr/bin/evenkeel-monitor\0/run/evenkeel/containers/0123456789ab\0"));
        assert!(!is(b"/usr/bin/evenkeel-monitor\0/run/evenkeel/containers/0123456789ac\0"));
        assert!(!is(b"rm\0/run/evenkeel/containers/0123456789ab\0"));
        assert!(!is(b""));
    }

    #[test]
    fn who_is_in_a_container_is_known_by_its_control_groups() {
        assert!(is_in_a_container("9:memory:/evenkeel-5d5f/0123456789ab\n0::/\n"));
        assert!(is_in_a_container("0::/evenkeel-5d5f/build/12-0\n"));
        for outside in ["", "0::/evenkeel-5d5f/monitors\n", "9:memory:/system.slice/evenkeel.service\n", "0::/\n"] {
            assert!(!is_in_a_container(outside), "{outside}");
        }
    }
}
