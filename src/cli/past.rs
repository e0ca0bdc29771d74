//! A moment, as `logs --since`, `events --until` and `image ls --filter until=` take it.

use std::time::{Duration, SystemTime};

use crate::model::units::Timespan;

/// How long ago it was, `10m`; or when, `2026-11-21T04:05:06Z`, `2026-11-21 04:05:06` or `2026-11-21`, all in UTC,
/// `2026-11-21T05:05:06+01:00`, or what date(1) says for `%s` or `%s.%N`.
pub fn moment(text: &str) -> Result<SystemTime, String> {
    // A day is its beginning.
    for moment in [text, &format!("{text}T00:00:00Z")] {
        if let Ok(moment) = humantime::parse_rfc3339_weak(moment) {
            return Ok(moment);
        }
    }
    if let Some((local, ahead)) = offset(text)
        && let Ok(moment) = humantime::parse_rfc3339_weak(local)
    {
        return Ok(match ahead {
            Ahead::East(by) => moment - by,
            Ahead::West(by) => moment + by,
        });
    }
    let expected = || "expected a time span such as `10m`, 2026-11-21T04:05:06Z, 2026-11-21, or Unix time".to_owned();
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    if is_number(seconds) && is_number(fraction) {
        let seconds = seconds.parse().map_err(|_| expected())?;
        // Digits beyond nanoseconds say nothing here.
        let nanoseconds = format!("{fraction:0<9.9}").parse().map_err(|_| expected())?;
        return SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds)).ok_or_else(expected);
    }
    let ago: Timespan = text.parse().map_err(|_| expected())?;
    Ok(SystemTime::now().checked_sub(ago.to_duration()).unwrap_or(SystemTime::UNIX_EPOCH))
}

/// How far a clock is from UTC.
enum Ahead {
    East(Duration),
    West(Duration),
}

/// `04:05:06+01:00`: what is before the sign, and what is behind it (RFC 3339, 5.6).
fn offset(text: &str) -> Option<(&str, Ahead)> {
    // The date has signs of its own.
    let at = text.find(['T', ' ']).and_then(|time| Some(time + text[time..].rfind(['+', '-'])?))?;
    let (hours, minutes) = text[at + 1..].split_once(':')?;
    let digits = |digits: &str| digits.parse::<u8>().ok().filter(|_| digits.len() == 2).map(u64::from);
    let by = Duration::from_secs((digits(hours)? * 60 + digits(minutes)?) * 60);
    let ahead = if text[at..].starts_with('+') { Ahead::East(by) } else { Ahead::West(by) };
    Some((&text[..at], ahead))
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
        assert_eq!(at("86401.25"), Duration::from_millis(86_401_250));
        assert_eq!(at("1970-01-02T01:00:01+01:00"), Duration::from_secs(86401));
        assert_eq!(at("1970-01-01T18:00:01-06:00"), Duration::from_secs(86401));
        let ago = SystemTime::now().duration_since(moment("10m").unwrap()).unwrap().as_secs();
        assert!((599..660).contains(&ago), "{ago}");
        for text in
            ["", "soon", "2026-13-01", "1.", ".5", "1.x", ".5", "1.é", "2026-11-21T04:05:06+1:00", "2026-11-21-01:00"]
        {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
