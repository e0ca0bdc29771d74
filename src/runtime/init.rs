//! What the child does between clone3(2) and execve(2): one straight line.
//!
//! ```text
//!  in the host's tree                      in the container's tree
//!   1 signals as new; no file mode mask     13 pivot_root; the host's tree is gone
//!   2 new session, new session keyring      14 join our cgroups
//!   3 OOM score, io priority; not dumpable  15 new cgroup namespace
//!   4 join namespaces given by path;        16 look up user; enter the working directory
//!     close what is not ours                17 standard descriptors, controlling terminal
//!   5 network devices; names of the host    18 umask, rlimits, bounding set
//!   6 open sources of bind mounts           19 no descriptor goes on that is not meant to
//!   7 cut off from the host's mounts           (seccomp here, when new privileges are allowed)
//!   8 assemble the root filesystem          20 become the user; capabilities
//!   9 mounts, in the order given            21 find the command: "created"; wait for the word to start
//!  10 devices, terminal, directories        22 labels, no new privileges, seccomp
//!  11 kernel parameters                        (startContainer hooks)
//!  12 read-only and masked paths            23 the caller's descriptors go on
//!     (the hooks of creation)               24 execve; or split the command off and be its init (`reaper`),
//!                                              before step 22, which both then take
//! ```
//!
//! A startContainer hook is a program of the container's tree, which an image brings, so it runs with all that the
//! command is held by. From step 22 on, and from 19 where new privileges are allowed, the filter holds for this program
//! too: what is left then are calls that every filter must allow which lets a program be executed.
//!
//! A container with a user namespace or a time namespace of its own has a process between: it walks steps 1 to 4, 6 and
//! 7 as the host's user, makes what only that one may (`outside`), joins the user namespace, and makes the first
//! process, whose other namespaces then belong to that user namespace. The parent hears of that process from it, and
//! is its parent all the same (clone(2), `CLONE_PARENT`).
//!
//! So has one that joins a pid namespace, where others see it: there the process between walks all steps to 15, by which
//! it has nothing left of the host's, and the first process steps 16 to 24. What runs before that, a hook, is told of
//! the process between.
//!
//! Step 14 is late on purpose: what it takes to build the container does not count against its limits of memory and
//! processes. Hooks of creation bring steps 14 and 15 before 13. In version 2 the process is born in its cgroup.
//!
//! Nothing below the container's /proc is opened, and nothing of its /dev by name (CVE-2025-31133, CVE-2025-52565,
//! CVE-2025-52881). An error at any step goes to the parent as data; then the child ends.

use std::collections::HashSet;
use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::Mode;
use rustix::process::{
    DumpableBehavior, Rlimit, chdir, fchdir, getcwd, getpid, getrlimit, set_dumpable_behavior, setrlimit, setsid, umask,
};
use rustix::system::{setdomainname, sethostname};
use rustix::thread::set_no_new_privs;

use super::capabilities;
use super::cgroup::{Cgroup, Entrance};
use super::command::{self, Command};
use super::error::{Context, RuntimeError, invalid};
use super::handshake::{Channel, Word};
use super::hooks::{self, Moment};
use super::identity::{self, Numbers};
use super::label::Attributes;
use super::launch::{FirstProcess, Inheritance, Keyring, Lines, Stdio};
use super::outside::{self, Outside, Users};
use super::placement;
use super::prepare::Setup;
use super::program::{Privileges, Program};
use super::reaper::{self, Role};
use super::seccomp::Agent;
use super::terminal::{self, Terminal};
use super::{between, devices, masks, mounts, paths, rootfs, sysctl};
use crate::sys;
use crate::sys::clone::OneThread;

/// Walks the line. Returns only the reason why it could not be walked to its end.
pub(super) fn run(
    setup: &Setup<'_>,
    users: &Users,
    cgroup: Option<&Cgroup>,
    channel: &Channel,
    one_thread: &OneThread,
) -> Result<Infallible, RuntimeError> {
    let inheritance = setup.caller.inheritance;
    begin(&setup.program, inheritance)?;
    if setup.first == FirstProcess::Init {
        reaper::take_name()?;
    }
    for (kind, namespace, path) in &setup.namespaces.join {
        sys::namespace::setns(namespace.as_fd(), *kind).during("join the namespace", path.display())?;
    }
    let pid_namespace = setup.namespaces.join_pid.iter().map(|(namespace, _)| namespace);
    let gate = setup.caller.gate.map(|gate| gate.as_fd());
    let others = gate.into_iter().chain(setup.program.agent_descriptors());
    let kept: Vec<BorrowedFd<'_>> =
        users.descriptors().chain(pid_namespace).map(OwnedFd::as_fd).chain(others).collect();
    keep_only(channel, setup.stdio, inheritance, &kept)?;
    let outside = outside::open(setup, users, cgroup, (channel, one_thread))?;
    match (&setup.namespaces.join_pid, setup.namespaces.need_a_process_between()) {
        (Some(processes), _) => between::enter_last(setup, users, processes, outside, (channel, one_thread)),
        (None, true) => between::hand_over(setup, users, outside, channel, one_thread),
        (None, false) => go_on(setup, outside, channel, one_thread),
    }
}

/// From step 5 on.
pub(super) fn go_on(
    setup: &Setup<'_>,
    outside: Outside,
    channel: &Channel,
    one_thread: &OneThread,
) -> Result<Infallible, RuntimeError> {
    let attributes = setup.program.labels.open()?;
    let terminal = assemble(setup, outside, channel, one_thread)?;
    let program = &setup.program;
    let command = get_ready(program, stdio_of(setup.stdio, terminal.as_ref())?, terminal.as_ref())?;
    channel.expect(Word::Known).during("wait for", "the word that it is known")?;
    await_start(setup, &command, terminal, attributes.as_ref(), (channel, one_thread))
}

/// Steps 5 to 15, without 6 and 7.
pub(super) fn assemble(
    setup: &Setup<'_>,
    outside: Outside,
    channel: &Channel,
    one_thread: &OneThread,
) -> Result<Option<Terminal>, RuntimeError> {
    if !setup.net_devices.is_empty() {
        channel.expect(Word::Connected).during("wait for", "the network devices")?;
    }
    if setup.namespaces.makes(libc::CLONE_NEWNET) {
        sys::loopback::raise().during("raise the interface", "lo")?;
    }
    name_host(setup)?;
    build_tree(setup, outside, channel, one_thread)
}

/// Says that all is ready, waits for the word, and goes on to the end.
pub(super) fn await_start(
    setup: &Setup<'_>,
    command: &Command,
    terminal: Option<Terminal>,
    attributes: Option<&Attributes>,
    (channel, one_thread): (&Channel, &OneThread),
) -> Result<Infallible, RuntimeError> {
    channel.created(terminal.as_ref().map(|terminal| terminal.master.as_fd())).during("report to", "the parent")?;
    drop(terminal);
    let step = "wait for";
    match setup.caller.gate {
        None => {
            channel.expect(Word::Start).during(step, "the word to start")?;
            execute(setup, command, attributes, one_thread)
        }
        Some(gate) => {
            let opener = gate.wait().during(step, "the word to start")?;
            let result = execute(setup, command, attributes, one_thread);
            if let Err(error) = &result {
                // Who opened the gate wants to know, and may be gone.
                let _ = opener.failed(error);
            }
            result
        }
    }
}

/// Steps 22 to 24. Where there are hooks, nobody splits: they belong to callers of the OCI command line.
fn execute(
    setup: &Setup<'_>,
    command: &Command,
    attributes: Option<&Attributes>,
    one_thread: &OneThread,
) -> Result<Infallible, RuntimeError> {
    let role = match setup.first {
        FirstProcess::Command => Role::Command,
        FirstProcess::Init => reaper::split(one_thread)?,
    };
    protect(&setup.program, attributes)?;
    if let (Some(state), Role::Command) = (setup.caller.state, &role) {
        let hooks = setup.spec.hooks().clone().map(|hooks| hooks::within(hooks, &command.environment()));
        hooks::run(hooks.as_ref(), Moment::StartContainer, state, Some(getpid()))?;
    }
    pass_on(setup.caller.inheritance)?;
    match role {
        Role::Command => command.execute(),
        Role::Init(reaper) => reaper.run(),
    }
}

/// Steps 1 to 3: what every process of a container begins with.
pub(super) fn begin(program: &Program, inheritance: Inheritance) -> Result<(), RuntimeError> {
    sys::signals::reset_all().during("reset", "the signals")?;
    // Device nodes and mount targets get exactly the modes that are asked for.
    umask(Mode::empty());
    begin_session()?;
    if inheritance.keyring == Keyring::New {
        sys::keyring::join_new_session_keyring().during("leave", "the session keyring")?;
    }
    if let Some(score) = program.oom_score_adj {
        std::fs::write("/proc/self/oom_score_adj", score.to_string()).during("set oom_score_adj to", score)?;
    }
    program.scheduling.set_io_priority()?;
    tell_agent(program)?;
    hide()
}

pub(super) fn begin_session() -> Result<(), RuntimeError> {
    setsid().map(drop).during("begin", "a session")
}

pub(super) fn tell_agent(program: &Program) -> Result<(), RuntimeError> {
    program.agent.as_ref().map_or(Ok(()), Agent::serve_this_process)
}

/// Until execve nobody in the container may trace this process or look into it (prctl(2), CVE-2016-9962).
pub(super) fn hide() -> Result<(), RuntimeError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).during("make undumpable", "the process")
}

/// Hard limits that are to be above this process's own; the rest follows with all others.
pub(super) fn raise_limits(program: &Program) -> Result<(), RuntimeError> {
    let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    for (resource, limit) in &program.limits {
        let own = getrlimit(*resource);
        if number(limit.maximum) > number(own.maximum) {
            let raised = Rlimit { current: own.current, maximum: limit.maximum };
            setrlimit(*resource, raised).during("set the limit", format!("{resource:?}").to_ascii_lowercase())?;
        }
    }
    Ok(())
}

/// Nothing of the caller's is open while the container can already see this process, but what it is to inherit.
pub(super) fn keep_only(
    channel: &Channel,
    stdio: Stdio<'_>,
    inheritance: Inheritance,
    others: &[BorrowedFd<'_>],
) -> Result<(), RuntimeError> {
    let mut keep = vec![channel.as_fd()];
    keep.extend(others);
    if let Stdio::Descriptors { stdin, stdout, stderr } = stdio {
        keep.extend([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]);
    }
    sys::descriptors::close_others(3 + inheritance.descriptors, &keep).during("close", "the other descriptors")
}

fn name_host(setup: &Setup<'_>) -> Result<(), RuntimeError> {
    if let Some(name) = &setup.hostname {
        sethostname(name.as_bytes()).during("set the host name", name)?;
    }
    if let Some(name) = &setup.domainname {
        setdomainname(name.as_bytes()).during("set the domain name", name)?;
    }
    Ok(())
}

/// Steps 8 to 15.
fn build_tree(
    setup: &Setup<'_>,
    outside: Outside,
    channel: &Channel,
    one_thread: &OneThread,
) -> Result<Option<Terminal>, RuntimeError> {
    let Outside { root, sources, nodes, entrance, parameters, own } = outside;
    rootfs::attach_root(root.as_fd())?;
    let (mut devpts, mut open_dev) = (None, None);
    for (mount, source) in setup.mounts.iter().zip(sources) {
        let open = mounts::open_for_devices(mount);
        let made = mounts::attach_one(root.as_fd(), open.as_ref().unwrap_or(mount), source)?;
        if open.is_some() {
            open_dev = Some(made);
        } else if mount.kind == "devpts" && mount.options.bind.is_none() && !mount.options.remounts {
            devpts = Some(made);
        }
    }
    if !setup.binds_dev() {
        devices::link(root.as_fd())?;
    }
    devices::place(root.as_fd(), &devices::wanted(setup)?, nodes.as_deref())?;
    let terminal = match setup.stdio {
        Stdio::Terminal(lines) => Some(open_terminal(setup, root.as_fd(), devpts, lines)?),
        Stdio::Descriptors { .. } => None,
    };
    make_directories(setup, root.as_fd());
    if let Some(dev) = open_dev {
        mounts::close(dev.as_fd())?;
    }
    sysctl::apply(&setup.sysctls, parameters.as_ref(), |sysctl| own & sysctl.namespace as u64 != 0)?;
    masks::make_read_only(root.as_fd(), &setup.read_only)?;
    masks::mask(root.as_fd(), &setup.masked)?;
    let entrance = match setup.caller.state.filter(|_| setup.is_hooked) {
        Some(state) => {
            join_cgroups(setup, entrance, one_thread)?;
            channel.assembled().during("report to", "the parent")?;
            channel.expect(Word::Hooked).during("wait for", "the hooks")?;
            fchdir(&root).during("enter", "the root filesystem")?;
            umask(Mode::from_raw_mode(setup.program.umask));
            hooks::run(setup.spec.hooks().as_ref(), Moment::CreateContainer, state, Some(getpid()))?;
            None
        }
        None => Some(entrance),
    };
    rootfs::enter(root.as_fd(), setup.access, setup.propagation)?;
    if let Some(entrance) = entrance {
        join_cgroups(setup, entrance, one_thread)?;
    }
    Ok(terminal)
}

/// Images name directories that they do not have: a working directory, volumes. As Docker does, they are made, root's and
/// with mode 0755.
fn make_directories(setup: &Setup<'_>, root: BorrowedFd<'_>) {
    for path in setup.directories.iter().chain([&setup.program.directory]) {
        // Something else may be there, or a mount that cannot be written to. Whoever needs the directory is told when
        // it is entered.
        let _ = paths::ensure(root, path, paths::Kind::Directory, paths::Links::Inside);
    }
}

fn open_terminal(
    setup: &Setup<'_>,
    root: BorrowedFd<'_>,
    devpts: Option<OwnedFd>,
    lines: Lines,
) -> Result<Terminal, RuntimeError> {
    let devpts = devpts.ok_or_else(|| invalid("process.terminal", "a mount of type `devpts` is needed"))?;
    let terminal = terminal::open(devpts.as_fd(), setup.program.terminal_size, lines)?;
    terminal::show_as_console(root, terminal.slave.as_fd())?;
    Ok(terminal)
}

/// Steps 14 and 15.
fn join_cgroups(setup: &Setup<'_>, entrance: Entrance, one_thread: &OneThread) -> Result<(), RuntimeError> {
    entrance.enter(one_thread)?;
    placement::spread()?;
    if setup.namespaces.fresh_cgroup {
        sys::namespace::unshare(libc::CLONE_NEWCGROUP).during("make", "a cgroup namespace")?;
    }
    Ok(())
}

/// Steps 16 to 21, up to the report. `stdio` becomes the standard descriptors.
pub(super) fn get_ready(
    program: &Program,
    stdio: [BorrowedFd<'_>; 3],
    terminal: Option<&Terminal>,
) -> Result<Command, RuntimeError> {
    program.placement.bind_memory()?;
    let user = identity::look_up(&program.user)?;
    enter_directory(program, &user, Attempt::AsRoot)?;
    set_stdio(stdio, terminal, user.uid)?;
    umask(Mode::from_raw_mode(program.umask));
    for (resource, limit) in &program.limits {
        setrlimit(*resource, *limit).during("set the limit", format!("{resource:?}").to_ascii_lowercase())?;
    }
    capabilities::limit_bounding(&program.capabilities)?;
    // What is opened from here on is close-on-exec from birth. A filter may know nothing of close_range(2).
    sys::descriptors::close_on_exec_from(3).during("close", "the other descriptors")?;
    if let (Privileges::MayGrow, Some(filter)) = (program.privileges, &program.seccomp) {
        // Needs CAP_SYS_ADMIN, which is about to go (seccomp(2)).
        filter.install_for(program.agent.as_ref())?;
    }
    program.scheduling.apply()?;
    if let Some(personality) = program.personality {
        let personality = nix::sys::personality::Persona::from_bits_retain(personality as i32);
        nix::sys::personality::set(personality).during("set", "the personality")?;
    }
    identity::become_user(&user)?;
    enter_directory(program, &user, Attempt::AsUser)?;
    capabilities::apply(&program.capabilities)?;
    command::find(&program.arguments, &environment(program, &user))
}

/// Step 22.
pub(super) fn protect(program: &Program, attributes: Option<&Attributes>) -> Result<(), RuntimeError> {
    program.labels.apply(attributes)?;
    if program.privileges == Privileges::NoNew {
        set_no_new_privs(true).during("refuse", "new privileges")?;
        if let Some(filter) = &program.seccomp {
            filter.install_for(program.agent.as_ref())?;
        }
    }
    Ok(())
}

/// Step 23.
pub(super) fn pass_on(inheritance: Inheritance) -> Result<(), RuntimeError> {
    sys::descriptors::pass_on(3, 3 + inheritance.descriptors).during("pass on", "the descriptors of the caller")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempt {
    AsRoot,
    AsUser,
}

/// A directory may be open to root only, or, on a network filesystem, to the user only: one of both must do.
fn enter_directory(program: &Program, user: &Numbers, attempt: Attempt) -> Result<(), RuntimeError> {
    let path = &program.directory;
    let refuse = |errno: rustix::io::Errno| RuntimeError::WorkingDirectory { path: path.clone(), source: errno.into() };
    match (chdir(path), attempt) {
        (Err(rustix::io::Errno::ACCESS), Attempt::AsRoot) if user.uid != 0 => return Ok(()),
        (Err(rustix::io::Errno::ACCESS), Attempt::AsUser) => {
            // Root has entered it before.
            let here = getcwd(Vec::new()).map_err(refuse)?;
            return match here.to_bytes() == path.as_os_str().as_encoded_bytes() {
                true => Ok(()),
                false => Err(refuse(rustix::io::Errno::ACCESS)),
            };
        }
        (result, _) => result.map_err(refuse)?,
    }
    // A directory outside the root has no absolute name (getcwd(3)): /proc/self/fd/N would lead to one (CVE-2024-21626).
    match getcwd(Vec::new()).map_err(refuse)?.to_bytes().first() {
        Some(b'/') => Ok(()),
        _ => Err(refuse(rustix::io::Errno::NOENT)),
    }
}

fn set_stdio(descriptors: [BorrowedFd<'_>; 3], terminal: Option<&Terminal>, uid: u32) -> Result<(), RuntimeError> {
    match terminal {
        Some(terminal) => {
            let slave = terminal.slave.as_fd();
            terminal::take_control(slave)?;
            terminal::give_to(slave, uid)?;
        }
        None => descriptors.iter().try_for_each(|descriptor| identity::give_channel_to(*descriptor, uid))?,
    }
    replace_stdio(descriptors)
}

/// What the standard descriptors are to be.
pub(super) fn stdio_of<'a>(
    stdio: Stdio<'a>,
    terminal: Option<&'a Terminal>,
) -> Result<[BorrowedFd<'a>; 3], RuntimeError> {
    match (stdio, terminal) {
        (Stdio::Descriptors { stdin, stdout, stderr }, _) => Ok([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]),
        (Stdio::Terminal(_), Some(terminal)) => Ok([terminal.slave.as_fd(); 3]),
        (Stdio::Terminal(_), None) => Err(invalid("process.terminal", "no terminal was opened")),
    }
}

pub(super) fn replace_stdio(descriptors: [BorrowedFd<'_>; 3]) -> Result<(), RuntimeError> {
    // Out of the way first: one of them may be descriptor 0, 1 or 2 itself.
    let step = "set up";
    let mut high = Vec::with_capacity(3);
    for descriptor in descriptors {
        high.push(rustix::io::fcntl_dupfd_cloexec(descriptor, 3).during(step, "the standard descriptors")?);
    }
    rustix::stdio::dup2_stdin(&high[0]).during(step, "standard input")?;
    rustix::stdio::dup2_stdout(&high[1]).during(step, "standard output")?;
    rustix::stdio::dup2_stderr(&high[2]).during(step, "standard error")
}

/// Each variable once, as it is set last: of two, getenv(3) would find the first and a shell the second. Programs expect
/// a HOME that says something; the user's entry knows it (as login does, and Docker).
fn environment(program: &Program, user: &Numbers) -> Vec<String> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut seen = HashSet::new();
    let mut environment: Vec<String> = program.environment.iter().rev().cloned().collect();
    environment.retain(|variable| seen.insert(name(variable)) && variable != "HOME=");
    environment.reverse();
    if !environment.iter().any(|variable| variable.starts_with("HOME=")) {
        let home = user.home.as_deref().filter(|home| !home.is_empty()).unwrap_or("/");
        environment.push(format!("HOME={home}"));
    }
    environment
}
