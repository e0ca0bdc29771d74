//! `events ID`: what a container uses, and that the kernel ended a process of it for lack of memory, as one JSON object
//! a line in runc's form (runc-events(8)), for cAdvisor and others that read it.
//!
//! What this runtime does not set up, Intel RDT and network devices, it does not count: whoever made it knows it.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec};
use serde_json::{Value, json};

use super::log::failure;
use super::store::{Status, Store};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::streams;
use crate::model::units::Timespan;
use crate::runtime::cgroup::{Cgroup, Counters, DiskUnit};
use crate::runtime::launch::open_process;

/// How often it is looked whether a process was ended for lack of memory.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub struct EventsArguments {
    /// The container's id
    #[arg(value_name = "ID")]
    id: String,

    /// The time from one line to the next
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = interval)]
    interval: Timespan,

    /// Print one line and come back
    #[arg(long)]
    stats: bool,
}

fn interval(text: &str) -> Result<Timespan, String> {
    match text.parse() {
        Ok(Timespan::ZERO) => Err("it must be more than 0".to_owned()),
        other => other.map_err(|error| error.to_string()),
    }
}

pub fn run(arguments: &EventsArguments, store: &Store, output: &Output) -> Result<Exit, Failure> {
    let container = store.look(&arguments.id)?;
    container.require("look into", &[Status::Created, Status::Running, Status::Paused])?;
    let (Some(cgroup), Some(pid)) = (container.cgroup()?, container.live_process()) else {
        return Err(Failure::new(format!("the container `{}` has ended", arguments.id)));
    };
    let event = |kind: &str, data: Value| match data {
        Value::Null => json!({"type": kind, "id": arguments.id}),
        data => json!({"type": kind, "id": arguments.id, "data": data}),
    };
    let stats = |cgroup: &Cgroup| cgroup.counters().map(|counters| event("stats", data(&counters))).map_err(failure);
    if arguments.stats {
        output.text(&line(&stats(&cgroup)?)?)?;
        return Ok(Exit::Done);
    }
    let process = open_process(pid).map_err(failure)?;
    let interval = arguments.interval.to_duration();
    let mut next = Instant::now();
    let mut killed = cgroup.oom_kills().map_err(failure)?;
    loop {
        let mut polled = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
        let wait = next.saturating_duration_since(Instant::now()).min(LOOK);
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        streams::wait(&mut polled, Some(&wait))?;
        let now = cgroup.oom_kills().map_err(failure)?;
        if now > killed {
            output.text(&line(&event("oom", Value::Null))?)?;
        }
        killed = now;
        if !polled[0].revents().is_empty() {
            return Ok(Exit::Done);
        }
        if Instant::now() >= next {
            output.text(&line(&stats(&cgroup)?)?)?;
            next += interval;
        }
    }
}

/// Readers of runc's output look at how a line begins, so these keys come in this order.
fn line(event: &Value) -> Result<String, Failure> {
    let data = match event.get("data") {
        Some(data) => format!(",\"data\":{data}"),
        None => String::new(),
    };
    Ok(format!("{{\"type\":{},\"id\":{}{data}}}\n", event["type"], event["id"]))
}

fn data(counters: &Counters) -> Value {
    let Counters { cpu, memory, pids, pids_limit, disks } = counters;
    let disks = |unit| -> Vec<Value> {
        let of = disks.iter().filter(|counter| counter.unit == unit);
        of.map(|it| json!({"major": it.major, "minor": it.minor, "op": it.operation, "value": it.value})).collect()
    };
    let cache = memory.statistics.get("cache").or_else(|| memory.statistics.get("file")).copied().unwrap_or(0);
    json!({
        "cpu": {
            "usage": {"total": cpu.total, "kernel": cpu.kernel, "user": cpu.user},
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled,
            },
        },
        "memory": {
            "usage": {
                // Without a limit this number says so, as in version 1.
                "limit": memory.limit.unwrap_or(u64::MAX),
                "usage": memory.usage,
                "max": memory.peak,
                "failcnt": memory.failures,
            },
            "cache": cache,
            "raw": memory.statistics,
        },
        // 0 is no limit there.
        "pids": {"current": pids, "limit": pids_limit.unwrap_or(0)},
        "blkio": {
            "ioServiceBytesRecursive": disks(DiskUnit::Bytes),
            "ioServicedRecursive": disks(DiskUnit::Requests),
        },
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}
