//! `evenkeel stats`: processor, memory, processes and traffic of containers.
//!
//! Processor time is measured between two looks: a second apart while it is repeated, 20 ms apart with `--no-stream`,
//! which so answers at once. `--interval` says otherwise. As JSON it also tells the pressure (Linux, accounting/psi), on
//! hosts with cgroup version 2.
//!
//! ```text
//! processor time ──── interval ────> processor time
//!                    └ memory, processes, traffic: behind the wait where it is repeated, else within it
//! ```

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::inventory::Inventory;
use super::output::{Format, Output};
use super::table::Table;
use super::template::columns::{Columns, RowTemplate};
use super::{process, select};
use crate::engine::{self, shares};
use crate::model::actual::Liveness;
use crate::model::record::ContainerRecord;
use crate::model::units::Timespan;
use crate::runtime::cgroup::{self, Cgroup, Hierarchy, Pressure};

#[derive(Debug, Args)]
pub struct StatsArguments {
    /// Only these containers; all that run when none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Answer once, instead of again and again
    #[arg(long)]
    no_stream: bool,

    /// Also those that do not run
    #[arg(short, long)]
    all: bool,

    /// As a template says, in Docker's words: '{{.Name}}: {{.CPUPerc}}', or 'table {{.Name}}\t{{.MemUsage}}' for columns.
    /// Container, Name, ID, CPUPerc, MemUsage, MemPerc, NetIO, BlockIO and PIDs are known; `json` is all of them
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "json")]
    format: Option<RowTemplate<Field>>,

    /// Whole ids, as all of ours are
    #[arg(long, hide = true)]
    no_trunc: bool,

    /// Between the two looks at processor time [default: 1s, or 20ms with --no-stream]
    #[arg(long, value_name = "TIME")]
    interval: Option<Timespan>,
}

/// What a template shows of a container, under Docker's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Container,
    Name,
    Id,
    CpuPerc,
    MemUsage,
    MemPerc,
    NetIo,
    BlockIo,
    Pids,
}

impl Columns for Field {
    const ALL: &'static [(Field, &'static str, &'static str)] = &[
        (Field::Container, "Container", "CONTAINER"),
        (Field::Name, "Name", "NAME"),
        (Field::Id, "ID", "CONTAINER ID"),
        (Field::CpuPerc, "CPUPerc", "CPU %"),
        (Field::MemUsage, "MemUsage", "MEM USAGE / LIMIT"),
        (Field::MemPerc, "MemPerc", "MEM %"),
        (Field::NetIo, "NetIO", "NET I/O"),
        (Field::BlockIo, "BlockIO", "BLOCK I/O"),
        (Field::Pids, "PIDs", "PIDS"),
    ];
}

/// A container that runs.
struct Running<'a> {
    record: &'a ContainerRecord,
    pid: u32,
    cgroup: Cgroup,
}

/// What a container has had of all processors.
#[derive(Debug, Clone, Copy)]
struct CpuTime {
    at: Instant,
    nanoseconds: u64,
}

/// What else a container uses.
#[derive(Debug, Clone)]
struct Usage {
    usage: cgroup::Stats,
    pressure: Option<Pressure>,
    received: u64,
    sent: u64,
    /// Read from disks and written to them, where it was asked for.
    blocks: Option<(u64, u64)>,
}

#[derive(Debug, Serialize)]
struct Row {
    id: String,
    container: String,
    /// Of one processor: two busy ones are 200.
    cpu_percent: f64,
    cpu_nanoseconds: u64,
    memory_bytes: u64,
    memory_limit_bytes: Option<u64>,
    processes: u64,
    processes_limit: Option<u64>,
    received_bytes: u64,
    sent_bytes: u64,
    #[serde(skip)]
    blocks: Option<(u64, u64)>,
    /// How long its processes waited for processors, memory and disks; nothing where the kernel does not say.
    pressure: Option<Pressure>,
}

pub fn run(arguments: &StatsArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let hierarchy = cgroup::detect()?;
    let default = if arguments.no_stream { Timespan::from_millis(20) } else { Timespan::from_secs(1) };
    let interval = arguments.interval.unwrap_or(default).to_duration();
    loop {
        let inventory = Inventory::read(context.paths.clone())?;
        let chosen = select::many(inventory.records(), &arguments.names, &|| context.tie_break())?;
        let running = running(&chosen, &inventory, context, &hierarchy);
        let begun = Instant::now();
        let before: Vec<_> = running.iter().map(Running::cpu_time).collect();
        if !arguments.no_stream {
            std::thread::sleep(interval);
        }
        let blocks = arguments.format.as_ref().is_some_and(|format| format.has(Field::BlockIo) || format.has_all());
        let used: Vec<_> = running.iter().map(|container| container.usage(blocks)).collect();
        std::thread::sleep(interval.saturating_sub(begun.elapsed()));
        let after: Vec<_> = running.iter().map(Running::cpu_time).collect();
        let looks = running.iter().zip(used).zip(before.into_iter().zip(after));
        let rows: Vec<_> = looks
            .filter_map(|((running, usage), (before, after))| Some(row(running.record, usage?, before?, after?)))
            .collect();
        let rows = if arguments.all { with_the_others(rows, &chosen) } else { rows };
        show(&rows, arguments, output)?;
        if arguments.no_stream {
            return Ok(Exit::Done);
        }
    }
}

/// Home, then clear to the end: no flicker (ECMA-48, CUP and ED).
const CLEAR: &str = "\x1b[H\x1b[J";

/// One that does not run uses nothing.
fn with_the_others(mut rows: Vec<Row>, chosen: &[&ContainerRecord]) -> Vec<Row> {
    let nothing = |record: &&ContainerRecord| Row {
        id: record.id.to_string(),
        container: record.full_name(),
        cpu_percent: 0.0,
        cpu_nanoseconds: 0,
        memory_bytes: 0,
        memory_limit_bytes: None,
        processes: 0,
        processes_limit: None,
        received_bytes: 0,
        sent_bytes: 0,
        blocks: None,
        pressure: None,
    };
    let others = chosen.iter().filter(|record| rows.iter().all(|row| row.id != record.id.as_str()));
    let others: Vec<Row> = others.map(nothing).collect();
    rows.extend(others);
    rows
}

/// As Docker shows it. What has no limit of its own has the host's memory.
fn cell(row: &Row, field: Field) -> String {
    let limit = || row.memory_limit_bytes.or_else(process::memory_of_host).unwrap_or_default();
    match field {
        Field::Container | Field::Name => row.container.clone(),
        Field::Id => row.id.clone(),
        Field::CpuPerc => format!("{:.2}%", row.cpu_percent),
        Field::MemUsage => format!("{} / {}", bytes(row.memory_bytes), bytes(limit())),
        Field::MemPerc => format!("{:.2}%", row.memory_bytes as f64 / limit().max(1) as f64 * 100.0),
        Field::NetIo => format!("{} / {}", bytes(row.received_bytes), bytes(row.sent_bytes)),
        Field::BlockIo => match row.blocks {
            Some((read, written)) => format!("{} / {}", bytes(read), bytes(written)),
            None => "--".to_owned(),
        },
        Field::Pids => row.processes.to_string(),
    }
}

fn show(rows: &[Row], arguments: &StatsArguments, output: &Output) -> Result<(), Failure> {
    if let Some(template) = &arguments.format {
        let text = template.render(rows, cell).map_err(Failure::usage)?;
        let clear = if !arguments.no_stream && output.is_terminal() { CLEAR } else { "" };
        return output.text(&format!("{clear}{text}"));
    }
    match (output.format(), arguments.no_stream) {
        (Format::Json, true) => output.document(&rows),
        (Format::Json, false) => rows.iter().try_for_each(|row| output.line(row)),
        (Format::Text, false) if output.is_terminal() => output.text(&format!("{CLEAR}{}", table(rows))),
        (Format::Text, _) => output.text(&table(rows)),
    }
}

fn running<'a>(
    chosen: &[&'a ContainerRecord],
    inventory: &Inventory,
    context: &Context,
    hierarchy: &Hierarchy,
) -> Vec<Running<'a>> {
    let look = |record: &&'a ContainerRecord| match inventory.liveness(record) {
        Ok(Liveness::Monitored(status)) => {
            Some(Running { record, pid: status.pid?, cgroup: cgroup(record, context, hierarchy) })
        }
        _ => None,
    };
    shares::each(chosen, look).into_iter().flatten().collect()
}

/// A container that ends between two looks has nothing to show; that is no error of this command.
impl Running<'_> {
    fn cpu_time(&self) -> Option<CpuTime> {
        let nanoseconds = self.cgroup.cpu_nanoseconds().ok()??;
        Some(CpuTime { at: Instant::now(), nanoseconds })
    }

    fn usage(&self, with_blocks: bool) -> Option<Usage> {
        let (usage, pressure) = (self.cgroup.stats().ok()?, self.cgroup.pressure().ok()?);
        let (received, sent) = process::network_bytes(self.pid).unwrap_or_default();
        let blocks = if with_blocks { self.cgroup.block_bytes().ok()? } else { None };
        Some(Usage { usage, pressure, received, sent, blocks })
    }
}

/// The cgroup of a container, whether it runs or not.
pub fn cgroup(record: &ContainerRecord, context: &Context, hierarchy: &Hierarchy) -> Cgroup {
    let tag = engine::host::tag(&context.paths.root);
    cgroup::open(hierarchy, &engine::cgroup_path(&tag, &record.id))
}

fn row(record: &ContainerRecord, used: Usage, before: CpuTime, after: CpuTime) -> Row {
    let spent = after.nanoseconds.saturating_sub(before.nanoseconds);
    let Usage { usage, pressure, received, sent, blocks } = used;
    Row {
        id: record.id.to_string(),
        container: record.full_name(),
        cpu_percent: percent(spent, after.at - before.at),
        cpu_nanoseconds: after.nanoseconds,
        memory_bytes: usage.memory,
        memory_limit_bytes: usage.memory_limit,
        processes: usage.pids,
        processes_limit: usage.pids_limit,
        received_bytes: received,
        sent_bytes: sent,
        blocks,
        pressure,
    }
}

/// Nanoseconds of work per time, in hundredths of one processor, to two decimals.
fn percent(spent: u64, time: Duration) -> f64 {
    let nanoseconds = time.as_nanos().max(1) as f64;
    (spent as f64 / nanoseconds * 10_000.0).round() / 100.0
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new(&["NAME", "CPU", "MEMORY", "LIMIT", "PIDS", "RECEIVED", "SENT"]);
    for row in rows {
        table.row(vec![
            row.container.clone(),
            format!("{:.2}%", row.cpu_percent),
            bytes(row.memory_bytes),
            row.memory_limit_bytes.map_or("-".to_owned(), bytes),
            match row.processes_limit {
                Some(limit) => format!("{}/{limit}", row.processes),
                None => row.processes.to_string(),
            },
            bytes(row.received_bytes),
            bytes(row.sent_bytes),
        ]);
    }
    table.render()
}

/// `512B`, `1.5MiB`, `12.0GiB`: to read, not to compute with.
pub fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes}B"),
        _ => format!("{value:.1}{}", units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_at_a_glance() {
        for (size, text) in [(0, "0B"), (1023, "1023B"), (1536, "1.5KiB"), (64 << 20, "64.0MiB"), (5 << 40, "5.0TiB")] {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn two_busy_processors_are_two_hundred_percent() {
        assert_eq!(percent(40_000_000, Duration::from_millis(20)), 200.0);
        assert_eq!(percent(0, Duration::ZERO), 0.0);
    }
}
