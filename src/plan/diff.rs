//! What differs between a stored spec and a declared one, field by field, and what each difference costs.
//!
//! Specs are taken apart exhaustively, so that a new field does not compile until somebody decides its class.
//!
//! | class | fields | because |
//! |---|---|---|
//! | none | `depends_on`, `update`, labels of networks and volumes, a network's subnet written down or left open | only the next plan reads them |
//! | live | `restart`, `healthcheck`, `stop_*`, `logging` | the monitor reads its launch file again |
//! | live | `resources` | the cgroup's files are written |
//! | live | `ports`, aliases | firewall and name tables are replaced |
//! | live | `extra_hosts` | the container's hosts file is rewritten in place |
//! | live | `labels` | the record alone |
//! | start, stop | `state` | what it says; the container stays what it is made of |
//! | restart | `security.seccomp`, `ulimits`, `oom_score_adj`, `init`, `tty`, `stdin_open`, `dns*` | given to the first process when it starts; files and addresses stay |
//! | replace | everything else | part of what the container was made of |
//!
//! A monitor of another version than this Evenkeel cannot read its launch file again: there, what it would take over is
//! of class restart (`comparison`).
//!
//! Values of environment variables whose names look like secrets are not shown: [`is_secret`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use super::notation::Notation;
use super::{ChangeClass, FieldChange};
use crate::model::container::{Capabilities, ContainerSpec, Logging, RunState, Update};
use crate::model::health::Healthcheck;
use crate::model::id::ResourceName;
use crate::model::network::{Attachment, NetworkMode, NetworkSpec};
use crate::model::resources::Resources;
use crate::model::restart::RestartPolicy;
use crate::model::volume::VolumeSpec;

/// What stands in the place of a secret.
pub const HIDDEN: &str = "(hidden)";

/// Collects differences.
#[derive(Default)]
struct Changes(Vec<FieldChange>);

impl Changes {
    fn push(&mut self, class: ChangeClass, field: impl Display, old: Option<String>, new: Option<String>) {
        self.0.push(FieldChange { field: field.to_string(), old, new, class });
    }

    fn value<T: Notation + PartialEq>(&mut self, class: ChangeClass, field: impl Display, old: &T, new: &T) {
        self.option(class, field, &Some(old), &Some(new));
    }

    fn option<T: Notation + PartialEq>(
        &mut self,
        class: ChangeClass,
        field: impl Display,
        old: &Option<T>,
        new: &Option<T>,
    ) {
        if old != new {
            self.push(class, field, old.as_ref().map(T::notation), new.as_ref().map(T::notation));
        }
    }

    fn entries<K: Ord + Display, V: Notation + PartialEq>(
        &mut self,
        class: ChangeClass,
        field: &str,
        old: &BTreeMap<K, V>,
        new: &BTreeMap<K, V>,
    ) {
        let keys: BTreeSet<&K> = old.keys().chain(new.keys()).collect();
        for key in keys {
            self.option(class, format_args!("{field}.{key}"), &old.get(key), &new.get(key));
        }
    }
}

impl<T: Notation> Notation for &T {
    fn notation(&self) -> String {
        (*self).notation()
    }
}

/// What differs between two specs of a container.
pub fn container(old: &ContainerSpec, new: &ContainerSpec) -> Vec<FieldChange> {
    use ChangeClass::{Live, None as Nothing, Replace, Restart, Start, Stop};
    let ContainerSpec {
        image,
        entrypoint,
        command,
        environment,
        user,
        group_add,
        working_dir,
        hostname,
        labels,
        init,
        tty,
        stdin_open,
        read_only,
        privileged,
        users,
        pid,
        ipc,
        seccomp,
        capabilities: Capabilities { add, drop },
        devices,
        ulimits,
        sysctls,
        shm_size,
        oom_score_adj,
        network,
        ports,
        extra_hosts,
        dns,
        dns_search,
        mounts,
        resources,
        restart,
        healthcheck,
        stop_signal,
        stop_grace_period,
        logging,
        depends_on,
        update: Update { order, failure_action, monitor },
        state,
    } = new;
    let mut changes = Changes::default();
    changes.value(Replace, "image", &old.image, image);
    changes.option(Replace, "entrypoint", &old.entrypoint, entrypoint);
    changes.option(Replace, "command", &old.command, command);
    environment_changes(&mut changes, &old.environment, environment);
    changes.option(Replace, "user", &old.user, user);
    changes.value(Replace, "group_add", &old.group_add, group_add);
    changes.option(Replace, "working_dir", &old.working_dir, working_dir);
    changes.option(Replace, "hostname", &old.hostname, hostname);
    changes.entries(Live, "labels", &old.labels, labels);
    changes.value(Restart, "init", &old.init, init);
    changes.value(Restart, "tty", &old.tty, tty);
    changes.value(Restart, "stdin_open", &old.stdin_open, stdin_open);
    changes.value(Replace, "read_only", &old.read_only, read_only);
    changes.value(Replace, "privileged", &old.privileged, privileged);
    changes.value(Replace, "userns", &old.users, users);
    changes.value(Replace, "pid", &old.pid, pid);
    changes.value(Replace, "ipc", &old.ipc, ipc);
    changes.value(Restart, "security.seccomp", &old.seccomp, seccomp);
    changes.value(Replace, "cap_add", &old.capabilities.add, add);
    changes.value(Replace, "cap_drop", &old.capabilities.drop, drop);
    changes.value(Replace, "devices", &old.devices, devices);
    changes.entries(Restart, "ulimits", &old.ulimits, ulimits);
    changes.entries(Replace, "sysctls", &old.sysctls, sysctls);
    changes.value(Replace, "shm_size", &old.shm_size, shm_size);
    changes.option(Restart, "oom_score_adj", &old.oom_score_adj, oom_score_adj);
    network_mode(&mut changes, &old.network, network);
    changes.entries(Live, "ports", &old.ports, ports);
    changes.entries(Live, "extra_hosts", &old.extra_hosts, extra_hosts);
    changes.value(Restart, "dns", &old.dns, dns);
    changes.value(Restart, "dns_search", &old.dns_search, dns_search);
    changes.entries(Replace, "mounts", &old.mounts, mounts);
    changes.0.extend(limits(&old.resources, resources));
    restart_policy(&mut changes, &old.restart, restart);
    health(&mut changes, &old.healthcheck, healthcheck);
    changes.option(Live, "stop_signal", &old.stop_signal, stop_signal);
    changes.value(Live, "stop_grace_period", &old.stop_grace_period, stop_grace_period);
    let Logging { max_size, max_files } = logging;
    changes.value(Live, "logging.max_size", &old.logging.max_size, max_size);
    changes.value(Live, "logging.max_files", &old.logging.max_files, max_files);
    changes.entries(Nothing, "depends_on", &old.depends_on, depends_on);
    changes.value(Nothing, "update.order", &old.update.order, order);
    changes.value(Nothing, "update.failure_action", &old.update.failure_action, failure_action);
    changes.value(Nothing, "update.monitor", &old.update.monitor, monitor);
    let state_class = match state {
        RunState::Running => Start,
        RunState::Stopped => Stop,
    };
    changes.value(state_class, "state", &old.state, state);
    changes.0
}

/// Whether it is the monitor that a live change of this field is told to: the first row of `live` in the table above.
pub fn is_taken_over_by_monitor(field: &str) -> bool {
    let field = field.split_once('.').map_or(field, |(field, _)| field);
    matches!(field, "restart" | "healthcheck" | "stop_signal" | "stop_grace_period" | "logging")
}

/// Everything that a spec declares beyond the defaults: what a plan shows of a new container.
pub fn declared(spec: &ContainerSpec) -> Vec<FieldChange> {
    let default = ContainerSpec::of(spec.image.clone());
    let image = FieldChange {
        field: "image".to_owned(),
        old: None,
        new: Some(spec.image.notation()),
        class: ChangeClass::None,
    };
    let rest = container(&default, spec).into_iter();
    std::iter::once(image)
        .chain(rest.map(|change| FieldChange { old: None, class: ChangeClass::None, ..change }))
        .collect()
}

/// Whether the value of an environment variable is kept out of plan text. Names that end in `_FILE` hold paths.
pub fn is_secret(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let words = ["PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN", "CREDENTIAL", "KEY"];
    !upper.ends_with("_FILE") && words.iter().any(|word| upper.contains(word))
}

fn environment_changes(changes: &mut Changes, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) {
    let from = changes.0.len();
    changes.entries(ChangeClass::Replace, "environment", old, new);
    for change in &mut changes.0[from..] {
        if is_secret(&change.field["environment.".len()..]) {
            change.old = change.old.as_ref().map(|_| HIDDEN.to_owned());
            change.new = change.new.as_ref().map(|_| HIDDEN.to_owned());
        }
    }
}

fn network_mode(changes: &mut Changes, old: &NetworkMode, new: &NetworkMode) {
    fn split(mode: &NetworkMode) -> (Option<&NetworkMode>, Option<&BTreeMap<ResourceName, Attachment>>) {
        match mode {
            NetworkMode::Networks(attachments) => (None, Some(attachments)),
            NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_) => (Some(mode), None),
        }
    }
    let none = BTreeMap::new();
    let ((old_mode, old), (new_mode, new)) = (split(old), split(new));
    changes.option(ChangeClass::Replace, "network_mode", &old_mode, &new_mode);
    attachments(changes, old.unwrap_or(&none), new.unwrap_or(&none));
}

fn attachments(
    changes: &mut Changes,
    old: &BTreeMap<ResourceName, Attachment>,
    new: &BTreeMap<ResourceName, Attachment>,
) {
    let names: BTreeSet<&ResourceName> = old.keys().chain(new.keys()).collect();
    for name in names {
        match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) => {
                let Attachment { aliases, address, address6 } = new;
                changes.value(ChangeClass::Live, format_args!("networks.{name}.aliases"), &old.aliases, aliases);
                changes.option(ChangeClass::Replace, format_args!("networks.{name}.address"), &old.address, address);
                let field = format_args!("networks.{name}.address6");
                changes.option(ChangeClass::Replace, field, &old.address6, address6);
            }
            (old, new) => changes.option(ChangeClass::Replace, format_args!("networks.{name}"), &old, &new),
        }
    }
}

/// What differs between two sets of limits.
pub fn limits(old: &Resources, new: &Resources) -> Vec<FieldChange> {
    let Resources { memory, memory_swap, memory_reservation, cpus, cpu_shares, cpuset, pids } = new;
    let live = ChangeClass::Live;
    let mut changes = Changes::default();
    changes.option(live, "resources.memory", &old.memory, memory);
    changes.option(live, "resources.memory_swap", &old.memory_swap, memory_swap);
    changes.option(live, "resources.memory_reservation", &old.memory_reservation, memory_reservation);
    changes.option(live, "resources.cpus", &old.cpus, cpus);
    changes.option(live, "resources.cpu_shares", &old.cpu_shares, cpu_shares);
    changes.option(live, "resources.cpuset", &old.cpuset, cpuset);
    changes.option(live, "resources.pids", &old.pids, pids);
    changes.0
}

fn restart_policy(changes: &mut Changes, old: &RestartPolicy, new: &RestartPolicy) {
    let RestartPolicy { condition, max_retries, backoff } = new;
    changes.value(ChangeClass::Live, "restart.policy", &old.condition, condition);
    changes.option(ChangeClass::Live, "restart.max_retries", &old.max_retries, max_retries);
    changes.value(ChangeClass::Live, "restart.backoff", &old.backoff, backoff);
}

fn health(changes: &mut Changes, old: &Option<Healthcheck>, new: &Option<Healthcheck>) {
    let live = ChangeClass::Live;
    let probe = |check: &Option<Healthcheck>| check.as_ref().map(|check| check.probe.clone());
    changes.option(live, "healthcheck", &probe(old), &probe(new));
    let Some(new) = new else { return };
    // Of a check that is new, what differs from the timing that any has.
    let old = old.clone().unwrap_or_else(|| Healthcheck::of(new.probe.clone()));
    let Healthcheck { probe: _, interval, timeout, retries, start_period, start_interval } = new;
    changes.value(live, "healthcheck.interval", &old.interval, interval);
    changes.value(live, "healthcheck.timeout", &old.timeout, timeout);
    changes.value(live, "healthcheck.retries", &old.retries, retries);
    changes.value(live, "healthcheck.start_period", &old.start_period, start_period);
    changes.value(live, "healthcheck.start_interval", &old.start_interval, start_interval);
}

/// What differs between two specs of a network. A subnet that is written down as it was chosen, or left open again,
/// changes nothing; another subnet never gets here, since it makes another network.
pub fn network(old: &NetworkSpec, new: &NetworkSpec) -> Vec<FieldChange> {
    use ChangeClass::{Live, None as Nothing};
    let NetworkSpec { internal, subnet, subnet6, mtu, labels } = new;
    let mut changes = Changes::default();
    changes.value(Live, "internal", &old.internal, internal);
    changes.option(Nothing, "subnet", &old.subnet, subnet);
    changes.option(Nothing, "subnet6", &old.subnet6, subnet6);
    changes.option(Live, "mtu", &old.mtu, mtu);
    changes.entries(Nothing, "labels", &old.labels, labels);
    changes.0
}

/// What differs between two specs of a volume.
pub fn volume(old: &VolumeSpec, new: &VolumeSpec) -> Vec<FieldChange> {
    let VolumeSpec { owner, labels } = new;
    let mut changes = Changes::default();
    changes.option(ChangeClass::Live, "owner", &old.owner, owner);
    changes.entries(ChangeClass::None, "labels", &old.labels, labels);
    changes.0
}
