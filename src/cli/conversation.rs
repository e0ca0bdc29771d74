//! A conversation between the user's terminal and one in a container: bytes both ways, until one side is done.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::termios::tcsetwinsize;

use super::detach_keys::{DetachKeys, Listener, Meant};
use super::failure::Failure;
use super::streams::{copy, is_readable, read, wait};
use super::terminal::{self, Signals};

/// What a terminal takes at once without waiting for its reader.
const CHUNK: usize = 4096;

/// How it came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The process has ended, and all that it wrote has been shown.
    Ended,
    /// The terminal's other side is closed, by a process that may go on.
    Closed,
    /// Whoever typed has left.
    Left,
    /// Somebody wants this process gone, by a signal of that number.
    Signalled(i32),
}

/// Whether what is typed goes to the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keyboard {
    Heard,
    /// But for these keys, which end the conversation and not the process.
    HeardUntil(DetachKeys),
    Ignored,
}

/// Talks until the process is done. `process` is readable when it has ended; `master` is the terminal's own side.
pub fn converse(process: impl AsFd, master: &OwnedFd, signals: &Signals, keyboard: Keyboard) -> Result<End, Failure> {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    // What was typed and not yet taken by the container. Nothing more is read until it is gone.
    let mut typed: Vec<u8> = Vec::new();
    let mut listening = keyboard != Keyboard::Ignored;
    let mut listener = match keyboard {
        Keyboard::HeardUntil(keys) => Some(Listener::new(keys)),
        Keyboard::Heard | Keyboard::Ignored => None,
    };
    loop {
        let master_events = if typed.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let stdin_events = if listening && typed.is_empty() { PollFlags::IN } else { PollFlags::empty() };
        let [ended, signalled, readable, wanted] = {
            let mut polled = [
                PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN),
                PollFd::new(signals, PollFlags::IN),
                PollFd::new(&stdin, stdin_events),
                PollFd::from_borrowed_fd(master.as_fd(), master_events),
            ];
            wait(&mut polled, None)?;
            [0, 1, 2, 3].map(|n| polled[n].revents())
        };
        if wanted.contains(PollFlags::OUT) {
            let written = rustix::io::write(master, &typed[..typed.len().min(CHUNK)])?;
            typed.drain(..written);
        }
        if wanted.intersects(PollFlags::IN | PollFlags::HUP) && !copy(master.as_fd(), stdout.as_fd())? {
            return Ok(End::Closed);
        }
        if readable.intersects(PollFlags::IN | PollFlags::HUP) && listening {
            listening = read(stdin.as_fd(), &mut typed)?;
            if let Some(listener) = &mut listener {
                let heard = std::mem::take(&mut typed);
                if listener.hear(&heard, &mut typed) == Meant::Leave {
                    return Ok(End::Left);
                }
            }
        }
        if !signalled.is_empty()
            && let Some(signal) = heed(signals, master)?
        {
            return Ok(End::Signalled(signal));
        }
        if !ended.is_empty() {
            // What it wrote last is still in the terminal's buffer.
            while is_readable(master.as_fd())? && copy(master.as_fd(), stdout.as_fd())? {}
            return Ok(End::Ended);
        }
    }
}

/// SIGWINCH is passed on as the new size. Keys like Ctrl-C arrive as bytes, so any other signal was sent to us by
/// somebody, who wants us gone.
fn heed(signals: &Signals, master: &OwnedFd) -> Result<Option<i32>, Failure> {
    while let Some(signal) = signals.next()? {
        match signal {
            nix::sys::signal::Signal::SIGWINCH => resize(master),
            other => return Ok(Some(other as i32)),
        }
    }
    Ok(None)
}

fn resize(master: &OwnedFd) {
    if let Some(size) = terminal::window() {
        // A size that the other side does not take is no reason to end the session.
        let _ = tcsetwinsize(master, size);
    }
}
