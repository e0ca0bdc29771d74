//! Ctrl-C while the host is being changed: the first lets the steps that run finish, the second ends us.
//!
//! Either is safe, since everything is crash-only; the first is only tidier. Outside of an execution one is enough.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};

use super::terminal::Signals;

/// Watches for signals on a thread of its own, until the process ends.
#[derive(Debug)]
pub struct Interrupt {
    gentle: Arc<AtomicBool>,
    cancel: Arc<AtomicBool>,
    watcher: JoinHandle<Option<Signals>>,
    /// Closed to call the watcher back.
    leash: io::PipeWriter,
}

impl Interrupt {
    /// Must be called before other threads are started: a thread that does not block the signals would die of them.
    pub fn watch() -> io::Result<Interrupt> {
        let signals = Signals::take()?;
        let (end, leash) = io::pipe()?;
        let (gentle, cancel) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let (its_gentle, its_cancel) = (Arc::clone(&gentle), Arc::clone(&cancel));
        let watcher = std::thread::Builder::new().name("signals".into()).spawn(move || {
            match await_last(&signals, &end, &its_gentle, &its_cancel) {
                Awaited::CalledBack => Some(signals),
                Awaited::Nothing => None,
                Awaited::Last(last) => {
                    // This thread lets it through again, so the process ends of it as if nobody had watched.
                    drop(signals);
                    // Sending a signal to oneself does not fail.
                    let _ = kill(Pid::this(), last);
                    None
                }
            }
        })?;
        Ok(Interrupt { gentle, cancel, watcher, leash })
    }

    /// Stops watching; whoever asked reads the signals now.
    pub fn into_signals(self) -> io::Result<Signals> {
        drop(self.leash);
        let signals = self.watcher.join().ok().flatten();
        signals.ok_or_else(|| io::Error::other("signals cannot be read any more"))
    }

    /// From now on the first signal only sets this.
    pub fn cancel(&self) -> &AtomicBool {
        self.gentle.store(true, Ordering::Relaxed);
        &self.cancel
    }

    /// Whether a first signal came since.
    pub fn is_heard(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

enum Awaited {
    /// The signal that ends the process.
    Last(Signal),
    CalledBack,
    /// Signals cannot be read any more.
    Nothing,
}

fn await_last(signals: &Signals, end: &io::PipeReader, gentle: &AtomicBool, cancel: &AtomicBool) -> Awaited {
    loop {
        let called_back = {
            let mut polled = [PollFd::new(signals, PollFlags::IN), PollFd::new(end, PollFlags::IN)];
            // An interrupted poll finds nothing below and polls again.
            let _ = poll(&mut polled, None);
            !polled[1].revents().is_empty()
        };
        match signals.next() {
            Ok(None) if called_back => return Awaited::CalledBack,
            Ok(None | Some(Signal::SIGWINCH)) => {}
            Ok(Some(_)) if gentle.load(Ordering::Relaxed) && !cancel.swap(true, Ordering::Relaxed) => {}
            Ok(Some(last)) => return Awaited::Last(last),
            Err(_) => return Awaited::Nothing,
        }
    }
}
