//! What `docker inspect` has below `HostConfig`: what was asked for, beside what the container's process is.
//!
//! As there, a list or a table that nobody gave is `null`.

use serde_json::{Map, Value, json};

use crate::model::container::{AfterEnd, CapabilitySet, ContainerSpec, Namespace};
use crate::model::network::NetworkMode;
use crate::model::port::HostAddress;
use crate::model::record::ContainerRecord;
use crate::model::restart::RestartCondition;
use crate::model::seccomp::Seccomp;
use crate::model::security::{Device, Users};
use crate::model::volume::{Access, Mount};

pub fn host_config(record: &ContainerRecord) -> Value {
    let spec = &record.spec;
    let resources = &spec.resources;
    let network = match &spec.network {
        NetworkMode::Networks(networks) => networks.keys().next().map_or("default", |name| name.as_str()).to_owned(),
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::Container(name) => format!("container:{name}"),
    };
    let restart = match spec.restart.condition {
        RestartCondition::No => "no",
        RestartCondition::OnFailure => "on-failure",
        RestartCondition::Always => "always",
        RestartCondition::UnlessStopped => "unless-stopped",
    };
    json!({
        "AutoRemove": record.after_end == AfterEnd::Remove,
        "NetworkMode": network,
        "RestartPolicy": { "Name": restart, "MaximumRetryCount": spec.restart.max_retries.unwrap_or(0) },
        "PortBindings": port_bindings(spec),
        "Privileged": spec.privileged,
        "ReadonlyRootfs": spec.read_only,
        "Init": spec.init,
        "ShmSize": spec.shm_size.0,
        "Memory": resources.memory.map_or(0, |size| size.0),
        "MemorySwap": resources.memory_swap.map_or(0, |size| size.0),
        "MemoryReservation": resources.memory_reservation.map_or(0, |size| size.0),
        "CpuShares": resources.cpu_shares.unwrap_or(0),
        "CpusetCpus": resources.cpuset.clone().unwrap_or_default(),
        "PidsLimit": resources.pids,
        "NanoCpus": resources.cpus.map_or(0, |cpus| u64::from(cpus.as_millis()) * 1_000_000),
        "Ulimits": spec.ulimits.iter().map(|(name, limit)| json!({
            "Name": name, "Soft": limited(limit.soft), "Hard": limited(limit.hard),
        })).collect::<Vec<_>>(),
        "ExtraHosts": listed(spec.extra_hosts.iter().map(|(name, host)| format!("{name}:{host}"))),
        "Binds": binds(spec),
        "Tmpfs": tmpfs(spec),
        "Devices": spec.devices.iter().map(device).collect::<Vec<_>>(),
        "CapAdd": capabilities(&spec.capabilities.add),
        "CapDrop": capabilities(&spec.capabilities.drop),
        "SecurityOpt": security_options(spec),
        "GroupAdd": listed(spec.group_add.iter().cloned()),
        "UsernsMode": match spec.users {
            Users::Host => "host",
            Users::Auto => "auto",
            Users::Range(_) => "private",
        },
        "IpcMode": if spec.ipc == Namespace::Host { "host" } else { "private" },
        "PidMode": if spec.pid == Namespace::Host { "host" } else { "" },
        "UTSMode": "",
        // What there is none of here, and so in none.
        "CgroupParent": "",
        "Links": null,
        "VolumesFrom": null,
        "Runtime": "evenkeel-runtime",
        "Sysctls": or_null(spec.sysctls.iter().map(|(name, value)| (name.clone(), json!(value))).collect()),
        // The form is Docker's; sizes are bytes.
        "LogConfig": { "Type": "json-file", "Config": {
            "max-size": spec.logging.max_size.0.to_string(), "max-file": spec.logging.max_files.to_string(),
        } },
        "Dns": spec.dns,
        "DnsSearch": spec.dns_search,
        "OomScoreAdj": spec.oom_score_adj.unwrap_or(0),
    })
}

/// By the container's side, `80/tcp`.
pub fn port_bindings(spec: &ContainerSpec) -> Value {
    let mut bindings: Map<String, Value> = Map::new();
    for (host, inside) in &spec.ports {
        let address = match host.address {
            HostAddress::Any => "0.0.0.0".to_owned(),
            HostAddress::One(address) => address.to_string(),
        };
        let binding = json!({ "HostIp": address, "HostPort": host.port.to_string() });
        if let Value::Array(list) = bindings.entry(format!("{inside}/{}", host.protocol)).or_insert_with(|| json!([])) {
            list.push(binding);
        }
    }
    Value::Object(bindings)
}

/// Volumes and paths of the host, as `-v` takes them.
fn binds(spec: &ContainerSpec) -> Value {
    listed(spec.mounts.iter().filter_map(|(target, mount)| {
        let (source, access) = match mount {
            Mount::Volume { name, access, filling: _ } => (name.to_string(), *access),
            Mount::Bind { source, access, propagation: _, missing: _ } => (source.display().to_string(), *access),
            Mount::Tmpfs { .. } => return None,
        };
        Some(match bound(access) {
            "" => format!("{source}:{target}"),
            mode => format!("{source}:{target}:{mode}"),
        })
    }))
}

/// The mode of a mount in Docker's words.
pub fn bound(access: Access) -> &'static str {
    match access {
        Access::ReadWrite => "",
        Access::ReadOnly => "ro",
    }
}

/// By target, as `--tmpfs` takes them.
fn tmpfs(spec: &ContainerSpec) -> Value {
    let all = spec.mounts.iter().filter_map(|(target, mount)| {
        let Mount::Tmpfs { size, mode, options } = mount else { return None };
        let size = size.map(|size| format!("size={}", size.0));
        let mode = mode.map(|mode| format!("mode={:o}", mode.0));
        let options = options.iter().map(|option| option.as_str().to_owned());
        Some((target.clone(), size.into_iter().chain(mode).chain(options).collect::<Vec<_>>().join(",").into()))
    });
    or_null(all.collect())
}

fn device(device: &Device) -> Value {
    let Device { source, target, permissions } = device;
    json!({ "PathOnHost": source, "PathInContainer": target, "CgroupPermissions": permissions })
}

fn capabilities(set: &CapabilitySet) -> Value {
    match set {
        CapabilitySet::All => json!(["ALL"]),
        CapabilitySet::Some(some) => listed(some.iter().map(ToString::to_string)),
    }
}

/// What is so without being asked for is among them.
fn security_options(spec: &ContainerSpec) -> Value {
    let privileges = (!spec.privileged).then(|| "no-new-privileges".to_owned());
    let seccomp = match &spec.seccomp {
        Seccomp::Default => None,
        Seccomp::Unconfined => Some("seccomp=unconfined".to_owned()),
        Seccomp::Profile { path, profile: _ } => Some(format!("seccomp={path}")),
    };
    listed(privileges.into_iter().chain(seccomp))
}

/// -1 is none.
fn limited(limit: Option<u64>) -> i64 {
    limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX))
}

fn listed(words: impl Iterator<Item = String>) -> Value {
    let words: Vec<String> = words.collect();
    if words.is_empty() { Value::Null } else { words.into() }
}

pub fn or_null(table: Map<String, Value>) -> Value {
    if table.is_empty() { Value::Null } else { Value::Object(table) }
}
