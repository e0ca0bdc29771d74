//! Firewall and names at every moment of a plan.
//!
//! Both follow from records by pure functions ([`Ruleset::of`], [`NameTable::of`]); the only question is which
//! records, when:
//!
//! ```text
//! beginning   what will be, except that a start-first replacement that is not ready is still its old container
//! switch      one for each start-first replacement, in order, when it is ready
//! end         networks that are gone are forgotten
//! ```
//!
//! A moment that differs from the one before in nothing has no step, so most plans have one step or none.
//!
//! An update in place has its traffic from the beginning, so a failure puts it back: where the beginning is all that is set,
//! and for one declared container. Several may fail in any combination, of which no plan can know, and a later moment would
//! set it forward again: then it is the next plan that puts it back.
//!
//! # Decisions
//! A container that goes loses its traffic before it stops, not after: new connections go to the other replicas and
//! none meets a process that is ending. A container that comes gets its rules before it starts, since its addresses
//! are known. One that is declared stopped has neither names nor ports.
//!
//! The firewall is one table for the whole state root, so its rules are computed over all projects; names only for
//! networks of this one. A container that nobody declares has traffic while it is up: what is not declared cannot be
//! expected back.
//!
//! Rules and names of a container or a network whose record this version cannot read stay as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::World;
use super::containers::Containers;
use super::decision::{Decision, Turnover};
use super::networks::Networks;
use super::orphans::is_left;
use crate::model::actual::ActualContainer;
use crate::model::container::RunState;
use crate::model::firewall::{PortTargets, Ruleset};
use crate::model::id::{ContainerId, NetworkId, Whose};
use crate::model::names::NameTable;
use crate::model::record::{Addresses, ContainerRecord, NetworkRecord};
use crate::model::unreadable::{Cause, Object};

/// What has to be set at one moment; nothing where it is so already.
pub(super) struct Moment {
    pub firewall: Option<Ruleset>,
    pub names: BTreeMap<NetworkId, NameTable>,
}

impl Moment {
    fn is_empty(&self) -> bool {
        self.firewall.is_none() && self.names.is_empty()
    }
}

/// The moments of a plan.
pub(super) struct Traffic {
    /// What is not as the records of this host call for, before anything is done: somebody changed it, or a boot or a
    /// cut plan left it so.
    pub damage: Moment,
    pub beginning: Moment,
    /// By the container that becomes ready.
    pub switches: Vec<(ContainerId, Moment)>,
    pub end: Option<Ruleset>,
    /// By the container whose update in place fails.
    pub returns: BTreeMap<ContainerId, Moment>,
}

pub(super) fn compute(
    world: &World<'_>,
    networks: &Networks<'_>,
    containers: &Containers<'_>,
    gone: &BTreeSet<NetworkId>,
) -> Traffic {
    let mut now = Now {
        foreign: unaccounted(world),
        foreign_names: unaccounted_names(world),
        firewall: world.actual.firewall.clone(),
        names: world.actual.networks.iter().map(|(id, network)| (id.clone(), network.names.clone())).collect(),
    };
    let damage = now.clone().advance(&Serving::present(world), networks);
    let mut serving = Serving::beginning(world, networks, containers);
    let beginning = now.advance(&serving, networks);
    let returns = returns(&now, &serving, networks, containers);
    let mut switches = Vec::new();
    for decision in containers.declared.iter().filter(|decision| decision.waits_for_traffic()) {
        serving.switch(decision);
        switches.push((decision.record.id.clone(), now.advance(&serving, networks)));
    }
    serving.networks.retain(|id, _| !gone.contains(id));
    let end = now.advance(&serving, networks).firewall;
    let is_set_once = end.is_none() && switches.iter().all(|(_, moment)| moment.is_empty());
    let returns = if is_set_once { returns } else { BTreeMap::new() };
    Traffic { damage, beginning, switches, end, returns }
}

/// Replicas have their turns one after another: when one fails, it and those behind it are what they were.
fn returns(
    now: &Now,
    serving: &Serving<'_>,
    networks: &Networks<'_>,
    containers: &Containers<'_>,
) -> BTreeMap<ContainerId, Moment> {
    let in_place = containers.declared.iter().filter(|decision| decision.turnover == Turnover::InPlace);
    let turns: Vec<(&Decision<'_>, ContainerRecord)> =
        in_place.filter_map(|decision| Some((decision, decision.way_back()?))).collect();
    let names: BTreeSet<_> = turns.iter().map(|(decision, _)| decision.name()).collect();
    if names.len() > 1 {
        return BTreeMap::new();
    }
    let mut returns = BTreeMap::new();
    for (at, (failing, _)) in turns.iter().enumerate() {
        let mut back = Serving { networks: serving.networks.clone(), containers: serving.containers.clone() };
        for (decision, old) in &turns[at..] {
            back.containers.remove(&decision.record.id);
            back.containers.insert(&old.id, old);
        }
        let moment = now.clone().advance(&back, networks);
        if !moment.is_empty() {
            returns.insert(failing.record.id.clone(), moment);
        }
    }
    returns
}

/// The records that traffic follows from.
struct Serving<'a> {
    networks: BTreeMap<&'a NetworkId, &'a NetworkRecord>,
    containers: BTreeMap<&'a ContainerId, &'a ContainerRecord>,
}

impl<'a> Serving<'a> {
    fn present(world: &World<'a>) -> Serving<'a> {
        let networks = world.actual.networks.values().map(|network| (&network.record.id, &network.record));
        let containers = world.actual.containers.values().filter(|container| may_serve(container));
        let containers = containers.map(|container| (&container.record.id, &container.record));
        Serving { networks: networks.collect(), containers: containers.collect() }
    }

    fn beginning(world: &World<'a>, networks: &'a Networks<'_>, containers: &'a Containers<'a>) -> Serving<'a> {
        let departing: BTreeSet<&ContainerId> = containers.departing().map(|c| &c.record.id).collect();
        let mut serving = Serving::present(world);
        serving.containers.retain(|id, _| !departing.contains(id));
        serving.networks.extend(networks.declared.values().map(|network| (&network.record.id, &network.record)));
        for decision in &containers.declared {
            let serves = match decision.leaving.first() {
                Some(old) if decision.waits_for_traffic() => &old.record,
                _ => &decision.record,
            };
            // A kept record that is not ready gives way to the old one like a new one does.
            serving.containers.remove(&decision.record.id);
            if decision.start.is_some() || decision.kept.is_none_or(may_serve) {
                serving.containers.insert(&serves.id, serves);
            }
        }
        serving
    }

    fn switch(&mut self, decision: &'a Decision<'_>) {
        for old in &decision.leaving {
            self.containers.remove(&old.record.id);
        }
        self.containers.insert(&decision.record.id, &decision.record);
    }

    fn containers(&self) -> impl Iterator<Item = &'a ContainerRecord> {
        self.containers.values().copied().filter(|record| record.spec.state == RunState::Running)
    }
}

/// Rules in the kernel that follow from no record that can be read, where some cannot be read: they are of containers and
/// networks that go on.
pub(super) fn unaccounted(world: &World<'_>) -> Ruleset {
    let Some(set) = &world.actual.firewall else { return Ruleset::default() };
    if !is_unaccounted_for(world) {
        return Ruleset::default();
    }
    let known4: BTreeSet<Ipv4Addr> = addresses(world).map(|addresses| addresses.v4).collect();
    let known6: BTreeSet<Ipv6Addr> = addresses(world).filter_map(|addresses| addresses.v6).collect();
    let mut foreign = set.clone();
    foreign.networks.retain(|id, _| !world.actual.networks.contains_key(id));
    for targets in foreign.ports.values_mut() {
        targets.v4.retain(|target| !known4.contains(target.ip()));
        targets.v6.retain(|target| !known6.contains(target.ip()));
    }
    foreign.ports.retain(|_, targets| *targets != PortTargets::default());
    foreign
}

/// The same of names: those of addresses that no record has which can be read.
fn unaccounted_names(world: &World<'_>) -> BTreeMap<NetworkId, NameTable> {
    if !is_unaccounted_for(world) {
        return BTreeMap::new();
    }
    let both = |addresses: &Addresses| [Some(addresses.v4.into()), addresses.v6.map(IpAddr::from)];
    let known: BTreeSet<IpAddr> = addresses(world).flat_map(both).flatten().collect();
    let tables = world.actual.networks.iter().map(|(id, network)| {
        let mut table = network.names.clone();
        table.names.values_mut().for_each(|addresses| addresses.retain(|address| !known.contains(address)));
        table.names.retain(|_, addresses| !addresses.is_empty());
        (id.clone(), table)
    });
    tables.collect()
}

/// Whether there may be traffic of which no record tells that can be read.
fn is_unaccounted_for(world: &World<'_>) -> bool {
    world.actual.unreadable.iter().any(|record| match record.object {
        Object::Container(_) | Object::Network(_) => record.cause != Cause::Damaged || is_left(world, record),
        Object::Volume(_) => false,
    })
}

fn addresses<'a>(world: &World<'a>) -> impl Iterator<Item = &'a Addresses> {
    world.actual.containers.values().flat_map(|container| container.record.addresses.values())
}

/// What is declared holds its addresses and ports whether it is up or not; what is not, while it is up.
pub(super) fn may_serve(container: &ActualContainer) -> bool {
    container.record.project != Whose::Nobody || container.liveness.is_up()
}

/// What is set, moment by moment.
#[derive(Clone)]
struct Now {
    foreign: Ruleset,
    foreign_names: BTreeMap<NetworkId, NameTable>,
    firewall: Option<Ruleset>,
    names: BTreeMap<NetworkId, NameTable>,
}

impl Now {
    fn advance(&mut self, serving: &Serving<'_>, networks: &Networks<'_>) -> Moment {
        let mut wanted = Ruleset::of(serving.networks.values().copied(), serving.containers());
        for (id, rules) in &self.foreign.networks {
            wanted.networks.entry(id.clone()).or_insert_with(|| rules.clone());
        }
        for (port, targets) in &self.foreign.ports {
            let all = wanted.ports.entry(*port).or_default();
            all.v4.extend(&targets.v4);
            all.v6.extend(&targets.v6);
        }
        let is_set = match &self.firewall {
            Some(set) => *set == wanted,
            // No table and no rules are the same to every packet.
            None => wanted == Ruleset::default(),
        };
        let firewall = (!is_set).then(|| self.firewall.insert(wanted).clone());
        let mut names = BTreeMap::new();
        for network in networks.declared.values() {
            let NetworkRecord { id, name, .. } = &network.record;
            let mut wanted = NameTable::of(id, name.as_str(), serving.containers());
            for (name, addresses) in self.foreign_names.get(id).into_iter().flat_map(|table| &table.names) {
                wanted.names.entry(name.clone()).or_default().extend(addresses);
            }
            if self.names.get(id).unwrap_or(&NameTable::default()) != &wanted {
                self.names.insert(id.clone(), wanted.clone());
                names.insert(id.clone(), wanted);
            }
        }
        Moment { firewall, names }
    }
}
