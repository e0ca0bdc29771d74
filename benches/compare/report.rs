//! The table and the JSON: medians, CPU time, and how many times longer each contender takes than Evenkeel.

use std::path::Path;

use serde_json::json;

use crate::Result;
use crate::cases::{self, Case, Unit};
use crate::contender::NAMES;
use crate::measure::{Measurement, Outcome, Sample};

/// What the machine is, and what else it does: figures mean little without.
pub struct Machine {
    pub processors: usize,
    pub kernel: String,
    pub load: String,
}

impl Machine {
    pub fn look() -> Machine {
        let file = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let load = file("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ");
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Machine { processors, kernel: file("/proc/sys/kernel/osrelease"), load }
    }
}

pub fn print(measured: &[Measurement], before: &Machine) {
    let after = Machine::look();
    println!(
        "\n{} processors, Linux {}; load {} before, {} after",
        after.processors, after.kernel, before.load, after.load
    );
    println!("medians; in brackets: CPU seconds of client, daemon, monitors and containers; x: times Evenkeel's\n");
    print!("{:38}", "");
    NAMES.iter().for_each(|name| print!("{name:>24}"));
    println!();
    for case in cases::ALL {
        let find = |name: &str| measured.iter().find(|found| found.case == case.name && found.contender == name);
        if !NAMES.iter().any(|name| find(name).is_some()) {
            continue;
        }
        let ours = find("evenkeel").and_then(|found| found.outcome.median());
        print!("{:38}", case.what);
        for name in NAMES {
            let cell = find(name).map_or_else(String::new, |found| cell(case, &found.outcome, ours));
            print!("{cell:>24}");
        }
        println!();
    }
    for Measurement { case, contender, outcome } in measured {
        if let Outcome::Failed(why) = outcome {
            println!("{contender}: {case}: failed: {why}");
        }
    }
}

fn cell(case: &Case, outcome: &Outcome, ours: Option<Sample>) -> String {
    let Some(median) = outcome.median() else {
        return match outcome {
            Outcome::NotApplicable(_) => "-".into(),
            _ => "failed".into(),
        };
    };
    let mut text = quantity(case.unit, median.value);
    if let (Unit::Seconds, Some(cpu)) = (case.unit, median.cpu) {
        text += &format!(" [{cpu:.2}]");
    }
    if let Some(ours) = ours {
        text += &format!(" {:.1}x", median.value / ours.value);
    }
    text
}

fn quantity(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Seconds | Unit::CpuSeconds if value < 1.0 => format!("{:.1} ms", value * 1e3),
        Unit::Seconds | Unit::CpuSeconds => format!("{value:.2} s"),
        Unit::Kibibytes => format!("{value:.0} KiB"),
        Unit::LinesPerSecond => format!("{:.2} M/s", value / 1e6),
    }
}

pub fn write_json(path: &Path, measured: &[Measurement], machine: &Machine) -> Result<()> {
    let cases = cases::ALL.map(|case| {
        let of_case = measured.iter().filter(|found| found.case == case.name);
        let contenders = of_case.map(|found| {
            let median = found.outcome.median();
            (found.contender.clone(), json!({ "median": median, "outcome": found.outcome }))
        });
        let contenders: serde_json::Map<_, _> = contenders.collect();
        json!({ "case": case.name, "what": case.what, "unit": case.unit.name(), "contenders": contenders })
    });
    let Machine { processors, kernel, load } = machine;
    let document = json!({
        "machine": { "processors": processors, "kernel": kernel, "load_average": load },
        "cases": cases,
    });
    Ok(std::fs::write(path, serde_json::to_vec_pretty(&document)?)?)
}
