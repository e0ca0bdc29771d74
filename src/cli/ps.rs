//! `evenkeel ps`: the containers of this state root and how they are.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::filter::{self, FILTER_HELP, Filter};
use super::inventory::Inventory;
use super::output::{Format, Output};
use super::table::Table;
use super::{phrase, select};
use crate::model::actual::Liveness;
use crate::model::health::Health;
use crate::model::id::{ContainerId, Digest, Instance, ProjectName};
use crate::model::port::HostPort;
use crate::model::record::ContainerRecord;
use crate::model::status::{Exit as HowItEnded, Phase, Status};

#[derive(Debug, Args)]
pub struct PsArguments {
    /// Only these: NAME, NAME.REPLICA, PROJECT/NAME or the beginning of an id
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Also those that nobody declares and that have ended
    #[arg(long, short)]
    all: bool,

    /// Only those that fit; several of one key are alternatives, of several keys all must fit
    #[arg(long, value_name = "KEY=VALUE", long_help = FILTER_HELP)]
    filter: Vec<Filter>,

    /// Only the ids, one a line
    #[arg(long, short)]
    quiet: bool,
}

/// One container as `--json` shows it.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    pub id: &'a ContainerId,
    project: Option<&'a ProjectName>,
    name: &'a Instance,
    pub image: String,
    image_id: Option<&'a Digest>,
    /// The sentence of the STATUS column.
    status: String,
    pub state: State,
    pub health: Option<Health>,
    pid: Option<u32>,
    started_at: Option<String>,
    finished_at: Option<String>,
    exit_code: Option<u8>,
    oom_killed: bool,
    restarts: u32,
    next_start_at: Option<String>,
    error: Option<String>,
    addresses: Vec<IpAddr>,
    ports: &'a BTreeMap<HostPort, u16>,
}

/// The phase of a container that has one, and the two ways of having none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Created,
    Lost,
    #[serde(untagged)]
    Phase(Phase),
}

pub fn run(arguments: &PsArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let inventory = match context.named_project()? {
        Some(project) => Inventory::read(context.paths.clone())?.of_project(&project.into()),
        None => Inventory::read(context.paths.clone())?,
    };
    for record in inventory.unreadable() {
        output.warning(&record.to_string());
    }
    let chosen = select::many(inventory.records(), &arguments.names, &|| context.tie_break())?;
    // What is declared is shown whatever became of it; what somebody ran once is over with its end.
    let is_shown = |record: &&ContainerRecord| {
        let named = arguments.all
            || !arguments.names.is_empty()
            || !arguments.filter.is_empty()
            || record.project.project().is_some();
        Ok::<_, Failure>(named || matches!(inventory.liveness(record)?, Liveness::Monitored(_) | Liveness::Lost(_)))
    };
    let shown = chosen.into_iter().map(|record| Ok(is_shown(&record)?.then_some(record)));
    let chosen: Vec<_> = shown.collect::<Result<Vec<_>, Failure>>()?.into_iter().flatten().collect();
    let now = SystemTime::now();
    let mut fitting = Vec::new();
    for record in chosen {
        if filter::fits(&arguments.filter, record, &row(record, &inventory.liveness(record)?, now)) {
            fitting.push(record);
        }
    }
    let chosen = fitting;
    if arguments.quiet {
        return ids(&chosen, output);
    }
    let rows = chosen
        .into_iter()
        .map(|record| Ok(row(record, &inventory.liveness(record)?, now)))
        .collect::<Result<Vec<_>, Failure>>()?;
    match output.format() {
        Format::Json => output.document(&rows)?,
        Format::Text => output.text(&table(&rows))?,
    }
    Ok(Exit::Done)
}

fn ids(chosen: &[&ContainerRecord], output: &Output) -> Result<Exit, Failure> {
    match output.format() {
        Format::Json => output.document(&chosen.iter().map(|record| &record.id).collect::<Vec<_>>())?,
        Format::Text => output.text(&chosen.iter().map(|record| format!("{}\n", record.id)).collect::<String>())?,
    }
    Ok(Exit::Done)
}

pub fn row<'a>(record: &'a ContainerRecord, liveness: &Liveness, now: SystemTime) -> Row<'a> {
    let (state, status) = match liveness {
        Liveness::Absent => (State::Created, None),
        Liveness::Lost(status) => (State::Lost, status.as_ref()),
        Liveness::Monitored(status) | Liveness::Ended(status) => (State::Phase(status.phase), Some(status)),
    };
    let of = |get: fn(&Status) -> Option<SystemTime>| status.and_then(get).map(timestamp);
    Row {
        id: &record.id,
        project: record.project.project(),
        name: &record.instance,
        image: record.spec.image.to_string(),
        image_id: record.image.as_ref(),
        status: phrase::state(liveness, now),
        state,
        health: status.and_then(|status| status.health.as_ref()).map(|health| health.health),
        pid: status.and_then(|status| status.pid).filter(|_| matches!(liveness, Liveness::Monitored(_))),
        started_at: of(|status| status.started_at),
        finished_at: of(|status| status.finished_at),
        exit_code: status.and_then(|status| status.exit).map(HowItEnded::code),
        oom_killed: status.is_some_and(|status| status.exit == Some(HowItEnded::OutOfMemory)),
        restarts: status.map_or(0, |status| status.restarts),
        next_start_at: of(|status| status.next_start_at),
        error: status.and_then(|status| status.error.clone()),
        addresses: record
            .addresses
            .values()
            .flat_map(|pair| [Some(IpAddr::from(pair.v4)), pair.v6.map(IpAddr::from)])
            .flatten()
            .collect(),
        ports: &record.spec.ports,
    }
}

pub fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

fn table(rows: &[Row<'_>]) -> String {
    let mut table = Table::new(&["NAME", "IMAGE", "STATUS", "PORTS", "ID"]);
    for row in rows {
        let ports: Vec<_> = row.ports.iter().map(|(host, inside)| format!("{host}->{inside}")).collect();
        table.row(vec![
            row.project.map_or_else(|| row.name.to_string(), |project| format!("{project}/{}", row.name)),
            familiar(&row.image).to_owned(),
            format!("{}{}{:#}", colour(row), row.status, colour(row)),
            ports.join(", "),
            row.id.to_string(),
        ]);
    }
    table.render()
}

/// `nginx:1.27` for `docker.io/library/nginx:1.27`: what people write.
pub fn familiar(reference: &str) -> &str {
    let hub = reference.strip_prefix("docker.io/").unwrap_or(reference);
    hub.strip_prefix("library/").unwrap_or(hub)
}

fn colour(row: &Row<'_>) -> anstyle::Style {
    use super::output::{ATTENTION, BAD, GOOD, QUIET};
    match (&row.state, row.health) {
        (_, Some(Health::Unhealthy)) if row.pid.is_some() => BAD,
        (State::Phase(Phase::Running), _) => GOOD,
        (State::Phase(Phase::CrashLoop | Phase::Failed), _) | (State::Lost, _) => BAD,
        (State::Phase(Phase::Exited), _) if row.exit_code != Some(0) => BAD,
        (State::Phase(Phase::Exited | Phase::Stopped), _) | (State::Created, _) => QUIET,
        (State::Phase(Phase::Starting | Phase::Paused | Phase::Stopping | Phase::Waiting), _) => ATTENTION,
    }
}
