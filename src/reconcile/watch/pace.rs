//! When the next round is due. Pure: time is an argument.

use std::time::{Duration, Instant};

use super::wake::Wake;

/// The times of the loop.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// How long events may settle before a round.
    pub debounce: Duration,
    /// A round at least this often, since not everything that can change tells.
    pub interval: Duration,
    /// Rounds for the host's own events are at least this far apart: a hundred health checks are as many events.
    pub gap: Duration,
    /// The wait after a first failure; it doubles with each further one, up to `last_retry`.
    pub first_retry: Duration,
    pub last_retry: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            debounce: Duration::from_millis(200),
            interval: Duration::from_secs(30),
            gap: Duration::from_secs(1),
            first_retry: Duration::from_secs(1),
            last_retry: Duration::from_secs(60),
        }
    }
}

/// Where the loop stands.
#[derive(Debug, Clone)]
pub struct Pace {
    times: Times,
    failures: u32,
    ended: Instant,
    due: Instant,
}

impl Pace {
    pub fn new(times: Times, now: Instant) -> Pace {
        Pace { times, failures: 0, ended: now, due: now }
    }

    /// When the next round happens on its own.
    pub fn due(&self) -> Instant {
        self.due
    }

    pub fn debounce(&self) -> Duration {
        self.times.debounce
    }

    /// Whether this wake begins a round now; if it is too early, the round is due as soon as it may be. After a failure
    /// the host's own events wait for the retry, since the failed round caused some of them. People do not wait.
    pub fn admits(&mut self, wake: Wake, now: Instant) -> bool {
        if wake != Wake::Host || now >= self.due {
            return true;
        }
        let earliest = if self.failures == 0 { self.ended + self.times.gap } else { self.due };
        self.due = self.due.min(earliest);
        now >= self.due
    }

    /// A round ended.
    pub fn ended(&mut self, settled: bool, now: Instant) {
        self.failures = if settled { 0 } else { self.failures.saturating_add(1) };
        let wait = match self.failures {
            0 => self.times.interval,
            n => self.times.first_retry.saturating_mul(1 << (n - 1).min(16)).min(self.times.last_retry),
        };
        (self.ended, self.due) = (now, now + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_wait_twice_as_long_each_time_up_to_a_limit() {
        let now = Instant::now();
        let mut pace = Pace::new(Times::default(), now);
        let waits: Vec<u64> = (0..8)
            .map(|_| {
                pace.ended(false, now);
                (pace.due() - now).as_secs()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        pace.ended(true, now);
        assert_eq!(pace.due() - now, Duration::from_secs(30));
    }

    #[test]
    fn after_a_failure_only_people_do_not_wait() {
        let now = Instant::now();
        let mut pace = Pace::new(Times::default(), now);
        pace.ended(false, now);
        assert!(!pace.admits(Wake::Host, now));
        assert!(pace.admits(Wake::Manifest, now));
        assert!(pace.admits(Wake::Reload, now));
        assert!(pace.admits(Wake::Host, now + Duration::from_secs(1)));
    }

    #[test]
    fn events_of_the_host_are_gathered_and_none_is_lost() {
        let now = Instant::now();
        let mut pace = Pace::new(Times::default(), now);
        pace.ended(true, now);
        assert!(!pace.admits(Wake::Host, now + Duration::from_millis(300)));
        assert_eq!(pace.due() - now, Duration::from_secs(1));
        assert!(pace.admits(Wake::Timer, pace.due()));
    }
}
