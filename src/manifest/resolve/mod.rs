//! From what was written to [`Desired`]: names looked up, defaults filled in, and what contradicts reported.
//!
//! * [`declared`]: the tables that others refer to.
//! * [`container`], [`image`], [`build`], [`mount`], [`network`], [`health`], [`limit`]: one container's keys.
//! * [`port`], [`address`], [`dependency`]: what several containers have in common.

mod address;
mod build;
mod container;
mod declared;
mod dependency;
mod health;
mod image;
mod limit;
mod mount;
mod network;
mod port;
mod security;

use std::collections::BTreeMap;

use crate::model::desired::{Borrowed, Desired};
use crate::model::id::ResourceName;
use crate::model::image::{ImageSource, Pull};
use crate::model::lock::Locking;

use super::problem::{Place, Placed, Problem, Source};
use super::read::Reading;
use super::shape::project::Manifest;
use declared::Declared;

type ImageNames = BTreeMap<ImageSource, ResourceName>;

/// The project, or `None` when a part of it could not be made; `reading` then holds why.
pub(super) fn resolve(manifest: &Manifest, reading: &mut Reading<'_>) -> Option<(Desired, ImageNames)> {
    let declared = Declared::of(manifest, reading);
    let mut images: BTreeMap<ImageSource, Pull> = declared.pulls();
    let mut networks = declared.network_specs();
    let mut containers = BTreeMap::new();
    for (name, written) in entries(&manifest.containers) {
        let Some(container) = container::resolve(name, written, &declared, reading) else { continue };
        images.entry(container.spec.image.clone()).or_default();
        if network::relies_on_default(&container.spec.network) {
            networks.entry(network::default_name()).or_default();
        }
        containers.insert(name.value.clone(), container);
    }
    port::check(manifest, reading);
    address::check(manifest, reading);
    dependency::check(manifest, &declared, reading);
    if manifest.project.is_none() && !manifest.unread.contains(&"project") {
        let missing = missing_project(&reading.sources);
        reading.report(missing);
    }
    let project = manifest.project.as_ref()?.value.clone().into();
    let volumes = declared.volume_specs();
    let borrowed = Borrowed::default();
    let (lock, follow) = (Locking::default(), declared.followed());
    let desired = Desired { project, images, networks, volumes, containers, borrowed, lock, follow };
    Some((desired, declared.image_names()))
}

pub(super) fn missing_project(sources: &[Source]) -> Problem {
    let message = "the manifest does not name its project";
    let problem = match sources.is_empty() {
        true => Problem::nowhere(message),
        false => Problem::at(&Place::default(), message).label("`project` is missing"),
    };
    problem.help("write `project = \"NAME\"` at the top: what carries this name belongs to this manifest")
}

/// The entries of an optional table that could be read.
fn entries<K, V>(table: &Option<Placed<super::read::Entries<K, V>>>) -> impl Iterator<Item = (&Placed<K>, &V)> {
    table.iter().flat_map(|table| table.whole())
}

/// The keys of an optional table, those with unreadable values included.
fn keys<K, V>(table: &Option<Placed<super::read::Entries<K, V>>>) -> impl Iterator<Item = &Placed<K>> {
    table.iter().flat_map(|table| table.0.iter().map(|(key, _)| key))
}

/// The value of an optional key.
fn value_of<T: Clone>(field: &Option<Placed<T>>) -> Option<T> {
    field.as_ref().map(|placed| placed.value.clone())
}
