//! The cgroups above a container's own: `create` makes those that are missing, and the last `delete` removes them.
//!
//! Each is remembered by one container, the one that made it. A container that goes while others are below such a
//! cgroup leaves it to one of them. Cgroups that were there before stay.

use std::path::{Path, PathBuf};

use super::log::failure;
use super::store::Container;
use crate::cli::failure::Failure;
use crate::runtime::cgroup;

/// The cgroups above `path` that do not exist, the innermost first.
pub fn missing(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let above: Vec<&Path> = path.ancestors().skip(1).filter(|path| path.file_name().is_some()).collect();
    if above.is_empty() {
        return Ok(Vec::new());
    }
    let hierarchy = cgroup::detect().map_err(failure)?;
    Ok(above.into_iter().take_while(|path| !cgroup::open(&hierarchy, path).exists()).map(Path::to_owned).collect())
}

/// Removes those that `container` has to answer for, or leaves them to another container of its store.
pub fn remove(container: &Container) -> Result<(), Failure> {
    if container.record.made_cgroups.is_empty() {
        return Ok(());
    }
    let hierarchy = cgroup::detect().map_err(failure)?;
    for path in &container.record.made_cgroups {
        let cgroup = cgroup::open(&hierarchy, path);
        cgroup.remove_if_empty().map_err(failure)?;
        if cgroup.exists() {
            leave(path, container)?;
        }
    }
    Ok(())
}

/// To the first container below that nobody works on; without one, whoever uses the cgroup is no container of ours.
fn leave(path: &Path, container: &Container) -> Result<(), Failure> {
    let store = container.store();
    for id in store.ids()?.iter().filter(|id| **id != container.record.id) {
        let is_below = store.look(id).is_ok_and(|other| other.record.cgroup.starts_with(path));
        if is_below && let Ok(mut heir) = store.take_at_once(id) {
            return heir.record_made_cgroup(path);
        }
    }
    Ok(())
}
