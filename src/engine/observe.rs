//! The whole host as [`Actual`]: records first, then what the kernel and the monitors say about each.
//!
//! A converged host is looked at every few seconds, so this is the hot path: no process is started, no image is
//! opened beyond its record, and every kernel table is read once.
//!
//! # Where the time goes
//!
//! Of the processor time of a check of 100 containers, where nothing is to be done, the kernel has some two thirds. It is
//! asked of each container for
//!
//! * links, addresses and routes of its network namespace, with the way there and a socket: 36 us;
//! * its limits, three files of control groups and a look for three more: 34 us. Of a file there, half is the way to it:
//!   the kernel finds no name below /sys/fs/cgroup without taking locks;
//! * its record, its monitor's lock and status, and two directories: 16 us.
//!
//! That is 9 of 26 ms on a machine on which starting this program takes 2 and a system call that does nothing 0.25 us. The
//! rest is the host's own tables, a thousand pages that are touched for the first time, 200 small files of JSON, the
//! manifest and the comparison. Nothing is believed because it was so before: what somebody took away is seen to be gone.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::container::{lifecycle, oci};
use super::error::EngineError;
use super::host::{Host, network_error};
use super::network::attachment::Attachment;
use super::network::observe::{Connected, Inside, Outside};
use super::records::{self, Records};
use super::shares::share;
use super::storage::volume;
use super::{Scope, connect, image, network, orphans, sources};
use crate::model::actual::{
    Actual, ActualContainer, ActualImage, ActualNetwork, ActualVolume, Broken, HostFacts, Liveness,
};
use crate::model::firewall::Ruleset;
use crate::model::id::{ContainerId, Digest, VolumeKey};
use crate::model::image::{Image, ImageConfig, ImageSource, Pull};
use crate::model::orphan::Orphan;
use crate::model::paths;
use crate::model::record::ContainerRecord;
use crate::model::resources::Resources;
use crate::model::unreadable::{Cause, Name, Object, Unreadable};
use crate::monitor::error::MonitorError;
use crate::monitor::protocol::chain;
use crate::runtime::cgroup::{self, Hierarchy};

/// What a thread saw of a container.
struct Looked {
    container: ActualContainer,
    network: Option<(Connected, Inside)>,
}

/// Containers whose starts, or whose monitors' ends, were waited for in vain. The next looks do not wait for them again: `watch` looks every few
/// seconds, with the lock held.
#[derive(Debug, Default)]
pub(super) struct Slow(Mutex<BTreeSet<ContainerId>>);

impl Slow {
    /// Until when this start may be waited for.
    fn deadline(&self, id: &ContainerId, patience: Instant) -> Instant {
        match self.lock().contains(id) {
            true => Instant::now(),
            false => patience,
        }
    }

    fn note(&self, id: &ContainerId, found: &Liveness) {
        let mut slow = self.lock();
        match found {
            Liveness::Monitored(status) if lifecycle::is_passing(status.phase) => slow.insert(id.clone()),
            Liveness::Absent | Liveness::Monitored(_) | Liveness::Lost(_) | Liveness::Ended(_) => slow.remove(id),
        };
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<ContainerId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is looked at beside containers.
struct Around {
    outside: Outside,
    facts: HostFacts,
    images: BTreeMap<ImageSource, ActualImage>,
    volumes: BTreeMap<VolumeKey, ActualVolume>,
    firewall: Option<Ruleset>,
    orphans: BTreeSet<Orphan>,
}

pub(super) fn observe(host: &Host, scope: &Scope) -> Result<Actual, EngineError> {
    let records = records::read_all(&host.paths)?;
    let mut made = made(host, scope, &records);
    let all: Vec<&ContainerRecord> = records.containers.values().collect();
    // For all of them together: be there forty whose starts hang, a look takes no longer than for one.
    let deadline = Instant::now() + lifecycle::SETTLING;
    let look = |record: &&ContainerRecord| look_at(host, record, &made.missing, &records, deadline);
    let (around, looked) = std::thread::scope(|threads| {
        let visit = |some| move || <[_]>::iter(some).map(look).collect::<Result<Vec<_>, EngineError>>();
        let visits: Vec<_> = all.chunks(share(all.len())).map(|some| threads.spawn(visit(some))).collect();
        let around = look_around(host, scope, &records);
        let looked = visits.into_iter().map(|visit| visit.join().unwrap_or_else(|panic| resume_unwind(panic)));
        (around, looked.collect::<Result<Vec<_>, _>>())
    });
    let Around { outside, facts, mut images, volumes, firewall, orphans } = around?;
    made.look_at_sources(host, scope, &records, &mut images);

    let (mut containers, mut insides, mut unreadable) = (BTreeMap::new(), Vec::new(), records.unreadable);
    for looked in looked?.into_iter().flatten() {
        match looked {
            Ok(Looked { container, network }) => {
                containers.insert(container.record.id.clone(), container);
                insides.extend(network);
            }
            Err(status) => drop(unreadable.insert(status)),
        }
    }
    let mut drift = network::observe::observe(&host.tag, records.networks.values(), &outside, &insides);
    for (id, container) in &mut containers {
        container.network_drift.extend(drift.containers.remove(id).unwrap_or_default());
    }
    let mut networks = BTreeMap::new();
    for (id, record) in records.networks {
        let names =
            network::names::read(&host.paths.names(&id)).map_err(network_error("look at", "the names".into()))?;
        let drift = drift.networks.remove(&id).unwrap_or_default();
        networks.insert(id, ActualNetwork { record, drift, names });
    }
    let Made { configs: made_of, damaged, missing: _ } = made;
    Ok(Actual { host: facts, images, made_of, damaged, networks, volumes, containers, firewall, orphans, unreadable })
}

fn look_around(host: &Host, scope: &Scope, records: &Records) -> Result<Around, EngineError> {
    let look = |subject: &str| network_error("look at", subject.to_owned());
    let outside = Outside::look().map_err(look("the networks"))?;
    Ok(Around {
        facts: facts(host, &outside)?,
        images: sources::observe(host, scope, records),
        volumes: volumes(host, records),
        firewall: network::firewall::observe(&host.tag).map_err(look("the firewall"))?,
        orphans: orphans::observe(host, records, &outside.own_links(&host.tag))?,
        outside,
    })
}

fn facts(host: &Host, outside: &Outside) -> Result<HostFacts, EngineError> {
    let failed = || network_error("look at", "the host's network".into());
    Ok(HostFacts {
        routes: outside.foreign_routes(&host.tag),
        listening: network::host::listening_ports().map_err(failed())?,
        forwards: network::host::forwards(),
        forward_drops: network::host::forward_drops().map_err(failed())?,
        ..host.facts.clone()
    })
}

fn volumes(host: &Host, records: &Records) -> BTreeMap<VolumeKey, ActualVolume> {
    let volumes = records.volumes.iter().map(|(key, record)| {
        let drift = volume::drift(&host.paths, record);
        (key.clone(), ActualVolume { record: record.clone(), data: host.paths.volume_data(key), drift })
    });
    volumes.collect()
}

/// The images that containers were made of.
#[derive(Default)]
struct Made {
    configs: BTreeMap<Digest, ImageConfig>,
    /// Not whole any more, and nothing is here to make them so: what became of each.
    missing: BTreeMap<Digest, String>,
    /// Not whole, but to be made so: what they lack.
    damaged: BTreeMap<Digest, BTreeSet<Digest>>,
}

impl Made {
    /// Whether it is whole. What may be fetched by its `name` or another one of the scope is made whole only if its registry has
    /// it yet.
    fn look_at(&mut self, host: &Host, scope: &Scope, records: &Records, image: &Image, name: Option<&ImageSource>) {
        let lacking = host.store.lacking(image);
        if lacking.is_empty() {
            return;
        }
        let mut names = records.names_of(&image.id);
        names.extend(name.cloned());
        let is_fetched = |name: &ImageSource| scope.images.get(name).is_some_and(|pull| *pull != Pull::Never);
        match image::restore::is_restorable(&host.store, image, &names) {
            Ok(true) if names.iter().any(is_fetched) && sources::is_lost(host, image, &names) => drop(
                self.missing.insert(image.id.clone(), "is damaged, and its registry does not have it any more".into()),
            ),
            Ok(true) => drop(self.damaged.insert(image.id.clone(), lacking)),
            Ok(false) => drop(self.missing.insert(image.id.clone(), "is gone".into())),
            Err(error) => tracing::warn!("image {}: {}", image.id.short(), chain(&error)),
        }
    }

    /// The same of what sources stand for. Of those that are missing only the names are left.
    fn look_at_sources(
        &mut self,
        host: &Host,
        scope: &Scope,
        records: &Records,
        images: &mut BTreeMap<ImageSource, ActualImage>,
    ) {
        for (source, known) in images {
            let Some(image) = &known.image else { continue };
            if !self.configs.contains_key(&image.id) && !self.damaged.contains_key(&image.id) {
                self.look_at(host, scope, records, image, Some(source));
            }
            if self.missing.contains_key(&image.id) {
                *known = ActualImage { image: None, moved: None, ..std::mem::take(known) };
            }
        }
    }
}

/// What cannot be read is not gone: its containers are left as they are, and starting one tells the error.
fn made(host: &Host, scope: &Scope, records: &Records) -> Made {
    let used: BTreeSet<&Digest> = records.containers.values().filter_map(|record| record.image.as_ref()).collect();
    let mut made = Made::default();
    for id in used {
        match host.store.known(id) {
            Ok(Some(image)) => {
                made.look_at(host, scope, records, &image, None);
                made.configs.insert(id.clone(), image.config);
            }
            Ok(None) => drop(made.missing.insert(id.clone(), "is gone".into())),
            Err(error) => tracing::warn!("image {}: {}", id.short(), chain(&error)),
        }
    }
    made
}

/// Leaves the calling thread in the container's network namespace. Of a container whose status or limits cannot be read
/// nothing is known, and it keeps nobody from the others.
fn look_at(
    host: &Host,
    record: &ContainerRecord,
    missing: &BTreeMap<Digest, String>,
    records: &Records,
    deadline: Instant,
) -> Result<Result<Looked, Unreadable>, EngineError> {
    let deadline = host.slow.deadline(&record.id, deadline);
    let liveness = match lifecycle::settled(&host.surroundings(), &host.hierarchy, record, deadline) {
        Ok(liveness) => liveness,
        Err(error) => return Ok(Err(unknown(host, record, &error))),
    };
    host.slow.note(&record.id, &liveness);
    let limits = match liveness.has_processes().then(|| limits(host, record)).transpose() {
        Ok(limits) => limits.flatten(),
        Err(error) => return Ok(Err(unknown(host, record, &error))),
    };
    let network = match connect::has_namespace(record) && liveness.is_supervised() {
        true => {
            let connected = connected(host, record, records);
            let inside = connected.look().map_err(network_error("look at", "the networks".to_owned()))?;
            Some((connected, inside))
        }
        false => None,
    };
    let broken = broken(&host.paths.container(&record.id), record, missing);
    let network_drift = network.iter().filter_map(|_| connect::behind(host, record)).collect();
    let container = ActualContainer { record: record.clone(), liveness, network_drift, limits, broken };
    Ok(Ok(Looked { container, network }))
}

fn unknown(host: &Host, record: &ContainerRecord, error: &EngineError) -> Unreadable {
    let monitor = std::error::Error::source(error).and_then(|source| source.downcast_ref::<MonitorError>());
    Unreadable {
        object: Object::Container(record.id.clone()),
        project: Some(record.project.clone()),
        name: Some(Name::Container(record.instance.clone())),
        path: host.paths.container_run(&record.id).join(paths::run::STATUS),
        cause: match monitor {
            Some(MonitorError::Version { .. }) => Cause::Newer,
            _ => Cause::Unreachable,
        },
        problem: chain(error),
        users: record.users,
        addresses: record.addresses.clone(),
    }
}

/// The limits in force; `None` where it has ended meanwhile, and they with it. Each that the kernel shows as declared, its
/// rounding allowed for, is given as declared.
fn limits(host: &Host, record: &ContainerRecord) -> Result<Option<Resources>, EngineError> {
    let group = cgroup::open(&host.hierarchy, &oci::cgroup_path(&host.tag, &record.id));
    let found = group.observe().map_err(|source| EngineError::Monitor {
        operation: "read the limits of",
        name: record.full_name(),
        source: Box::new(source),
    })?;
    Ok(group.exists().then(|| as_declared(found, &record.spec.resources, &host.hierarchy)))
}

fn as_declared(found: Resources, declared: &Resources, hierarchy: &Hierarchy) -> Resources {
    fn of<T: PartialEq>(found: T, shown: &T, declared: T) -> T {
        if found == *shown { declared } else { found }
    }
    let shown = cgroup::observable(hierarchy, declared);
    let Resources { memory, memory_swap, memory_reservation, cpus, cpu_shares, cpuset, pids } = declared.clone();
    Resources {
        memory: of(found.memory, &shown.memory, memory),
        memory_swap: of(found.memory_swap, &shown.memory_swap, memory_swap),
        memory_reservation: of(found.memory_reservation, &shown.memory_reservation, memory_reservation),
        cpus: of(found.cpus, &shown.cpus, cpus),
        cpu_shares: of(found.cpu_shares, &shown.cpu_shares, cpu_shares),
        cpuset: of(found.cpuset, &shown.cpuset, cpuset),
        pids: of(found.pids, &shown.pids, pids),
    }
}

fn broken(directory: &Path, record: &ContainerRecord, missing: &BTreeMap<Digest, String>) -> Option<Broken> {
    let has_files = directory.join("upper").is_dir();
    let broken = |why| Some(Broken { why, has_files });
    match &record.image {
        None => return broken("its image was never filled in".into()),
        Some(id) => {
            if let Some(fate) = missing.get(id) {
                return broken(format!("its image {} {fate}", id.short()));
            }
        }
    }
    let lacking = match (has_files, directory.join("work").is_dir()) {
        (true, true) => return None,
        (false, _) => "upper",
        (true, false) => "work",
    };
    broken(format!("its directory `{lacking}` is gone"))
}

fn connected(host: &Host, record: &ContainerRecord, records: &Records) -> Connected {
    Connected {
        container: record.id.clone(),
        namespace: host.paths.netns(&record.id),
        attachments: Attachment::all_of(&host.tag, record, records.networks.values()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::units::ByteSize;

    #[test]
    fn a_start_that_was_waited_for_in_vain_is_not_waited_for_again_until_it_has_ended() {
        let (slow, id) = (Slow::default(), "0123456789ab".parse().unwrap());
        let later = Instant::now() + lifecycle::SETTLING;
        let monitored = |phase| {
            let status = serde_json::json!({
                "version": 1, "launch_version": 1, "id": "0123456789ab", "phase": phase, "pid": null, "started_at": null,
                "finished_at": null, "exit": null, "restarts": 0, "next_start_at": null, "health": null, "error": null,
            });
            Liveness::Monitored(serde_json::from_value(status).unwrap())
        };
        assert_eq!(slow.deadline(&id, later), later);
        slow.note(&id, &monitored("starting"));
        assert!(slow.deadline(&id, later) <= Instant::now());
        slow.note(&id, &monitored("running"));
        assert_eq!(slow.deadline(&id, later), later);
    }

    #[test]
    fn what_the_kernel_rounded_is_as_declared_whatever_else_differs() {
        let hierarchy = cgroup::detect().unwrap();
        let declared = Resources { memory: Some(ByteSize(100_000_001)), pids: Some(5), ..Resources::default() };
        let shown = cgroup::observable(&hierarchy, &declared);
        assert!(shown.memory < declared.memory);
        let found = Resources { pids: Some(7), ..shown };
        let expected = Resources { pids: Some(7), ..declared.clone() };
        assert_eq!(as_declared(found, &declared, &hierarchy), expected);
    }
}
