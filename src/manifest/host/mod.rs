//! The host file: what is true of this host and of no single project. `/etc/evenkeel/host.toml`, unless another is named.
//!
//! It is read as manifests are: the same problems with their places, the same variables, a schema from the same types.
//!
//! * `shape`: what may be written. `resolve`: what it means together.

mod resolve;
mod shape;

use std::path::{Path, PathBuf};

use super::problem::{Problems, Source};
use super::read::{Read, Reading};
use super::{Surroundings, source, tree};
use crate::model::host_config::HostConfig;

pub(super) use shape::HostFile;

/// Read when none is named, if it is there. It lies in the directory of manifests, and is none.
pub const DEFAULT: &str = "/etc/evenkeel/host.toml";

/// The host file at `path`, or the one at its usual place; what holds without one if there is none there. Also which
/// file it was.
pub fn load_host(
    path: Option<&Path>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<(HostConfig, Option<PathBuf>), Problems> {
    let path = match path {
        Some(path) => path,
        None if Path::new(DEFAULT).exists() => Path::new(DEFAULT),
        None => return Ok((HostConfig::default(), None)),
    };
    let text = source::read_one(path, "host file")?;
    let config = source::on_this_host(variable, |surroundings| parse_host(text, surroundings))?;
    Ok((config, Some(path.to_owned())))
}

/// What this text says as a host file.
pub fn parse_host(source: Source, surroundings: &Surroundings<'_>) -> Result<HostConfig, Problems> {
    let mut reading = Reading { sources: Vec::new(), surroundings, problems: Vec::new() };
    let parsed = tree::parse(&source.text, 0);
    reading.sources.push(source);
    let tree = match parsed {
        Ok(tree) => tree::without_extensions(tree),
        Err(errors) => return Err(Problems::new(reading.sources, errors)),
    };
    let written = HostFile::read(&tree, &mut reading).unwrap_or_default();
    let config = resolve::resolve(&written, &mut reading);
    match reading.problems.is_empty() {
        true => Ok(config),
        false => Err(Problems::new(reading.sources, reading.problems)),
    }
}
