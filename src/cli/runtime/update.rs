//! `update ID`: limits of a container that exists, from options or from a file with OCI's `resources`.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::log::failure;
use super::store::{Status, Store};
use crate::cli::failure::{Exit, Failure};
use crate::model::units::ByteSize;

#[derive(Debug, Args)]
pub struct UpdateArguments {
    /// The container's id
    #[arg(value_name = "ID")]
    id: String,

    /// A file with `linux.resources` as in config.json, `-` for standard input; limits that it does not name stay
    #[arg(short, long, value_name = "FILE", conflicts_with = "limits")]
    resources: Option<PathBuf>,

    #[command(flatten)]
    limits: Limits,

    /// Of Intel RDT, which is not set up
    #[arg(long, value_name = "SCHEMA", hide = true)]
    l3_cache_schema: Option<String>,

    /// As above
    #[arg(long, value_name = "SCHEMA", hide = true)]
    mem_bw_schema: Option<String>,
}

// One by one. -1 lifts a limit.
#[derive(Debug, Args)]
#[group(id = "limits", multiple = true)]
struct Limits {
    /// Weight of the disk, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Length of a scheduling period, microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Processor time in a period, microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Processor time that may be saved up, microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_burst: Option<u64>,
    /// Share of the processors against others
    #[arg(long, alias = "cpu-shares", value_name = "SHARES")]
    cpu_share: Option<u64>,
    /// Length of a period of real-time scheduling, microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,
    /// Processor time for real-time scheduling in a period, microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_runtime: Option<i64>,
    /// Whether it runs only when nobody else wants to: 1 or 0
    #[arg(long, value_name = "NUMBER")]
    cpu_idle: Option<i64>,
    /// Processors, for example 0-2,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Memory, in bytes or as 64MiB
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = size)]
    memory: Option<i64>,
    /// Memory that it should come back to when the host is short of it
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = size)]
    memory_reservation: Option<i64>,
    /// Memory and swap together
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = size)]
    memory_swap: Option<i64>,
    /// Memory of the kernel: not supported, as in kernels since 5.16
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = size)]
    kernel_memory: Option<i64>,
    /// Memory of TCP buffers, in cgroups of version 1
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = size)]
    kernel_memory_tcp: Option<i64>,
    /// Processes and threads
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
}

/// As runc takes it: bytes, a size, or -1.
fn size(text: &str) -> Result<i64, String> {
    let expected = || "expected a number of bytes, a size such as 64MiB, or -1".to_owned();
    match text.parse::<i64>() {
        Ok(bytes) if bytes >= -1 => Ok(bytes),
        Ok(_) => Err(expected()),
        Err(_) => {
            let size: ByteSize = text.parse().map_err(|_| expected())?;
            i64::try_from(size.0).map_err(|_| expected())
        }
    }
}

pub fn run(arguments: &UpdateArguments, store: &Store) -> Result<Exit, Failure> {
    let cannot = |failure: Failure| failure.context(format!("cannot update the container `{}`", arguments.id));
    let rdt = [("--l3-cache-schema", &arguments.l3_cache_schema), ("--mem-bw-schema", &arguments.mem_bw_schema)];
    if let Some((option, _)) = rdt.into_iter().find(|(_, given)| given.is_some()) {
        return Err(cannot(
            Failure::new(format!("`{option}`: Intel RDT is not set up, as `linux.intelRdt` is not")).hint(
                "resctrl is mounted and written to by whoever knows the machine; `--cpuset-cpus` chooses processors",
            ),
        ));
    }
    let resources: LinuxResources = match &arguments.resources {
        Some(path) => serde_json::from_str(&read(path)?)
            .map_err(|error| cannot(Failure::from(error).context(format!("`{}` is not valid", path.display()))))?,
        None => serde_json::from_value(arguments.limits.to_json())?,
    };
    let container = store.take(&arguments.id)?;
    container.require("update", &[Status::Created, Status::Running, Status::Paused])?;
    if let Some(cgroup) = container.cgroup()? {
        cgroup.update(&resources).map_err(|error| cannot(failure(error)))?;
    }
    Ok(Exit::Done)
}

fn read(path: &Path) -> Result<String, Failure> {
    let cannot = |error: std::io::Error| Failure::from(error).context(format!("cannot read `{}`", path.display()));
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(cannot)?;
        return Ok(text);
    }
    std::fs::read_to_string(path).map_err(cannot)
}

impl Limits {
    /// As `linux.resources`, without what is not given.
    fn to_json(&self) -> Value {
        let Limits {
            blkio_weight,
            cpu_period,
            cpu_quota,
            cpu_burst,
            cpu_share,
            cpu_rt_period,
            cpu_rt_runtime,
            cpu_idle,
            cpuset_cpus,
            cpuset_mems,
            memory,
            memory_reservation,
            memory_swap,
            kernel_memory,
            kernel_memory_tcp,
            pids_limit,
        } = self;
        let given = |value: &Value| !value.is_null();
        let cpu = object([
            ("period", json!(cpu_period)),
            ("quota", json!(cpu_quota)),
            ("burst", json!(cpu_burst)),
            ("shares", json!(cpu_share)),
            ("realtimePeriod", json!(cpu_rt_period)),
            ("realtimeRuntime", json!(cpu_rt_runtime)),
            ("idle", json!(cpu_idle)),
            ("cpus", json!(cpuset_cpus)),
            ("mems", json!(cpuset_mems)),
        ]);
        let memory = object([
            ("limit", json!(memory)),
            ("reservation", json!(memory_reservation)),
            ("swap", json!(memory_swap)),
            ("kernel", json!(kernel_memory)),
            ("kernelTCP", json!(kernel_memory_tcp)),
        ]);
        let pids = object([("limit", json!(pids_limit))]);
        let disk = object([("weight", json!(blkio_weight))]);
        let parts = [("cpu", cpu), ("memory", memory), ("pids", pids), ("blockIO", disk)];
        parts.into_iter().filter(|(_, part)| given(part)).collect()
    }
}

/// What is given of `properties`; null for nothing.
fn object<const N: usize>(properties: [(&str, Value); N]) -> Value {
    let given: Vec<(&str, Value)> = properties.into_iter().filter(|(_, value)| !value.is_null()).collect();
    if given.is_empty() { Value::Null } else { given.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: UpdateArguments,
    }

    #[test]
    fn options_become_resources_and_nothing_else_is_named() {
        let line = "update web --memory 64MiB --memory-swap -1 --cpu-quota 5000 --pids-limit -1".split(' ');
        let limits = Line::try_parse_from(line).unwrap().arguments.limits.to_json();
        let expected =
            json!({"memory": {"limit": 64 << 20, "swap": -1}, "cpu": {"quota": 5000}, "pids": {"limit": -1}});
        assert_eq!(limits, expected);
        assert!(serde_json::from_value::<LinuxResources>(limits).is_ok());
    }
}
