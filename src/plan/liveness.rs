//! What the state of a container means for its plan, as one table.
//!
//! For a container that should run, with its restart policy as declared:
//!
//! | monitor | phase | policy | standing |
//! |---|---|---|---|
//! | absent | | any | down: not started since it was created, or since boot |
//! | lost | | any | stale: stopped and started, since nobody supervises it |
//! | there | starting, running, waiting, crash loop | any | up: the monitor does the rest |
//! | there | paused | any | up, and resumed: somebody paused it by hand, but it is declared running |
//! | there | stopping | any | stale: it will be down, by somebody's hand |
//! | ended | stopped | any | down: stopped by hand, but declared running |
//! | ended | failed, never ran | any | down: every run tries again |
//! | ended | exited, failed | `no` | done |
//! | ended | exited with 0 | `on-failure` | done |
//! | ended | exited, failed | `on-failure`, `always`, `unless-stopped`, retries used up | done: it gave up |
//! | ended | exited, failed | the same, retries left | down: its policy wants another run |
//! | ended | any other | any | stale: the monitor died between two writes |
//!
//! # Decisions
//! `unless-stopped` is `always` here. What should run is declared, and `state = "stopped"` is the way to say that a
//! container should not; a stop by hand that outlasts a reboot would be a second, hidden declaration.

use super::ChangeClass;
use crate::model::actual::{ActualContainer, Liveness};
use crate::model::container::Condition;
use crate::model::health::Health;
use crate::model::restart::{RestartCondition, RestartPolicy};
use crate::model::status::{Exit, Phase, Status};

/// What a container's state means for one that should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It runs, or its monitor sees to that.
    Up,
    /// It has to be started, for this reason.
    Down(String),
    /// It has to be stopped and started, for this reason.
    Stale(String),
    /// It ended, and that is what its policy wants.
    Done,
}

/// The table of this module.
pub fn standing(liveness: &Liveness, policy: &RestartPolicy) -> Standing {
    match liveness {
        Liveness::Absent => Standing::Down("not running".to_owned()),
        Liveness::Lost(_) => Standing::Stale("its monitor is gone".to_owned()),
        Liveness::Monitored(status) => match status.phase {
            Phase::Starting | Phase::Running | Phase::Paused | Phase::Waiting | Phase::CrashLoop => Standing::Up,
            Phase::Stopping => Standing::Stale("stopped by hand".to_owned()),
            // The monitor has written its last word and is about to end.
            Phase::Exited | Phase::Stopped | Phase::Failed => after_the_end(status, policy),
        },
        Liveness::Ended(status) => after_the_end(status, policy),
    }
}

fn after_the_end(status: &Status, policy: &RestartPolicy) -> Standing {
    match status.phase {
        Phase::Stopped => Standing::Down("stopped by hand".to_owned()),
        Phase::Failed if status.started_at.is_none() => {
            let error = status.error.as_deref().unwrap_or("no reason is known");
            Standing::Down(format!("could not be started: {error}"))
        }
        Phase::Exited | Phase::Failed => match wants_another_run(status, policy) {
            true => Standing::Down("ended, and its restart policy wants it to run".to_owned()),
            false => Standing::Done,
        },
        Phase::Starting | Phase::Running | Phase::Paused | Phase::Stopping | Phase::Waiting | Phase::CrashLoop => {
            Standing::Stale("its monitor is gone".to_owned())
        }
    }
}

fn wants_another_run(status: &Status, policy: &RestartPolicy) -> bool {
    let in_a_row = status.restarts_in_a_row.unwrap_or(status.restarts);
    let retries_left = policy.max_retries.is_none_or(|max| in_a_row < max);
    match policy.condition {
        RestartCondition::No => false,
        RestartCondition::OnFailure => !succeeded(status) && retries_left,
        RestartCondition::Always | RestartCondition::UnlessStopped => retries_left,
    }
}

fn succeeded(status: &Status) -> bool {
    status.phase == Phase::Exited && status.exit == Some(Exit::Code(0))
}

/// Whether it has ended, and well.
pub(super) fn has_succeeded(liveness: &Liveness) -> bool {
    matches!(liveness, Liveness::Ended(status) if succeeded(status))
}

/// Whether its processes are frozen.
pub(super) fn is_paused(liveness: &Liveness) -> bool {
    matches!(liveness, Liveness::Monitored(status) if status.phase == Phase::Paused)
}

/// Whether `condition` holds of it.
pub(super) fn meets(container: &ActualContainer, condition: Condition) -> bool {
    match (&container.liveness, condition) {
        (Liveness::Monitored(status), Condition::Started) => {
            matches!(status.phase, Phase::Running | Phase::Paused | Phase::Stopping)
        }
        (Liveness::Monitored(status), Condition::Healthy) => {
            status.phase == Phase::Running && status.health.as_ref().is_some_and(|h| h.health == Health::Healthy)
        }
        // It was started, and that it ended is what its policy wants.
        (Liveness::Ended(status), Condition::Started) => matches!(status.phase, Phase::Exited),
        (Liveness::Monitored(status) | Liveness::Ended(status), Condition::Completed) => succeeded(status),
        (Liveness::Ended(_), Condition::Healthy) => false,
        (Liveness::Absent | Liveness::Lost(_), _) => false,
    }
}

/// What a person should know of a container that is left as it is.
pub(super) fn remark(container: &ActualContainer) -> Option<String> {
    let name = &container.record.instance;
    match &container.liveness {
        Liveness::Monitored(status) if status.phase == Phase::CrashLoop => {
            Some(format!("container {name} ends again and again: `evenkeel logs {name}` may tell why"))
        }
        Liveness::Ended(status) if !succeeded(status) && status.phase != Phase::Stopped => {
            let how = match (&status.exit, &status.error) {
                (_, Some(error)) => format!("could not be started: {error}"),
                (Some(exit), None) => format!("ended with status {}", exit.code()),
                (None, None) => "ended".to_owned(),
            };
            Some(format!("container {name} {how}, and its restart policy lets it rest"))
        }
        Liveness::Absent | Liveness::Monitored(_) | Liveness::Lost(_) | Liveness::Ended(_) => None,
    }
}

/// Limits that the cgroup has and the record does not, or the other way round. What the kernel
/// rounded is given as declared; a limit of a controller that this host lacks is not compared, since nothing could hold it.
pub(super) fn limits_drift(
    container: &ActualContainer,
    controllers: &std::collections::BTreeSet<String>,
) -> Vec<super::FieldChange> {
    let Some(found) = &container.limits else { return Vec::new() };
    let wanted = &container.record.spec.resources;
    super::diff::limits(found, wanted)
        .into_iter()
        .filter(|change| controller_of(&change.field).is_none_or(|controller| controllers.contains(controller)))
        .map(|change| super::FieldChange { class: ChangeClass::Live, ..change })
        .collect()
}

/// The cgroup controller that holds a limit.
pub(super) fn controller_of(field: &str) -> Option<&'static str> {
    match field {
        "resources.memory" | "resources.memory_swap" | "resources.memory_reservation" => Some("memory"),
        "resources.cpus" | "resources.cpu_shares" => Some("cpu"),
        "resources.cpuset" => Some("cpuset"),
        "resources.pids" => Some("pids"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::launch::LAUNCH_VERSION;
    use crate::model::status::STATUS_VERSION;
    use std::time::SystemTime;

    fn ended(phase: Phase, exit: Option<u8>, restarts: u32) -> Liveness {
        Liveness::Ended(Status {
            version: STATUS_VERSION,
            launch_version: LAUNCH_VERSION,
            id: "0123456789ab".parse().unwrap(),
            phase,
            pid: None,
            started_at: exit.map(|_| SystemTime::UNIX_EPOCH),
            finished_at: None,
            exit: exit.map(Exit::Code),
            restarts,
            restarts_in_a_row: None,
            next_start_at: None,
            health: None,
            error: None,
        })
    }

    #[test]
    fn what_ended_is_started_again_only_when_its_policy_wants_that() {
        use RestartCondition::{Always, No, OnFailure, UnlessStopped};
        let table: [(RestartCondition, Option<u32>, Liveness, bool); 12] = [
            (No, None, ended(Phase::Exited, Some(0), 0), false),
            (No, None, ended(Phase::Exited, Some(1), 0), false),
            (No, None, ended(Phase::Stopped, Some(0), 0), true),
            (No, None, ended(Phase::Failed, None, 0), true),
            (OnFailure, None, ended(Phase::Exited, Some(0), 0), false),
            (OnFailure, Some(3), ended(Phase::Exited, Some(1), 3), false),
            (OnFailure, Some(3), ended(Phase::Exited, Some(1), 2), true),
            (OnFailure, None, ended(Phase::Exited, Some(1), 9), true),
            (Always, None, ended(Phase::Exited, Some(0), 0), true),
            (Always, Some(2), ended(Phase::Exited, Some(0), 2), false),
            (UnlessStopped, None, ended(Phase::Stopped, Some(0), 0), true),
            (No, None, Liveness::Absent, true),
        ];
        for (condition, max_retries, liveness, starts) in table {
            let policy = RestartPolicy { max_retries, ..RestartPolicy::of(condition) };
            let standing = standing(&liveness, &policy);
            assert_eq!(matches!(standing, Standing::Down(_)), starts, "{condition:?} {liveness:?}: {standing:?}");
        }
    }

    #[test]
    fn retries_are_counted_as_the_monitor_counts_them() {
        let Liveness::Ended(status) = ended(Phase::Exited, Some(1), 8) else { unreachable!() };
        let gave_up = Liveness::Ended(Status { restarts_in_a_row: Some(3), ..status });
        let of = |max| RestartPolicy { max_retries: Some(max), ..RestartPolicy::of(RestartCondition::OnFailure) };
        assert_eq!(standing(&gave_up, &of(3)), Standing::Done);
        assert!(matches!(standing(&gave_up, &of(6)), Standing::Down(_)));
    }

    #[test]
    fn what_nobody_supervises_is_stopped_and_started() {
        let policy = RestartPolicy::of(RestartCondition::Always);
        assert!(matches!(standing(&Liveness::Lost(None), &policy), Standing::Stale(_)));
        assert!(matches!(standing(&ended(Phase::Running, Some(0), 0), &policy), Standing::Stale(_)));
    }
}
