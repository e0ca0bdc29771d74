//! Which of a store's contents go: a pure choice from what is there, what is needed, and what is wished.
//!
//! ```text
//! Facts   what lies on the disk, how large it is and when it was last used   ─┐
//! Needs   what containers, manifests, locks and ways back need               ─┼─> choose ─> Chosen, in order of removal
//! Policy  how much is to go                                                  ─┘
//! ```
//!
//! # Decisions
//! * Oldest use first and nothing else: a size in the order would make large images, which are the dear ones to fetch
//!   again, the first to go.
//! * An image of which every layer stays anyway is left alone when space is wanted: it would free none.
//! * While an image that a container was made of cannot be read, nothing goes: nobody knows which layers it has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::host_config::GcConfig;
use super::id::Digest;
use super::image::ImageSource;
use super::reference::Reference;

/// Everything in a store that could go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub images: Vec<ImageFact>,
    pub steps: Vec<StepFact>,
    pub caches: Vec<CacheFact>,
    /// Layers on the disk, and the bytes of their files.
    pub layers: BTreeMap<Digest, u64>,
    /// Manifests and configurations on the disk, and their bytes.
    pub blobs: BTreeMap<Digest, u64>,
    /// What builds remember, where it cannot be read or names what is gone; by its path in the state root.
    pub damaged: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFact {
    pub id: Digest,
    /// What stands for it; nothing for a dangling image.
    pub names: BTreeSet<ImageSource>,
    /// The manifests by which it was pulled.
    pub manifests: BTreeSet<Digest>,
    /// Those that are mounted and those that are only saved and pushed.
    pub layers: BTreeSet<Digest>,
    pub blobs: BTreeSet<Digest>,
    /// When it was fetched, or a container of it was made or removed, whichever was last.
    pub used: SystemTime,
}

/// What a build remembers of one instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepFact {
    pub key: Digest,
    pub layer: Digest,
    pub used: SystemTime,
}

/// A directory of `RUN --mount=type=cache`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheFact {
    pub name: String,
    pub bytes: u64,
    pub used: SystemTime,
}

/// What stays, whatever is wished.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Images that containers were made of.
    pub made_of: BTreeSet<Digest>,
    /// Images that are kept where they are here: those to go back to.
    pub images: BTreeSet<Digest>,
    /// Manifests that are locked or followed.
    pub manifests: BTreeSet<Digest>,
    /// What is declared.
    pub sources: BTreeSet<ImageSource>,
}

impl Needs {
    /// An image by what stands for it; a reference with a digest also under whatever other name it was pulled by.
    pub fn add_source(&mut self, source: &ImageSource) {
        if let ImageSource::Reference(text) = source {
            self.manifests.extend(text.parse().ok().and_then(|reference: Reference| reference.digest));
        }
        self.sources.insert(source.clone());
    }

    pub fn has(&self, image: &ImageFact) -> bool {
        self.made_of.contains(&image.id)
            || self.images.contains(&image.id)
            || !self.manifests.is_disjoint(&image.manifests)
            || !self.sources.is_disjoint(&image.names)
    }

    /// An image that a container was made of and that is not known here.
    pub fn unknown(&self, facts: &Facts) -> Option<&Digest> {
        self.made_of.iter().find(|id| facts.images.iter().all(|image| image.id != **id))
    }
}

/// How much goes besides what belongs to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    Nothing,
    /// Images without a name.
    Dangling,
    /// Everything that is not needed.
    All,
    /// What was not used for longest, until so many bytes are free.
    Bytes(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub extent: Extent,
    /// Only these images, and nothing that builds keep.
    pub only: Option<BTreeSet<Digest>>,
    /// What was used more recently than this stays.
    pub unused_for: Duration,
    pub now: SystemTime,
}

/// Something that goes. Names go before contents, so this is also the order of removal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", content = "name", rename_all = "snake_case")]
pub enum Thing {
    /// A record that means nothing.
    Record(String),
    /// An image with all its names.
    Image(Digest),
    /// What a build remembers, by its key.
    Step(Digest),
    Cache(String),
    Layer(Digest),
    Blob(Digest),
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Thing::Record(path) => write!(f, "record {path}"),
            Thing::Image(id) => write!(f, "image {}", id.short()),
            Thing::Step(key) => write!(f, "build step {}", key.short()),
            Thing::Cache(name) => write!(f, "build cache {}", name.get(..12).unwrap_or(name)),
            Thing::Layer(diff_id) => write!(f, "layer {}", diff_id.short()),
            Thing::Blob(digest) => write!(f, "blob {}", digest.short()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chosen {
    #[serde(flatten)]
    pub thing: Thing,
    #[serde(serialize_with = "in_words")]
    pub why: Reason,
    /// Bytes that become free with just this: an image has them in its layers.
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Damaged,
    Nameless,
    /// Not used for so long.
    Unneeded(Duration),
    /// Not used for so long, and the disk is to be emptier.
    Space(Duration),
    /// Nothing that stays has it.
    OfNothing,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days_and_hours = |time: &Duration| {
            let hours = time.as_secs() / 3600;
            match (hours / 24, hours % 24, time.as_secs() / 60) {
                (0, 0, minutes) => format!("{minutes}m"),
                (0, hours, _) => format!("{hours}h"),
                (days, hours, _) => format!("{days}d {hours}h"),
            }
        };
        match self {
            Reason::Damaged => f.write_str("it cannot be read, or what it names is gone"),
            Reason::Nameless => f.write_str("it has no name and nothing needs it"),
            Reason::Unneeded(age) => write!(f, "nothing needs it, and nothing has used it for {}", days_and_hours(age)),
            Reason::Space(age) => {
                write!(f, "the disk is too full, nothing needs it, and nothing has used it for {}", days_and_hours(age))
            }
            Reason::OfNothing => f.write_str("nothing that stays has it"),
        }
    }
}

fn in_words<S: serde::Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(reason)
}

/// How full a file system is, for those who are not root: what is kept for root counts for neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    pub used: u64,
    pub available: u64,
}

impl Policy {
    /// As `[gc]` of a host file has it, where so many bytes are to become free.
    pub fn of_host(config: &GcConfig, excess: Option<u64>, now: SystemTime) -> Policy {
        let extent = excess.map_or(Extent::Nothing, Extent::Bytes);
        Policy { extent, only: None, unused_for: config.min_age.to_duration(), now }
    }
}

impl Disk {
    /// Bytes that are to become free: none below the high mark, above it all down to the low one.
    pub fn excess(&self, config: &GcConfig) -> Option<u64> {
        let size = u128::from(self.used) + u128::from(self.available);
        let mark = |percent: u8| size * u128::from(percent) / 100;
        let used = u128::from(self.used);
        (size > 0 && used >= mark(config.high)).then(|| u64::try_from(used - mark(config.low)).unwrap_or(u64::MAX))
    }
}

/// What goes, names before contents.
pub fn choose(facts: &Facts, needs: &Needs, policy: &Policy) -> Vec<Chosen> {
    if needs.unknown(facts).is_some() {
        return Vec::new();
    }
    let candidates = candidates(facts, needs, policy);
    let mut kept = Holders::of(facts);
    let mut freed: u64 = kept.free_layers(facts).map(|(_, bytes)| *bytes).sum();
    let damaged = |path: &String| Chosen { thing: Thing::Record(path.clone()), why: Reason::Damaged, bytes: 0 };
    let mut chosen: Vec<Chosen> = facts.damaged.iter().map(damaged).collect();
    for Candidate { part, used } in candidates {
        if matches!(policy.extent, Extent::Bytes(wanted) if freed >= wanted) {
            break;
        }
        let age = policy.now.duration_since(used).unwrap_or_default();
        let by_age = match policy.extent {
            Extent::Bytes(_) => Reason::Space(age),
            Extent::Nothing | Extent::Dangling | Extent::All => Reason::Unneeded(age),
        };
        let (thing, why, bytes) = match part {
            Part::Image(image) => {
                freed = freed.saturating_add(kept.let_go(facts, &image.layers));
                kept.let_go_blobs(&image.blobs);
                let why = if image.names.is_empty() { Reason::Nameless } else { by_age };
                (Thing::Image(image.id.clone()), why, 0)
            }
            Part::Step(step) => {
                freed = freed.saturating_add(kept.let_go(facts, [&step.layer]));
                (Thing::Step(step.key.clone()), by_age, 0)
            }
            Part::Cache(cache) => {
                freed = freed.saturating_add(cache.bytes);
                (Thing::Cache(cache.name.clone()), by_age, cache.bytes)
            }
        };
        chosen.push(Chosen { thing, why, bytes });
    }
    let of_nothing = |thing, bytes: &u64| Chosen { thing, why: Reason::OfNothing, bytes: *bytes };
    chosen.extend(kept.free_layers(facts).map(|(layer, bytes)| of_nothing(Thing::Layer(layer.clone()), bytes)));
    chosen.extend(kept.free_blobs(facts).map(|(blob, bytes)| of_nothing(Thing::Blob(blob.clone()), bytes)));
    chosen
}

/// What may go and is wished to go.
struct Candidate<'a> {
    part: Part<'a>,
    used: SystemTime,
}

#[derive(Clone, Copy)]
enum Part<'a> {
    Image(&'a ImageFact),
    Step(&'a StepFact),
    Cache(&'a CacheFact),
}

/// Everything that may go, that of the longest disuse first.
fn candidates<'a>(facts: &'a Facts, needs: &Needs, policy: &Policy) -> Vec<Candidate<'a>> {
    // A use in the future, by a clock that was set back, is a recent one.
    let is_old = |used: SystemTime| policy.now.duration_since(used).is_ok_and(|age| age >= policy.unused_for);
    let is_wished = |image: &ImageFact| {
        policy.only.as_ref().is_none_or(|only| only.contains(&image.id))
            && match policy.extent {
                Extent::Nothing => false,
                Extent::Dangling => image.names.is_empty(),
                Extent::All | Extent::Bytes(_) => true,
            }
    };
    let may_go = |image: &ImageFact| !needs.has(image) && is_old(image.used) && is_wished(image);
    let staying = facts.images.iter().filter(|image| !may_go(image));
    let pinned: BTreeSet<&Digest> = staying.flat_map(|image| &image.layers).collect();
    let frees_something = |image: &ImageFact| match policy.extent {
        Extent::Bytes(_) => image.layers.iter().any(|layer| !pinned.contains(layer)),
        Extent::Nothing | Extent::Dangling | Extent::All => true,
    };
    let mut candidates: Vec<Candidate<'a>> = facts
        .images
        .iter()
        .filter(|image| may_go(image) && frees_something(image))
        .map(|image| Candidate { part: Part::Image(image), used: image.used })
        .collect();
    if matches!(policy.extent, Extent::All | Extent::Bytes(_)) && policy.only.is_none() {
        // A step costs nothing while an image has its layer, and makes the next build faster.
        let steps = facts.steps.iter().filter(|step| is_old(step.used) && !pinned.contains(&step.layer));
        candidates.extend(steps.map(|step| Candidate { part: Part::Step(step), used: step.used }));
        let caches = facts.caches.iter().filter(|cache| is_old(cache.used));
        candidates.extend(caches.map(|cache| Candidate { part: Part::Cache(cache), used: cache.used }));
    }
    candidates.sort_by_key(|candidate| candidate.used);
    candidates
}

/// How many of what stays have each layer and each blob.
struct Holders<'a> {
    layers: BTreeMap<&'a Digest, usize>,
    blobs: BTreeMap<&'a Digest, usize>,
}

impl<'a> Holders<'a> {
    fn of(facts: &'a Facts) -> Holders<'a> {
        let mut holders = Holders { layers: BTreeMap::new(), blobs: BTreeMap::new() };
        let of_images = facts.images.iter().flat_map(|image| &image.layers);
        for layer in of_images.chain(facts.steps.iter().map(|step| &step.layer)) {
            *holders.layers.entry(layer).or_default() += 1;
        }
        for blob in facts.images.iter().flat_map(|image| &image.blobs) {
            *holders.blobs.entry(blob).or_default() += 1;
        }
        holders
    }

    /// One holder fewer of each; the bytes of those that had no other.
    fn let_go<'b>(&mut self, facts: &Facts, layers: impl IntoIterator<Item = &'b Digest>) -> u64 {
        let mut freed = 0;
        for layer in layers {
            if let Some(count) = self.layers.get_mut(layer) {
                *count -= 1;
                if *count == 0 {
                    freed += facts.layers.get(layer).copied().unwrap_or_default();
                }
            }
        }
        freed
    }

    fn let_go_blobs(&mut self, blobs: &BTreeSet<Digest>) {
        for blob in blobs {
            if let Some(count) = self.blobs.get_mut(blob) {
                *count -= 1;
            }
        }
    }

    fn free_layers<'b>(&self, facts: &'b Facts) -> impl Iterator<Item = (&'b Digest, &'b u64)> {
        facts.layers.iter().filter(|(layer, _)| self.layers.get(layer).is_none_or(|count| *count == 0))
    }

    fn free_blobs<'b>(&self, facts: &'b Facts) -> impl Iterator<Item = (&'b Digest, &'b u64)> {
        facts.blobs.iter().filter(|(blob, _)| self.blobs.get(blob).is_none_or(|count| *count == 0))
    }
}

#[cfg(test)]
mod tests;
