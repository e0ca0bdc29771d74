//! The /proc of a pid namespace that a container joins, for a process that is not in it.
//!
//! procfs shows the pid namespace of whoever begins to mount it (fsopen(2)), and who is in that namespace is seen by all
//! who live there. So a process begins it there that is worth nothing to them, and the container's own, outside, does
//! the rest:
//!
//! ```text
//! container's process          maker (in the host's pid namespace)     visitor (in the joined one)
//!  clone3 -------------------> a mount namespace of its own with an
//!                              empty root; no descriptor but one
//!                              setns: children are born there
//!                              only CAP_SYS_ADMIN; a filter that
//!                              knows few calls
//!   <------------- Asks ------ a filter that asks before clone3
//!  grants it once
//!   <------------- Born ------ clone3 ------------------------------> fsopen("proc")
//!   <---------------------------------------------- the context ----- ends
//!  ends both, whatever they do
//!  fsconfig, fsmount
//! ```
//!
//! # Decisions
//!
//! Who may trace the visitor (`CAP_SYS_PTRACE`) gets a process that sees no file, cannot open one, and can begin a mount
//! but not make it: the filter outlives whatever is written into its memory (seccomp(2)). What comes over the channel may
//! be of his choosing, so the mount counts only if it is of procfs; it would be shown to those who share the namespace.
//!
//! He can make it map [`MEMORY`] and wait, for as long as it lives, but no copies of itself, which would outlive it and
//! be in no cgroup of his: the one call that makes a process is granted once, and it is the maker who asks first, whom
//! nobody there sees. Where a filter that asks is above this program already (a manager of containers that answers some
//! calls for them), there is no second, and nothing but the limits of the cgroup that this runs in is between him and
//! copies: better than no container that joins.
//!
//! Who is root there may also stop the visitor (kill(2)). So it has [`PATIENCE`], and no longer than the container's
//! parent lives, and is killed then by its pidfd, stopped or not. What it does is over in a fraction of a millisecond.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fstatfs;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::process::{
    Resource, Rlimit, Signal, WaitId, WaitIdOptions, getrlimit, pidfd_send_signal, set_parent_process_death_signal,
    setrlimit, waitid,
};
use rustix::thread::set_no_new_privs;

use super::error::{Context, RuntimeError, invalid};
use super::handshake::{self, Channel, Report};
use super::launch::become_child;
use super::prepare::Access;
use super::rootfs;
use super::seccomp::{self, Filter};
use super::{capabilities, init};
use crate::sys;
use crate::sys::clone::{Copy, OneThread, clone_again, exit_now};

/// Linux, magic.h: what statfs(2) says of a procfs.
const PROC_MAGIC: i64 = 0x9fa0;

/// What two processes need that make one, wait for it, begin a mount, and say so.
const CALLS: &str =
    "brk clone3 close exit exit_group fsopen futex madvise mmap munmap rt_sigreturn sendmsg sendto waitid";

/// How many bytes the two may map, most of which they have from the parent.
const MEMORY: u64 = 256 << 20;

/// How long the visitor may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A mount of procfs that was begun in the pid namespace `namespace`, for [`is_proc`] to be asked of once it is made.
/// `parent` is only asked whether somebody is there.
pub(super) fn begin(
    (namespace, path): (&OwnedFd, &Path),
    parent: &Channel,
    one_thread: &OneThread,
) -> Result<OwnedFd, RuntimeError> {
    let filter = filter()?;
    let (ours, theirs) = handshake::pair()?;
    let maker = match clone_again(one_thread).during("make", "a process for /proc")? {
        Copy::Child(one_thread) => {
            drop(ours);
            become_child(&theirs, || make((namespace, path), &filter, &theirs, &one_thread))
        }
        Copy::Parent { pid: _, pidfd } => pidfd,
    };
    drop(theirs);
    let mut visitor = None;
    let begun = hear(&ours, parent, &mut visitor, path);
    // The visitor first: who stopped it must not keep the maker from its end, which reaps it. Either may have ended by
    // itself already.
    if let Some(visitor) = &visitor {
        let _ = pidfd_send_signal(visitor, Signal::KILL);
        let a_moment = Timespec { tv_sec: 1, tv_nsec: 0 };
        // Should it not end, it is killed below.
        let _ = poll(&mut [PollFd::new(&maker, PollFlags::IN)], Some(&a_moment));
    }
    let _ = pidfd_send_signal(&maker, Signal::KILL);
    waitid(WaitId::PidFd(maker.as_fd()), WaitIdOptions::EXITED).during("wait for", "the process for /proc")?;
    begun
}

/// What the two say until there is a mount.
fn hear(
    channel: &Channel,
    parent: &Channel,
    visitor: &mut Option<OwnedFd>,
    path: &Path,
) -> Result<OwnedFd, RuntimeError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        // Nothing that the parent says, but its end, is for this moment (poll(2), POLLHUP).
        let mut polled = [PollFd::new(channel, PollFlags::IN), PollFd::new(parent, PollFlags::empty())];
        match poll(&mut polled, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(0) => {
                let held = format!("a process in `{}` has stopped the one that was to look into it", path.display());
                return Err(invalid("linux.namespaces", held));
            }
            other => other.during("wait for", "the process for /proc")?,
        };
        if !polled[1].revents().is_empty() {
            return Err(RuntimeError::Died);
        }
        match channel.report()? {
            Report::Asks { notifications } => seccomp::grant(notifications, PATIENCE)?,
            Report::Born { pid: _, pidfd } => *visitor = Some(pidfd),
            Report::Created { terminal: Some(context) } => return Ok(context),
            Report::Failed(error) => return Err(error),
            _ => return Err(RuntimeError::Died),
        }
    }
}

/// Whether a mount that came of such a beginning is one.
pub(super) fn is_proc(made: &OwnedFd) -> bool {
    fstatfs(made).is_ok_and(|found| found.f_type == PROC_MAGIC)
}

fn make(
    (namespace, path): (&OwnedFd, &Path),
    filter: &Filter,
    channel: &Channel,
    one_thread: &OneThread,
) -> Result<Infallible, RuntimeError> {
    set_parent_process_death_signal(Some(Signal::KILL)).during("depend on", "the parent")?;
    sys::namespace::unshare(libc::CLONE_NEWNS).during("make", "a mount namespace")?;
    rootfs::detach_from_host()?;
    let empty = empty_root()?;
    rootfs::attach_root(empty.as_fd())?;
    rootfs::enter(empty.as_fd(), Access::ReadOnly, None)?;
    sys::namespace::setns(namespace.as_fd(), libc::CLONE_NEWPID).during("join the namespace", path.display())?;
    sys::descriptors::close_others(0, &[channel.as_fd()]).during("close", "the other descriptors")?;
    capabilities::keep_within(capabilities::SYS_ADMIN)?;
    init::hide()?;
    set_no_new_privs(true).during("refuse", "new privileges")?;
    setrlimit(Resource::As, at_most(MEMORY, getrlimit(Resource::As))).during("set the limit", "as")?;
    let notifications = seccomp::ask_for("clone3")?;
    filter.install()?;
    if let Some(notifications) = notifications {
        channel.asks(notifications.as_fd()).during("report to", "the parent")?;
    }
    match clone_again(one_thread).during("make", "a process in the joined namespace")? {
        Copy::Child(_) => {
            let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).during("mount", "/proc")?;
            channel.created(Some(context.as_fd())).during("report to", "the parent")?;
            exit_now(0)
        }
        Copy::Parent { pid, pidfd } => {
            channel.born(pid, pidfd.as_fd()).during("report to", "the parent")?;
            // Whatever became of it, it has said so.
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            exit_now(0)
        }
    }
}

/// No more than `bytes`, and no more than there is: nobody here may raise a hard limit (setrlimit(2), CAP_SYS_RESOURCE).
fn at_most(bytes: u64, there_is: Rlimit) -> Rlimit {
    let bytes = Some(there_is.maximum.map_or(bytes, |maximum| maximum.min(bytes)));
    Rlimit { current: bytes, maximum: bytes }
}

fn empty_root() -> Result<OwnedFd, RuntimeError> {
    let step = "make an empty root for";
    let filesystem = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).during(step, "/proc")?;
    fsconfig_create(filesystem.as_fd()).during(step, "/proc")?;
    fsmount(filesystem.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).during(step, "/proc")
}

fn filter() -> Result<Filter, RuntimeError> {
    let names: Vec<String> = CALLS.split_whitespace().map(str::to_owned).collect();
    let mut allowed = LinuxSyscall::default();
    allowed.set_names(names).set_action(LinuxSeccompAction::ScmpActAllow);
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(LinuxSeccompAction::ScmpActErrno).set_syscalls(Some(vec![allowed]));
    seccomp::compile(&profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_limit_of_whoever_starts_it_stays() {
        let limit = |maximum| at_most(MEMORY, Rlimit { current: None, maximum });
        let both = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
        assert_eq!(limit(None), both(MEMORY));
        assert_eq!(limit(Some(MEMORY + 1)), both(MEMORY));
        assert_eq!(limit(Some(1 << 20)), both(1 << 20), "raising it is for others");
    }
}
