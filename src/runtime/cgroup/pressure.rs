//! Pressure: how long the processes of a cgroup waited for what was scarce (Linux, accounting/psi).
//!
//! Only version 2 has it, and only a kernel built with it (`CONFIG_PSI`) and not told otherwise (`psi=0`); everywhere
//! else there is none, which is not the same as no pressure.

use std::io::ErrorKind;
use std::path::Path;

use serde::Serialize;

use super::{Cgroup, Layout, files};
use crate::runtime::error::RuntimeError;

/// What was scarce. `None` is a kernel that does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pressure {
    pub cpu: Option<Stalls>,
    pub memory: Option<Stalls>,
    pub io: Option<Stalls>,
}

/// Time in which processes were held up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Stalls {
    /// At least one process waited.
    pub some: Stall,
    /// All that had something to do waited. `None` where the kernel does not count it: for processors before Linux 5.13.
    pub full: Option<Stall>,
}

/// A share of the time that went by: the last 10, 60 and 300 seconds in percent, and all of it since the cgroup exists
/// in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Stall {
    pub avg10_percent: f64,
    pub avg60_percent: f64,
    pub avg300_percent: f64,
    pub total_microseconds: u64,
}

impl Cgroup {
    /// `None` where the kernel has no pressure at all for this cgroup.
    pub fn pressure(&self) -> Result<Option<Pressure>, RuntimeError> {
        if self.hierarchy.layout() == Layout::V1 {
            return Ok(None);
        }
        let directory = self.hierarchy.unified().join(&self.path);
        let read = |file| stalls(&directory, file);
        let pressure =
            Pressure { cpu: read("cpu.pressure")?, memory: read("memory.pressure")?, io: read("io.pressure")? };
        Ok((pressure != Pressure::default()).then_some(pressure))
    }
}

fn stalls(directory: &Path, file: &str) -> Result<Option<Stalls>, RuntimeError> {
    match files::read(directory, file) {
        Ok(text) => Ok(parse(&text)),
        // Not built in, or turned off for the whole host (`psi=0`) or for this cgroup (`cgroup.pressure`).
        Err(RuntimeError::Cgroup { source, .. })
            if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::Unsupported) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// `some avg10=0.12 avg60=0.05 avg300=0.01 total=4721`, and the same led by `full`.
fn parse(text: &str) -> Option<Stalls> {
    let line = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).and_then(|line| stall(line.trim()))
    };
    Some(Stalls { some: line("some")?, full: line("full") })
}

fn stall(line: &str) -> Option<Stall> {
    let word = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let average = |name| word(name)?.parse().ok();
    Some(Stall {
        avg10_percent: average("avg10")?,
        avg60_percent: average("avg60")?,
        avg300_percent: average("avg300")?,
        total_microseconds: word("total")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read() {
        let text =
            "some avg10=12.50 avg60=3.00 avg300=0.75 total=4721\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=9\n";
        let some = Stall { avg10_percent: 12.5, avg60_percent: 3.0, avg300_percent: 0.75, total_microseconds: 4721 };
        let full = Stall { avg10_percent: 1.0, total_microseconds: 9, ..Stall::default() };
        assert_eq!(parse(text), Some(Stalls { some, full: Some(full) }));
    }

    #[test]
    fn a_kernel_that_does_not_count_full_stalls_is_understood() {
        let text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(parse(text), Some(Stalls { some: Stall::default(), full: None }));
        assert_eq!(parse(""), None);
    }
}
