//! What this host can do, for the planner.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::resource::{Resource, getrlimit};

use super::image::Platform;
use crate::model::actual::{Forwards, HostFacts};
use crate::model::seccomp::KernelVersion;
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
        forwards: Forwards::default(),
        forward_drops: BTreeSet::new(),
        platform: Platform::host().to_string(),
        no_users: no_users(),
    }
}

/// Layers of overlayfs may be idmapped mounts since Linux 5.19. Whether the filesystem of the state root lets its owners
/// be mapped is seen when a container starts.
fn no_users() -> Option<String> {
    const OLDEST: KernelVersion = KernelVersion(5, 19);
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    match release.parse::<KernelVersion>() {
        Ok(kernel) if kernel < OLDEST => {
            return Some(format!("Linux {kernel} maps no owners of layers, {OLDEST} does"));
        }
        _ => {}
    }
    let most = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").ok();
    match most.map(|most| most.trim() == "0") {
        None => Some("this kernel has no user namespaces".to_owned()),
        Some(true) => Some("user namespaces are turned off (`sysctl user.max_user_namespaces`)".to_owned()),
        Some(false) => None,
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
        Controller::Hugetlb => "hugetlb",
        Controller::NetCls => "net_cls",
        Controller::NetPrio => "net_prio",
        Controller::Rdma => "rdma",
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
