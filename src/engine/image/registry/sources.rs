//! A registry and its mirrors: whoever has it first.
//!
//! The mirrors of the host file are asked in their order, then the registry itself. One that does not answer, or has not
//! what is wanted, is passed over for as long as this lasts, and soon, since others are behind it: what the next one answers is as good, since every byte is
//! verified against a digest. Which digest a tag stands for is the word of whoever answered.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::scope::Scopes;
use super::{Fetched, Registry};
use crate::engine::image::error::ImageError;
use crate::engine::image::options::Options;
use crate::model::id::Digest;
use crate::model::reference::Reference;

/// Never empty.
pub struct Sources {
    all: Vec<Registry>,
    /// Those before it have failed.
    at: AtomicUsize,
}

impl Sources {
    /// Where a reference may be pulled from. Asks nobody yet.
    pub fn of(reference: &Reference, options: &Options) -> Result<Sources, ImageError> {
        let mut all = Vec::new();
        for mirror in &options.registries.of(&reference.registry).mirrors {
            let repository = match mirror.path.as_str() {
                "" => reference.repository.clone(),
                path => format!("{path}/{}", reference.repository),
            };
            all.push(Registry::open(mirror.registry.as_str(), &repository, Scopes::pull(&repository), options)?);
        }
        let (name, repository) = (&reference.registry, &reference.repository);
        match Registry::open(name, repository, Scopes::pull(repository), options) {
            Ok(registry) => all.push(registry),
            Err(ImageError::Blocked { .. }) if !all.is_empty() => {}
            Err(error) => return Err(error),
        }
        let last = all.len() - 1;
        let all = all.into_iter().enumerate();
        let all = all.map(|(at, one)| if at < last { one.with_others_behind() } else { one }).collect();
        Ok(Sources { all, at: AtomicUsize::new(0) })
    }

    /// The digest of what `version`, a tag or a digest, stands for now.
    pub fn manifest_digest(&self, version: &str) -> Result<Digest, ImageError> {
        self.ask(|registry| registry.manifest_digest(version))
    }

    /// The index or manifest that `version`, a tag or a digest, stands for now.
    pub fn manifest(&self, version: &str) -> Result<Fetched, ImageError> {
        self.ask(|registry| registry.manifest(version))
    }

    /// The tags of the repository.
    pub fn tags(&self) -> Result<Vec<String>, ImageError> {
        self.ask(Registry::tags)
    }

    /// A configuration, verified.
    pub fn config(&self, digest: &Digest) -> Result<Fetched, ImageError> {
        self.ask(|registry| registry.config(digest))
    }

    /// The one to go on with.
    pub(super) fn current(&self) -> (usize, &Registry) {
        let at = self.at.load(Ordering::Relaxed).min(self.all.len() - 1);
        (at, &self.all[at])
    }

    /// Gives up the one at `at`, if there is another.
    pub(super) fn pass_over(&self, at: usize, error: &ImageError) -> bool {
        if at + 1 >= self.all.len() {
            return false;
        }
        if self.at.fetch_max(at + 1, Ordering::Relaxed) == at {
            tracing::warn!("the mirror `{}` is passed over: {}", self.all[at].name, error.with_causes());
        }
        true
    }

    fn ask<T>(&self, ask: impl Fn(&Registry) -> Result<T, ImageError>) -> Result<T, ImageError> {
        let mut passed = Vec::new();
        loop {
            let (at, registry) = self.current();
            match ask(registry) {
                Ok(answer) => return Ok(answer),
                Err(error) if self.pass_over(at, &error) => {
                    passed.push(format!("`{}`: {}", registry.name, error.with_causes()));
                }
                Err(error) if passed.is_empty() => return Err(error),
                Err(error) => return Err(ImageError::Mirrors { passed, source: Box::new(error) }),
            }
        }
    }
}
