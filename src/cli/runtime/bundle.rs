//! A bundle: a directory with config.json and, usually, the root filesystem (runtime-spec, bundle.md).

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxBuilder, Spec};
use serde::Deserialize;
use serde_json::Value;

use crate::cli::failure::Failure;

/// What a bundle says, read once: later changes of its files have no effect on the container.
pub struct Bundle {
    pub path: PathBuf,
    /// config.json as it was.
    pub text: String,
    pub spec: Spec,
    pub root: PathBuf,
    /// Properties that this runtime does not know, and passes over as config.md ("Extensibility") demands.
    pub unknown: Vec<String>,
}

/// Reads the bundle at `path` for the container `id`.
pub fn read(path: &Path, id: &str) -> Result<Bundle, Failure> {
    let within = |failure: Failure| failure.context(format!("cannot read the bundle `{}`", path.display()));
    let path = path.canonicalize().map_err(|error| within(error.into()))?;
    let config = path.join("config.json");
    let text = fs::read_to_string(&config)
        .map_err(|error| within(Failure::from(error).context(format!("cannot read `{}`", config.display()))))?;
    let (spec, unknown) = parse(&text, id).map_err(|failure| within(failure.context("config.json is not valid")))?;
    let Some(root) = spec.root() else { return Err(within(Failure::new("`root` is missing in config.json"))) };
    let root = path.join(root.path());
    let root = root.canonicalize().map_err(|error| {
        within(Failure::from(error).context(format!("cannot open the root filesystem `{}`", root.display())))
    })?;
    Ok(Bundle { path, text, spec, root, unknown })
}

/// The configuration, and the properties in it that are not known.
pub fn parse(text: &str, id: &str) -> Result<(Spec, Vec<String>), Failure> {
    let value: Value = serde_json::from_str(text)?;
    let mut spec = Spec::deserialize(&value)?;
    let mut unknown = Vec::new();
    collect_unknown("", &value, &serde_json::to_value(&spec)?, &mut unknown);
    place(&mut spec, id)?;
    Ok((spec, unknown))
}

/// The configuration of the container `id`, once it has been [`parse`]d: who looks for what is not known reads it three
/// times.
pub fn parse_again(text: &str, id: &str) -> Result<Spec, Failure> {
    let mut spec = serde_json::from_str(text)?;
    place(&mut spec, id)?;
    Ok(spec)
}

/// Without `linux.cgroupsPath` the container's cgroup has its id as name, as with runc.
fn place(spec: &mut Spec, id: &str) -> Result<(), Failure> {
    let mut linux = match spec.linux() {
        Some(linux) => linux.clone(),
        None => LinuxBuilder::default().build()?,
    };
    match linux.cgroups_path() {
        Some(path) if path.to_string_lossy().matches(':').count() == 2 && !path.is_absolute() => {
            let failure = Failure::new(format!("`linux.cgroupsPath` is `{}`, a unit of systemd", path.display()));
            return Err(failure.hint("cgroups are made without systemd here: configure the caller to use cgroupfs"));
        }
        Some(path) if !path.as_os_str().is_empty() => {}
        _ => {
            linux.set_cgroups_path(Some(Path::new("/").join(id)));
        }
    }
    spec.set_linux(Some(linux));
    Ok(())
}

/// What stands in `given` and was lost on the way to `known`.
fn collect_unknown(place: &str, given: &Value, known: &Value, unknown: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (key, value) in given {
                let place = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                match known.get(key) {
                    Some(known) => collect_unknown(&place, value, known, unknown),
                    None if is_empty(value) => {}
                    None => unknown.push(place),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) if given.len() == known.len() => {
            for (at, (given, known)) in given.iter().zip(known).enumerate() {
                collect_unknown(&format!("{place}[{at}]"), given, known, unknown);
            }
        }
        _ => {}
    }
}

/// Whether leaving it out says the same.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"{"ociVersion": "1.2.0", "root": {"path": "rootfs"}, "linux": {}}"#;

    #[test]
    fn properties_that_are_not_known_are_found_wherever_they_stand() {
        let text = r#"{"ociVersion": "1.2.0", "colour": 1, "process": {"cwd": "/", "user": {"uid": 0, "gid": 0, "shoe": 3}},
            "mounts": [{"destination": "/a", "width": 2}], "linux": {"devices": []}}"#;
        let (_, mut unknown) = parse(text, "a").unwrap();
        unknown.sort();
        assert_eq!(unknown, ["colour", "mounts[0].width", "process.user.shoe"]);
    }

    #[test]
    fn a_cgroup_without_a_path_is_named_by_the_id() {
        let (spec, _) = parse(SMALL, "web").unwrap();
        assert_eq!(spec.linux().as_ref().unwrap().cgroups_path().as_deref(), Some(Path::new("/web")));
        let systemd = SMALL.replace(r#""linux": {}"#, r#""linux": {"cgroupsPath": "machine.slice:libpod:web"}"#);
        assert!(parse(&systemd, "web").is_err());
    }
}
