//! What is known of tags that are followed: `followed/<project>.json` in the state root.
//!
//! The `watch` of a project writes it, and `down` removes it. Whoever plans reads it, so that `apply` by hand does not take back what
//! `watch` took; and whoever collects garbage, so that what it needs stays.
//!
//! # Decisions
//! A file that cannot be read is an error: without it containers would go back to what the lock file says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::error::EngineError;
use super::files::{self, Durability};
use super::host::Host;
use super::image::{self, ImageError};
use super::records;
use crate::model::follow::{Followed, LocalTime, Moment};
use crate::model::id::{Digest, ProjectName};
use crate::model::image::ImageSource;
use crate::model::paths::Paths;

/// By whole reference, without a digest.
pub type Tags = BTreeMap<String, Followed>;

#[derive(Default, Serialize, Deserialize)]
struct Record {
    tags: Tags,
}

/// What is known of the tags that a project follows.
pub fn read(paths: &Paths, project: &ProjectName) -> Result<Tags, EngineError> {
    let record: Option<Record> = records::unless_damaged(files::read_json(&path(paths, project)))?;
    Ok(record.unwrap_or_default().tags)
}

/// Manifests that following needs on this host, of every project.
pub fn needed(paths: &Paths) -> Result<BTreeSet<Digest>, EngineError> {
    let mut needed = BTreeSet::new();
    for path in files::objects(&paths.followed())? {
        let Record { tags } = records::unless_damaged(files::read_json(&path))?.unwrap_or_default();
        needed.extend(tags.into_values().flat_map(Followed::needed));
    }
    Ok(needed)
}

fn path(paths: &Paths, project: &ProjectName) -> PathBuf {
    paths.followed().join(format!("{project}.json"))
}

impl Host {
    /// Keeps what is known of the tags that a project follows, and nothing of those that it does not follow any more.
    pub fn remember_followed(&self, project: &ProjectName, tags: Tags) -> Result<(), EngineError> {
        if tags.is_empty() {
            return files::remove_file(&path(self.paths(), project));
        }
        files::create_directories(&self.paths().followed())?;
        files::write_json(&path(self.paths(), project), &Record { tags }, Durability::Durable)
    }

    /// Removes what a crash left half-made, before anything is followed: who follows holds no lock of the state root.
    pub fn sweep_followed(&self) -> Result<(), EngineError> {
        files::sweep(&self.paths().followed(), &mut Vec::new())
    }

    /// What the tag of a reference stands for at its registry.
    pub fn tag_digest(&self, source: &ImageSource) -> Result<Digest, ImageError> {
        image::tag_digest(source, &self.images)
    }
}

/// This moment, as the host's calendar has it too.
pub fn now() -> Moment {
    let time = SystemTime::now();
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let local = match crate::sys::clock::local_time(i64::try_from(seconds).unwrap_or(i64::MAX)) {
        Ok((sunday, hour, minute)) => {
            LocalTime { day: (sunday + 6) % 7, minute: u16::from(hour) * 60 + u16::from(minute) }
        }
        // A year that no calendar has.
        Err(_) => LocalTime::utc(time),
    };
    Moment { time, local }
}
