//! What is measured. Cases that need the same containers are one group, so that a hundred are started once for all.

use std::fs;
use std::time::{Duration, Instant};

use crate::Result;
use crate::arguments::Arguments;
use crate::contender::Contender;
use crate::fleet::{Care, Fleet, LINES_IN_FILE, Workload};
use crate::measure::{Measurement, Outcome, Sample, cpu_time, time};
use crate::processes::{named, private_memory, wait_for};

/// What a number counts, and which is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Kibibytes,
    CpuSeconds,
    LinesPerSecond,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Unit::Seconds => "seconds",
            Unit::Kibibytes => "KiB",
            Unit::CpuSeconds => "CPU seconds",
            Unit::LinesPerSecond => "lines per second",
        }
    }
}

pub struct Case {
    pub name: &'static str,
    pub unit: Unit,
    /// For the table.
    pub what: &'static str,
}

pub const START_1: Case = case("start-1", Unit::Seconds, "start of one container on a bridge");
pub const START_10: Case = case("start-10", Unit::Seconds, "start of 10");
pub const START_100: Case = case("start-100", Unit::Seconds, "start of 100");
pub const CHECK: Case = case("check-100", Unit::Seconds, "check of 100 that are as declared");
pub const CHANGE: Case = case("change-1-of-100", Unit::Seconds, "one changed of 100");
pub const LIST: Case = case("ps-100", Unit::Seconds, "`ps` of 100");
pub const STATISTICS: Case = case("stats-100", Unit::Seconds, "`stats` of 100, once");
pub const MEMORY: Case = case("monitor-memory", Unit::Kibibytes, "private memory of a monitor");
pub const DOWN: Case = case("down-100", Unit::Seconds, "removal of 100");
pub const RESTART: Case = case("restart", Unit::Seconds, "restart after SIGKILL of the workload");
pub const HEALTH: Case = case("health-check", Unit::CpuSeconds, "CPU time of a health check by exec");
pub const LOGS: Case = case("logs", Unit::LinesPerSecond, "lines logged, each written by itself");

/// In the order of the table.
pub const ALL: [&Case; 12] =
    [&START_1, &START_10, &START_100, &CHECK, &CHANGE, &LIST, &STATISTICS, &MEMORY, &DOWN, &RESTART, &HEALTH, &LOGS];

const fn case(name: &'static str, unit: Unit, what: &'static str) -> Case {
    Case { name, unit, what }
}

/// Runs every wanted case. One that fails is reported and does not end the others.
pub fn measure_all(name: &str, contender: &dyn Contender, arguments: &Arguments) -> Vec<Measurement> {
    let mut run = Run { name, contender, arguments, measured: Vec::new() };
    run.starts(&START_1, 1);
    run.starts(&START_10, 10);
    run.hundred();
    run.single(&RESTART, 3, restart);
    run.single(&HEALTH, 9, health);
    run.single(&LOGS, 3, logs);
    run.measured
}

struct Run<'a> {
    name: &'a str,
    contender: &'a dyn Contender,
    arguments: &'a Arguments,
    measured: Vec<Measurement>,
}

impl Run<'_> {
    /// Measures a case that removes what it started. `weight`: how long it takes, in short cases.
    fn single(&mut self, case: &Case, weight: usize, sample: impl Fn(&dyn Contender) -> Result<Sample>) {
        let contender = self.contender;
        self.record(case, weight, || sample(contender));
    }

    fn starts(&mut self, case: &Case, count: usize) {
        let fleet = Fleet::sleeping(count);
        self.single(case, if count > 1 { 2 } else { 1 }, |contender| {
            let sample = start(contender, &fleet)?;
            contender.remove(&fleet)?;
            Ok(sample)
        });
    }

    /// Everything that looks at a hundred running containers.
    fn hundred(&mut self) {
        const GROUP: [&Case; 7] = [&START_100, &CHECK, &CHANGE, &LIST, &STATISTICS, &MEMORY, &DOWN];
        if !GROUP.iter().any(|case| self.wants(case)) {
            return;
        }
        let fleet = Fleet::sleeping(100);
        let contender = self.contender;
        // Starting and removing take long; the rest is looked at while the last hundred run.
        for _ in 1..self.arguments.runs(3) {
            self.record(&START_100, usize::MAX, || start(contender, &fleet));
            self.record(&DOWN, usize::MAX, || time(|| contender.remove(&fleet)));
        }
        if self.wants(&START_100) {
            self.record(&START_100, usize::MAX, || start(contender, &fleet));
        } else if let Err(error) = start(contender, &fleet) {
            eprintln!("{}: {error}", self.name);
        }
        self.record(&CHECK, 1, || time(|| contender.check()));
        let generation = std::cell::Cell::new(0);
        self.record(&CHANGE, 2, || {
            generation.set(generation.get() + 1);
            start(contender, &Fleet { generation: generation.get(), ..fleet })
        });
        self.record(&LIST, 1, || time(|| contender.list()));
        self.record(&STATISTICS, 2, || time(|| contender.statistics()));
        self.record(&MEMORY, usize::MAX, || monitor_memory(contender));
        let down = time(|| contender.remove(&fleet));
        if self.wants(&DOWN) {
            self.add(&DOWN, down);
        }
    }

    fn wants(&self, case: &Case) -> bool {
        self.arguments.wants_case(case.name)
    }

    fn record(&mut self, case: &Case, weight: usize, sample: impl Fn() -> Result<Sample>) {
        if !self.wants(case) {
            return;
        }
        if let Some(why) = self.contender.not_applicable(case) {
            return self.replace(case, Outcome::NotApplicable(why.into()));
        }
        for _ in 0..self.arguments.runs(weight) {
            let sample = sample();
            self.add(case, sample);
        }
    }

    /// One more sample of the case; the first failure stands for it.
    fn add(&mut self, case: &Case, sample: Result<Sample>) {
        let outcome = match (sample, self.measured.iter_mut().find(|found| found.case == case.name)) {
            (Err(error), _) => Outcome::Failed(error.to_string()),
            (Ok(_), Some(Measurement { outcome: Outcome::Failed(_), .. })) => return,
            (Ok(sample), Some(Measurement { outcome: Outcome::Measured(samples), .. })) => {
                let mut samples = std::mem::take(samples);
                samples.push(sample);
                Outcome::Measured(samples)
            }
            (Ok(sample), _) => Outcome::Measured(vec![sample]),
        };
        eprintln!("{}: {}: {outcome}", self.name, case.name);
        self.replace(case, outcome);
    }

    fn replace(&mut self, case: &Case, outcome: Outcome) {
        self.measured.retain(|found| found.case != case.name);
        self.measured.push(Measurement { case: case.name.into(), contender: self.name.into(), outcome });
    }
}

/// Starts the fleet and makes sure that it runs: as many processes as containers.
fn start(contender: &dyn Contender, fleet: &Fleet) -> Result<Sample> {
    contender.prepare()?;
    let sample = time(|| contender.start(fleet))?;
    wait_for("every container's process", || (fleet.processes().len() == fleet.count).then_some(()))?;
    Ok(sample)
}

/// The mean over all monitors.
fn monitor_memory(contender: &dyn Contender) -> Result<Sample> {
    let monitors = named(contender.monitor());
    // One that has just ended has no memory to speak of.
    let sizes = monitors.iter().filter_map(|pid| private_memory(*pid).ok()).collect::<Vec<f64>>();
    match sizes.len() {
        0 => Err(format!("no process is called `{}`", contender.monitor()).into()),
        count => Ok(Sample { value: sizes.iter().sum::<f64>() / count as f64, cpu: None }),
    }
}

/// From SIGKILL until the program runs again.
fn restart(contender: &dyn Contender) -> Result<Sample> {
    let fleet = Fleet { care: Care::Restart, ..Fleet::sleeping(1) };
    start(contender, &fleet)?;
    let first = wait_for("the first process", || fleet.processes().first().copied())?;
    let restart = || {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(first.cast_signed()), nix::sys::signal::Signal::SIGKILL)?;
        wait_for("the second process", || fleet.processes().into_iter().find(|pid| *pid != first))?;
        Ok(())
    };
    let sample = time(restart);
    contender.remove(&fleet)?;
    sample
}

/// CPU time of everything while checks run, for each check. What an idle contender uses is in it.
fn health(contender: &dyn Contender) -> Result<Sample> {
    const PERIOD: Duration = Duration::from_secs(10);
    let fleet = Fleet { care: Care::Health, ..Fleet::sleeping(8) };
    start(contender, &fleet)?;
    let processes = fleet.processes();
    let checks = || -> u64 {
        let file = |pid: &u32| fs::metadata(format!("/proc/{pid}/root/checks"));
        processes.iter().filter_map(|pid| file(pid).ok()).map(|file| file.len()).sum()
    };
    let by_hand = contender.check_health(&fleet).transpose()?.is_some();
    wait_for("the first health checks", || (checks() >= 8).then_some(()))?;
    let (before, cpu, begun) = (checks(), cpu_time()?, Instant::now());
    while begun.elapsed() < PERIOD {
        match by_hand {
            true => contender.check_health(&fleet).unwrap_or(Ok(()))?,
            false => std::thread::sleep(PERIOD.saturating_sub(begun.elapsed())),
        }
    }
    let used = cpu_time()?.saturating_sub(cpu).as_secs_f64();
    let count = checks() - before;
    contender.remove(&fleet)?;
    match count {
        0 => Err("no health check ran".into()),
        count => Ok(Sample { value: used / count as f64, cpu: None }),
    }
}

/// From the start of writing until the writer has ended: what is left in the pipe then is a thousand lines at most.
fn logs(contender: &dyn Contender) -> Result<Sample> {
    let rounds = 50;
    let fleet = Fleet { workload: Workload::Write { rounds }, ..Fleet::sleeping(1) };
    start(contender, &fleet)?;
    let writer = wait_for("the writer", || fleet.processes().first().copied())?;
    let sample = time(|| {
        fs::write(format!("/proc/{writer}/root/go"), "")?;
        wait_for("the end of the writer", || fleet.processes().is_empty().then_some(()))
    })?;
    contender.remove(&fleet)?;
    Ok(Sample { value: (rounds * LINES_IN_FILE) as f64 / sample.value, ..sample })
}
