//! Reading the launch file.

use std::path::Path;

use serde::Deserialize;

use super::error::MonitorError;
use crate::model::event::Traits;
use crate::model::launch::{LAUNCH_VERSION, Launch, Telling};
use crate::model::paths::run;
use crate::model::units::Timespan;

/// How long the container may take to end by itself, also where the file was written for a monitor of another version.
pub fn stop_grace_period(directory: &Path) -> Option<Timespan> {
    #[derive(Deserialize)]
    struct Grace {
        stop_grace_period: Timespan,
    }
    let text = std::fs::read(directory.join(run::LAUNCH)).ok()?;
    serde_json::from_slice::<Grace>(&text).ok().map(|grace| grace.stop_grace_period)
}

/// What is to be told of the container, as it is now.
pub fn telling(directory: &Path) -> Option<Telling> {
    #[derive(Deserialize)]
    struct Told {
        telling: Option<Telling>,
    }
    let text = std::fs::read(directory.join(run::LAUNCH)).ok()?;
    serde_json::from_slice::<Told>(&text).ok()?.telling
}

/// The launch file of a run directory, without what [`telling`] reads when it is needed.
pub fn read(directory: &Path) -> Result<Launch, MonitorError> {
    let path = directory.join(run::LAUNCH);
    let text = std::fs::read(&path).map_err(|source| MonitorError::file("read", &path, source))?;
    let mut launch: Launch =
        serde_json::from_slice(&text).map_err(|source| MonitorError::Content { path: path.clone(), source })?;
    if launch.version != LAUNCH_VERSION {
        return Err(MonitorError::Version { path, found: launch.version, known: LAUNCH_VERSION });
    }
    if let Some(telling) = &mut launch.telling {
        telling.traits = Traits::default();
    }
    Ok(launch)
}
