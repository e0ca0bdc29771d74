//! Staying with a process until its end: signals to it, bytes to and from its terminal, its status back.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, WaitOptions, WaitStatus, pidfd_send_signal, wait};
use rustix::termios::tcsetwinsize;

use super::handover::Attendance;
use crate::cli::conversation::{End, Keyboard, converse};
use crate::cli::failure::{Exit, Failure};
use crate::cli::streams;
use crate::cli::terminal::{RawMode, Screen, Signals, window};
use crate::runtime::launch::Process;

/// Must be called before the process is started: a signal that comes earlier would end us alone. That is what it is to
/// do to a command that does not stay.
pub fn watch(attendance: Attendance) -> Result<Option<Signals>, Failure> {
    match attendance {
        Attendance::Attended => Ok(Some(Signals::take_all()?)),
        Attendance::Detached => Ok(None),
    }
}

/// Waits for the end of `process`, our child. Its status becomes ours: 128 and the number for a signal.
pub fn attend(process: Process, signals: &Signals) -> Result<Exit, Failure> {
    if let Some(master) = &process.terminal {
        if let Some(size) = window() {
            // A size that is not taken is no reason to end.
            let _ = tcsetwinsize(master, size);
        }
        let _raw = io::stdin().is_terminal().then(|| RawMode::enter_with(Screen::AsBefore)).transpose()?;
        while let End::Signalled(number) = converse(&process.pidfd, master, signals, Keyboard::Heard)? {
            pass_on(number, &process.pidfd);
        }
    }
    loop {
        let (ended, signalled) = {
            let mut polled =
                [PollFd::from_borrowed_fd(process.pidfd.as_fd(), PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
            streams::wait(&mut polled, None)?;
            (!polled[0].revents().is_empty(), !polled[1].revents().is_empty())
        };
        if signalled {
            while let Some(signal) = signals.next()? {
                pass_on(signal as i32, &process.pidfd);
            }
        }
        if ended {
            return reap(process.pid);
        }
    }
}

fn pass_on(number: i32, process: &OwnedFd) {
    if let Some(signal) = rustix::process::Signal::from_named_raw(number) {
        // It may have ended this moment; that is seen next.
        let _ = pidfd_send_signal(process, signal);
    }
}

/// Takes the status of `pid`, and of orphans that became ours.
fn reap(pid: Pid) -> Result<Exit, Failure> {
    loop {
        if let Some((found, status)) = wait(WaitOptions::empty())?
            && found == pid
        {
            return Ok(Exit::Status(code(status)));
        }
    }
}

fn code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    u8::try_from(code.unwrap_or(255)).unwrap_or(255)
}
