//! What can wake the loop, and who sends it.

use std::io;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::{SigSet, Signal};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::places::Places;
use crate::engine::network::events::Events;
use crate::model::paths::run;

/// Why the loop wakes, in rising weight: of several at once the weightiest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// The interval is over, or a retry is due.
    Timer,
    /// A container changed its phase, or somebody touched a kernel object.
    Host,
    /// A manifest was edited.
    Manifest,
    /// SIGHUP.
    Reload,
    Start,
    /// SIGTERM or SIGINT.
    End,
}

impl Wake {
    /// Everything but the host's own events, of which there are many: an edit may be missed (a filesystem without
    /// inotify(7), a variable of the environment file that could not be watched), and reading costs a millisecond.
    pub fn rereads_manifest(self) -> bool {
        matches!(self, Wake::Timer | Wake::Manifest | Wake::Reload | Wake::Start)
    }

    /// Whether somebody waits for the manifest to be in force.
    pub fn is_reload(self) -> bool {
        matches!(self, Wake::Manifest | Wake::Reload | Wake::Start)
    }

    /// Whether more of the kind is about to come.
    pub fn waits_for_more(self) -> bool {
        matches!(self, Wake::Host | Wake::Manifest)
    }
}

/// Blocks the signals of the loop in this thread and in those it starts later. Call it first in `main`'s thread.
pub fn block_signals() -> nix::Result<()> {
    signals().thread_block()
}

fn signals() -> SigSet {
    SigSet::from_iter([Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT])
}

/// Sends a wake for every signal, from a thread that lives as long as the process.
pub fn on_signals(to: Sender<Wake>) -> io::Result<()> {
    let listen = move || {
        while let Ok(signal) = signals().wait() {
            let wake = if signal == Signal::SIGHUP { Wake::Reload } else { Wake::End };
            if to.send(wake).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(listen).map(drop)
}

/// Sends a wake when one of these places changes, or any manifest in a directory that the watcher is told to watch.
/// An editor that renames a new file over the old one is seen, since the directory is what is watched.
pub fn on_manifests(places: Arc<Mutex<Places>>, to: Sender<Wake>) -> notify::Result<RecommendedWatcher> {
    let counts = move |path: &Path| {
        is_manifest(path) || places.lock().unwrap_or_else(PoisonError::into_inner).entries.contains(path)
    };
    watcher(Wake::Manifest, to, counts)
}

/// Sends a wake when a monitor writes its status, or when a container's files go away.
pub fn on_containers(run: &Path, records: &Path, to: Sender<Wake>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = watcher(Wake::Host, to, is_container)?;
    watcher.watch(run, RecursiveMode::Recursive)?;
    watcher.watch(records, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Sends a wake when somebody touches links, addresses or firewall rules, from a thread that lives as long as the process.
pub fn on_kernel(events: Events, to: Sender<Wake>) -> io::Result<()> {
    let listen = move || {
        while events.wait().is_ok() && to.send(Wake::Host).is_ok() {}
    };
    std::thread::Builder::new().name("kernel events".into()).spawn(listen).map(drop)
}

fn watcher(
    wake: Wake,
    to: Sender<Wake>,
    counts: impl Fn(&Path) -> bool + Send + 'static,
) -> notify::Result<RecommendedWatcher> {
    notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let counts = match &event {
            Ok(event) => changes(&event.kind) && event.paths.iter().any(|path| counts(path)),
            // The queue overflowed: something happened.
            Err(_) => true,
        };
        if counts {
            // The loop has ended if nobody receives; then nothing needs to wake.
            let _ = to.send(wake);
        }
    })
}

fn changes(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_))
}

fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|extension| extension == "toml")
}

/// Status files, and container directories (which have no extension and no dot).
fn is_container(path: &Path) -> bool {
    let Some(name) = path.file_name() else { return false };
    name == run::STATUS || (path.extension().is_none() && name.len() == 12)
}
