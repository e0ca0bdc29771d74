//! The two clocks of a monitor: one that only moves forward, for deadlines, and one that people read.
//!
//! They are read here, once per turn of the loop, and passed to everything that decides.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// One instant on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since some fixed point; never set back (CLOCK_MONOTONIC, clock_gettime(2)).
    pub monotonic: Duration,
    pub wall: SystemTime,
}

impl Now {
    pub fn read() -> Now {
        let time = clock_gettime(ClockId::Monotonic);
        // The kernel keeps both parts in range: CLOCK_MONOTONIC is never negative.
        let monotonic = Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32);
        Now { monotonic, wall: SystemTime::now() }
    }
}
