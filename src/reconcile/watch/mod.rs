//! `watch`: rounds of observe, plan and execute for as long as the service runs.
//!
//! ```text
//! manifest edits ─┐                                   ┌─ nothing to do: wait
//! containers ─────┼─> wake ─> settle ─> round ────────┼─ done: wait
//! kernel objects ─┤   (200 ms)  (a thread of its own) └─ something failed: wait longer each time
//! timer, signals ─┘
//! ```
//!
//! * [`wake`]: what can wake the loop, and who sends it. [`places`]: where an edit shows. [`pace`]: when the next round is due; pure.
//! * [`round`]: one of them; `possible`: what is done of a manifest that is refused.
//! * [`service`]: the words between a service and systemd (sd_notify(3)).
//!
//! A manifest that cannot be read, or that is refused, is reported, and the last good one stays in force; it is also kept
//! in the state root, so that a service which starts with such a manifest keeps what was running. Where something speaks
//! against that one, too, it is in force for those of its containers that this does not concern. The loop holds no lock while
//! it waits, be it for nothing or for a container that a plan needs ([`waits`](super::waits)), and owns no container: ending
//! it, by signal or by `kill -9`, touches none.

pub mod pace;
pub mod places;
mod possible;
pub mod round;
pub mod service;
pub mod wake;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use pace::Pace;
use round::{Outcome, Rounds, Standing};
use service::Service;
use wake::Wake;

use crate::engine::Engine;

/// A round that takes longer than this is no work but a hang: the watchdog is no longer fed. Waits are left by then, but an
/// image may come over a slow line, and a build takes what its commands take.
const LONGEST_ROUND: Duration = Duration::from_secs(8 * 3600);

/// How long a round may go on after SIGTERM. What it leaves undone the next run does.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Runs rounds until [`Wake::End`] comes.
pub fn run<E: Engine>(rounds: &mut Rounds<'_, E>, wakes: &Receiver<Wake>, service: &Service, pace: &mut Pace) {
    let (mut pending, mut last) = (Some(Wake::Start), Outcome::Converged);
    let mut is_up = false;
    loop {
        let wake = match pending.take() {
            Some(wake) => wake,
            None => next_wake(wakes, service, pace),
        };
        let wake = settle(wake, wakes, pace);
        match wake {
            Wake::End => break,
            wake if !pace.admits(wake, Instant::now()) => continue,
            wake => {
                if wake.is_reload() {
                    service.reloading();
                }
                let (outcome, interrupted) = attended(rounds, wake, wakes, service);
                let now = Instant::now();
                pace.ended(outcome.standing(), rounds.due(&outcome, now), now);
                // Steps and errors are in the log; that nothing is done has to be said, but not every round.
                match &outcome {
                    Outcome::HeldBack { .. } if outcome != last => tracing::warn!("{outcome}"),
                    Outcome::Busy if outcome != last => tracing::info!("{outcome}"),
                    _ => {}
                }
                // Units behind this one are to find their containers, though updates prove themselves for hours; a reload is
                // over when the manifest was read.
                is_up |= outcome.standing() != Standing::Open;
                match is_up {
                    true => service.ready(&outcome.to_string()),
                    false => service.status(&outcome.to_string()),
                }
                (pending, last) = (interrupted, outcome);
            }
        }
    }
    service.stopping();
}

/// Waits for somebody to wake the loop or for the next round to be due, feeding the watchdog meanwhile.
fn next_wake(wakes: &Receiver<Wake>, service: &Service, pace: &Pace) -> Wake {
    loop {
        let now = Instant::now();
        let left = pace.due().saturating_duration_since(now);
        if left.is_zero() {
            return Wake::Timer;
        }
        match wakes.recv_timeout(left.min(service.heartbeat())) {
            Ok(wake) => return wake,
            Err(RecvTimeoutError::Timeout) => service.alive(),
            Err(RecvTimeoutError::Disconnected) => return Wake::End,
        }
    }
}

/// One edit is many events: lets them pass and keeps the weightiest.
fn settle(mut wake: Wake, wakes: &Receiver<Wake>, pace: &Pace) -> Wake {
    if wake.waits_for_more() {
        let end = Instant::now() + pace.debounce();
        while let Ok(more) = wakes.recv_timeout(end.saturating_duration_since(Instant::now())) {
            wake = wake.max(more);
        }
    }
    wakes.try_iter().fold(wake, Wake::max)
}

/// Runs a round on a thread of its own, so that the watchdog is fed and signals are heard. The second value is what
/// came meanwhile and must not be lost.
fn attended<E: Engine>(
    rounds: &mut Rounds<'_, E>,
    wake: Wake,
    wakes: &Receiver<Wake>,
    service: &Service,
) -> (Outcome, Option<Wake>) {
    let cancel = AtomicBool::new(false);
    let begun = Instant::now();
    let leave = rounds.leave();
    let mut pending: Option<Wake> = None;
    let outcome = std::thread::scope(|scope| {
        let round = scope.spawn(|| rounds.run(wake, &cancel));
        while !round.is_finished() {
            if begun.elapsed() < LONGEST_ROUND {
                service.alive();
            }
            let patience = service.heartbeat().min(Duration::from_millis(20));
            if let Ok(wake) = wakes.recv_timeout(patience) {
                if wake == Wake::End {
                    cancel.store(true, Ordering::Relaxed);
                    wait_or_leave(&round, service, leave);
                }
                // What the round itself does wakes us, too, and cannot be told from what others did behind its back:
                // a round that had nothing to do wakes nobody.
                pending = pending.max(Some(wake));
            }
        }
        round.join()
    });
    (outcome.unwrap_or(Outcome::Panicked), pending)
}

/// After SIGTERM a round ends with the steps that run. One that waits for something slow is not waited for:
/// ending in the middle is what every step is made for.
fn wait_or_leave<T>(round: &std::thread::ScopedJoinHandle<'_, T>, service: &Service, leave: &(dyn Fn() + Sync)) {
    let deadline = Instant::now() + LAST_WORDS;
    while !round.is_finished() {
        if Instant::now() > deadline {
            service.stopping();
            tracing::info!("ended in the middle of a round; the next run goes on");
            return leave();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
