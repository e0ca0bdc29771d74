//! `pause ID` and `resume ID`: the cgroup freezer.

use super::arguments::ContainerArguments;
use super::log::failure;
use super::store::{Status, Store};
use crate::cli::failure::{Exit, Failure};

pub fn pause(arguments: &ContainerArguments, store: &Store) -> Result<Exit, Failure> {
    let container = store.take(&arguments.id)?;
    container.require("pause", &[Status::Created, Status::Running])?;
    if let Some(cgroup) = container.cgroup()? {
        cgroup.freeze().map_err(failure)?;
    }
    Ok(Exit::Done)
}

pub fn resume(arguments: &ContainerArguments, store: &Store) -> Result<Exit, Failure> {
    let container = store.take(&arguments.id)?;
    container.require("resume", &[Status::Paused])?;
    if let Some(cgroup) = container.cgroup()? {
        cgroup.thaw().map_err(failure)?;
    }
    Ok(Exit::Done)
}
