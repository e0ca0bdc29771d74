//! A short-lived copy of the monitor that starts one process and ends.
//!
//! ```text
//! monitor                    copy                        process
//!   | -- clone3 ------------> |
//!   | <------ cgroup -------- | reads config.json
//!   |                         | -- runtime: clone3 ------> | .. execve
//!   | <--- started(pid) ----- | ends
//!   |  <- - - - - - - - - - - - - - becomes its child - -  |
//! ```
//!
//! # Decisions
//! * Reading config.json, compiling the seccomp filter and preparing mounts dirty some hundred kilobytes. In a copy
//!   they are gone with it, and a monitor stays as small as it was. A fork of so small a process costs 0.1 ms.
//! * A step that hangs (a mount of a dead server) hangs the copy: the monitor goes on to answer and can kill it.
//! * A copy ends with its monitor and has nothing of it open but what its errand needs: otherwise the lock and the socket of
//!   a monitor that was killed would look alive as long as the copy hangs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::{BoxBuilder, Process as ProcessSpec, Spec};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, kill_process, pidfd_open, set_parent_process_death_signal,
};
use serde::{Deserialize, Serialize};

use super::config_file;
use super::error::MonitorError;
use super::hanging;
use super::packet;
use super::protocol::{ExecSpec, InputOutput, Privilege, StartFailure, Window};
use crate::model::launch::{Identity, Launch};
use crate::runtime::launch::{Caller, FirstProcess, Inheritance, Lines, Process, Stdio};
use crate::runtime::{capabilities, cgroup, exec, launch};
use crate::sys::clone::{Copy, clone3, exit_now};
use crate::sys::descriptors::close_others;

/// How long what an earlier monitor left behind may take to die.
const LEFTOVERS: Duration = Duration::from_secs(10);

/// What a copy says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Cgroup(Option<PathBuf>),
    Started { pid: i32 },
    Failed(StartFailure),
}

/// What came of an errand so far.
#[derive(Debug)]
pub enum Report {
    /// The cgroup that the process will be in.
    Cgroup(PathBuf),
    Started {
        pid: Pid,
        /// The master side, where a terminal was asked for.
        terminal: Option<OwnedFd>,
    },
    Failed(StartFailure),
    /// Nothing new.
    Nothing,
    /// It ended without a last word.
    Gone,
}

/// A copy at work.
#[derive(Debug)]
pub struct Errand {
    pub pid: Pid,
    channel: OwnedFd,
}

/// The three descriptors of a process to be.
#[derive(Debug)]
pub struct Descriptors {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Starts a container's first process; without `descriptors` it gets a terminal, with them `window` means nothing.
pub fn start(
    launch: &Launch,
    window: Option<Window>,
    descriptors: Option<&Descriptors>,
) -> Result<Errand, MonitorError> {
    send_out(&launch.name, descriptors, |channel| start_here(launch, window, stdio(descriptors), channel))
}

/// Starts a further process in the container whose first process is `target`.
pub fn exec(
    launch: &Launch,
    request: &ExecSpec,
    descriptors: Option<&Descriptors>,
    target: Pid,
) -> Result<Errand, MonitorError> {
    send_out(&launch.name, descriptors, |_| exec_here(launch, request, stdio(descriptors), target))
}

fn stdio(descriptors: Option<&Descriptors>) -> Stdio<'_> {
    match descriptors {
        Some(Descriptors { stdin, stdout, stderr }) => Stdio::Descriptors { stdin, stdout, stderr },
        None => Stdio::Terminal(Lines::Completed),
    }
}

impl Errand {
    /// What the copy said, if it said something since.
    pub fn report(&self) -> Report {
        let mut nothing = [0_u8; 1];
        match recv(&self.channel, &mut nothing[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 1..)) => {}
            Ok(_) => return Report::Gone,
            Err(_) => return Report::Nothing,
        }
        let (word, terminal) = match packet::receive(&self.channel) {
            Ok(Some(mut packet)) => (packet.read(), packet.descriptors.pop()),
            Ok(None) => return Report::Gone,
            Err(error) => return Report::Failed(StartFailure::other(&error)),
        };
        match word {
            Ok(Word::Cgroup(Some(path))) => Report::Cgroup(path),
            Ok(Word::Cgroup(None)) => Report::Nothing,
            Ok(Word::Started { pid }) => match Pid::from_raw(pid) {
                Some(pid) => Report::Started { pid, terminal },
                None => Report::Gone,
            },
            Ok(Word::Failed(failure)) => Report::Failed(failure),
            Err(error) => Report::Failed(StartFailure::other(&error)),
        }
    }

    /// Ends the copy, and with it a process that has not come to its execve(2).
    pub fn kill(&self) {
        // It has not been waited for, so the number is still its own; it may have ended, and that is as good.
        let _ = kill_process(self.pid, Signal::KILL);
    }
}

/// Readable when [`Errand::report`] has something.
impl AsFd for Errand {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

fn send_out(
    name: &str,
    needs: Option<&Descriptors>,
    work: impl FnOnce(BorrowedFd<'_>) -> Result<Process, StartFailure>,
) -> Result<Errand, MonitorError> {
    let failed = |source: io::Error| MonitorError::system("prepare a start", name, source);
    let (channel, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|source| failed(source.into()))?;
    let monitor = getpid();
    match clone3(0, None).map_err(failed)? {
        Copy::Parent { pid, pidfd: _ } => Ok(Errand { pid, channel }),
        Copy::Child(_) => {
            drop(channel);
            let said = match depend_on(monitor, theirs.as_fd(), needs).and_then(|()| work(theirs.as_fd())) {
                Ok(process) => {
                    let terminal: Vec<BorrowedFd<'_>> = process.terminal.iter().map(AsFd::as_fd).collect();
                    packet::send(&theirs, &Word::Started { pid: process.pid.as_raw_nonzero().get() }, &terminal)
                }
                Err(failure) => packet::send(&theirs, &Word::Failed(failure), &[]),
            };
            // Nobody hears it when the monitor is gone; then the status does not matter either.
            exit_now(i32::from(said.is_err()))
        }
    }
}

/// Ends with the monitor, and lets go of what is the monitor's alone. The memory is a copy and is never cleaned up
/// ([`exit_now`]), so nobody closes a descriptor a second time.
fn depend_on(monitor: Pid, channel: BorrowedFd<'_>, needs: Option<&Descriptors>) -> Result<(), StartFailure> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| StartFailure::other(&error))?;
    // It may have died before the signal was asked for (PR_SET_PDEATHSIG(2const)).
    if getppid() != Some(monitor) {
        exit_now(1);
    }
    let mut keep = vec![channel];
    keep.extend(needs.iter().flat_map(|needs| [&needs.stdin, &needs.stdout, &needs.stderr]).map(AsFd::as_fd));
    // Standard error takes what is said in despair.
    close_others(3, &keep).map_err(|error| StartFailure::other(&error))
}

fn start_here(
    launch: &Launch,
    window: Option<Window>,
    stdio: Stdio<'_>,
    channel: BorrowedFd<'_>,
) -> Result<Process, StartFailure> {
    let mut spec = read_config(&launch.config)?;
    if let (Some(process), Some(window)) = (spec.process_mut(), window) {
        process.set_console_size(console_size(window));
    }
    let cgroup = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
    packet::send(channel, &Word::Cgroup(cgroup.clone()), &[]).map_err(|error| StartFailure::other(&error))?;
    if let Some(path) = cgroup {
        let hierarchy = cgroup::detect().map_err(|error| StartFailure::of(&error))?;
        clear(&cgroup::open(&hierarchy, &path))?;
    }
    let request = launch::Request {
        spec: &spec,
        root: &launch.root,
        directories: &launch.directories,
        stdio,
        identity: launch.identity.as_ref(),
        first: if launch.init { FirstProcess::Init } else { FirstProcess::Command },
        caller: Caller::default(),
    };
    launch::start(&request).map_err(|error| StartFailure::of(&error))
}

/// Ends what an earlier run left in the cgroup, so that two never run side by side: a workload whose monitor was
/// killed goes on until a new monitor comes to this line. What not even SIGKILL ends is a start that failed, and the
/// restart policy says when the next is tried.
fn clear(cgroup: &cgroup::Cgroup) -> Result<(), StartFailure> {
    let deadline = Instant::now() + LEFTOVERS;
    loop {
        let left = match cgroup.exists() {
            true => cgroup.processes().map_err(|error| StartFailure::of(&error))?,
            false => Vec::new(),
        };
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let hanging = hanging::of(left.iter().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()));
            let overdue = MonitorError::Overdue { what: "end what an earlier run left", time: LEFTOVERS, hanging };
            return Err(StartFailure::other(&overdue));
        }
        cgroup.kill().map_err(|error| StartFailure::of(&error))?;
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn exec_here(launch: &Launch, request: &ExecSpec, stdio: Stdio<'_>, target: Pid) -> Result<Process, StartFailure> {
    let spec = read_config(&launch.config)?;
    let process = process_of(&spec, request);
    let identity = match &request.user {
        Some(user) => Some(Identity { user: user.clone(), groups: Vec::new() }),
        None => launch.identity.clone(),
    };
    let pidfd = pidfd_open(target, PidfdFlags::empty()).map_err(|error| StartFailure::other(&error))?;
    let request = exec::Request {
        spec: &spec,
        process: &process,
        identity: identity.as_ref(),
        stdio,
        target: exec::Target { pid: target, pidfd: pidfd.as_fd() },
        inheritance: Inheritance::default(),
        below: &[],
        state: None,
    };
    exec::exec(&request).map_err(|error| StartFailure::of(&error))
}

fn read_config(path: &Path) -> Result<Spec, StartFailure> {
    config_file::read(path).map_err(|error| StartFailure::other(&error))
}

fn console_size(Window { rows, columns }: Window) -> Option<oci_spec::runtime::Box> {
    // The builder fails on fields that are missing, and none is.
    BoxBuilder::default().height(rows).width(columns).build().ok()
}

/// The container's own process with the request's differences.
fn process_of(spec: &Spec, request: &ExecSpec) -> ProcessSpec {
    let ExecSpec { command, environment, user: _, working_dir, input_output, window, privilege } = request;
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_args(Some(command.clone()));
    process.set_terminal(Some(*input_output == InputOutput::Terminal));
    process.set_console_size(window.and_then(console_size));
    let mut variables = process.env().clone().unwrap_or_default();
    for variable in environment {
        let name = variable.split('=').next().unwrap_or_default();
        variables.retain(|old| old.split('=').next() != Some(name));
        variables.push(variable.clone());
    }
    process.set_env(Some(variables));
    if let Some(path) = working_dir {
        process.set_cwd(path.into());
    }
    if *privilege == Privilege::Full {
        process.set_no_new_privileges(Some(false));
        let all: Option<std::collections::HashSet<_>> = Some(
            capabilities::host_bounding().iter().filter_map(|capability| capability.to_string().parse().ok()).collect(),
        );
        let mut sets = process.capabilities().clone().unwrap_or_default();
        sets.set_bounding(all.clone()).set_permitted(all.clone()).set_effective(all);
        sets.set_inheritable(None).set_ambient(None);
        process.set_capabilities(Some(sets));
    }
    process
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Capability;

    #[test]
    fn a_further_process_differs_from_the_first_only_as_asked() {
        let mut spec = Spec::default();
        let mut process = ProcessSpec::default();
        process.set_env(Some(vec!["A=1".into(), "B=2".into()])).set_cwd("/srv".into());
        spec.set_process(Some(process));
        let plain = process_of(&spec, &ExecSpec { command: vec!["id".into()], ..ExecSpec::default() });
        assert_eq!(plain.args().as_deref(), Some(&["id".to_owned()][..]));
        assert_eq!(
            (plain.cwd(), plain.capabilities()),
            (&PathBuf::from("/srv"), spec.process().as_ref().unwrap().capabilities())
        );
        let changed = ExecSpec {
            command: vec!["id".into()],
            environment: vec!["A=3".into()],
            working_dir: Some("/tmp".into()),
            input_output: InputOutput::Terminal,
            window: Some(Window { rows: 33, columns: 99 }),
            privilege: Privilege::Full,
            user: None,
        };
        let changed = process_of(&spec, &changed);
        assert_eq!(changed.env().as_deref(), Some(&["B=2".to_owned(), "A=3".into()][..]));
        assert_eq!((changed.cwd(), changed.terminal()), (&PathBuf::from("/tmp"), Some(true)));
        assert_eq!(changed.console_size().map(|size| (size.height(), size.width())), Some((33, 99)));
        let effective = changed.capabilities().as_ref().unwrap().effective().clone().unwrap();
        assert!(effective.contains(&Capability::Chown));
        assert_eq!(effective.len(), capabilities::host_bounding().len());
    }
}
