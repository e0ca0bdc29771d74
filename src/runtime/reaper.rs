//! A small init: process 1 starts the command, hands signals on to it, and reaps what it leaves behind.
//!
//! Without one, a command that is process 1 gets no default action for signals (pid_namespaces(7)), and orphans stay
//! zombies. With one, it is an ordinary process, and its status becomes the container's.
//!
//! # Decisions
//!
//! This is the child of clone3(2) itself, which just does not execute anything, not a second program: an image need not
//! contain one, a dynamic helper would find no loader in most images, and nothing is bound into the container. What
//! remains of this program's memory is shared with its parent until written, closed to tracers (not dumpable), and
//! under the same filter and capabilities as the command.

use std::convert::Infallible;
use std::ffi::CStr;
use std::io;

use rustix::process::{Pid, WaitOptions, WaitStatus, getpid, setpgid, wait};
use rustix::termios::tcsetpgrp;

use super::error::{Context, RuntimeError};
use crate::sys;
use crate::sys::clone::{Copy, OneThread, clone_again};

const NAME: &CStr = c"evenkeel-init";

/// Which of the two this is.
pub(super) enum Role {
    Command,
    Init(Reaper),
}

/// Process 1, watching the command.
pub(super) struct Reaper {
    command: Pid,
}

/// Shows the container `evenkeel-init` in place of our caller's command line, which tells of the host's directories.
/// Called while /proc is still the host's: an image may have anything there.
pub(super) fn take_name() -> Result<(), RuntimeError> {
    sys::command_line::show(NAME.to_bytes()).during("name", "the init")
}

/// Splits the command off. It gets a process group of its own, in the foreground where there is a terminal, so that
/// the terminal's signals reach it once and not through us again.
pub(super) fn split(one_thread: &OneThread) -> Result<Role, RuntimeError> {
    // From here on signals wait for `run`, or for the command's own mask.
    sys::signals::block_all().during("block", "the signals")?;
    match clone_again(one_thread).during("make", "the command's process")? {
        Copy::Parent { pid, .. } => Ok(Role::Init(Reaper { command: pid })),
        Copy::Child(_) => {
            setpgid(None, None).during("begin", "a process group")?;
            // SIGTTOU is blocked, so this works from the background; there may be no terminal at all.
            let _ = tcsetpgrp(rustix::stdio::stdin(), getpid());
            sys::signals::reset_all().during("reset", "the signals")?;
            Ok(Role::Command)
        }
    }
}

impl Reaper {
    /// Lives as long as the command.
    pub(super) fn run(&self) -> Result<Infallible, RuntimeError> {
        // What is shown in ps; without it nothing is lost.
        let _ = rustix::thread::set_name(NAME);
        // The channel among them: its end of file, which says that execve has succeeded, is the command's to give.
        sys::descriptors::close_from(0).during("close", "the descriptors of init")?;
        loop {
            match sys::signals::wait_any() {
                Ok(libc::SIGCHLD) => self.reap(),
                // It may have ended a moment ago; then SIGCHLD is next.
                Ok(signal) => drop(sys::kill::kill(self.command, signal)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).during("wait for", "signals"),
            }
        }
    }

    /// Takes every process that ended; one SIGCHLD may stand for many.
    fn reap(&self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.command
                && let Some(status) = exit_status(status)
            {
                sys::clone::exit_now(status);
            }
        }
    }
}

/// As a shell says it: process 1 cannot end by a signal of its own.
fn exit_status(status: WaitStatus) -> Option<i32> {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
}
