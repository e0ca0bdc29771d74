//! How `watch` removes images that nothing needs: at the end of a round, while nobody else works here.
//!
//! Names go in the round, which is a matter of milliseconds; contents go on a thread of the lowest priority that rests
//! as long as it works, and the next removal waits for it.
//!
//! # Decisions
//! * Contents that belong to nothing go within the hour, however empty the disk: a crash or a broken pull left them.
//! * Images go only for the sake of space. Whoever wants them gone by age alone has `evenkeel image prune --until`.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crate::engine::host::Host;
use crate::engine::image::store::gc::Patience;
use crate::engine::image::store::trash;
use crate::model::desired::Desired;
use crate::model::garbage::{Disk, Policy};
use crate::model::host_config::GcConfig;
use crate::reconcile::report::causes;

use super::failure::Failure;
use super::stats;

/// How often contents that belong to nothing are looked for, and how often space is, while the disk is too full.
const CALM: Duration = Duration::from_secs(3600);
const PRESSED: Duration = Duration::from_secs(60);

/// The garbage collection of one service.
pub struct Collecting<'a> {
    host: &'a Host,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Nothing goes before the host file was read.
    config: Option<GcConfig>,
    looked: Option<Instant>,
    removal: Option<JoinHandle<()>>,
    /// Said once, and again when it has been otherwise.
    complaint: Option<String>,
}

impl<'a> Collecting<'a> {
    pub fn new(host: &'a Host) -> Collecting<'a> {
        Collecting { host, state: Mutex::new(State::default()) }
    }

    /// From now on this is how it is done.
    pub fn configure(&self, config: GcConfig) {
        self.state().config = Some(config);
    }

    /// Removes what is due. The caller holds the lock of the state root. A failure is no failure of the round.
    pub fn look(&self, desired: &Desired) {
        let mut state = self.state();
        let complaint = match self.collect(&mut state, desired) {
            Ok(complaint) => complaint,
            Err(failure) => Some(format!("images are not tidied: {}", failure.line())),
        };
        if complaint.is_some() && complaint != state.complaint {
            tracing::warn!("{}", complaint.as_deref().unwrap_or_default());
        }
        state.complaint = complaint;
    }

    fn collect(&self, state: &mut State, desired: &Desired) -> Result<Option<String>, Failure> {
        self.host.detach_unused_layers().map_err(Failure::engine)?;
        if state.removal.as_ref().is_some_and(|removal| !removal.is_finished()) {
            return Ok(state.complaint.clone());
        }
        let Some(config) = state.config.clone() else { return Ok(None) };
        let Some(disk) = self.host.image_disk().map_err(Failure::engine)? else { return Ok(None) };
        let excess = disk.excess(&config);
        if !is_due(state.looked.map(|looked| looked.elapsed()), excess) {
            return Ok(state.complaint.clone());
        }
        // One that fails is tried again no sooner.
        let looked = state.looked.replace(Instant::now());
        let policy = Policy::of_host(&config, excess, SystemTime::now());
        // Held until all of it is removed, so that nobody does it in the thread's place.
        let removing = self.host.images().removing();
        let held = trash::hold(&removing).map_err(Failure::from)?;
        let removed = self.host.remove_garbage(Some(desired), &policy, Patience::GiveUp).map_err(Failure::engine)?;
        // Somebody fetches an image: the next round sees.
        let Some(removed) = removed else {
            state.looked = looked;
            return Ok(state.complaint.clone());
        };
        for chosen in &removed.chosen {
            tracing::info!(why = %chosen.why, "remove {}", chosen.thing);
        }
        for name in &removed.sources {
            tracing::info!("{name} is not on this host any more");
        }
        self.host.forget_generations(Some(desired), policy.now).map_err(Failure::engine)?;
        let bytes = removed.bytes();
        let complaint = excess.filter(|excess| bytes < *excess).map(|_| stays_full(disk, &config));
        if !removed.trash.is_empty() {
            state.removal = Some(std::thread::spawn(move || {
                remove(&removing, &removed.trash, bytes);
                drop(held);
            }));
        }
        Ok(complaint)
    }

    /// A thread that panicked has ended the process (`panic = "abort"`), or a test.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it is time, so long after the last look.
fn is_due(since: Option<Duration>, excess: Option<u64>) -> bool {
    let wait = if excess.is_some() { PRESSED } else { CALM };
    since.is_none_or(|since| since >= wait)
}

fn stays_full(Disk { used, available }: Disk, config: &GcConfig) -> String {
    let percent = u128::from(used) * 100 / (u128::from(used) + u128::from(available)).max(1);
    format!(
        "the disk is {percent} percent full, and what may go does not bring it to {}: the rest is needed, or was used within {}",
        config.low, config.min_age
    )
}

/// The life of the thread that removes contents.
fn remove(removing: &Path, trash: &[PathBuf], bytes: u64) {
    // Without a lower priority it is only less polite. This thread alone is meant: setpriority(2), "C library/kernel
    // differences".
    let _ = rustix::process::setpriority_process(None, 19);
    for path in trash {
        let begun = Instant::now();
        if let Err(error) = trash::remove(removing, std::slice::from_ref(path)) {
            tracing::warn!("{}", causes(&error).join(": "));
        }
        std::thread::sleep(begun.elapsed());
    }
    tracing::info!("{} of images and what belongs to them are free again", stats::bytes(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_looked_at_more_often_and_the_first_look_is_at_once() {
        let since = |seconds| Some(Duration::from_secs(seconds));
        assert!(is_due(None, None) && is_due(None, Some(1)));
        assert!(!is_due(since(59), Some(1)) && is_due(since(60), Some(1)));
        assert!(!is_due(since(3599), None) && is_due(since(3600), None));
    }
}
