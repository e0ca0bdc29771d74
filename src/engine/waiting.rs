//! Waits for containers as they go on: pure, so that one may be left and taken up again.
//!
//! Time is an argument, and what earlier looks saw is data ([`Wait`]). Whoever may block looks until there is a verdict;
//! whoever may not, since others need the lock of the state root, looks once in a while (`reconcile::waits`).

use std::time::{Duration, Instant, SystemTime};

use crate::model::action::Action;
use crate::model::container::Condition;
use crate::model::foreign::tamed_line;
use crate::model::health::Health;
use crate::model::id::ContainerId;
use crate::model::status::{Exit, Phase, Status};

/// What [`Action::AwaitContainer`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Awaited<'a> {
    pub id: &'a ContainerId,
    pub condition: Condition,
    pub timeout: Duration,
    pub stays: Duration,
}

impl Awaited<'_> {
    /// `None` for any other action.
    pub fn of(action: &Action) -> Option<Awaited<'_>> {
        let Action::AwaitContainer { id, condition, timeout, stays } = action else { return None };
        Some(Awaited { id, condition: *condition, timeout: timeout.to_duration(), stays: stays.to_duration() })
    }
}

/// A wait that has begun, and what was seen since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    begun: Instant,
    /// Since when the condition holds, and of which run of the container.
    ready: Option<(Instant, Option<Run>)>,
}

/// A run of a container, which a restart ends: how many there were, and when it began.
type Run = (u32, Option<SystemTime>);

/// What a look came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Holds,
    /// Not yet; at `until` time alone decides.
    Open {
        until: Instant,
    },
    /// Somebody stopped it: that says nothing for it and nothing against it.
    Stopped,
    /// Why it will not hold any more, or has not held in time.
    Lost(String),
}

/// How far an engine that looked for a while has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attended {
    Holds,
    /// Not yet; at `until` time alone decides.
    Open {
        until: Instant,
    },
    /// Somebody stopped it.
    Stopped,
}

/// How far a container is from a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    Reached,
    NotYet,
    Never(String),
}

impl Wait {
    pub fn begin(now: Instant) -> Wait {
        Wait { begun: now, ready: None }
    }

    /// When the condition has to be reached.
    pub fn deadline(&self, awaited: &Awaited<'_>) -> Instant {
        self.begun + awaited.timeout
    }

    /// Judges by what the monitor wrote last. The condition has to be reached in time, and then to hold for as long as
    /// `stays`, without so much as a restart; one that means an end holds as it is. What people do to the container is no
    /// verdict: after a restart or a pause by hand the wait begins anew.
    pub fn judge(&mut self, awaited: &Awaited<'_>, status: Option<&Status>, now: Instant) -> Verdict {
        if status.is_some_and(|status| status.phase == Phase::Stopped) {
            return Verdict::Stopped;
        }
        if let (Some((_, Some(first))), Some(status)) = (&self.ready, status)
            && is_by_hand(status, *first)
        {
            *self = Wait::begin(now);
        }
        let Awaited { id: _, condition, timeout, stays } = awaited;
        let deadline = self.deadline(awaited);
        let run = status.map(|status| (status.restarts, status.started_at));
        let within = |state: String| {
            Verdict::Lost(format!("{state}, within {} of being ready", humantime::format_duration(*stays)))
        };
        match (progress(status, *condition), &self.ready) {
            (Progress::Never(state), None) => Verdict::Lost(state),
            (Progress::NotYet, None) if now >= deadline => {
                let wanted = match condition {
                    Condition::Started => "has not started",
                    Condition::Healthy => "is not healthy",
                    Condition::Completed => "has not completed",
                };
                Verdict::Lost(format!("{wanted} after {}", humantime::format_duration(*timeout)))
            }
            (Progress::NotYet, None) => Verdict::Open { until: deadline },
            (Progress::Reached, None) if stays.is_zero() || *condition == Condition::Completed => Verdict::Holds,
            (Progress::Reached, None) => {
                self.ready = Some((now, run));
                Verdict::Open { until: now + *stays }
            }
            (Progress::Reached, Some((since, first))) if *first == run => match *since + *stays {
                end if now >= end => Verdict::Holds,
                end => Verdict::Open { until: end },
            },
            (Progress::Never(state), Some(_)) => within(state),
            (Progress::Reached | Progress::NotYet, Some(_)) => within(status.map_or_else(|| "ended".to_owned(), ended)),
        }
    }
}

/// Whether somebody asked for what became of the run `first`. The monitor counts what it starts again by itself, from the
/// last start by request.
fn is_by_hand(status: &Status, (restarts, started_at): Run) -> bool {
    let is_another = status.phase == Phase::Starting || status.started_at != started_at;
    match status.phase {
        Phase::Stopping | Phase::Paused => true,
        Phase::Starting | Phase::Running => is_another && status.restarts <= restarts,
        Phase::Waiting | Phase::CrashLoop | Phase::Exited | Phase::Stopped | Phase::Failed => false,
    }
}

fn progress(status: Option<&Status>, condition: Condition) -> Progress {
    let Some(status) = status else { return Progress::NotYet };
    match (condition, status.phase) {
        (Condition::Started | Condition::Healthy, Phase::Failed) => Progress::Never(format!(
            "could not be started: {}",
            tamed_line(status.error.as_deref().unwrap_or("no reason known"))
        )),
        (Condition::Completed, Phase::Exited) if status.exit == Some(Exit::Code(0)) => Progress::Reached,
        (Condition::Completed, Phase::Running | Phase::Starting | Phase::Stopping | Phase::Paused) => Progress::NotYet,
        // It was started, and what it was to do is done.
        (Condition::Started, Phase::Exited) if status.exit == Some(Exit::Code(0)) => Progress::Reached,
        (_, Phase::Exited | Phase::Stopped | Phase::Failed) => Progress::Never(ended(status)),
        (Condition::Completed, Phase::Waiting | Phase::CrashLoop) => Progress::NotYet,
        (Condition::Started, Phase::Running) => Progress::Reached,
        (Condition::Healthy, Phase::Running) => match &status.health {
            None => Progress::Never("has no health check".into()),
            Some(health) => match health.health {
                Health::Healthy => Progress::Reached,
                Health::Starting => Progress::NotYet,
                Health::Unhealthy => Progress::Never(unhealthy(health.log.last().map(|probe| probe.output.as_str()))),
            },
        },
        (Condition::Started | Condition::Healthy, Phase::CrashLoop) => {
            Progress::Never(format!("keeps ending: {}", ended(status)))
        }
        (Condition::Started | Condition::Healthy, _) => Progress::NotYet,
    }
}

fn ended(status: &Status) -> String {
    match (status.exit, &status.error) {
        (_, Some(error)) => format!("could not be started: {}", tamed_line(error)),
        (Some(Exit::Code(code)), _) => format!("ended with status {code}"),
        (Some(Exit::Signal(signal)), _) => format!("was ended by {signal}"),
        (Some(Exit::OutOfMemory), _) => "was killed for lack of memory".into(),
        (None, None) => "was stopped".into(),
    }
}

fn unhealthy(output: Option<&str>) -> String {
    match output.map(str::trim).filter(|output| !output.is_empty()) {
        Some(output) => format!("is unhealthy: {}", tamed_line(output)),
        None => "is unhealthy".into(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::launch::LAUNCH_VERSION;
    use crate::model::status::{HealthStatus, STATUS_VERSION};

    pub fn status(phase: Phase, exit: Option<Exit>, health: Option<Health>) -> Status {
        Status {
            version: STATUS_VERSION,
            launch_version: LAUNCH_VERSION,
            id: "0123456789ab".parse().unwrap(),
            phase,
            pid: None,
            started_at: None,
            finished_at: None,
            exit,
            restarts: 0,
            restarts_in_a_row: None,
            next_start_at: None,
            health: health.map(|health| HealthStatus { health, failing_streak: 0, log: Vec::new() }),
            error: None,
        }
    }

    #[test]
    fn each_condition_is_reached_missed_or_open() {
        use Condition::{Completed, Healthy, Started};
        let of = |phase, exit, health, condition| progress(Some(&status(phase, exit, health)), condition);
        assert_eq!(progress(None, Started), Progress::NotYet);
        assert_eq!(of(Phase::Running, None, None, Started), Progress::Reached);
        assert_eq!(of(Phase::Running, None, Some(Health::Starting), Healthy), Progress::NotYet);
        assert_eq!(of(Phase::Running, None, Some(Health::Healthy), Healthy), Progress::Reached);
        assert_eq!(of(Phase::Exited, Some(Exit::Code(0)), None, Completed), Progress::Reached);
        assert_eq!(of(Phase::Exited, Some(Exit::Code(0)), None, Started), Progress::Reached);
        assert_eq!(of(Phase::Waiting, Some(Exit::Code(1)), None, Completed), Progress::NotYet);
        for (phase, exit, health, condition) in [
            (Phase::Exited, Some(Exit::Code(3)), None, Completed),
            (Phase::Exited, Some(Exit::Code(1)), None, Started),
            (Phase::Running, None, None, Healthy),
            (Phase::Running, None, Some(Health::Unhealthy), Healthy),
            (Phase::CrashLoop, Some(Exit::Code(1)), None, Started),
        ] {
            assert!(matches!(of(phase, exit, health, condition), Progress::Never(_)), "{phase:?} {condition:?}");
        }
    }

    #[test]
    fn what_a_check_said_is_told_on_one_line() {
        assert_eq!(
            unhealthy(Some("down\n  -   volume data\x1b[2J\n")),
            "is unhealthy: down   -   volume data\u{fffd}[2J"
        );
    }

    #[test]
    fn a_wait_counts_its_time_from_its_beginning_however_often_it_is_looked_at() {
        let (id, begun) = ("0123456789ab".parse().unwrap(), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        let (timeout, stays) = (Duration::from_secs(60), Duration::from_secs(10));
        let awaited = Awaited { id: &id, condition: Condition::Started, timeout, stays };
        let mut wait = Wait::begin(begun);
        assert_eq!(wait.judge(&awaited, None, after(59)), Verdict::Open { until: after(60) });
        assert_eq!(wait.clone().judge(&awaited, None, after(60)), Verdict::Lost("has not started after 1m".into()));

        let runs = status(Phase::Running, None, None);
        assert_eq!(wait.judge(&awaited, Some(&runs), after(59)), Verdict::Open { until: after(69) });
        assert_eq!(wait.judge(&awaited, Some(&runs), after(68)), Verdict::Open { until: after(69) });
        let restarted = Status { restarts: 1, ..status(Phase::Running, Some(Exit::Code(3)), None) };
        let lost = Verdict::Lost("ended with status 3, within 10s of being ready".into());
        assert_eq!(wait.clone().judge(&awaited, Some(&restarted), after(68)), lost);
        assert_eq!(wait.judge(&awaited, Some(&runs), after(69)), Verdict::Holds);
    }

    #[test]
    fn what_people_do_to_a_container_is_no_verdict_on_it() {
        let (id, begun) = ("0123456789ab".parse().unwrap(), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        let (timeout, stays) = (Duration::from_secs(60), Duration::from_secs(10));
        let awaited = Awaited { id: &id, condition: Condition::Started, timeout, stays };
        let run = |phase, restarts, second| {
            let started_at = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
            Status { restarts, started_at, ..status(phase, None, None) }
        };
        let mut wait = Wait::begin(begun);
        let first = run(Phase::Running, 2, 7);
        assert_eq!(wait.judge(&awaited, Some(&first), after(1)), Verdict::Open { until: after(11) });
        let stopped = status(Phase::Stopped, Some(Exit::Code(143)), None);
        assert_eq!(wait.clone().judge(&awaited, Some(&stopped), after(2)), Verdict::Stopped);
        // Seen in the middle of it, and seen when all is over.
        for phase in [Phase::Stopping, Phase::Paused] {
            let verdict = wait.clone().judge(&awaited, Some(&run(phase, 2, 7)), after(5));
            assert_eq!(verdict, Verdict::Open { until: after(65) }, "{phase:?}");
        }
        let starts = wait.clone().judge(&awaited, Some(&run(Phase::Starting, 0, 7)), after(5));
        assert_eq!(starts, Verdict::Open { until: after(65) });
        let second = run(Phase::Running, 0, 12);
        assert_eq!(wait.judge(&awaited, Some(&second), after(6)), Verdict::Open { until: after(16) });
        let ended = wait.clone().judge(&awaited, Some(&run(Phase::Running, 1, 13)), after(7));
        assert!(matches!(ended, Verdict::Lost(_)), "{ended:?}");
        assert_eq!(wait.judge(&awaited, Some(&second), after(16)), Verdict::Holds);
    }
}
