//! Starting the first process of a container.
//!
//! The parent's side: prepare, make the cgroup, clone3(2), listen. The child's side is `init`.
//!
//! # Where the time goes
//!
//! Create, start, exit and delete of `/bin/true` under Docker's default configuration by `evenkeel-runtime` take 9.6 ms
//! of wall time and 9.3 ms of processor time; crun takes 39.6 and 31.1, runc 55.0 and 53.1, the bare kernel work 3.3 and
//! 3.1 (medians of 60 lives in turns on two processors: `cargo bench --bench runtime -- --runs 60`). Of the processor time
//! `create` has two fifths, the container's process itself a quarter, `delete` and `start` a sixth each:
//!
//! * A third is the kernel's for the objects that the configuration asks for, whoever asks (the benchmark's floor):
//!   clone3(2) with five namespaces, some twenty mounts, pivot_root(2), which looks at every process of
//!   the host, the end of the host's tree and of the container's, and five cgroups (see `cgroup`).
//! * Two are four executions of a program: `create` has one more, through a read-only mount (see [`super::binary`]).
//!   One of a static program that does nothing takes 0.4 ms, one of this that prints its version 0.7: a hundred pages more
//!   that are touched for the first time, of which relocated tables have 47, the tree of options 34, the text 30. A program
//!   at a fixed address would do without the first, and be where every attacker looks for it.
//! * The rest is this program's own: relocation and first touch of its pages, the tree of options, the configuration,
//!   which is compared with what was understood of it to find what is not known.

use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use oci_spec::runtime::{ContainerState, Hooks, LinuxResources, Spec, State};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};

use super::cgroup::{self, Cgroup};
use super::error::{Context, RuntimeError, Warning};
use super::gate::Gate;
use super::handshake::{self, Channel, Report, Word};
use super::hooks::{self, Moment};
use super::init;
use super::net_devices;
use super::null_device::Guarded;
use super::outside::Users;
use super::prepare::{Setup, prepare};
use super::program::Privileges;
use crate::model::launch::{Identity, RootFilesystem};
use crate::sys::clone::{Copy, clone3, exit_now};

/// Everything that makes a container's first process. Borrowed: a monitor keeps it for restarts.
pub struct Request<'a> {
    pub spec: &'a Spec,
    pub root: &'a RootFilesystem,
    /// Made where they are missing, as the working directory is.
    pub directories: &'a [PathBuf],
    pub stdio: Stdio<'a>,
    /// Names to look up in the container's own `/etc/passwd` and `/etc/group`, in place of `process.user`.
    pub identity: Option<&'a Identity>,
    pub first: FirstProcess,
    pub caller: Caller<'a>,
}

/// What the caller of an OCI runtime has to say beside the configuration; by default nothing.
#[derive(Clone, Copy, Default)]
pub struct Caller<'a> {
    /// The container as its hooks are told of it: version, id, bundle and annotations. A configuration with hooks
    /// needs it.
    pub state: Option<&'a State>,
    /// Where the first process waits to be started, also when the caller is gone. Without one it waits for
    /// [`Created::start`], and ends with the caller.
    pub gate: Option<&'a Gate>,
    pub inheritance: Inheritance,
}

/// What a process of the container has from the caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inheritance {
    /// So many descriptors from 3 on. All must be open.
    pub descriptors: u32,
    pub keyring: Keyring,
}

/// Whose session keyring it has (session-keyring(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keyring {
    /// A new one of its own.
    #[default]
    New,
    /// The caller's.
    Inherited,
}

/// What becomes process 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FirstProcess {
    /// The command itself.
    #[default]
    Command,
    /// A small init that starts the command, forwards signals to it and reaps orphans.
    Init,
}

/// The standard descriptors of a process.
#[derive(Clone, Copy)]
pub enum Stdio<'a> {
    Descriptors {
        stdin: &'a OwnedFd,
        stdout: &'a OwnedFd,
        stderr: &'a OwnedFd,
    },
    /// A pseudo-terminal of the container's own devpts. Its master side comes back as `terminal`.
    Terminal(Lines),
}

/// What a new terminal does to the ends of lines (termios(3), `ONLCR`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// `\n` becomes `\r\n`, as everywhere.
    Completed,
    /// What is written comes out as it is.
    Kept,
}

/// A process that executes its command. The caller is its parent and must wait for it.
#[derive(Debug)]
pub struct Process {
    /// As the caller sees it.
    pub pid: Pid,
    pub pidfd: OwnedFd,
    /// The master side, where [`Stdio::Terminal`] was asked for.
    pub terminal: Option<OwnedFd>,
    /// What the configuration asks for and this host could not give.
    pub warnings: Vec<Warning>,
}

/// A container whose process waits, everything set up, for the word to execute its command. Dropped, the process
/// ends and is waited for.
pub struct Created {
    child: Child,
    terminal: Option<OwnedFd>,
    warnings: Vec<Warning>,
}

/// Creates a container and executes its command. Returns after execve(2) has succeeded, or with the reason why
/// not; then the process is gone and waited for.
pub fn start(request: &Request<'_>) -> Result<Process, RuntimeError> {
    create(request)?.start()
}

/// Creates a container whose command is executed by [`Created::start`] (OCI runtime-spec, runtime.md, "create").
/// Its cgroup stays when this fails: others may have made it.
pub fn create(request: &Request<'_>) -> Result<Created, RuntimeError> {
    begin(request)?.first()?.finish()
}

/// A container whose first process exists and builds the rest. Dropped, the process ends and is waited for.
pub struct Begun<'a> {
    child: Child,
    /// Of which hooks are to be run on the way.
    hooked: Option<(Option<&'a Hooks>, &'a State)>,
    /// Whether the first process is yet to be made, by this one.
    enters_last: bool,
    late_limit: Option<(Cgroup, LinuxResources)>,
    warnings: Vec<Warning>,
}

/// A container whose first process waits for nothing but to be remembered. Dropped, the process ends and is waited for.
pub struct First {
    child: Child,
    warnings: Vec<Warning>,
}

/// The first third of [`create`]: who has to remember the process can do so before anything takes its time.
pub fn begin<'a>(request: &Request<'a>) -> Result<Begun<'a>, RuntimeError> {
    let stdio = Guarded::of(request.stdio)?;
    let mut setup = prepare(request)?;
    setup.stdio = stdio.stdio();
    let status = match setup.program.privileges {
        Privileges::NoNew => ContainerState::Created,
        Privileges::MayGrow => ContainerState::Creating,
    };
    setup.program.reach_agent(request.caller.state, status)?;
    let enters_last = setup.namespaces.join_pid.is_some();
    let pids = if enters_last { PidsLimit::AfterBirth } else { PidsLimit::AtOnce };
    let (cgroup, late) = make_cgroup(request.spec, pids)?;
    let users = Users::ensure(&setup)?;
    let child = clone_child(&setup, &users, cgroup.as_ref())?;
    if !setup.net_devices.is_empty() {
        net_devices::hand_over(&setup.net_devices, network_of(&setup, child.pid)?.as_fd())?;
        child.tell(Word::Connected)?;
    }
    let late_limit = cgroup.zip(late);
    let hooked = request.caller.state.filter(|_| setup.is_hooked).map(|state| (request.spec.hooks().as_ref(), state));
    Ok(Begun { child, hooked, enters_last, late_limit, warnings: setup.program.warnings })
}

impl Begun<'_> {
    /// The process. That of [`First`] may be another, whom this one makes.
    pub fn pid(&self) -> Pid {
        self.child.pid
    }

    /// The second third: hooks of creation have run, and the first process is there.
    pub fn first(self) -> Result<First, RuntimeError> {
        let Begun { mut child, hooked, enters_last, late_limit, warnings } = self;
        if let Some((hooks, state)) = hooked {
            child.assembled()?;
            hooks::run(hooks, Moment::Prestart, state, Some(child.pid))?;
            hooks::run(hooks, Moment::CreateRuntime, state, Some(child.pid))?;
            child.tell(Word::Hooked)?;
        }
        if enters_last {
            child.become_the_first()?;
        }
        if let Some((cgroup, resources)) = late_limit {
            cgroup.update(&resources)?;
        }
        Ok(First { child, warnings })
    }
}

impl First {
    /// The first process. It goes no further than its parent lives until [`First::finish`] tells it that it is known.
    pub fn pid(&self) -> Pid {
        self.child.pid
    }

    /// The last third.
    pub fn finish(self) -> Result<Created, RuntimeError> {
        let First { child, warnings } = self;
        child.tell(Word::Known)?;
        let terminal = child.created()?;
        Ok(Created { child, terminal, warnings })
    }
}

impl Created {
    /// The waiting process.
    pub fn pid(&self) -> Pid {
        self.child.pid
    }

    /// What the configuration asks for and this host could not give.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Executes the command (runtime.md, "start").
    pub fn start(self) -> Result<Process, RuntimeError> {
        let Created { child, terminal, warnings } = self;
        child.tell(Word::Start)?;
        Ok(Process { terminal, warnings, ..child.executed()? })
    }

    /// Lets go of a process that waits at a gate. Comes back with the master side of its terminal.
    pub fn leave(mut self) -> Option<OwnedFd> {
        self.child.pidfd = None;
        self.terminal
    }
}

/// A child that has not executed anything yet. Dropped, it is ended and waited for.
pub(super) struct Child {
    pid: Pid,
    pidfd: Option<OwnedFd>,
    channel: Channel,
}

impl Child {
    pub(super) fn new(pid: Pid, pidfd: OwnedFd, channel: Channel) -> Child {
        Child { pid, pidfd: Some(pidfd), channel }
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits until the process in between has made the first one, and stands for that one from then on.
    pub(super) fn become_the_first(&mut self) -> Result<(), RuntimeError> {
        match self.channel.report()? {
            Report::Born { pid, pidfd } => {
                let between = self.pidfd.replace(pidfd);
                self.pid = pid;
                match between {
                    Some(between) => waitid(WaitId::PidFd(between.as_fd()), WaitIdOptions::EXITED)
                        .map(drop)
                        .during("wait for", "the process between"),
                    None => Ok(()),
                }
            }
            Report::Failed(error) => Err(error),
            _ => Err(RuntimeError::Died),
        }
    }

    /// Waits until the process is in all its namespaces but that of processes.
    fn apart(&self) -> Result<(), RuntimeError> {
        match self.channel.report()? {
            Report::Apart => Ok(()),
            Report::Failed(error) => Err(error),
            _ => Err(RuntimeError::Died),
        }
    }

    pub(super) fn tell(&self, word: Word) -> Result<(), RuntimeError> {
        // A child that failed has closed its side; its reason is what the caller reads next.
        match self.channel.tell(word) {
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => Ok(()),
            other => other.during("talk to", "the container's first process"),
        }
    }

    /// Waits until the root filesystem is whole.
    fn assembled(&self) -> Result<(), RuntimeError> {
        match self.channel.report()? {
            Report::Assembled => Ok(()),
            Report::Failed(error) => Err(error),
            _ => Err(RuntimeError::Died),
        }
    }

    /// Waits until the child is ready to execute.
    pub(super) fn created(&self) -> Result<Option<OwnedFd>, RuntimeError> {
        match self.channel.report_of(self.pid)? {
            Report::Created { terminal } => Ok(terminal),
            Report::Failed(error) => Err(error),
            _ => Err(RuntimeError::Died),
        }
    }

    /// Waits until the child has executed its command.
    pub(super) fn executed(mut self) -> Result<Process, RuntimeError> {
        match self.channel.report_of(self.pid)? {
            Report::Failed(error) => Err(error),
            Report::Closed => match self.pidfd.take() {
                Some(pidfd) => Ok(Process { pid: self.pid, pidfd, terminal: None, warnings: Vec::new() }),
                None => Err(RuntimeError::Died),
            },
            _ => Err(RuntimeError::Died),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let Some(pidfd) = self.pidfd.take() else { return };
        // It may have ended by itself already, and nobody is left to tell about a failure here.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

/// When the limit of processes begins. What it takes to build a container does not count against it: where others help
/// the first process into a pid namespace, they live in the container's cgroup for that long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PidsLimit {
    AtOnce,
    AfterBirth,
}

/// The cgroup at `linux.cgroupsPath` with the limits of `linux.resources`, and those that are still to be set. Without a
/// path the process stays in the caller's, and limits are an error.
fn make_cgroup(spec: &Spec, pids: PidsLimit) -> Result<(Option<Cgroup>, Option<LinuxResources>), RuntimeError> {
    let linux = spec.linux().as_ref();
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    match linux.and_then(|linux| linux.cgroups_path().as_ref()) {
        Some(path) => {
            let mut resources = resources.cloned().unwrap_or_default();
            let late = match (pids, resources.pids()) {
                (PidsLimit::AfterBirth, Some(limit)) => {
                    let mut late = LinuxResources::default();
                    late.set_devices(None).set_pids(Some(*limit));
                    let mut none = *limit;
                    none.set_limit(-1);
                    resources.set_pids(Some(none));
                    Some(late)
                }
                (PidsLimit::AfterBirth, None) | (PidsLimit::AtOnce, _) => None,
            };
            Ok((Some(cgroup::create(&cgroup::detect()?, path, &resources)?), late))
        }
        None if resources.is_some_and(|resources| *resources != LinuxResources::default()) => {
            Err(super::error::invalid("linux.resources", "limits need `linux.cgroupsPath`"))
        }
        None => Ok((None, None)),
    }
}

fn clone_child(setup: &Setup<'_>, users: &Users, cgroup: Option<&Cgroup>) -> Result<Child, RuntimeError> {
    let birthplace = cgroup.map(Cgroup::birthplace).transpose()?.flatten();
    let is_between = setup.namespaces.need_a_process_between();
    let kinds = if is_between { libc::CLONE_NEWNS as u64 } else { setup.namespaces.fresh };
    let (ours, theirs) = handshake::pair()?;
    let copy =
        clone3(kinds, birthplace.as_ref().map(OwnedFd::as_fd)).during("make", "the container's first process")?;
    match copy {
        Copy::Child(one_thread) => {
            drop(ours);
            become_child(&theirs, || init::run(setup, users, cgroup, &theirs, &one_thread))
        }
        Copy::Parent { pid, pidfd } => {
            drop(theirs);
            let mut child = Child::new(pid, pidfd, ours);
            match (is_between, &setup.namespaces.join_pid) {
                (true, None) => child.become_the_first()?,
                (true, Some(_)) => child.apart()?,
                (false, _) => {}
            }
            Ok(child)
        }
    }
}

/// The network namespace that a container joins, or that its first process was born in.
fn network_of(setup: &Setup<'_>, pid: Pid) -> Result<OwnedFd, RuntimeError> {
    let joined = setup.namespaces.join.iter().find(|(kind, ..)| *kind == libc::CLONE_NEWNET);
    match joined {
        Some((_, namespace, path)) => namespace.try_clone().during("open the namespace", path.display()),
        None => {
            let path = format!("/proc/{}/ns/net", pid.as_raw_nonzero());
            open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).during("open the namespace", path)
        }
    }
}

/// What a child does in place of returning into a copy of its parent's stack.
pub(super) fn become_child<N>(channel: &Channel, line: impl FnOnce() -> Result<N, RuntimeError>) -> ! {
    // A panic must not unwind into the parent's code either.
    if let Ok(Err(error)) = catch_unwind(AssertUnwindSafe(line)) {
        // Nobody hears it when the parent is gone.
        let _ = channel.failed(&error);
    }
    exit_now(1)
}

/// The running process `pid`, as a [`super::exec::Target`] needs it.
pub fn open_process(pid: Pid) -> Result<OwnedFd, RuntimeError> {
    pidfd_open(pid, PidfdFlags::empty()).during("open the process", pid.as_raw_nonzero())
}
