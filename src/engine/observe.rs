//! The whole host as [`Actual`]: records first, then what the kernel and the monitors say about each.
//!
//! A converged host is looked at every few seconds, so this is the hot path: no process is started, no image is
//! opened beyond its record, and every kernel table is read once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::container::{lifecycle, oci};
use super::error::EngineError;
use super::host::{Host, network_error};
use super::network::attachment::Attachment;
use super::network::observe::Connected;
use super::records::{self, Records};
use super::storage::volume;
use super::{Scope, connect, image, network, orphans};
use crate::model::actual::{Actual, ActualContainer, ActualImage, ActualNetwork, ActualVolume, HostFacts, Liveness};
use crate::model::id::{ContainerId, Digest};
use crate::model::image::{ImageSource, Pull};
use crate::model::record::ContainerRecord;
use crate::model::resources::Resources;
use crate::model::status::Phase;
use crate::monitor::protocol::chain;
use crate::runtime::cgroup;

/// Containers that are looked at by one thread.
const PER_THREAD: usize = 50;

pub(super) fn observe(host: &Host, scope: &Scope) -> Result<Actual, EngineError> {
    let records = records::read_all(&host.paths)?;
    let mut containers = look_at_containers(host, &records)?;
    let look = |subject: &str| network_error("look at", subject.to_owned());

    let connected: Vec<Connected> = containers
        .values()
        .filter(|container| connect::has_namespace(&container.record) && is_up(&container.liveness))
        .map(|container| connected(host, &container.record, &records))
        .collect();
    let mut drift =
        network::observe::observe(&host.tag, records.networks.values(), &connected).map_err(look("the networks"))?;
    for (id, drift) in drift.containers {
        if let Some(container) = containers.get_mut(&id) {
            container.network_drift = drift;
        }
    }
    let mut networks = BTreeMap::new();
    for (id, record) in records.networks.clone() {
        let names = network::names::read(&host.paths.names(&id)).map_err(look("the names"))?;
        let drift = drift.networks.remove(&id).unwrap_or_default();
        networks.insert(id, ActualNetwork { record, drift, names });
    }
    let orphans = orphans::observe(host, &records, &drift.own_links)?;
    Ok(Actual {
        host: facts(host)?,
        images: images(host, scope, &records)?,
        networks,
        volumes: volumes(host, &records),
        containers,
        firewall: network::firewall::observe(&host.tag).map_err(look("the firewall"))?,
        orphans,
        unreadable: records.unreadable,
    })
}

fn facts(host: &Host) -> Result<HostFacts, EngineError> {
    let failed = || network_error("look at", "the host's network".into());
    Ok(HostFacts {
        routes: network::host::host_routes(&host.tag).map_err(failed())?,
        listening: network::host::listening_ports().map_err(failed())?,
        forward_drops: network::host::forward_drops().map_err(failed())?,
        ..host.facts.clone()
    })
}

fn volumes(host: &Host, records: &Records) -> BTreeMap<crate::model::id::VolumeKey, ActualVolume> {
    let volumes = records.volumes.iter().map(|(key, record)| {
        let drift = volume::drift(&host.paths, record);
        (key.clone(), ActualVolume { record: record.clone(), drift })
    });
    volumes.collect()
}

/// Sources of the scope, as it says; those of records only from what is on this host. A registry that cannot be asked
/// keeps nobody from looking at the rest: what is on this host goes on, and the plan says what is not known.
fn images(host: &Host, scope: &Scope, records: &Records) -> Result<BTreeMap<ImageSource, ActualImage>, EngineError> {
    let recorded = records.containers.values().map(|record| (&record.spec.image, &Pull::Never));
    let sources: BTreeMap<&ImageSource, &Pull> = recorded.chain(&scope.images).collect();
    let mut images = BTreeMap::new();
    for (source, pull) in sources {
        let failed = |error| EngineError::Image { source_name: source.to_string(), source: Box::new(error) };
        let found = match image::observe(&host.store, source, *pull, &host.images) {
            Err(error) if *pull == Pull::Always => {
                let image = host.store.find(source).map_err(failed)?;
                ActualImage { image, moved: None, unasked: Some(chain(&error)) }
            }
            found => found.map_err(failed)?,
        };
        images.insert(source.clone(), found);
    }
    Ok(images)
}

fn look_at_containers(host: &Host, records: &Records) -> Result<BTreeMap<ContainerId, ActualContainer>, EngineError> {
    let missing = missing_images(host, records)?;
    let all: Vec<&ContainerRecord> = records.containers.values().collect();
    let look = |record: &&ContainerRecord| look_at(host, record, &missing);
    let looked: Vec<Result<ActualContainer, EngineError>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            all.chunks(PER_THREAD).map(|some| scope.spawn(move || some.iter().map(look).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    looked.into_iter().map(|container| container.map(|c| (c.record.id.clone(), c))).collect()
}

/// Images that containers were made of and that are not whole any more.
fn missing_images(host: &Host, records: &Records) -> Result<BTreeSet<Digest>, EngineError> {
    let used: BTreeSet<&Digest> = records.containers.values().filter_map(|record| record.image.as_ref()).collect();
    let mut missing = BTreeSet::new();
    for id in used {
        let found = host
            .store
            .find_by_id(id)
            .map_err(|error| EngineError::Image { source_name: id.to_string(), source: Box::new(error) })?;
        if found.is_none() {
            missing.insert(id.clone());
        }
    }
    Ok(missing)
}

fn look_at(host: &Host, record: &ContainerRecord, missing: &BTreeSet<Digest>) -> Result<ActualContainer, EngineError> {
    let liveness = lifecycle::liveness(&host.surroundings(), &host.hierarchy, record)?;
    let limits = match runs(&liveness) {
        true => Some(limits(host, record)?),
        false => None,
    };
    let broken = broken(&host.paths.container(&record.id), record, missing);
    Ok(ActualContainer { record: record.clone(), liveness, network_drift: Vec::new(), limits, broken })
}

/// The limits in force. Those that the kernel shows as declared, its rounding allowed for, are given as declared.
fn limits(host: &Host, record: &ContainerRecord) -> Result<Resources, EngineError> {
    let group = cgroup::open(&host.hierarchy, &oci::cgroup_path(&host.tag, &record.id));
    let found = group.observe().map_err(|source| EngineError::Monitor {
        operation: "read the limits of",
        name: record.full_name(),
        source: Box::new(source),
    })?;
    let declared = &record.spec.resources;
    Ok(if found == cgroup::observable(&host.hierarchy, declared) { declared.clone() } else { found })
}

fn broken(directory: &Path, record: &ContainerRecord, missing: &BTreeSet<Digest>) -> Option<String> {
    match &record.image {
        None => return Some("its image was never filled in".into()),
        Some(id) if missing.contains(id) => return Some(format!("its image {} is gone", id.short())),
        Some(_) => {}
    }
    let lacking = ["upper", "work"].into_iter().find(|name| !directory.join(name).is_dir())?;
    Some(format!("its directory `{lacking}` is gone"))
}

fn connected(host: &Host, record: &ContainerRecord, records: &Records) -> Connected {
    Connected {
        container: record.id.clone(),
        namespace: host.paths.netns(&record.id),
        attachments: Attachment::all_of(&host.tag, record, records.networks.values()),
    }
}

/// Whether a monitor runs it, so that its network must be there.
fn is_up(liveness: &Liveness) -> bool {
    matches!(liveness, Liveness::Monitored(_))
}

/// Whether it has a cgroup with processes.
fn runs(liveness: &Liveness) -> bool {
    matches!(liveness, Liveness::Monitored(status) if matches!(status.phase, Phase::Running | Phase::Paused))
}
