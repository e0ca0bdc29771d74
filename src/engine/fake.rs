//! An engine without a host: [`Actual::after`] behind a lock, for tests of everything above the engine.
//!
//! It refuses what a host would refuse, fails where a test says so, and remembers what it did. The world can be
//! changed behind its back with [`Fake::edit`], as people change hosts.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::waiting::{Attended, Awaited, Wait};
use super::{Engine, Scope};
use crate::model::action::Action;
use crate::model::actual::{Actual, ActualContainer, Liveness};
use crate::model::after::Unmet;
use crate::model::status::Phase;
use crate::model::units::Timespan;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FakeError {
    #[error("the host refuses")]
    Refused(#[source] Unmet),
    #[error("{0}")]
    Scripted(String),
}

/// Says which actions fail, and with which words.
type Script = Box<dyn Fn(&Action) -> Option<String> + Send + Sync>;

/// Says which waits are not over yet.
type Slowness = Box<dyn Fn(&Action) -> bool + Send + Sync>;

pub struct Fake {
    actual: Mutex<Actual>,
    performed: Mutex<Vec<Action>>,
    script: Script,
    slowness: Slowness,
}

impl Fake {
    pub fn new(actual: Actual) -> Fake {
        Fake {
            actual: Mutex::new(actual),
            performed: Mutex::default(),
            script: Box::new(|_| None),
            slowness: Box::new(|_| false),
        }
    }

    /// An engine whose containers take their time for what `is_open` says. Only whoever leaves such a wait goes on.
    pub fn taking_time(self, is_open: impl Fn(&Action) -> bool + Send + Sync + 'static) -> Fake {
        Fake { slowness: Box::new(is_open), ..self }
    }

    /// An engine on which the actions fail that `script` has words for. They change nothing.
    pub fn failing(actual: Actual, script: impl Fn(&Action) -> Option<String> + Send + Sync + 'static) -> Fake {
        Fake { script: Box::new(script), ..Fake::new(actual) }
    }

    pub fn actual(&self) -> Actual {
        lock(&self.actual).clone()
    }

    /// Changes the world as somebody else would.
    pub fn edit(&self, change: impl FnOnce(&mut Actual)) {
        change(&mut lock(&self.actual));
    }

    /// Every action that succeeded, in order.
    pub fn performed(&self) -> Vec<Action> {
        lock(&self.performed).clone()
    }
}

/// A test that panicked while it held the lock has failed already; the others may go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine for Fake {
    type Error = FakeError;

    fn observe(&self, scope: &Scope) -> Result<Actual, FakeError> {
        let mut actual = self.actual();
        for source in scope.images.keys() {
            actual.images.entry(source.clone()).or_default();
        }
        Ok(actual)
    }

    fn perform(&self, action: &Action) -> Result<(), FakeError> {
        if let Some(words) = (self.script)(action) {
            return Err(FakeError::Scripted(words));
        }
        let mut actual = lock(&self.actual);
        *actual = actual.after(action).map_err(FakeError::Refused)?;
        lock(&self.performed).push(action.clone());
        Ok(())
    }

    fn attend(&self, awaited: &Awaited<'_>, wait: &mut Wait, _: Instant) -> Result<Attended, FakeError> {
        let Awaited { id, condition, timeout, stays } = awaited;
        let timespan = |duration: &Duration| Timespan::from_millis(duration.as_millis() as u64);
        let (timeout, stays) = (timespan(timeout), timespan(stays));
        let action = Action::AwaitContainer { id: (*id).clone(), condition: *condition, timeout, stays };
        let is_stopped = |container: &ActualContainer| match &container.liveness {
            Liveness::Ended(status) => status.phase == Phase::Stopped,
            Liveness::Absent | Liveness::Monitored(_) | Liveness::Lost(_) => false,
        };
        if self.actual().containers.get(*id).is_some_and(is_stopped) {
            return Ok(Attended::Stopped);
        }
        // What has ended in vain takes no time.
        let is_lost = (self.script)(&action).is_some() || self.actual().after(&action).is_err();
        match (self.slowness)(&action) && !is_lost {
            true => Ok(Attended::Open { until: wait.deadline(awaited) }),
            false => self.perform(&action).map(|()| Attended::Holds),
        }
    }

    fn hint(&self, _: &FakeError) -> Option<String> {
        None
    }
}
