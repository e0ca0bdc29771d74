//! The waits of `watch`, from one round to the next.
//!
//! A plan waits for containers to be healthy or to complete, for an hour if need be. A round does not sit there with the lock
//! of the state root: what no longer runs of other projects would stay down, and a rule that somebody flushed would stay
//! gone. It leaves a wait that is not over soon, and with it the steps behind it; the word of the container's monitor begins
//! another round, whose plan waits for the same again, or has it behind it. Images are fetched before it takes the lock for
//! good ([`fetch`](mod@super::fetch)).
//!
//! ```text
//! round 1   start db ─> await db ┄┄ left ┄┄> start web (deferred)          lock released
//!              .. a minute, in which every other round of every project goes on ..
//! round 2               db is healthy, says its monitor ─> start web
//! ```
//!
//! What has to outlive a round is kept here, in memory: since when each wait goes on. What has to outlive the service is in
//! the records: what an update that has not proven itself goes back to (`plan::fallback`). A service that is started anew
//! gives every wait its whole time again.
//!
//! # Decisions
//! * A container that was waited for and ended in vain is not started again in the round that finds it so: the start fails
//!   with the verdict of the wait. So an update goes back, and a migration that fails is tried again after the pause that
//!   failures have, not at once and for ever.
//! * One that somebody stopped is no failure: it is started, as any that is declared running, and its wait begins anew.
//! * The first moments of a wait are sat out. Most containers are healthy within them, and a chain of five would take
//!   five rounds.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::engine::waiting::{Attended, Awaited, Wait};
use crate::model::action::Action;
use crate::model::container::Condition;
use crate::model::id::ContainerId;
use crate::plan::{Plan, StepId};

/// How long a round sits out a wait that begins.
const LINGER: Duration = Duration::from_secs(2);

/// Waits that were left open.
#[derive(Debug)]
pub struct Waits {
    linger: Duration,
    open: Mutex<BTreeMap<Key, Open>>,
}

/// What is waited for, and for how long it has to hold.
type Key = (ContainerId, Condition, Duration);

#[derive(Debug, Clone)]
struct Open {
    wait: Wait,
    /// When time alone decides.
    until: Instant,
}

impl Default for Waits {
    fn default() -> Waits {
        Waits::lingering(LINGER)
    }
}

impl Waits {
    /// Sits out so much of each wait.
    pub fn lingering(linger: Duration) -> Waits {
        Waits { linger, open: Mutex::default() }
    }

    /// When the first of them is decided by time alone.
    pub fn due(&self) -> Option<Instant> {
        self.lock().values().map(|open| open.until).min()
    }

    /// Forgets the waits that `plan` does not take up. Whom the plan stops, or changes before it starts it, has another run
    /// before it: what became of the last one says nothing of that.
    pub(super) fn turn_to(&self, plan: &Plan) {
        let regular = || plan.steps.iter().filter(|step| !step.is_rescue());
        let stops = |id: &ContainerId| {
            regular().any(|step| matches!(&step.action, Action::StopContainer { id: it } if it == id))
        };
        let changes = |id: &ContainerId, step: StepId| match &plan.steps[step].action {
            Action::UpdateContainer { record } => record.id == *id,
            _ => false,
        };
        let starts = |id: &ContainerId| {
            let start = regular().find(|step| matches!(&step.action, Action::StartContainer { id: it } if it == id));
            start.map(|start| start.after.iter().any(|before| changes(id, *before)))
        };
        let awaits = |key: &Key| {
            let mut awaited = regular().filter_map(|step| Awaited::of(&step.action));
            awaited.any(|awaited| self::key(&awaited) == *key)
        };
        self.lock().retain(|key, _| {
            !stops(&key.0)
                && match starts(&key.0) {
                    Some(is_changed) => !is_changed,
                    None => awaits(key),
                }
        });
    }

    /// Looks at what is awaited, for as long as its beginning lasts.
    pub(super) fn attend<E: Engine>(&self, engine: &E, awaited: &Awaited<'_>) -> Result<Left, E::Error> {
        let key = key(awaited);
        let before = self.lock().remove(&key);
        let is_new = before.is_none();
        let (mut wait, until) = match before {
            Some(Open { wait, .. }) => (wait, Instant::now()),
            None => (Wait::begin(Instant::now()), Instant::now() + self.linger),
        };
        Ok(match engine.attend(awaited, &mut wait, until)? {
            Attended::Holds => Left::Over,
            Attended::Open { until } => {
                self.lock().insert(key, Open { wait, until });
                if is_new { Left::Open } else { Left::StillOpen }
            }
            // The next round starts it, and waits anew.
            Attended::Stopped => Left::StillOpen,
        })
    }

    /// Why what an earlier round waited for is lost, before the container is started again.
    pub(super) fn lost<E: Engine>(&self, engine: &E, id: &ContainerId) -> Option<E::Error> {
        let of_it: BTreeMap<Key, Open>;
        {
            let mut open = self.lock();
            (of_it, *open) = std::mem::take(&mut *open).into_iter().partition(|(key, _)| key.0 == *id);
        }
        of_it.into_iter().find_map(|(key, mut open)| {
            // Whether it came too late is not the question.
            let awaited = Awaited { id, condition: key.1, timeout: FOREVER, stays: key.2 };
            engine.attend(&awaited, &mut open.wait, Instant::now()).err()
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Longer than any wait.
const FOREVER: Duration = Duration::from_secs(1 << 31);

/// What became of a wait in this round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Over,
    /// Left for the first time.
    Open,
    StillOpen,
}

fn key(awaited: &Awaited<'_>) -> Key {
    (awaited.id.clone(), awaited.condition, awaited.stays)
}
