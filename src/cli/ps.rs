//! `evenkeel ps`: the containers of this state root and how they are.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::context::Context;
use super::failure::{Exit, Failure};
use super::filter::{self, FILTER_HELP, Filter};
use super::inventory::Inventory;
use super::output::{Format, Output};
use super::stats::bytes;
use super::table::Table;
use super::template::columns::{Field, RowTemplate};
use super::{phrase, select};
use crate::engine::image::store::Store;
use crate::engine::shares;
use crate::model::actual::Liveness;
use crate::model::health::Health;
use crate::model::id::{ContainerId, Digest, Instance, ProjectName, ResourceName};
use crate::model::network::NetworkMode;
use crate::model::port::{HostAddress, HostPort};
use crate::model::record::ContainerRecord;
use crate::model::status::{Exit as HowItEnded, Phase, Status};
use crate::monitor::protocol::chain;

#[derive(Debug, Args)]
pub struct PsArguments {
    /// Only these: NAME, NAME.REPLICA, PROJECT/NAME or the beginning of an id
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Also those that nobody declares and that have ended
    #[arg(long, short)]
    all: bool,

    /// Only those that fit; several of one key are alternatives, of several keys all must fit
    #[arg(short, long, value_name = "KEY=VALUE", long_help = FILTER_HELP)]
    filter: Vec<Filter>,

    /// Only the ids, one a line
    #[arg(long, short)]
    quiet: bool,

    /// Only the N that were created last, newest first, also those that have ended
    #[arg(long, short = 'n', value_name = "N", conflicts_with = "latest")]
    last: Option<usize>,

    /// Only the one that was created last, also if it has ended
    #[arg(long, short)]
    latest: bool,

    /// With the bytes that each has written beside its image and its volumes
    #[arg(long, short, conflicts_with = "quiet")]
    size: bool,

    /// As a template says, in Docker's words: '{{.Names}}: {{.Status}}', or 'table {{.ID}}\t{{.Image}}' for columns.
    /// ID, Names, Image, State, Status, Ports, Labels, Label "key", CreatedAt, RunningFor, Command, Mounts, LocalVolumes,
    /// Networks and Size are known; `json` is all of them
    #[arg(long, value_name = "TEMPLATE", conflicts_with_all = ["quiet", "json"])]
    format: Option<RowTemplate>,

    /// The whole of each `{{.Command}}`, not its first 20 characters
    #[arg(long)]
    no_trunc: bool,
}

impl PsArguments {
    fn last(&self) -> Option<usize> {
        if self.latest { Some(1) } else { self.last }
    }

    fn wants_size(&self) -> bool {
        self.size || self.format.as_ref().is_some_and(|template| template.has(Field::Size))
    }
}

/// One container as `--json` shows it.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    pub id: &'a ContainerId,
    pub project: Option<&'a ProjectName>,
    pub name: &'a Instance,
    pub image: String,
    pub image_id: Option<&'a Digest>,
    /// The sentence of the STATUS column.
    pub status: String,
    pub state: State,
    pub health: Option<Health>,
    pub pid: Option<u32>,
    pub created_at: Option<String>,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
    pub exit_code: Option<u8>,
    pub oom_killed: bool,
    pub restarts: u32,
    pub next_start_at: Option<String>,
    pub error: Option<String>,
    pub addresses: Vec<IpAddr>,
    pub ports: &'a BTreeMap<HostPort, u16>,
    /// Only where it was asked for: it means a look at every file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    #[serde(skip)]
    pub record: &'a ContainerRecord,
    /// Docker's word and sentence.
    #[serde(skip)]
    pub dockers: (&'static str, String),
    /// How long ago it was made.
    #[serde(skip)]
    pub age: Option<String>,
    /// Only where it was asked for: its image has a say in it.
    #[serde(skip)]
    pub command: Option<String>,
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
    let is_shown = |record: &ContainerRecord, liveness: &Liveness| {
        arguments.all
            || !arguments.names.is_empty()
            || !arguments.filter.is_empty()
            || arguments.last().is_some()
            || record.project.project().is_some()
            || liveness.is_up()
    };
    let filters = arguments.filter.iter().map(|filter| filter.resolved(&inventory, context));
    let filters = filters.collect::<Result<Vec<_>, Failure>>()?;
    let looked = shares::each(&chosen, |record| (inventory.liveness(record), inventory.created(record)));
    let now = SystemTime::now();
    let mut rows = Vec::new();
    for (record, (liveness, created)) in chosen.into_iter().zip(looked) {
        let liveness = match liveness {
            Ok(liveness) => liveness,
            Err(error) => {
                // The others can be shown.
                output.warning(&chain(&error));
                continue;
            }
        };
        if !is_shown(record, &liveness) {
            continue;
        }
        let row = row(record, &liveness, created, now);
        if filter::fits(&filters, record, created, &row) {
            rows.push((created, record, row));
        }
    }
    if let Some(last) = arguments.last() {
        rows.sort_by_key(|(created, ..)| Reverse(*created));
        rows.truncate(last);
    }
    if arguments.wants_size() {
        for (_, record, row) in &mut rows {
            match inventory.written(record) {
                Ok(size) => row.size_bytes = Some(size),
                // The others can be counted.
                Err(error) => {
                    output.warning(&format!("cannot look at the files of `{}`: {error}", record.full_name()));
                }
            }
        }
    }
    if arguments.format.as_ref().is_some_and(|template| template.has(Field::Command) || template.has_all()) {
        let store = Store::new(&context.paths.root);
        for (_, record, row) in &mut rows {
            row.command = Some(command(record, &store, arguments)?);
        }
    }
    let rows: Vec<Row<'_>> = rows.into_iter().map(|(.., row)| row).collect();
    match (output.format(), &arguments.format) {
        _ if arguments.quiet => return ids(&rows, output),
        (Format::Json, _) => output.document(&rows)?,
        (Format::Text, None) => output.text(&table(&rows, arguments.size))?,
        (Format::Text, Some(template)) => output.text(&template.render(&rows, told).map_err(Failure::usage)?)?,
    }
    Ok(Exit::Done)
}

fn ids(rows: &[Row<'_>], output: &Output) -> Result<Exit, Failure> {
    match output.format() {
        Format::Json => output.document(&rows.iter().map(|row| row.id).collect::<Vec<_>>())?,
        Format::Text => output.text(&rows.iter().map(|row| format!("{}\n", row.id)).collect::<String>())?,
    }
    Ok(Exit::Done)
}

pub fn row<'a>(
    record: &'a ContainerRecord,
    liveness: &Liveness,
    created: Option<SystemTime>,
    now: SystemTime,
) -> Row<'a> {
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
        created_at: created.map(timestamp),
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
        size_bytes: None,
        record,
        dockers: (phrase::dockers_state(liveness), phrase::dockers_status(liveness, now)),
        age: created.map(|created| format!("{} ago", phrase::span(now.duration_since(created).unwrap_or_default()))),
        command: None,
    }
}

/// What its first process was started as, in quotes. A word with a blank has its own, as Docker shows it.
fn command(record: &ContainerRecord, store: &Store, arguments: &PsArguments) -> Result<String, Failure> {
    const WIDTH: usize = 20;
    let image = record.image.as_ref().map(|id| store.known(id)).transpose()?.flatten();
    let config = image.map(|image| image.config).unwrap_or_default();
    let words = config.arguments(record.spec.entrypoint.as_deref(), record.spec.command.as_deref());
    let word = |word: &String| if word.contains(' ') { format!("'{word}'") } else { word.clone() };
    let line = words.iter().map(word).collect::<Vec<_>>().join(" ");
    match line.chars().count() > WIDTH && !arguments.no_trunc {
        true => Ok(format!("{:?}", line.chars().take(WIDTH - 1).chain(['…']).collect::<String>())),
        false => Ok(format!("{line:?}")),
    }
}

pub fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

fn table(rows: &[Row<'_>], with_size: bool) -> String {
    let size = with_size.then_some(Field::Size);
    let fields = [Field::Names, Field::Image, Field::Status, Field::Ports, Field::Id].into_iter().chain(size);
    let mut table = Table::new(&["NAME", "IMAGE", "STATUS", "PORTS", "ID", "SIZE"][..5 + usize::from(with_size)]);
    for row in rows {
        let coloured = |field| match field {
            Field::Status => format!("{}{}{:#}", colour(row), row.status, colour(row)),
            field => cell(row, field),
        };
        table.row(fields.clone().map(coloured).collect());
    }
    table.render()
}

/// What a template is told of a field, as Docker says it.
fn told(row: &Row<'_>, field: Field) -> Value {
    match field {
        Field::Label => json!(row.record.spec.labels),
        Field::State => row.dockers.0.into(),
        Field::Status => row.dockers.1.clone().into(),
        Field::Ports => {
            let port = |(host, inside): (&HostPort, &u16)| {
                let published = |address: &str| format!("{address}:{}->{inside}/{}", host.port, host.protocol);
                match host.address {
                    HostAddress::Any => format!("{}, {}", published("0.0.0.0"), published("[::]")),
                    HostAddress::One(IpAddr::V4(address)) => published(&address.to_string()),
                    HostAddress::One(IpAddr::V6(address)) => published(&format!("[{address}]")),
                }
            };
            row.ports.iter().map(port).collect::<Vec<_>>().join(", ").into()
        }
        field => cell(row, field).into(),
    }
}

fn cell(row: &Row<'_>, field: Field) -> String {
    let ports = row.ports.iter().map(|(host, inside)| format!("{host}->{inside}"));
    let spec = &row.record.spec;
    let labels = spec.labels.iter().map(|(key, value)| format!("{key}={value}"));
    match field {
        Field::Id => row.id.to_string(),
        Field::Names => row.project.map_or_else(|| row.name.to_string(), |project| format!("{project}/{}", row.name)),
        Field::Image => with_short_digest(familiar(&row.image)),
        Field::State => state_word(&row.state),
        Field::Status => row.status.clone(),
        Field::Ports => ports.collect::<Vec<_>>().join(", "),
        Field::Labels | Field::Label => labels.collect::<Vec<_>>().join(","),
        Field::LocalVolumes => spec.volumes().count().to_string(),
        Field::CreatedAt => row.created_at.clone().unwrap_or_default(),
        Field::RunningFor => row.age.clone().unwrap_or_default(),
        Field::Command => row.command.clone().unwrap_or_default(),
        Field::Mounts => {
            let binds = spec.binds().map(|path| path.display().to_string());
            spec.volumes().map(ResourceName::to_string).chain(binds).collect::<Vec<_>>().join(",")
        }
        Field::Networks => match &spec.network {
            NetworkMode::Networks(networks) => networks.keys().map(|name| name.as_str()).collect::<Vec<_>>().join(","),
            NetworkMode::None => "none".to_owned(),
            NetworkMode::Host => "host".to_owned(),
            NetworkMode::Container(name) => format!("container:{name}"),
        },
        Field::Size => row.size_bytes.map(bytes).unwrap_or_default(),
    }
}

/// A state is one word in JSON.
pub fn state_word(state: &State) -> String {
    serde_json::to_value(state).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

/// `nginx:1.27` for `docker.io/library/nginx:1.27`: what people write.
pub fn familiar(reference: &str) -> &str {
    let hub = reference.strip_prefix("docker.io/").unwrap_or(reference);
    hub.strip_prefix("library/").unwrap_or(hub)
}

/// A locked reference is longer than a terminal is wide.
fn with_short_digest(reference: &str) -> String {
    match reference.split_once("@sha256:") {
        Some((name, digest)) => format!("{name}@{}", digest.get(..12).unwrap_or(digest)),
        None => reference.to_owned(),
    }
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
