//! `evenkeel top`: the processes of containers.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::foreign::tamed_line;
use super::inventory::Inventory;
use super::output::{Format, Output};
use super::process::Process;
use super::progress::short;
use super::select;
use super::stats::{bytes, cgroup};
use super::table::Table;
use crate::model::record::ContainerRecord;
use crate::runtime::cgroup::{self, Hierarchy};

#[derive(Debug, Args)]
pub struct TopArguments {
    /// Only these containers; all that run when none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Only these columns, named as ps(1) does: container, pid, nspid, ppid, uid, s, time, rss, comm, args
    #[arg(short = 'o', long, value_name = "COLUMN,..", value_delimiter = ',')]
    columns: Vec<Column>,
}

/// A column of the table. Where ps(1) has it, under that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Container,
    Pid,
    InnerPid,
    Parent,
    Uid,
    State,
    Time,
    Memory,
    Name,
    Command,
}

/// What is shown when nobody says which.
const USUAL: [Column; 8] = [
    Column::Container,
    Column::Pid,
    Column::InnerPid,
    Column::Uid,
    Column::State,
    Column::Time,
    Column::Memory,
    Column::Command,
];

impl FromStr for Column {
    type Err = String;

    fn from_str(word: &str) -> Result<Column, String> {
        Ok(match word {
            "container" => Column::Container,
            "pid" => Column::Pid,
            "nspid" => Column::InnerPid,
            "ppid" => Column::Parent,
            "uid" | "euid" => Column::Uid,
            "s" | "state" | "stat" => Column::State,
            "time" | "cputime" => Column::Time,
            "rss" | "rssize" => Column::Memory,
            "comm" | "ucmd" => Column::Name,
            "args" | "cmd" | "command" => Column::Command,
            _ => return Err("expected container, pid, nspid, ppid, uid, s, time, rss, comm or args".to_owned()),
        })
    }
}

impl Column {
    fn heading(self) -> &'static str {
        match self {
            Column::Container => "CONTAINER",
            Column::Pid => "PID",
            Column::InnerPid => "INSIDE",
            Column::Parent => "PARENT",
            Column::Uid => "UID",
            Column::State => "STATE",
            Column::Time => "CPU",
            Column::Memory => "MEMORY",
            Column::Name => "NAME",
            Column::Command => "COMMAND",
        }
    }

    fn cell(self, row: &Row) -> String {
        match self {
            Column::Container => row.container.clone(),
            Column::Pid => row.pid.to_string(),
            Column::InnerPid => row.container_pid.to_string(),
            Column::Parent => row.parent.to_string(),
            Column::Uid => row.uid.to_string(),
            Column::State => row.state.to_string(),
            Column::Time => short(Duration::from_millis(row.cpu_milliseconds)),
            Column::Memory => bytes(row.memory_bytes),
            // A process names itself (prctl(2), PR_SET_NAME).
            Column::Name => tamed_line(&row.name),
            Column::Command => tamed_line(&row.command),
        }
    }
}

#[derive(Debug, Serialize)]
struct Row {
    container: String,
    pid: u32,
    /// As the container itself numbers it.
    container_pid: u32,
    parent: u32,
    uid: u32,
    state: char,
    cpu_milliseconds: u64,
    memory_bytes: u64,
    name: String,
    command: String,
}

pub fn run(arguments: &TopArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let inventory = Inventory::read(context.paths.clone())?;
    let hierarchy = cgroup::detect()?;
    let mut rows = Vec::new();
    for record in select::many(inventory.records(), &arguments.names, &|| context.tie_break())? {
        rows.extend(processes(record, context, &hierarchy)?);
    }
    match output.format() {
        Format::Json => output.document(&rows)?,
        Format::Text if arguments.columns.is_empty() => output.text(&table(&rows, &USUAL))?,
        Format::Text => output.text(&table(&rows, &arguments.columns))?,
    }
    Ok(Exit::Done)
}

fn processes(record: &ContainerRecord, context: &Context, hierarchy: &Hierarchy) -> Result<Vec<Row>, Failure> {
    let cgroup = cgroup(record, context, hierarchy);
    if !cgroup.exists() {
        return Ok(Vec::new());
    }
    // sysconf(_SC_CLK_TCK) is 100 on every architecture that Linux runs Rust on (proc(5), times(2)).
    let milliseconds = |ticks: u64| ticks * 10;
    let mut found: Vec<Process> =
        cgroup.processes()?.into_iter().filter_map(|pid| Process::read(pid.as_raw_nonzero().get() as u32)).collect();
    found.sort_by_key(|process| (process.inner_pid, process.pid));
    let row = |process: Process| Row {
        container: record.full_name(),
        pid: process.pid,
        container_pid: process.inner_pid,
        parent: process.parent,
        uid: process.uid,
        state: process.state,
        cpu_milliseconds: milliseconds(process.ticks),
        memory_bytes: process.memory,
        name: process.name,
        command: process.command,
    };
    Ok(found.into_iter().map(row).collect())
}

fn table(rows: &[Row], columns: &[Column]) -> String {
    let headings: Vec<&str> = columns.iter().map(|column| column.heading()).collect();
    let mut table = Table::new(&headings);
    rows.iter().for_each(|row| table.row(columns.iter().map(|column| column.cell(row)).collect()));
    table.render()
}
