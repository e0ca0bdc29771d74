//! What a host is after an action: the model of the engine, as a pure function.
//!
//! Properties of the planner are stated with it ("a plan applied converges"), and the fake engine is it. It is strict
//! where the host would be: an action whose precondition does not hold is refused, so a plan in a wrong order does not
//! pass. It is optimistic where the host may fail: containers start and become healthy, fetches succeed.

use std::time::SystemTime;

use thiserror::Error;

use super::action::Action;
use super::actual::{Actual, ActualContainer, ActualImage, ActualNetwork, ActualVolume, Drift, Liveness};
use super::container::Condition;
use super::health::{Health, Probe};
use super::id::{ContainerId, Digest};
use super::image::{Image, ImageConfig, ImageSource};
use super::launch::LAUNCH_VERSION;
use super::names::NameTable;
use super::orphan::Orphan;
use super::record::{ContainerRecord, NetworkRecord, Refused};
use super::status::{Exit, HealthStatus, Phase, STATUS_VERSION, Status};
use super::unreadable::Object;

/// Why a host would refuse an action.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unmet {
    #[error("there is no {0}")]
    Missing(String),
    #[error("{subject} is still used by {user}")]
    Used { subject: String, user: String },
    #[error("the subnet of network `{network}` overlaps that of network `{other}`")]
    Overlap { network: String, other: String },
    #[error("an address of container `{container}` is held by container `{other}`")]
    Address { container: String, other: String },
    #[error("container `{0}` still runs")]
    Running(ContainerId),
    #[error("container `{0}` does not run")]
    NotRunning(ContainerId),
    #[error("the image `{0}` is damaged")]
    Damaged(Digest),
}

impl Actual {
    /// This host after `action`.
    pub fn after(&self, action: &Action) -> Result<Actual, Unmet> {
        let mut after = self.clone();
        after.apply(action)?;
        Ok(after)
    }

    fn apply(&mut self, action: &Action) -> Result<(), Unmet> {
        match action {
            Action::FetchImage { source, bases: _ } => {
                let known = self.images.entry(source.clone()).or_default();
                *known = fetched(source, known);
                // Whole, whatever it lacked.
                known.image.iter().for_each(|image| drop(self.damaged.remove(&image.id)));
            }
            Action::RestoreImage { id } => drop(self.damaged.remove(id)),
            Action::EnsureVolume { record } => {
                let before = self.volumes.get(&record.key);
                let data = before.map(|volume| volume.data.clone()).unwrap_or_default();
                let volume = ActualVolume { record: record.clone(), data, drift: Vec::new() };
                self.volumes.insert(record.key.clone(), volume);
                self.is_readable(&Object::Volume(record.key.clone()));
            }
            Action::RemoveVolume { key } => {
                let mut records = self.containers.values().map(|container| &container.record);
                let data = self.volumes.get(key).map(|volume| volume.data.clone()).unwrap_or_default();
                let user = records.find(|record| record.uses_volume(key, &data));
                refuse_used(format!("volume `{key}`"), user)?;
                self.volumes.remove(key);
                self.is_readable(&Object::Volume(key.clone()));
            }
            Action::EnsureNetwork { record } => self.ensure_network(record)?,
            Action::RemoveNetwork { id } => {
                let mut records = self.containers.values().map(|container| &container.record);
                refuse_used(format!("network `{id}`"), records.find(|record| record.addresses.contains_key(id)))?;
                self.networks.remove(id);
            }
            Action::SetFirewall { ruleset } => self.firewall = Some(ruleset.clone()),
            Action::SetNames { network, names } => match self.networks.get_mut(network) {
                Some(actual) => actual.names = names.clone(),
                None => return Err(Unmet::Missing(format!("network `{network}`"))),
            },
            Action::CreateContainer { record } => self.create(record)?,
            Action::UpdateContainer { record } => {
                let container = self.container(&record.id)?;
                container.record = (**record).clone();
                if container.liveness.is_up() {
                    container.limits = Some(record.spec.resources.clone());
                }
            }
            Action::ConnectContainer { id } => self.connect(id)?,
            Action::StartContainer { id } => self.start(id)?,
            Action::ResumeContainer { id } => {
                if let Liveness::Monitored(status) = &mut self.container(id)?.liveness
                    && status.phase == Phase::Paused
                {
                    status.phase = Phase::Running;
                }
            }
            Action::StopContainer { id } => {
                if let Some(container) = self.containers.get_mut(id) {
                    stop(container);
                }
            }
            Action::DisconnectContainer { id } => {
                let container = self.container(id)?;
                if container.liveness.is_up() {
                    return Err(Unmet::Running(id.clone()));
                }
                container.liveness = Liveness::Absent;
            }
            Action::RefuseUpdate { record, failed, reason } => self.refuse(record, failed, reason)?,
            Action::RemoveContainer { id } => match self.containers.get(id) {
                Some(container) if container.liveness.is_up() => return Err(Unmet::Running(id.clone())),
                Some(_) | None => drop(self.containers.remove(id)),
            },
            Action::RemoveOrphan { orphan } => {
                self.is_orphan(orphan)?;
                self.orphans.remove(orphan);
                match orphan {
                    Orphan::Container { id, .. } => self.is_readable(&Object::Container(id.clone())),
                    Orphan::Bridge { network } => self.is_readable(&Object::Network(network.clone())),
                    Orphan::Link { .. } => {}
                }
            }
            Action::AwaitContainer { id, condition, timeout: _, stays: _ } => {
                await_condition(self.container(id)?, *condition)?
            }
        }
        Ok(())
    }

    /// Whatever was wrong with the record of this object: it was written anew, or is gone.
    fn is_readable(&mut self, object: &Object) {
        self.unreadable.retain(|record| record.object != *object);
    }

    fn container(&mut self, id: &ContainerId) -> Result<&mut ActualContainer, Unmet> {
        self.containers.get_mut(id).ok_or_else(|| Unmet::Missing(format!("container `{id}`")))
    }

    fn ensure_network(&mut self, record: &NetworkRecord) -> Result<(), Unmet> {
        let mut others = self.networks.values().map(|network| &network.record).filter(|other| other.id != record.id);
        if let Some(other) = others.find(|other| other.subnet.overlaps(&record.subnet)) {
            return Err(Unmet::Overlap { network: record.name.to_string(), other: other.name.to_string() });
        }
        let new = ActualNetwork { record: record.clone(), drift: Vec::new(), names: NameTable::default() };
        if !record.spec.internal {
            self.host.forwards.v4 = true;
            self.host.forwards.v6 |= record.subnet6.is_some();
        }
        let network = self.networks.entry(record.id.clone()).or_insert(new);
        let old = std::mem::replace(&mut network.record, record.clone());
        let was_damaged = !std::mem::take(&mut network.drift).is_empty();
        // Links carry the MTU, and routes lead out or do not: the containers' side is looked at by connecting them.
        let is_changed = old.spec.mtu != record.spec.mtu || old.spec.internal != record.spec.internal;
        if is_changed || was_damaged {
            let attached = self.containers.values_mut().filter(|c| c.record.addresses.contains_key(&record.id));
            for container in attached.filter(|container| container.liveness.is_up()) {
                let object = format!("links on network {}", record.name);
                let drift = Drift { object, found: "as they were".to_owned(), wanted: "as declared".to_owned() };
                container.network_drift.push(drift);
            }
        }
        Ok(())
    }

    fn create(&mut self, record: &ContainerRecord) -> Result<(), Unmet> {
        let image = self.images.get(&record.spec.image).and_then(|known| known.image.as_ref());
        let image = image.ok_or_else(|| Unmet::Missing(format!("image `{}`", record.spec.image)))?;
        for name in record.spec.volumes() {
            if !self.volumes.keys().any(|key| key.project == record.project && key.name == *name) {
                return Err(Unmet::Missing(format!("volume `{name}`")));
            }
        }
        self.is_whole(&image.id)?;
        self.has_networks(record)?;
        let record = ContainerRecord { image: Some(image.id.clone()), ..record.clone() };
        self.containers.entry(record.id.clone()).or_insert(ActualContainer {
            record,
            liveness: Liveness::Absent,
            network_drift: Vec::new(),
            limits: None,
            broken: None,
        });
        Ok(())
    }

    fn is_whole(&self, image: &Digest) -> Result<(), Unmet> {
        match self.damaged.contains_key(image) {
            true => Err(Unmet::Damaged(image.clone())),
            false => Ok(()),
        }
    }

    fn is_orphan(&self, orphan: &Orphan) -> Result<(), Unmet> {
        let mut records = self.containers.values().map(|container| &container.record);
        match orphan {
            Orphan::Container { id, .. } => {
                refuse_used(format!("what is left of `{id}`"), records.find(|r| r.id == *id))
            }
            Orphan::Bridge { network } => {
                let user = records.find(|record| record.addresses.contains_key(network));
                refuse_used(format!("the bridge of network `{network}`"), user)
            }
            Orphan::Link { .. } => Ok(()),
        }
    }

    /// The model has no clock: it happened at the epoch.
    fn refuse(&mut self, old: &ContainerRecord, failed: &ContainerId, reason: &str) -> Result<(), Unmet> {
        let ContainerRecord { spec, image, .. } = self.container(failed)?.record.clone();
        let refused = Refused { spec, image, at: SystemTime::UNIX_EPOCH, reason: reason.to_owned() };
        self.container(&old.id)?.record = ContainerRecord { refused: Some(Box::new(refused)), ..old.clone() };
        Ok(())
    }

    fn has_networks(&self, record: &ContainerRecord) -> Result<(), Unmet> {
        match record.addresses.keys().find(|id| !self.networks.contains_key(id)) {
            Some(id) => Err(Unmet::Missing(format!("network `{id}`"))),
            None => Ok(()),
        }
    }

    fn connect(&mut self, id: &ContainerId) -> Result<(), Unmet> {
        let record = self.container(id)?.record.clone();
        self.has_networks(&record)?;
        // One that was never started since boot has no links yet.
        let linked = self.containers.values().filter(|other| other.liveness != Liveness::Absent);
        for other in linked.filter(|other| other.record.id != *id) {
            let shares = |(network, here): (_, &super::record::Addresses)| {
                other.record.addresses.get(network).is_some_and(|there| there.collide(here))
            };
            if record.addresses.iter().any(shares) {
                let (container, other) = (id.to_string(), other.record.id.to_string());
                return Err(Unmet::Address { container, other });
            }
        }
        self.container(id)?.network_drift.clear();
        Ok(())
    }

    fn start(&mut self, id: &ContainerId) -> Result<(), Unmet> {
        let record = self.container(id)?.record.clone();
        record.image.iter().try_for_each(|image| self.is_whole(image))?;
        if let Some(owner) = record.network_of.clone() {
            let has_namespace = self.containers.get(&owner).is_some_and(|c| c.liveness != Liveness::Absent);
            if !has_namespace {
                return Err(Unmet::Missing(format!("network namespace of container `{owner}`")));
            }
        }
        self.connect(id)?;
        let has_check = self.has_check(id);
        let container = self.container(id)?;
        if matches!(container.liveness, Liveness::Lost(_)) {
            return Err(Unmet::Running(id.clone()));
        }
        if !matches!(&container.liveness, Liveness::Monitored(status) if status.phase == Phase::Running) {
            let health = has_check.then(|| HealthStatus { health: Health::Starting, failing_streak: 0, log: vec![] });
            container.liveness = Liveness::Monitored(Status { health, ..status(id, Phase::Running) });
        }
        container.limits = Some(container.record.spec.resources.clone());
        Ok(())
    }

    fn has_check(&self, id: &ContainerId) -> bool {
        let Some(spec) = self.containers.get(id).map(|container| &container.record.spec) else { return false };
        let image = self.images.get(&spec.image).and_then(|known| known.image.as_ref());
        let of_image = image.and_then(|image| image.config.healthcheck.as_ref());
        spec.healthcheck.as_ref().or(of_image).is_some_and(|check| check.probe != Probe::None)
    }
}

fn refuse_used(subject: String, user: Option<&ContainerRecord>) -> Result<(), Unmet> {
    match user {
        Some(user) => Err(Unmet::Used { subject, user: format!("container `{}`", user.instance) }),
        None => Ok(()),
    }
}

fn stop(container: &mut ActualContainer) {
    if container.liveness.is_up() {
        container.liveness = Liveness::Ended(status(&container.record.id, Phase::Stopped));
        container.network_drift.clear();
        container.limits = None;
    }
}

fn await_condition(container: &mut ActualContainer, condition: Condition) -> Result<(), Unmet> {
    let id = container.record.id.clone();
    let Liveness::Monitored(current) = &mut container.liveness else {
        let completed = matches!(&container.liveness, Liveness::Ended(s) if s.exit == Some(Exit::Code(0)));
        return match condition {
            Condition::Started | Condition::Completed if completed => Ok(()),
            Condition::Started | Condition::Healthy | Condition::Completed => Err(Unmet::NotRunning(id)),
        };
    };
    match condition {
        Condition::Started => current.phase = Phase::Running,
        Condition::Healthy => {
            current.phase = Phase::Running;
            current.health = Some(HealthStatus { health: Health::Healthy, failing_streak: 0, log: Vec::new() });
        }
        Condition::Completed => {
            let ended = Status { exit: Some(Exit::Code(0)), ..status(&id, Phase::Exited) };
            container.liveness = Liveness::Ended(ended);
            container.limits = None;
            container.network_drift.clear();
        }
    }
    Ok(())
}

/// A status without times and processes, which a model does not have.
fn status(id: &ContainerId, phase: Phase) -> Status {
    Status {
        version: STATUS_VERSION,
        launch_version: LAUNCH_VERSION,
        id: id.clone(),
        phase,
        pid: None,
        started_at: None,
        finished_at: None,
        exit: None,
        restarts: 0,
        restarts_in_a_row: None,
        next_start_at: None,
        health: None,
        error: None,
    }
}

/// The image that a fetch brings. What is in a registry is not part of a host, so the identifier stands in for it:
/// another one when the source moved, the same one otherwise.
fn fetched(source: &ImageSource, known: &ActualImage) -> ActualImage {
    let (id, config) = match (&known.image, &known.moved) {
        (Some(image), None) => {
            return ActualImage { image: Some(image.clone()), moved: None, unasked: None, tag: None };
        }
        (Some(image), Some(moved)) => (stand_in(&[image.id.as_str(), moved]), image.config.clone()),
        (None, _) => (stand_in(&[&source.to_string()]), ImageConfig::default()),
    };
    let image = Image { id, manifest: None, layers: Vec::new(), config };
    ActualImage { image: Some(image), moved: None, unasked: None, tag: None }
}

/// A digest that follows from `parts`: FNV-1a of 64 bits, four times. It has to be distinct, not secure.
fn stand_in(parts: &[&str]) -> Digest {
    let mut bytes = [0; 32];
    for (salt, chunk) in bytes.chunks_exact_mut(8).enumerate() {
        let text = parts.iter().flat_map(|part| part.bytes().chain([0]));
        let hash = text
            .chain([salt as u8])
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        chunk.copy_from_slice(&hash.to_be_bytes());
    }
    Digest::from_sha256(&bytes)
}
