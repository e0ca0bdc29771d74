//! Whether the ports that a container would publish are free.

use std::collections::BTreeSet;

use super::containers::Containers;
use super::decision::Decision;
use super::guards::of_whom;
use super::networks::Networks;
use super::traffic::{may_serve, unaccounted};
use super::{Findings, World};
use crate::model::container::RunState;
use crate::model::id::Whose;
use crate::model::network::NetworkMode;
use crate::model::port::{HostAddress, HostPort};
use crate::model::record::ContainerRecord;
use crate::model::way_out::WayOut;

/// A port that this plan publishes must be free: of other projects, and of other processes.
pub(super) fn check(
    world: &World<'_>,
    networks: &Networks<'_>,
    containers: &Containers<'_>,
    decision: &Decision<'_>,
    findings: &mut Findings,
) {
    if decision.spec().state == RunState::Stopped {
        return;
    }
    let held = decision.kept.into_iter().chain(decision.leaving.iter().copied());
    let held: BTreeSet<&HostPort> = held
        .filter(|old| old.record.spec.state == RunState::Running)
        .flat_map(|old| old.record.spec.ports.keys())
        .collect();
    let subject = format!("container {}", decision.record.instance);
    let others = || world.actual.containers.values().filter(|c| may_serve(c)).map(|c| &c.record);
    let own = networks.declared.values().map(|network| &network.record);
    let has_ipv6 = WayOut::of(&decision.record, own).v6.is_some();
    for port in decision.spec().ports.keys().filter(|port| !held.contains(port)) {
        match port.address {
            HostAddress::Any => {
                let but = if has_ipv6 { "" } else { ", but for IPv6: no network that leads it out has a `subnet6`" };
                findings.warn(format!("{subject} publishes port {port} on every address of this host{but}"));
            }
            HostAddress::One(address) if address.is_ipv6() && !has_ipv6 => {
                let reason = format!("port {port} is one of IPv6, and no network that leads it out has a `subnet6`");
                findings.impossible(
                    &subject,
                    reason,
                    "declare a `subnet6` of one that is not internal, or publish on an address of IPv4",
                );
            }
            HostAddress::One(_) => {}
        }
        // Containers that nobody declares have nothing to do with each other.
        let is_foreign = |other: &&ContainerRecord| match &other.project {
            Whose::Nobody => other.instance != decision.record.instance || world.desired.project != Whose::Nobody,
            project => *project != world.desired.project,
        };
        if let Some(other) = publisher(others().filter(is_foreign), port) {
            let holder = format!("container {}{}", other.instance, of_whom(&other.project));
            let hint = match &other.project {
                Whose::Nobody => format!("`evenkeel stop {}`, or publish another port", other.instance),
                Whose::Project(project) => {
                    format!("publish another port; if {project} is no more: `evenkeel down --project {project}`")
                }
            };
            findings.impossible(&subject, format!("port {port} is published by {holder}"), hint);
            continue;
        }
        if unaccounted(world).ports.keys().any(|other| other.conflicts(port)) {
            let reason = format!("port {port} is published by a container whose record cannot be read");
            findings.impossible(&subject, reason, "publish another port, or see to that record first");
            continue;
        }
        if world.actual.host.listening.iter().any(|listening| listening.conflicts(port)) {
            // One of our own that is about to go may be the listener.
            let is_ours = containers.departing().any(|old| old.record.spec.network == NetworkMode::Host);
            match is_ours {
                true => findings.warn(format!("{subject}: a process of this host listens on port {port}")),
                false => findings.impossible(
                    &subject,
                    format!("port {port} is in use by another process of this host"),
                    format!("see who it is with `ss -lnp sport = :{}`, or publish another port", port.port),
                ),
            }
        }
    }
    // Within the project the parser looks at what is declared; what stays beside the targets is not declared here, nor
    // is what runs as before an update that was rolled back.
    let gone_back = containers.declared.iter().filter(|other| other.is_held && other.name() != decision.name());
    for other in gone_back.map(|other| &other.record) {
        for port in decision.spec().ports.keys().filter(|port| !held.contains(port)) {
            if publisher([other].into_iter(), port).is_some() {
                let whose = format!("container {}, whose update was rolled back", other.instance);
                let hint = format!("let {} publish another port, or repair its update", decision.name());
                findings.impossible(&subject, format!("port {port} is still published by {whose}"), hint);
            }
        }
    }
    let staying = others()
        .filter(|other| other.project != Whose::Nobody && other.project == world.desired.project)
        .filter(|other| !world.scope.holds(&other.instance.container));
    let staying: Vec<&ContainerRecord> = staying.collect();
    for port in decision.spec().ports.keys().filter(|port| !held.contains(port)) {
        if let Some(other) = publisher(staying.iter().copied(), port) {
            let reason = format!("port {port} is still published by container {}", other.instance);
            findings.impossible(&subject, reason, format!("add --target {}", other.instance.container));
        }
    }
}

fn publisher<'a>(
    mut records: impl Iterator<Item = &'a ContainerRecord>,
    port: &HostPort,
) -> Option<&'a ContainerRecord> {
    records.find(|r| r.spec.state == RunState::Running && r.spec.ports.keys().any(|other| other.conflicts(port)))
}
