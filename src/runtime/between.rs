//! The process between a container's parent and its first process, where the namespaces ask for one (see
//! [`super::init`]).

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use super::error::{Context, RuntimeError};
use super::handshake::Channel;
use super::launch::Stdio;
use super::outside::{self, Outside, Users};
use super::prepare::{Namespaces, Setup};
use super::user_namespace::{self, UserNamespace};
use super::visible::become_visible;
use super::{init, sysctl, time_namespace};
use crate::sys;
use crate::sys::clone::{Copy, OneThread, clone_sibling};

/// Where the pid namespace is another's: this process, which nobody there sees, builds everything, gives up what the
/// program does not get, and then makes the first one there (see `exec`, "Decisions").
pub(super) fn enter_last(
    setup: &Setup<'_>,
    users: &Users,
    (namespace, path): &(OwnedFd, PathBuf),
    outside: Outside,
    (channel, one_thread): (&Channel, &OneThread),
) -> Result<Infallible, RuntimeError> {
    let program = &setup.program;
    // From then on whatever this process makes is born there, a hook too: as late as it may be, which is before a user
    // namespace that has no power over that of processes (then there are no such hooks, see `Users::ensure`).
    let join =
        || sys::namespace::setns(namespace.as_fd(), libc::CLONE_NEWPID).during("join the namespace", path.display());
    let Namespaces { fresh, time, .. } = &setup.namespaces;
    let clocks = time.as_ref().map(|offsets| Ok::<_, RuntimeError>((time_namespace::open()?, offsets))).transpose()?;
    if setup.namespaces.need_a_process_between() {
        if let Some(container) = &users.container {
            if !users.may_join_late() {
                join()?;
            }
            enter_users(setup, container, users.own)?;
        }
        // What this process was born in belongs to the host's users.
        sys::namespace::unshare(*fresh as i32).during("make", "the container's namespaces")?;
        channel.apart().during("report to", "the parent")?;
    }
    let attributes = program.labels.open()?;
    let terminal = init::assemble(setup, outside, channel, one_thread)?;
    // They outlast a copy of the process, and the way to them is closed again before there is one.
    program.labels.apply(attributes.as_ref())?;
    drop(attributes);
    init::replace_stdio(init::stdio_of(setup.stdio, terminal.as_ref())?)?;
    init::raise_limits(program)?;
    // Only children live in it, and one that shares this memory cannot (clone(2), CLONE_NEWTIME): no hook comes after.
    if let Some((file, offsets)) = clocks {
        time_namespace::make(file, offsets)?;
    }
    if users.may_join_late() {
        join()?;
    }
    let gate = setup.caller.gate.map(|gate| gate.as_fd());
    let ends = terminal.iter().flat_map(|terminal| [terminal.master.as_fd(), terminal.slave.as_fd()]);
    let kept: Vec<BorrowedFd<'_>> =
        [channel.as_fd()].into_iter().chain(gate).chain(program.agent_descriptors()).chain(ends).collect();
    sys::descriptors::close_others(3 + setup.caller.inheritance.descriptors, &kept)
        .during("close", "the other descriptors")?;
    let one_thread = become_visible(program, "the container's first process", channel, one_thread)?;
    let stdio = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let command = init::get_ready(program, stdio, terminal.as_ref())?;
    init::await_start(setup, &command, terminal, None, (channel, &one_thread))
}

/// The process in between makes the first one, says so, and ends.
pub(super) fn hand_over(
    setup: &Setup<'_>,
    users: &Users,
    outside: Outside,
    channel: &Channel,
    one_thread: &OneThread,
) -> Result<Infallible, RuntimeError> {
    let Namespaces { fresh, time, .. } = &setup.namespaces;
    let clocks = time.as_ref().map(|offsets| Ok::<_, RuntimeError>((time_namespace::open()?, offsets))).transpose()?;
    if let Some(container) = &users.container {
        enter_users(setup, container, users.own)?;
    }
    if let Some((file, offsets)) = clocks {
        time_namespace::make(file, offsets)?;
    }
    match clone_sibling(one_thread, *fresh).during("make", "the container's first process")? {
        Copy::Parent { pid, pidfd } => {
            channel.born(pid, pidfd.as_fd()).during("report to", "the parent")?;
            sys::clone::exit_now(0)
        }
        Copy::Child(one_thread) => {
            init::begin_session()?;
            init::hide()?;
            init::tell_agent(&setup.program)?;
            init::go_on(setup, outside, channel, &one_thread)
        }
    }
}

/// What is the host's user's to do comes first: limits above one's own are never for a user namespace's root to set
/// (setrlimit(2)), and namespaces that were joined are not its own.
fn enter_users(setup: &Setup<'_>, container: &UserNamespace, own: u64) -> Result<(), RuntimeError> {
    init::raise_limits(&setup.program)?;
    sysctl::apply(&setup.sysctls, None, |sysctl| own & sysctl.namespace as u64 == 0)?;
    if let Stdio::Descriptors { stdin, stdout, stderr } = setup.stdio {
        outside::give_away(&[stdin, stdout, stderr], &container.mapping)?;
    }
    user_namespace::enter(&container.fd)
}
