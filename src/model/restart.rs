//! Restart policies.

use serde::{Deserialize, Serialize};

use super::units::Timespan;

/// When a container that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    No,
    /// When it ended with another status than 0 or by a signal.
    OnFailure,
    Always,
    /// As `Always`, but one that was stopped by hand stays stopped after a reboot.
    UnlessStopped,
}

/// How long to wait before a restart: the first one at once, then `initial`, growing by `factor` up to `max`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Backoff {
    pub initial: Timespan,
    pub factor: u32,
    pub max: Timespan,
    /// A run of this length forgets the failures before it.
    pub reset_after: Timespan,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff {
            initial: Timespan::from_millis(100),
            factor: 2,
            max: Timespan::from_secs(60),
            reset_after: Timespan::from_secs(10),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RestartPolicy {
    pub condition: RestartCondition,
    /// How many restarts in a row before giving up; without it there is no limit.
    pub max_retries: Option<u32>,
    pub backoff: Backoff,
}

impl RestartPolicy {
    pub fn of(condition: RestartCondition) -> RestartPolicy {
        RestartPolicy { condition, max_retries: None, backoff: Backoff::default() }
    }
}
