//! The life of the `evenkeel-monitor` process: becoming one of its own, the handshake, the loop.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sys::signal::SigSet;

use super::complaint::say;
use super::error::MonitorError;
use super::protocol::{FailureKind, Handshake, StartFailure, chain};
use super::supervise::{FirstStart, Supervisor};
use crate::sys::clone::{Copy, clone3, exit_now};
use crate::sys::{descriptors, memory};

/// What `evenkeel-monitor DIR [CGROUP]` does. `arguments` do not contain the program's name. Must be called before any thread is
/// made. See [`super::spawn`](mod@super::spawn) for how it is started.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let (Some(directory), cgroup, None) = (arguments.next(), arguments.next(), arguments.next()) else {
        say("usage: evenkeel-monitor DIR [CGROUP]\n\n`evenkeel` starts this, one for each container; people do not.");
        return ExitCode::from(64);
    };
    let cgroup = cgroup.map(PathBuf::from);
    match leave_the_caller(cgroup.as_deref())
        .and_then(|()| supervise(PathBuf::from(directory)))
        .and_then(|last| become_another(&last))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Goes on as nobody's child, in the cgroup and a session of its own, with only the standard descriptors, and as the parent of
/// whatever its children leave behind.
fn leave_the_caller(cgroup: Option<&Path>) -> Result<(), MonitorError> {
    let failed = |operation| move |source: std::io::Error| MonitorError::system(operation, "a monitor", source);
    // What the caller left open is not for the container, nor for as long as it lives.
    descriptors::close_from(3).map_err(failed("close descriptors"))?;
    memory::give_back_what_is_freed();
    // It was executed by the number of a descriptor (see `spawn`); ps shows a name. Without it nothing is lost.
    let _ = rustix::thread::set_name(c"evenkeel-monitor");
    // At once out of the caller's process group, which a terminal or a supervisor may signal. It fails for a group
    // leader (setsid(2)); the copy is none.
    let _ = rustix::process::setsid();
    let birthplace = cgroup.map(File::open).transpose().map_err(failed("open the cgroup of"))?;
    match clone3(0, birthplace.as_ref().map(AsFd::as_fd)).map_err(failed("copy the process"))? {
        Copy::Parent { .. } => exit_now(0),
        Copy::Child(_) => {}
    }
    drop(birthplace);
    rustix::process::setsid().map_err(|error| failed("begin a session")(error.into()))?;
    // Any process number switches it on (prctl(2), PR_SET_CHILD_SUBREAPER).
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| failed("become a subreaper")(error.into()))
}

/// The container is over; what its launch file wants then is executed in place of this process.
fn become_another(command: &[OsString]) -> Result<(), MonitorError> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    // The supervisor blocked signals, and a mask outlives execve(2).
    let unblocked = SigSet::empty().thread_set_mask();
    unblocked.map_err(|error| MonitorError::system("receive signals", "its last act", error))?;
    let error = Command::new(program).args(arguments).exec();
    Err(MonitorError::file("execute", Path::new(program), error))
}

fn supervise(directory: PathBuf) -> Result<Vec<OsString>, MonitorError> {
    let supervisor = match Supervisor::open(directory) {
        Ok(supervisor) => supervisor,
        Err(error) => {
            let kind = match error {
                MonitorError::Busy { .. } => FailureKind::Busy,
                _ => FailureKind::Other,
            };
            tell(&Handshake::Failed(StartFailure { kind, message: chain(&error), hint: None }));
            return Ok(Vec::new());
        }
    };
    supervisor.name_process();
    supervisor.run(|first| match first {
        FirstStart::Running { pid } => tell(&Handshake::Started { pid }),
        FirstStart::Failed(failure) => tell(&Handshake::Failed(failure)),
        FirstStart::Stopped => {
            let message = "the container was stopped before it had started".to_owned();
            let kind = FailureKind::Other;
            tell(&Handshake::Failed(StartFailure { kind, message, hint: None }));
        }
    })
}

/// Says the one line and lets go of the pipe. Whoever waited for it may be gone: that changes nothing.
fn tell(handshake: &Handshake) {
    if let Ok(mut line) = serde_json::to_vec(handshake) {
        line.push(b'\n');
        let _ = std::io::stdout().lock().write_all(&line);
        let _ = std::io::stdout().lock().flush();
    }
    let null = OpenOptions::new().write(true).open("/dev/null");
    let replaced = null.and_then(|null: File| Ok(rustix::stdio::dup2_stdout(&null)?));
    if let Err(error) = replaced {
        // The pipe stays open until the end, and whoever reads it waits: better to be heard of.
        say(format_args!("cannot let go of standard output: {error}"));
    }
    // The start was the last big thing to do.
    memory::trim();
}
