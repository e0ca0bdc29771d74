//! A container's files as it sees them, volumes included, running or not.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::create;
use crate::engine::error::{At, EngineError};
use crate::engine::image::Store;
use crate::model::actual::Liveness;
use crate::model::id::VolumeKey;
use crate::model::launch::RootFilesystem;
use crate::model::paths::Paths;
use crate::model::record::ContainerRecord;
use crate::model::volume::Mount;
use crate::monitor;
use crate::monitor::client::Client;
use crate::runtime::look::{self, Bind};

/// Calls `look` with the container's root directory.
///
/// The caller holds the lock where the container does not run, so that nobody starts it meanwhile.
pub fn with_root<T: Send>(
    paths: &Paths,
    store: &Store,
    record: &ContainerRecord,
    look: impl FnOnce(BorrowedFd<'_>) -> T + Send,
) -> Result<T, EngineError> {
    let directory = paths.container_run(&record.id);
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| EngineError::Monitor {
        operation: "look into",
        name: record.full_name(),
        source,
    };
    let liveness = monitor::liveness(&directory).map_err(|error| failed(Box::new(error)))?;
    if let Liveness::Monitored(status) = &liveness
        && let Some(pid) = status.pid
    {
        let process = Path::new("/proc").join(pid.to_string());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(CWD, &process, flags, Mode::empty()).at("open", &process)?;
        // The descriptor stands for this very process; if it is still the container's now, it was so then.
        let status = Client::connect(&directory).and_then(|client| client.status());
        if status.map_err(|error| failed(Box::new(error)))?.pid == Some(pid) {
            let root = openat(&opened, "root", flags, Mode::empty()).at("open the root of", &process)?;
            return Ok(look(root.as_fd()));
        }
        return Err(failed("it was restarted at this moment; try again".into()));
    }
    if record.users.is_some() {
        // Its files carry numbers of the host's that only its own user namespace translates.
        return Err(failed("it has users of its own and does not run; start it first".into()));
    }
    let image = create::image(store, record)?;
    let container = paths.container(&record.id);
    let root = RootFilesystem::Overlay {
        lower: store.layer_paths(&image),
        upper: container.join("upper"),
        work: container.join("work"),
    };
    look::with_files(&root, &binds(paths, record), look).map_err(|error| failed(Box::new(error)))
}

/// What is mounted and outlives a run, a mount on a path before those below it.
fn binds(paths: &Paths, record: &ContainerRecord) -> Vec<Bind> {
    let bind = |(target, mount): (&String, &Mount)| {
        let source = match mount {
            Mount::Volume { name, .. } => {
                paths.volume_data(&VolumeKey { project: record.project.clone(), name: name.clone() })
            }
            Mount::Bind { source, .. } => source.clone(),
            Mount::Tmpfs { .. } => return None,
        };
        Some(Bind { source, target: target.into() })
    };
    let mut binds: Vec<Bind> = record.spec.mounts.iter().filter_map(bind).collect();
    binds.sort_by_key(|bind| bind.target.components().count());
    binds
}
