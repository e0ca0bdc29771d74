//! How `watch` follows tags: it asks registries now and then, fetches what is due, and says when that is in force.
//!
//! It does so on a thread of its own, since a registry may take its time, and the rounds do not wait for it.
//!
//! ```text
//! manifests ── tell ──> [ tags ] ── look: ask, fetch what is due, remember ── another one in force ──> Wake::Manifest
//! ```
//!
//! # Decisions
//! An image is in force once it is whole on this host: a registry that goes away in the middle keeps nobody from starting
//! what runs.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::followed::{self, Tags, now};
use crate::engine::host::Host;
use crate::model::follow::{Follow, Followed, Sight};
use crate::model::id::{Digest, ProjectName, Whose};
use crate::model::image::ImageSource;
use crate::model::lock::{Locks, pinned, without_digest};
use crate::reconcile::watch::wake::Wake;

use super::failure::Failure;

/// A tag that moved and is not taken yet is looked at so often: its time may have come.
const WAITING: Duration = Duration::from_secs(60);

/// What is followed, as the manifests have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub project: ProjectName,
    /// By whole reference, without a digest.
    pub tags: BTreeMap<String, Follow>,
    pub locks: Locks,
}

impl Wanted {
    /// `None` where nothing is followed.
    pub fn of(project: &Whose, follow: &BTreeMap<ImageSource, Follow>, locks: Locks) -> Option<Wanted> {
        let Whose::Project(project) = project else { return None };
        let tags: BTreeMap<String, Follow> =
            follow.iter().filter_map(|(source, follow)| Some((without_digest(source)?, follow.clone()))).collect();
        (!tags.is_empty()).then(|| Wanted { project: project.clone(), tags, locks })
    }
}

/// The tags that one service follows.
#[derive(Default)]
pub struct Following {
    wanted: Mutex<Option<Wanted>>,
    changed: Condvar,
}

impl Following {
    /// From now on these are followed.
    pub fn tell(&self, wanted: Option<Wanted>) {
        let mut known = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != wanted {
            *known = wanted;
            self.changed.notify_one();
        }
    }

    /// Follows them for as long as the process lives.
    pub fn start(self: Arc<Following>, host: Arc<Host>, every: Duration, to: Sender<Wake>) -> std::io::Result<()> {
        let follow = move || {
            let (mut last, mut due) = (None, None);
            if let Err(error) = host.sweep_followed() {
                tracing::warn!("{}", Failure::engine(error).line());
            }
            loop {
                let wanted = self.next(&mut last, due);
                let looked = look(&host, &wanted);
                due = Some(Instant::now() + if looked.is_waiting { every.min(WAITING) } else { every });
                if looked.is_other && to.send(Wake::Manifest).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("follow".into()).spawn(follow).map(drop)
    }

    /// What is to be looked at, once that is due or something else than `last` is wanted.
    fn next(&self, last: &mut Option<Wanted>, due: Option<Instant>) -> Wanted {
        let mut known = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()));
            match &*known {
                Some(wanted) if *known != *last || left.is_zero() => {
                    *last = known.clone();
                    return wanted.clone();
                }
                Some(_) => {
                    let waited = self.changed.wait_timeout(known, left);
                    known = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                None => known = self.changed.wait(known).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// What came of a look.
#[derive(Default)]
struct Looked {
    /// Another image is in force than before.
    is_other: bool,
    /// Some tag moved and is not taken yet.
    is_waiting: bool,
}

fn look(host: &Host, wanted: &Wanted) -> Looked {
    let mut looked = Looked::default();
    let mut tags = match followed::read(host.paths(), &wanted.project) {
        Ok(tags) => tags,
        Err(error) => {
            tracing::warn!("no tag is followed: {}", Failure::engine(error).line());
            return looked;
        }
    };
    let known = tags.len();
    tags.retain(|name, _| wanted.tags.contains_key(name));
    if tags.len() < known
        && let Err(error) = host.remember_followed(&wanted.project, tags.clone())
    {
        tracing::warn!("{}", Failure::engine(error).line());
    }
    for (name, follow) in &wanted.tags {
        let before = tags.get(name).cloned();
        match look_at(host, wanted, (name, follow), &mut tags) {
            Ok(()) => {
                let after = tags.get(name);
                looked.is_other |= after.map(|tag| &tag.taken) != before.as_ref().map(|tag| &tag.taken);
                looked.is_waiting |= after.is_some_and(|tag| tag.candidate.is_some());
            }
            Err(failure) => tracing::warn!("the tag {name} is not followed now: {}", failure.line()),
        }
    }
    looked
}

/// Every step is on disk before the next: a candidate keeps its age, and what is fetched is needed.
fn look_at(host: &Host, wanted: &Wanted, of: (&String, &Follow), tags: &mut Tags) -> Result<(), Failure> {
    let (name, follow) = of;
    let source = ImageSource::Reference(name.clone());
    let current = host.tag_digest(&source)?;
    let here = host.images().find(&source)?.and_then(|image| image.manifest);
    let sight = Sight { locked: wanted.locks.get(name), here: here.as_ref(), current: &current };
    let before = tags.get(name).cloned().unwrap_or_default();
    let seen = before.clone().after(sight, now().time);
    tags.insert(name.clone(), seen.clone());
    if seen != before {
        tell_candidate((name, follow), &before, &seen);
        host.remember_followed(&wanted.project, tags.clone()).map_err(Failure::engine)?;
    }
    let Some(due) = seen.due(follow, now()).cloned() else { return Ok(()) };
    host.ensure_image(&pinned(name, &due), None).map_err(Failure::engine)?;
    tracing::info!("the tag {name} is followed to {due}{}", before_it(seen.taken.as_ref()));
    tags.insert(name.clone(), seen.take());
    host.remember_followed(&wanted.project, tags.clone()).map_err(Failure::engine)
}

fn tell_candidate((name, follow): (&String, &Follow), before: &Followed, seen: &Followed) {
    let Some(candidate) = seen.candidate.as_ref().filter(|_| seen.taken.is_some()) else { return };
    if before.candidate.as_ref() != Some(candidate) {
        let window = follow.window.map(|window| format!(", within {window}")).unwrap_or_default();
        let digest = &candidate.digest;
        tracing::info!("the tag {name} has moved to {digest}; it is taken after {}{window}", follow.min_age);
    }
}

fn before_it(taken: Option<&Digest>) -> String {
    taken.map(|taken| format!("; before it was {taken}")).unwrap_or_default()
}
