//! Images whose tag is followed: when a tag that moved is taken.
//!
//! ```text
//! the tag stands for what is in force ── seen otherwise ──> candidate ── old enough, in the window ──> due
//!                 ^                                                                                     │
//!                 └──────────────── taken, and what was in force is remembered <── it is on this host ──┘
//! ```
//!
//! Pure. What a registry says and what the clock says are arguments; what was decided is kept by the caller as a
//! [`Followed`].
//!
//! # Decisions
//! * What is seen under the tag has an age from when this host saw it first: the date in an image is its maker's word.
//! * An image that was taken and does not get healthy stays taken: the containers go back by themselves and remember what
//!   they refused (`plan::fallback`), and the next image under the tag is a candidate as this one was.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::id::Digest;
use super::units::Timespan;

/// How a tag is followed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow {
    /// How long a tag must have stood for an image before it is taken.
    pub min_age: Timespan,
    /// When a new image is taken; always, without one.
    pub window: Option<Window>,
}

const MINUTES_A_DAY: u16 = 24 * 60;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// A time of day on some days of the week, by the host's time zone unless it says `UTC`. One that ends before it begins
/// goes past midnight and belongs to the day that it begins on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Window {
    /// By day of the week, Monday first.
    days: [bool; 7],
    /// Minutes since midnight.
    begin: u16,
    /// Up to that of the next midnight.
    end: u16,
    zone: Zone,
}

/// Whose time of day is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    Host,
    Utc,
}

/// A moment in the calendar of the host and in that of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub time: SystemTime,
    /// As the host's time zone has it.
    pub local: LocalTime,
}

/// A moment as a calendar has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// 0 is Monday.
    pub day: u8,
    /// Minutes since midnight.
    pub minute: u16,
}

impl Window {
    /// Whether the moment is in it. The end is not.
    pub fn holds(&self, now: Moment) -> bool {
        let now = match self.zone {
            Zone::Host => now.local,
            Zone::Utc => LocalTime::utc(now.time),
        };
        let (day, minute) = (usize::from(now.day % 7), now.minute);
        let yesterday = (day + 6) % 7;
        match self.begin < self.end {
            true => self.days[day] && (self.begin..self.end).contains(&minute),
            false => (self.days[day] && minute >= self.begin) || (self.days[yesterday] && minute < self.end),
        }
    }
}

impl LocalTime {
    pub fn utc(time: SystemTime) -> LocalTime {
        let minutes = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / 60;
        let (days, minute) = (minutes / u64::from(MINUTES_A_DAY), minutes % u64::from(MINUTES_A_DAY));
        // The first of January 1970 was a Thursday. Both are small by now.
        LocalTime { day: ((days + 3) % 7) as u8, minute: minute as u16 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected a time of day such as `02:00-04:00`, with days or `UTC` if need be: `Mon-Fri 02:00-04:00 UTC`")]
pub struct WindowError;

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Window, WindowError> {
        let (text, zone) = match text.trim().strip_suffix(" UTC") {
            Some(text) => (text.trim_end(), Zone::Utc),
            None => (text.trim(), Zone::Host),
        };
        let (days, times) = match text.rsplit_once(' ') {
            Some((days, times)) => (days_of(days.trim())?, times),
            None => ([true; 7], text),
        };
        let (begin, end) = times.split_once('-').ok_or(WindowError)?;
        let (begin, end) = (minute(begin)?, minute(end)?);
        match begin == end || begin >= MINUTES_A_DAY {
            true => Err(WindowError),
            false => Ok(Window { days, begin, end, zone }),
        }
    }
}

fn days_of(text: &str) -> Result<[bool; 7], WindowError> {
    let number = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name)).ok_or(WindowError);
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (number(first)?, number(last)?);
        loop {
            days[day] = true;
            if day == last {
                break;
            }
            day = (day + 1) % 7;
        }
    }
    Ok(days)
}

/// `24:00` is the end of a day.
fn minute(text: &str) -> Result<u16, WindowError> {
    let (hours, minutes) = text.split_once(':').ok_or(WindowError)?;
    let number = |text: &str| match text.len() == 2 && text.bytes().all(|digit| digit.is_ascii_digit()) {
        true => text.parse::<u16>().map_err(|_| WindowError),
        false => Err(WindowError),
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let all = hours * 60 + minutes;
    if minutes < 60 && all <= MINUTES_A_DAY { Ok(all) } else { Err(WindowError) }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<&str> = DAYS.iter().zip(self.days).filter(|(_, on)| *on).map(|(day, _)| *day).collect();
        if days.len() < DAYS.len() {
            write!(f, "{} ", days.join(","))?;
        }
        let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        write!(f, "{}-{}", time(self.begin), time(self.end))?;
        match self.zone {
            Zone::Host => Ok(()),
            Zone::Utc => f.write_str(" UTC"),
        }
    }
}

impl From<Window> for String {
    fn from(window: Window) -> String {
        window.to_string()
    }
}

impl TryFrom<String> for Window {
    type Error = WindowError;

    fn try_from(text: String) -> Result<Window, WindowError> {
        text.parse()
    }
}

/// What is known of a tag that is followed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Followed {
    /// What the lock file said when this was decided. A line that is locked anew counts more than what was followed.
    pub locked: Option<Digest>,
    /// The image that is in force.
    pub taken: Option<Digest>,
    /// What was in force before it, to go back to.
    pub previous: Option<Digest>,
    /// What the tag stands for now, where that is another image.
    pub candidate: Option<Candidate>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    pub digest: Digest,
    /// When it was seen first.
    pub since: SystemTime,
}

/// What a tag is found to be.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// What the lock file says of it.
    pub locked: Option<&'a Digest>,
    /// What this host has under the bare tag.
    pub here: Option<&'a Digest>,
    /// What the registry says.
    pub current: &'a Digest,
}

impl Followed {
    /// The image in force, where a tag was followed since the lock file said this.
    pub fn in_force(&self, locked: Option<&Digest>) -> Option<&Digest> {
        self.taken.as_ref().filter(|_| self.locked.as_ref() == locked)
    }

    /// What is known after this was seen.
    pub fn after(self, sight: Sight<'_>, now: SystemTime) -> Followed {
        let Sight { locked, here, current } = sight;
        let begun = self.in_force(locked).or(locked).or(here).cloned();
        let previous = self.previous.filter(|previous| begun.as_ref() != Some(previous));
        let candidate = (begun.as_ref() != Some(current)).then(|| match self.candidate {
            // A clock that was put back would keep it waiting for the difference.
            Some(known) if known.digest == *current && known.since <= now => known,
            _ => Candidate { digest: current.clone(), since: now },
        });
        Followed { locked: locked.cloned(), taken: begun, previous, candidate }
    }

    /// What is to be taken now. Where nothing is in force yet, nothing is replaced by what nobody knows for long.
    pub fn due(&self, follow: &Follow, now: Moment) -> Option<&Digest> {
        let Candidate { digest, since } = self.candidate.as_ref()?;
        let is_old = now.time.duration_since(*since).unwrap_or_default() >= follow.min_age.to_duration();
        let is_time = follow.window.is_none_or(|window| window.holds(now));
        (self.taken.is_none() || (is_old && is_time)).then_some(digest)
    }

    /// The candidate is in force from now on.
    pub fn take(self) -> Followed {
        match self.candidate {
            Some(Candidate { digest, .. }) => {
                Followed { taken: Some(digest), previous: self.taken, candidate: None, locked: self.locked }
            }
            None => self,
        }
    }

    /// Every image that following needs on this host: in force, before that, and about to be.
    pub fn needed(self) -> impl Iterator<Item = Digest> {
        let candidate = self.candidate.map(|candidate| candidate.digest);
        self.taken.into_iter().chain(self.previous).chain(candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn digest(digit: char) -> Digest {
        format!("sha256:{}", digit.to_string().repeat(64)).parse().unwrap()
    }

    fn at(day: u8, minute: u16) -> Moment {
        Moment { time: SystemTime::UNIX_EPOCH, local: LocalTime { day, minute } }
    }

    #[test]
    fn a_window_is_a_time_of_day_on_some_days() {
        let holds = |text: &str, day, minute| text.parse::<Window>().unwrap().holds(at(day, minute));
        assert!(holds("02:00-04:00", 3, 120) && !holds("02:00-04:00", 3, 240) && !holds("02:00-04:00", 3, 119));
        assert!(holds("Mon-Fri 02:00-04:00", 4, 200) && !holds("Mon-Fri 02:00-04:00", 5, 200));
        // Past midnight it belongs to the day that it begins on.
        assert!(holds("Sat 22:00-02:00", 5, 1350) && holds("Sat 22:00-02:00", 6, 60));
        assert!(!holds("Sat 22:00-02:00", 5, 60) && !holds("Sat 22:00-02:00", 6, 1350));
        assert!(holds("Sat-Mon 00:00-24:00", 6, 1439) && holds("Sat-Mon 00:00-24:00", 0, 0));
        for text in ["Mon-Fri 02:00-04:00", "22:30-02:00", "Sat,Sun 00:00-24:00 UTC", "02:00-03:00 UTC"] {
            let window: Window = text.parse().unwrap();
            assert_eq!(window.to_string().parse(), Ok(window), "{text}");
        }
        for wrong in [
            "",
            "02:00",
            "2:00-4:00",
            "02:00-02:00",
            "24:00-02:00",
            "25:00-26:00",
            "02:60-03:00",
            "Foo 02:00-03:00",
            "02:00-03:00 CET",
            "UTC",
            "+2:00-03:00",
        ] {
            assert!(wrong.parse::<Window>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_window_in_utc_is_the_same_everywhere() {
        // 2026-11-27 was a Friday.
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_737_600 + 3 * 3600 + 60);
        let holds = |text: &str| {
            text.parse::<Window>().unwrap().holds(Moment { time, local: LocalTime { day: 1, minute: 700 } })
        };
        assert!(holds("Fri 03:00-03:02 UTC") && !holds("Fri 03:00-03:01 UTC") && !holds("Thu 03:00-03:02 UTC"));
        assert!(holds("Tue 11:00-12:00") && !holds("Tue 11:00-12:00 UTC"));
    }

    /// What is in force after the registry said `current` at `seconds`, and everything that is due was taken.
    fn step(state: Followed, (locked, here): (Option<char>, Option<char>), current: char, seconds: u64) -> Followed {
        let follow = Follow { min_age: Timespan::from_secs(3600), window: None };
        let (locked, here) = (locked.map(digest), here.map(digest));
        let sight = Sight { locked: locked.as_ref(), here: here.as_ref(), current: &digest(current) };
        let now = Moment { time: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), ..at(0, 0) };
        let after = state.after(sight, now.time);
        if after.due(&follow, now).is_some() { after.take() } else { after }
    }

    #[test]
    fn a_tag_that_moved_is_taken_when_it_is_old_enough() {
        let locked = (Some('a'), None);
        let young = step(Followed::default(), locked, 'b', 0);
        assert_eq!(young.taken, Some(digest('a')));
        assert_eq!(step(young.clone(), locked, 'b', 3599).taken, Some(digest('a')));
        let taken = step(young.clone(), locked, 'b', 3600);
        assert_eq!((taken.taken.clone(), taken.previous.clone()), (Some(digest('b')), Some(digest('a'))));
        assert_eq!(taken.candidate, None);
        // One that moves again begins anew, and one that goes back is nothing new.
        assert_eq!(step(young.clone(), locked, 'c', 3600).taken, Some(digest('a')));
        assert_eq!(step(young, locked, 'a', 3600).candidate, None);
        let needed: Vec<Digest> = step(taken, locked, 'c', 3700).needed().collect();
        assert_eq!(needed, [digest('b'), digest('a'), digest('c')]);
    }

    #[test]
    fn a_line_that_is_locked_anew_counts_more_than_what_was_followed() {
        let taken = step(step(Followed::default(), (Some('a'), None), 'b', 0), (Some('a'), None), 'b', 3600);
        assert_eq!(taken.in_force(Some(&digest('a'))), Some(&digest('b')));
        assert_eq!(taken.in_force(Some(&digest('c'))), None);
        assert_eq!(step(taken, (Some('c'), None), 'b', 3700).taken, Some(digest('c')), "and is followed from there");
    }

    #[test]
    fn following_begins_at_what_is_here_or_else_at_what_the_tag_is() {
        assert_eq!(step(Followed::default(), (None, Some('a')), 'b', 0).taken, Some(digest('a')));
        assert_eq!(step(Followed::default(), (None, None), 'b', 0).taken, Some(digest('b')));
    }

    #[test]
    fn a_clock_that_was_put_back_does_not_keep_a_candidate_waiting() {
        let locked = (Some('a'), None);
        let young = step(Followed::default(), locked, 'b', 1_000_000);
        let again = step(young, locked, 'b', 10);
        assert_eq!(step(again, locked, 'b', 3610).taken, Some(digest('b')));
    }

    #[test]
    fn outside_the_window_nothing_is_taken() {
        let follow = Follow { min_age: Timespan::ZERO, window: Some("02:00-04:00".parse().unwrap()) };
        let (old, new) = (digest('a'), digest('b'));
        let sight = Sight { locked: Some(&old), here: None, current: &new };
        let state = Followed::default().after(sight, SystemTime::UNIX_EPOCH);
        assert_eq!(state.due(&follow, at(0, 119)), None);
        assert_eq!(state.due(&follow, at(0, 120)), Some(&new));
    }
}
