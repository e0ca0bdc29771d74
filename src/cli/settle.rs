//! `apply --wait`: until all that is declared to run does run, healthy where it has a check, or has ended well.

use std::time::{Duration, Instant};

use super::context::Context;
use super::failure::{Exit, Failure};
use super::inventory::Inventory;
use super::output::{BAD, Output};
use super::phrase;
use crate::model::actual::Liveness;
use crate::model::container::RunState;
use crate::model::desired::Desired;
use crate::model::health::Health;
use crate::model::record::ContainerRecord;
use crate::model::status::{Exit as HowItEnded, Phase, Status};
use crate::model::units::Timespan;

/// Status files change on tmpfs, so looking often is cheap; a person does not notice this much.
const PAUSE: Duration = Duration::from_millis(50);

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
            let liveness = inventory.liveness(record).map_err(Failure::monitor)?;
            let verdict = verdict(record, &liveness);
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
                let state = phrase::state(liveness, std::time::SystemTime::now());
                let error = phrase::error(liveness).map(|error| format!(": {error}")).unwrap_or_default();
                output.remark(&format!("{BAD}degraded{BAD:#} container {}  {state}{error}", record.instance));
            }
            return Ok(Exit::Degraded);
        }
        std::thread::sleep(PAUSE);
    }
}

fn verdict(record: &ContainerRecord, liveness: &Liveness) -> Verdict {
    if record.spec.state == RunState::Stopped {
        return Verdict::Well;
    }
    match liveness {
        Liveness::Monitored(status) => running(status),
        Liveness::Ended(status) => match status.exit {
            Some(HowItEnded::Code(0)) => Verdict::Well,
            _ => Verdict::Never,
        },
        Liveness::Absent | Liveness::Lost(_) => Verdict::Never,
    }
}

fn running(status: &Status) -> Verdict {
    match (status.phase, status.health.as_ref().map(|health| health.health)) {
        (Phase::Running, None | Some(Health::Healthy)) => Verdict::Well,
        _ => Verdict::NotYet,
    }
}
