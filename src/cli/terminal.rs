//! The user's terminal, handed over to a process in a container: raw mode, window size, and the way back.
//!
//! Raw mode is left on every path: by `Drop`, and by a panic hook, since a release build aborts on a panic and
//! drops nothing. Signals that would end this process are read from a descriptor meanwhile ([`Signals`]), so that
//! they, too, leave through the front door.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr};

use crate::monitor::protocol::Window;

/// The terminal as it was, for the panic hook.
static ORIGINAL: OnceLock<Termios> = OnceLock::new();

/// Raw mode (termios(3), cfmakeraw) of the terminal at stdin, until this is dropped.
#[derive(Debug)]
pub struct RawMode {
    original: Termios,
}

/// Who makes the lines of what is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    /// The terminal in the container: a line ends with `\r\n` when it comes here.
    Raw,
    /// The one in front, as before; where output goes elsewhere it is what the process wrote.
    AsBefore,
}

impl RawMode {
    pub fn enter() -> io::Result<RawMode> {
        RawMode::enter_with(Screen::Raw)
    }

    /// `screen` is what becomes of output here.
    pub fn enter_with(screen: Screen) -> io::Result<RawMode> {
        let original = tcgetattr(io::stdin())?;
        if ORIGINAL.set(original.clone()).is_ok() {
            let report = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                if let Some(original) = ORIGINAL.get() {
                    restore(original);
                }
                report(panic);
            }));
        }
        let mut raw = original.clone();
        raw.make_raw();
        if screen == Screen::AsBefore {
            raw.output_modes = original.output_modes;
        }
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(RawMode { original })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore(&self.original);
    }
}

fn restore(original: &Termios) {
    // A terminal that hung up has no mode to go back to.
    let _ = tcsetattr(io::stdin(), OptionalActions::Drain, original);
}

/// Whether both sides of a conversation are a person's.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Rows and columns of the terminal at stdin, or at stdout where stdin is none.
pub fn window() -> Option<Winsize> {
    tcgetwinsize(io::stdin()).or_else(|_| tcgetwinsize(io::stdout())).ok()
}

/// [`window`] for a terminal that is to be made.
pub fn size() -> Option<Window> {
    window().map(|size| Window { rows: size.ws_row, columns: size.ws_col })
}

/// SIGWINCH and the signals that end a process, as something to poll.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
    before: SigSet,
}

const WATCHED: [Signal; 7] = [
    Signal::SIGWINCH,
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Not for who stands in front of a process: those that tell of our own children and faults, those by which a terminal
/// stops us, and those that cannot be caught (signal(7)).
const OURS: [Signal; 12] = [
    Signal::SIGCHLD,
    Signal::SIGKILL,
    Signal::SIGSTOP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGSYS,
    Signal::SIGPIPE,
];

impl Signals {
    /// From now on SIGWINCH and the signals that end a process wait to be read. Must be called before other threads are
    /// started, since they inherit the mask.
    pub fn take() -> io::Result<Signals> {
        Signals::of(WATCHED.into_iter().collect())
    }

    /// As [`Signals::take`], with every signal that means the process that we stand for.
    pub fn take_all() -> io::Result<Signals> {
        Signals::of(Signal::iterator().filter(|signal| !OURS.contains(signal)).collect())
    }

    fn of(watched: SigSet) -> io::Result<Signals> {
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&watched), Some(&mut before))?;
        let descriptor = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Signals { descriptor, before })
    }

    /// The next one that came, if any.
    pub fn next(&self) -> io::Result<Option<Signal>> {
        match self.descriptor.read_signal()? {
            None => Ok(None),
            // The set holds only signals that nix knows.
            Some(info) => Ok(Signal::try_from(info.ssi_signo as i32).ok()),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Restoring a mask that was valid before cannot fail.
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}
