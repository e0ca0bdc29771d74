//! What image references stand for, once and for all: what `evenkeel.lock` says.
//!
//! # Decisions
//! * A line has the digest that the registry names under the tag: of the index where there is one, not of the manifest of
//!   one platform. So one file holds for every architecture, it is what `docker inspect` and `skopeo inspect` show a
//!   reviewer, and what a signature or an attestation is of. Which manifest of the index a host takes is decided when it
//!   pulls, and the index names that by its digest.
//! * `pull = "never"` is not locked: what such a reference stands for is what each host has, and no registry knows it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::desired::Desired;
use super::id::Digest;
use super::image::{ImageSource, Pull};
use super::reference::Reference;

/// Digests by whole reference, `docker.io/library/nginx:1.27`.
pub type Locks = BTreeMap<String, Digest>;

/// What of a project is locked. Empty where there is no lock file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Locking {
    /// References that have their digest from the lock file: `docker.io/library/nginx:1.27@sha256:..`.
    pub references: BTreeSet<ImageSource>,
    /// The bases of builds, by what is built: every build is here where there is a lock file, though it have no bases.
    #[serde(with = "super::pairs")]
    pub bases: BTreeMap<ImageSource, Locks>,
}

impl Locking {
    /// The bases of one build; `None` for what is not built, or not locked.
    pub fn bases_of(&self, source: &ImageSource) -> Option<Locks> {
        self.bases.get(source).cloned()
    }
}

/// The name under which a lock has a source: that of a reference without a digest that may be pulled.
pub fn lockable(source: &ImageSource, pull: Pull) -> Option<String> {
    let reference = source.reference().filter(|reference| reference.digest.is_none())?;
    (pull != Pull::Never).then(|| reference.to_string())
}

/// The whole name of a reference without its digest, which a lock may have given it.
pub fn without_digest(source: &ImageSource) -> Option<String> {
    source.reference().map(|reference| Reference { digest: None, ..reference }.to_string())
}

/// A name as it is locked.
pub fn pinned(name: &str, digest: &Digest) -> ImageSource {
    ImageSource::Reference(format!("{name}@{digest}"))
}

/// Whether both are the same tag, with whichever digest or none: one may be how the other is locked.
pub fn are_one_tag(one: &ImageSource, other: &ImageSource) -> bool {
    let tag = |source: &ImageSource| {
        let reference = source.reference()?;
        Some((reference.registry, reference.repository, reference.tag?))
    };
    tag(one).is_some_and(|found| tag(other) == Some(found))
}

impl Desired {
    /// The same project with every reference as it is locked.
    pub fn locked(mut self, locks: &Locks) -> Desired {
        let mut replaced: BTreeMap<ImageSource, ImageSource> = BTreeMap::new();
        for (source, pull) in &self.images {
            if let Some((name, digest)) = lockable(source, *pull).and_then(|name| locks.get_key_value(&name)) {
                replaced.insert(source.clone(), pinned(name, digest));
            }
        }
        self.lock.references.extend(replaced.values().cloned());
        let as_locked = |source: ImageSource| replaced.get(&source).cloned().unwrap_or(source);
        self.images = self.images.into_iter().map(|(source, pull)| (as_locked(source), pull)).collect();
        self.follow = self.follow.into_iter().map(|(source, follow)| (as_locked(source), follow)).collect();
        for container in self.containers.values_mut() {
            if let Some(locked) = replaced.get(&container.spec.image) {
                container.spec.image = locked.clone();
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::Whose;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn source(text: &str) -> ImageSource {
        ImageSource::Reference(text.to_owned())
    }

    #[test]
    fn a_locked_project_has_digests_where_a_registry_decides() {
        let digested = format!("localhost/c@{DIGEST}");
        let mut desired = Desired::empty(Whose::Nobody);
        desired.images = [
            (source("localhost/a:1"), Pull::Missing),
            (source("localhost/b:1"), Pull::Missing),
            (source("localhost/d:1"), Pull::Never),
            (source(&digested), Pull::Missing),
        ]
        .into();
        let lock = |name: &str| (name.to_owned(), DIGEST.parse().unwrap());
        let locked = desired.locked(&[lock("localhost/a:1"), lock("localhost/d:1"), lock("localhost/e:1")].into());
        let pinned = source(&format!("localhost/a:1@{DIGEST}"));
        let rest = [source("localhost/b:1"), source(&digested), source("localhost/d:1")];
        assert_eq!(locked.images.into_keys().collect::<Vec<_>>(), [std::slice::from_ref(&pinned), &rest].concat());
        assert_eq!(locked.lock.references, BTreeSet::from([pinned]));
    }

    #[test]
    fn a_tag_is_the_same_with_and_without_its_digest() {
        let pinned = source(&format!("localhost/a:1@{DIGEST}"));
        assert!(are_one_tag(&pinned, &source("localhost/a:1")));
        assert!(!are_one_tag(&pinned, &source("localhost/a:2")));
        let digested = source(&format!("localhost/a@{DIGEST}"));
        assert!(!are_one_tag(&digested, &digested), "it has no tag");
    }
}
