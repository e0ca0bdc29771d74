//! Whether a container runs: the one answer for the planner and for the commands that show or touch it.

use super::{oci, stray};
use crate::engine::error::EngineError;
use crate::model::actual::Liveness;
use crate::model::id::RootTag;
use crate::model::paths::{Paths, run};
use crate::model::record::ContainerRecord;
use crate::monitor;
use crate::runtime::cgroup::{self, Hierarchy};

/// As its monitor says. Where the run directory is gone nobody says anything, and the kernel is asked: a control group
/// with processes, or a monitor that lost its directory, is a container that has to be made to end.
///
/// What was not started since boot has no control group, so `hierarchy` is called and more is looked at only where no
/// monitor ever was, or the directory is gone.
pub fn liveness(
    paths: &Paths,
    tag: &RootTag,
    record: &ContainerRecord,
    hierarchy: impl FnOnce() -> Result<Hierarchy, EngineError>,
) -> Result<Liveness, EngineError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| EngineError::Monitor {
        operation: "look at",
        name: record.full_name(),
        source,
    };
    let directory = paths.container_run(&record.id);
    let said = monitor::liveness(&directory).map_err(|error| failed(Box::new(error)))?;
    // With a lock file the lock alone says whether a monitor lives: one may be about to write its first word.
    if said != Liveness::Absent || directory.join(run::LOCK).exists() {
        return Ok(said);
    }
    let group = cgroup::open(&hierarchy()?, &oci::cgroup_path(tag, &record.id));
    let is_lost = group.exists()
        && (!group.processes().map_err(|error| failed(Box::new(error)))?.is_empty()
            || !stray::monitors(&directory)?.is_empty());
    Ok(if is_lost { Liveness::Lost(None) } else { said })
}
