//! The lock file beside the manifests: what it has lines for, and a project as it is locked.
//!
//! # Decisions
//! Where there is a lock file it has every image, or nothing is planned: what nobody reviewed must not run because a line
//! was forgotten. `watch` goes on with the last good manifest meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::context::Context;
use super::failure::Failure;
use super::phrase::counted;
use crate::engine::followed::{self, Tags};
use crate::engine::image::build;
use crate::engine::image::options::Platform;
use crate::manifest;
use crate::model::desired::Desired;
use crate::model::id::Whose;
use crate::model::image::{ImageSource, Pull};
use crate::model::lock::{Locks, lockable, without_digest};

/// What a lock file has lines for, by name, and who needs each.
pub type Lockable = BTreeMap<String, BTreeSet<String>>;

/// Every reference of a project that can be locked, and every base of its builds.
pub fn lockable_of(desired: &Desired) -> Result<Lockable, Failure> {
    let mut all = Lockable::new();
    for (source, pull) in &desired.images {
        if let Some(name) = lockable(source, *pull) {
            let users = desired.containers.iter().filter(|(_, container)| container.spec.image == *source);
            all.entry(name).or_default().extend(users.map(|(user, _)| format!("container {user}")));
        }
        for base in bases_of(source)? {
            all.entry(base).or_default().insert(source.to_string());
        }
    }
    Ok(all)
}

/// The bases of a build that can be locked; none for what is not built.
fn bases_of(source: &ImageSource) -> Result<Vec<String>, Failure> {
    let ImageSource::Build(spec) = source else { return Ok(Vec::new()) };
    let bases = build::bases(spec, &Platform::host())
        .map_err(|error| Failure::from(error).context(format!("cannot find the bases of {source}")))?;
    Ok(bases.iter().filter_map(|base| lockable(base, Pull::Missing)).collect())
}

/// What the lock file says; `None` where there is none.
pub fn read(path: &Path) -> Result<Option<Locks>, Failure> {
    manifest::read_lock(path).map_err(Failure::lock_problems)
}

/// The lock file of these manifests; empty where there is none.
pub fn locks(context: &Context) -> Result<Locks, Failure> {
    let path = manifest::lock_path(&context.inputs());
    Ok(path.as_deref().map(read).transpose()?.flatten().unwrap_or_default())
}

/// The project with every image as the lock file has it.
pub fn locked(context: &Context, desired: Desired) -> Result<Desired, Failure> {
    as_followed(context, desired, &Tags::new())
}

/// The project with every image as the lock file has it, or as `watch` followed its tag since.
pub fn in_force(context: &Context, desired: Desired) -> Result<Desired, Failure> {
    let followed = match &desired.project {
        Whose::Project(project) if !desired.follow.is_empty() => followed::read(&context.paths, project),
        _ => Ok(Tags::new()),
    };
    as_followed(context, desired, &followed.map_err(Failure::engine)?)
}

fn as_followed(context: &Context, mut desired: Desired, followed: &Tags) -> Result<Desired, Failure> {
    let path = manifest::lock_path(&context.inputs());
    let file = path.as_deref().map(read).transpose()?.flatten();
    if let (Some(path), Some(locks)) = (&path, &file) {
        ensure_complete(&lockable_of(&desired)?, locks, path)?;
        for source in desired.images.keys() {
            let locked = |name: String| Some((name.clone(), locks.get(&name)?.clone()));
            if let ImageSource::Build(_) = source {
                let bases: Locks = bases_of(source)?.into_iter().filter_map(locked).collect();
                desired.lock.bases.insert(source.clone(), bases);
            }
        }
    }
    let mut locks = file.unwrap_or_default();
    for name in desired.follow.keys().filter_map(without_digest) {
        if let Some(digest) = followed.get(&name).and_then(|tag| tag.in_force(locks.get(&name))) {
            locks.insert(name, digest.clone());
        }
    }
    Ok(desired.locked(&locks))
}

fn ensure_complete(wanted: &Lockable, locks: &Locks, path: &Path) -> Result<(), Failure> {
    let missing: Vec<String> = wanted
        .iter()
        .filter(|(name, _)| !locks.contains_key(*name))
        .map(|(name, users)| absent(name, users, locks))
        .collect();
    match missing.len() as u64 {
        0 => Ok(()),
        count => {
            let message = format!("`{}` has no line for {}", path.display(), counted(count, "image"));
            Err(Failure::list(message, missing).hint("`evenkeel lock` asks their registries and adds them"))
        }
    }
}

/// Where a line is missing, the one that it may have been is half of the answer.
pub fn absent(name: &str, users: &BTreeSet<String>, locks: &Locks) -> String {
    let repository = |name: &str| name.rsplit_once(':').map(|(repository, _)| repository.to_owned());
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let mut text = name.to_owned();
    if !users.is_empty() {
        text += &format!(" ({})", users.join(", "));
    }
    match locks.keys().find(|locked| repository(locked) == repository(name)) {
        Some(other) => text + &format!("; it has {other}"),
        None => text,
    }
}
