//! One run directory for a state root, and one state root for a run directory.
//!
//! ```text
//! RUN/root          a link to the state root: what runs in RUN without a record there is an orphan
//! ROOT/run.json     boot and run directory: what runs of ROOT, runs there
//! ```
//!
//! A second run directory would see none of the monitors, and start every container again on the same files. A boot ends
//! them all, and where no container has a control group there is nothing to be seen: then another may take over.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::{At, EngineError};
use super::files::{self, Durability};
use super::records;
use crate::model::paths::Paths;

/// One for each boot of a kernel (random(4)).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Served {
    boot: String,
    run: PathBuf,
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
