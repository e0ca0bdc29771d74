//! `apply --wait`: until all that is declared to run does run, healthy where it has a check, or has ended well.
//!
//! What has no check is believed once it has run for a second; what was restarted, once it has run for ten: until then
//! it may be ending again and again.

use std::time::{Duration, Instant, SystemTime};

use super::context::Context;
use super::failure::{Exit, Failure};
use super::inventory::Inventory;
use super::output::{BAD, Output};
use super::phrase;
use crate::model::actual::Liveness;
use crate::model::container::RunState;
use crate::model::desired::Desired;
use crate::model::foreign::tamed_line;
use crate::model::health::Health;
use crate::model::record::ContainerRecord;
use crate::model::status::{Exit as HowItEnded, Phase, Status};
use crate::model::units::Timespan;

/// Status files change on tmpfs, so looking often is cheap; a person does not notice this much.
const PAUSE: Duration = Duration::from_millis(50);

/// What fails at once has failed by then.
const STEADY: Duration = Duration::from_secs(1);
/// The same for what was restarted.
const STEADY_AGAIN: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Well,
    NotYet,
    /// It will not get better by waiting.
    Never,
}

pub fn wait(desired: &Desired, context: &Context, timeout: Timespan, output: &Output) -> Result<Exit, Failure> {
    let deadline = Instant::now() + timeout.to_duration();
    loop {
        let inventory = Inventory::read(context.paths.clone()).map_err(Failure::engine)?.of_project(&desired.project);
        let mut unwell = Vec::new();
        let mut hope = false;
        for record in inventory.records() {
            let liveness = inventory.liveness(record).map_err(Failure::engine)?;
            let verdict = verdict(record, &liveness, SystemTime::now());
            hope |= verdict == Verdict::NotYet;
            if verdict != Verdict::Well {
                unwell.push((record, liveness));
            }
        }
        if unwell.is_empty() {
            return Ok(Exit::Done);
        }
        if !hope || Instant::now() >= deadline {
            for (record, liveness) in &unwell {
                let state = phrase::state(liveness, SystemTime::now());
                let error = phrase::error(liveness).map(|error| format!(": {}", tamed_line(error))).unwrap_or_default();
                output.remark(&format!("{BAD}degraded{BAD:#} container {}  {state}{error}", record.instance));
            }
            return Ok(Exit::Degraded);
        }
        std::thread::sleep(PAUSE);
    }
}

fn verdict(record: &ContainerRecord, liveness: &Liveness, now: SystemTime) -> Verdict {
    if record.spec.state == RunState::Stopped {
        return Verdict::Well;
    }
    match liveness {
        Liveness::Monitored(status) => running(status, now),
        Liveness::Ended(status) => match status.exit {
            Some(HowItEnded::Code(0)) => Verdict::Well,
            _ => Verdict::Never,
        },
        Liveness::Absent | Liveness::Lost(_) => Verdict::Never,
    }
}

fn running(status: &Status, now: SystemTime) -> Verdict {
    match (status.phase, status.health.as_ref().map(|health| health.health)) {
        (Phase::Running, Some(Health::Healthy)) => Verdict::Well,
        (Phase::Running, None) if is_steady(status, now) => Verdict::Well,
        _ => Verdict::NotYet,
    }
}

fn is_steady(status: &Status, now: SystemTime) -> bool {
    let needed = match status.restarts {
        0 => STEADY,
        _ => STEADY_AGAIN,
    };
    // A clock that was set back must not make anybody wait for it to catch up.
    let runs_for = status.started_at.map(|started| now.duration_since(started).unwrap_or(needed));
    runs_for.is_some_and(|runs_for| runs_for >= needed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::launch::LAUNCH_VERSION;
    use crate::model::status::STATUS_VERSION;

    fn verdict_of(restarts: u32, seconds: u64) -> Verdict {
        let started = SystemTime::UNIX_EPOCH;
        let status = Status {
            version: STATUS_VERSION,
            launch_version: LAUNCH_VERSION,
            id: "0123456789ab".parse().unwrap(),
            phase: Phase::Running,
            pid: Some(1),
            started_at: Some(started),
            finished_at: None,
            exit: None,
            restarts,
            restarts_in_a_row: None,
            next_start_at: None,
            health: None,
            error: None,
        };
        running(&status, started + Duration::from_secs(seconds))
    }

    #[test]
    fn what_ends_again_and_again_is_not_well_between_two_ends() {
        assert_eq!(verdict_of(0, 0), Verdict::NotYet);
        assert_eq!(verdict_of(0, 1), Verdict::Well);
        assert_eq!(verdict_of(3, 9), Verdict::NotYet);
        assert_eq!(verdict_of(3, 10), Verdict::Well);
    }
}
