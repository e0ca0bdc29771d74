//! When the next round is due. Pure: time is an argument.

use std::time::{Duration, Instant};

use super::round::Standing;
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
    /// The same after a failure, while something is waited for: one of the events may be what it waits for.
    pub long_gap: Duration,
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
            long_gap: Duration::from_secs(5),
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
    /// How long after a round the host's own events begin another one. `None`: not before it is due.
    gap: Option<Duration>,
}

impl Pace {
    pub fn new(times: Times, now: Instant) -> Pace {
        Pace { times, failures: 0, ended: now, due: now, gap: Some(times.gap) }
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
        let earliest = self.gap.map_or(self.due, |gap| self.ended + gap);
        self.due = self.due.min(earliest);
        now >= self.due
    }

    /// A round ended. `open` is when something is to be looked at that it left open: that is no failure, and does not make
    /// good for one either.
    pub fn ended(&mut self, standing: Standing, open: Option<Instant>, now: Instant) {
        let Times { debounce: _, interval, gap, long_gap, first_retry, last_retry } = self.times;
        self.failures = match standing {
            Standing::Settled => 0,
            Standing::Open | Standing::Proving => self.failures,
            Standing::Failing => self.failures.saturating_add(1),
        };
        let (wait, gap) = match standing {
            Standing::Settled | Standing::Open | Standing::Proving => (interval, Some(gap)),
            Standing::Failing => {
                let wait = first_retry.saturating_mul(1 << (self.failures - 1).min(16)).min(last_retry);
                (wait, open.map(|_| long_gap))
            }
        };
        let due = now + wait;
        // What was due is still open when the round did not come as far as to look at it.
        self.due = open.filter(|open| *open > now).map_or(due, |open| due.min(open));
        (self.ended, self.gap) = (now, gap);
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
                pace.ended(Standing::Failing, None, now);
                (pace.due() - now).as_secs()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        pace.ended(Standing::Settled, None, now);
        assert_eq!(pace.due() - now, Duration::from_secs(30));
    }

    #[test]
    fn after_a_failure_only_people_do_not_wait() {
        let now = Instant::now();
        let mut pace = Pace::new(Times::default(), now);
        pace.ended(Standing::Failing, None, now);
        assert!(!pace.admits(Wake::Host, now));
        assert!(pace.admits(Wake::Manifest, now));
        assert!(pace.admits(Wake::Reload, now));
        assert!(pace.admits(Wake::Host, now + Duration::from_secs(1)));
    }

    #[test]
    fn events_of_the_host_are_gathered_and_none_is_lost() {
        let now = Instant::now();
        let mut pace = Pace::new(Times::default(), now);
        pace.ended(Standing::Settled, None, now);
        assert!(!pace.admits(Wake::Host, now + Duration::from_millis(300)));
        assert_eq!(pace.due() - now, Duration::from_secs(1));
        assert!(pace.admits(Wake::Timer, pace.due()));
    }

    #[test]
    fn what_is_open_is_looked_at_in_time_and_forgives_no_failure() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut pace = Pace::new(Times::default(), now);
        pace.ended(Standing::Open, Some(after(10)), now);
        assert_eq!(pace.due(), after(10));
        assert!(pace.admits(Wake::Host, after(1)));
        pace.ended(Standing::Open, Some(after(3600)), now);
        assert_eq!(pace.due(), after(30));

        // It is past its time, and nothing was seen of it.
        pace.ended(Standing::Open, Some(now - Duration::from_secs(1)), now);
        assert_eq!(pace.due(), after(30));

        // A migration that fails, is started again, and fails.
        for seconds in [1, 2, 4] {
            pace.ended(Standing::Failing, None, now);
            assert_eq!(pace.due(), after(seconds));
            pace.ended(Standing::Open, None, now);
        }
        // What was due when nothing could be looked at is no reason to hurry.
        pace.ended(Standing::Settled, None, now);
        pace.ended(Standing::Failing, Some(now), now);
        pace.ended(Standing::Failing, Some(now), now);
        assert_eq!(pace.due(), after(2));
        pace.ended(Standing::Failing, None, now);
        // Something else fails meanwhile.
        pace.ended(Standing::Failing, Some(after(3600)), now);
        assert_eq!(pace.due(), after(8));
        assert!(!pace.admits(Wake::Host, after(1)));
        assert_eq!(pace.due(), after(5));
        assert!(pace.admits(Wake::Host, after(5)));
    }
}
