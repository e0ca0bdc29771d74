//! `evenkeel inspect`: everything that is known of containers, as JSON or as a template says.

mod docker;
mod host_config;

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::documents::{Inspected, Shape};
use super::each::{Chosen, choose, conclude};
use super::failure::{Exit, Failure};
use super::inventory::Inventory;
use super::output::Output;
use super::ps::{self, Row};
use crate::engine::image::store::Store;
use crate::engine::{self, records};
use crate::model::actual::Liveness;
use crate::model::id::{NetworkId, ResourceName};
use crate::model::image::Image;
use crate::model::network::{Subnet, bridge_name, veth_name};
use crate::model::record::{Addresses, ContainerRecord};

#[derive(Debug, Args)]
pub struct InspectArguments {
    /// NAME, NAME.REPLICA, PROJECT/NAME or the beginning of an id
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,

    #[command(flatten)]
    shape: Shape,
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
    let Chosen { records, unknown } = choose(&inventory, &arguments.names, context)?;
    let documents =
        records.iter().map(|record| document(record, &inventory, context)).collect::<Result<Vec<_>, Failure>>()?;
    arguments.shape.show(&documents, output)?;
    conclude(unknown.into_iter().map(Failure::from).collect(), output)
}

fn document<'a>(
    record: &'a ContainerRecord,
    inventory: &Inventory,
    context: &Context,
) -> Result<Inspected<Document<'a>>, Failure> {
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
    });
    let document = Document {
        row: ps::row(record, liveness, created, SystemTime::now()),
        health_log: health_log(liveness),
        networks,
        image_on_host: store.find(&record.spec.image)?,
        places,
        record,
    };
    Ok(Inspected { document, docker })
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
