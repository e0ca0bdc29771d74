//! What each declared volume becomes. A volume that is no longer declared is kept, unless its removal was confirmed by
//! name and no container that stays uses it.

use std::collections::BTreeMap;
use std::path::Path;

use super::containers::Containers;
use super::{ChangeClass, FieldChange, Findings, Mark, Work, World, diff};
use crate::model::actual::ActualContainer;
use crate::model::id::{ResourceName, VolumeKey, Whose};
use crate::model::record::{RECORD_VERSION, VolumeRecord};
use crate::model::unreadable::Object;
use crate::model::volume::VolumeSpec;

pub(super) struct Volumes {
    pub declared: BTreeMap<ResourceName, (VolumeRecord, Work)>,
    /// To be removed, with consent.
    pub leaving: Vec<VolumeKey>,
}

pub(super) fn decide(world: &World<'_>, containers: &Containers<'_>, findings: &mut Findings) -> Volumes {
    let mut volumes = Volumes { declared: BTreeMap::new(), leaving: Vec::new() };
    for name in world.scope.volumes(world.desired) {
        let Some(spec) = world.desired.volumes.get(name) else { continue };
        if let Some(work) = work(world, name, spec) {
            let record = VolumeRecord { version: RECORD_VERSION, key: key(world, name), spec: spec.clone() };
            volumes.declared.insert(name.clone(), (record, work));
        }
    }
    for name in &world.policy.expendable_volumes {
        if world.desired.volumes.contains_key(name) {
            let hint = "take it out of the manifest first";
            findings.impossible(format!("volume {name}"), "it is declared, so it cannot be removed", hint);
        }
    }
    let damaged = world.actual.unreadable.iter().filter_map(|record| match &record.object {
        Object::Volume(key) => Some(key),
        Object::Container(_) | Object::Network(_) => None,
    });
    let own = world.actual.volumes.keys().chain(damaged).filter(|key| key.project == world.desired.project);
    for key in own.filter(|key| !world.desired.volumes.contains_key(&key.name)) {
        leave(world, containers, key, &mut volumes, findings);
    }
    volumes
}

fn key(world: &World<'_>, name: &ResourceName) -> VolumeKey {
    VolumeKey { project: world.desired.project.clone(), name: name.clone() }
}

fn work(world: &World<'_>, name: &ResourceName, spec: &VolumeSpec) -> Option<Work> {
    let Some(actual) = world.actual.volumes.get(&key(world, name)) else {
        let changes = diff::volume(&VolumeSpec::default(), spec).into_iter();
        let changes = changes.map(|change| FieldChange { old: None, class: ChangeClass::None, ..change }).collect();
        if is_damaged(world, name) {
            let reason = "its record is damaged, and is written anew; its data stays".to_owned();
            return Some(Work { mark: Mark::Change, reason, changes });
        }
        return Some(Work { mark: Mark::Create, reason: "declared, not there".to_owned(), changes });
    };
    Work::of(diff::volume(&actual.record.spec, spec), &actual.drift)
}

fn is_damaged(world: &World<'_>, name: &ResourceName) -> bool {
    let object = Object::Volume(key(world, name));
    world.actual.unreadable.iter().any(|record| record.object == object)
}

fn leave(
    world: &World<'_>,
    containers: &Containers<'_>,
    key: &VolumeKey,
    volumes: &mut Volumes,
    findings: &mut Findings,
) {
    if !world.policy.expendable_volumes.contains(&key.name) {
        // With targets the rest of the project is not spoken of, and what nobody declares cannot be missing anywhere.
        if world.scope.is_whole() && key.project != Whose::Nobody {
            findings.warn(format!(
                "volume {0} is kept with its data, though not declared: `apply --remove-volume {0}` or `down --volumes` removes it",
                key.name
            ));
        }
        return;
    }
    match world
        .actual
        .containers
        .values()
        .find(|container| uses(world, container, key) && !containers.departs(container))
    {
        Some(user) => findings.impossible(
            format!("volume {}", key.name),
            format!("container {} still uses it", user.record.instance),
            "remove the container first",
        ),
        None => volumes.leaving.push(key.clone()),
    }
}

/// Whether this container mounts the volume.
pub(super) fn uses(world: &World<'_>, container: &ActualContainer, key: &VolumeKey) -> bool {
    let data = world.actual.volumes.get(key).map_or(Path::new(""), |volume| &volume.data);
    container.record.uses_volume(key, data)
}
