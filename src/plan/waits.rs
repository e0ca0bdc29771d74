//! When a container is ready for those that need it, and how long a plan waits for that.
//!
//! | wait | time |
//! |---|---|
//! | any, with `--timeout` | that |
//! | started | 1 minute |
//! | healthy | `start_period` + (`retries` + 1) x (`interval` + `timeout`), and 10 s for the host |
//! | healthy, check unknown (an image that is fetched first) | 5 minutes |
//! | completed | 1 hour: a migration takes what it takes, but not for ever |

use super::World;
use super::images::config;
use crate::model::container::{Condition, ContainerSpec};
use crate::model::health::{Healthcheck, Probe};
use crate::model::units::Timespan;

/// What is known of a container's health check before it runs.
pub(super) enum Check<'a> {
    There(&'a Healthcheck),
    No,
    /// It is left to an image that is not here yet.
    Unknown,
}

pub(super) fn check<'a>(world: &World<'a>, spec: &'a ContainerSpec) -> Check<'a> {
    let check = match (&spec.healthcheck, config(world, &spec.image)) {
        (Some(check), _) => Some(check),
        (None, Some(config)) => config.healthcheck.as_ref(),
        (None, None) => return Check::Unknown,
    };
    match check {
        Some(check) if check.probe != Probe::None => Check::There(check),
        _ => Check::No,
    }
}

/// Healthy where it is known to have a check, else started.
pub(super) fn readiness(world: &World<'_>, spec: &ContainerSpec) -> Condition {
    match check(world, spec) {
        Check::There(_) => Condition::Healthy,
        Check::No | Check::Unknown => Condition::Started,
    }
}

/// The table of this module.
pub(super) fn timeout(world: &World<'_>, spec: &ContainerSpec, condition: Condition) -> Timespan {
    const SLACK: u64 = 10_000;
    if let Some(timeout) = world.policy.wait_timeout {
        return timeout;
    }
    match (condition, check(world, spec)) {
        (Condition::Started, _) => Timespan::from_secs(60),
        (Condition::Completed, _) => Timespan::from_secs(3600),
        (Condition::Healthy, Check::There(check)) => {
            let Healthcheck { probe: _, interval, timeout, retries, start_period, start_interval: _ } = check;
            let round = interval.as_millis().saturating_add(timeout.as_millis());
            let rounds = round.saturating_mul(u64::from(*retries).saturating_add(1));
            Timespan::from_millis(start_period.as_millis().saturating_add(rounds).saturating_add(SLACK))
        }
        (Condition::Healthy, Check::No | Check::Unknown) => Timespan::from_secs(300),
    }
}
