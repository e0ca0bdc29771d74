//! Measuring: wall clock and CPU time of one thing, and what several runs of it amount to.
//!
//! CPU time is that of the sandbox's cgroup (daemon, monitors, containers and clients together) without that of the
//! measuring process itself.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

use crate::Result;

/// One run.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Sample {
    /// In the case's unit.
    pub value: f64,
    /// CPU seconds, where they say something.
    pub cpu: Option<f64>,
}

/// What came of one case with one contender.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Measured(Vec<Sample>),
    /// The contender has nothing like it; why.
    NotApplicable(String),
    Failed(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measurement {
    pub case: String,
    pub contender: String,
    pub outcome: Outcome,
}

impl Outcome {
    /// The medians of value and CPU time.
    pub fn median(&self) -> Option<Sample> {
        let Outcome::Measured(samples) = self else { return None };
        let value = median(samples.iter().map(|sample| sample.value).collect())?;
        Some(Sample { value, cpu: median(samples.iter().filter_map(|sample| sample.cpu).collect()) })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Measured(samples) => {
                for Sample { value, cpu } in samples {
                    write!(f, "{value:.4}")?;
                    cpu.map_or(Ok(()), |cpu| write!(f, " ({cpu:.3} s CPU)"))?;
                    f.write_str("  ")?;
                }
                Ok(())
            }
            Outcome::NotApplicable(why) => write!(f, "not applicable: {why}"),
            Outcome::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// Seconds that `work` takes, and CPU seconds.
pub fn time(work: impl FnOnce() -> Result<()>) -> Result<Sample> {
    let cpu = cpu_time()?;
    let begun = Instant::now();
    work()?;
    let took = begun.elapsed();
    Ok(Sample { value: took.as_secs_f64(), cpu: Some((cpu_time()?.saturating_sub(cpu)).as_secs_f64()) })
}

/// CPU time of the sandbox so far, without that of this process.
pub fn cpu_time() -> Result<Duration> {
    let own = getrusage(UsageWho::RUSAGE_SELF)?;
    let own = own.user_time().num_microseconds() + own.system_time().num_microseconds();
    let own = Duration::from_micros(u64::try_from(own)?);
    Ok(group_time()?.saturating_sub(own))
}

fn group_time() -> Result<Duration> {
    if let Ok(nanoseconds) = fs::read_to_string("/sys/fs/cgroup/cpuacct/cpuacct.usage") {
        return Ok(Duration::from_nanos(nanoseconds.trim().parse()?));
    }
    let statistics = fs::read_to_string("/sys/fs/cgroup/cpu.stat")?;
    let usage = statistics.lines().find_map(|line| line.strip_prefix("usage_usec "));
    Ok(Duration::from_micros(usage.ok_or("cpu.stat has no `usage_usec`")?.parse()?))
}
