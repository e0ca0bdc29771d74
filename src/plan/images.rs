//! Which images are fetched, and what is known of the image that a container will be made of.
//!
//! A source that moved (a tag at its registry, an archive that was edited) is fetched again, and its containers are
//! replaced. A source that this host does not have is fetched when something is to be made of it; containers that run
//! are not replaced just because the name of their image is gone. An image whose layers are damaged is made whole again
//! where there is something to take them from, and what is made of it stays.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Mark, Work, World};
use crate::model::actual::Tag;
use crate::model::desired::Desired;
use crate::model::id::{Digest, ResourceName};
use crate::model::image::{ImageConfig, ImageSource, Pull};
use crate::model::lock::{Locking, pinned, without_digest};
use crate::model::record::ContainerRecord;

/// The sources that this plan fetches.
#[derive(Default)]
pub(super) struct Images {
    pub fetched: BTreeMap<ImageSource, Work>,
    /// Images that stay what they are and are made whole again, by their identifiers.
    pub restored: BTreeMap<Digest, Restored>,
}

pub(super) struct Restored {
    /// As people name it.
    pub subject: String,
    pub work: Work,
}

/// What is known, while planning, of the image behind a source.
pub(super) enum Knowledge {
    /// Whole on this host, under this identifier.
    Here(Digest),
    /// Fetched by this plan; the identifier is known afterwards.
    Fetched { why: String },
    /// Neither here nor fetched by this plan.
    Missing,
}

impl Images {
    /// What has to be fetched whatever the containers are: moved sources, and images declared on their own account.
    pub fn of(world: &World<'_>) -> Images {
        let mut images = Images::default();
        for source in world.desired.images.keys().filter(|source| in_scope(world, source)) {
            match world.actual.images.get(source) {
                Some(known) if known.moved.is_some() => {
                    let reason = known.moved.clone().unwrap_or_default();
                    let work = Work { mark: Mark::Change, reason, changes: Vec::new() };
                    images.fetched.insert(source.clone(), work);
                }
                Some(known) if known.image.is_some() => {}
                _ if users(world.desired, source).next().is_none() => images.fetch(world, source),
                _ => {}
            }
        }
        images
    }

    /// The image is not on this host and something is to be made of it.
    pub fn fetch(&mut self, world: &World<'_>, source: &ImageSource) {
        let reason = match world.desired.lock.references.contains(source) {
            true => "not on this host; locked",
            false => "not on this host",
        };
        let work = Work { mark: Mark::Create, reason: reason.to_owned(), changes: Vec::new() };
        self.fetched.entry(source.clone()).or_insert(work);
    }

    /// Makes whole again what this project declares, and what its containers are made of. One that is replaced gives its
    /// image up.
    pub fn restore<'r>(
        &mut self,
        world: &World<'_>,
        kept: impl Iterator<Item = &'r ContainerRecord>,
        findings: &mut Findings,
    ) {
        let declared = world.desired.images.keys().filter(|source| in_scope(world, source));
        let declared = declared.filter(|source| !self.fetched.contains_key(source)).filter_map(|source| {
            let image = world.actual.images.get(source)?.image.as_ref()?;
            Some((source, &image.id))
        });
        let made_of = kept.filter_map(|record| Some((&record.spec.image, record.image.as_ref()?)));
        let mut restored = BTreeMap::new();
        for (source, id) in declared.chain(made_of) {
            let Some(layers) = world.actual.damaged.get(id).filter(|_| !restored.contains_key(id)) else { continue };
            let layers: Vec<&str> = layers.iter().map(Digest::short).collect();
            let (layer, is) = if layers.len() == 1 { ("layer", "is") } else { ("layers", "are") };
            let reason = format!("its {layer} {} {is} damaged or gone", layers.join(", "));
            let is_reference = matches!(source, ImageSource::Reference(_));
            if is_reference && world.desired.images.get(source) == Some(&Pull::Never) {
                let reason = format!("{reason}, and `pull = \"never\"` forbids fetching it");
                findings.impossible(format!("image {source}"), reason, "`evenkeel image load` it again");
                continue;
            }
            let work = Work { mark: Mark::Change, reason, changes: Vec::new() };
            restored.insert(id.clone(), Restored { subject: format!("image {source}"), work });
        }
        self.restored = restored;
    }

    pub fn knowledge(&self, world: &World<'_>, source: &ImageSource) -> Knowledge {
        let known = world.actual.images.get(source);
        match (self.fetched.get(source), known.and_then(|known| known.image.as_ref())) {
            (Some(work), _) => Knowledge::Fetched { why: work.reason.clone() },
            (None, Some(image)) => Knowledge::Here(image.id.clone()),
            (None, None) => Knowledge::Missing,
        }
    }

    /// Refuses what may not be fetched, and says what could not be asked.
    pub fn check(&self, world: &World<'_>, findings: &mut Findings) {
        for source in world.desired.images.keys().filter(|source| in_scope(world, source)) {
            let Some(known) = world.actual.images.get(source) else { continue };
            if let Some(why) = &known.unasked {
                let what = if known.image.is_some() { "not known whether it moved" } else { "cannot be looked at" };
                findings.warnings.push(format!("image {source}: {what}: {why}"));
            }
        }
        for source in locked(world) {
            let tag = world.actual.images.get(&source).and_then(|known| known.tag.as_ref());
            findings.warnings.extend(tag.and_then(|tag| moved_tag(world, &source, tag)));
        }
        for (source, work) in &self.fetched {
            if work.mark == Mark::Create && world.desired.images.get(source) == Some(&Pull::Never) {
                findings.impossible(
                    format!("image {source}"),
                    "it is not on this host, and `pull = \"never\"` forbids fetching it",
                    "set `pull = \"missing\"`, or load it from an archive",
                );
            }
        }
    }
}

/// Everything that is locked and in scope, the bases of builds too, with tag and digest.
fn locked(world: &World<'_>) -> BTreeSet<ImageSource> {
    let Locking { references, bases } = &world.desired.lock;
    let bases = bases.iter().filter(|(build, _)| in_scope(world, build)).flat_map(|(_, locks)| locks);
    let bases = bases.map(|(name, digest)| pinned(name, digest));
    references.iter().filter(|source| in_scope(world, source)).cloned().chain(bases).collect()
}

/// What there is to say of the tag of a locked reference.
fn moved_tag(world: &World<'_>, source: &ImageSource, tag: &Tag) -> Option<String> {
    let (reference, name) = (source.reference()?, without_digest(source)?);
    let locked = reference.digest?;
    match tag {
        Tag::Is(now) if *now == locked => None,
        Tag::Is(now) => {
            let then = match world.desired.follow.contains_key(source) {
                true => "`watch` follows it".to_owned(),
                false => format!("`evenkeel lock --update {name}` takes that"),
            };
            Some(format!("image {name}: its tag has moved from {} to {now}; {then}", locked.short()))
        }
        Tag::Unknown(why) => Some(format!("image {name}: not known whether its tag moved: {why}")),
    }
}

/// The configuration of the image behind a source, as far as it is known: of a moved source, the one before.
pub(super) fn config<'a>(world: &World<'a>, source: &ImageSource) -> Option<&'a ImageConfig> {
    world.actual.images.get(source)?.image.as_ref().map(|image| &image.config)
}

/// The configuration of the image that this container was made of. Where that is not known any more, it is taken for what
/// its source stands for now.
pub(super) fn made_of<'a>(world: &World<'a>, record: &ContainerRecord) -> Option<&'a ImageConfig> {
    let own = record.image.as_ref().and_then(|id| world.actual.made_of.get(id));
    own.or_else(|| config(world, &record.spec.image))
}

fn users<'a>(desired: &'a Desired, source: &ImageSource) -> impl Iterator<Item = &'a ResourceName> {
    desired.containers.iter().filter(move |(_, c)| c.spec.image == *source).map(|(name, _)| name)
}

/// With targets, only the images of containers in scope.
fn in_scope(world: &World<'_>, source: &ImageSource) -> bool {
    world.scope.is_whole() || users(world.desired, source).any(|name| world.scope.holds(name))
}
