//! Starting a monitor.
//!
//! ```text
//! caller                          evenkeel-monitor DIR [CGROUP]   its copy: the monitor
//!   | -- fork, exec -----------------> |
//!   |                                  | -- clone ------------------> | setsid, lock, status
//!   | <------------- exit 0 ---------- |                              | starts the container
//!   | <------------ {"ok":{"pid":N}} or {"error":{..}} -------------- |
//!   |                                                                 | standard output becomes /dev/null
//! ```
//!
//! # Decisions
//! * The copy is there so that a monitor is nobody's child: `watch` runs for months and would have to reap, one by
//!   one, processes that it knows nothing of after its own restart. It costs about 0.2 ms.
//! * With cgroup version 2 the copy is born in a cgroup that the caller names, beside those of containers
//!   (`CLONE_INTO_CGROUP`: nobody waits for a move). So it belongs to no service and no login session: systemd neither
//!   ends it with them (`KillMode=`, logind's `KillUserProcesses=`) nor counts it against their limits, nor warns of it at
//!   every start of the service. A scope of its own would need a bus and a systemd, for every container one.
//! * With version 1 a monitor stays in the cgroup of whoever started it: a move waits 6 to 15 ms for the kernel. There the
//!   unit's `KillMode=process` keeps it alive.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::client::Client;
use super::error::MonitorError;
use super::hanging;
use super::protocol::Handshake;
use crate::model::paths::run;
use crate::runtime::binary;
use crate::sys::memory;

/// A container whose first process executes its command, watched over by a monitor of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Its first process.
    pub pid: u32,
}

/// Starts the monitor for a container's run directory, and comes back when the first process runs or could not be
/// started: then there is no monitor either. [`MonitorError::Overdue`] after `patience`: the monitor goes on with the start
/// alone.
///
/// With `cgroup`, a directory of version 2, the monitor is born there.
/// The monitor has nothing of the caller's environment, `/` as its directory and a session of its own. Safe with threads.
pub fn spawn(
    monitor_binary: &Path,
    directory: &Path,
    cgroup: Option<&Path>,
    patience: Duration,
) -> Result<Started, MonitorError> {
    let errors_path = directory.join(run::MONITOR_ERRORS);
    let errors = File::create(&errors_path).map_err(|source| MonitorError::file("create", &errors_path, source))?;
    let (handshake, stdout) =
        io::pipe().map_err(|source| MonitorError::system("make a pipe", directory.display(), source))?;
    // What the monitor starts must not be able to write to the monitor's file (CVE-2019-5736).
    let program = binary::read_only(monitor_binary)
        .map_err(|error| MonitorError::file("execute", monitor_binary, io::Error::other(error)))?;
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    command
        .arg0(monitor_binary)
        .arg(directory)
        .args(cgroup)
        .env_clear()
        .env(memory::NO_CACHE.0, memory::NO_CACHE.1)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(errors);
    let status = command.status().map_err(|source| MonitorError::file("execute", monitor_binary, source))?;
    // The command holds the write end; without it the read below ends when the monitor has spoken.
    drop(command);
    let line = hear(handshake, patience).map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => {
            // It answers although the start hangs, which is a process of its own.
            let monitor = Client::connect(directory).ok().and_then(|client| client.monitor());
            MonitorError::Overdue { what: "start", time: patience, hanging: hanging::below(monitor) }
        }
        _ => MonitorError::Conversation { source: error },
    })?;
    match serde_json::from_str(&line) {
        Ok(Handshake::Started { pid }) => Ok(Started { pid }),
        Ok(Handshake::Failed(failure)) => Err(MonitorError::Start(failure)),
        Err(_) if line.is_empty() => Err(MonitorError::Died(last_words(&errors_path, status))),
        Err(_) => Err(MonitorError::Answer(line)),
    }
}

/// Reads to the end, or to the end of patience.
fn hear(mut from: PipeReader, patience: Duration) -> io::Result<String> {
    let deadline = Instant::now() + patience;
    let (mut heard, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => match from.read(&mut buffer)? {
                0 => return String::from_utf8(heard).map_err(io::Error::other),
                length => heard.extend_from_slice(&buffer[..length]),
            },
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a monitor that died left on its standard error, as the end of a sentence.
fn last_words(errors: &Path, status: std::process::ExitStatus) -> String {
    match std::fs::read_to_string(errors) {
        Ok(text) if !text.trim().is_empty() => format!(": {}", text.trim()),
        _ if !status.success() => format!(" ({status})"),
        _ => String::new(),
    }
}
