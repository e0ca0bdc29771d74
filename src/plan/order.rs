//! All decisions as steps, each waiting for what it needs.
//!
//! ```text
//! FetchImage ──────┐                        InPlace          SideBySide            MakeWay
//! EnsureVolume ────┼─> CreateContainer      create           create                stop old
//! EnsureNetwork ───┘        │               stop old         start, await          remove old
//! SetFirewall, SetNames ────┤               remove old       firewall, names       create
//! needs: Start / Await ─────┴─> Start       start            stop old, remove old  start
//!
//! stop, remove what goes ──> RemoveNetwork, RemoveVolume ──> SetFirewall
//!
//! With something to go back to: see `fallback`.
//! ```
//!
//! Requirements are what must be so; preferences are what is kinder:
//!
//! * A container goes down, to be replaced or restarted, only when everything that it needs is ready.
//! * Replicas are replaced one after another, each when the one before is ready.
//! * Dependents stop before what they depend on, when both go. Those that share a network namespace stop first.
//!
//! # Why the requirements have no circle
//! Declared needs have none (the parser sees to that). Beyond them, creating waits only for objects, an object only for
//! the removal of a network in its way, and that only for containers that leave with [`Turnover::MakeWay`] or for
//! good; those stop without waiting for anything but a fetched image. A start waits for the removal of whoever holds
//! its address, who leaves in the same way. Traffic switches follow the order of needs.
//!
//! [`Turnover::MakeWay`]: super::decision::Turnover

use std::collections::{BTreeMap, BTreeSet};

use super::addresses::collide;
use super::containers::{Containers, lost_data};
use super::decision::{Decision, Turnover};
use super::graph::{Graph, Node};
use super::images::Restored;
use super::networks::Networks;
use super::orphans;
use super::traffic::{Moment, Traffic, compute};
use super::volumes::{Volumes, uses};
use super::{ChangeClass, FieldChange, Mark, Step, Work, World};
use crate::model::action::Action;
use crate::model::actual::{ActualContainer, Liveness};
use crate::model::container::Condition;
use crate::model::firewall::Ruleset;
use crate::model::id::{ContainerId, Digest, NetworkId, ResourceName};
use crate::model::image::ImageSource;
use crate::model::record::{ContainerRecord, NetworkRecord};

mod needs;
mod turnover;

pub(super) fn sequence(
    world: &World<'_>,
    networks: &Networks<'_>,
    volumes: &Volumes,
    containers: &Containers<'_>,
) -> Vec<Step> {
    let gone = gone(world, networks, containers);
    let ids = gone.iter().map(|network| network.id.clone()).collect();
    let traffic = compute(world, networks, containers, &ids);
    let mut sequence = Sequence { world, networks, containers, graph: Graph::default(), nodes: Nodes::default() };
    sequence.add_objects(volumes);
    sequence.nodes.orphans = orphans::add(world, containers, &mut sequence.graph);
    sequence.add_beginning(&traffic);
    containers.declared.iter().for_each(|decision| sequence.add_container(decision));
    for container in &containers.removed {
        let reason = match world.desired.containers.contains_key(&container.record.instance.container) {
            true => "fewer replicas are declared",
            false => "no longer declared",
        };
        sequence.add_departure(container, Mark::Remove, reason, subject(&container.record), Stay::Gone);
        if let Some(departure) = sequence.nodes.departures.get(&container.record.id) {
            sequence.graph.step(departure.remove).changes = lost_data(world, container);
        }
    }
    sequence.add_removed_objects(volumes, &gone);
    sequence.link_departures();
    containers.declared.iter().for_each(|decision| sequence.link_container(decision));
    sequence.link_replicas();
    sequence.link_traffic(&traffic);
    sequence.link_orphans();
    sequence.link_images();
    sequence.graph.finish()
}

/// The leaving networks that no container stays on.
fn gone<'a>(world: &World<'_>, networks: &Networks<'a>, containers: &Containers<'_>) -> Vec<&'a NetworkRecord> {
    let departing: BTreeSet<&ContainerId> = containers.departing().map(|c| &c.record.id).collect();
    let staying: Vec<&ContainerRecord> =
        world.actual.containers.values().map(|c| &c.record).filter(|record| !departing.contains(&record.id)).collect();
    let is_used = |id: &NetworkId| staying.iter().any(|record| record.addresses.contains_key(id));
    networks.leaving.iter().copied().filter(|network| !is_used(&network.id)).collect()
}

fn subject(record: &ContainerRecord) -> String {
    format!("container {}", record.instance)
}

/// The steps that others wait for.
#[derive(Default)]
struct Nodes<'a> {
    fetch: BTreeMap<&'a ImageSource, Node>,
    restore: BTreeMap<&'a Digest, Node>,
    volume: BTreeMap<&'a ResourceName, Node>,
    network: BTreeMap<NetworkId, Node>,
    network_gone: Vec<(&'a NetworkRecord, Node)>,
    /// The last step that set it.
    firewall: Option<Node>,
    names: BTreeMap<NetworkId, Node>,
    create: BTreeMap<ContainerId, Node>,
    /// Of containers that are kept.
    stop: BTreeMap<ContainerId, Node>,
    update: BTreeMap<ContainerId, Node>,
    start: BTreeMap<ContainerId, Node>,
    waits: BTreeMap<(ContainerId, Condition), Node>,
    departures: BTreeMap<ContainerId, Departure<'a>>,
    /// What no record names, and the network whose bridge that is.
    orphans: Vec<(Node, Option<NetworkId>)>,
}

#[derive(Clone, Copy)]
struct Departure<'a> {
    container: &'a ActualContainer,
    stop: Option<Node>,
    /// For one that may return: its links go before it does.
    disconnect: Option<Node>,
    remove: Node,
    may_return: bool,
}

impl Departure<'_> {
    fn first(&self) -> Node {
        self.stop.or(self.disconnect).unwrap_or(self.remove)
    }

    /// The step after which its addresses are free, if there is one.
    fn freed(&self) -> Option<Node> {
        if self.may_return { self.disconnect } else { Some(self.remove) }
    }
}

/// What becomes of a container that leaves while it is not known yet whether its successor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stay {
    Gone,
    /// It stops and gives its addresses away, and goes only when the new one has proven itself.
    MayReturn,
}

struct Sequence<'w, 'a> {
    world: &'w World<'a>,
    networks: &'w Networks<'a>,
    containers: &'w Containers<'a>,
    graph: Graph,
    nodes: Nodes<'w>,
}

impl<'w, 'a> Sequence<'w, 'a> {
    fn add_work(&mut self, action: Action, subject: String, work: &Work) -> Node {
        let node = self.graph.add(action, subject, work.mark, work.reason.clone());
        self.graph.step(node).changes = work.changes.clone();
        node
    }

    fn add_objects(&mut self, volumes: &'w Volumes) {
        for (source, work) in &self.containers.images.fetched {
            let action = Action::FetchImage { source: source.clone(), bases: self.world.desired.lock.bases_of(source) };
            let node = self.add_work(action, format!("image {source}"), work);
            self.nodes.fetch.insert(source, node);
        }
        for (id, Restored { subject, work }) in &self.containers.images.restored {
            let node = self.add_work(Action::RestoreImage { id: id.clone() }, subject.clone(), work);
            self.nodes.restore.insert(id, node);
        }
        for (name, (record, work)) in &volumes.declared {
            let action = Action::EnsureVolume { record: record.clone() };
            let node = self.add_work(action, format!("volume {name}"), work);
            self.nodes.volume.insert(name, node);
        }
        for (name, network) in &self.networks.declared {
            if let Some(work) = &network.work {
                let action = Action::EnsureNetwork { record: network.record.clone() };
                let node = self.add_work(action, format!("network {name}"), work);
                self.nodes.network.insert(network.record.id.clone(), node);
            }
        }
    }

    /// What was damaged is a change of its own; the rest follows from what happens to containers and networks.
    fn add_beginning(&mut self, traffic: &Traffic) {
        self.add_moment(&traffic.beginning, "follows from containers and networks", &[]);
        let firewall = self.nodes.firewall.filter(|_| traffic.damage.firewall.is_some());
        let names = self.nodes.names.iter().filter(|(network, _)| traffic.damage.names.contains_key(*network));
        for node in firewall.into_iter().chain(names.map(|(_, node)| *node)) {
            let step = self.graph.step(node);
            step.mark = Mark::Change;
            step.reason = "not what containers and networks call for".to_owned();
        }
    }

    /// Sets what this moment needs, after `cause` and after the moment before. Returns the new steps.
    fn add_moment(&mut self, moment: &Moment, reason: &str, cause: &[Node]) -> Vec<Node> {
        let mut added = Vec::new();
        if let Some(ruleset) = &moment.firewall {
            added.push(self.add_firewall(ruleset, reason, cause));
        }
        for (network, names) in &moment.names {
            let action = Action::SetNames { network: network.clone(), names: names.clone() };
            let node = self.graph.add(action, self.names_of(network), Mark::Run, reason.to_owned());
            self.graph.require(node, self.nodes.network.get(network).copied());
            self.graph.require(node, self.nodes.names.insert(network.clone(), node));
            self.graph.require(node, cause.iter().copied());
            added.push(node);
        }
        added
    }

    fn names_of(&self, network: &NetworkId) -> String {
        let name = self.networks.by_id(network).map_or(network.as_str(), |n| n.record.name.as_str());
        format!("names {name}")
    }

    fn add_firewall(&mut self, ruleset: &Ruleset, reason: &str, cause: &[Node]) -> Node {
        let action = Action::SetFirewall { ruleset: ruleset.clone() };
        let node = self.graph.add(action, "firewall".to_owned(), Mark::Run, reason.to_owned());
        self.graph.require(node, self.nodes.firewall.replace(node));
        self.graph.require(node, cause.iter().copied());
        node
    }

    fn add_container(&mut self, decision: &'w Decision<'a>) {
        let (id, mark) = (decision.record.id.clone(), decision.mark());
        let (goes, why) = match decision.is_new() {
            true => (subject(&decision.record), decision.reason.clone()),
            false => (format!("{} (superseded)", subject(&decision.record)), format!("superseded by {id}")),
        };
        let goes_as = if decision.is_new() { mark } else { Mark::Remove };
        if decision.turnover == Turnover::MakeWay {
            let stay = Stay::Gone;
            decision.leaving.iter().for_each(|old| self.add_departure(old, goes_as, &why, goes.clone(), stay));
        }
        let mut previous = None;
        if decision.is_new() {
            let action = Action::CreateContainer { record: Box::new(decision.record.clone()) };
            let node = self.graph.add(action, subject(&decision.record), mark, decision.reason.clone());
            self.graph.step(node).changes = decision.changes.clone();
            self.nodes.create.insert(id.clone(), node);
            previous = Some(node);
        }
        if let Some(reason) = &decision.stop {
            let action = Action::StopContainer { id: id.clone() };
            let node = self.graph.add(action, subject(&decision.record), mark, reason.clone());
            self.nodes.stop.insert(id.clone(), node);
            previous = Some(node);
        }
        if !decision.is_new() && (!decision.changes.is_empty() || decision.is_accepted()) {
            let action = Action::UpdateContainer { record: Box::new(decision.record.clone()) };
            let node = self.graph.add(action, subject(&decision.record), mark, decision.reason.clone());
            self.graph.step(node).changes = decision.changes.clone();
            self.nodes.update.insert(id.clone(), node);
            // Stopped with its old settings, started with its new ones.
            self.graph.require(node, previous.replace(node));
        }
        if let Some(reason) = &decision.resume {
            let action = Action::ResumeContainer { id: id.clone() };
            let node = self.graph.add(action, subject(&decision.record), mark, reason.clone());
            self.graph.require(node, previous.replace(node));
        }
        if let Some(work) = &decision.connect {
            let action = Action::ConnectContainer { id: id.clone() };
            let node = self.add_work(action, subject(&decision.record), work);
            self.graph.require(node, previous.replace(node));
            let networks = decision.record.addresses.keys().filter_map(|id| self.nodes.network.get(id)).copied();
            self.graph.require(node, networks);
        }
        if decision.turnover != Turnover::MakeWay {
            for old in &decision.leaving {
                let is_fallback =
                    decision.fallback.is_some_and(|fallback| fallback.container.record.id == old.record.id);
                let stay = match (is_fallback, decision.turnover) {
                    (true, Turnover::InPlace) => Stay::MayReturn,
                    (true, Turnover::SideBySide | Turnover::MakeWay) | (false, _) => Stay::Gone,
                };
                self.add_departure(old, goes_as, &why, goes.clone(), stay);
            }
        }
        if let Some(reason) = &decision.start {
            let action = Action::StartContainer { id: id.clone() };
            let node = self.graph.add(action, subject(&decision.record), mark, reason.clone());
            self.graph.require(node, previous);
            self.nodes.start.insert(id, node);
        }
    }

    fn add_departure(&mut self, container: &'w ActualContainer, mark: Mark, reason: &str, subject: String, stay: Stay) {
        let id = &container.record.id;
        let stop = container.liveness.is_up().then(|| {
            let action = Action::StopContainer { id: id.clone() };
            self.graph.add(action, subject.clone(), mark, reason.to_owned())
        });
        let may_return = stay == Stay::MayReturn;
        let disconnect = (may_return && container.liveness != Liveness::Absent).then(|| {
            let action = Action::DisconnectContainer { id: id.clone() };
            self.graph.add(action, subject.clone(), mark, reason.to_owned())
        });
        if let Some(disconnect) = disconnect {
            self.graph.require(disconnect, stop);
        }
        let action = Action::RemoveContainer { id: id.clone() };
        let remove = self.graph.add(action, subject, mark, reason.to_owned());
        self.graph.require(remove, disconnect.or(stop));
        self.nodes.departures.insert(id.clone(), Departure { container, stop, disconnect, remove, may_return });
    }

    fn add_removed_objects(&mut self, volumes: &Volumes, gone: &[&'w NetworkRecord]) {
        let departures: Vec<Departure<'_>> = self.nodes.departures.values().copied().collect();
        for network in gone.iter().copied() {
            let reason = match self.networks.declared.contains_key(&network.name) {
                true => "superseded by another network of this name",
                false => "no longer declared",
            };
            let action = Action::RemoveNetwork { id: network.id.clone() };
            let subject = format!("network {}", network.name);
            let node = self.graph.add(action, subject, Mark::Remove, reason.to_owned());
            let on = departures.iter().filter(|d| d.container.record.addresses.contains_key(&network.id));
            self.graph.require(node, on.map(|departure| departure.remove));
            self.nodes.network_gone.push((network, node));
        }
        for network in self.networks.declared.values().filter(|network| network.is_new()) {
            let Some(node) = self.nodes.network.get(&network.record.id) else { continue };
            let blocking = self.nodes.network_gone.iter();
            let blocking = blocking.filter(|(old, _)| super::networks::overlap(old, &network.record));
            self.graph.require(*node, blocking.map(|(_, gone)| *gone));
        }
        for key in &volumes.leaving {
            let action = Action::RemoveVolume { key: key.clone() };
            let reason = "no longer declared, and confirmed by name".to_owned();
            let node = self.graph.add(action, format!("volume {}", key.name), Mark::Remove, reason);
            self.graph.step(node).changes = vec![FieldChange {
                field: "data".to_owned(),
                old: Some("kept".to_owned()),
                new: Some("removed".to_owned()),
                class: ChangeClass::Data,
            }];
            let users = departures.iter().filter(|departure| uses(self.world, departure.container, key));
            self.graph.require(node, users.map(|departure| departure.remove));
            // As long as a record is there that nobody can read, it is not known whether its container uses the volume.
            self.graph.prefer(node, self.nodes.orphans.iter().map(|(orphan, _)| *orphan));
        }
    }

    /// What goes for good stops behind its dependents; who lends its network namespace goes behind those who use it;
    /// and nothing stops before its traffic is led elsewhere.
    fn link_departures(&mut self) {
        let departures: Vec<Departure<'w>> = self.nodes.departures.values().copied().collect();
        let mut dependents: BTreeMap<&ResourceName, Vec<Node>> = BTreeMap::new();
        for departure in &departures {
            let record = &departure.container.record;
            for name in record.spec.depends_on.keys() {
                dependents.entry(name).or_default().extend(departure.stop);
            }
            let owner = record.network_of.as_ref().and_then(|owner| self.nodes.departures.get(owner));
            if let Some(owner) = owner.copied() {
                self.graph.prefer(owner.first(), [departure.remove]);
            }
        }
        for container in &self.containers.removed {
            let Some(departure) = self.nodes.departures.get(&container.record.id) else { continue };
            if let Some(dependents) = dependents.get(&container.record.instance.container) {
                self.graph.prefer(departure.first(), dependents.iter().copied());
            }
        }
        for departure in &departures {
            let names = departure.container.record.addresses.keys().filter_map(|id| self.nodes.names.get(id));
            let drained: Vec<Node> = self.nodes.firewall.into_iter().chain(names.copied()).collect();
            self.graph.prefer(departure.first(), drained);
        }
    }

    fn link_container(&mut self, decision: &'w Decision<'a>) {
        let record = &decision.record;
        let networks = record.addresses.keys().filter_map(|id| self.nodes.network.get(id));
        let volumes = record.spec.volumes().filter_map(|name| self.nodes.volume.get(name));
        let mut image = record.image.iter().filter_map(|id| self.nodes.restore.get(id));
        let restore = image.next().copied();
        let objects: Vec<Node> = networks.chain(volumes).copied().chain(restore).collect();
        let fetch = self.nodes.fetch.get(&record.spec.image).copied();
        let create = self.nodes.create.get(&record.id).copied();
        if let Some(create) = create {
            self.graph.require(create, objects.iter().copied().chain(fetch));
        }
        let mut needs = Vec::new();
        if let Some(start) = self.nodes.start.get(&record.id).copied() {
            needs = self.needs(decision);
            let names = record.addresses.keys().filter_map(|id| self.nodes.names.get(id));
            let ready: Vec<Node> = objects
                .into_iter()
                .chain(needs.iter().copied())
                .chain(self.nodes.firewall)
                .chain(names.copied())
                .collect();
            // It goes on running until nothing that its start waits for can fail any more.
            self.nodes.stop.get(&record.id).iter().for_each(|stop| self.graph.prefer(**stop, ready.iter().copied()));
            self.graph.require(start, ready);
            let in_its_place = self.nodes.departures.values().filter(|d| collide(&d.container.record, record));
            self.graph.require(start, in_its_place.filter_map(Departure::freed));
        }
        let leaving = decision.leaving.iter().filter_map(|old| self.nodes.departures.get(&old.record.id));
        for old in leaving.copied().collect::<Vec<_>>() {
            match decision.turnover {
                Turnover::MakeWay => self.graph.require(old.first(), fetch.into_iter().chain(restore)),
                Turnover::InPlace => {
                    self.graph.require(old.first(), create);
                    self.graph.prefer(old.first(), needs.iter().copied());
                }
                // Linked where the traffic is switched.
                Turnover::SideBySide => {}
            }
            if let (Some(start), false) = (self.nodes.start.get(&record.id), decision.turnover == Turnover::SideBySide)
            {
                self.graph.require(*start, old.freed());
            }
        }
    }

    /// What starts, also where an update goes back, has an image that is whole.
    fn link_images(&mut self) {
        let starts = self.graph.all().filter_map(|(node, step)| match &step.action {
            Action::StartContainer { id } => Some((node, self.world.actual.containers.get(id)?.record.image.as_ref()?)),
            _ => None,
        });
        let waits: Vec<(Node, Node)> =
            starts.filter_map(|(node, id)| Some((node, *self.nodes.restore.get(id)?))).collect();
        waits.into_iter().for_each(|(start, restore)| self.graph.require(start, [restore]));
    }

    /// What no record names may hold addresses, ports and subnets that nothing knows of: what comes waits for its end.
    fn link_orphans(&mut self) {
        for (orphan, network) in &self.nodes.orphans {
            let on = self.nodes.departures.values();
            let on = on.filter(|d| network.as_ref().is_some_and(|id| d.container.record.addresses.contains_key(id)));
            self.graph.require(*orphan, on.map(|departure| departure.remove));
            let comes = self.nodes.start.values().chain(self.nodes.network.values());
            comes.for_each(|node| self.graph.prefer(*node, [*orphan]));
        }
    }
}
