//! The containers of a state root, as their records and monitors have them: what the looking commands show.
//!
//! It reads small files only. No image is opened, no netlink is spoken and no lock is taken, so it answers in
//! milliseconds while an apply is at work.

use std::fs;
use std::io;
use std::sync::OnceLock;
use std::time::SystemTime;

use crate::engine::error::EngineError;
use crate::engine::records::{self, Found};
use crate::engine::{self, host};
use crate::model::actual::Liveness;
use crate::model::id::{RootTag, Whose};
use crate::model::paths::Paths;
use crate::model::record::ContainerRecord;
use crate::model::unreadable::Unreadable;
use crate::runtime::cgroup::{self, Hierarchy};

/// Every container that has a record, sorted by project and instance.
#[derive(Debug)]
pub struct Inventory {
    paths: Paths,
    tag: RootTag,
    /// Looked for once, and only when it is needed.
    hierarchy: OnceLock<Hierarchy>,
    records: Vec<ContainerRecord>,
    unreadable: Vec<Unreadable>,
}

/// How one container is: see [`engine::liveness`].
pub fn liveness(paths: &Paths, record: &ContainerRecord) -> Result<Liveness, EngineError> {
    engine::liveness(paths, &host::tag(&paths.root), record, detect)
}

fn detect() -> Result<Hierarchy, EngineError> {
    cgroup::detect().map_err(|source| EngineError::Cgroups { source: Box::new(source) })
}

impl Inventory {
    pub fn read(paths: Paths) -> Result<Inventory, EngineError> {
        let Found { mut records, unreadable } = records::containers(&paths)?;
        records.sort_by(|a, b| (&a.project, &a.instance, &a.id).cmp(&(&b.project, &b.instance, &b.id)));
        Ok(Inventory { tag: host::tag(&paths.root), hierarchy: OnceLock::new(), paths, records, unreadable })
    }

    pub fn records(&self) -> &[ContainerRecord] {
        &self.records
    }

    /// Those that are there and of which nothing can be said.
    pub fn unreadable(&self) -> &[Unreadable] {
        &self.unreadable
    }

    /// Only the containers of one project.
    pub fn of_project(mut self, project: &Whose) -> Inventory {
        self.records.retain(|record| record.project == *project);
        self
    }

    /// How a container is: see [`engine::liveness`].
    pub fn liveness(&self, record: &ContainerRecord) -> Result<Liveness, EngineError> {
        engine::liveness(&self.paths, &self.tag, record, || match self.hierarchy.get() {
            Some(hierarchy) => Ok(hierarchy.clone()),
            None => detect().map(|hierarchy| self.hierarchy.get_or_init(|| hierarchy).clone()),
        })
    }

    /// When its directory was made. A file system that does not keep that has only the last change of its record.
    pub fn created(&self, record: &ContainerRecord) -> Option<SystemTime> {
        let found = fs::metadata(self.paths.container(&record.id)).ok()?;
        found.created().or_else(|_| found.modified()).ok()
    }

    /// The length in bytes of all files that it has written beside its image and its volumes.
    pub fn written(&self, record: &ContainerRecord) -> io::Result<u64> {
        engine::length_of_files(&self.paths.container(&record.id).join("upper"))
    }
}
