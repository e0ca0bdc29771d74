//! The process that runs one `RUN`: `evenkeel internal-build`, started by `run` and by nobody else.
//!
//! ```text
//! engine                     evenkeel internal-build             container
//!   | -- spawn, task on stdin ----> |  one thread                   |
//!   |                               | -- runtime::launch ---------> | the command
//!   | <---------------------- standard output and error ----------- |
//!   | <-- report on stderr -------- |  waits for it, ends the rest
//! ```
//!
//! The engine has threads and therefore cannot clone a container itself. Standard input stays open as long as the
//! engine lives and wants the result: at its end, whatever the reason, the container is killed. So no command of a build
//! outlives who wanted it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};
use serde::{Deserialize, Serialize};

use crate::model::launch::{Identity, RootFilesystem};
use crate::monitor::protocol::chain;
use crate::runtime::cgroup;
use crate::runtime::launch::{Caller, FirstProcess, Process, Request, Stdio, start};

/// The hidden argument by which `evenkeel` becomes this.
pub const ARGUMENT: &str = "internal-build";

/// How long killed processes may take to be gone.
const DYING: Duration = Duration::from_secs(5);

/// What to run: one line of JSON on standard input.
#[derive(Debug, Serialize, Deserialize)]
pub struct Task {
    pub spec: Spec,
    pub root: RootFilesystem,
    pub identity: Identity,
    pub cgroup: PathBuf,
}

/// What became of it: one line of JSON on standard error.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    Exited(i32),
    Killed {
        signal: i32,
        out_of_memory: bool,
    },
    /// It was never started, and why.
    Failed(String),
}

/// The process's whole life.
pub fn child_main() -> ExitCode {
    let report = run().unwrap_or_else(Report::Failed);
    let Ok(line) = serde_json::to_string(&report) else { return ExitCode::FAILURE };
    // An engine that has gone away needs no report.
    match writeln!(io::stderr(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run() -> Result<Report, String> {
    let told = |error: io::Error| error.to_string();
    let input = io::stdin().as_fd().try_clone_to_owned().map_err(told)?;
    let mut line = String::new();
    BufReader::new(File::from(input.try_clone().map_err(told)?)).read_line(&mut line).map_err(told)?;
    let task: Task = serde_json::from_str(&line).map_err(|error| error.to_string())?;
    let stdin = OwnedFd::from(File::open("/dev/null").map_err(told)?);
    let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(told)?;
    let request = Request {
        spec: &task.spec,
        root: &task.root,
        directories: &[],
        stdio: Stdio::Descriptors { stdin: &stdin, stdout: &stdout, stderr: &stdout },
        identity: Some(&task.identity),
        first: FirstProcess::Command,
        caller: Caller::default(),
    };
    let group = cgroup::open(&cgroup::detect().map_err(|error| chain(&error))?, &task.cgroup);
    let ended = start(&request).map_err(|error| chain(&error)).and_then(|process| wait(&process, &input));
    let out_of_memory = group.oom_kills().is_ok_and(|kills| kills > 0);
    let deadline = Instant::now() + DYING;
    while group.processes().is_ok_and(|processes| !processes.is_empty()) && Instant::now() < deadline {
        // Tried again until they are gone; there is nobody to tell of one that cannot be killed.
        let _ = group.kill();
        std::thread::sleep(Duration::from_millis(1));
    }
    // An empty cgroup that is left costs nothing, and the next build sweeps it away.
    let _ = group.remove();
    Ok(match ended? {
        Report::Killed { signal, .. } => Report::Killed { signal, out_of_memory },
        other => other,
    })
}

/// Until the command ends, or nobody wants it any more.
fn wait(process: &Process, wanted: &OwnedFd) -> Result<Report, String> {
    loop {
        let mut events = [PollFd::new(&process.pidfd, PollFlags::IN), PollFd::new(wanted, PollFlags::IN)];
        match poll(&mut events, None) {
            Err(rustix::io::Errno::INTR) => continue,
            result => drop(result.map_err(|errno| errno.to_string())?),
        }
        let [ended, hung_up] = events.map(|event| !event.revents().is_empty());
        if hung_up && !ended {
            // Process 1 takes its whole namespace with it. It may have ended this moment, which is as good.
            let _ = pidfd_send_signal(&process.pidfd, Signal::KILL);
        }
        if ended || hung_up {
            let status = waitid(WaitId::PidFd(process.pidfd.as_fd()), WaitIdOptions::EXITED);
            let status = status.map_err(|errno| errno.to_string())?;
            return Ok(status.as_ref().map_or(Report::Exited(0), report));
        }
    }
}

fn report(status: &WaitIdStatus) -> Report {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Report::Exited(code),
        (None, signal) => Report::Killed { signal: signal.unwrap_or_default(), out_of_memory: false },
    }
}
