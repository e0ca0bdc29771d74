//! How a stored container compares with what its instance should be: field by field, and beyond the fields its image,
//! its networks, its namespace and its files.
//!
//! What nobody declares is never made anew: its files are all that there is of it, and the image that it was made of is
//! its image, wherever the name of that leads now.
//!
//! A record *fits* when no difference is of class `replace`. Differences that a manifest only writes down differently
//! (an address as it was chosen) are of class `none`.

use std::collections::BTreeMap;

use super::images::{Images, Knowledge};
use super::networks::Networks;
use super::notation::Notation;
use super::scope::attached;
use super::{ChangeClass, FieldChange, World, cause_of, diff};
use crate::model::actual::{ActualContainer, Broken, Liveness};
use crate::model::container::ContainerSpec;
use crate::model::id::{ContainerId, Instance, ResourceName, Whose};
use crate::model::launch::LAUNCH_VERSION;
use crate::model::lock::are_one_tag;
use crate::model::network::NetworkMode;
use crate::model::record::{ContainerRecord, RECORD_VERSION};
use crate::model::way_out::Order;

/// What records are compared with, beside their specs.
pub(super) struct Standard<'w, 'a> {
    pub world: &'w World<'a>,
    pub networks: &'w Networks<'w>,
    pub images: &'w Images,
    /// The identifiers that instances will have; those that a container needs are chosen before it.
    pub chosen: BTreeMap<Instance, ContainerId>,
}

/// How a record compares with what its instance should be.
pub(super) struct Comparison<'a> {
    pub container: &'a ActualContainer,
    pub changes: Vec<FieldChange>,
    /// Beyond the fields: why it cannot be kept.
    causes: Vec<String>,
}

impl Comparison<'_> {
    pub fn class(&self) -> Option<ChangeClass> {
        self.changes.iter().map(|change| change.class).max()
    }

    pub fn needs_restart(&self) -> bool {
        self.class() == Some(ChangeClass::Restart)
    }

    /// The record of the container as it is kept with this spec.
    pub fn changed_to(&self, spec: &ContainerSpec) -> ContainerRecord {
        let record = &self.container.record;
        if self.changes.is_empty() {
            return record.clone();
        }
        let way_out = if self.needs_restart() { Order::default() } else { record.way_out };
        ContainerRecord { version: RECORD_VERSION, spec: spec.clone(), way_out, refused: None, ..record.clone() }
    }

    /// That an update of this container failed is forgotten: what is declared is what it runs.
    pub fn without_refusal(mut self) -> Self {
        if let Some(refused) = &self.container.record.refused {
            self.changes.push(FieldChange {
                field: "refused update".to_owned(),
                old: Some(super::fallback::told(refused)),
                new: None,
                class: ChangeClass::None,
            });
        }
        self
    }

    pub fn fits(&self) -> bool {
        self.class() < Some(ChangeClass::Replace)
    }

    /// The causes, or the fields of the class that decides.
    pub fn reason(&self) -> String {
        let decisive = self.changes.iter().filter(|change| Some(change.class) == self.class());
        match self.causes.is_empty() {
            true => cause_of(decisive),
            false => self.causes.join("; "),
        }
    }
}

impl<'a> Standard<'_, 'a> {
    /// Compared with what it was made to be.
    pub fn as_it_is(&self, container: &'a ActualContainer) -> Comparison<'a> {
        Comparison { container, changes: Vec::new(), causes: Vec::new() }
    }

    /// Whether the namespace that it shares is the one that its owner will have.
    pub fn shares_rightly(&self, container: &ActualContainer) -> bool {
        let NetworkMode::Container(owner) = &container.record.spec.network else { return true };
        container.record.network_of.as_ref() == self.owner_of_namespace(owner)
    }

    pub fn compare(&self, container: &'a ActualContainer, spec: &ContainerSpec) -> Comparison<'a> {
        let record = &container.record;
        let mut changes = diff::container(&record.spec, spec);
        let mut causes = Vec::new();
        let is_by_hand = record.project == Whose::Nobody;
        if let Some(Broken { why: broken, .. }) = container.broken.as_ref().filter(|_| !is_by_hand) {
            changes.push(replaced("files", broken, "made anew"));
            causes.push(format!("its files are damaged: {broken}"));
        }
        if let Knowledge::Here(id) = self.images.knowledge(self.world, &spec.image)
            && record.image.as_ref() == Some(&id)
            && are_one_tag(&record.spec.image, &spec.image)
        {
            // It runs of just this image: only how its reference is written is another since it is locked, or no more.
            for change in changes.iter_mut().filter(|change| change.field == "image") {
                change.class = ChangeClass::None;
            }
        }
        let old = record.image.as_ref().map_or("unknown", |image| image.short());
        match self.images.knowledge(self.world, &spec.image) {
            _ if record.spec.image != spec.image || is_by_hand => {}
            Knowledge::Here(id) if record.image.as_ref().is_some_and(|image| *image != id) => {
                changes.push(replaced("image id", old, id.short()));
                causes.push("its image changed".to_owned());
            }
            Knowledge::Fetched { why } => {
                let done = spec.image.how_made().done;
                changes.push(replaced("image id", old, &format!("as {done}")));
                causes.push(format!("its image is {done} again: {why}"));
            }
            Knowledge::Here(_) | Knowledge::Missing => {}
        }
        self.compare_networks(container, spec, &mut changes, &mut causes);
        if let NetworkMode::Container(owner) = &spec.network {
            let owner_id = self.owner_of_namespace(owner);
            if record.network_of.as_ref() != owner_id && record.spec.network == spec.network {
                changes.push(replaced("network_mode", "namespace of the old one", "namespace of the new one"));
                causes.push(format!("container {owner}, whose network it shares, is replaced"));
            }
        }
        if speaks_otherwise(container) {
            restart_instead(&mut changes, &mut causes);
        }
        Comparison { container, changes, causes }
    }

    /// The container of this name whose network namespace others share.
    pub fn owner_of_namespace(&self, name: &ResourceName) -> Option<&ContainerId> {
        let own = self.chosen.get(&Instance { container: name.clone(), replica: 1 });
        own.or_else(|| self.world.desired.borrowed.containers.get(name))
    }

    /// A network of the same name may be another one; an address that is written down as it was chosen, or left
    /// open again, stays what it is.
    fn compare_networks(
        &self,
        container: &ActualContainer,
        spec: &ContainerSpec,
        changes: &mut Vec<FieldChange>,
        causes: &mut Vec<String>,
    ) {
        let record = &container.record;
        for name in attached(spec) {
            let Some(network) = self.networks.declared.get(name) else { continue };
            let was_attached = attached(&record.spec).any(|old| old == name);
            match record.addresses.get(&network.record.id) {
                Some(addresses) => {
                    let v4 = Some(addresses.v4.notation());
                    let v6 = addresses.v6.map(|v6| v6.notation());
                    for change in changes.iter_mut() {
                        let is_kept = |kept: &Option<String>| change.new.is_none() || change.new == *kept;
                        let field = change.field.strip_prefix(&format!("networks.{name}."));
                        if (field == Some("address") && is_kept(&v4)) || (field == Some("address6") && is_kept(&v6)) {
                            change.class = ChangeClass::None;
                        }
                    }
                    // Whether names of the outside are asked is told to the monitor.
                    let mut settings = network.work.iter().flat_map(|work| &work.changes);
                    if let Some(internal) = settings.find(|change| change.field == "internal")
                        && speaks_otherwise(container)
                    {
                        let field = format!("networks.{name}.internal");
                        changes.push(FieldChange { field, class: ChangeClass::Restart, ..internal.clone() });
                    }
                }
                None if was_attached => {
                    let subnet = network.record.subnet;
                    changes.push(replaced(&format!("networks.{name}"), "another network", &subnet.to_string()));
                    causes.push(format!("network {name} is made anew"));
                }
                None => {}
            }
        }
    }
}

/// Whether its monitor cannot read the launch files that this Evenkeel writes.
fn speaks_otherwise(container: &ActualContainer) -> bool {
    matches!(&container.liveness, Liveness::Monitored(status) if status.launch_version != LAUNCH_VERSION)
}

/// What cannot be told to the monitor needs another monitor, and so another process. Nothing else is touched for it.
fn restart_instead(changes: &mut [FieldChange], causes: &mut Vec<String>) {
    let is_untold =
        |change: &FieldChange| change.class == ChangeClass::Live && diff::is_taken_over_by_monitor(&change.field);
    let untold: Vec<&mut FieldChange> = changes.iter_mut().filter(|change| is_untold(change)).collect();
    if untold.is_empty() {
        return;
    }
    let cause = cause_of(untold.iter().map(|change| &**change));
    for change in untold {
        change.class = ChangeClass::Restart;
    }
    if changes.iter().all(|change| change.class <= ChangeClass::Restart) {
        causes.push(format!("{cause}, and its monitor, of another version, cannot take that over"));
    }
}

fn replaced(field: &str, old: &str, new: &str) -> FieldChange {
    FieldChange {
        field: field.to_owned(),
        old: Some(old.to_owned()),
        new: Some(new.to_owned()),
        class: ChangeClass::Replace,
    }
}
