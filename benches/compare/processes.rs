//! What the kernel says of processes: who runs, and how much memory is its own.

use std::fs;
use std::time::{Duration, Instant};

use crate::Result;

const PATIENCE: Duration = Duration::from_secs(60);

/// The processes whose arguments are exactly these. Inside the sandbox these are only its own.
pub fn with_arguments(arguments: &[&str]) -> Vec<u32> {
    let wanted = arguments.iter().flat_map(|argument| argument.bytes().chain([0])).collect::<Vec<u8>>();
    all().filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|found| found == wanted)).collect()
}

/// The processes whose first argument has this file name. Their command names are their own affair.
pub fn named(name: &str) -> Vec<u32> {
    let is_it = |pid: &u32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let program = arguments.split(|byte| *byte == 0).next().unwrap_or_default();
        program.rsplit(|byte| *byte == b'/').next() == Some(name.as_bytes())
    };
    all().filter(is_it).collect()
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(std::io::Result::ok);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// KiB of memory that no other process shares.
pub fn private_memory(pid: u32) -> Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let private = rollup.lines().filter(|line| line.starts_with("Private_"));
    Ok(private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).sum())
}

/// Looks again and again, a fifth of a millisecond apart, until there is something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("{what}: not within {PATIENCE:?}").into());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}
