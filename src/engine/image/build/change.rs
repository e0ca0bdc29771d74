//! Changes to a configuration by hand: `import --change`, `commit --change`, and what a container ran with.

use std::collections::BTreeMap;

use serde_json::json;

use super::config::Config;
use super::scope::{Scope, Variables};
use super::stage::{Stage, problem};
use crate::engine::image::commit::CommittedStep;
use crate::engine::image::error::ImageError;
use crate::engine::image::options::Platform;
use crate::model::container::ContainerSpec;
use crate::model::dockerfile::{self, CommandLine, Step};
use crate::model::health::{Healthcheck, Probe};
use crate::model::units::Timespan;

/// The configuration `bytes`, changed by instructions of a Dockerfile that write no files. `subject` is what errors
/// call the image.
pub fn changed(subject: &str, bytes: &[u8], changes: &[String], platform: &Platform) -> Result<Vec<u8>, ImageError> {
    if changes.is_empty() {
        return Ok(bytes.to_vec());
    }
    let config = Config::of_base(subject, bytes)?;
    let mut stage = Stage { lower: Vec::new(), chain: Vec::new(), config, arguments: Variables::new() };
    for change in changes {
        let file = dockerfile::parse(&format!("FROM scratch\n{change}\n")).map_err(|errors| {
            let why = errors.into_iter().next().map(|error| format!("{}, {}", error.message, error.expected));
            problem(format!("`{change}` is no change: {}", why.unwrap_or_default()))
        })?;
        let given = BTreeMap::new();
        let scope = Scope::new(file.escape, &file.arguments, &given, platform).map_err(problem)?;
        for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
            if let Step::Workdir(path) = &instruction.step {
                let path = scope.expand(path, &|name| stage.variable(name)).map_err(problem)?;
                let path = stage.absolute(&path);
                stage.config.set("WorkingDir", path.into());
            } else if !stage.configure(&instruction.step, &scope)? {
                return Err(problem(format!(
                    "`{change}` is no change of a configuration; those are CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, \
                     LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR"
                )));
            }
        }
    }
    Ok(stage.config.to_bytes())
}

/// The configuration `bytes` of a base with what its container ran with, and a layer on top.
pub fn committed(
    subject: &str,
    bytes: &[u8],
    spec: &ContainerSpec,
    step: &CommittedStep<'_>,
) -> Result<Vec<u8>, ImageError> {
    let mut config = Config::of_base(subject, bytes)?;
    if let Some(entrypoint) = &spec.entrypoint {
        config.set_entrypoint(&CommandLine::Exec(entrypoint.clone()));
    }
    if let Some(command) = &spec.command {
        config.set_command(&CommandLine::Exec(command.clone()));
    }
    for (name, value) in &spec.environment {
        config.set_variable(name, value);
    }
    let texts = [("User", &spec.user), ("WorkingDir", &spec.working_dir)];
    for (name, value) in texts.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        config.set(name, json!(value));
    }
    if let Some(signal) = &spec.stop_signal {
        config.set("StopSignal", json!(signal.to_string()));
    }
    if let Some(check) = &spec.healthcheck {
        commit_healthcheck(&mut config, check);
    }
    let words = |map: &BTreeMap<String, String>| map.clone().into_iter().map(|(name, value)| (name, json!(value)));
    config.add("Labels", words(&spec.labels));
    let ports = spec.ports.iter().map(|(host, inside)| (format!("{inside}/{}", host.protocol), json!({})));
    config.add("ExposedPorts", ports);
    config.record_commit(step);
    Ok(config.to_bytes())
}

/// Checks by a request of this host's are no part of an image: Docker knows commands only.
fn commit_healthcheck(config: &mut Config, check: &Healthcheck) {
    let command = match &check.probe {
        Probe::Command(words) => Some(CommandLine::Exec(words.clone())),
        Probe::None => None,
        Probe::Http { .. } | Probe::Tcp { .. } => return,
    };
    let nanoseconds = |time: Timespan| i64::try_from(time.to_duration().as_nanos()).unwrap_or(i64::MAX);
    config.set_healthcheck(&dockerfile::Healthcheck {
        command,
        interval: nanoseconds(check.interval),
        timeout: nanoseconds(check.timeout),
        start_period: nanoseconds(check.start_period),
        start_interval: nanoseconds(check.start_interval),
        retries: check.retries,
    });
}
