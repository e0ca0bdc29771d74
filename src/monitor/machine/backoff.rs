//! How long to wait before a restart.

use std::time::Duration;

use crate::model::restart::Backoff;

/// From the second restart in a row on, whatever the policy says: a policy of zeros is not to keep a processor busy.
const SHORTEST: Duration = Duration::from_millis(10);

/// The delay before the restart that follows `ends` earlier ends in a row: none after the first, then `initial`,
/// growing by `factor` up to `max`.
pub fn delay(backoff: &Backoff, ends: u32) -> Duration {
    let Backoff { initial, factor, max, reset_after: _ } = backoff;
    let Some(steps) = ends.checked_sub(1) else { return Duration::ZERO };
    let millis = initial.as_millis().saturating_mul(u64::from(*factor).saturating_pow(steps));
    Duration::from_millis(millis.min(max.as_millis())).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::units::Timespan;

    #[test]
    fn the_first_restart_is_at_once_and_later_ones_double_up_to_the_limit() {
        let backoff = Backoff::default();
        let millis: Vec<u128> = (0..14).map(|ends| delay(&backoff, ends).as_millis()).collect();
        let expected = [0, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000, 60000];
        assert_eq!(millis, expected);
    }

    #[test]
    fn a_policy_of_zeros_does_not_spin() {
        let zeros = Backoff { initial: Timespan::ZERO, max: Timespan::ZERO, ..Backoff::default() };
        assert_eq!([delay(&zeros, 0), delay(&zeros, 1)], [Duration::ZERO, SHORTEST]);
    }

    #[test]
    fn no_number_of_ends_overflows() {
        let backoff = Backoff { factor: u32::MAX, max: Timespan::from_millis(u64::MAX), ..Backoff::default() };
        assert_eq!(delay(&backoff, u32::MAX), Duration::from_millis(u64::MAX));
    }
}
