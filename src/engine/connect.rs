//! A container's network: its namespace, and a pair of links for each network that its record names.

use std::fs::File;
use std::io::ErrorKind;

use super::error::{At, EngineError};
use super::host::{Host, network_error};
use super::network::attach::Done;
use super::network::attachment::Attachment;
use super::{network, records};
use crate::model::actual::Drift;
use crate::model::event::Kind;
use crate::model::id::NetworkId;
use crate::model::network::{NetworkMode, bridge_name, veth_name};
use crate::model::paths::run;
use crate::model::record::ContainerRecord;

/// Whether the container has a network namespace of its own.
pub(super) fn has_namespace(record: &ContainerRecord) -> bool {
    match record.spec.network {
        NetworkMode::None | NetworkMode::Networks(_) => true,
        NetworkMode::Host | NetworkMode::Container(_) => false,
    }
}

/// Namespace, links, addresses and routes are there. Repairs what is missing, keeps what is right.
pub(super) fn connect(host: &Host, record: &ContainerRecord) -> Result<(), EngineError> {
    if !has_namespace(record) {
        return Ok(());
    }
    let failed = || network_error("connect", format!("container `{}`", record.full_name()));
    let namespace = host.paths.netns(&record.id);
    let networks = records::networks_of(&host.paths, record)?;
    let is_there = |id: &&NetworkId| networks.iter().any(|network| network.id == **id);
    if let Some(id) = record.addresses.keys().find(|id| !is_there(id)) {
        return Err(EngineError::NoNetwork(id.clone()));
    }
    network::netns::ensure(&namespace).map_err(failed())?;
    for attachment in Attachment::all_of(&host.tag, record, &networks) {
        let done = host.links.ensure_attachment(&attachment, &namespace).map_err(failed())?;
        let Some(network) = networks.iter().find(|network| bridge_name(&host.tag, &network.id) == attachment.bridge)
        else {
            continue;
        };
        match done {
            Done::Nothing => {}
            Done::Made => host.teller.tell(&host.teller.of_network("connect", network).with("container", &record.id)),
            Done::Repaired => {
                host.teller.tell(&host.teller.of_container("repair", record).with("network", network.full_name()))
            }
        }
    }
    Ok(())
}

/// Of one that was started, until somebody has seen to what follows from its networks.
pub(super) fn mark_behind(host: &Host, record: &ContainerRecord) -> Result<(), EngineError> {
    let mark = host.paths.container_run(&record.id).join(run::BEHIND);
    match File::options().create(true).append(true).open(&mark) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).at("create", mark),
        _ => Ok(()),
    }
}

/// What there is to say of that.
pub(super) fn behind(host: &Host, record: &ContainerRecord) -> Option<Drift> {
    host.paths.container_run(&record.id).join(run::BEHIND).exists().then(|| Drift {
        object: "its hosts file and resolver".to_owned(),
        found: "as its networks were".to_owned(),
        wanted: "as they are".to_owned(),
    })
}

/// Namespace and links are gone.
pub(super) fn disconnect(host: &Host, record: &ContainerRecord) -> Result<(), EngineError> {
    if !has_namespace(record) {
        return Ok(());
    }
    let failed = || network_error("disconnect", format!("container `{}`", record.full_name()));
    // The links go with the namespace, but not before its last socket is closed; the next container with this
    // address should not meet them.
    leave(host, record, record.addresses.keys())?;
    network::netns::remove(&host.paths.netns(&record.id)).map_err(failed())
}

/// Leaves the networks that `old` is on and `new` is not.
pub(super) fn leave_networks(host: &Host, old: &ContainerRecord, new: &ContainerRecord) -> Result<(), EngineError> {
    leave(host, old, old.addresses.keys().filter(|id| !new.addresses.contains_key(id)))
}

/// The pair that leads to each network is gone. Its name follows from the identifiers, so the network's own record may
/// be gone too.
fn leave<'a>(
    host: &Host,
    record: &ContainerRecord,
    mut networks: impl Iterator<Item = &'a NetworkId>,
) -> Result<(), EngineError> {
    networks.try_for_each(|network| {
        let subject = format!("container `{}`", record.full_name());
        let link = veth_name(&host.tag, &record.id, network);
        if host.links.remove(&link).map_err(network_error("disconnect", subject))? {
            let event = match records::network(&host.paths, network) {
                Ok(Some(network)) => host.teller.of_network("disconnect", &network),
                Ok(None) | Err(_) => host.teller.event(Kind::Network, "disconnect", network),
            };
            host.teller.tell(&event.with("container", &record.id));
        }
        Ok(())
    })
}
