//! Looking at what images are made of: files on this host, and registries where they are asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::host::Host;
use super::records::Records;
use super::{ASKING, Scope, image};
use crate::model::actual::{ActualImage, Tag};
use crate::model::image::{Image, ImageSource, Pull};
use crate::monitor::protocol::chain;

/// How long registries are waited for that are asked whether a tag to pull has moved.
const PULLING_PATIENCE: Duration = Duration::from_secs(10);
/// How long one that was silent is not asked again, unless somebody wants to know.
const LEFT_ALONE: Duration = Duration::from_secs(300);

/// Sources whose registries gave no answer, and when that was.
#[derive(Debug, Default)]
pub(super) struct Silent(Mutex<BTreeMap<ImageSource, Instant>>);

impl Silent {
    fn has(&self, source: &ImageSource) -> bool {
        let since = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(source).map(Instant::elapsed);
        since.is_some_and(|since| since < LEFT_ALONE)
    }

    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn note(&self, source: &ImageSource) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(source.clone(), Instant::now());
    }
}

/// Sources of the scope, as it says; those of records only from what is on this host. A registry that cannot be asked,
/// or a build context that cannot be read, keeps nobody from looking at the rest: what is on this host goes on, and the
/// plan says what is not known. Registries are asked all at once, while the rest is looked at, and those that are silent are
/// left alone for a while: whoever waits here may hold the lock.
pub(super) fn observe(host: &Host, scope: &Scope, records: &Records) -> BTreeMap<ImageSource, ActualImage> {
    let recorded = records.containers.values().map(|record| (&record.spec.image, &Pull::Never));
    let sources: BTreeMap<&ImageSource, &Pull> = recorded.chain(&scope.images).collect();
    let tags: Vec<_> = scope.tags.iter().map(|source| (source.clone(), ask(host, source, image::tag_digest))).collect();
    let (far, near): (Vec<_>, Vec<_>) = sources.into_iter().partition(|(source, pull)| is_asked(source, **pull));
    let asked = Instant::now();
    let store = host.store.clone();
    let look =
        move |source: &ImageSource, options: &image::Options| image::observe(&store, source, Pull::Always, options);
    let far: Vec<_> = far
        .into_iter()
        .map(|(source, _)| (source.clone(), (!host.silent.has(source)).then(|| ask(host, source, look.clone()))))
        .collect();
    let look = |(source, pull): (&ImageSource, &Pull)| {
        let found = match scope.bases.get(source) {
            None => image::observe(&host.store, source, *pull, &host.images),
            Some(bases) => {
                let options = image::Options { bases: Some(bases.clone()), ..host.images.clone() };
                image::observe(&host.store, source, *pull, &options)
            }
        };
        (source.clone(), found.unwrap_or_else(|error| unasked(host, source, chain(&error))))
    };
    let mut images: BTreeMap<ImageSource, ActualImage> = near.into_iter().map(look).collect();
    for (source, tag) in tags {
        let tag = match hear(&tag, asked + ASKING) {
            Some(Ok(digest)) => Tag::Is(digest),
            Some(Err(why)) => Tag::Unknown(why),
            None => Tag::Unknown(format!("no answer in {} s", ASKING.as_secs())),
        };
        images.entry(source).or_default().tag = Some(tag);
    }
    for (source, answer) in far {
        let patience = PULLING_PATIENCE.as_secs();
        let found = match answer.map(|answer| hear(&answer, asked + PULLING_PATIENCE)) {
            Some(Some(Ok(found))) => found,
            Some(Some(Err(why))) => unasked(host, &source, why),
            Some(None) => {
                host.silent.note(&source);
                unasked(host, &source, format!("its registry gave no answer in {patience} s"))
            }
            None => unasked(host, &source, format!("its registry gave no answer in {patience} s a while ago")),
        };
        let tag = images.remove(&source).and_then(|known| known.tag);
        images.insert(source, ActualImage { tag, ..found });
    }
    images
}

/// Whether looking at it is asking a registry. A digest stands for the same forever.
fn is_asked(source: &ImageSource, pull: Pull) -> bool {
    pull == Pull::Always && matches!(source, ImageSource::Reference(text) if !text.contains('@'))
}

/// Where its record cannot be read either, that is the error which is told.
fn unasked(host: &Host, source: &ImageSource, why: String) -> ActualImage {
    ActualImage { image: host.store.known_as(source).unwrap_or_default(), moved: None, unasked: Some(why), tag: None }
}

/// Whether registries say that they do not have a damaged image any more. One that is silent is left alone for a while.
pub(super) fn is_lost(host: &Host, image: &Image, names: &BTreeSet<ImageSource>) -> bool {
    let Some(name) = names.first().filter(|_| !names.iter().any(|name| host.silent.has(name))) else { return false };
    let (store, image, all) = (host.store.clone(), image.clone(), names.clone());
    let answer = ask(host, name, move |_, options| image::restore::is_lost(&store, &image, &all, options));
    match hear(&answer, Instant::now() + ASKING) {
        Some(answer) => answer.unwrap_or(false),
        None => {
            host.silent.note(name);
            false
        }
    }
}

type Answer<T> = mpsc::Receiver<Result<T, String>>;

/// Asks on a thread that outlives its welcome where a registry is silent, as long as that takes or this process lives.
fn ask<T: Send + 'static>(
    host: &Host,
    source: &ImageSource,
    question: impl Fn(&ImageSource, &image::Options) -> Result<T, image::ImageError> + Send + 'static,
) -> Answer<T> {
    let (to, answer) = mpsc::channel();
    let (source, options) = (source.clone(), host.images.clone());
    std::thread::spawn(move || to.send(question(&source, &options).map_err(|error| chain(&error))));
    answer
}

/// `None` when nothing was said by then.
fn hear<T>(answer: &Answer<T>, deadline: Instant) -> Option<Result<T, String>> {
    answer.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tags_that_are_always_pulled_are_asked_for() {
        let reference = |text: &str| ImageSource::Reference(text.to_owned());
        assert!(is_asked(&reference("web:1"), Pull::Always));
        assert!(!is_asked(&reference("web:1"), Pull::Missing));
        assert!(!is_asked(&reference(&format!("web@sha256:{}", "0".repeat(64))), Pull::Always));
        assert!(!is_asked(&ImageSource::Rootfs("/srv".into()), Pull::Always));
    }

    #[test]
    fn who_was_silent_is_left_alone() {
        let silent = Silent::default();
        let (web, db) = (ImageSource::Reference("web:1".into()), ImageSource::Reference("db:1".into()));
        silent.note(&web);
        assert!(silent.has(&web) && !silent.has(&db));
        silent.forget();
        assert!(!silent.has(&web), "somebody wants to know");
    }
}
