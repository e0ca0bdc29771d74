//! What no record names goes: its record was removed by hand, so nothing else would ever take it away.
//!
//! A plan speaks of what is left of its own project, and of what is nobody's: bridges, links, and containers of which
//! nothing tells whose they were. Files are nobody's only where no other project is on this host: they may be all that
//! there is of something. What is left of another project is that one's affair. A plan for targets takes away what is left
//! of those, since two of one container must not run side by side on the same volumes, and nothing else; one for a
//! container that no project owns leaves all of it alone.

use std::collections::BTreeSet;

use super::containers::Containers;
use super::graph::{Graph, Node};
use super::{ChangeClass, FieldChange, Mark, World};
use crate::model::action::Action;
use crate::model::id::{ContainerId, NetworkId, Whose};
use crate::model::orphan::{Orphan, Remains};
use crate::model::unreadable::{Object, Unreadable};

/// Of which containers there are still things, though they have no record.
pub(super) fn containers<'a>(world: &World<'a>) -> impl Iterator<Item = &'a ContainerId> {
    own(world).filter_map(|orphan| match orphan {
        Orphan::Container { id, .. } => Some(id),
        Orphan::Bridge { .. } | Orphan::Link { .. } => None,
    })
}

/// The steps that remove them, each with the network whose bridge it takes away. A bridge that a staying container is on
/// stays with it.
pub(super) fn add(world: &World<'_>, containers: &Containers<'_>, graph: &mut Graph) -> Vec<(Node, Option<NetworkId>)> {
    let departing: BTreeSet<&ContainerId> = containers.departing().map(|container| &container.record.id).collect();
    let staying = world.actual.containers.values().map(|container| &container.record);
    let staying: Vec<_> = staying.filter(|record| !departing.contains(&record.id)).collect();
    let mut steps = Vec::new();
    for orphan in own(world) {
        let network = match orphan {
            Orphan::Bridge { network } => Some(network),
            Orphan::Container { .. } | Orphan::Link { .. } => None,
        };
        if network.is_some_and(|id| staying.iter().any(|record| record.addresses.contains_key(id))) {
            continue;
        }
        let action = Action::RemoveOrphan { orphan: orphan.clone() };
        let node = graph.add(action, subject(orphan), Mark::Remove, reason(world, orphan).to_owned());
        graph.step(node).changes = remains(orphan);
        steps.push((node, network.cloned()));
    }
    steps
}

fn own<'a>(world: &World<'a>) -> impl Iterator<Item = &'a Orphan> {
    let is_in_scope = |orphan: &Orphan| match orphan {
        Orphan::Container { owner: Some(owner), .. } => world.scope.holds(&owner.instance.container),
        Orphan::Container { owner: None, .. } | Orphan::Bridge { .. } | Orphan::Link { .. } => world.scope.is_whole(),
    };
    let is_ours = |orphan: &Orphan| ownership(world, orphan) == Ownership::Ours && is_in_scope(orphan);
    let all: Vec<&Orphan> = match world.desired.project {
        Whose::Nobody => Vec::new(),
        Whose::Project(_) => world.actual.orphans.iter().filter(|orphan| is_ours(orphan)).collect(),
    };
    all.into_iter()
}

#[derive(Debug, PartialEq, Eq)]
enum Ownership {
    /// Or nobody's.
    Ours,
    Others,
    Unknown,
}

fn ownership(world: &World<'_>, orphan: &Orphan) -> Ownership {
    let Orphan::Container { id, owner, remains } = orphan else { return Ownership::Ours };
    let recorded = || recorded(world, id).and_then(|record| record.project.clone());
    match owner.as_ref().map(|owner| Whose::Project(owner.project.clone())).or_else(recorded) {
        Some(owner) if owner == world.desired.project => Ownership::Ours,
        Some(_) => Ownership::Others,
        None if remains.contains(&Remains::Files) && others_are_here(world) => Ownership::Unknown,
        None => Ownership::Ours,
    }
}

fn recorded<'a>(world: &World<'a>, id: &ContainerId) -> Option<&'a Unreadable> {
    world.actual.unreadable.iter().find(|record| record.object == Object::Container(id.clone()))
}

fn others_are_here(world: &World<'_>) -> bool {
    let containers = world.actual.containers.values().map(|container| &container.record.project);
    let networks = world.actual.networks.values().map(|network| &network.record.project);
    let volumes = world.actual.volumes.keys().map(|key| &key.project);
    let unreadable = world.actual.unreadable.iter().filter_map(|record| record.project.as_ref());
    let mut all = containers.chain(networks).chain(volumes).chain(unreadable);
    all.any(|project| *project != world.desired.project)
}

/// Whether a record that is damaged, of a container that is on this host, is left alone by this plan.
pub(super) fn is_left(world: &World<'_>, record: &Unreadable) -> bool {
    let Object::Container(damaged) = &record.object else { return false };
    let is_it = |orphan: &&Orphan| matches!(orphan, Orphan::Container { id, .. } if id == damaged);
    world.actual.orphans.iter().any(|orphan| is_it(&orphan)) && !own(world).any(|orphan| is_it(&orphan))
}

/// Files of which nobody knows whose they are.
pub(super) fn unclaimed<'a>(world: &World<'a>) -> impl Iterator<Item = &'a ContainerId> {
    let orphans = world.actual.orphans.iter().filter(|orphan| ownership(world, orphan) == Ownership::Unknown);
    let ids = orphans.filter_map(|orphan| match orphan {
        Orphan::Container { id, .. } => Some(id),
        Orphan::Bridge { .. } | Orphan::Link { .. } => None,
    });
    ids.collect::<Vec<_>>().into_iter()
}

fn reason(world: &World<'_>, orphan: &Orphan) -> &'static str {
    let is_damaged = world.actual.unreadable.iter().any(|record| match (&record.object, orphan) {
        (Object::Container(damaged), Orphan::Container { id, .. }) => damaged == id,
        (Object::Network(damaged), Orphan::Bridge { network }) => damaged == network,
        _ => false,
    });
    if is_damaged { "its record is damaged" } else { "no record names it" }
}

fn subject(orphan: &Orphan) -> String {
    match orphan {
        Orphan::Container { owner: Some(owner), .. } => format!("container {} (without a record)", owner.instance),
        Orphan::Container { id, owner: None, .. } => format!("container {id} (without a record)"),
        Orphan::Bridge { network } => format!("bridge of network {network} (without a record)"),
        Orphan::Link { name } => format!("link {name} (without a record)"),
    }
}

fn remains(orphan: &Orphan) -> Vec<FieldChange> {
    let Orphan::Container { remains, .. } = orphan else { return Vec::new() };
    let gone = remains.iter().map(|part| FieldChange {
        field: part.as_str().to_owned(),
        old: Some("there".to_owned()),
        new: (*part == Remains::Files).then(|| "in the trash".to_owned()),
        class: ChangeClass::None,
    });
    gone.collect()
}
