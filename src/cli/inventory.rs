//! The containers of a state root, as their records and monitors have them: what the looking commands show.
//!
//! It reads small files only. No image is opened, no netlink is spoken and no lock is taken, so it answers in
//! milliseconds while an apply is at work.

use crate::engine::error::EngineError;
use crate::engine::records::{self, Found};
use crate::model::actual::Liveness;
use crate::model::id::Whose;
use crate::model::paths::Paths;
use crate::model::record::ContainerRecord;
use crate::model::unreadable::Unreadable;
use crate::monitor::error::MonitorError;
use crate::monitor::liveness;

/// Every container that has a record, sorted by project and instance.
#[derive(Debug)]
pub struct Inventory {
    paths: Paths,
    records: Vec<ContainerRecord>,
    unreadable: Vec<Unreadable>,
}

impl Inventory {
    pub fn read(paths: Paths) -> Result<Inventory, EngineError> {
        let Found { mut records, unreadable } = records::containers(&paths)?;
        records.sort_by(|a, b| (&a.project, &a.instance, &a.id).cmp(&(&b.project, &b.instance, &b.id)));
        Ok(Inventory { paths, records, unreadable })
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

    /// How a container is, as its monitor says.
    pub fn liveness(&self, record: &ContainerRecord) -> Result<Liveness, MonitorError> {
        liveness::liveness(&self.paths.container_run(&record.id))
    }
}
