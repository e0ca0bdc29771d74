//! What must not be done, what cannot be done, and what a reader should know.
//!
//! Only what this plan would bring about is looked at: a converged project gives no refusal, whatever became of the host
//! since. The parser has already refused what is wrong with the manifest alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::containers::{Containers, lost_data};
use super::decision::Decision;
use super::images::config;
use super::liveness::controller_of;
use super::networks::{Networks, overlap};
use super::traffic::unaccounted;
use super::waits::{Check, check as health_check};
use super::{ChangeClass, FieldChange, Findings, MassRemoval, Refusal, RefusalKind, World, diff, orphans, ports};
use crate::model::container::{CapabilitySet, Condition};
use crate::model::id::{Instance, NetworkId, Whose};
use crate::model::network::NetworkMode;
use crate::model::record::Addresses;
use crate::model::resources::{Resources, Ulimit};
use crate::model::security::Users;
use crate::model::unreadable::{Cause, Name, Object, Unreadable};

/// From how many containers on removing more than half of them asks for consent.
const MASS: usize = 4;

pub(super) fn check(world: &World<'_>, networks: &Networks<'_>, containers: &Containers<'_>, findings: &mut Findings) {
    targets(world, findings);
    mass_removal(world, containers, findings);
    without_record(world, findings);
    unreadable(world, networks, containers, findings);
    subnets(world, networks, containers, findings);
    forwarding(world, networks, findings);
    lent_networks(world, networks, findings);
    data_of_removed(world, containers, findings);
    for decision in &containers.declared {
        ports::check(world, networks, containers, decision, findings);
        if decision.is_new() || decision.start.is_some() || !decision.changes.is_empty() {
            limits(world, decision, findings);
        }
        if decision.is_new() {
            addresses(world, networks, containers, decision, findings);
            data(world, decision, findings);
        }
        if decision.start.is_some() {
            capabilities(world, decision, findings);
            dependencies(world, decision, findings);
        }
    }
}

fn targets(world: &World<'_>, findings: &mut Findings) {
    for name in &world.policy.targets {
        let mut own = world.actual.containers.values().filter(|c| c.record.project == world.desired.project);
        let exists = own.any(|c| c.record.instance.container == *name);
        if !exists && !world.desired.containers.contains_key(name) {
            let known: Vec<&str> = world.desired.containers.keys().map(|name| name.as_str()).collect();
            let hint = format!("declared are: {}", known.join(", "));
            findings.impossible(format!("container {name}"), "no container of this name is declared", hint);
        }
    }
}

/// A manifest that was cut short, or the wrong one, takes most of a project away. Replicas that are fewer than before
/// were asked for by number: they do not count.
fn mass_removal(world: &World<'_>, containers: &Containers<'_>, findings: &mut Findings) {
    let own = world.actual.containers.values().filter(|c| c.record.project == world.desired.project);
    let present: BTreeSet<&Instance> = own.map(|c| &c.record.instance).collect();
    let removed = containers.removed.iter().map(|c| &c.record.instance);
    let removed: BTreeSet<&Instance> =
        removed.filter(|instance| !world.desired.containers.contains_key(&instance.container)).collect();
    let is_mass = present.len() >= MASS && removed.len() * 2 > present.len();
    if is_mass && world.policy.mass_removal == MassRemoval::Refuse {
        findings.refusals.push(Refusal {
            subject: format!("project {}", world.desired.project),
            reason: format!("{} of its {} containers would be removed", removed.len(), present.len()),
            hint: "if that is meant: --allow-mass-removal".to_owned(),
            kind: RefusalKind::Guard,
        });
    }
}

/// A network that goes stays as long as somebody is on it who is not asked to leave.
fn lent_networks(world: &World<'_>, networks: &Networks<'_>, findings: &mut Findings) {
    for network in &networks.leaving {
        let mut others = world.actual.containers.values().filter(|c| c.record.project != world.desired.project);
        if let Some(guest) = others.find(|c| c.record.addresses.contains_key(&network.id)) {
            let guest = format!("container {}{}", guest.record.instance, of_whom(&guest.record.project));
            findings.warn(format!("network {} stays: {guest}, is on it", network.name));
        }
    }
}

/// A state root that is empty because its disk is not mounted makes every container an orphan.
fn without_record(world: &World<'_>, findings: &mut Findings) {
    for id in orphans::unclaimed(world) {
        findings.warn(format!(
            "container {id} has files and no record that tells whose it was: it stays, since other projects are here; if \
             nobody misses it, remove its directory from `containers` in the state root"
        ));
    }
    let orphans = orphans::containers(world).count();
    let own = world.actual.containers.values().filter(|c| c.record.project == world.desired.project);
    let all = own.count() + orphans;
    if all >= MASS && orphans * 2 > all && world.policy.mass_removal == MassRemoval::Refuse {
        findings.refusals.push(Refusal {
            subject: format!("project {}", world.desired.project),
            reason: format!("{orphans} of its {all} containers have no record that can be read and would be removed"),
            hint: "is the state root mounted? If their records were removed on purpose: --allow-mass-removal"
                .to_owned(),
            kind: RefusalKind::Guard,
        });
    }
}

/// What is damaged is put right. What another version wrote, or the disk does not give, is not taken for gone: whoever
/// it may be of has to look first. The others go on: after a boot nothing else starts them.
fn unreadable(world: &World<'_>, networks: &Networks<'_>, containers: &Containers<'_>, findings: &mut Findings) {
    for record in &world.actual.unreadable {
        let may_be_ours = record.project.as_ref().is_none_or(|project| *project == world.desired.project);
        let subjects = match record.cause {
            Cause::Newer | Cause::Unreachable if may_be_ours => in_question(world, networks, containers, record),
            Cause::Damaged | Cause::Newer | Cause::Unreachable => Vec::new(),
        };
        if subjects.is_empty() {
            findings.warn(record.to_string());
        }
        for subject in subjects {
            findings.impossible(subject, &record.problem, record.next_step());
        }
    }
}

/// What this plan says nothing true of as long as `record` cannot be read: the object itself, and where nothing tells which
/// one that is, each that would be made because no record names it.
fn in_question(
    world: &World<'_>,
    networks: &Networks<'_>,
    containers: &Containers<'_>,
    record: &Unreadable,
) -> Vec<String> {
    let Some(name) = &record.name else {
        let new_containers = || {
            let new = containers.declared.iter().filter(|decision| decision.is_new() && decision.leaving.is_empty());
            new.map(|decision| format!("container {}", decision.record.instance)).collect()
        };
        let new_networks = || {
            let new = networks.declared.iter().filter(|(_, network)| network.is_new());
            new.map(|(name, _)| format!("network {name}")).collect()
        };
        return match &record.object {
            Object::Container(_) => new_containers(),
            Object::Network(_) => new_networks(),
            Object::Volume(_) => Vec::new(),
        };
    };
    let is_in_scope = match name {
        Name::Container(instance) => world.scope.holds(&instance.container),
        Name::Network(name) => networks.declared.contains_key(name) || world.scope.lets_go(name),
        Name::Volume(name) => world.scope.is_whole() || world.scope.volumes(world.desired).contains(name),
    };
    if is_in_scope { vec![name.to_string()] } else { Vec::new() }
}

/// A new network must not cover addresses that the host reaches elsewhere, or another network has.
fn subnets(world: &World<'_>, networks: &Networks<'_>, containers: &Containers<'_>, findings: &mut Findings) {
    let departing: BTreeSet<_> = containers.departing().map(|c| &c.record.id).collect();
    let stays_used = |id| {
        let mut staying = world.actual.containers.values().filter(|c| !departing.contains(&c.record.id));
        staying.any(|c| c.record.addresses.contains_key(id))
    };
    for (name, network) in networks.declared.iter().filter(|(_, network)| network.is_new()) {
        let record = &network.record;
        let subject = format!("network {name}");
        let hint = "choose another subnet, or leave `subnet` out";
        let declared = [record.spec.subnet, record.spec.subnet6];
        for subnet in declared.into_iter().flatten() {
            // A default route covers everything and claims nothing.
            let mut routes = world.actual.host.routes.iter().filter(|route| route.prefix() > 0);
            if let Some(route) = routes.find(|route| route.overlaps(&subnet)) {
                findings.impossible(&subject, format!("{subnet} overlaps the host's route to {route}"), hint);
            }
        }
        for (id, other) in unaccounted(world).networks {
            if other.subnet.overlaps(&record.subnet) {
                let reason = format!("{} overlaps network {id}, whose record cannot be read", record.subnet);
                findings.impossible(&subject, reason, hint);
            }
        }
        for other in world.actual.networks.values().map(|network| &network.record) {
            let leaves = networks.leaving.iter().any(|leaving| leaving.id == other.id) && !stays_used(&other.id);
            if overlap(record, other) && !leaves {
                let whose = format!("network {}{}", other.name, of_whom(&other.project));
                findings.impossible(&subject, format!("{} overlaps {whose}", record.subnet), hint);
            }
        }
    }
}

/// Another firewall has its say after ours, and its rules cannot be judged from here: a new network gets a word of it.
fn forwarding(world: &World<'_>, networks: &Networks<'_>, findings: &mut Findings) {
    let opens = networks.declared.values().any(|network| network.is_new() && !network.record.spec.internal);
    for chain in world.actual.host.forward_drops.iter().filter(|_| opens) {
        findings.warn(format!(
            "the firewall's chain `{chain}` drops what it does not accept: containers reach the outside, and are reached on \
             published ports, only if it accepts links named `ek*`, such as by: nft insert rule {chain} iifname \"ek*\" accept, \
             and the same with oifname"
        ));
    }
}

pub(super) fn of_whom(whose: &Whose) -> String {
    match whose {
        Whose::Nobody => ", which `evenkeel run` made".to_owned(),
        Whose::Project(project) => format!(" of project {project}"),
    }
}

/// What would lose data is refused until it is confirmed by name. A container that is new is only spoken of, so that it
/// gets its volume before it has data.
fn data(world: &World<'_>, decision: &Decision<'_>, findings: &mut Findings) {
    let subject = format!("container {}", decision.record.instance);
    // Who runs something once by hand knows that it goes.
    if decision.leaving.is_empty() && world.desired.project != Whose::Nobody {
        let config = config(world, &decision.spec().image);
        for path in config.map(|config| config.unmounted_volumes(&decision.spec().mounts)).unwrap_or_default() {
            let text = "its image keeps data there, and nothing is mounted: the data goes with the container";
            findings.warn(format!("{subject}: {path}: {text}"));
        }
    }
    consent(world, &decision.record.instance, "replacing", &decision.changes, findings);
}

/// A container that is not declared any more, or a replica that is one too many, has its data like one that is replaced.
/// Who removes by hand what was run by hand said so, as did who allows that all of a project goes (`down`).
fn data_of_removed(world: &World<'_>, containers: &Containers<'_>, findings: &mut Findings) {
    let all_may_go = world.desired.containers.is_empty() && world.policy.mass_removal == MassRemoval::Allow;
    if all_may_go || world.desired.project == Whose::Nobody {
        return;
    }
    for container in &containers.removed {
        consent(world, &container.record.instance, "removing", &lost_data(world, container), findings);
    }
}

fn consent(world: &World<'_>, instance: &Instance, doing: &str, changes: &[FieldChange], findings: &mut Findings) {
    let name = &instance.container;
    let lost: Vec<&str> =
        changes.iter().filter(|change| change.class == ChangeClass::Data).map(|c| c.field.as_str()).collect();
    if !lost.is_empty() && !world.policy.expendable_data.contains(name) {
        findings.refusals.push(Refusal {
            subject: format!("container {instance}"),
            reason: format!("{doing} it loses its {}", lost.join(", ")),
            hint: format!("copy it to a volume that is mounted there, or give it up: --discard-data {name}"),
            kind: RefusalKind::Guard,
        });
    }
}

/// Limits need their cgroup controller; rlimits end at the host's hard limit.
fn limits(world: &World<'_>, decision: &Decision<'_>, findings: &mut Findings) {
    let host = &world.actual.host;
    let subject = format!("container {}", decision.record.instance);
    for limit in diff::limits(&Resources::default(), &decision.spec().resources) {
        if let Some(controller) = controller_of(&limit.field).filter(|c| !host.controllers.contains(*c)) {
            findings.impossible(
                &subject,
                format!("`{}` needs the cgroup controller `{controller}`, which this host does not offer", limit.field),
                "mount or delegate the controller, or take the limit out",
            );
        }
    }
    for (name, Ulimit { soft: _, hard }) in &decision.spec().ulimits {
        let Some(ceiling) = host.hard_limits.get(name) else { continue };
        if hard.is_none_or(|hard| hard > *ceiling) {
            let wanted = hard.map_or_else(|| "unlimited".to_owned(), |hard| hard.to_string());
            findings.warn(format!(
                "{subject} gets `ulimits.{name}` of {ceiling} in place of {wanted}: this host's hard limit"
            ));
        }
    }
}

/// Capabilities that this host cannot give are cut, and the plan says so. Over users of its own a container may have
/// all.
fn capabilities(world: &World<'_>, decision: &Decision<'_>, findings: &mut Findings) {
    if decision.spec().users != Users::Host {
        if let Some(why) = &world.actual.host.no_users {
            let subject = format!("container {}", decision.record.instance);
            let hint = "write `userns = \"host\"`, without the hardened profile";
            findings.impossible(subject, format!("it cannot have users of its own: {why}"), hint);
        }
        return;
    }
    let bounding = &world.actual.host.bounding;
    let wanted = match &decision.spec().capabilities.add {
        CapabilitySet::Some(names) => names.clone(),
        CapabilitySet::All => crate::model::security::Capability::all().collect(),
    };
    let wanted = match decision.spec().privileged {
        true => crate::model::security::Capability::all().collect(),
        false => wanted,
    };
    let cut: Vec<String> = wanted.difference(bounding).map(ToString::to_string).collect();
    if !cut.is_empty() {
        let container = &decision.record.instance;
        findings.warn(format!("container {container} goes without {}: this host does not have it", cut.join(", ")));
    }
}

/// Addresses that are declared must lie in their network and be free.
fn addresses(
    world: &World<'_>,
    networks: &Networks<'_>,
    containers: &Containers<'_>,
    decision: &Decision<'_>,
    findings: &mut Findings,
) {
    let NetworkMode::Networks(attachments) = &decision.spec().network else { return };
    let subject = format!("container {}", decision.record.instance);
    for (name, attachment) in attachments {
        let Some(network) = networks.declared.get(name) else {
            findings.impossible(&subject, format!("network {name} is gone"), "`evenkeel run` it anew, elsewhere");
            continue;
        };
        let record = &network.record;
        if let Some(address) = attachment.address.filter(|address| !record.subnet.contains((*address).into())) {
            let reason = format!("{address} is not in {}, the subnet of network {name}", record.subnet);
            findings.impossible(&subject, reason, format!("declare the subnet: `networks.{name}.subnet`"));
        }
        let declared = [attachment.address.map(IpAddr::from), attachment.address6.map(IpAddr::from)];
        for address in declared.into_iter().flatten() {
            let has = |on: &BTreeMap<NetworkId, Addresses>| on.get(&record.id).is_some_and(|on| on.has(address));
            let mut holders = world.actual.containers.values().filter(|c| !containers.departs(c));
            let holder = holders.find(|c| has(&c.record.addresses));
            // What is left of one whose record is damaged goes.
            let mut unknown = world.actual.unreadable.iter().filter(|other| other.cause != Cause::Damaged);
            let unknown = unknown.find(|other| has(&other.addresses));
            let holder = holder.map(|holder| format!("container {}", holder.record.instance));
            let holder =
                holder.or_else(|| unknown.map(|other| format!("{}, whose record cannot be read", other.object)));
            if let Some(holder) = holder {
                let reason = format!("{address} is the address of {holder}");
                findings.impossible(&subject, reason, "choose another address");
            }
        }
    }
}

/// A health that nobody checks cannot come true. The parser sees what the manifest says; only here the image's own
/// check is known.
fn dependencies(world: &World<'_>, decision: &Decision<'_>, findings: &mut Findings) {
    let healthy = decision.spec().depends_on.iter().filter(|(_, condition)| **condition == Condition::Healthy);
    for (name, _) in healthy {
        let Some(needed) = world.desired.containers.get(name) else { continue };
        if matches!(health_check(world, &needed.spec), Check::No) {
            findings.impossible(
                format!("container {}", decision.record.instance),
                format!("it needs {name} healthy, and neither {name} nor its image has a health check"),
                format!("give {name} a `healthcheck`, or depend on it `started`"),
            );
        }
    }
}
