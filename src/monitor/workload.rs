//! The container's first process and its control group.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal as RustixSignal, kill_process};

use crate::model::status::Exit;
use crate::model::units::Signal;
use crate::runtime::RuntimeError;
use crate::runtime::cgroup::{self, Cgroup, Hierarchy};

/// How long killed processes may take to be gone. Those of a pid namespace are gone before its first one is reaped
/// (pid_namespaces(7)); this is for containers that share the host's.
const DYING: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub struct Workload {
    hierarchy: Option<Hierarchy>,
    cgroup: Option<Cgroup>,
    /// While it runs.
    pub pid: Option<Pid>,
    /// The kernel's count of kills for memory when the process started.
    memory_kills: u64,
}

impl Workload {
    /// Learns which control group the processes are in.
    pub fn set_cgroup(&mut self, path: &Path) -> Result<(), RuntimeError> {
        let hierarchy = match self.hierarchy.take() {
            Some(hierarchy) => hierarchy,
            None => cgroup::detect()?,
        };
        self.cgroup = Some(cgroup::open(&hierarchy, path));
        self.hierarchy = Some(hierarchy);
        Ok(())
    }

    pub fn started(&mut self, pid: Pid) {
        self.pid = Some(pid);
        self.memory_kills = self.count_memory_kills();
    }

    /// The first process ended: ends what it left behind, and says what really happened.
    pub fn ended(&mut self, exit: Exit) -> Exit {
        self.pid = None;
        self.end_leftovers();
        // A shell that waits for a killed child says 137 itself.
        let looks_killed = matches!(exit, Exit::Signal(Signal::KILL) | Exit::Code(137));
        if looks_killed && self.count_memory_kills() > self.memory_kills { Exit::OutOfMemory } else { exit }
    }

    /// Nothing of the container runs after this, as far as the kernel lets it end.
    pub fn end_leftovers(&self) {
        let Some(cgroup) = &self.cgroup else { return };
        let deadline = Instant::now() + DYING;
        while cgroup.processes().is_ok_and(|processes| !processes.is_empty()) && Instant::now() < deadline {
            // Tried again until they are gone; there is nobody to tell of one that cannot be killed.
            let _ = cgroup.kill();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn count_memory_kills(&self) -> u64 {
        // Without the memory controller nothing is ever killed for a limit of ours.
        self.cgroup.as_ref().and_then(|cgroup| cgroup.oom_kills().ok()).unwrap_or_default()
    }

    /// To the first process.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(pid) = self.pid else { return Ok(()) };
        crate::sys::kill::kill(pid, signal.number())
    }

    /// Whether the first process could take notice of this signal. As process 1 of its namespace it is spared every
    /// signal whose action is the default one, whoever sends it, SIGKILL and SIGSTOP from outside excepted
    /// (pid_namespaces(7)). One that it ignores by its own word counts as heard: that is its decision.
    pub fn hears(&self, signal: Signal) -> bool {
        self.pid.is_none_or(|pid| process_hears(pid, signal))
    }

    pub fn kill_all(&self) -> Result<(), RuntimeError> {
        if let Some(pid) = self.pid {
            // Even where there is no control group. It may have ended, and that is as good.
            let _ = kill_process(pid, RustixSignal::KILL);
        }
        self.cgroup.as_ref().map_or(Ok(()), Cgroup::kill)
    }

    pub fn freeze(&self) -> Result<(), RuntimeError> {
        self.cgroup.as_ref().map_or(Ok(()), Cgroup::freeze)
    }

    pub fn thaw(&self) -> Result<(), RuntimeError> {
        self.cgroup.as_ref().map_or(Ok(()), Cgroup::thaw)
    }

    /// The last process is gone, and no other will come.
    pub fn remove_cgroup(&mut self) -> Result<(), RuntimeError> {
        self.cgroup.take().map_or(Ok(()), |cgroup| cgroup.remove())
    }
}

/// Whether this first process of a container could take notice of the signal: see [`Workload::hears`].
pub fn process_hears(pid: Pid, signal: Signal) -> bool {
    let read = |file| {
        let text = fs::read(format!("/proc/{}/{file}", pid.as_raw_nonzero())).unwrap_or_default();
        // The first line of `status` is the name, which need not be text.
        String::from_utf8_lossy(&text).into_owned()
    };
    hears(&read("status"), signal) || waits_for_signals(&read("syscall"))
}

/// By /proc/PID/syscall (proc(5)). Who is in sigwaitinfo(2) takes its signals there, and as long as it waits the kernel
/// does not show them as blocked: small inits such as ours, tini and dumb-init live in it. What cannot be read speaks for
/// hearing.
fn waits_for_signals(syscall: &str) -> bool {
    // rt_sigtimedwait of this machine, and of 32-bit programs with either size of time.
    const WAITS: [i64; 3] = [libc::SYS_rt_sigtimedwait, 177, 421];
    match syscall.split_whitespace().next() {
        Some("running") => false,
        Some(number) => number.parse().map_or(true, |number| WAITS.contains(&number)),
        None => true,
    }
}

/// By the masks of /proc/PID/status (proc(5)), and whether it is process 1 of its namespace at all: with the host's it is
/// not, and signals do by default what they do to everybody. What cannot be read speaks for hearing.
fn hears(status: &str, signal: Signal) -> bool {
    const ALWAYS: [i32; 2] = [libc::SIGKILL, libc::SIGSTOP];
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let masks = ["SigBlk:", "SigIgn:", "SigCgt:"].map(mask);
    let noticed = masks.iter().flatten().fold(0, |all, mask| all | mask);
    let unknown = masks.iter().any(Option::is_none);
    let number =
        status.lines().find_map(|line| line.strip_prefix("NSpid:")).and_then(|all| all.split_whitespace().last());
    unknown
        || number.is_some_and(|number| number != "1")
        || ALWAYS.contains(&signal.number())
        || noticed >> (signal.number() - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_signals_hears_them() {
        let wait = libc::SYS_rt_sigtimedwait;
        assert!(waits_for_signals(&format!("{wait} 0x7ffc 0x0 0x0 0x8 0x0 0x0 0x7ffc 0x7f\n")));
        assert!(waits_for_signals("") && waits_for_signals("?"));
        assert!(!waits_for_signals("running\n") && !waits_for_signals("-1 0x7ffc 0x7f\n"));
        assert!(!waits_for_signals(&format!("{} 0x7ffc 0x0\n", libc::SYS_nanosleep)));
    }

    #[test]
    fn a_signal_is_heard_when_it_is_caught_blocked_or_ignored_by_word() {
        let status = |blocked, ignored, caught| {
            format!("Name:\thttpd\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n")
        };
        let term = 1u64 << (libc::SIGTERM - 1);
        assert!(!hears(&status(0, 0, 0), Signal::TERM));
        for heard in [status(term, 0, 0), status(0, term, 0), status(0, 0, term), String::new()] {
            assert!(hears(&heard, Signal::TERM), "{heard}");
        }
        assert!(!hears(&status(0, 0, term << 1), Signal::TERM));
        assert!(hears(&status(0, 0, 0), Signal::KILL));
        // Who is no process 1 is not spared.
        assert!(hears(&format!("{}NSpid:\t4711\n", status(0, 0, 0)), Signal::TERM));
        assert!(!hears(&format!("{}NSpid:\t4711\t1\n", status(0, 0, 0)), Signal::TERM));
    }
}
