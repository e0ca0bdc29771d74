//! A container under the names that `docker inspect` has for what it shows, for templates and scripts written for that.
//! Only names of which the meaning is the same, and of these the ones that are asked for most: a template that names
//! another is told so, and `inspect` without one shows all there is, in our own words.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::host_config::{bound, host_config, or_null, port_bindings};
use super::{Attachment, Places};
use crate::cli::phrase::dockers_state;
use crate::cli::ps::timestamp;
use crate::engine;
use crate::model::actual::Liveness;
use crate::model::container::ContainerSpec;
use crate::model::health::{Healthcheck, Probe};
use crate::model::id::VolumeKey;
use crate::model::image::ImageConfig;
use crate::model::network::mac_address;
use crate::model::paths::Paths;
use crate::model::record::ContainerRecord;
use crate::model::status::{Exit, Phase, Status};
use crate::model::units::Timespan;
use crate::model::volume::{Access, Mount};

/// What is known of a container.
pub struct Known<'a> {
    pub record: &'a ContainerRecord,
    pub liveness: &'a Liveness,
    pub created: Option<SystemTime>,
    pub config: &'a ImageConfig,
    pub networks: &'a [Attachment],
    pub places: &'a Places,
    pub paths: &'a Paths,
    /// What it has written, in bytes, where it was asked for.
    pub size: Option<u64>,
}

/// What Docker shows where a time is not known.
const NEVER: &str = "0001-01-01T00:00:00Z";

pub fn document(known: &Known<'_>) -> Value {
    let Known { record, liveness, created, config, networks, places, paths, size } = known;
    let spec = &record.spec;
    let status = status(liveness);
    let arguments = config.arguments(spec.entrypoint.as_deref(), spec.command.as_deref());
    let file = |name| engine::etc_files(&places.directory).join(name);
    let mut document = json!({
        "Id": record.id,
        // With the slash that Docker has there.
        "Name": format!("/{}", record.full_name()),
        "Created": created.map_or_else(|| NEVER.to_owned(), timestamp),
        "Path": arguments.first(),
        "Args": arguments.get(1..).unwrap_or_default(),
        "Image": record.image,
        "RestartCount": status.map_or(0, |status| status.restarts),
        "LogPath": places.logs,
        "ResolvConfPath": file("resolv.conf"),
        "HostnamePath": file("hostname"),
        "HostsPath": file("hosts"),
        "Driver": "overlay",
        "GraphDriver": { "Name": "overlay", "Data": { "UpperDir": places.directory.join("upper") } },
        // None is kept after its start.
        "ExecIDs": null,
        "Platform": "linux",
        // None has any.
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "State": state(liveness),
        "Config": configuration(record, config),
        "HostConfig": host_config(record),
        "Mounts": mounts(record, paths),
        "NetworkSettings": network_settings(spec, networks, places),
    });
    if let (Some(size), Value::Object(document)) = (size, &mut document) {
        document.insert("SizeRw".to_owned(), json!(size));
    }
    document
}

fn status(liveness: &Liveness) -> Option<&Status> {
    match liveness {
        Liveness::Monitored(status) | Liveness::Ended(status) | Liveness::Lost(Some(status)) => Some(status),
        Liveness::Absent | Liveness::Lost(None) => None,
    }
}

fn state(liveness: &Liveness) -> Value {
    let status = status(liveness);
    let phase = status.map(|status| status.phase);
    let word = dockers_state(liveness);
    let time =
        |get: fn(&Status) -> Option<SystemTime>| status.and_then(get).map_or_else(|| NEVER.to_owned(), timestamp);
    let health = status.and_then(|status| status.health.as_ref()).map(|health| {
        json!({
            "Status": health.health,
            "FailingStreak": health.failing_streak,
            "Log": health.log.iter().map(|probe| json!({
                // When it answered is kept, not when it was asked.
                "Start": timestamp(probe.at),
                "End": timestamp(probe.at),
                "ExitCode": i32::from(!probe.healthy),
                "Output": probe.output,
            })).collect::<Vec<_>>(),
        })
    });
    // How it ended before it was started again is no more of interest.
    let exit = status.and_then(|status| status.exit).filter(|_| !matches!(word, "running" | "paused"));
    json!({
        "Status": word,
        "Running": matches!(word, "running" | "paused" | "restarting"),
        "Paused": word == "paused",
        "Restarting": word == "restarting",
        "Dead": word == "dead",
        "OOMKilled": exit == Some(Exit::OutOfMemory),
        "Pid": status.and_then(|status| status.pid).filter(|_| matches!(liveness, Liveness::Monitored(_))).unwrap_or(0),
        // As `wait` has it, where there was nothing that could end.
        "ExitCode": exit.map_or(if phase == Some(Phase::Failed) { 125 } else { 0 }, Exit::code),
        "Error": status.and_then(|status| status.error.clone()).unwrap_or_default(),
        "StartedAt": time(|status| status.started_at),
        "FinishedAt": time(|status| status.finished_at),
        "Health": health,
    })
}

fn configuration(record: &ContainerRecord, image: &ImageConfig) -> Value {
    let spec = &record.spec;
    let mut environment: BTreeMap<&str, &str> =
        image.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    environment.extend(spec.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let mut labels = image.labels.clone();
    labels.extend(spec.labels.clone());
    let published = spec.ports.iter().map(|(host, inside)| format!("{inside}/{}", host.protocol));
    let exposed = image.exposed_ports.iter().cloned().chain(published);
    json!({
        "Hostname": engine::hostname(record),
        "User": spec.user.as_ref().or(image.user.as_ref()).cloned().unwrap_or_default(),
        "Tty": spec.tty,
        "OpenStdin": spec.stdin_open,
        "Domainname": "",
        "OnBuild": null,
        "Env": environment.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        "Entrypoint": spec.entrypoint.as_ref().unwrap_or(&image.entrypoint),
        "Cmd": match (&spec.command, &spec.entrypoint) {
            (Some(command), _) => command.as_slice(),
            (None, None) => image.command.as_slice(),
            (None, Some(_)) => &[],
        },
        "Image": crate::cli::ps::familiar(&spec.image.to_string()),
        "WorkingDir": spec.working_dir.as_ref().or(image.working_dir.as_ref()).cloned().unwrap_or_default(),
        "Labels": labels,
        "Healthcheck": spec.healthcheck.as_ref().or(image.healthcheck.as_ref()).map(healthcheck),
        "Volumes": or_null(image.volumes.iter().map(|target| (target.clone(), json!({}))).collect::<Map<_, _>>()),
        "ExposedPorts": or_null(exposed.map(|port| (port, json!({}))).collect::<Map<_, _>>()),
        "StopSignal": spec.stop_signal.or(image.stop_signal).map_or_else(String::new, |signal| signal.to_string()),
        "StopTimeout": spec.stop_grace_period.to_duration().as_secs(),
    })
}

/// Times are nanoseconds. What Docker has no word for, a question to a port, has no `Test`.
fn healthcheck(check: &Healthcheck) -> Value {
    let Healthcheck { probe, interval, timeout, retries, start_period, start_interval } = check;
    let test = match probe {
        Probe::None => json!(["NONE"]),
        Probe::Http { .. } | Probe::Tcp { .. } => Value::Null,
        Probe::Command(words) => match words.as_slice() {
            [shell, option, line] if shell == "/bin/sh" && option == "-c" => json!(["CMD-SHELL", line]),
            words => std::iter::once("CMD").chain(words.iter().map(String::as_str)).collect::<Vec<_>>().into(),
        },
    };
    let nanoseconds = |time: &Timespan| time.as_millis().saturating_mul(1_000_000);
    json!({
        "Test": test,
        "Interval": nanoseconds(interval),
        "Timeout": nanoseconds(timeout),
        "Retries": retries,
        "StartPeriod": nanoseconds(start_period),
        "StartInterval": nanoseconds(start_interval),
    })
}

fn mounts(record: &ContainerRecord, paths: &Paths) -> Value {
    let mount = |(target, mount): (&String, &Mount)| {
        let (kind, name, source, access, propagation) = match mount {
            Mount::Volume { name, access, filling: _ } => {
                let key = VolumeKey { project: record.project.clone(), name: name.clone() };
                ("volume", name.as_str(), paths.volume_data(&key), *access, json!(""))
            }
            Mount::Bind { source, access, propagation, missing: _ } => {
                ("bind", "", source.clone(), *access, json!(propagation))
            }
            Mount::Tmpfs { .. } => ("tmpfs", "", PathBuf::new(), Access::ReadWrite, json!("")),
        };
        json!({
            "Type": kind, "Name": name, "Source": source, "Destination": target,
            "Driver": if kind == "volume" { "local" } else { "" },
            "Mode": bound(access), "RW": access == Access::ReadWrite, "Propagation": propagation,
        })
    };
    record.spec.mounts.iter().map(mount).collect::<Vec<_>>().into()
}

fn network_settings(spec: &ContainerSpec, networks: &[Attachment], places: &Places) -> Value {
    let one = |attachment: &Attachment| {
        let gateway = attachment.subnet.map(|subnet| subnet.gateway().to_string()).unwrap_or_default();
        let [a, b, c, d, e, f] = mac_address(attachment.addresses.v4);
        json!({
            "NetworkID": attachment.network,
            "IPAddress": attachment.addresses.v4,
            "IPPrefixLen": attachment.subnet.map_or(0, |subnet| subnet.prefix()),
            "Gateway": gateway,
            "GlobalIPv6Address": attachment.addresses.v6.map(|address| address.to_string()).unwrap_or_default(),
            "MacAddress": format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
        })
    };
    let name = |attachment: &Attachment| match &attachment.name {
        Some(name) => name.to_string(),
        None => attachment.network.to_string(),
    };
    let all: Map<String, Value> = networks.iter().map(|attachment| (name(attachment), one(attachment))).collect();
    // Docker's words for the default network are those of the first here.
    let first = networks.first().map(one).unwrap_or_else(|| {
        json!({
            "IPAddress": "", "IPPrefixLen": 0, "Gateway": "", "GlobalIPv6Address": "", "MacAddress": "",
        })
    });
    json!({
        "IPAddress": first["IPAddress"],
        "IPPrefixLen": first["IPPrefixLen"],
        "GlobalIPv6Address": first["GlobalIPv6Address"],
        "Gateway": first["Gateway"],
        "MacAddress": first["MacAddress"],
        "SandboxKey": places.network_namespace,
        "Ports": port_bindings(spec),
        "Networks": all,
    })
}
