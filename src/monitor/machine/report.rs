//! What the machine's state looks like from outside.

use std::time::Duration;

use super::fold::Fold;
use super::state::{Life, Machine};
use crate::model::health::Health;
use crate::model::id::ContainerId;
use crate::model::launch::LAUNCH_VERSION;
use crate::model::status::{HealthStatus, Phase, STATUS_VERSION, Status};

/// Ends in a row that make a crash loop.
const CRASH_LOOP_ENDS: u32 = 3;

impl Machine {
    /// What the health check has found, without its answers.
    pub fn verdict(&self) -> Option<Health> {
        match &self.life {
            Life::Running { health, .. } => health.as_ref().map(Fold::health),
            Life::Starting | Life::Stopping { .. } | Life::Waiting { .. } | Life::Over(_) => {
                self.last_health.as_ref().map(|last| last.health)
            }
        }
    }

    /// Whether somebody wants its end.
    pub fn is_stopping(&self) -> bool {
        matches!(self.life, Life::Stopping { .. })
    }

    /// Whether the restart policy has started what runs now: a start by request begins to count anew.
    pub fn is_restarted_by_policy(&self) -> bool {
        self.restarts > 0
    }

    /// How long the last run took that ended.
    pub fn last_run(&self) -> Option<Duration> {
        self.finished_at?.duration_since(self.started_at?).ok()
    }

    pub(super) fn health(&self) -> Option<HealthStatus> {
        match &self.life {
            Life::Running { health, .. } => health.as_ref().map(Fold::status),
            Life::Starting | Life::Stopping { .. } | Life::Waiting { .. } | Life::Over(_) => self.last_health.clone(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match &self.life {
            Life::Starting => Phase::Starting,
            Life::Running { frozen: false, .. } => Phase::Running,
            Life::Running { frozen: true, .. } => Phase::Paused,
            Life::Stopping { .. } => Phase::Stopping,
            Life::Waiting { .. } if self.streak >= CRASH_LOOP_ENDS => Phase::CrashLoop,
            Life::Waiting { .. } => Phase::Waiting,
            Life::Over(phase) => *phase,
        }
    }

    /// What the status file says.
    pub fn status(&self, id: &ContainerId) -> Status {
        Status {
            version: STATUS_VERSION,
            launch_version: LAUNCH_VERSION,
            id: id.clone(),
            phase: self.phase(),
            pid: match self.life {
                Life::Running { pid, .. } => Some(pid),
                Life::Stopping { pid, .. } => pid,
                Life::Starting | Life::Waiting { .. } | Life::Over(_) => None,
            },
            started_at: self.started_at,
            finished_at: self.finished_at,
            exit: self.exit,
            restarts: self.restarts,
            restarts_in_a_row: Some(self.streak),
            next_start_at: match self.life {
                Life::Waiting { until_wall, .. } => Some(until_wall),
                Life::Starting | Life::Running { .. } | Life::Stopping { .. } | Life::Over(_) => None,
            },
            health: self.health(),
            error: self.error.clone(),
        }
    }
}
