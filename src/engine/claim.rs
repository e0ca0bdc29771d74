//! One run directory for a state root, one state root for a run directory, and one state root for a tag.
//!
//! ```text
//! RUN/root                  a link to the state root: what runs in RUN without a record there is an orphan
//! ROOT/run.json             boot and run directory: what runs of ROOT, runs there
//! /run/evenkeel-tags/TAG    a link to the state root: control groups, links and a firewall table of TAG without a record
//!                           there are orphans
//! ```
//!
//! A link's name has 15 bytes, so a tag has 16 bits, and of 300 roots some two have one tag with even odds. The second would
//! take the containers of the first for its own that have no record, and remove them. It is told to be elsewhere.
//!
//! A second run directory would see none of the monitors, and start every container again on the same files. A boot ends
//! them all, and where no container has a control group there is nothing to be seen: then another may take over.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{At, EngineError};
use super::files::{self, Durability};
use super::records;
use crate::model::id::RootTag;
use crate::model::paths::Paths;

/// One for each boot of a kernel (random(4)).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Served {
    boot: String,
    run: PathBuf,
}

/// The same for every root and run directory of this host, and gone after a boot, as all that has a tag.
const TAGS: &str = "/run/evenkeel-tags";

/// Claims the tag for this root; an error where another root has it. What was claimed by a root that is no more is free.
pub fn tag(tag: &RootTag, root: &Path) -> Result<(), EngineError> {
    tag_at(Path::new(TAGS), tag, root)
}

fn tag_at(tags: &Path, tag: &RootTag, root: &Path) -> Result<(), EngineError> {
    let link = tags.join(tag.as_str());
    if std::fs::read_link(&link).is_ok_and(|owner| owner == root) {
        return Ok(());
    }
    files::create_directories(tags)?;
    // Nobody else looks at what is old meanwhile, or claims (flock(2)). It is held for moments.
    let all = File::open(tags).at("open", tags)?;
    all.lock().at("lock", tags)?;
    for claim in std::fs::read_dir(tags).at("list", tags)? {
        let claim = claim.at("list", tags)?.path();
        let Ok(owner) = std::fs::read_link(&claim) else { continue };
        // Only one that is known not to be there is gone: another mount namespace, or a disk that fails, may hide it.
        let is_gone =
            std::fs::symlink_metadata(&owner).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        if claim == link && owner != root && !is_gone {
            return Err(EngineError::Tag { root: root.to_owned(), owner });
        }
        if is_gone {
            files::remove_file(&claim)?;
        }
    }
    match std::os::unix::fs::symlink(root, &link) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.at("create", &link),
    }
}

/// Claims the run directory. A link is there whole or not at all (symlink(2)).
pub fn run_directory(paths: &Paths) -> Result<(), EngineError> {
    let link = paths.run_owner();
    match std::os::unix::fs::symlink(&paths.root, &link) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let owner = std::fs::read_link(&link).at("read", &link)?;
            match owner == paths.root {
                true => Ok(()),
                false => Err(EngineError::RunDirectory { run: paths.run.clone(), owner }),
            }
        }
        other => other.at("create", &link),
    }
}

/// An error where containers of the state root run in another run directory.
pub fn check(paths: &Paths, runs: impl FnOnce() -> Result<bool, EngineError>) -> Result<(), EngineError> {
    let ours = Served { boot: boot()?, run: paths.run.clone() };
    match served(paths)? {
        Some(found) if found.boot == ours.boot && found.run != ours.run && runs()? => {
            Err(EngineError::StateRoot { root: paths.root.clone(), run: found.run })
        }
        _ => Ok(()),
    }
}

/// As [`check`], and from here on the state root is served by this run directory. The caller holds the lock.
pub fn state_root(paths: &Paths, runs: impl FnOnce() -> Result<bool, EngineError>) -> Result<(), EngineError> {
    check(paths, runs)?;
    let ours = Served { boot: boot()?, run: paths.run.clone() };
    if served(paths)?.as_ref() == Some(&ours) {
        return Ok(());
    }
    files::write_json(&paths.served(), &ours, Durability::Durable)
}

/// A claim that is damaged is none.
fn served(paths: &Paths) -> Result<Option<Served>, EngineError> {
    records::unless_damaged(files::read_json(&paths.served()))
}

/// Which boot this is.
pub(super) fn boot() -> Result<String, EngineError> {
    Ok(std::fs::read_to_string(BOOT).at("read", BOOT)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_of_one_root_as_long_as_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let (tags, tag) = (directory.path().join("tags"), RootTag::from_hash([1, 2]));
        let root = |name: &str| {
            let root = directory.path().join(name);
            std::fs::create_dir_all(&root).unwrap();
            root
        };
        let (a, b) = (root("a"), root("b"));
        tag_at(&tags, &tag, &a).unwrap();
        tag_at(&tags, &tag, &a).unwrap();
        let refused = tag_at(&tags, &tag, &b).unwrap_err();
        assert!(matches!(&refused, EngineError::Tag { owner, .. } if *owner == a), "{refused}");
        tag_at(&tags, &RootTag::from_hash([1, 3]), &b).unwrap();
        std::fs::remove_dir(&a).unwrap();
        tag_at(&tags, &tag, &b).unwrap();
        assert!(tag_at(&tags, &tag, &root("a")).is_err());
        // Nobody misses the claim of a root that is gone.
        std::fs::remove_dir(&b).unwrap();
        tag_at(&tags, &RootTag::from_hash([1, 4]), &a).unwrap();
        assert_eq!(std::fs::read_dir(&tags).unwrap().count(), 1);
    }

    #[test]
    fn another_run_directory_takes_over_after_a_boot_or_where_nothing_runs() {
        let directory = tempfile::tempdir().unwrap();
        let at = |run: &str| Paths { root: directory.path().to_owned(), run: directory.path().join(run) };
        let (yes, no) = (|| Ok(true), || Ok(false));
        state_root(&at("a"), yes).unwrap();
        state_root(&at("a"), yes).unwrap();
        let refused = state_root(&at("b"), yes).unwrap_err();
        assert!(matches!(&refused, EngineError::StateRoot { run, .. } if run.ends_with("a")), "{refused}");
        check(&at("a"), yes).unwrap();
        state_root(&at("b"), no).unwrap();
        check(&at("a"), yes).unwrap_err();
        let earlier = Served { boot: "of another boot".into(), run: at("a").run };
        files::write_json(&at("a").served(), &earlier, Durability::Volatile).unwrap();
        state_root(&at("b"), yes).unwrap();
        check(&at("a"), yes).unwrap_err();
    }
}
