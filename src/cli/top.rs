//! `evenkeel top`: the processes of containers.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::failure::{Exit, Failure};
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
        Format::Text => output.text(&table(&rows))?,
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
        command: process.command,
    };
    Ok(found.into_iter().map(row).collect())
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new(&["CONTAINER", "PID", "INSIDE", "UID", "STATE", "CPU", "MEMORY", "COMMAND"]);
    for row in rows {
        table.row(vec![
            row.container.clone(),
            row.pid.to_string(),
            row.container_pid.to_string(),
            row.uid.to_string(),
            row.state.to_string(),
            short(Duration::from_millis(row.cpu_milliseconds)),
            bytes(row.memory_bytes),
            row.command.clone(),
        ]);
    }
    table.render()
}
