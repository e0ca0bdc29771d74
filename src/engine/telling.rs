//! What the engine tells in the journal of the state root: see [`crate::journal`].
//!
//! Each act is told where it is done, by the one function that everybody goes through who does it: an [`Action`] around its
//! execution ([`before`], [`after`]), a link in `connect`, an image in its store or where the host calls that. What happens to
//! the process of a container its monitor tells.
//!
//! # Decisions
//! * Told is what changed: an action that finds everything in its place is no event. Whether something is new is looked at
//!   before, since an action says only that it is so now.
//! * What is put right of an object that is there is `repair`, a word that Docker has no need for. A plan says which part of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::host::Host;
use super::records;
use super::transfer::Copied;
use crate::journal::Journal;
use crate::model::action::Action;
use crate::model::container::ContainerSpec;
use crate::model::event::{Event, Kind, Traits};
use crate::model::id::{ContainerId, ProjectName, RootTag, VolumeKey};
use crate::model::image::{Image, ImageSource};
use crate::model::launch::Telling;
use crate::model::orphan::Orphan;
use crate::model::paths::Paths;
use crate::model::record::{ContainerRecord, NetworkRecord, VolumeRecord};

/// Tells what somebody does to a state root.
#[derive(Debug, Clone)]
pub struct Teller {
    journal: Journal,
    who: Option<Arc<str>>,
    /// It could not be told, and that was logged.
    is_silent: Arc<AtomicBool>,
}

impl Teller {
    /// For nobody in particular.
    pub fn new(state_root: &Path) -> Teller {
        Teller { journal: Journal::new(&crate::model::paths::events(state_root)), who: None, is_silent: Arc::default() }
    }

    /// For whoever acts, in a word: `apply`, `watch`, `image rm`.
    pub fn for_whom(self, who: &str) -> Teller {
        Teller { who: Some(who.into()), ..self }
    }

    pub fn who(&self) -> Option<&str> {
        self.who.as_deref()
    }

    /// An event of now.
    pub fn event(&self, kind: Kind, action: &str, id: impl ToString) -> Event {
        let event = Event::new(SystemTime::now(), kind, action, id);
        match &self.who {
            Some(who) => event.with("by", who),
            None => event,
        }
    }

    /// Tells it, if it can be told. That it cannot is logged, once until it can again.
    pub fn tell(&self, event: &Event) {
        let told = self.journal.append(event);
        let was_silent = self.is_silent.swap(told.is_err(), Ordering::Relaxed);
        if let (Err(error), false) = (told, was_silent) {
            let directory = self.journal.directory().display();
            tracing::warn!("what happens is not told in `{directory}` now: {error}");
        }
    }

    /// What a monitor tells of this container.
    pub fn telling(&self, record: &ContainerRecord) -> Telling {
        Telling {
            journal: self.journal.directory().to_owned(),
            by: self.who().map(str::to_owned),
            traits: Traits::of(record),
        }
    }

    pub fn of_container(&self, action: &str, record: &ContainerRecord) -> Event {
        self.event(Kind::Container, action, &record.id).of(Traits::of(record))
    }

    pub fn of_network(&self, action: &str, record: &NetworkRecord) -> Event {
        let event =
            self.event(Kind::Network, action, &record.id).with("name", record.full_name()).with("type", "bridge");
        with_project(event, record.project.project())
    }

    /// `name`: the one that it is about, if there is one.
    pub fn of_image(&self, action: &str, image: &Image, name: Option<&ImageSource>) -> Event {
        let traits = Traits { labels: image.config.labels.clone(), ..Traits::default() };
        let event = self.event(Kind::Image, action, &image.id).of(traits);
        match name {
            Some(name) => event.with("name", name),
            None => event,
        }
    }

    fn of_volume(&self, action: &str, key: &VolumeKey) -> Event {
        let name = match key.project.project() {
            Some(project) => format!("{project}/{}", key.name),
            None => key.name.to_string(),
        };
        with_project(self.event(Kind::Volume, action, &name).with("driver", "local"), key.project.project())
    }

    /// What was in the trash under this name cannot be brought back any more.
    pub fn of_expired(&self, name: &str) -> Event {
        let key = name.rsplit_once('.').map_or(name, |(key, _)| key);
        let container = key.strip_prefix("container.").and_then(|id| id.parse::<ContainerId>().ok());
        let event = match (container, key.parse::<VolumeKey>()) {
            (Some(id), _) => self.event(Kind::Container, "expire", id),
            (None, Ok(key)) => self.of_volume("expire", &key),
            (None, Err(_)) => self.event(Kind::Volume, "expire", key),
        };
        event.with("trash", name)
    }
}

impl Host {
    /// Tells of files that were copied out of a container or into one; who copies has both ends.
    pub fn tell_copied(&self, record: &ContainerRecord, copied: Copied<'_>) {
        let (action, path) = match copied {
            Copied::Out(path) => ("archive-path", path),
            Copied::In(path) => ("extract-to-dir", path),
        };
        self.teller.tell(&self.teller.of_container(action, record).with("path", path.display()));
    }
}

fn with_project(event: Event, project: Option<&ProjectName>) -> Event {
    match project {
        Some(project) => event.with("project", project),
        None => event,
    }
}

/// What has to be known from before an action, to say afterwards what it did.
pub enum Before {
    /// Nothing comes of it that is told here.
    Nothing,
    NewContainer,
    Container(Box<ContainerRecord>),
    NewNetwork,
    Network(Box<NetworkRecord>),
    NewVolume,
    Volume(VolumeRecord),
    /// The record of a volume cannot be read, but it is there.
    SomeVolume,
    Orphan,
    Firewall,
}

/// Looks before an action is carried out. What cannot be read is not told of.
pub fn before(paths: &Paths, action: &Action) -> Before {
    let container = |id| match records::container(paths, id) {
        Ok(Some(record)) => Before::Container(Box::new(record)),
        Ok(None) | Err(_) => Before::Nothing,
    };
    match action {
        Action::CreateContainer { record } => match paths.container(&record.id).exists() {
            true => Before::Nothing,
            false => Before::NewContainer,
        },
        Action::UpdateContainer { record } | Action::RefuseUpdate { record, .. } => container(&record.id),
        Action::RemoveContainer { id } => container(id),
        Action::EnsureVolume { record } => volume(paths, &record.key, Before::NewVolume),
        Action::RemoveVolume { key } => volume(paths, key, Before::Nothing),
        Action::EnsureNetwork { record } => match records::network(paths, &record.id) {
            Ok(Some(old)) => Before::Network(Box::new(old)),
            Ok(None) => Before::NewNetwork,
            Err(_) => Before::Nothing,
        },
        Action::RemoveNetwork { id } => match records::network(paths, id) {
            Ok(Some(old)) => Before::Network(Box::new(old)),
            Ok(None) | Err(_) => Before::Nothing,
        },
        Action::RemoveOrphan { .. } => Before::Orphan,
        Action::SetFirewall { .. } => Before::Firewall,
        // Told where it is done, by a monitor, or nothing that anybody asks for.
        Action::FetchImage { .. }
        | Action::RestoreImage { .. }
        | Action::SetNames { .. }
        | Action::ConnectContainer { .. }
        | Action::StartContainer { .. }
        | Action::ResumeContainer { .. }
        | Action::StopContainer { .. }
        | Action::DisconnectContainer { .. }
        | Action::AwaitContainer { .. } => Before::Nothing,
    }
}

fn volume(paths: &Paths, key: &VolumeKey, absent: Before) -> Before {
    match records::volume(paths, key) {
        Ok(Some(record)) => Before::Volume(record),
        _ if paths.volume(key).exists() => Before::SomeVolume,
        _ => absent,
    }
}

/// What an action did that was carried out.
pub fn after(teller: &Teller, tag: &RootTag, before: Before, action: &Action) -> Option<Event> {
    match (action, before) {
        (Action::CreateContainer { record }, Before::NewContainer) => Some(teller.of_container("create", record)),
        (Action::UpdateContainer { record }, Before::Container(old)) => updated(teller, &old, record),
        (Action::RefuseUpdate { record, failed, reason }, _) => {
            Some(teller.of_container("rollback", record).with("failed", failed).with("reason", reason))
        }
        (Action::RemoveContainer { .. }, Before::Container(old)) => Some(teller.of_container("destroy", &old)),
        (Action::EnsureVolume { record }, Before::NewVolume) => Some(teller.of_volume("create", &record.key)),
        (Action::EnsureVolume { record }, Before::Volume(old)) if old.spec != record.spec => {
            Some(teller.of_volume("update", &record.key))
        }
        (Action::EnsureVolume { record }, Before::Volume(_) | Before::SomeVolume) => {
            Some(teller.of_volume("repair", &record.key))
        }
        (Action::RemoveVolume { key }, Before::Volume(_) | Before::SomeVolume) => {
            Some(teller.of_volume("destroy", key))
        }
        (Action::EnsureNetwork { record }, Before::NewNetwork) => Some(teller.of_network("create", record)),
        (Action::EnsureNetwork { record }, Before::Network(old)) => {
            let action = if *old == *record { "repair" } else { "update" };
            Some(teller.of_network(action, record))
        }
        (Action::RemoveNetwork { .. }, Before::Network(old)) => Some(teller.of_network("destroy", &old)),
        (Action::SetFirewall { ruleset: _ }, _) => Some(teller.event(Kind::Host, "firewall", tag)),
        (Action::RemoveOrphan { orphan }, _) => Some(orphaned(teller, orphan)),
        _ => None,
    }
}

/// A record may change in what only the planner keeps there, and in whether it should run: starts and stops tell that.
fn updated(teller: &Teller, old: &ContainerRecord, new: &ContainerRecord) -> Option<Event> {
    let wanted = ContainerSpec { state: new.spec.state, ..old.spec.clone() };
    match (old.instance != new.instance, wanted != new.spec) {
        (true, _) => Some(teller.of_container("rename", new).with("oldName", old.full_name())),
        (false, true) => Some(teller.of_container("update", new)),
        (false, false) => None,
    }
}

/// What no record named.
fn orphaned(teller: &Teller, orphan: &Orphan) -> Event {
    let event = match orphan {
        Orphan::Container { id, owner, remains: _ } => {
            let event = teller.event(Kind::Container, "destroy", id);
            match owner {
                Some(owner) => event.with("name", format!("{}/{}", owner.project, owner.instance)),
                None => event,
            }
        }
        Orphan::Bridge { network } => teller.event(Kind::Network, "destroy", network),
        Orphan::Link { name } => teller.event(Kind::Network, "disconnect", "").with("link", name),
    };
    event.with("orphan", "true")
}
