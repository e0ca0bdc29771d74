//! `evenkeel network`: the networks of this state root, and those that nobody declares.
//!
//! # Decisions
//! * A network of a project is its manifest's: it is shown here, and neither made nor removed.
//! * There is no `connect` and no `disconnect`: the networks of a container are part of what it is, and a change of them is
//!   another container. `run --network A --network B` puts it on several.
//! * What is made here stays until `rm` or `prune`. The network `default`, on which `run` puts what names none, comes and
//!   goes with its containers.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value as Json, json};
use toml::{Table as Toml, Value};

use super::apply::Session;
use super::by_hand;
use super::context::{Context, variable};
use super::documents::{Inspected, Shape, Sought};
use super::each::conclude;
use super::failure::{Exit, Failure};
use super::listing::{self, Listed, Listing};
use super::output::{Format, Output};
use super::run::declaration::{PROJECT, label_table, text};
use super::table::Table;
use super::volume::PruneArguments;
use crate::engine::{self, records};
use crate::manifest::{self, Source};
use crate::model::actual::Actual;
use crate::model::desired::Desired;
use crate::model::id::{ProjectName, ResourceName, Whose};
use crate::model::network::{DEFAULT, NetworkSpec, bridge_name};
use crate::model::record::{Addresses, ContainerRecord, NetworkRecord};
use crate::plan::Policy;

#[derive(Debug, Args)]
pub struct NetworkArguments {
    #[command(subcommand)]
    command: NetworkCommand,
}

#[derive(Debug, Subcommand)]
enum NetworkCommand {
    /// List networks: those of projects, and those that nobody declares
    #[command(visible_alias = "list")]
    Ls(Listing),
    /// Show everything that is known of networks, as JSON
    Inspect {
        /// NAME, PROJECT/NAME, or the id
        #[arg(value_name = "NETWORK", required = true)]
        names: Vec<String>,

        #[command(flatten)]
        shape: Shape,
    },
    /// Make a network for containers of `run`
    Create(CreateArguments),
    /// Remove networks that no container is on and nobody declares
    #[command(visible_alias = "remove")]
    Rm {
        /// NAME, or the id
        #[arg(value_name = "NETWORK", required = true)]
        names: Vec<String>,
    },
    /// Remove every network that no container is on and nobody declares
    Prune(PruneArguments),
}

#[derive(Debug, Args)]
struct CreateArguments {
    /// Its addresses, such as 10.89.7.0/24; an IPv6 subnet gives it IPv6 too [default: a free one]
    #[arg(long, value_name = "SUBNET")]
    subnet: Vec<String>,

    /// Without a way out of the host or in
    #[arg(long)]
    internal: bool,

    /// The largest packet of its links, in bytes
    #[arg(long, value_name = "NUMBER")]
    mtu: Option<i64>,

    /// A label
    #[arg(short, long = "label", value_name = "KEY[=VALUE]")]
    labels: Vec<String>,

    #[arg(value_name = "NETWORK")]
    name: String,
}

/// One network as `--json` shows it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    record: &'a NetworkRecord,
    bridge: String,
    /// Its containers, by their full names.
    containers: BTreeMap<String, Addresses>,
}

pub fn run(arguments: &NetworkArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    match &arguments.command {
        NetworkCommand::Ls(listing) => list(listing, context, output),
        NetworkCommand::Inspect { names, shape } => inspect(names, shape, context, output),
        NetworkCommand::Create(arguments) => create(arguments, context, output),
        NetworkCommand::Rm { names } => remove(names, context, output),
        NetworkCommand::Prune(arguments) => prune(arguments, context, output),
    }
}

fn list(arguments: &Listing, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let (records, containers) = read(context, output)?;
    let rows = records.iter().map(|record| row(record, &containers, context));
    let rows: Vec<(Listed<'_>, Row<'_>)> = rows.map(|row| (listed(&row), row)).collect();
    let (listed, rows): (Vec<_>, Vec<_>) = rows.into_iter().filter(|(listed, _)| arguments.shows(listed)).unzip();
    listing::show(arguments, &listed, &rows, || table(&rows), output)
}

fn listed<'a>(row: &Row<'a>) -> Listed<'a> {
    Listed {
        id: row.record.id.to_string(),
        name: row.record.full_name(),
        driver: "bridge",
        mountpoint: String::new(),
        internal: row.record.spec.internal,
        labels: &row.record.spec.labels,
        is_used: !row.containers.is_empty(),
    }
}

fn inspect(names: &[String], shape: &Shape, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let (records, containers) = read(context, output)?;
    let (found, unknown) = inspected(names, &records, &containers, context);
    shape.show(&found, output)?;
    conclude(unknown, output)
}

/// Beside what else may have such names.
pub fn sought(names: &[String], context: &Context, output: &Output) -> Result<Sought, Failure> {
    let (records, containers) = read(context, output)?;
    let (found, unknown) = inspected(names, &records, &containers, context);
    Ok((found.into_iter().map(Inspected::into_value).collect::<Result<_, _>>()?, unknown))
}

fn inspected<'a>(
    names: &[String],
    records: &'a [NetworkRecord],
    containers: &[ContainerRecord],
    context: &Context,
) -> (Vec<Inspected<Row<'a>>>, Vec<Failure>) {
    let records: Vec<&NetworkRecord> = records.iter().collect();
    let (mut found, mut unknown) = (Vec::new(), Vec::new());
    for name in names {
        match one(&records, name) {
            Ok(record) => found.push(Inspected {
                document: row(record, containers, context),
                docker: in_dockers_words(record, containers),
            }),
            Err(failure) => unknown.push(failure),
        }
    }
    (found, unknown)
}

/// As far as `docker network inspect` means the same.
fn in_dockers_words(record: &NetworkRecord, containers: &[ContainerRecord]) -> Json {
    let subnets = [Some(record.subnet), record.subnet6].into_iter().flatten();
    let here = containers.iter().filter_map(|container| {
        let addresses = container.addresses.get(&record.id)?;
        let six = addresses.v6.map(|address| address.to_string()).unwrap_or_default();
        let four = format!("{}/{}", addresses.v4, record.subnet.prefix());
        let shown = json!({ "Name": container.full_name(), "IPv4Address": four, "IPv6Address": six });
        Some((container.id.to_string(), shown))
    });
    json!({
        "Id": record.id,
        "Name": record.full_name(),
        "Driver": "bridge",
        "Scope": "local",
        "Internal": record.spec.internal,
        "EnableIPv6": record.subnet6.is_some(),
        "Labels": record.spec.labels,
        "IPAM": {
            "Config": subnets.map(|subnet| json!({ "Subnet": subnet, "Gateway": subnet.gateway() })).collect::<Vec<_>>(),
        },
        "Containers": here.collect::<serde_json::Map<_, _>>(),
    })
}

fn read(context: &Context, output: &Output) -> Result<(Vec<NetworkRecord>, Vec<ContainerRecord>), Failure> {
    let found = records::networks(&context.paths)?;
    found.unreadable.iter().for_each(|record| output.warning(&record.to_string()));
    let mut networks = found.records;
    networks.sort_by(|a, b| (&a.project, &a.name, &a.id).cmp(&(&b.project, &b.name, &b.id)));
    Ok((networks, records::containers(&context.paths)?.records))
}

fn row<'a>(record: &'a NetworkRecord, containers: &[ContainerRecord], context: &Context) -> Row<'a> {
    let addresses = |container: &ContainerRecord| Some((container.full_name(), *container.addresses.get(&record.id)?));
    Row {
        record,
        bridge: bridge_name(&engine::host::tag(&context.paths.root), &record.id),
        containers: containers.iter().filter_map(addresses).collect(),
    }
}

fn table(rows: &[Row<'_>]) -> String {
    let mut table = Table::new(&["NAME", "SUBNET", "CONTAINERS", "BRIDGE", "ID"]);
    for row in rows {
        let NetworkRecord { id, spec, subnet, subnet6, .. } = row.record;
        let six = subnet6.map(|subnet| format!(", {subnet}")).unwrap_or_default();
        let internal = if spec.internal { " internal" } else { "" };
        table.row(vec![
            row.record.full_name(),
            format!("{subnet}{six}{internal}"),
            row.containers.len().to_string(),
            row.bridge.clone(),
            id.to_string(),
        ]);
    }
    table.render()
}

fn create(arguments: &CreateArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let name: ResourceName = arguments
        .name
        .parse()
        .map_err(|error| Failure::from(error).context(format!("`{}` is not a name", arguments.name)))?;
    if name.as_str() == DEFAULT {
        return Err(
            Failure::usage("the network `default` comes and goes with its containers").hint("choose another name")
        );
    }
    let spec = declared(arguments, &name)?;
    let session = Session::open(context)?;
    let _lock = by_hand::lock(&session, output)?;
    let actual = by_hand::observe(&session.host)?;
    if own(&actual).any(|record| record.name == name) {
        return Err(Failure::new(format!("there is a network `{name}` already")));
    }
    let mut desired = Desired::empty(Whose::Nobody);
    desired.networks.insert(name.clone(), spec);
    by_hand::perform(&session, &desired, &actual, about([name.clone()]), output)?;
    let made = by_hand::observe(&session.host)?;
    let id = own(&made).find(|record| record.name == name).map(|record| record.id.clone());
    match output.format() {
        Format::Json => output.document(&serde_json::json!({ "name": name, "id": id }))?,
        Format::Text => output.text(&format!("{name}\n"))?,
    }
    Ok(Exit::Done)
}

/// The options as the manifest reads them.
fn declared(arguments: &CreateArguments, name: &ResourceName) -> Result<NetworkSpec, Failure> {
    let mut network = Toml::new();
    for subnet in &arguments.subnet {
        let key = if subnet.contains(':') { "subnet6" } else { "subnet" };
        if network.insert(key.to_owned(), text(subnet)).is_some() {
            return Err(Failure::usage("a network has one subnet of each kind: IPv4 and IPv6"));
        }
    }
    if arguments.internal {
        network.insert("internal".into(), Value::Boolean(true));
    }
    if let Some(mtu) = arguments.mtu {
        network.insert("mtu".into(), Value::Integer(mtu));
    }
    network.insert("labels".into(), Value::Table(label_table(&arguments.labels)));
    let networks = Toml::from_iter([(name.to_string(), Value::Table(network))]);
    let manifest =
        Toml::from_iter([("project".to_owned(), text(PROJECT)), ("networks".to_owned(), Value::Table(networks))]);
    let source = Source { path: "evenkeel network create".into(), text: toml::to_string(&manifest)? };
    let mut desired = manifest::load_text(source, &variable).map_err(Failure::problems)?.desired;
    desired.networks.remove(name).ok_or_else(|| Failure::new("the options say nothing"))
}

fn remove(names: &[String], context: &Context, output: &Output) -> Result<Exit, Failure> {
    let session = Session::open(context)?;
    let _lock = by_hand::lock(&session, output)?;
    let actual = by_hand::observe(&session.host)?;
    let records: Vec<&NetworkRecord> = actual.networks.values().map(|network| &network.record).collect();
    // All or nothing: a list of which some cannot go was not meant so.
    let mut leaving = BTreeSet::new();
    for name in names {
        let record = one(&records, name)?;
        if let Whose::Project(project) = &record.project {
            return Err(Failure::new(format!("network `{}` belongs to project {project}", record.full_name()))
                .hint("take it out of the manifest, and `evenkeel apply`"));
        }
        if let Some(guest) = guest(record, &actual) {
            return Err(Failure::new(format!("container {guest} is on network `{name}`"))
                .hint(format!("`evenkeel rm {guest}` removes it")));
        }
        leaving.insert(record.name.clone());
    }
    go(leaving, &session, &actual, output)
}

fn prune(arguments: &PruneArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let session = Session::open(context)?;
    let consent = arguments.ask("networks", || {
        let actual = by_hand::observe(&session.host)?;
        Ok(unused(&actual).map(|record| record.name.to_string()).collect())
    })?;
    let _lock = by_hand::lock(&session, output)?;
    let actual = by_hand::observe(&session.host)?;
    let leaving = unused(&actual).filter(|record| consent.is_to(record.name.as_str()));
    let leaving: BTreeSet<ResourceName> = leaving.map(|record| record.name.clone()).collect();
    go(leaving, &session, &actual, output)
}

fn unused(actual: &Actual) -> impl Iterator<Item = &NetworkRecord> {
    own(actual).filter(|record| guest(record, actual).is_none())
}

/// These networks go, by a plan that is about them alone.
fn go(leaving: BTreeSet<ResourceName>, session: &Session, actual: &Actual, output: &Output) -> Result<Exit, Failure> {
    if !leaving.is_empty() {
        let desired = Desired::empty(Whose::Nobody);
        by_hand::perform(session, &desired, actual, about(leaving.clone()), output)?;
    }
    match output.format() {
        Format::Json => output.document(&leaving)?,
        Format::Text => output.text(&leaving.iter().map(|name| format!("{name}\n")).collect::<String>())?,
    }
    Ok(Exit::Done)
}

fn about(networks: impl IntoIterator<Item = ResourceName>) -> Policy {
    Policy { networks: networks.into_iter().collect(), ..Policy::default() }
}

/// Those that nobody declares.
fn own(actual: &Actual) -> impl Iterator<Item = &NetworkRecord> {
    actual.networks.values().map(|network| &network.record).filter(|record| record.project == Whose::Nobody)
}

/// A container that is on it.
fn guest(record: &NetworkRecord, actual: &Actual) -> Option<String> {
    let mut containers = actual.containers.values().map(|container| &container.record);
    containers.find(|container| container.addresses.contains_key(&record.id)).map(ContainerRecord::full_name)
}

/// The network that `word` means: one that nobody declares, `PROJECT/NETWORK`, an id, or a name that one project has.
pub fn one<'a>(records: &[&'a NetworkRecord], word: &str) -> Result<&'a NetworkRecord, Failure> {
    let (project, name) = word.split_once('/').map_or((None, word), |(project, name)| (Some(project), name));
    let matches = |record: &&&NetworkRecord| {
        record.name.as_str() == name
            && project.is_none_or(|project| record.project.project().map(ProjectName::as_str) == Some(project))
    };
    let named: Vec<&NetworkRecord> = records.iter().filter(matches).copied().collect();
    let by_hand = named.iter().find(|record| record.project == Whose::Nobody);
    let by_id = records.iter().find(|record| record.id.as_str() == word);
    match (by_hand.or(by_id), named.as_slice()) {
        (Some(record), _) | (None, [record]) => Ok(record),
        (None, []) => {
            let names = records.iter().map(|record| record.full_name()).filter(|name| name != DEFAULT);
            let names: Vec<String> = names.collect();
            let hint = match names.is_empty() {
                true => "`evenkeel network create` makes one; `default`, `none` and `host` are always there".to_owned(),
                false => format!("there are default, none, host, {}", names.join(", ")),
            };
            Err(Failure::new(format!("there is no network `{word}`")).hint(hint))
        }
        (None, several) => {
            let names: Vec<String> = several.iter().map(|record| record.full_name()).collect();
            Err(Failure::new(format!("`{word}` means several networks: {}", names.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record::RECORD_VERSION;

    fn record(project: Whose, name: &str, id: &str) -> NetworkRecord {
        NetworkRecord {
            version: RECORD_VERSION,
            id: id.parse().unwrap(),
            project,
            name: name.parse().unwrap(),
            spec: NetworkSpec::default(),
            subnet: "10.89.0.0/24".parse().unwrap(),
            subnet6: None,
        }
    }

    #[test]
    fn a_name_means_what_was_made_by_hand_before_what_a_project_has() {
        let project = |name: &str| Whose::Project(name.parse().unwrap());
        let records = [
            record(Whose::Nobody, "front", "00000001"),
            record(project("shop"), "front", "00000002"),
            record(project("shop"), "back", "00000003"),
            record(project("blog"), "back", "00000004"),
            record(project("blog"), "side", "00000005"),
        ];
        let records: Vec<&NetworkRecord> = records.iter().collect();
        let id = |word: &str| one(&records, word).map(|record| record.id.to_string()).ok();
        assert_eq!(id("front").as_deref(), Some("00000001"));
        assert_eq!(id("shop/front").as_deref(), Some("00000002"));
        assert_eq!(id("side").as_deref(), Some("00000005"));
        assert_eq!(id("00000004").as_deref(), Some("00000004"));
        assert_eq!((id("back"), id("nope"), id("blog/front")), (None, None, None));
    }
}
