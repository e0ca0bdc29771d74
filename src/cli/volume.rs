//! `evenkeel volume`: the volumes of this state root, and those that nobody declares.
//!
//! # Decisions
//! A volume of a project is its manifest's: it is shown here, and neither made nor removed. One that nobody declares goes
//! to the trash like any other, and is gone for good only when that expires (`--keep-removed`).

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::apply::Session;
use super::by_hand;
use super::context::Context;
use super::documents::{Inspected, Shape, Sought};
use super::each::conclude;
use super::failure::{Exit, Failure};
use super::listing::{self, Listed, Listing};
use super::output::{Format, Output};
use super::run::declaration::label_table;
use super::table::Table;
use super::terminal;
use crate::engine::{Engine, records};
use crate::model::action::Action;
use crate::model::id::{ResourceName, VolumeKey, Whose};
use crate::model::record::{ContainerRecord, RECORD_VERSION, VolumeRecord};
use crate::model::volume::VolumeSpec;

#[derive(Debug, Args)]
pub struct VolumeArguments {
    #[command(subcommand)]
    command: VolumeCommand,
}

#[derive(Debug, Subcommand)]
enum VolumeCommand {
    /// List volumes: those of projects, and those that nobody declares
    #[command(visible_alias = "list")]
    Ls(Listing),
    /// Show everything that is known of volumes, as JSON
    Inspect {
        /// NAME, or PROJECT/NAME
        #[arg(value_name = "VOLUME", required = true)]
        names: Vec<String>,

        #[command(flatten)]
        shape: Shape,
    },
    /// Make a volume for containers of `run`
    Create {
        /// A label
        #[arg(short, long = "label", value_name = "KEY[=VALUE]")]
        labels: Vec<String>,

        #[arg(value_name = "VOLUME")]
        name: String,
    },
    /// Move volumes that no container uses and nobody declares to the trash
    #[command(visible_alias = "remove")]
    Rm {
        #[arg(value_name = "VOLUME", required = true)]
        names: Vec<String>,
    },
    /// Remove volumes that were made for containers which are gone
    Prune {
        /// Also those that have a name
        #[arg(short, long)]
        all: bool,

        #[command(flatten)]
        consent: PruneArguments,
    },
}

/// How a `prune` is agreed to.
#[derive(Debug, Args)]
pub struct PruneArguments {
    /// Do not ask
    #[arg(short, long, visible_alias = "yes")]
    force: bool,
}

/// What was agreed to.
#[derive(Debug)]
pub enum Consent {
    All,
    To(BTreeSet<String>),
}

impl PruneArguments {
    /// Asks on a terminal whether what `find` finds may go. Elsewhere there is nobody to ask, and no answer is a no. An
    /// answer may take its time: the lock is taken afterwards, and only what was named goes.
    pub fn ask(
        &self,
        what: &'static str,
        find: impl FnOnce() -> Result<BTreeSet<String>, Failure>,
    ) -> Result<Consent, Failure> {
        if self.force {
            return Ok(Consent::All);
        }
        let found = find()?;
        if found.is_empty() {
            return Ok(Consent::To(found));
        }
        let names = found.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let refused = || Failure::new(format!("the {what} {names} stay")).exit(Exit::Refused);
        if !terminal::is_interactive() {
            return Err(refused().hint("add `--force` to remove them without being asked"));
        }
        let mut stderr = std::io::stderr();
        write!(stderr, "Remove the {what} {names}? Type `yes`: ")?;
        stderr.flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if answer.trim() == "yes" { Ok(Consent::To(found)) } else { Err(refused()) }
    }
}

impl Consent {
    pub fn is_to(&self, name: &str) -> bool {
        match self {
            Consent::All => true,
            Consent::To(names) => names.contains(name),
        }
    }
}

/// One volume as `--json` shows it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    record: &'a VolumeRecord,
    /// Where its data is on this host.
    path: PathBuf,
    /// The containers that mount it.
    used_by: Vec<String>,
}

pub fn run(arguments: &VolumeArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    match &arguments.command {
        VolumeCommand::Ls(listing) => list(listing, context, output),
        VolumeCommand::Inspect { names, shape } => inspect(names, shape, context, output),
        VolumeCommand::Create { labels, name } => create(name, labels, context, output),
        VolumeCommand::Rm { names } => remove(names, context, output),
        VolumeCommand::Prune { all, consent } => prune(*all, consent, context, output),
    }
}

fn list(arguments: &Listing, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let (volumes, containers) = read(context, output)?;
    let rows = volumes.iter().map(|record| row(record, &containers, context));
    let rows: Vec<(Listed<'_>, Row<'_>)> = rows.map(|row| (listed(&row), row)).collect();
    let (listed, rows): (Vec<_>, Vec<_>) = rows.into_iter().filter(|(listed, _)| arguments.shows(listed)).unzip();
    listing::show(arguments, &listed, &rows, || table(&rows), output)
}

fn listed<'a>(row: &Row<'a>) -> Listed<'a> {
    Listed {
        id: row.record.full_name(),
        name: row.record.full_name(),
        driver: "local",
        mountpoint: row.path.display().to_string(),
        internal: false,
        labels: &row.record.spec.labels,
        is_used: !row.used_by.is_empty(),
    }
}

fn inspect(names: &[String], shape: &Shape, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let (volumes, containers) = read(context, output)?;
    let (found, unknown) = inspected(names, &volumes, &containers, context);
    shape.show(&found, output)?;
    conclude(unknown, output)
}

/// Beside what else may have such names.
pub fn sought(names: &[String], context: &Context, output: &Output) -> Result<Sought, Failure> {
    let (volumes, containers) = read(context, output)?;
    let (found, unknown) = inspected(names, &volumes, &containers, context);
    Ok((found.into_iter().map(Inspected::into_value).collect::<Result<_, _>>()?, unknown))
}

fn inspected<'a>(
    names: &[String],
    volumes: &'a [VolumeRecord],
    containers: &[ContainerRecord],
    context: &Context,
) -> (Vec<Inspected<Row<'a>>>, Vec<Failure>) {
    let (mut found, mut unknown) = (Vec::new(), Vec::new());
    for name in names {
        match one(volumes, name) {
            Ok(record) => {
                let document = row(record, containers, context);
                // As far as `docker volume inspect` means the same.
                let docker = json!({
                    "Name": record.full_name(),
                    "Driver": "local",
                    "Scope": "local",
                    "Mountpoint": document.path,
                    "Labels": record.spec.labels,
                    "Options": null,
                });
                found.push(Inspected { document, docker });
            }
            Err(failure) => unknown.push(failure),
        }
    }
    (found, unknown)
}

fn read(context: &Context, output: &Output) -> Result<(Vec<VolumeRecord>, Vec<ContainerRecord>), Failure> {
    let found = records::volumes(&context.paths)?;
    found.unreadable.iter().for_each(|record| output.warning(&record.to_string()));
    let mut volumes = found.records;
    volumes.sort_by(|a, b| a.key.cmp(&b.key));
    Ok((volumes, records::containers(&context.paths)?.records))
}

fn row<'a>(record: &'a VolumeRecord, containers: &[ContainerRecord], context: &Context) -> Row<'a> {
    Row { record, path: context.paths.volume_data(&record.key), used_by: users(record, containers, context) }
}

fn users(record: &VolumeRecord, containers: &[ContainerRecord], context: &Context) -> Vec<String> {
    let data = context.paths.volume_data(&record.key);
    let uses = |container: &&ContainerRecord| container.uses_volume(&record.key, &data);
    containers.iter().filter(uses).map(ContainerRecord::full_name).collect()
}

fn table(rows: &[Row<'_>]) -> String {
    let mut table = Table::new(&["NAME", "USED BY", "PATH"]);
    for row in rows {
        let used_by = if row.used_by.is_empty() { "-".to_owned() } else { row.used_by.join(", ") };
        table.row(vec![row.record.full_name(), used_by, row.path.display().to_string()]);
    }
    table.render()
}

fn create(name: &str, labels: &[String], context: &Context, output: &Output) -> Result<Exit, Failure> {
    let parsed: ResourceName =
        name.parse().map_err(|error| Failure::from(error).context(format!("`{name}` is not a name")))?;
    let labels = label_table(labels).into_iter();
    let labels = labels.filter_map(|(key, value)| Some((key, value.as_str()?.replace("$$", "$")))).collect();
    let key = VolumeKey { project: Whose::Nobody, name: parsed };
    let session = Session::open(context)?;
    let _lock = by_hand::lock(&session, output)?;
    if records::volumes(&context.paths)?.records.iter().any(|record| record.key == key) {
        return Err(Failure::new(format!("there is a volume `{name}` already")));
    }
    let record = VolumeRecord { version: RECORD_VERSION, key, spec: VolumeSpec { owner: None, labels } };
    session.host.perform(&Action::EnsureVolume { record }).map_err(Failure::engine)?;
    answer(&[name.to_owned()], output)
}

fn remove(names: &[String], context: &Context, output: &Output) -> Result<Exit, Failure> {
    let session = Session::open(context)?;
    let _lock = by_hand::lock(&session, output)?;
    let (volumes, containers) = read(context, output)?;
    // All or nothing: a list of which some cannot go was not meant so.
    let mut leaving = Vec::new();
    for name in names {
        let record = one(&volumes, name)?;
        if let Whose::Project(project) = &record.key.project {
            return Err(Failure::new(format!("volume `{name}` belongs to project {project}")).hint(format!(
                "take it out of the manifest, and `evenkeel apply --remove-volume {}`; \
                 `evenkeel down -p {project} --volumes` removes the whole project",
                record.key.name
            )));
        }
        if let Some(user) = users(record, &containers, context).first() {
            return Err(Failure::new(format!("container {user} uses volume `{name}`"))
                .hint(format!("`evenkeel rm {user}` removes it")));
        }
        leaving.push(record);
    }
    go(&leaving, &session, output)
}

fn prune(all: bool, arguments: &PruneArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let unused = || -> Result<Vec<VolumeRecord>, Failure> {
        let (mut volumes, containers) = read(context, output)?;
        volumes.retain(|record| {
            record.key.project == Whose::Nobody
                && (all || record.spec.is_anonymous())
                && users(record, &containers, context).is_empty()
        });
        Ok(volumes)
    };
    let session = Session::open(context)?;
    let consent = arguments.ask("volumes", || Ok(unused()?.iter().map(VolumeRecord::full_name).collect()))?;
    let _lock = by_hand::lock(&session, output)?;
    let unused = unused()?;
    let leaving: Vec<&VolumeRecord> = unused.iter().filter(|record| consent.is_to(&record.full_name())).collect();
    go(&leaving, &session, output)
}

fn go(leaving: &[&VolumeRecord], session: &Session, output: &Output) -> Result<Exit, Failure> {
    for record in leaving {
        let action = Action::RemoveVolume { key: record.key.clone() };
        session.host.perform(&action).map_err(Failure::engine)?;
    }
    answer(&leaving.iter().map(|record| record.full_name()).collect::<Vec<_>>(), output)
}

fn answer(names: &[String], output: &Output) -> Result<Exit, Failure> {
    match output.format() {
        Format::Json => output.document(&names)?,
        Format::Text => output.text(&names.iter().map(|name| format!("{name}\n")).collect::<String>())?,
    }
    Ok(Exit::Done)
}

fn one<'a>(volumes: &'a [VolumeRecord], word: &str) -> Result<&'a VolumeRecord, Failure> {
    volumes.iter().find(|record| record.full_name() == word).ok_or_else(|| {
        Failure::new(format!("there is no volume `{word}`"))
            .hint("`evenkeel volume ls` lists them; one of a project is PROJECT/NAME")
    })
}
