//! What the machine's state looks like from outside.

use super::fold::Fold;
use super::state::{Life, Machine};
use crate::model::id::ContainerId;
use crate::model::launch::LAUNCH_VERSION;
use crate::model::status::{HealthStatus, Phase, STATUS_VERSION, Status};

/// Ends in a row that make a crash loop.
const CRASH_LOOP_ENDS: u32 = 3;

impl Machine {
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
