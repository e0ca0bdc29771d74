//! Writing the status file.

use std::path::Path;

use super::error::MonitorError;
use crate::model::paths::run;
use crate::model::status::Status;

/// Replaces the status file whole: readers see the old one or the new one. The run directory is a tmpfs, so nothing
/// is synced; after a power cut there is no run directory.
pub fn write(directory: &Path, status: &Status) -> Result<(), MonitorError> {
    let path = directory.join(run::STATUS);
    let aside = directory.join(".status.json.new");
    let text = serde_json::to_vec(status).map_err(|source| MonitorError::Content { path: path.clone(), source })?;
    std::fs::write(&aside, text).map_err(|source| MonitorError::file("write", &aside, source))?;
    std::fs::rename(&aside, &path).map_err(|source| MonitorError::file("replace", path, source))
}
