//! `evenkeel top`: the processes of containers.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::host_ps;
use super::inventory::Inventory;
use super::output::{Format, Output};
use super::process::Process;
use super::progress::short;
use super::select;
use super::stats::{bytes, cgroup};
use super::table::Table;
use crate::model::foreign::tamed_line;
use crate::model::record::ContainerRecord;
use crate::runtime::cgroup::{self, Hierarchy};

#[derive(Debug, Args)]
pub struct TopArguments {
    /// Only these containers; all that run when none is named. One, and options of ps(1) behind it, such as `aux` or
    /// `-eo pid,comm`: what the host's ps(1) shows of its processes
    #[arg(value_name = "NAME", allow_hyphen_values = true)]
    words: Vec<String>,

    /// Only these columns, named as ps(1) does: container, pid, nspid, ppid, uid, s, time, rss, comm, args. Any others are
    /// left to ps(1)
    #[arg(short = 'o', long, value_name = "COLUMN,..")]
    columns: Option<String>,
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
const USUAL: &str = "container,pid,nspid,uid,s,time,rss,args";

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
    let (names, mut options) = split(&arguments.words, &inventory, context)?;
    // Behind a name everything is an option of ps(1), but these are ours too.
    let json = options.iter().position(|option| option == "--json").map(|at| options.remove(at)).is_some();
    let format = if json { Format::Json } else { output.format() };
    let written = match options.as_slice() {
        [word, list] if matches!(word.as_str(), "-o" | "--columns") => Some(list.clone()),
        _ => None,
    };
    if written.is_some() {
        options.clear();
    }
    let chosen_columns = written.or(arguments.columns.clone());
    let columns = chosen_columns.as_deref().unwrap_or(USUAL);
    let ours: Result<Vec<Column>, String> = columns.split(',').map(str::parse).collect();
    if let Some(word) = options.iter().find(|word| is_ours(word)) {
        return Err(Failure::usage(format!("`{word}` stands behind a name, where options are those of ps(1)"))
            .hint(format!("`evenkeel top {word} .. NAME`")));
    }
    let chosen = select::many(inventory.records(), names, &|| context.tie_break())?;
    if let ([_, ..], Some(record)) = (names, chosen.iter().find(|record| !runs(record, context, &hierarchy))) {
        return Err(Failure::new(format!("container `{}` does not run", record.full_name())).hint("see `evenkeel ps`"));
    }
    match (ours, chosen.as_slice(), options.is_empty()) {
        (Ok(columns), _, true) => {
            let mut rows = Vec::new();
            for record in chosen {
                rows.extend(processes(record, context, &hierarchy)?);
            }
            match format {
                Format::Json => output.document(&rows)?,
                Format::Text => output.text(&table(&rows, &columns))?,
            }
        }
        (_, [record], _) if names.len() == 1 || options.is_empty() => {
            if let Some(columns) = &chosen_columns {
                options.extend(["-o".to_owned(), columns.clone()]);
            }
            let processes = processes(record, context, &hierarchy)?;
            let processes = processes.iter().filter_map(|row| i32::try_from(row.pid).ok()).collect();
            let listing = host_ps::list(&options, &processes)?;
            match format {
                Format::Json => output.document(&listing.json())?,
                Format::Text => output.text(&listing.text())?,
            }
        }
        (Err(why), ..) => return Err(Failure::usage(format!("`-o {columns}`: {why}"))),
        (Ok(_), ..) => {
            return Err(Failure::usage("options of ps(1) are for one container").hint("name one before them"));
        }
    }
    Ok(Exit::Done)
}

/// The names of containers in front, and the options of ps(1) behind them. An option of BSD's, `aux`, looks like a name:
/// it is one where a container has it.
fn split<'w>(
    words: &'w [String],
    inventory: &Inventory,
    context: &Context,
) -> Result<(&'w [String], Vec<String>), Failure> {
    let tie_break = || context.tie_break();
    let is_name = |word: &String| select::named(inventory.records(), word, &tie_break).is_ok();
    let names = words.iter().take_while(|word| is_name(word)).count();
    let (names, options) = words.split_at(names);
    match (names, options) {
        // Why it is none.
        ([], [word, ..]) | ([_, _, ..], [word, ..]) if !word.starts_with('-') => {
            select::named(inventory.records(), word, &tie_break).map(|_| (names, Vec::new()))
        }
        _ => Ok((names, options.to_vec())),
    }
}

/// An option that every command has, and ps(1) has not.
fn is_ours(word: &str) -> bool {
    let option = word.split('=').next().unwrap_or_default();
    ["--root", "--run", "--color", "--log-level", "--keep-removed", "--host-config", "--file"].contains(&option)
}

fn runs(record: &ContainerRecord, context: &Context, hierarchy: &Hierarchy) -> bool {
    let cgroup = cgroup(record, context, hierarchy);
    cgroup.exists() && cgroup.processes().is_ok_and(|processes| !processes.is_empty())
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
