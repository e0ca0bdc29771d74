//! `evenkeel inspect`: everything that is known of containers, as JSON or as a template says; and of images, networks and
//! volumes, where no container has such a name.

mod docker;
mod host_config;

use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use super::context::Context;
use super::documents::{Inspected, Shape};
use super::each::{Chosen, Unmet, choose, conclude};
use super::failure::{Exit, Failure};
use super::inventory::Inventory;
use super::output::Output;
use super::ps::{self, Row};
use super::{image, network, volume};
use crate::engine::image::store::Store;
use crate::engine::{self, records};
use crate::model::actual::Liveness;
use crate::model::id::{NetworkId, ResourceName};
use crate::model::image::Image;
use crate::model::network::{Subnet, bridge_name, veth_name};
use crate::model::record::{Addresses, ContainerRecord};

#[derive(Debug, Args)]
pub struct InspectArguments {
    /// NAME, NAME.REPLICA, PROJECT/NAME or the beginning of an id; or an image, a network or a volume
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,

    /// Only of this kind [default: the first of them that has such a name]
    #[arg(long = "type", value_name = "KIND")]
    kind: Option<Kind>,

    /// With the bytes that each container has written beside its image and its volumes
    #[arg(short, long)]
    size: bool,

    #[command(flatten)]
    shape: Shape,
}

/// What has a name, in the order in which it is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

/// A container as it is, or something else.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Found<'a> {
    Container(Box<Document<'a>>),
    Other(Value),
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    row: Row<'a>,
    /// The last answers of the health check, newest last.
    health_log: Vec<Probe>,
    networks: Vec<Attachment>,
    /// As the host has it now; the container keeps the one that it was made of, `image_id`.
    image_on_host: Option<Image>,
    places: Places,
    /// The applied specification, whole.
    record: &'a ContainerRecord,
}

#[derive(Debug, Serialize)]
struct Probe {
    at: String,
    healthy: bool,
    output: String,
}

#[derive(Debug, Serialize)]
struct Attachment {
    network: NetworkId,
    name: Option<ResourceName>,
    subnet: Option<Subnet>,
    #[serde(flatten)]
    addresses: Addresses,
    bridge: String,
    host_link: String,
}

/// Where to look further.
#[derive(Debug, Serialize)]
struct Places {
    directory: PathBuf,
    run_directory: PathBuf,
    logs: PathBuf,
    network_namespace: PathBuf,
    cgroup: PathBuf,
}

pub fn run(arguments: &InspectArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let inventory = Inventory::read(context.paths.clone())?;
    let (mut meant, mut unknown) = (Vec::new(), Vec::new());
    for name in &arguments.names {
        let (found, failure) = sought(name, arguments.kind, &inventory, context, output)?;
        meant.extend(found);
        unknown.extend(failure);
    }
    let mut documents = Vec::new();
    for one in &meant {
        documents.push(match one {
            Meant::Container(record) => {
                let size = arguments.size.then(|| inventory.written(record)).transpose();
                let cannot = || format!("cannot look at the files of `{}`", record.full_name());
                document(record, size.map_err(|error| Failure::from(error).context(cannot()))?, &inventory, context)?
            }
            Meant::Other(Inspected { document, docker }) => {
                Inspected { document: Found::Other(document.clone()), docker: docker.clone() }
            }
        });
    }
    arguments.shape.show(&documents, output)?;
    conclude(unknown, output)
}

/// What a name means.
enum Meant {
    Container(Box<ContainerRecord>),
    Other(Inspected<Value>),
}

/// All that has this name, of the first kind of which something has it; or why none has.
fn sought(
    name: &String,
    kind: Option<Kind>,
    inventory: &Inventory,
    context: &Context,
    output: &Output,
) -> Result<(Vec<Meant>, Option<Failure>), Failure> {
    let names = std::slice::from_ref(name);
    let mut missing = None;
    for kind in Kind::value_variants().iter().filter(|known| kind.is_none_or(|kind| kind == **known)) {
        let (found, mut failures): (Vec<Inspected<Value>>, Vec<Failure>) = match kind {
            Kind::Container => match choose(inventory, names, context)? {
                Chosen { records, unknown } if unknown.is_empty() => {
                    return Ok((records.into_iter().map(|record| Meant::Container(Box::new(record))).collect(), None));
                }
                Chosen { unknown, .. } => match unknown.into_iter().next() {
                    Some(Unmet::Failed(failure)) => return Ok((Vec::new(), Some(failure))),
                    unmet => (Vec::new(), unmet.into_iter().map(Failure::from).collect()),
                },
            },
            Kind::Image => image::inspect::sought(names, context)?,
            Kind::Network => network::sought(names, context, output)?,
            Kind::Volume => volume::sought(names, context, output)?,
        };
        if !found.is_empty() {
            return Ok((found.into_iter().map(Meant::Other).collect(), None));
        }
        missing = missing.or(failures.pop());
    }
    Ok((Vec::new(), missing))
}

fn document<'a>(
    record: &'a ContainerRecord,
    size: Option<u64>,
    inventory: &Inventory,
    context: &Context,
) -> Result<Inspected<Found<'a>>, Failure> {
    let liveness = &inventory.liveness(record)?;
    let paths = &context.paths;
    let tag = engine::host::tag(&paths.root);
    let mut networks = Vec::new();
    for (id, addresses) in &record.addresses {
        // Of a network whose record cannot be read, `plan` tells; here its name and subnet are not known.
        let network = records::network(paths, id).unwrap_or(None);
        networks.push(Attachment {
            network: id.clone(),
            name: network.as_ref().map(|network| network.name.clone()),
            subnet: network.map(|network| network.subnet),
            addresses: *addresses,
            bridge: bridge_name(&tag, id),
            host_link: veth_name(&tag, &record.id, id),
        });
    }
    let places = Places {
        directory: paths.container(&record.id),
        run_directory: paths.container_run(&record.id),
        logs: paths.container_logs(&record.id),
        network_namespace: paths.netns(&record.id),
        cgroup: engine::cgroup_path(&tag, &record.id),
    };
    let store = Store::new(&paths.root);
    let created = inventory.created(record);
    let image = record.image.as_ref().map(|id| store.known(id)).transpose()?.flatten();
    let docker = docker::document(&docker::Known {
        record,
        liveness,
        created,
        config: &image.map(|image| image.config).unwrap_or_default(),
        networks: &networks,
        places: &places,
        paths,
        size,
    });
    let document = Document {
        row: Row { size_bytes: size, ..ps::row(record, liveness, created, SystemTime::now()) },
        health_log: health_log(liveness),
        networks,
        image_on_host: store.find(&record.spec.image)?,
        places,
        record,
    };
    Ok(Inspected { document: Found::Container(Box::new(document)), docker })
}

fn health_log(liveness: &Liveness) -> Vec<Probe> {
    let status = match liveness {
        Liveness::Monitored(status) | Liveness::Ended(status) | Liveness::Lost(Some(status)) => status,
        Liveness::Absent | Liveness::Lost(None) => return Vec::new(),
    };
    let log = status.health.iter().flat_map(|health| &health.log);
    log.map(|probe| Probe { at: ps::timestamp(probe.at), healthy: probe.healthy, output: probe.output.clone() })
        .collect()
}
