//! What the answers of a health check add up to.
//!
//! A container is `Starting` until the first good answer or until `retries` bad ones that count. Bad answers in
//! `start_period` do not count. While it is starting it is asked more often than `interval`: a fraction of
//! `start_interval` after the start, then twice that, up to `start_interval`, so that an update which waits for health
//! does not wait for a clock. Of these quick answers, bad ones count at most once per `interval`: nothing becomes
//! unhealthy sooner than it would by `interval` alone, as in Docker. From the first verdict on it is asked every
//! `interval`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::health::{Health, Healthcheck};
use crate::model::status::{HealthStatus, ProbeResult};

/// As many answers as Docker keeps.
const KEPT_ANSWERS: usize = 5;

/// The first wait is this part of `start_interval`.
const FIRST_WAIT_DIVISOR: u32 = 8;

/// A check that asks without a pause would be a load of its own.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    health: Health,
    failing_streak: u32,
    answers: VecDeque<ProbeResult>,
    /// Bad answers before this time do not count.
    counts_from: Duration,
    /// `None` while a probe is under way, or suspended.
    next: Option<Duration>,
    /// The wait before the next probe while it is starting.
    wait: Duration,
}

impl Fold {
    /// Health of a process that started at `now`.
    pub fn new(check: &Healthcheck, now: Duration) -> Fold {
        let first = quick_interval(check) / FIRST_WAIT_DIVISOR;
        let wait = first.max(SHORTEST_WAIT);
        Fold {
            health: Health::Starting,
            failing_streak: 0,
            answers: VecDeque::new(),
            counts_from: now + check.start_period.to_duration().max(check.interval.to_duration()),
            next: Some(now + wait),
            wait,
        }
    }

    pub fn next_probe(&self) -> Option<Duration> {
        self.next
    }

    /// Whether a probe is to be made now; then it counts as under way.
    pub fn begin_if_due(&mut self, now: Duration) -> bool {
        let due = self.next.is_some_and(|next| next <= now);
        if due {
            self.next = None;
        }
        due
    }

    /// No probes until [`Fold::resume`].
    pub fn suspend(&mut self) {
        self.next = None;
    }

    pub fn resume(&mut self, check: &Healthcheck, now: Duration) {
        self.next = Some(now + self.pause(check));
    }

    pub fn take(&mut self, check: &Healthcheck, answer: ProbeResult, now: Duration) {
        if answer.healthy {
            self.health = Health::Healthy;
            self.failing_streak = 0;
        } else if self.health != Health::Starting || now >= self.counts_from {
            self.failing_streak = self.failing_streak.saturating_add(1);
            self.counts_from = now + check.interval.to_duration();
            if self.failing_streak >= check.retries.max(1) {
                self.health = Health::Unhealthy;
            }
        }
        if self.answers.len() == KEPT_ANSWERS {
            self.answers.pop_front();
        }
        self.answers.push_back(answer);
        self.wait = (self.wait * 2).min(quick_interval(check));
        self.next = Some(now + self.pause(check));
    }

    fn pause(&self, check: &Healthcheck) -> Duration {
        let pause = match self.health {
            Health::Starting => self.wait,
            Health::Healthy | Health::Unhealthy => check.interval.to_duration(),
        };
        pause.max(SHORTEST_WAIT)
    }

    pub fn health(&self) -> Health {
        self.health
    }

    pub fn status(&self) -> HealthStatus {
        HealthStatus {
            health: self.health,
            failing_streak: self.failing_streak,
            log: self.answers.iter().cloned().collect(),
        }
    }
}

fn quick_interval(check: &Healthcheck) -> Duration {
    check.start_interval.to_duration().min(check.interval.to_duration())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::health::Probe;
    use crate::model::units::Timespan;
    use std::time::SystemTime;

    fn check(start_period: u64) -> Healthcheck {
        Healthcheck {
            interval: Timespan::from_secs(10),
            start_period: Timespan::from_secs(start_period),
            start_interval: Timespan::from_secs(1),
            retries: 3,
            ..Healthcheck::of(Probe::Tcp { port: 80 })
        }
    }

    fn answer(healthy: bool) -> ProbeResult {
        ProbeResult { at: SystemTime::UNIX_EPOCH, healthy, output: String::new() }
    }

    /// Answers every probe at once with `healthy(seconds)` and gives the time of the first verdict.
    fn first_verdict(check: &Healthcheck, healthy: impl Fn(Duration) -> bool) -> (Duration, Health) {
        let mut fold = Fold::new(check, Duration::ZERO);
        loop {
            let now = fold.next_probe().unwrap();
            assert!(fold.begin_if_due(now));
            fold.take(check, answer(healthy(now)), now);
            if fold.status().health != Health::Starting {
                return (now, fold.status().health);
            }
        }
    }

    #[test]
    fn a_quick_start_is_seen_quickly() {
        let (at, health) = first_verdict(&check(0), |_| true);
        assert_eq!((at, health), (Duration::from_millis(125), Health::Healthy));
    }

    #[test]
    fn a_slow_start_is_seen_within_the_start_interval() {
        let (at, health) = first_verdict(&check(0), |now| now >= Duration::from_secs(7));
        assert_eq!(health, Health::Healthy);
        assert!(at < Duration::from_secs(8), "{at:?}");
    }

    #[test]
    fn quick_probes_do_not_use_up_the_retries() {
        let (at, health) = first_verdict(&check(0), |_| false);
        assert_eq!(health, Health::Unhealthy);
        assert!(at >= Duration::from_secs(30), "{at:?}");
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        let (at, health) = first_verdict(&check(60), |_| false);
        assert_eq!(health, Health::Unhealthy);
        assert!(at >= Duration::from_secs(80), "{at:?}");
    }

    #[test]
    fn after_a_good_answer_every_failure_counts_and_one_good_answer_heals() {
        let check = check(60);
        let mut fold = Fold::new(&check, Duration::ZERO);
        fold.take(&check, answer(true), Duration::from_secs(1));
        for second in [11, 21] {
            fold.take(&check, answer(false), Duration::from_secs(second));
            assert_eq!(fold.status().health, Health::Healthy);
        }
        fold.take(&check, answer(false), Duration::from_secs(31));
        assert_eq!(fold.status().health, Health::Unhealthy);
        fold.take(&check, answer(true), Duration::from_secs(41));
        assert_eq!(fold.status().health, Health::Healthy);
        assert_eq!(fold.status().failing_streak, 0);
        assert_eq!(fold.status().log.len(), 5);
    }
}
