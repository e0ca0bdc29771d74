//! A further process in a running container.
//!
//! ```text
//! parent            between (in the host's pid namespace)       child (born in the container's pid namespace)
//!  clone3 ---------> new session, no descriptors but its own
//!                    enter the cgroup (in version 2 born in it)
//!                    labels for the next execve(2)
//!                    setns(pidfd): all namespaces at once
//!                    terminal; standard descriptors
//!                    no more capabilities than it takes
//!   <------- Born -- clone3(CLONE_PARENT) ---------------------> new session
//!                    ends                                        steps 16 to 21 of `init`
//!   <----------------------------------------------- Created --
//!  Start ------------------------------------------------------> steps 22 to 24
//! ```
//!
//! From its birth the child lives beside the container's processes while it is still this program. It is not dumpable,
//! so that they can neither trace it nor open what /proc shows of it (CVE-2016-9962, and CVE-2019-5736 for this
//! program's own file).
//!
//! # Decisions
//!
//! That is no defence against a container with `CAP_SYS_PTRACE` and no user namespace of its own (ptrace(2), "Ptrace
//! access mode checking"). So whoever is made where the container sees it has nothing left that the container has not:
//! the root, the working directory and each open directory are the container's, the descriptors are those that the
//! program gets, and the bounding set is the program's. Joining the pid namespace first and the others later, in one
//! process, would leave the host's root behind /proc/PID/root for that long. The price is a further copy of this
//! process, which needs room in the container's limit of processes while both live. Configurations that allow new
//! privileges and have a filter keep `CAP_SYS_ADMIN` until the filter is installed (seccomp(2)).

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd};

use oci_spec::runtime::{ContainerState, Process as ProcessSpec, Spec, State};
use rustix::fs::{Mode, OFlags, fstatfs, open};
use rustix::process::Pid;

use super::cgroup::{self, Below, Cgroup, Place, Stats};
use super::error::{Context, RuntimeError, invalid};
use super::handshake::{self, Channel, Word};
use super::launch::{Child, Inheritance, Lines, Process, Stdio, become_child};
use super::null_device::Guarded;
use super::program::{self, Program};
use super::terminal::{self, Terminal};
use super::user_namespace::{self, Mapping};
use super::visible::become_visible;
use super::{init, outside};
use crate::model::launch::Identity;
use crate::sys;
use crate::sys::clone::{Copy, OneThread, clone3};

pub struct Request<'a> {
    /// The container's configuration: its seccomp filter and its cgroup hold for this process too.
    pub spec: &'a Spec,
    /// What to execute, and as whom.
    pub process: &'a ProcessSpec,
    /// Names to look up in the container, in place of `process.user`.
    pub identity: Option<&'a Identity>,
    pub stdio: Stdio<'a>,
    pub target: Target<'a>,
    pub inheritance: Inheritance,
    /// Below the container's own cgroup, for this process.
    pub below: &'a [Below],
    /// The container as the agent of its seccomp filter is told of it; a filter that notifies needs it.
    pub state: Option<&'a State>,
}

/// A process of the container, usually its first one.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub pid: Pid,
    pub pidfd: BorrowedFd<'a>,
}

/// Every namespace but those of users and time, which not every container has of its own, and nobody joins again that
/// he is in.
const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWPID;

/// Linux, magic.h: what statfs(2) says of a devpts instance.
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// Starts a process in all namespaces and in the cgroup of `target`. Returns after execve(2) has succeeded. The
/// process is a child of the caller, which must wait for it.
pub fn exec(request: &Request<'_>) -> Result<Process, RuntimeError> {
    let linux = request.spec.linux().as_ref();
    let mut program = program::prepare(request.process, request.identity, linux)?;
    program.reach_agent(request.state, ContainerState::Running)?;
    let cgroup = match linux.and_then(|linux| linux.cgroups_path().as_ref()) {
        Some(path) => Some(cgroup::open(&cgroup::detect()?, path)),
        None if !request.below.is_empty() => {
            return Err(invalid("--cgroup", "the container has no cgroup of its own (`linux.cgroupsPath`)"));
        }
        None => None,
    };
    let place = cgroup.as_ref().map(|cgroup| Place::find(cgroup, request.below)).transpose()?;
    let elsewhere = program.placement.begin()?;
    let stdio = Guarded::of(request.stdio)?;
    let request = &Request { stdio: stdio.stdio(), ..*request };
    let child = match (clone_child(request, &program, place.as_ref()), &cgroup, &place) {
        (Err(error), Some(cgroup), Some(Place::Birthplace(_))) if is_busy(&error) && request.below.is_empty() => {
            clone_child(request, &program, Some(&Place::beside(cgroup, request.target.pid)?))
        }
        (born, ..) => born,
    };
    let child = child.map_err(|error| explained(error, cgroup.as_ref()))?;
    drop(elsewhere);
    child.tell(Word::Start)?;
    let terminal = child.created()?;
    Ok(Process { terminal, warnings: program.warnings, ..child.executed()? })
}

/// The child, and nothing else: the process in between has ended.
fn clone_child(request: &Request<'_>, program: &Program, place: Option<&Place>) -> Result<Child, RuntimeError> {
    let birthplace = match place {
        Some(Place::Birthplace(directory)) => Some(directory.as_fd()),
        Some(Place::Directories(_)) | None => None,
    };
    let (ours, theirs) = handshake::pair()?;
    match clone3(0, birthplace).during("make", "a process in the container")? {
        Copy::Child(one_thread) => {
            drop(ours);
            become_child(&theirs, || {
                if let Some(place) = place {
                    place.entrance()?.enter(&one_thread)?;
                }
                hand_over(request, program, &theirs, &one_thread)
            })
        }
        Copy::Parent { pid, pidfd } => {
            drop(theirs);
            let mut child = Child::new(pid, pidfd, ours);
            child.become_the_first()?;
            child.tell(Word::Known)?;
            Ok(child)
        }
    }
}

/// The cgroup takes no processes.
fn is_busy(error: &RuntimeError) -> bool {
    matches!(error, RuntimeError::Step { source, .. } if source.raw_os_error() == Some(libc::EBUSY))
}

/// EAGAIN has many reasons (clone(2)); the one that is the container's own is told with its numbers.
fn explained(error: RuntimeError, cgroup: Option<&Cgroup>) -> RuntimeError {
    let RuntimeError::Step { step, source, .. } = &error else { return error };
    if step != "make" || source.raw_os_error() != Some(libc::EAGAIN) {
        return error;
    }
    match cgroup.map(Cgroup::stats) {
        // The process in between has ended again, or was not even born.
        Some(Ok(Stats { pids: used, pids_limit: Some(limit), .. })) if used + 2 > limit => {
            RuntimeError::Crowded { used, limit }
        }
        _ => error,
    }
}

/// The process in between: goes wherever the child is to be, makes it, says so, and ends.
fn hand_over(
    request: &Request<'_>,
    program: &Program,
    channel: &Channel,
    one_thread: &OneThread,
) -> Result<Infallible, RuntimeError> {
    let target = request.target.pidfd;
    init::begin(program, request.inheritance)?;
    let kept: Vec<BorrowedFd<'_>> = [target].into_iter().chain(program.agent_descriptors()).collect();
    init::keep_only(channel, request.stdio, request.inheritance, &kept)?;
    // They outlast a copy of the process, and the way to them is closed again before there is one.
    program.labels.apply(program.labels.open()?.as_ref())?;
    join(request, program)?;
    let terminal = match request.stdio {
        Stdio::Terminal(lines) => Some(open_terminal(program, lines)?),
        Stdio::Descriptors { .. } => None,
    };
    init::replace_stdio(init::stdio_of(request.stdio, terminal.as_ref())?)?;
    program.placement.end()?;
    become_visible(program, "a process in the container", channel, one_thread)?;
    let stdio = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let command = init::get_ready(program, stdio, terminal.as_ref())?;
    channel.created(terminal.as_ref().map(|terminal| terminal.master.as_fd())).during("report to", "the parent")?;
    drop(terminal);
    channel.expect(Word::Start).during("wait for", "the word to start")?;
    init::protect(program, None)?;
    init::pass_on(request.inheritance)?;
    command.execute()
}

/// All at once: the kernel puts them into the order that their owners demand (setns(2)). That of processes concerns
/// children only (pid_namespaces(7)).
fn join(request: &Request<'_>, program: &Program) -> Result<(), RuntimeError> {
    let Target { pid, pidfd } = request.target;
    let mut kinds = NAMESPACES;
    if user_namespace::is_other(pid, "time")? {
        kinds |= libc::CLONE_NEWTIME;
    }
    let has_users = user_namespace::is_other(pid, "user")?;
    init::raise_limits(program)?;
    if has_users {
        kinds |= libc::CLONE_NEWUSER;
    }
    if let (true, Stdio::Descriptors { stdin, stdout, stderr }) = (has_users, request.stdio) {
        outside::give_away(&[stdin, stdout, stderr], &Mapping::of(pid)?)?;
    }
    sys::namespace::setns(pidfd, kinds).during("join the namespaces of process", pid)?;
    if has_users { user_namespace::become_root() } else { Ok(()) }
}

/// The container may have anything at /dev/pts: only a devpts instance will do.
fn open_terminal(program: &Program, lines: Lines) -> Result<Terminal, RuntimeError> {
    let step = "open a terminal of";
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let devpts = open("/dev/pts", flags, Mode::empty()).during(step, "/dev/pts")?;
    match fstatfs(&devpts).during(step, "/dev/pts")?.f_type {
        DEVPTS_MAGIC => terminal::open(devpts.as_fd(), program.terminal_size, lines),
        _ => Err(rustix::io::Errno::NODEV).during(step, "/dev/pts"),
    }
}
