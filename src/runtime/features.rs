//! What this runtime can do, whatever the host can (runtime-spec, features.md). Taken from the tables that decide.

use serde_json::{Value, json};

use super::hooks::Moment;
use super::mount_options;
use super::prepare::NEWEST_VERSION;
use super::{placement, seccomp};
use crate::model::security::Capability;

/// The features structure.
pub fn features() -> Value {
    let hooks: Vec<&str> = Moment::ALL.into_iter().map(Moment::name).collect();
    let capabilities: Vec<String> = Capability::all().map(|capability| format!("CAP_{capability}")).collect();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": NEWEST_VERSION,
        "hooks": hooks,
        "mountOptions": mount_options::words(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true},
            "seccomp": seccomp::features(),
            "memoryPolicy": placement::features(),
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
        },
    })
}
