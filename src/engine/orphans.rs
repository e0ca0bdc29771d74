//! What this root has on the host though no record that can be read names it: found, and removed.
//!
//! Places and names that are the root's own say whose a thing is: its run directory, its parent cgroup, its link prefix.
//!
//! # Decisions
//! A record that was removed by hand cannot be brought back from what runs: what is declared is made anew, and what is
//! left of the old one goes. It goes as gently as any container, by its stop sequence, as long as its monitor hears. What
//! it wrote may be all that there is of something: its files go to the trash, as a volume does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::container::oci::cgroup_parent;
use super::container::{lifecycle, stray};
use super::error::EngineError;
use super::host::{Host, network_error};
use super::records::{self, Records};
use super::storage::volume;
use super::{files, network};
use crate::model::id::{ContainerId, NetworkId};
use crate::model::network::{bridge_name, link_prefix, veth_name};
use crate::model::orphan::{Orphan, Owner, Remains};
use crate::model::paths::run;
use crate::model::unreadable::{Cause, Object};
use crate::monitor;
use crate::runtime::cgroup;

/// How long the stop sequence of a container may take whose record, and so its own grace period, is gone.
const STRAY_PATIENCE: Duration = Duration::from_secs(20);

/// `links` are the host's that have the root's prefix. All of this was looked at after `records` were read; what has
/// got its record since then is no orphan.
pub(super) fn observe(
    host: &Host,
    records: &Records,
    links: &BTreeSet<String>,
) -> Result<BTreeSet<Orphan>, EngineError> {
    let mut orphans = BTreeSet::new();
    for (id, remains) in containers(host, records)? {
        let owner = owner(host, &id);
        orphans.insert(Orphan::Container { id, owner, remains: remains.into_iter().collect() });
    }
    let prefix = link_prefix(&host.tag);
    for id in damaged_networks(records) {
        orphans.insert(Orphan::Bridge { network: id.clone() });
    }
    for name in unnamed_links(host, records, links) {
        let network = name.strip_prefix(&prefix).and_then(|rest| rest.strip_prefix('b')?.parse::<NetworkId>().ok());
        match network {
            // One that cannot be read for now has a record all the same.
            Some(network) if !is_none(records::network(&host.paths, &network)) => {}
            Some(network) => drop(orphans.insert(Orphan::Bridge { network })),
            None => drop(orphans.insert(Orphan::Link { name: name.clone() })),
        }
    }
    // A container that came to be since the records were read may have got its links.
    if orphans.iter().any(|orphan| matches!(orphan, Orphan::Link { .. })) {
        let found = records::containers(&host.paths)?;
        let named = names_of_pairs(host, &found.records);
        // What another version's record names is not known here.
        let is_known = found.unreadable.iter().all(|record| record.cause == Cause::Damaged);
        orphans.retain(|orphan| !matches!(orphan, Orphan::Link { name } if !is_known || named.contains(name)));
    }
    Ok(orphans)
}

fn damaged_networks(records: &Records) -> impl Iterator<Item = &NetworkId> {
    let damaged = records.unreadable.iter().filter(|record| record.cause == Cause::Damaged);
    damaged.filter_map(|record| match &record.object {
        Object::Network(id) => Some(id),
        Object::Container(_) | Object::Volume(_) => None,
    })
}

/// Whether there is no record, or one that is damaged. The others that cannot be read are told of, not given up.
fn is_none<T>(record: Result<Option<T>, EngineError>) -> bool {
    matches!(records::unless_damaged(record), Ok(None))
}

/// What is on the host of containers that have no record.
fn containers(host: &Host, records: &Records) -> Result<BTreeMap<ContainerId, BTreeSet<Remains>>, EngineError> {
    let failed = |source| EngineError::Cgroups { source: Box::new(source) };
    let groups = cgroup::open(&host.hierarchy, &cgroup_parent(&host.tag)).children().map_err(failed)?;
    let mut found: BTreeMap<ContainerId, BTreeSet<Remains>> = BTreeMap::new();
    let names = |directory| -> Result<Vec<String>, EngineError> {
        let objects = files::objects(directory)?;
        Ok(objects.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    };
    let places = [
        (Remains::RunDirectory, names(&host.paths.containers_run())?),
        (Remains::NetworkNamespace, names(&host.paths.netns_directory())?),
        (Remains::ControlGroup, groups.into_iter().collect()),
        (Remains::Files, names(&host.paths.containers())?),
    ];
    for (remains, names) in places {
        let ids = names.iter().filter_map(|name| name.parse::<ContainerId>().ok());
        for id in ids.filter(|id| !records.containers.contains_key(id)) {
            found.entry(id).or_default().insert(remains);
        }
    }
    // Of those whose record cannot be read for now nothing is known here.
    found.retain(|id, _| is_none(records::container(&host.paths, id)));
    for (id, remains) in &mut found {
        // Where that cannot be told, it is told of as one that is: removing it looks again, and says why it cannot.
        if is_monitored(host, id).unwrap_or(true) {
            remains.insert(Remains::Monitor);
        }
    }
    Ok(found)
}

/// Its lock alone says so: what its status says, another version may have written, or nobody can read.
fn is_monitored(host: &Host, id: &ContainerId) -> Result<bool, EngineError> {
    let directory = host.paths.container_run(id);
    let is_held = monitor::lock::is_held(&directory).map_err(failed("look at", id))?;
    Ok(is_held || !stray::monitors(&directory)?.is_empty())
}

/// As the launch file says. One that cannot be read says nothing.
fn owner(host: &Host, id: &ContainerId) -> Option<Owner> {
    /// The rest of it may be of another version.
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let launch: Option<Named> = files::read_json(&host.paths.container_run(id).join(run::LAUNCH)).ok()?;
    let name = launch?.name;
    let (project, instance) = name.split_once('/')?;
    Some(Owner { project: project.parse().ok()?, instance: instance.parse().ok()? })
}

fn unnamed_links<'a>(
    host: &Host,
    records: &Records,
    links: &'a BTreeSet<String>,
) -> impl Iterator<Item = &'a String> + use<'a> {
    let mut named = names_of_pairs(host, records.containers.values());
    named.extend(records.networks.keys().map(|network| bridge_name(&host.tag, network)));
    links.iter().filter(move |name| !named.contains(*name))
}

fn names_of_pairs<'a>(
    host: &Host,
    containers: impl IntoIterator<Item = &'a crate::model::record::ContainerRecord>,
) -> BTreeSet<String> {
    let containers = containers.into_iter();
    containers.flat_map(|record| record.addresses.keys().map(|id| veth_name(&host.tag, &record.id, id))).collect()
}

/// Nothing of it is left.
pub(super) fn remove(host: &Host, orphan: &Orphan) -> Result<(), EngineError> {
    match orphan {
        Orphan::Container { id, owner, remains: _ } => {
            let name = owner.as_ref().map_or_else(|| id.to_string(), |o| format!("{}/{}", o.project, o.instance));
            remove_container(host, id, &name)
        }
        Orphan::Bridge { network } => host.remove_network(network),
        Orphan::Link { name } => {
            let removed = host.links.remove(name).map(drop);
            removed.map_err(network_error("remove", format!("the link `{name}`")))
        }
    }
}

fn remove_container(host: &Host, id: &ContainerId, name: &str) -> Result<(), EngineError> {
    if records::unless_damaged(records::container(&host.paths, id))?.is_some() {
        return Err(EngineError::HasRecord(id.clone()));
    }
    if is_monitored(host, id)? {
        let directory = host.paths.container_run(id);
        monitor::client::stop_if_running(&directory, None, None, host.teller.who()).map_err(failed("stop", id))?;
        stray::end(&directory, STRAY_PATIENCE)?;
    }
    lifecycle::remove_cgroup(&host.surroundings(), &host.hierarchy, id, name)?;
    network::netns::remove(&host.paths.netns(id))
        .map_err(network_error("disconnect", format!("container `{name}`")))?;
    lifecycle::remove_run_directory(&host.paths, id)?;
    volume::discard(&host.paths, &host.paths.container(id), &format!("container.{id}"), SystemTime::now())
}

fn failed(operation: &'static str, id: &ContainerId) -> impl Fn(monitor::MonitorError) -> EngineError {
    let name = id.to_string();
    move |source| EngineError::Monitor { operation, name: name.clone(), source: Box::new(source) }
}
