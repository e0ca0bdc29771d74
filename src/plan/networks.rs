//! What each declared network becomes, and which networks go.
//!
//! A network is its subnet: one with another subnet is another network with another identifier, and its containers
//! are replaced, since addresses are part of what they are. Everything else about it is live. When a crash left two
//! records of one name, the one that fits the manifest and has most containers stays.

use std::collections::BTreeMap;

use super::notation::Notation;
use super::traffic::unaccounted;
use super::{ChangeClass, FieldChange, Findings, Mark, Work, World, diff};
use crate::model::actual::Forwards;
use crate::model::id::{Ids, NetworkId, ResourceName};
use crate::model::network::{NetworkSpec, Subnet};
use crate::model::record::{NetworkRecord, RECORD_VERSION};
use crate::model::subnets::{Pool, choose};

pub(super) struct Networks<'a> {
    pub declared: BTreeMap<ResourceName, Network>,
    /// No longer declared, or superseded by another record of the same name.
    pub leaving: Vec<&'a NetworkRecord>,
}

pub(super) struct Network {
    /// As it will be.
    pub record: NetworkRecord,
    pub work: Option<Work>,
    /// Its running containers' links have to be looked at again: the bridge is made anew, or a setting changed that
    /// links and routes carry.
    pub reconnect: bool,
}

impl Network {
    pub fn is_new(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.mark == Mark::Create)
    }
}

impl Networks<'_> {
    /// The record, as it will be, of a network that this plan is about.
    pub fn by_id(&self, id: &NetworkId) -> Option<&Network> {
        self.declared.values().find(|network| network.record.id == *id)
    }

    pub fn by_name(&self, name: &str) -> Option<&Network> {
        self.declared.iter().find(|(declared, _)| declared.as_str() == name).map(|(_, network)| network)
    }

    /// Whether this network has to go before a new one can come, because their subnets overlap.
    pub fn is_in_the_way(&self, record: &NetworkRecord) -> bool {
        let mut new = self.declared.values().filter(|network| network.is_new());
        new.any(|network| overlap(&network.record, record))
    }
}

pub(super) fn overlap(a: &NetworkRecord, b: &NetworkRecord) -> bool {
    let six = a.subnet6.zip(b.subnet6).is_some_and(|(a, b)| a.overlaps(&b));
    a.subnet.overlaps(&b.subnet) || six
}

pub(super) fn decide<'a>(world: &World<'a>, ids: &mut Ids, findings: &mut Findings) -> Networks<'a> {
    let mut networks = Networks { declared: BTreeMap::new(), leaving: Vec::new() };
    let mut subnets = Subnets::of(world);
    for name in world.scope.networks(world.desired, world.actual) {
        let Some(spec) = world.desired.networks.get(name) else { continue };
        let mut present = of_name(world, name);
        let network = match present.iter().position(|record| fits(world, record, spec)) {
            Some(at) => kept(world, present.remove(at), spec),
            None => {
                let subnet = spec.subnet.or_else(|| subnets.take()).unwrap_or_else(|| no_subnet(name, findings));
                let record = NetworkRecord {
                    version: RECORD_VERSION,
                    id: fresh(world, ids),
                    project: world.desired.project.clone(),
                    name: name.clone(),
                    spec: spec.clone(),
                    subnet,
                    subnet6: spec.subnet6,
                };
                created(record, present.first().copied())
            }
        };
        networks.leaving.extend(present);
        networks.declared.insert(name.clone(), network);
    }
    for (name, id) in &world.desired.borrowed.networks {
        // One that went away meanwhile is missing from the list, and whoever wants to be on it is refused.
        if let Some(lender) = world.actual.networks.get(id) {
            let network = Network { record: lender.record.clone(), work: None, reconnect: false };
            networks.declared.insert(name.clone(), network);
        }
    }
    let own = world.actual.networks.values().map(|network| &network.record);
    let is_undeclared = |record: &&NetworkRecord| {
        record.project == world.desired.project
            && !world.desired.networks.contains_key(&record.name)
            && world.scope.lets_go(&record.name)
    };
    networks.leaving.extend(own.filter(is_undeclared));
    make_router(world, &mut networks, findings);
    networks
}

/// The first network that leads out makes a router of the host, for all its links: said where it is brought about. Where a
/// network was there already, that the host is none any more is drift of it.
fn make_router(world: &World<'_>, networks: &mut Networks<'_>, findings: &mut Findings) {
    let Forwards { v4, v6 } = world.actual.host.forwards;
    for (key, is_on) in [("net.ipv4.ip_forward", v4), ("net.ipv6.conf.all.forwarding", v6)] {
        let is_ipv6 = key.contains("ipv6");
        let is_one = |record: &NetworkRecord| !record.spec.internal && (!is_ipv6 || record.subnet6.is_some());
        let open = networks.declared.values_mut().filter(|network| is_one(&network.record));
        let Some(work) = open.filter_map(|network| network.work.as_mut()).next().filter(|_| !is_on) else { continue };
        let field = format!("sysctl {key}");
        if work.changes.iter().all(|change| change.field != field) {
            let (old, new) = (Some("0".to_owned()), Some("1".to_owned()));
            work.changes.push(FieldChange { field, old, new, class: ChangeClass::Live });
        }
        let listens = match is_ipv6 {
            true => "; links that listen to router advertisements go on doing so (`accept_ra` of 1 becomes 2)",
            false => "",
        };
        findings.warn(format!(
            "this host becomes a router: with {key} it lets packets pass between all its links, unless a firewall says \
             otherwise, also when its networks are gone{listens}"
        ));
    }
}

fn fresh(world: &World<'_>, ids: &mut Ids) -> NetworkId {
    loop {
        let id = ids.network();
        if !world.actual.networks.contains_key(&id) {
            return id;
        }
    }
}

/// The plan is refused; the subnet only keeps its form.
fn no_subnet(name: &ResourceName, findings: &mut Findings) -> Subnet {
    findings.impossible(
        format!("network {name}"),
        "no free subnet is left: the host's routes and other networks cover every pool",
        "declare one: `subnet = \"192.168.77.0/24\"`",
    );
    Pool::defaults()[0].range
}

/// The records of this name, the one with most containers first.
fn of_name<'a>(world: &World<'a>, name: &ResourceName) -> Vec<&'a NetworkRecord> {
    let containers = |id: &NetworkId| {
        let records = world.actual.containers.values().map(|container| &container.record);
        records.filter(|record| record.addresses.contains_key(id)).count()
    };
    let records = world.actual.networks.values().map(|network| &network.record);
    let mut present: Vec<&NetworkRecord> =
        records.filter(|record| record.project == world.desired.project && record.name == *name).collect();
    // The sort is stable, so equal counts stay in the order of identifiers.
    present.sort_by_key(|record| std::cmp::Reverse(containers(&record.id)));
    present
}

/// Whether this record can become what is declared. One whose subnet was chosen gives way to a network that declares
/// the same addresses.
fn fits(world: &World<'_>, record: &NetworkRecord, spec: &NetworkSpec) -> bool {
    let is_wanted = spec.subnet.is_none_or(|subnet| subnet == record.subnet) && spec.subnet6 == record.subnet6;
    let others = world.desired.networks.iter().filter(|(name, _)| **name != record.name);
    let mut declared = others.filter_map(|(_, spec)| spec.subnet);
    is_wanted && (spec.subnet.is_some() || !declared.any(|subnet| subnet.overlaps(&record.subnet)))
}

fn kept(world: &World<'_>, record: &NetworkRecord, spec: &NetworkSpec) -> Network {
    let changes = diff::network(&record.spec, spec);
    let drift = world.actual.networks.get(&record.id).map_or(&[][..], |network| &network.drift);
    let wanted = NetworkRecord { version: RECORD_VERSION, spec: spec.clone(), ..record.clone() };
    let is_live = changes.iter().any(|change| change.class == ChangeClass::Live);
    Network { record: wanted, work: Work::of(changes, drift), reconnect: is_live || !drift.is_empty() }
}

fn created(record: NetworkRecord, old: Option<&NetworkRecord>) -> Network {
    let reason = match old {
        Some(_) => "another subnet is another network".to_owned(),
        None => "declared, not there".to_owned(),
    };
    let work = Work { mark: Mark::Create, reason, changes: shown(&record, old) };
    Network { record, work: Some(work), reconnect: false }
}

/// What a plan shows of a new network.
fn shown(record: &NetworkRecord, old: Option<&NetworkRecord>) -> Vec<FieldChange> {
    let class = if old.is_some() { ChangeClass::Replace } else { ChangeClass::None };
    let field = |name: &str, old: Option<Subnet>, new: Option<Subnet>| {
        let (old, new) = (old.map(|s| s.notation()), new.map(|s| s.notation()));
        (old != new).then(|| FieldChange { field: name.to_owned(), old, new, class })
    };
    let subnets = [
        field("subnet", old.map(|old| old.subnet), Some(record.subnet)),
        field("subnet6", old.and_then(|old| old.subnet6), record.subnet6),
    ];
    let rest = diff::network(&NetworkSpec::default(), &record.spec).into_iter();
    let rest = rest.filter(|change| !change.field.starts_with("subnet"));
    let rest = rest.map(|change| FieldChange { old: None, class: ChangeClass::None, ..change });
    subnets.into_iter().flatten().chain(rest).collect()
}

/// Hands out subnets that nothing uses: no route of the host, no network of any project, whether its record can be read or
/// not, no declared subnet.
struct Subnets {
    used: Vec<Subnet>,
}

impl Subnets {
    fn of(world: &World<'_>) -> Subnets {
        let routes = world.actual.host.routes.iter().copied();
        let networks = world.actual.networks.values().map(|network| network.record.subnet);
        let declared = world.desired.networks.values().filter_map(|spec| spec.subnet);
        let unaccounted = unaccounted(world).networks.into_values().map(|rules| rules.subnet);
        Subnets { used: routes.chain(networks).chain(declared).chain(unaccounted).collect() }
    }

    fn take(&mut self) -> Option<Subnet> {
        let subnet = choose(&Pool::defaults(), self.used.iter().copied())?;
        self.used.push(subnet);
        Some(subnet)
    }
}
