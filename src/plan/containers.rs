//! What each instance of a declared container becomes, and which containers go.
//!
//! An instance may have several records when a replacement was cut short. The rules:
//!
//! 1. A record *fits* when nothing that is part of what a container is made of differs: see [`Comparison`].
//! 2. Of the records that fit the one that runs is kept, else the one with the lowest identifier. It is updated and
//!    started as need be.
//! 3. When none fits, a new record is made.
//! 4. All other records of the instance leave, in the declared update order.
//! 5. Where the update of a container was rolled back and is not to be tried again, its instances stay what they are:
//!    see `fallback`.
//!
//! So a plan cut short anywhere is taken up where it stopped: the new record fits and is kept, the old ones leave.

use std::collections::BTreeMap;

use super::addresses::{AddressBook, Applicant, collide};
use super::comparison::{Comparison, Standard};
use super::decision::{Decision, Turnover};
use super::images::{Images, Knowledge, made_of};
use super::liveness::{Standing, has_succeeded, is_paused, limits_drift, meets, remark, standing};
use super::networks::Networks;
use super::notation::Notation;
use super::pairs::Pairs;
use super::scope::in_order;
use super::users::{self, UserBook};
use super::waits::readiness;
use super::{ChangeClass, FieldChange, Findings, HeldBack, Mark, RefusedUpdates, Work, World, diff, fallback};
use crate::model::actual::ActualContainer;
use crate::model::container::{AfterEnd, Condition, ContainerSpec, FailureAction, RunState, UpdateOrder};
use crate::model::id::{ContainerId, Ids, Instance, NetworkId, ResourceName, Whose};
use crate::model::network::NetworkMode;
use crate::model::record::{ContainerRecord, RECORD_VERSION};
use crate::model::units::Timespan;

pub(super) struct Containers<'a> {
    /// Each behind those that it needs, replicas in order.
    pub declared: Vec<Decision<'a>>,
    /// No longer declared.
    pub removed: Vec<&'a ActualContainer>,
    pub images: Images,
}

impl<'a> Containers<'a> {
    /// Everything that will be gone.
    pub fn departing(&self) -> impl Iterator<Item = &'a ActualContainer> {
        self.declared.iter().flat_map(|d| d.leaving.iter()).chain(&self.removed).copied()
    }

    pub fn departs(&self, container: &ActualContainer) -> bool {
        self.departing().any(|leaving| leaving.record.id == container.record.id)
    }
}

pub(super) fn decide<'a>(
    world: &World<'a>,
    networks: &Networks<'_>,
    ids: &mut Ids,
    findings: &mut Findings,
) -> Containers<'a> {
    let mut images = Images::of(world);
    // What has to be made may need an image that is not here, and fetching it may mean that others are made of
    // another image than before. So decisions are taken until no further image is needed; each round knows more.
    let declared = loop {
        let mut round = Round::begin(world, networks, &images, ids);
        let declared = round.decide();
        let is_missing =
            |d: &&Decision<'_>| d.is_new() && matches!(images.knowledge(world, &d.spec().image), Knowledge::Missing);
        let missing: Vec<_> = declared.iter().filter(is_missing).map(|d| d.spec().image.clone()).collect();
        if missing.is_empty() {
            *ids = round.ids;
            findings.warnings.extend(round.findings.warnings);
            findings.refusals.extend(round.findings.refusals);
            findings.held_back.extend(round.findings.held_back);
            break declared;
        }
        missing.iter().for_each(|source| images.fetch(world, source));
    };
    images.check(world, findings);
    let mut containers = Containers { declared, removed: removed(world), images };
    wake_dependencies(&mut containers.declared);
    clear_the_way(networks, &mut containers.declared);
    fallback::choose(world, &mut containers.declared, findings);
    restore_images(world, &mut containers, findings);
    // Whoever ran a container by hand was there, or did not want to be; other commands are no place to come back to it.
    if world.desired.project != Whose::Nobody {
        let kept = containers.declared.iter().filter(|d| d.start.is_none()).filter_map(|d| d.kept);
        findings.warnings.extend(kept.filter_map(remark));
    }
    containers
}

/// What is started, now or when an update fails, has an image that is whole.
fn restore_images(world: &World<'_>, containers: &mut Containers<'_>, findings: &mut Findings) {
    let Containers { declared, images, .. } = containers;
    let fallbacks = declared.iter().filter_map(|d| Some(&d.fallback.as_ref()?.container.record));
    images.restore(world, declared.iter().map(|d| &d.record).chain(fallbacks), findings);
    let goes_on = |d: &&Decision<'_>| d.kept.is_some_and(|kept| kept.liveness.is_up()) && d.stop.is_none();
    for record in declared.iter().filter(goes_on).map(|d| &d.record) {
        if record.image.as_ref().is_some_and(|id| images.restored.contains_key(id)) {
            findings
                .warn(format!("container {} goes on with the damaged files until it is restarted", record.instance));
        }
    }
}

fn removed<'a>(world: &World<'a>) -> Vec<&'a ActualContainer> {
    let is_declared = |instance: &Instance| {
        world.desired.containers.get(&instance.container).is_some_and(|c| instance.replica <= c.replicas)
    };
    let own = world.actual.containers.values().filter(|c| c.record.project == world.desired.project);
    let in_scope = own.filter(|c| world.scope.holds(&c.record.instance.container));
    let mut removed: Vec<_> = in_scope.filter(|c| !is_declared(&c.record.instance)).collect();
    removed.sort_by_key(|c| &c.record.instance);
    removed
}

/// One that ended for good is started again when another one starts that needs it otherwise: the next apply after a
/// failed migration tries it again.
fn wake_dependencies(declared: &mut [Decision<'_>]) {
    for at in (0..declared.len()).rev() {
        if declared[at].start.is_none() {
            continue;
        }
        let (before, rest) = declared.split_at_mut(at);
        let dependent = &rest[0];
        for (name, condition) in &dependent.record.spec.depends_on {
            for needed in before.iter_mut().filter(|d| d.name() == name && d.spec().state == RunState::Running) {
                let rests = needed.kept.is_some_and(|kept| !kept.liveness.is_up());
                if needed.start.is_none() && rests && !needed.meets(*condition) {
                    let condition = condition.notation().replace('"', "");
                    needed.start = Some(format!("{} needs it {condition}", dependent.record.instance));
                }
            }
        }
    }
}

/// Who holds what another one needs goes first: an address, or a network in the way of a new one.
fn clear_the_way(networks: &Networks<'_>, declared: &mut [Decision<'_>]) {
    let is_in_the_way = |record: &ContainerRecord| {
        let mut on = networks.leaving.iter().filter(|network| record.addresses.contains_key(&network.id));
        on.any(|network| networks.is_in_the_way(network))
    };
    let blocks = |at: usize, old: &ContainerRecord| {
        let mut others = declared.iter().enumerate().filter(|(other, d)| *other != at && d.start.is_some());
        is_in_the_way(old) || others.any(|(_, other)| collide(&other.record, old))
    };
    let first: Vec<bool> =
        (0..declared.len()).map(|at| declared[at].leaving.iter().any(|leaving| blocks(at, &leaving.record))).collect();
    for (decision, first) in declared.iter_mut().zip(first) {
        if first {
            decision.turnover = Turnover::MakeWay;
        }
    }
}

/// One attempt to decide about every instance, with what is known of the images.
struct Round<'w, 'a> {
    world: &'w World<'a>,
    networks: &'w Networks<'w>,
    standard: Standard<'w, 'a>,
    /// The project's own, by the name of the declaration, in the order of their identifiers.
    present: BTreeMap<&'a ResourceName, Vec<&'a ActualContainer>>,
    ids: Ids,
    book: AddressBook,
    users: UserBook,
    pairs: Pairs,
    findings: Findings,
}

impl<'w, 'a> Round<'w, 'a> {
    fn begin(world: &'w World<'a>, networks: &'w Networks<'w>, images: &'w Images, ids: &Ids) -> Round<'w, 'a> {
        let mut present: BTreeMap<&ResourceName, Vec<&ActualContainer>> = BTreeMap::new();
        for container in world.actual.containers.values().filter(|c| c.record.project == world.desired.project) {
            present.entry(&container.record.instance.container).or_default().push(container);
        }
        Round {
            world,
            networks,
            standard: Standard { world, networks, images, chosen: BTreeMap::new() },
            present,
            ids: ids.clone(),
            book: AddressBook::of(world, networks),
            users: UserBook::of(world),
            pairs: Pairs::of(world),
            findings: Findings::default(),
        }
    }

    fn decide(&mut self) -> Vec<Decision<'a>> {
        let mut declared = Vec::new();
        for name in in_order(self.world.desired) {
            if !self.world.scope.holds(name) {
                continue;
            }
            let container = &self.world.desired.containers[name];
            for replica in 1..=container.replicas {
                let instance = Instance { container: name.clone(), replica };
                let decision = self.instance(&instance, &container.spec);
                self.standard.chosen.insert(instance, decision.record.id.clone());
                declared.push(decision);
            }
        }
        declared
    }

    fn instance(&mut self, instance: &Instance, spec: &ContainerSpec) -> Decision<'a> {
        let replicas = self.present.get(&instance.container).map_or(&[][..], Vec::as_slice);
        let of_instance = replicas.iter().filter(|c| c.record.instance == *instance);
        let mut compared: Vec<Comparison<'a>> =
            of_instance.map(|container| self.standard.compare(container, spec)).collect();
        // The sort is stable: equals stay in the order of their identifiers.
        compared.sort_by_key(|c| (!c.fits(), !c.container.liveness.is_up()));
        let refused = fallback::refused(self.world, self.standard.images, replicas, spec);
        if let Some(refused) = refused.filter(|_| self.world.policy.refused_updates == RefusedUpdates::Leave)
            && let Some(at) = fallback::held(&self.standard, &compared)
        {
            let held = self.standard.as_it_is(compared.remove(at).container);
            let subject = format!("container {instance}");
            self.findings.held_back.push(HeldBack { subject, reason: fallback::told(refused) });
            let spec = &held.container.record.spec;
            let decision = self.keep(held, spec, leaving(compared));
            return Decision { turnover: Turnover::InPlace, is_held: true, ..decision };
        }
        let decision = match compared.first().is_some_and(Comparison::fits) {
            true => {
                let kept = compared.remove(0).without_refusal();
                self.keep(kept, spec, leaving(compared))
            }
            false => self.make(instance, spec, compared),
        };
        if let (Some(refused), true) = (refused, decision.is_new() && !decision.leaving.is_empty()) {
            self.findings.warn(format!("container {instance} is tried again: {}", fallback::told(refused)));
        }
        decision
    }

    fn keep(
        &mut self,
        comparison: Comparison<'a>,
        spec: &ContainerSpec,
        leaving: Vec<&'a ActualContainer>,
    ) -> Decision<'a> {
        let mut reason = comparison.reason();
        let needs_restart = comparison.needs_restart();
        let record = comparison.changed_to(spec);
        let Comparison { container, mut changes, .. } = comparison;
        let standing = standing(&container.liveness, &spec.restart);
        if standing == Standing::Up {
            let drift = limits_drift(container, &self.world.actual.host.controllers);
            if changes.is_empty() && !drift.is_empty() {
                reason = "limits not as recorded".to_owned();
            }
            // All limits are written together. One that is declared otherwise changes from what is in force.
            for drifted in drift {
                match changes.iter_mut().find(|change| change.field == drifted.field) {
                    Some(change) if change.new != drifted.old => change.old = drifted.old,
                    Some(_) => {}
                    None => changes.push(drifted),
                }
            }
        }
        let (stop, start) = match (spec.state, standing) {
            (RunState::Stopped, _) => (container.liveness.is_up().then(|| "declared stopped".to_owned()), None),
            (RunState::Running, Standing::Up) if needs_restart => (Some(reason.clone()), Some(reason.clone())),
            (RunState::Running, Standing::Done)
                if self.world.policy.again.contains(&container.record.instance.container) =>
            {
                (None, Some("asked for".to_owned()))
            }
            (RunState::Running, Standing::Up | Standing::Done) => (None, None),
            (RunState::Running, Standing::Down(why)) => (None, Some(why)),
            (RunState::Running, Standing::Stale(why)) => (Some(why.clone()), Some(why)),
        };
        let is_serving = leaving.first().is_some_and(|old| old.liveness.is_up());
        let turnover = turnover(is_serving && starts_first(spec), &record, &leaving);
        let ready_when = readiness(self.world, spec);
        let start = start.or_else(|| {
            let is_unfinished = !leaving.is_empty() || container.record.before.is_some();
            (is_unfinished && ended_too_early(container, spec, turnover, ready_when))
                .then(|| "it ended before it was ready".to_owned())
        });
        let connect = self.connect(container, start.is_some() || stop.is_some());
        let goes_on = start.is_none() && stop.is_none() && spec.state == RunState::Running;
        let resume = (goes_on && is_paused(&container.liveness)).then(|| "paused by hand".to_owned());
        Decision {
            record,
            kept: Some(container),
            leaving,
            turnover,
            changes,
            reason,
            stop,
            start,
            resume,
            connect,
            ready_when,
            fallback: None,
            is_held: false,
        }
    }

    /// What its links need while it goes on running. A start connects anyway.
    fn connect(&self, container: &ActualContainer, is_restarted: bool) -> Option<Work> {
        if is_restarted || !container.liveness.is_up() {
            return None;
        }
        if !container.network_drift.is_empty() {
            return Some(Work::repair(&container.network_drift));
        }
        let touched = self.networks.declared.values().filter(|network| network.reconnect);
        let mut touched = touched.filter(|network| container.record.addresses.contains_key(&network.record.id));
        touched.next().map(|network| Work {
            mark: Mark::Run,
            reason: format!("network {} is changed", network.record.name),
            changes: Vec::new(),
        })
    }

    fn make(&mut self, instance: &Instance, spec: &ContainerSpec, old: Vec<Comparison<'a>>) -> Decision<'a> {
        let runs = old.first().filter(|old| old.container.liveness.is_up());
        let wants_start_first = runs.is_some() && starts_first(spec);
        let heir_of = old.first().filter(|_| !wants_start_first).map(|old| &old.container.record);
        let applicant = Applicant { instance, spec, heir_of };
        let addresses = self.book.assign(&applicant, self.networks, &mut self.findings);
        let image = match self.standard.images.knowledge(self.world, &spec.image) {
            Knowledge::Here(id) => Some(id),
            Knowledge::Fetched { .. } | Knowledge::Missing => None,
        };
        let network_of = match &spec.network {
            NetworkMode::Container(owner) => self.standard.owner_of_namespace(owner).cloned(),
            NetworkMode::Networks(_) | NetworkMode::None | NetworkMode::Host => None,
        };
        let record = ContainerRecord {
            version: RECORD_VERSION,
            id: self.fresh(addresses.keys()),
            project: self.world.desired.project.clone(),
            instance: instance.clone(),
            spec: spec.clone(),
            image,
            addresses,
            network_of,
            users: self.users.assign(instance, spec.users, heir_of, &mut self.findings),
            way_out: Default::default(),
            after_end: self.world.desired.containers.get(&instance.container).map_or(AfterEnd::Keep, |c| c.after_end),
            refused: None,
            before: None,
        };
        let (changes, reason) = match old.first() {
            Some(old) => ([old.changes.clone(), lost_data(self.world, old.container)].concat(), old.reason()),
            None => (self.shown(&record), "declared, not there".to_owned()),
        };
        let leaving: Vec<_> = old.into_iter().map(|old| old.container).collect();
        let turnover = turnover(wants_start_first, &record, &leaving);
        let start = (spec.state == RunState::Running).then(|| match leaving.is_empty() {
            true => "declared running".to_owned(),
            false => reason.clone(),
        });
        let ready_when = readiness(self.world, spec);
        Decision {
            record,
            kept: None,
            leaving,
            turnover,
            changes,
            reason,
            stop: None,
            start,
            resume: None,
            connect: None,
            ready_when,
            fallback: None,
            is_held: false,
        }
    }

    /// What a plan shows of a new container: what is declared, and the addresses that were chosen.
    fn shown(&self, record: &ContainerRecord) -> Vec<FieldChange> {
        let mut changes = diff::declared(&record.spec);
        users::show(record, &mut changes);
        for change in &mut changes {
            let network = change.field.strip_prefix("networks.").and_then(|name| self.networks.by_name(name));
            let addresses = network.and_then(|network| record.addresses.get(&network.record.id));
            if let (Some(addresses), Some(text)) = (addresses, &mut change.new) {
                let lead = if text == "{}" { String::new() } else { format!("{text} at ") };
                let v6 = addresses.v6.map(|v6| format!(", {v6}"));
                *text = format!("{lead}{}{}", addresses.v4, v6.unwrap_or_default());
            }
        }
        changes
    }

    fn fresh<'n>(&mut self, networks: impl Iterator<Item = &'n NetworkId> + Clone) -> ContainerId {
        loop {
            let id = self.ids.container();
            if !self.world.actual.containers.contains_key(&id) && self.pairs.take(&id, networks.clone()) {
                return id;
            }
        }
    }
}

/// Data that goes with a container: in directories that its image declares as volumes and where nothing is mounted.
/// Docker keeps such data in anonymous volumes and hands it on; here every volume has a name.
///
/// A container whose image is gone still has it; one whose own files are gone has none.
pub(super) fn lost_data(world: &World<'_>, old: &ActualContainer) -> Vec<FieldChange> {
    let has_files = old.broken.as_ref().is_none_or(|broken| broken.has_files);
    let config = made_of(world, &old.record).filter(|_| has_files);
    let paths = config.map(|config| config.unmounted_volumes(&old.record.spec.mounts)).unwrap_or_default();
    let lost = paths.into_iter().map(|path| FieldChange {
        field: format!("data in {path}"),
        old: Some("kept in the container".to_owned()),
        new: Some("lost".to_owned()),
        class: ChangeClass::Data,
    });
    lost.collect()
}

/// What does not stay, what runs first.
fn leaving<'a>(compared: Vec<Comparison<'a>>) -> Vec<&'a ActualContainer> {
    let mut leaving: Vec<_> = compared.into_iter().map(|comparison| comparison.container).collect();
    leaving.sort_by_key(|container| !container.liveness.is_up());
    leaving
}

/// Whether it was made or changed by an update that was cut short, and ended before it could take the place of what was
/// there, or before it had proven itself to whoever would go back. It has another try.
fn ended_too_early(
    container: &ActualContainer,
    spec: &ContainerSpec,
    turnover: Turnover,
    ready_when: Condition,
) -> bool {
    let is_down = spec.state == RunState::Running && !container.liveness.is_up();
    let is_monitored = spec.update.monitor > Timespan::ZERO && !has_succeeded(&container.liveness);
    let goes_back = spec.update.failure_action == FailureAction::Rollback;
    let is_ready = meets(container, ready_when);
    is_down && ((turnover == Turnover::SideBySide && !is_ready) || (goes_back && (!is_ready || is_monitored)))
}

fn starts_first(spec: &ContainerSpec) -> bool {
    spec.update.order == UpdateOrder::StartFirst && spec.state == RunState::Running
}

/// Two that share an address cannot run at once, whatever the manifest wishes.
fn turnover(wants_start_first: bool, record: &ContainerRecord, leaving: &[&ActualContainer]) -> Turnover {
    let apart = leaving.iter().all(|old| !collide(&old.record, record));
    match wants_start_first && apart && !leaving.is_empty() {
        true => Turnover::SideBySide,
        false => Turnover::InPlace,
    }
}
