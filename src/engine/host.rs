//! A Linux host as an [`Engine`]: which part does what.
//!
//! Every operation reads the records that it needs afresh: between two of them another process may have worked
//! here, and a `kill -9` at any point leaves nothing but what the next run reads.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use super::container::changes::{self, Change};
use super::container::commit;
use super::container::launch::Surroundings;
use super::container::oci::cgroup_parent;
use super::container::{await_condition, create, etc, inside, lifecycle};
use super::error::{At, EngineError};
use super::files::{self, Durability};
use super::image::check::Mending;
use super::image::commit::Committing;
use super::image::options::Registries;
use super::image::push::{Push, Pushed};
use super::image::{self, Store};
use super::network::link::Links;
use super::records::Found;
use super::storage::volume;
use super::telling::{self, Teller};
use super::waiting::{Attended, Awaited, Wait};
use super::{Engine, Scope, claim, connect, facts, garbage, last_good, network, observe, orphans, records, sources};
use crate::model::action::Action;
use crate::model::actual::{Actual, HostFacts};
use crate::model::event::Kind;
use crate::model::id::{ContainerId, Digest, NetworkId, RootTag};
use crate::model::image::{Image, ImageSource};
use crate::model::lock::Locks;
use crate::model::network::bridge_name;
use crate::model::paths::{self, Paths};
use crate::model::record::{ContainerRecord, NetworkRecord};
use crate::model::unreadable::Cause;
use crate::monitor::protocol::chain;
use crate::runtime::cgroup::{self, Hierarchy};

/// Where the parts of an installation are, and how images are fetched.
#[derive(Debug, Clone)]
pub struct Settings {
    pub paths: Paths,
    /// The `evenkeel-monitor` binary.
    pub monitor: PathBuf,
    pub images: image::Options,
}

/// One instance of Evenkeel on this host: a state root, a run directory, and the kernel.
pub struct Host {
    pub(super) paths: Paths,
    pub(super) tag: RootTag,
    pub(super) store: Store,
    pub(super) images: image::Options,
    pub(super) facts: HostFacts,
    pub(super) hierarchy: Hierarchy,
    pub(super) links: Links,
    monitor: PathBuf,
    progress: Box<dyn image::Progress + Send>,
    pub(super) keep_removed: Duration,
    /// What could not be removed, as it was told.
    pub(super) told: Mutex<BTreeSet<String>>,
    /// What another process was to delete, and since when.
    pub(super) given_away: Mutex<BTreeMap<PathBuf, Instant>>,
    pub(super) silent: sources::Silent,
    pub(super) slow: observe::Slow,
    pub(super) kept: last_good::Kept,
    pub(super) teller: Teller,
}

impl Host {
    /// Makes the two directories, if they are not there, and looks at what the host can do.
    pub fn open(settings: Settings) -> Result<Host, EngineError> {
        let Settings { paths, monitor, images } = settings;
        let paths = Paths { root: directory(&paths.root)?, run: directory(&paths.run)? };
        claim::run_directory(&paths)?;
        for below in ["containers", "netns", "networks"] {
            files::create_directories(&paths.run.join(below))?;
        }
        files::create_directories(&paths.containers())?;
        close_to_others(&paths)?;
        let hierarchy = cgroup::detect().map_err(|source| EngineError::Cgroups { source: Box::new(source) })?;
        let tag = tag(&paths.root);
        claim::tag(&tag, &paths.root)?;
        claim::check(&paths, || has_control_groups(&hierarchy, &tag))?;
        Ok(Host {
            tag,
            teller: Teller::new(&paths.root),
            store: Store::new(&paths.root),
            facts: facts::facts(&hierarchy),
            hierarchy,
            links: Links::open().map_err(network_error("open", "the connection to the kernel".into()))?,
            paths,
            images,
            monitor,
            progress: Box::new(image::Silent),
            keep_removed: volume::KEPT,
            told: Mutex::default(),
            given_away: Mutex::default(),
            silent: sources::Silent::default(),
            slow: observe::Slow::default(),
            kept: last_good::Kept::default(),
        })
    }

    /// Tells `progress` about images while they are fetched.
    pub fn report_images_to(self, progress: Box<dyn image::Progress + Send>) -> Host {
        Host { progress, ..self }
    }

    /// Keeps removed volumes for `time`, in place of a week.
    pub fn keep_removed(self, time: Duration) -> Host {
        Host { keep_removed: time, ..self }
    }

    /// Tells in the journal that `who` does what this engine does: a word such as `apply`.
    pub fn acting_for(self, who: &str) -> Host {
        let teller = self.teller.for_whom(who);
        Host { store: self.store.telling(teller.clone()), teller, ..self }
    }

    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Calls `look` with the root directory of a container as it sees it, volumes included. The lock is held where the
    /// container does not run, so that nobody starts it meanwhile.
    pub fn with_root<T: Send>(
        &self,
        record: &ContainerRecord,
        look: impl FnOnce(BorrowedFd<'_>) -> T + Send,
    ) -> Result<T, EngineError> {
        inside::with_root(&self.paths, &self.store, record, look)
    }

    /// What a container changed in its image's files.
    pub fn changes(&self, record: &ContainerRecord) -> Result<Vec<Change>, EngineError> {
        let image = create::image(&self.store, record)?;
        changes::changes(&self.paths, &self.store.layer_paths(&image), record)
    }

    /// Makes an image of a container. Nothing of the container should run meanwhile.
    pub fn commit(&self, record: &ContainerRecord, committing: &Committing<'_>) -> Result<Image, EngineError> {
        commit::commit(&self.paths, &self.store, record, committing, self.image_tools())
    }

    /// Writes the files of a container as a tar stream, without its volumes.
    pub fn export(&self, record: &ContainerRecord, to: &mut (dyn Write + Send)) -> Result<(), EngineError> {
        commit::export(&self.paths, &self.store, record, to)
    }

    /// What making images of something that somebody hands over needs.
    pub fn image_tools(&self) -> image::Tools<'_> {
        image::Tools { options: &self.images, progress: &*self.progress }
    }

    pub(super) fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            paths: &self.paths,
            tag: &self.tag,
            store: &self.store,
            facts: &self.facts,
            evenkeel: &self.images.helper,
            teller: &self.teller,
        }
    }

    /// Makes an image whole and fresh: see [`image::ensure()`].
    pub fn ensure_image(&self, source: &ImageSource, bases: Option<&Locks>) -> Result<Image, EngineError> {
        let options = image::Options { bases: bases.cloned(), ..self.images.clone() };
        let fetched = image::ensure(&self.store, source, &options, &*self.progress);
        fetched.map_err(|error| EngineError::Image { source_name: source.to_string(), source: Box::new(error) })
    }

    /// Makes the layers of an image whole again, those too that only a check has found `damaged`, from what it came from.
    pub fn restore_image(&self, id: &Digest, damaged: &BTreeSet<Digest>) -> Result<(), EngineError> {
        let names = records::read_all(&self.paths)?.names_of(id);
        let name = names.first().map_or_else(|| id.short().to_owned(), ToString::to_string);
        let failed = |error| EngineError::Image { source_name: name.clone(), source: Box::new(error) };
        let image = self.store.known(id).map_err(failed)?.ok_or_else(|| EngineError::NoImage(name.clone()))?;
        image::restore::restore(&self.store, &image, damaged, &names, self.image_tools()).map_err(failed)?;
        self.teller.tell(&self.teller.of_image("repair", &image, names.first()));
        Ok(())
    }

    /// Looks at every byte of a layer: see [`image::check`].
    pub fn check_layer(&self, diff_id: &Digest, mending: Mending) -> Result<image::check::Found, EngineError> {
        let found = self.store.check_layer(diff_id, mending, self.image_tools());
        let found = found.map_err(|error| EngineError::Images { source: Box::new(error) })?;
        if let image::check::Found::Mended(why) = &found {
            let event = self.teller.event(Kind::Image, "repair", diff_id);
            self.teller.tell(&event.with("layer", diff_id.short()).with("reason", why));
        }
        Ok(found)
    }

    /// How registries are reached, for whoever reads the host file again.
    pub fn registries(&self) -> &Registries {
        &self.images.registries
    }

    /// Registries that were silent are asked again by the next look: somebody wants to know.
    pub fn ask_registries_again(&self) {
        self.silent.forget();
    }

    /// What this host knows of images.
    pub fn images(&self) -> &Store {
        &self.store
    }

    /// Gives an image of this host to a registry.
    pub fn push_image(&self, push: &Push<'_>) -> Result<Pushed, EngineError> {
        let failed = |error| EngineError::Push { destination: push.destination.to_string(), source: Box::new(error) };
        let pushed = image::push::push(&self.store, push, &self.images, &*self.progress).map_err(failed)?;
        let event = self.teller.of_image("push", push.image, None);
        self.teller.tell(&event.with("name", push.destination));
        Ok(pushed)
    }

    fn remove_volume(&self, key: &crate::model::id::VolumeKey) -> Result<(), EngineError> {
        let data = self.paths.volume_data(key);
        for container in self.every_container()? {
            if container.uses_volume(key, &data) {
                return Err(EngineError::VolumeInUse { key: key.clone(), user: container.full_name() });
            }
        }
        volume::remove(&self.paths, key, SystemTime::now())
    }

    /// All of them: where one cannot be read, it is not known what it uses.
    pub(super) fn every_container(&self) -> Result<Vec<ContainerRecord>, EngineError> {
        let found = records::containers(&self.paths)?;
        match found.unreadable.into_iter().next() {
            Some(record) => Err(EngineError::UsersUnknown { hint: record.next_step(), object: record.object }),
            None => Ok(found.records),
        }
    }

    fn ensure_network(&self, record: &NetworkRecord) -> Result<(), EngineError> {
        let directory = self.paths.network(&record.id);
        if directory.exists() {
            files::write_json_of_object(&paths::record(&directory), record, Durability::Durable)?;
        } else {
            let aside = files::beside(&directory);
            files::create_directories(&aside)?;
            files::write_json(&paths::record(&aside), record, Durability::Durable)?;
            files::publish(&aside, &directory)?;
        }
        self.links
            .ensure_bridge(&self.tag, record)
            .map_err(network_error("set up", format!("network `{}`", record.name)))
    }

    /// The bridge's name follows from the identifier: it goes also where the record is gone already, or damaged.
    pub(super) fn remove_network(&self, id: &NetworkId) -> Result<(), EngineError> {
        let record = records::unless_damaged(records::network(&self.paths, id))?;
        let name = record.map_or_else(|| id.to_string(), |record| record.name.to_string());
        let Found { records, unreadable } = records::containers(&self.paths)?;
        // A damaged container is made anew, and with it its way to the network.
        if let Some(record) = unreadable.into_iter().find(|record| record.cause != Cause::Damaged) {
            return Err(EngineError::UsersUnknown { hint: record.next_step(), object: record.object });
        }
        for container in records {
            if container.addresses.contains_key(id) {
                return Err(EngineError::NetworkInUse { id: id.clone(), user: container.full_name() });
            }
        }
        self.links.remove(&bridge_name(&self.tag, id)).map_err(network_error("remove", format!("network `{name}`")))?;
        files::remove_file(&self.paths.names(id))?;
        files::remove_directory(&self.paths.network(id))
    }

    fn record(&self, id: &ContainerId) -> Result<ContainerRecord, EngineError> {
        records::container(&self.paths, id)?.ok_or_else(|| EngineError::NoContainer(id.clone()))
    }

    /// Links wait for no monitor that hangs, and for no disk that is full. What else follows from networks no look sees: a
    /// mark says that it may not be done, until it is.
    fn reconnect(&self, record: &ContainerRecord) -> Result<(), EngineError> {
        let marked = connect::mark_behind(self, record);
        let connected = connect::connect(self, record);
        let followed = marked
            .and_then(|()| self.follow_networks(record))
            .and_then(|()| files::remove_file(&self.paths.container_run(&record.id).join(paths::run::BEHIND)));
        connected.and(followed)
    }

    /// Of the container, and of those that are in its network namespace: it has the way to the host that they have.
    fn follow_networks(&self, record: &ContainerRecord) -> Result<(), EngineError> {
        let found = records::containers(&self.paths)?;
        for sharer in found.records.iter().filter(|other| other.network_of.as_ref() == Some(&record.id)) {
            etc::write(&self.paths.container(&sharer.id), sharer, &self.paths)?;
        }
        lifecycle::follow_networks(&self.surroundings(), &self.hierarchy, record)
    }

    fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        let record = self.record(id)?;
        connect::connect(self, &record)?;
        lifecycle::start(&self.surroundings(), &self.hierarchy, &record, &self.monitor)
    }

    fn stop(&self, id: &ContainerId) -> Result<(), EngineError> {
        match records::container(&self.paths, id)? {
            Some(record) => lifecycle::stop(&self.surroundings(), &self.hierarchy, &record),
            None => Ok(()),
        }
    }

    fn disconnect(&self, id: &ContainerId) -> Result<(), EngineError> {
        let record = self.record(id)?;
        lifecycle::forget(&self.surroundings(), &self.hierarchy, &record)?;
        connect::disconnect(self, &record)
    }

    fn remove(&self, id: &ContainerId) -> Result<(), EngineError> {
        let Some(record) = records::container(&self.paths, id)? else { return Ok(()) };
        lifecycle::stop(&self.surroundings(), &self.hierarchy, &record)?;
        connect::disconnect(self, &record)?;
        // A disk that is full is no reason to keep what fills it.
        let marked = record.image.as_ref().map_or(Ok(()), |image| self.mark_image_used(image));
        for unkept in [garbage::remember(&self.paths, &record), marked].into_iter().filter_map(Result::err) {
            tracing::warn!("what {} was made of may be collected: {}", record.full_name(), chain(&unkept));
        }
        lifecycle::remove_files(&self.surroundings(), &self.hierarchy, &record)
    }

    /// Its removal is counted from now on.
    fn mark_image_used(&self, image: &Digest) -> Result<(), EngineError> {
        self.store.mark_used(image).map_err(|source| EngineError::Images { source: Box::new(source) })
    }

    /// Waits until there is a verdict. Nobody here starts what somebody stopped meanwhile.
    fn outwait(&self, awaited: &Awaited<'_>) -> Result<(), EngineError> {
        let mut until = Instant::now();
        let mut wait = Wait::begin(until);
        loop {
            match self.attend(awaited, &mut wait, until)? {
                Attended::Holds => return Ok(()),
                Attended::Open { until: next } => until = next,
                Attended::Stopped => {
                    let name = self.record(awaited.id)?.full_name();
                    return Err(EngineError::Await { name, state: "was stopped".to_owned() });
                }
            }
        }
    }

    /// A network that the record does not name any more is left before the record changes: afterwards nothing
    /// would know of it.
    fn update(&self, record: &ContainerRecord) -> Result<(), EngineError> {
        connect::leave_networks(self, &self.record(&record.id)?, record)?;
        lifecycle::update(&self.surroundings(), &self.hierarchy, record)
    }
}

impl Engine for Host {
    type Error = EngineError;

    fn observe(&self, scope: &Scope) -> Result<Actual, EngineError> {
        observe::observe(self, scope)
    }

    fn perform(&self, action: &Action) -> Result<(), EngineError> {
        let before = telling::before(&self.paths, action);
        self.carry_out(action)?;
        telling::after(&self.teller, &self.tag, before, action).iter().for_each(|event| self.teller.tell(event));
        Ok(())
    }

    fn attend(&self, awaited: &Awaited<'_>, wait: &mut Wait, until: Instant) -> Result<Attended, EngineError> {
        let name = self.record(awaited.id)?.full_name();
        let directory = self.paths.container_run(awaited.id);
        files::create_directories(&directory)?;
        await_condition::attend(&name, &directory, awaited, wait, until)
    }

    fn hint(&self, error: &EngineError) -> Option<String> {
        error.hint()
    }
}

impl Host {
    fn carry_out(&self, action: &Action) -> Result<(), EngineError> {
        match action {
            Action::FetchImage { source, bases } => self.ensure_image(source, bases.as_ref()).map(drop),
            Action::RestoreImage { id } => self.restore_image(id, &BTreeSet::new()),
            Action::EnsureVolume { record } => volume::ensure(&self.paths, record),
            Action::RemoveVolume { key } => self.remove_volume(key),
            Action::EnsureNetwork { record } => self.ensure_network(record),
            Action::RemoveNetwork { id } => self.remove_network(id),
            Action::SetFirewall { ruleset } => {
                network::firewall::set(&self.tag, ruleset).map_err(network_error("set", "the firewall".into()))
            }
            Action::SetNames { network, names } => network::names::write(&self.paths.names(network), names),
            Action::CreateContainer { record } => create::create(&self.paths, &self.store, record),
            Action::UpdateContainer { record } => self.update(record),
            Action::ConnectContainer { id } => self.reconnect(&self.record(id)?),
            Action::StartContainer { id } => self.start(id),
            Action::ResumeContainer { id } => lifecycle::resume(&self.surroundings(), &self.record(id)?),
            Action::StopContainer { id } => self.stop(id),
            Action::RemoveContainer { id } => self.remove(id),
            Action::RemoveOrphan { orphan } => orphans::remove(self, orphan),
            Action::DisconnectContainer { id } => self.disconnect(id),
            Action::RefuseUpdate { record, failed, reason } => {
                lifecycle::refuse_update(&self.surroundings(), record, self.record(failed)?, reason)
            }
            Action::AwaitContainer { .. } => Awaited::of(action).map_or(Ok(()), |awaited| self.outwait(&awaited)),
        }
    }
}

/// The first 16 bits of the digest of the state root's canonical path.
pub fn tag(root: &Path) -> RootTag {
    let digest = image::store::record::sha256([root.as_os_str().as_bytes()]);
    let byte = |at: usize| u8::from_str_radix(&digest.hex()[at..at + 2], 16).unwrap_or_default();
    RootTag::from_hash([byte(0), byte(2)])
}

/// Whether containers of a state root run, or wait for a start.
pub(super) fn has_control_groups(hierarchy: &Hierarchy, tag: &RootTag) -> Result<bool, EngineError> {
    let children = cgroup::open(hierarchy, &cgroup_parent(tag)).children();
    let children = children.map_err(|source| EngineError::Cgroups { source: Box::new(source) })?;
    Ok(children.iter().any(|name| name.parse::<ContainerId>().is_ok()))
}

/// The directory under its one true name, made if it is not there.
fn directory(path: &Path) -> Result<PathBuf, EngineError> {
    files::create_directories(path)?;
    path.canonicalize().at("find", path)
}

/// Nobody but root enters: records hold environments, and layers, volumes and containers set-user-ID programs
/// (CVE-2021-41091 is about a data root that others could enter). The root itself may be somebody's directory of many
/// uses, so what is in it is closed, whatever mode an administrator or an earlier Evenkeel gave it.
fn close_to_others(paths: &Paths) -> Result<(), EngineError> {
    let in_root = ["containers", "events", "followed", "images", "last-good", "layers", "networks", "trash", "volumes"];
    let in_run = ["containers", "netns", "networks"];
    let all = in_root.map(|name| paths.root.join(name)).into_iter().chain(in_run.map(|name| paths.run.join(name)));
    for path in all {
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.mode() & 0o077 != 0 => {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).at("set the mode of", path)?;
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).at("look at", path),
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn network_error(
    operation: &'static str,
    subject: String,
) -> impl FnOnce(network::NetworkError) -> EngineError {
    move |source| EngineError::Network { operation, subject, source: Box::new(source) }
}
