//! The configuration of an image: what containers take from it, and which layers it is made of.
//!
//! OCI image-spec, config.md; and Docker's `Healthcheck`, which the OCI's form lacks but everyone writes.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ImageError;
use super::options::Platform;
use crate::model::health::{Healthcheck, Probe};
use crate::model::id::Digest;
use crate::model::image::ImageConfig;
use crate::model::units::Timespan;

/// A configuration, read.
#[derive(Debug, Clone)]
pub struct Configuration {
    pub config: ImageConfig,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
    pub platform: Platform,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    variant: Option<String>,
    config: Option<Execution>,
    rootfs: RootFilesystem,
}

#[derive(Deserialize)]
struct RootFilesystem {
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

/// Go writes absent lists and maps as `null`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Execution {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, Value>>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, Value>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
    shell: Option<Vec<String>>,
    healthcheck: Option<DockerHealthcheck>,
}

/// Times are nanoseconds; zero is "not said".
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DockerHealthcheck {
    test: Option<Vec<String>>,
    interval: i64,
    timeout: i64,
    start_period: i64,
    start_interval: i64,
    retries: u32,
}

/// Reads a configuration. `subject` is what errors call it.
pub fn parse(subject: &str, bytes: &[u8]) -> Result<Configuration, ImageError> {
    let malformed = |problem: String| ImageError::Malformed { subject: subject.to_owned(), problem };
    let fields: Fields = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    let execution = fields.config.unwrap_or_default();
    let signal = execution.stop_signal.filter(|signal| !signal.is_empty());
    let stop_signal = match signal.map(|signal| (signal.parse(), signal)) {
        None => None,
        Some((Ok(parsed), _)) => Some(parsed),
        Some((Err(_), signal)) => return Err(malformed(format!("its stop signal `{signal}` is unknown"))),
    };
    let shell = execution.shell.filter(|shell| !shell.is_empty());
    let shell = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
    let config = ImageConfig {
        entrypoint: execution.entrypoint.unwrap_or_default(),
        command: execution.cmd.unwrap_or_default(),
        environment: environment(execution.env.unwrap_or_default()),
        working_dir: execution.working_dir.filter(|directory| !directory.is_empty()),
        user: execution.user.filter(|user| !user.is_empty()),
        stop_signal,
        healthcheck: execution.healthcheck.and_then(|check| healthcheck(check, &shell)),
        labels: execution.labels.unwrap_or_default(),
        exposed_ports: execution.exposed_ports.unwrap_or_default().into_keys().collect(),
        volumes: execution.volumes.unwrap_or_default().into_keys().collect(),
    };
    let platform = Platform { os: fields.os, architecture: fields.architecture, variant: fields.variant };
    Ok(Configuration { config, diff_ids: fields.rootfs.diff_ids.unwrap_or_default(), platform })
}

/// The configuration of a root filesystem that came without one. It says nothing but what is known, so that equal
/// contents are one image.
pub fn synthesize(platform: &Platform, layer: &Digest) -> Vec<u8> {
    let mut fields = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer] },
    });
    if let Some(variant) = &platform.variant {
        fields["variant"] = json!(variant);
    }
    fields.to_string().into_bytes()
}

/// The configuration with one more line of history, of a step that made what is there.
pub fn with_history(bytes: &[u8], line: BTreeMap<&str, &str>) -> Vec<u8> {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(mut fields) => {
            fields["history"] = json!([line]);
            fields.to_string().into_bytes()
        }
        // It was written here.
        Err(_) => bytes.to_vec(),
    }
}

/// The last value of a name counts, at the place of its first.
fn environment(entries: Vec<String>) -> Vec<(String, String)> {
    let mut distinct: Vec<(String, String)> = Vec::with_capacity(entries.len());
    // A configuration of 8 MiB has room for a million names.
    let mut places: HashMap<String, usize> = HashMap::new();
    for entry in entries {
        let (name, value) = entry.split_once('=').unwrap_or((&entry, ""));
        match places.get(name) {
            Some(place) => distinct[*place].1 = value.to_owned(),
            None => {
                places.insert(name.to_owned(), distinct.len());
                distinct.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    distinct
}

fn healthcheck(check: DockerHealthcheck, shell: &[String]) -> Option<Healthcheck> {
    let test = check.test?;
    let probe = match test.split_first() {
        Some((kind, _)) if kind == "NONE" => Probe::None,
        Some((kind, command)) if kind == "CMD" && !command.is_empty() => Probe::Command(command.to_vec()),
        Some((kind, [line, ..])) if kind == "CMD-SHELL" => Probe::Command([shell, std::slice::from_ref(line)].concat()),
        // An empty test is "inherited", and there is nothing to inherit from here.
        _ => return None,
    };
    let mut healthcheck = Healthcheck::of(probe);
    let said = |nanoseconds: i64| u64::try_from(nanoseconds / 1_000_000).ok().filter(|millis| *millis > 0);
    for (nanoseconds, field) in [
        (check.interval, &mut healthcheck.interval),
        (check.timeout, &mut healthcheck.timeout),
        (check.start_period, &mut healthcheck.start_period),
        (check.start_interval, &mut healthcheck.start_interval),
    ] {
        if let Some(millis) = said(nanoseconds) {
            *field = Timespan::from_millis(millis);
        }
    }
    if check.retries > 0 {
        healthcheck.retries = check.retries;
    }
    Some(healthcheck)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(execution: Value) -> ImageConfig {
        let all =
            json!({ "architecture": "amd64", "os": "linux", "config": execution, "rootfs": { "diff_ids": null } });
        parse("it", all.to_string().as_bytes()).unwrap().config
    }

    #[test]
    fn what_containers_need_is_read() {
        let read = config(json!({
            "User": "web", "Env": ["PATH=/bin", "A=1", "A=2", "B"], "Entrypoint": null, "Cmd": ["serve"],
            "WorkingDir": "", "StopSignal": "SIGQUIT", "ExposedPorts": { "80/tcp": {} }, "Volumes": { "/data": {} },
            "Labels": { "a": "b" },
        }));
        assert_eq!(read.user.as_deref(), Some("web"));
        let pairs = [("PATH", "/bin"), ("A", "2"), ("B", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read.environment, pairs);
        assert_eq!((read.entrypoint, read.command), (vec![], vec!["serve".to_owned()]));
        assert_eq!(read.working_dir, None);
        assert_eq!(read.stop_signal.unwrap().number(), 3);
        assert_eq!((read.exposed_ports, read.volumes), (vec!["80/tcp".to_owned()], vec!["/data".to_owned()]));
        assert_eq!(read.labels["a"], "b");
        assert_eq!(config(Value::Null), ImageConfig::default());
    }

    #[test]
    fn healthchecks_of_docker_are_understood() {
        let probe =
            |test: Value| config(json!({ "Healthcheck": { "Test": test } })).healthcheck.map(|check| check.probe);
        let command = |words: &[&str]| Some(Probe::Command(words.iter().map(|word| word.to_string()).collect()));
        assert_eq!(probe(json!(["CMD", "a", "b"])), command(&["a", "b"]));
        assert_eq!(probe(json!(["CMD-SHELL", "a | b"])), command(&["/bin/sh", "-c", "a | b"]));
        assert_eq!(probe(json!(["NONE"])), Some(Probe::None));
        assert_eq!(probe(json!([])), None);
        let timed = json!({ "Test": ["CMD", "a"], "Interval": 5_000_000_000i64, "Retries": 7 });
        let check = config(json!({ "Healthcheck": timed })).healthcheck.unwrap();
        assert_eq!(
            (check.interval, check.retries, check.timeout),
            (Timespan::from_secs(5), 7, Timespan::from_secs(30))
        );
    }

    #[test]
    fn an_unknown_stop_signal_is_an_error() {
        let bytes = br#"{"config":{"StopSignal":"SIGNOPE"},"rootfs":{}}"#;
        assert_eq!(
            parse("web", bytes).unwrap_err().to_string(),
            "`web` is not valid: its stop signal `SIGNOPE` is unknown"
        );
    }

    #[test]
    fn a_synthesized_configuration_reads_back() {
        let layer: Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let platform = Platform { os: "linux".into(), architecture: "arm64".into(), variant: Some("v8".into()) };
        let read = parse("it", &synthesize(&platform, &layer)).unwrap();
        assert_eq!((read.platform, read.diff_ids, read.config), (platform, vec![layer], ImageConfig::default()));
    }
}
