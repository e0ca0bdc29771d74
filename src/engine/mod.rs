//! The engine: the only part of Evenkeel that changes the host.
//!
//! [`Engine`] is the one real seam of the project: [`host`] is a Linux host, and tests put a model in its place.
//!
//! * `records`, `files`, `walk`, `removal`, [`lock`]: what is on disk, how it gets there whole, is looked at, and goes.
//! * [`image`], `storage`, [`network`], `container`: the four kinds of objects.
//! * [`transfer`]: files out of a container and into one.
//! * [`garbage`]: what is needed of images, and the removal of the rest.
//! * [`followed`]: what is known of tags that `watch` follows.
//! * [`waiting`]: waits for containers as they go on.
//! * `telling`: what is told of it all in the journal.
//! * `leftovers`: what is cleared away by whoever takes the lock.
//! * `observe`: all of them at once, as [`Actual`]; `sources`: what images are made of. `shares`: many looks at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use waiting::{Attended, Awaited, Wait};

use crate::model::action::Action;
use crate::model::actual::Actual;
use crate::model::image::{ImageSource, Pull};
use crate::model::lock::Locks;

mod claim;
mod connect;
mod container;
pub mod error;
mod facts;
pub mod fake;
pub(crate) mod files;
pub mod followed;
pub mod garbage;
pub mod host;
pub mod image;
mod last_good;
mod leftovers;
pub mod lock;
pub mod network;
mod observe;
mod orphans;
pub mod records;
mod removal;
pub(crate) mod shares;
mod sources;
mod storage;
mod telling;
pub mod transfer;
pub mod waiting;
mod walk;

pub use container::alive::liveness;
pub use container::changes::{Change, Kind as ChangeKind};
pub use container::etc::{directory as etc_files, hostname};
pub use container::oci::cgroup_path;
pub use walk::length_of_files;

/// What an observation should look at beside everything that records name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Image sources, and when each is looked up.
    pub images: BTreeMap<ImageSource, Pull>,
    /// What the bases of builds are locked to.
    pub bases: BTreeMap<ImageSource, Locks>,
    /// Tags that are asked for at their registries, for as long as [`ASKING`].
    pub tags: BTreeSet<ImageSource>,
}

/// How long an observation waits for registries to say what tags stand for: longer than they take, and shorter than
/// somebody waits who only wants to see a plan.
pub const ASKING: Duration = Duration::from_secs(3);

/// A host that can be looked at and changed: a real one, or a model.
pub trait Engine: Sync {
    type Error: std::error::Error + Send + 'static;

    /// Everything this host knows about `scope` and every record. Changes nothing.
    fn observe(&self, scope: &Scope) -> Result<Actual, Self::Error>;

    /// Makes `action` true. Idempotent: `Ok` means "it is so now".
    fn perform(&self, action: &Action) -> Result<(), Self::Error>;

    /// Looks at what an [`Action::AwaitContainer`] waits for, till `until` at most. `wait` holds what earlier looks saw. An
    /// error when it cannot hold any more, or does not hold in time. That somebody stopped it is neither.
    fn attend(&self, awaited: &Awaited<'_>, wait: &mut Wait, until: Instant) -> Result<Attended, Self::Error>;

    /// The next step for somebody who sees this error, where one is known.
    fn hint(&self, error: &Self::Error) -> Option<String>;
}
