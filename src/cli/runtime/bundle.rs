//! A bundle: a directory with config.json and, usually, the root filesystem (runtime-spec, bundle.md).

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxBuilder, Process, Spec};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

use crate::cli::failure::Failure;
use crate::model::security::Capability;

/// What a bundle says, read once: later changes of its files have no effect on the container.
pub struct Bundle {
    pub path: PathBuf,
    /// config.json as it was.
    pub text: String,
    pub spec: Spec,
    pub root: PathBuf,
    /// What has no effect, as the specification demands: properties that this runtime does not know (config.md,
    /// "Extensibility"), and capabilities that no kernel has ("Linux Process").
    pub warnings: Vec<String>,
}

/// Reads the bundle at `path` for the container `id`.
pub fn read(path: &Path, id: &str) -> Result<Bundle, Failure> {
    let within = |failure: Failure| failure.context(format!("cannot read the bundle `{}`", path.display()));
    let path = path.canonicalize().map_err(|error| within(error.into()))?;
    let config = path.join("config.json");
    let text = fs::read_to_string(&config)
        .map_err(|error| within(Failure::from(error).context(format!("cannot read `{}`", config.display()))))?;
    let (mut spec, warnings) =
        parse(&text, id).map_err(|failure| within(failure.context("config.json is not valid")))?;
    resolve_sources(&mut spec, &path);
    let Some(root) = spec.root() else { return Err(within(Failure::new("`root` is missing in config.json"))) };
    let root = path.join(root.path());
    let root = root.canonicalize().map_err(|error| {
        within(Failure::from(error).context(format!("cannot open the root filesystem `{}`", root.display())))
    })?;
    Ok(Bundle { path, text, spec, root, warnings })
}

/// The source of a bind mount may be "relative to the bundle" (config.md, "Mounts", `source`).
fn resolve_sources(spec: &mut Spec, bundle: &Path) {
    let Some(mut mounts) = spec.mounts().clone() else { return };
    for mount in &mut mounts {
        let is_bind = |options: &Vec<String>| options.iter().any(|option| option == "bind" || option == "rbind");
        if let Some(source) = mount.source().as_ref().filter(|source| !source.as_os_str().is_empty())
            && mount.options().as_ref().is_some_and(is_bind)
        {
            let source = bundle.join(source);
            mount.set_source(Some(source));
        }
    }
    spec.set_mounts(Some(mounts));
}

/// The configuration, and a warning for each thing in it that has no effect.
pub fn parse(text: &str, id: &str) -> Result<(Spec, Vec<String>), Failure> {
    let Unique(mut value) = serde_json::from_str(text)?;
    let mut warnings = Vec::new();
    if let Some(process) = value.get_mut("process") {
        rename_flags(process);
        drop_unknown_capabilities(process, &mut warnings);
    }
    let mut spec = Spec::deserialize(&value)?;
    let mut unknown = Vec::new();
    collect_unknown(&Place::Top, &value, &serde_json::to_value(&spec)?, &mut unknown);
    warnings
        .extend(unknown.iter().map(|property| format!("`{property}` in config.json is not known and has no effect")));
    place(&mut spec, id)?;
    Ok((spec, warnings))
}

/// `process` as `exec` reads it from a file, with the same warnings.
pub fn parse_process(text: &str) -> Result<(Process, Vec<String>), Failure> {
    let Unique(mut value) = serde_json::from_str(text)?;
    let mut warnings = Vec::new();
    if let Some(process) = value.as_object_mut() {
        // Root, as with runc: files that callers write for it leave it out.
        process.entry("user").or_insert_with(|| json!({"uid": 0, "gid": 0}));
    }
    rename_flags(&mut value);
    drop_unknown_capabilities(&mut value, &mut warnings);
    Ok((serde_json::from_value(value)?, warnings))
}

/// The specification's name of this flag changed between its versions 1.1 and 1.2; the library knows the first.
fn rename_flags(process: &mut Value) {
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten().filter(|flag| *flag == "SCHED_FLAG_RESET_ON_FORK") {
        *flag = "SCHED_RESET_ON_FORK".into();
    }
}

/// "Any value which cannot be mapped to a relevant kernel interface" is to be warned of, and not to fail (config.md,
/// "Linux Process", `capabilities`).
fn drop_unknown_capabilities(process: &mut Value, warnings: &mut Vec<String>) {
    let Some(sets) = process.get_mut("capabilities").and_then(Value::as_object_mut) else { return };
    for (set, names) in sets {
        let Some(names) = names.as_array_mut() else { continue };
        names.retain(|name| {
            // What is no string is no name: that is said when the whole is read.
            let is_known = name.as_str().is_none_or(|name| name.parse::<Capability>().is_ok());
            if !is_known {
                warnings.push(format!("`process.capabilities.{set}`: {name} is not a capability and is not granted"));
            }
            is_known
        });
    }
}

/// A JSON value, none of whose objects has a name twice: which one is meant nobody can know (RFC 8259, section 4).
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unique, D::Error> {
        deserializer.deserialize_any(Reader).map(Unique)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unique(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some((name, Unique(value))) = object.next_entry::<String, _>()? {
            if values.contains_key(&name) {
                return Err(serde::de::Error::custom(format!("the property `{name}` stands there twice")));
            }
            values.insert(name, value);
        }
        Ok(Value::Object(values))
    }
}

/// The configuration of the container `id`, once it has been [`parse`]d: who looks for what is not known reads it three
/// times.
pub fn parse_again(text: &str, id: &str) -> Result<Spec, Failure> {
    let Ok(mut spec) = serde_json::from_str(text) else {
        // Something in it has no effect.
        return Ok(parse(text, id)?.0);
    };
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

/// A place in the configuration. It becomes words only where they are needed.
enum Place<'a> {
    Top,
    Key(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Top => Ok(()),
            Place::Key(Place::Top, key) => f.write_str(key),
            Place::Key(above, key) => write!(f, "{above}.{key}"),
            Place::Item(above, at) => write!(f, "{above}[{at}]"),
        }
    }
}

/// What stands in `given` and was lost on the way to `known`.
fn collect_unknown(place: &Place<'_>, given: &Value, known: &Value, unknown: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (key, value) in given {
                let place = Place::Key(place, key);
                match known.get(key) {
                    Some(known) => collect_unknown(&place, value, known, unknown),
                    None if is_empty(value) => {}
                    None => unknown.push(place.to_string()),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) if given.len() == known.len() => {
            for (at, (given, known)) in given.iter().zip(known).enumerate() {
                collect_unknown(&Place::Item(place, at), given, known, unknown);
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
        let (_, mut warnings) = parse(text, "a").unwrap();
        warnings.sort();
        let named: Vec<&str> = warnings.iter().filter_map(|warning| warning.split('`').nth(1)).collect();
        assert_eq!(named, ["colour", "mounts[0].width", "process.user.shoe"]);
    }

    #[test]
    fn a_capability_that_is_not_known_is_a_warning_and_is_not_granted() {
        let text = r#"{"ociVersion": "1.2.0", "linux": {}, "process": {"cwd": "/", "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": ["CAP_KILL", "CAP_LEVITATE"]}}}"#;
        let (spec, warnings) = parse(text, "a").unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains("CAP_LEVITATE"), "{warnings:?}");
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 1);
        assert_eq!(parse_again(text, "a").unwrap(), spec);
        assert!(parse(&text.replace("\"CAP_KILL\"", "7"), "a").is_err());
    }

    #[test]
    fn a_property_that_stands_there_twice_is_an_error_wherever_it_is() {
        for text in [r#"{"linux": {}, "linux": {}}"#, r#"{"annotations": {"a": "1", "a": "2"}}"#] {
            let Err(failure) = parse(text, "a") else { panic!("{text}") };
            assert!(failure.line().contains("twice"), "{}", failure.line());
        }
    }

    #[test]
    fn the_flag_of_a_scheduler_is_known_by_both_its_names() {
        for flag in ["SCHED_RESET_ON_FORK", "SCHED_FLAG_RESET_ON_FORK"] {
            let scheduler = format!(r#"{{"cwd": "/", "scheduler": {{"policy": "SCHED_BATCH", "flags": ["{flag}"]}}}}"#);
            let (process, _) = parse_process(&scheduler).unwrap();
            assert_eq!(process.scheduler().as_ref().unwrap().flags().as_ref().unwrap().len(), 1);
            assert_eq!((process.user().uid(), process.user().gid()), (0, 0), "nobody is named");
        }
    }

    #[test]
    fn the_source_of_a_bind_mount_may_be_relative_to_the_bundle() {
        let text = r#"{"ociVersion": "1.2.0", "mounts": [
            {"destination": "/a", "source": "data", "options": ["rbind"]},
            {"destination": "/b", "source": "/data", "options": ["bind"]},
            {"destination": "/c", "source": "tmpfs", "type": "tmpfs"}]}"#;
        let (mut spec, _) = parse(text, "a").unwrap();
        resolve_sources(&mut spec, Path::new("/bundle"));
        let sources = spec.mounts().iter().flatten().map(|mount| mount.source().clone().unwrap());
        assert_eq!(sources.collect::<Vec<_>>(), ["/bundle/data", "/data", "tmpfs"].map(PathBuf::from));
    }

    #[test]
    fn a_cgroup_without_a_path_is_named_by_the_id() {
        let (spec, _) = parse(SMALL, "web").unwrap();
        assert_eq!(spec.linux().as_ref().unwrap().cgroups_path().as_deref(), Some(Path::new("/web")));
        let systemd = SMALL.replace(r#""linux": {}"#, r#""linux": {"cgroupsPath": "machine.slice:libpod:web"}"#);
        assert!(parse(&systemd, "web").is_err());
    }
}
