//! What a monitor writes about its container: the only source of what is running, and how it went.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::health::Health;
use super::id::ContainerId;
use super::units::Signal;

pub const STATUS_VERSION: u32 = 1;

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The first process is being set up.
    Starting,
    Running,
    Paused,
    /// It was asked to stop and has not ended yet.
    Stopping,
    /// It ended and waits for its restart.
    Waiting,
    /// It ended repeatedly and waits for a restart with the backoff at work: the crash loop as a named state.
    CrashLoop,
    /// It ended and stays so: by its policy.
    Exited,
    /// It was stopped by request and stays so.
    Stopped,
    /// Its first process could not be started; `error` says why. The restart policy applies to this too.
    Failed,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Code(u8),
    Signal(Signal),
    /// Killed by the kernel for memory (cgroup's OOM counter went up).
    OutOfMemory,
}

impl Exit {
    /// The status a shell would show.
    pub fn code(self) -> u8 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128u8.saturating_add(signal.number() as u8),
            Exit::OutOfMemory => 137,
        }
    }
}

/// The last answers of a health check, newest last, at most five, output cut to 4 KiB (as Docker keeps them).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    pub at: SystemTime,
    pub healthy: bool,
    pub output: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthStatus {
    pub health: Health,
    pub failing_streak: u32,
    pub log: Vec<ProbeResult>,
}

/// The first monitors did not say it.
fn first_launch_version() -> u32 {
    1
}

/// The status file. The monitor is its only writer; it writes on every change of phase, health or process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub version: u32,
    /// The version of the launch files that this monitor reads ([`super::launch::LAUNCH_VERSION`] when it was built).
    #[serde(default = "first_launch_version")]
    pub launch_version: u32,
    pub id: ContainerId,
    pub phase: Phase,
    /// The first process, seen from the host, while there is one.
    pub pid: Option<u32>,
    pub started_at: Option<SystemTime>,
    pub finished_at: Option<SystemTime>,
    /// Of a start that failed it is what a shell would say, and `error` is why. Monitors of before said nothing then.
    pub exit: Option<Exit>,
    /// Restarts since the container was started by request.
    pub restarts: u32,
    /// Those of them in a row, without a run of `reset_after` between: what `max_retries` counts. Monitors of before did not
    /// say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts_in_a_row: Option<u32>,
    pub next_start_at: Option<SystemTime>,
    pub health: Option<HealthStatus>,
    pub error: Option<String>,
}
