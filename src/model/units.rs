//! Quantities with a unit: time spans, sizes, processor shares, file modes, signals.
//!
//! Each reads and prints the form of the manifest, so records and plans show what the user wrote.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a text is not a quantity: what was expected, with an example.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected {expected}")]
pub struct UnitError {
    pub expected: &'static str,
}

macro_rules! text_serde {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = UnitError;
            fn try_from(text: String) -> Result<Self, UnitError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}

/// A span of time in whole milliseconds: `500ms`, `30s`, `1h 30m`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Timespan(u64);

impl Timespan {
    pub const ZERO: Timespan = Timespan(0);

    pub const fn from_millis(millis: u64) -> Timespan {
        Timespan(millis)
    }

    pub const fn from_secs(secs: u64) -> Timespan {
        Timespan(secs * 1000)
    }

    pub const fn as_millis(self) -> u64 {
        self.0
    }

    pub const fn to_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl fmt::Display for Timespan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.to_duration()).fmt(f)
    }
}

impl FromStr for Timespan {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let expected = UnitError { expected: "a time span such as \"500ms\", \"30s\" or \"5m\"" };
        let duration = humantime::parse_duration(text).map_err(|_| expected.clone())?;
        if duration.subsec_nanos() % 1_000_000 != 0 {
            return Err(UnitError { expected: "a time span in whole milliseconds" });
        }
        u64::try_from(duration.as_millis()).map(Timespan).map_err(|_| expected)
    }
}
text_serde!(Timespan);

/// A number of bytes: `64MiB`, `1.5GiB` (cut to whole bytes), `4096`. `k`, `m`, `g`, `t` with or without `B` or `iB` are
/// powers of 1024, as Docker reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ByteSize(pub u64);

const SIZE_UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl ByteSize {
    pub const fn from_mib(mib: u64) -> ByteSize {
        ByteSize(mib << 20)
    }
}

/// The largest unit that divides it, so that nothing is rounded.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SIZE_UNITS.iter().find(|(_, shift)| self.0 >> shift << shift == self.0 && self.0 >> shift > 0);
        match exact {
            Some((unit, shift)) => f.pad(&format!("{}{unit}", self.0 >> shift)),
            None => f.pad("0B"),
        }
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let expected = UnitError { expected: "a size such as \"64MiB\", \"1GiB\" or a number of bytes" };
        let digits = |from: &str| from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        let (whole, rest) = text.split_at(digits(text));
        let (fraction, unit) = match rest.strip_prefix('.') {
            Some(rest) if digits(rest) > 0 => rest.split_at(digits(rest)),
            Some(_) => return Err(expected),
            None => ("", rest),
        };
        let number: u64 = whole.parse().map_err(|_| expected.clone())?;
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(expected),
        };
        // A part of a byte is none.
        if shift == 0 && !fraction.is_empty() {
            return Err(expected);
        }
        // What a digit stands for beyond the ninth is less than a thousand bytes, of more than a tebibyte.
        let fraction: u64 = format!("{fraction:0<9.9}").parse().map_err(|_| expected.clone())?;
        let part = (u128::from(fraction) << shift) / 1_000_000_000;
        let bytes = number.checked_mul(1 << shift).and_then(|bytes| bytes.checked_add(u64::try_from(part).ok()?));
        bytes.map(ByteSize).ok_or(expected)
    }
}
text_serde!(ByteSize);

/// Processors in thousandths: `1.5` is one and a half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cpus(u32);

impl Cpus {
    /// With less the kernel refuses the share of a tenth of a second that it is written as (sched-bwc: a quota is 1 ms at
    /// least).
    const LEAST: u32 = 10;

    pub const fn from_millis(millis: u32) -> Cpus {
        Cpus(millis)
    }

    pub const fn as_millis(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:03}", self.0 / 1000, self.0 % 1000);
        f.pad(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl FromStr for Cpus {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let expected =
            UnitError { expected: "a number of processors from 0.01 on such as 0.5 or 2, with at most three decimals" };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let is_number = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || fraction.len() > 3 || !is_number(whole) || !is_number(fraction) {
            return Err(expected);
        }
        let millis = format!("{whole}{fraction:0<3}").parse().map_err(|_| expected.clone())?;
        match millis {
            millis if millis < Cpus::LEAST => Err(expected),
            millis => Ok(Cpus(millis)),
        }
    }
}
text_serde!(Cpus);

/// Permission bits, `"0640"`: octal, at most `07777`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct FileMode(pub u32);

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl FromStr for FileMode {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let octal = text.len() <= 5 && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
        match u32::from_str_radix(text, 8) {
            Ok(mode) if octal && mode <= 0o7777 => Ok(FileMode(mode)),
            _ => Err(UnitError { expected: "permission bits in octal such as \"0640\"" }),
        }
    }
}
text_serde!(FileMode);

/// A signal by its number, read and printed as `SIGTERM` (signal(7)). Real-time signals are `SIGRTMIN+3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Signal(i32);

const SIGNALS: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// glibc's SIGRTMIN: the kernel's first two real-time signals belong to its threads (nptl(7)).
const REAL_TIME_MIN: i32 = 34;
const REAL_TIME_MAX: i32 = 64;

impl Signal {
    pub const TERM: Signal = Signal(15);
    pub const KILL: Signal = Signal(9);

    /// The signal with this number, 1 to 64.
    pub fn from_number(number: i32) -> Option<Signal> {
        (1..=REAL_TIME_MAX).contains(&number).then_some(Signal(number))
    }

    pub const fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIGNALS.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.pad(&format!("SIG{name}")),
            None if self.0 >= REAL_TIME_MIN => f.pad(&format!("SIGRTMIN+{}", self.0 - REAL_TIME_MIN)),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Signal {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let expected = UnitError { expected: "a signal such as \"SIGTERM\", \"USR1\", \"SIGRTMIN+3\" or 15" };
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = match SIGNALS.iter().find(|(known, _)| *known == name) {
            Some((_, number)) => Some(*number),
            None => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
                (Some(offset), _) => real_time_offset(offset).map(|offset| REAL_TIME_MIN + offset),
                (_, Some(offset)) => real_time_offset(offset).map(|offset| REAL_TIME_MAX - offset),
                (None, None) => match name {
                    "RTMIN" => Some(REAL_TIME_MIN),
                    "RTMAX" => Some(REAL_TIME_MAX),
                    "CLD" => Some(17),
                    "POLL" => Some(29),
                    _ => name.parse().ok(),
                },
            },
        };
        number.and_then(Signal::from_number).ok_or(expected)
    }
}
text_serde!(Signal);

fn real_time_offset(text: &str) -> Option<i32> {
    text.parse().ok().filter(|offset| (0..=REAL_TIME_MAX - REAL_TIME_MIN).contains(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_back_what_they_print() {
        for text in ["500ms", "30s", "5m", "1h 30m", "0s"] {
            assert_eq!(text.parse::<Timespan>().unwrap().to_string(), text);
        }
        for text in ["64MiB", "1GiB", "4097B", "0B", "1025KiB"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        for text in ["0.5", "1.5", "2", "0.125", "0.01"] {
            assert_eq!(text.parse::<Cpus>().unwrap().to_string(), text);
        }
        for text in ["SIGTERM", "SIGRTMIN+3", "SIGUSR1"] {
            assert_eq!(text.parse::<Signal>().unwrap().to_string(), text);
        }
        assert_eq!("640".parse::<FileMode>().unwrap().to_string(), "0640");
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        assert!("1us".parse::<Timespan>().is_err());
        assert!("5".parse::<Timespan>().is_err());
        for (text, bytes) in [("1.5g", 3 << 29), ("0.0625 GiB", 64 << 20), ("0.1k", 102), ("1.0000000009k", 1024)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["64 parsecs", "1.5", "1.5B", "1.g", ".5g", "1.5.1g", "-1g"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        assert!("99999999999TiB".parse::<ByteSize>().is_err());
        assert!("0".parse::<Cpus>().is_err());
        assert!("0.009".parse::<Cpus>().is_err());
        assert!("-1".parse::<Cpus>().is_err());
        assert!("0888".parse::<FileMode>().is_err());
        assert!("SIGNOPE".parse::<Signal>().is_err());
        assert!("0".parse::<Signal>().is_err());
    }
}
