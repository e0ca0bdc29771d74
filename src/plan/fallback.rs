//! What an update that fails goes back to, and which failed updates are not tried again.
//!
//! An update is a container that takes the place of another one of its instance, or one that is stopped, changed and
//! started. When it cannot be started, does not get healthy or does not stay so, and `update.failure_action` is
//! `rollback`, the plan goes back:
//!
//! ```text
//! restart      stop, update, start, await ──> update (it is accepted)
//!                                └─ failed ──> stop, refuse, start
//! stop-first   create, stop old, disconnect old, start, await ──> remove old
//!                                                   └─ failed ──> stop, disconnect, start old, refuse, remove
//! start-first  create, start, await ──> traffic, stop old, remove old
//!                              └─ failed ──> stop, refuse, remove
//! ```
//!
//! What it goes back to is the last version that has proven itself. Where an update takes the place of one that was changed
//! in place and has not, the old one becomes again what it was before that: `refuse` comes before its `start` then, and
//! under start-first it is stopped first of all.
//!
//! Until the new one has proven itself the old one keeps its record, its writable layer and its address; under
//! stop-first the new one has the same address, so the old one's links are taken away meanwhile. A container that is
//! changed in place keeps in its record what it was (`before`). What was refused is remembered whole in the record of what
//! runs in its place (`Refused`).
//!
//! So the way back outlives the plan. One that is cut short while it waits for the verdict, by a crash or because nobody
//! waits that long (`reconcile::waits`), is followed by a plan that waits for the same verdict with the same way back.
//!
//! An update in place ends with its proof, with a manifest that wants no way back, or with one that declares what was
//! before. Where something else is in the way, as below, the record goes on to say what it was, and its proof is waited for
//! all the same.
//!
//! There is nothing to go back to when
//!
//! * the old one does not run well itself, and never has;
//! * the old one has to make way, since somebody needs its address or its network's subnet;
//! * another container gets a port that the old one publishes: it would have two publishers, or neither;
//! * the container shares its network namespace with others that are replaced with it: theirs goes with the old one;
//!   or it shares the namespace of one that goes;
//! * the record of a network is gone that the old one is on.
//!
//! # Decisions
//! The way back is part of the plan, so that a reader sees it in advance and a service that is down is up again before
//! anything else is waited for. What follows from it for others (their steps were skipped) is the next plan's.

use super::comparison::{Comparison, Standard};
use super::decision::{Decision, Fallback, Turnover};
use super::images::{Images, Knowledge};
use super::liveness::meets;
use super::scope::shared_network;
use super::waits::readiness;
use super::{ChangeClass, Findings, World};
use crate::model::actual::{ActualContainer, Liveness};
use crate::model::container::{ContainerSpec, FailureAction, RunState};
use crate::model::foreign::tamed_line;
use crate::model::health::Health;
use crate::model::id::{ContainerId, Instance, NetworkId};
use crate::model::port::HostPort;
use crate::model::record::Refused;
use crate::model::status::Phase;
use crate::model::units::Timespan;

/// Says of every decision what it goes back to when it fails.
pub(super) fn choose(world: &World<'_>, declared: &mut [Decision<'_>], findings: &mut Findings) {
    let fallbacks: Vec<_> = declared
        .iter()
        .map(|decision| {
            let container = decision.outgoing()?;
            let fallback = Fallback { container, spec: last_proven(world, container) };
            if !goes_back(world, decision, fallback, declared) {
                return None;
            }
            let Some((port, heir)) = port_taken(decision, fallback, declared) else { return Some(fallback) };
            findings.warn(format!(
                "container {}: if this update fails there is no way back, since {heir} gets port {port} of what runs now",
                decision.record.instance
            ));
            None
        })
        .collect();
    for (decision, fallback) in declared.iter_mut().zip(fallbacks) {
        let is_itself = |fallback: &Fallback<'_>| fallback.container.record.id == decision.record.id;
        decision.record.before = match fallback.filter(is_itself) {
            Some(fallback) => Some(Box::new(fallback.spec.clone())),
            None => still_before(world, decision),
        };
        decision.fallback = fallback;
        if decision.is_accepted() && decision.changes.is_empty() {
            decision.reason = "it has proven itself".to_owned();
        }
    }
}

/// What an update of an earlier plan goes back to, though not in this one. That there is no way back just now is no proof.
fn still_before(world: &World<'_>, decision: &Decision<'_>) -> Option<Box<ContainerSpec>> {
    let kept = decision.kept?;
    let before = kept.record.before.as_ref()?;
    let is_over = decision.is_proven()
        || has_proven_itself(world, kept)
        || decision.spec().update.failure_action != FailureAction::Rollback
        || **before == *decision.spec();
    (!is_over).then(|| before.clone())
}

/// What `container` was when it had proven itself.
fn last_proven<'a>(world: &World<'_>, container: &'a ActualContainer) -> &'a ContainerSpec {
    match container.record.before.as_deref() {
        Some(before) if !has_proven_itself(world, container) => before,
        _ => &container.record.spec,
    }
}

/// Whether it is seen to have become what its update was to show. How long it has been so is not seen.
fn has_proven_itself(world: &World<'_>, container: &ActualContainer) -> bool {
    let spec = &container.record.spec;
    spec.update.monitor == Timespan::ZERO && meets(container, readiness(world, spec))
}

/// A port that an update goes back to and that another container will publish, and which one that is.
fn port_taken<'d>(
    decision: &Decision<'_>,
    fallback: Fallback<'_>,
    declared: &'d [Decision<'_>],
) -> Option<(&'d HostPort, &'d Instance)> {
    let others = declared.iter().filter(|other| other.name() != decision.name());
    let running = others.filter(|other| other.spec().state == RunState::Running);
    let mut ports = running.flat_map(|other| other.spec().ports.keys().map(|port| (port, &other.record.instance)));
    ports.find(|(port, _)| fallback.spec.ports.keys().any(|own| own.conflicts(port)))
}

fn goes_back(world: &World<'_>, decision: &Decision<'_>, fallback: Fallback<'_>, declared: &[Decision<'_>]) -> bool {
    let old = fallback.container;
    let is_shared = || declared.iter().any(|other| shared_network(other.spec()) == Some(decision.name()));
    let lends = old.record.id != decision.record.id && is_shared();
    let stays = |id: &ContainerId| declared.iter().any(|d| d.record.id == *id && !d.is_new() && d.leaving.is_empty());
    let is_there = |id: &NetworkId| world.actual.networks.contains_key(id);
    let has_its_network = |old: &ActualContainer| {
        old.record.network_of.as_ref().is_none_or(stays) && old.record.addresses.keys().all(is_there)
    };
    decision.spec().update.failure_action == FailureAction::Rollback
        && decision.is_tried()
        && decision.turnover != Turnover::MakeWay
        && !decision.is_held
        && !decision.is_proven()
        && can_return(decision, fallback)
        && has_its_network(old)
        && !lends
}

/// Whether it runs well, or does not run because an update of it was cut short. One that was changed in place ran well
/// before that, whatever it does now.
fn can_return(decision: &Decision<'_>, fallback: Fallback<'_>) -> bool {
    let Fallback { container, spec } = fallback;
    if container.broken.is_some() || spec.state != RunState::Running {
        return false;
    }
    if container.record.id == decision.record.id && *spec == *decision.spec() {
        return false;
    }
    let is_well = match &container.liveness {
        Liveness::Absent => true,
        Liveness::Monitored(status) => {
            let is_unhealthy = status.health.as_ref().is_some_and(|health| health.health == Health::Unhealthy);
            // Who is stopping was asked to, as one that is stopped was.
            matches!(status.phase, Phase::Running | Phase::Stopping) && !is_unhealthy
        }
        Liveness::Ended(status) => status.phase == Phase::Stopped,
        Liveness::Lost(_) => false,
    };
    is_well || fallback.is_otherwise()
}

/// The memory that the update of a container to `spec` failed: of any of its `replicas`, with the image that it would
/// be made of again.
pub(super) fn refused<'a>(
    world: &World<'a>,
    images: &Images,
    replicas: &[&'a ActualContainer],
    spec: &ContainerSpec,
) -> Option<&'a Refused> {
    let mut refused = replicas.iter().filter_map(|c| c.record.refused.as_deref());
    refused.find(|refused| {
        let is_same_image = match images.knowledge(world, &spec.image) {
            Knowledge::Here(id) => refused.image.as_ref() == Some(&id),
            Knowledge::Fetched { .. } => false,
            Knowledge::Missing => true,
        };
        refused.spec == *spec && is_same_image
    })
}

/// Which record of an instance stays what it is, where the update of its container was refused: the one that was gone
/// back to, or the one that was not updated yet. One that was updated before another replica failed runs well.
pub(super) fn held(standard: &Standard<'_, '_>, compared: &[Comparison<'_>]) -> Option<usize> {
    let is_whole = |c: &Comparison<'_>| c.container.broken.is_none() && standard.shares_rightly(c.container);
    let is_as_before = |c: &Comparison<'_>| c.class() >= Some(ChangeClass::Restart) && is_whole(c);
    let gone_back = compared.iter().position(|c| c.container.record.refused.is_some() && is_as_before(c));
    let is_updated = |c: &Comparison<'_>| c.class() < Some(ChangeClass::Restart) && c.container.liveness.is_up();
    gone_back.or_else(|| match compared.iter().any(is_updated) {
        true => None,
        false => compared.iter().position(is_as_before),
    })
}

/// When an update was rolled back, and why.
pub(super) fn told(refused: &Refused) -> String {
    let Refused { spec: _, image: _, at, reason } = refused;
    format!("it was rolled back at {}: {}", humantime::format_rfc3339_seconds(*at), tamed_line(reason))
}
