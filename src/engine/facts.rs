//! What this host can do, for the planner.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::resource::{Resource, getrlimit};

use super::image::Platform;
use crate::model::actual::HostFacts;
use crate::model::security::Capability;
use crate::runtime::capabilities;
use crate::runtime::cgroup::{Controller, Hierarchy};

/// Everything but routes and ports, which the network part knows. These do not change while the host is up.
pub(super) fn facts(hierarchy: &Hierarchy) -> HostFacts {
    HostFacts {
        bounding: capabilities::host_bounding(),
        controllers: hierarchy.controllers().iter().map(|controller| controller_name(*controller).to_owned()).collect(),
        hard_limits: hard_limits(),
        routes: BTreeSet::new(),
        listening: BTreeSet::new(),
        forward_drops: BTreeSet::new(),
        platform: Platform::host().to_string(),
    }
}

/// The names of cgroup version 2, whichever version it is.
fn controller_name(controller: Controller) -> &'static str {
    match controller {
        Controller::Cpu => "cpu",
        Controller::Cpuacct => "cpuacct",
        Controller::Cpuset => "cpuset",
        Controller::Memory => "memory",
        Controller::Pids => "pids",
        Controller::Devices => "devices",
        Controller::Freezer => "freezer",
        Controller::Io => "io",
    }
}

/// Only a process without CAP_SYS_RESOURCE is bound by its own hard limits (setrlimit(2)).
fn hard_limits() -> BTreeMap<String, u64> {
    let may_raise =
        Capability::from_number(24).is_some_and(|resource| capabilities::host_bounding().contains(&resource));
    if may_raise {
        return BTreeMap::new();
    }
    const LIMITS: [(&str, Resource); 16] = [
        ("as", Resource::RLIMIT_AS),
        ("core", Resource::RLIMIT_CORE),
        ("cpu", Resource::RLIMIT_CPU),
        ("data", Resource::RLIMIT_DATA),
        ("fsize", Resource::RLIMIT_FSIZE),
        ("locks", Resource::RLIMIT_LOCKS),
        ("memlock", Resource::RLIMIT_MEMLOCK),
        ("msgqueue", Resource::RLIMIT_MSGQUEUE),
        ("nice", Resource::RLIMIT_NICE),
        ("nofile", Resource::RLIMIT_NOFILE),
        ("nproc", Resource::RLIMIT_NPROC),
        ("rss", Resource::RLIMIT_RSS),
        ("rtprio", Resource::RLIMIT_RTPRIO),
        ("rttime", Resource::RLIMIT_RTTIME),
        ("sigpending", Resource::RLIMIT_SIGPENDING),
        ("stack", Resource::RLIMIT_STACK),
    ];
    let bounded = LIMITS.into_iter().filter_map(|(name, limit)| {
        let (_, hard) = getrlimit(limit).ok()?;
        (hard != nix::libc::RLIM_INFINITY).then(|| (name.to_owned(), hard))
    });
    bounded.collect()
}
