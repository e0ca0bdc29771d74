//! A moment, as `logs --since`, `events --until` and `image ls --filter until=` take it.

use std::time::{Duration, SystemTime};

use crate::model::units::Timespan;

/// How long ago it was, `10m`; or when, `2026-11-21T04:05:06Z`, `2026-11-21 04:05:06` or `2026-11-21`, all in UTC, or
/// what date(1) says for `%s` or `%s.%N`.
pub fn moment(text: &str) -> Result<SystemTime, String> {
    // A day is its beginning.
    for moment in [text, &format!("{text}T00:00:00Z")] {
        if let Ok(moment) = humantime::parse_rfc3339_weak(moment) {
            return Ok(moment);
        }
    }
    let expected = || "expected a time span such as `10m`, 2026-11-21T04:05:06Z, 2026-11-21, or Unix time".to_owned();
    if let Some(since) = unix_time(text) {
        return SystemTime::UNIX_EPOCH.checked_add(since).ok_or_else(expected);
    }
    let ago: Timespan = text.parse().map_err(|_| expected())?;
    Ok(SystemTime::now().checked_sub(ago.to_duration()).unwrap_or(SystemTime::UNIX_EPOCH))
}

fn unix_time(text: &str) -> Option<Duration> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let nanoseconds = format!("{fraction:0<9}").get(..9)?.parse().ok().filter(|_| is_number(fraction))?;
    Some(Duration::new(seconds.parse().ok().filter(|_| is_number(seconds))?, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_day_a_time_or_a_span() {
        let at = |text: &str| moment(text).unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(at("1970-01-02"), Duration::from_secs(86400));
        assert_eq!(at("1970-01-02T00:00:01Z"), Duration::from_secs(86401));
        assert_eq!(at("1970-01-02 00:00:01"), Duration::from_secs(86401));
        assert_eq!(at("86401"), Duration::from_secs(86401));
        assert_eq!(at("86401.5"), Duration::from_millis(86_401_500));
        assert_eq!(at("1700000000.000000001"), Duration::new(1_700_000_000, 1));
        let ago = SystemTime::now().duration_since(moment("10m").unwrap()).unwrap().as_secs();
        assert!((599..660).contains(&ago), "{ago}");
        for text in ["", "soon", "2026-13-01", "1.", ".5", "1.é"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
