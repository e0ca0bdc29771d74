//! Ctrl-C while the host is being changed: the first lets the steps that run finish, the second ends us.
//!
//! Either is safe, since everything is crash-only; the first is only tidier. Outside of an execution one is enough.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};

use super::terminal::Signals;

/// Watches for signals on a thread of its own, until the process ends.
#[derive(Debug)]
pub struct Interrupt {
    gentle: Arc<AtomicBool>,
    cancel: Arc<AtomicBool>,
}

impl Interrupt {
    /// Must be called before other threads are started: a thread that does not block the signals would die of them.
    pub fn watch() -> io::Result<Interrupt> {
        let signals = Signals::take()?;
        let interrupt = Interrupt { gentle: Arc::default(), cancel: Arc::default() };
        let (gentle, cancel) = (Arc::clone(&interrupt.gentle), Arc::clone(&interrupt.cancel));
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            if let Some(last) = await_last(&signals, &gentle, &cancel) {
                // This thread lets it through again, so the process ends of it as if nobody had watched.
                drop(signals);
                // Sending a signal to oneself does not fail.
                let _ = kill(Pid::this(), last);
            }
        })?;
        Ok(interrupt)
    }

    /// From now on the first signal only sets this.
    pub fn cancel(&self) -> &AtomicBool {
        self.gentle.store(true, Ordering::Relaxed);
        &self.cancel
    }
}

/// The signal that ends the process. `None` when signals cannot be read any more.
fn await_last(signals: &Signals, gentle: &AtomicBool, cancel: &AtomicBool) -> Option<Signal> {
    loop {
        // An interrupted poll finds nothing below and polls again.
        let _ = poll(&mut [PollFd::new(signals, PollFlags::IN)], None);
        match signals.next().ok()? {
            None | Some(Signal::SIGWINCH) => {}
            Some(_) if gentle.load(Ordering::Relaxed) && !cancel.swap(true, Ordering::Relaxed) => {}
            Some(last) => return Some(last),
        }
    }
}
