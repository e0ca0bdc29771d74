//! A further process in a running container.
//!
//! ```text
//! parent                                   child (born in the container's pid namespace; in version 2 in its cgroup)
//!  setns(pidfd, pid); clone3; setns back    new session, no descriptors but its own, not dumpable
//!                                           join the cgroup (version 1)
//!                                           setns(pidfd): mount, network, IPC, UTS and cgroup namespaces at once
//!  Start  --------------------------------> from here on as the first process: see steps 16 to 24 in `init`
//! ```
//!
//! While the child is still this program, it already lives beside the container's processes. It is not dumpable, so
//! that they can neither trace it nor open what /proc shows of it: its descriptors (CVE-2016-9962) and this program's
//! own file (CVE-2019-5736).

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use oci_spec::runtime::{ContainerState, Process as ProcessSpec, Spec, State};
use rustix::fs::{Mode, OFlags, fstatfs, open};
use rustix::process::Pid;

use super::cgroup::{self, Cgroup, Entrance};
use super::error::{Context, RuntimeError, invalid};
use super::handshake::{self, Channel, Word};
use super::launch::{Child, ChildrenIn, Inheritance, Process, Stdio, become_child};
use super::program::{self, Program};
use super::terminal::{self, Terminal};
use super::user_namespace::{self, Mapping};
use super::{init, outside};
use crate::model::launch::Identity;
use crate::sys;
use crate::sys::clone::{Copy, clone3};

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
    /// A cgroup below the container's own, which exists, for this process.
    pub cgroup: Option<&'a Path>,
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
const NAMESPACES: i32 =
    libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET;

/// Linux, magic.h: what statfs(2) says of a devpts instance.
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// Starts a process in all namespaces and in the cgroup of `target`. Returns after execve(2) has succeeded. The
/// process is a child of the caller, which must wait for it.
pub fn exec(request: &Request<'_>) -> Result<Process, RuntimeError> {
    let linux = request.spec.linux().as_ref();
    let mut program = program::prepare(request.process, request.identity, linux)?;
    program.reach_agent(request.state, ContainerState::Running)?;
    let cgroup = match linux.and_then(|linux| linux.cgroups_path().as_ref()) {
        Some(path) => Some(find_cgroup(path, request.cgroup)?),
        None => None,
    };
    let elsewhere = program.placement.begin()?;
    let child = clone_child(request, &program, cgroup.as_ref())?;
    drop(elsewhere);
    child.tell(Word::Start)?;
    let terminal = child.created()?;
    Ok(Process { terminal, warnings: program.warnings, ..child.executed()? })
}

/// The container's cgroup, or the one below it.
fn find_cgroup(path: &Path, below: Option<&Path>) -> Result<Cgroup, RuntimeError> {
    let hierarchy = cgroup::detect()?;
    let Some(below) = below else { return Ok(cgroup::open(&hierarchy, path)) };
    if below.components().any(|part| part == Component::ParentDir) {
        return Err(invalid("--cgroup", "it must be a path without `..`"));
    }
    let found = cgroup::open(&hierarchy, &path.join(below.strip_prefix("/").unwrap_or(below)));
    match found.exists() {
        true => Ok(found),
        false => Err(rustix::io::Errno::NOENT).during("find in the container's cgroup", below.display()),
    }
}

fn clone_child(request: &Request<'_>, program: &Program, cgroup: Option<&Cgroup>) -> Result<Child, RuntimeError> {
    let birthplace = cgroup.map(Cgroup::birthplace).transpose()?.flatten();
    let (ours, theirs) = handshake::pair()?;
    let joined = ChildrenIn::join(request.target.pidfd, format_args!("of process {}", request.target.pid))?;
    let copy = clone3(0, birthplace.as_ref().map(OwnedFd::as_fd)).during("make", "a process");
    match copy {
        Ok(Copy::Child(one_thread)) => {
            drop(ours);
            become_child(&theirs, || {
                Entrance::open(cgroup)?.enter(&one_thread)?;
                run(request, program, &theirs)
            })
        }
        Ok(Copy::Parent { pid, pidfd }) => {
            let child = Child::new(pid, pidfd, ours);
            joined.leave()?;
            Ok(child)
        }
        Err(error) => Err(error),
    }
}

fn run(request: &Request<'_>, program: &Program, channel: &Channel) -> Result<Infallible, RuntimeError> {
    let target = request.target.pidfd;
    init::begin(program, request.inheritance)?;
    let kept: Vec<BorrowedFd<'_>> = [target].into_iter().chain(program.agent_descriptor()).collect();
    init::keep_only(channel, request.stdio, request.inheritance, &kept)?;
    let attributes = program.labels.open()?;
    join(request, program)?;
    let terminal = match request.stdio {
        Stdio::Terminal => Some(open_terminal(program)?),
        Stdio::Descriptors { .. } => None,
    };
    program.placement.end()?;
    let command = init::get_ready(program, request.stdio, terminal.as_ref())?;
    channel.created(terminal.as_ref().map(|terminal| terminal.master.as_fd())).during("report to", "the parent")?;
    drop(terminal);
    channel.expect(Word::Start).during("wait for", "the word to start")?;
    init::protect(program, request.inheritance, attributes.as_ref())?;
    command.execute()
}

/// All at once: the kernel puts them into the order that their owners demand (setns(2)).
fn join(request: &Request<'_>, program: &Program) -> Result<(), RuntimeError> {
    let Target { pid, pidfd } = request.target;
    let mut kinds = NAMESPACES;
    if user_namespace::is_other(pid, "time")? {
        kinds |= libc::CLONE_NEWTIME;
    }
    let has_users = user_namespace::is_other(pid, "user")?;
    if has_users {
        kinds |= libc::CLONE_NEWUSER;
        init::raise_limits(program)?;
    }
    if let (true, Stdio::Descriptors { stdin, stdout, stderr }) = (has_users, request.stdio) {
        outside::give_away(&[stdin, stdout, stderr], &Mapping::of(pid)?)?;
    }
    sys::namespace::setns(pidfd, kinds).during("join the namespaces of process", pid)?;
    if has_users { user_namespace::become_root() } else { Ok(()) }
}

/// The container may have anything at /dev/pts: only a devpts instance will do.
fn open_terminal(program: &Program) -> Result<Terminal, RuntimeError> {
    let step = "open a terminal of";
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let devpts = open("/dev/pts", flags, Mode::empty()).during(step, "/dev/pts")?;
    match fstatfs(&devpts).during(step, "/dev/pts")?.f_type {
        DEVPTS_MAGIC => terminal::open(devpts.as_fd(), program.terminal_size),
        _ => Err(rustix::io::Errno::NODEV).during(step, "/dev/pts"),
    }
}
