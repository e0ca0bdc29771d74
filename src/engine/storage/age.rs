//! How long things have been in the trash, by clocks that nobody sets.
//!
//! The wall clock may jump by years: when a machine without a battery reaches its time server, or when somebody mistypes a
//! date. What is to stay for a week would go at once. So the time that passes is counted here: while the host is up as the
//! kernel counts it (CLOCK_BOOTTIME, clock_gettime(2)), and across a boot as the wall clock has it, but no more than a day.
//! What is seen for the first time begins at nothing. Who is wrong keeps things for longer.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::engine::claim;
use crate::engine::error::EngineError;

/// How much of the time that a host was off, or was not looked at before a boot, counts.
const UNSEEN: u64 = 86_400;

/// How much may pass before the count is written again, though nothing else changed.
const WRITE_AGAIN: u64 = 3600;

/// One instant on the clocks that matter.
#[derive(Debug, Clone)]
pub struct Clock {
    pub boot: String,
    /// Since that boot, sleep included.
    pub up: Duration,
    pub wall: SystemTime,
}

impl Clock {
    pub fn read() -> Result<Clock, EngineError> {
        // The kernel never sets it back, and it begins at 0.
        let up = Duration::from_secs(clock_gettime(ClockId::Boottime).tv_sec.unsigned_abs());
        Ok(Clock { boot: claim::boot()?, up, wall: SystemTime::now() })
    }
}

/// The count, and what it was when each thing came. All in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ages {
    boot: String,
    up: u64,
    wall: u64,
    count: u64,
    since: BTreeMap<String, u64>,
}

impl Ages {
    /// As they are now, when just these things are there.
    pub fn at(&self, now: &Clock, names: impl IntoIterator<Item = String>) -> Ages {
        let (up, wall) =
            (now.up.as_secs(), now.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs());
        let passed = match self.boot == now.boot {
            true => up.saturating_sub(self.up),
            false => up + wall.saturating_sub(self.wall).saturating_sub(up).min(UNSEEN),
        };
        let count = self.count + passed;
        let since = names.into_iter().map(|name| {
            let first = self.since.get(&name).copied().unwrap_or(count);
            (name, first)
        });
        Ages { boot: now.boot.clone(), up, wall, count, since: since.collect() }
    }

    pub fn age(&self, name: &str) -> Duration {
        let since = self.since.get(name).copied().unwrap_or(self.count);
        Duration::from_secs(self.count.saturating_sub(since))
    }

    /// Whether it says more than `written`, from which it came.
    pub fn is_news(&self, written: &Ages) -> bool {
        self.boot != written.boot || self.since != written.since || self.count - written.count >= WRITE_AGAIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(boot: &str, up: u64, wall: u64) -> Clock {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(wall);
        Clock { boot: boot.to_owned(), up: Duration::from_secs(up), wall }
    }

    #[test]
    fn only_time_that_passed_counts() {
        let day = 86_400;
        let old = || ["old".to_owned()];
        let first = Ages::default().at(&clock("a", 100, 5), old());
        assert_eq!(first.age("old"), Duration::ZERO);
        // The time server was reached: the wall clock jumps by fifty years, and back.
        let later = first.at(&clock("a", 100 + day, 1_800_000_000), ["old".to_owned(), "new".to_owned()]);
        assert_eq!((later.age("old").as_secs(), later.age("new").as_secs()), (day, 0));
        let back = later.at(&clock("a", 100 + 2 * day, 5), old());
        assert_eq!(back.age("old").as_secs(), 2 * day);
        // A boot: an hour between two looks, then months of which a day counts, then a clock that was set back.
        let booted = back.at(&clock("b", 600, 5 + 3600), old());
        assert_eq!(booted.age("old").as_secs(), 2 * day + 3600);
        let off = booted.at(&clock("c", 60, 5 + 3600 + 90 * day), old());
        assert_eq!(off.age("old").as_secs(), 3 * day + 3600 + 60);
        let set_back = off.at(&clock("d", 60, 5), old());
        assert_eq!(set_back.age("old").as_secs(), 3 * day + 3600 + 120);
        // What went and came again begins anew.
        let gone = set_back.at(&clock("d", 70, 5), []);
        assert_eq!(gone.at(&clock("d", 80, 5), old()).age("old"), Duration::ZERO);
    }

    #[test]
    fn what_is_known_already_is_not_written_every_time() {
        let written = Ages::default().at(&clock("a", 0, 0), ["x".to_owned()]);
        let soon = written.at(&clock("a", 3599, 0), ["x".to_owned()]);
        let later = written.at(&clock("a", 3600, 0), ["x".to_owned()]);
        assert_eq!((soon.is_news(&written), later.is_news(&written)), (false, true));
        assert!(written.at(&clock("b", 0, 0), ["x".to_owned()]).is_news(&written));
        assert!(written.at(&clock("a", 1, 0), []).is_news(&written));
    }
}
