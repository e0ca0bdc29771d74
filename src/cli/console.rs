//! A container's first process on our own standard descriptors: `run`, `start --attach`, `attach`.
//!
//! ```text
//! stdin ──> pipe or terminal ──> process ──> monitor ──> pipes or sockets ──> stdout, stderr
//! signals ──> control socket (kill)
//! control socket ──> the end
//! ```
//!
//! Without a terminal standard output and error stay apart, and the end of our input is the end of its. With one, our
//! terminal is in raw mode, so keys such as Ctrl-C arrive as bytes, and its size follows our window; the keys of
//! [`DetachKeys`] leave the container running.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::termios::tcsetwinsize;

use super::detach_keys::{DetachKeys, Listener, Meant};
use super::failure::Failure;
use super::terminal::{self, RawMode, Signals};
use crate::model::status::Status;
use crate::model::units;
use crate::monitor::client::{Client, End};

/// How the session ended.
#[derive(Debug)]
pub enum Outcome {
    /// With the container.
    Ended(Status),
    /// The container goes on without us: by the keys, or because we were asked to end.
    Left { signal: Option<u8> },
}

/// What becomes of the container's end.
#[derive(Debug)]
pub enum Fate {
    ToCome(End),
    Known(Status),
}

/// Whether signals that we get are the container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalProxy {
    On,
    Off,
}

/// What somebody chose of how we behave.
#[derive(Debug)]
pub struct ConsoleSettings {
    pub proxy: SignalProxy,
    pub detach_keys: DetachKeys,
}

#[derive(Debug)]
pub struct Console {
    /// The container's run directory.
    pub directory: PathBuf,
    /// What it writes, until it is over.
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    /// Where its standard input is fed, if we feed it.
    pub input: Option<OwnedFd>,
    /// Its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
    pub fate: Fate,
    pub settings: ConsoleSettings,
}

const CHUNK: usize = 16 * 1024;

/// So often somebody asks us to end before we do so on our own account.
const INSISTENCE: u32 = 3;

/// What is open, as the loop sees it.
struct Session {
    console: Console,
    status: Option<Status>,
    /// What was typed and not taken yet.
    typed: Vec<u8>,
    listener: Listener,
    asked_to_end: u32,
}

impl Console {
    /// Goes on until the container is over and all that it wrote is out, or until we leave.
    pub fn run(mut self, signals: &Signals) -> Result<Outcome, Failure> {
        let on_terminal = self.terminal.is_some() && self.input.is_some() && io::stdin().is_terminal();
        let _raw = if on_terminal { Some(RawMode::enter()?) } else { None };
        if let Some(input) = &self.input {
            fcntl_setfl(input, fcntl_getfl(input)? | OFlags::NONBLOCK)?;
        }
        self.resize();
        let status = match &self.fate {
            Fate::Known(status) => Some(status.clone()),
            Fate::ToCome(_) => None,
        };
        if status.is_some() {
            self.input = None;
        }
        let console = self;
        let listener = Listener::new(console.settings.detach_keys.clone());
        let mut session = Session { console, status, typed: Vec::new(), listener, asked_to_end: 0 };
        loop {
            if let (Some(status), None, None) = (&session.status, &session.console.stdout, &session.console.stderr) {
                return Ok(Outcome::Ended(status.clone()));
            }
            if let Some(outcome) = session.turn(signals)? {
                return Ok(outcome);
            }
        }
    }

    fn resize(&self) {
        if let (Some(terminal), Some(size)) = (&self.terminal, terminal::window()) {
            // A size that the other side does not take is no reason to end the session.
            let _ = tcsetwinsize(terminal, size);
        }
    }
}

impl Session {
    /// Waits once, and does what there is to do.
    fn turn(&mut self, signals: &Signals) -> Result<Option<Outcome>, Failure> {
        let stdin = io::stdin();
        let [signalled, ended, out, err, typed, taken] = {
            let mut polled = vec![PollFd::new(signals, PollFlags::IN)];
            let mut places = [Some(0), None, None, None, None, None];
            let mut add = |place: usize, fd, flags| {
                places[place] = Some(polled.len());
                polled.push(PollFd::from_borrowed_fd(fd, flags));
            };
            if let (Fate::ToCome(end), None) = (&self.console.fate, &self.status) {
                add(1, end.as_fd(), PollFlags::IN);
            }
            self.console.stdout.iter().for_each(|fd| add(2, fd.as_fd(), PollFlags::IN));
            self.console.stderr.iter().for_each(|fd| add(3, fd.as_fd(), PollFlags::IN));
            if let Some(input) = &self.console.input {
                match self.typed.is_empty() {
                    true => add(4, stdin.as_fd(), PollFlags::IN),
                    false => add(5, input.as_fd(), PollFlags::OUT),
                }
            }
            match poll(&mut polled, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            places.map(|place| place.is_some_and(|at| !polled[at].revents().is_empty()))
        };
        if ended && let Fate::ToCome(end) = &self.console.fate {
            self.status = Some(end.status().map_err(Failure::monitor)?);
            self.console.input = None;
        }
        if out {
            pass_on(&mut self.console.stdout, io::stdout().as_fd())?;
        }
        if err {
            pass_on(&mut self.console.stderr, io::stderr().as_fd())?;
        }
        if typed && self.read_input()? == Meant::Leave {
            return Ok(Some(Outcome::Left { signal: None }));
        }
        if taken {
            self.feed();
        }
        if signalled {
            return self.heed(signals);
        }
        Ok(None)
    }

    fn read_input(&mut self) -> Result<Meant, Failure> {
        let mut chunk = [0; CHUNK];
        match rustix::io::read(io::stdin(), &mut chunk) {
            // Its input ends with ours. A terminal of its own goes on.
            Ok(0) | Err(rustix::io::Errno::IO) => self.console.input = None,
            Ok(count) if self.console.terminal.is_none() => self.typed.extend_from_slice(&chunk[..count]),
            Ok(count) => return Ok(self.listener.hear(&chunk[..count], &mut self.typed)),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Meant::ForTheProcess)
    }

    fn feed(&mut self) {
        let Some(input) = &self.console.input else { return };
        match rustix::io::write(input, &self.typed) {
            Ok(count) => drop(self.typed.drain(..count)),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            // Nobody reads it any more.
            Err(_) => self.console.input = None,
        }
    }

    fn heed(&mut self, signals: &Signals) -> Result<Option<Outcome>, Failure> {
        while let Some(signal) = signals.next()? {
            let number = signal as i32;
            if signal == Signal::SIGWINCH {
                self.console.resize();
                continue;
            }
            let left = || Outcome::Left { signal: Some(128 + number as u8) };
            if self.console.settings.proxy == SignalProxy::Off {
                return Ok(Some(left()));
            }
            if matches!(signal, Signal::SIGINT | Signal::SIGTERM) {
                self.asked_to_end += 1;
                if self.asked_to_end == INSISTENCE {
                    return Ok(Some(left()));
                }
            }
            if let Some(signal) = units::Signal::from_number(number) {
                // It may be over, or between two runs; then there is nobody to tell.
                let client = Client::connect_as(&self.console.directory, Some("sig-proxy"));
                let _ = client.and_then(|client| client.kill(signal));
            }
        }
        Ok(None)
    }
}

/// One read, written out whole. At its end the stream is gone.
fn pass_on(stream: &mut Option<OwnedFd>, to: BorrowedFd<'_>) -> Result<(), Failure> {
    let Some(from) = stream else { return Ok(()) };
    let mut chunk = [0; CHUNK];
    match rustix::io::read(&*from, &mut chunk) {
        Ok(0) => *stream = None,
        Ok(count) => write_whole(to, &chunk[..count])?,
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Our own descriptors may be non-blocking, by somebody else's doing: a terminal is one file for many.
fn write_whole(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Failure> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                poll(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(Failure::stdout(&error.into())),
        }
    }
    Ok(())
}
