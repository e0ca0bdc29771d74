//! A resolved project as a manifest again: what `evenkeel config` prints.
//!
//! Every reference is looked up, every path absolute, every variable replaced; what is as by default is left out.
//! Reading the result gives the same project.

mod keys;

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use keys::{put, put_flag, put_list, put_option, put_table, put_texts, put_unless, text, texts, word};

use super::Loaded;
use crate::model::build::{BuildNetwork, BuildSpec, SecretSource};
use crate::model::container::{CapabilitySet, Condition, ContainerSpec, Logging, Namespace, RunState, Update};
use crate::model::container::{DEFAULT_SHM_SIZE, DEFAULT_STOP_GRACE_PERIOD};
use crate::model::desired::{Desired, DesiredContainer};
use crate::model::follow::Follow;
use crate::model::health::{Healthcheck, Probe};
use crate::model::id::ResourceName;
use crate::model::image::{Archived, ImageSource, Pull};
use crate::model::network::{Attachment, NetworkMode, NetworkSpec};
use crate::model::resources::{Resources, Ulimit};
use crate::model::restart::{Backoff, RestartCondition, RestartPolicy};
use crate::model::seccomp::Seccomp;
use crate::model::security::{IdRange, Users};
use crate::model::units::Timespan;
use crate::model::volume::{Access, Filling, MissingSource, Mount, Propagation, VolumeSpec};

/// Images keep the names that the manifest gave them.
pub fn to_toml(loaded: &Loaded) -> String {
    let Loaded { desired, image_names, files: _ } = loaded;
    // A manifest borrows nothing. What is locked has its digest, and a digest is not followed.
    let Desired { project, images, networks, volumes, containers, borrowed: _, lock, follow } = desired;
    let names = names_of_images(images, image_names);
    let mut top = Table::new();
    top.insert("project".to_owned(), project.to_string().into());
    let followed = |source: &ImageSource| follow.get(source).filter(|_| !lock.references.contains(source));
    let images =
        names.iter().map(|(source, name)| (name.clone(), image(source, images.get(source).copied(), followed(source))));
    put_table(&mut top, "images", images.collect());
    put_table(&mut top, "networks", networks.iter().map(|(name, spec)| (name.to_string(), network(spec))).collect());
    put_table(&mut top, "volumes", volumes.iter().map(|(name, spec)| (name.to_string(), volume(spec))).collect());
    let containers = containers.iter().map(|(name, spec)| (name.to_string(), container(spec, &names)));
    put_table(&mut top, "containers", containers.collect());
    top.to_string()
}

/// The images that need an entry: all but references that a container can name itself.
fn names_of_images(
    images: &BTreeMap<ImageSource, Pull>,
    given: &BTreeMap<ImageSource, ResourceName>,
) -> BTreeMap<ImageSource, String> {
    let mut taken: BTreeSet<String> = given.values().map(ToString::to_string).collect();
    let mut names = BTreeMap::new();
    for (source, pull) in images {
        let name = match (given.get(source), source, pull) {
            (Some(name), _, _) => name.to_string(),
            (None, ImageSource::Reference(_), Pull::Missing) => continue,
            (None, _, _) => free_name(source, &taken),
        };
        taken.insert(name.clone());
        names.insert(source.clone(), name);
    }
    names
}

/// The last part of the source as a name that is not taken.
fn free_name(source: &ImageSource, taken: &BTreeSet<String>) -> String {
    let last = match source {
        ImageSource::Reference(reference) => reference.rsplit('/').next().unwrap_or_default(),
        ImageSource::Archive(Archived { path, .. }) | ImageSource::Rootfs(path) => {
            path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
        }
        ImageSource::Build(spec) => spec.context.file_name().and_then(|name| name.to_str()).unwrap_or_default(),
    };
    let word = last.split([':', '@', '.']).next().unwrap_or_default().to_ascii_lowercase();
    let word: String = word.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(50).collect();
    let word = if word.starts_with(|c: char| c.is_ascii_alphanumeric()) { word } else { format!("image{word}") };
    let numbered = (2..).map(|number| format!("{word}-{number}"));
    std::iter::once(word.clone()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or(word)
}

fn image(source: &ImageSource, pull: Option<Pull>, follow: Option<&Follow>) -> Value {
    let mut table = Table::new();
    match source {
        ImageSource::Reference(reference) => put(&mut table, "reference", text(reference)),
        ImageSource::Archive(Archived { path, image }) => {
            put(&mut table, "archive", text(&path.to_string_lossy()));
            put_option(&mut table, "image", image.as_deref().map(text));
        }
        ImageSource::Rootfs(path) => put(&mut table, "rootfs", text(&path.to_string_lossy())),
        ImageSource::Build(spec) => put(&mut table, "build", build(spec)),
    }
    if let Some(pull) = pull.filter(|pull| *pull != Pull::default()) {
        put(&mut table, "pull", word(&pull));
    }
    if let Some(Follow { min_age, window }) = follow {
        put(&mut table, "follow", "tag");
        put_unless(&mut table, "min_age", min_age, &Timespan::ZERO, Timespan::to_string);
        put_option(&mut table, "window", window.map(|window| window.to_string()));
    }
    Value::Table(table)
}

fn build(spec: &BuildSpec) -> Value {
    let BuildSpec { context, dockerfile, target, args, labels, secrets, network, no_cache, pull } = spec;
    let mut table = Table::new();
    put(&mut table, "context", text(&context.to_string_lossy()));
    put_unless(&mut table, "dockerfile", dockerfile, &context.join("Dockerfile"), |path| text(&path.to_string_lossy()));
    put_option(&mut table, "target", target.as_deref().map(text));
    put_texts(&mut table, "args", args);
    put_texts(&mut table, "labels", labels);
    let secrets = secrets.iter().map(|(id, source)| (id.clone(), secret(source)));
    put_table(&mut table, "secrets", secrets.collect());
    put_unless(&mut table, "network", network, &BuildNetwork::default(), word);
    put_flag(&mut table, "no_cache", *no_cache);
    put_flag(&mut table, "pull", *pull == Pull::Always);
    Value::Table(table)
}

fn secret(source: &SecretSource) -> Value {
    let (key, value) = match source {
        SecretSource::File(path) => ("file", text(&path.to_string_lossy())),
        SecretSource::Environment(name) => ("environment", text(name)),
    };
    Value::Table(Table::from_iter([(key.to_owned(), value)]))
}

fn network(spec: &NetworkSpec) -> Value {
    let NetworkSpec { internal, subnet, subnet6, mtu, labels } = spec;
    let mut table = Table::new();
    put_flag(&mut table, "internal", *internal);
    put_option(&mut table, "subnet", subnet.map(|subnet| subnet.to_string()));
    put_option(&mut table, "subnet6", subnet6.map(|subnet| subnet.to_string()));
    put_option(&mut table, "mtu", mtu.map(i64::from));
    put_texts(&mut table, "labels", labels);
    Value::Table(table)
}

fn volume(spec: &VolumeSpec) -> Value {
    let VolumeSpec { owner, labels } = spec;
    let mut table = Table::new();
    if let Some(owner) = owner {
        let mut written = Table::new();
        put(&mut written, "uid", i64::from(owner.uid));
        put(&mut written, "gid", i64::from(owner.gid));
        put(&mut written, "mode", owner.mode.to_string());
        put(&mut table, "owner", written);
    }
    put_texts(&mut table, "labels", labels);
    Value::Table(table)
}

fn container(container: &DesiredContainer, names: &BTreeMap<ImageSource, String>) -> Value {
    let DesiredContainer { replicas, spec, after_end: _ } = container;
    // Exhaustive, so that a new field does not compile until it is written here.
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
        capabilities,
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
        update,
        state,
    } = spec;
    let mut table = Table::new();
    let image = names.get(image).map_or_else(|| text(&image.to_string()), |name| text(name));
    put(&mut table, "image", image);
    put_option(&mut table, "entrypoint", entrypoint.as_ref().map(texts));
    put_option(&mut table, "command", command.as_ref().map(texts));
    put_texts(&mut table, "environment", environment);
    put_option(&mut table, "user", user.as_deref().map(text));
    put_list(&mut table, "group_add", texts(group_add));
    put_option(&mut table, "working_dir", working_dir.as_deref().map(text));
    put_option(&mut table, "hostname", hostname.as_deref().map(text));
    put_texts(&mut table, "labels", labels);
    put_flag(&mut table, "init", *init);
    put_flag(&mut table, "tty", *tty);
    put_flag(&mut table, "stdin_open", *stdin_open);
    put_flag(&mut table, "read_only", *read_only);
    put_flag(&mut table, "privileged", *privileged);
    match users {
        Users::Host => {}
        Users::Auto => put(&mut table, "userns", "auto"),
        Users::Range(IdRange { start, size }) => {
            let range = [("uid_start", start), ("size", size)];
            let range = range.map(|(key, number)| (key.to_owned(), Value::Integer(i64::from(*number))));
            put(&mut table, "userns", Table::from_iter(range));
        }
    }
    put_unless(&mut table, "pid", pid, &Namespace::default(), word);
    put_unless(&mut table, "ipc", ipc, &Namespace::default(), word);
    let seccomp = match seccomp {
        Seccomp::Default => None,
        Seccomp::Unconfined => Some("unconfined"),
        Seccomp::Profile { path, .. } => Some(path.as_str()),
    };
    let filter = seccomp.map(|word| Table::from_iter([("seccomp".to_owned(), text(word))]));
    put_option(&mut table, "security", filter);
    put_list(&mut table, "cap_add", capability_words(&capabilities.add));
    put_list(&mut table, "cap_drop", capability_words(&capabilities.drop));
    let devices = devices.iter().map(|device| {
        let mut written = Table::new();
        put(&mut written, "source", text(&device.source));
        put(&mut written, "target", text(&device.target));
        put(&mut written, "permissions", text(&device.permissions));
        Value::Table(written)
    });
    put_list(&mut table, "devices", devices.collect());
    put_table(&mut table, "ulimits", ulimits.iter().map(|(name, limit)| (name.clone(), ulimit(limit))).collect());
    put_texts(&mut table, "sysctls", sysctls);
    put_unless(&mut table, "shm_size", shm_size, &DEFAULT_SHM_SIZE, ToString::to_string);
    put_option(&mut table, "oom_score_adj", oom_score_adj.map(i64::from));
    put_network(&mut table, network);
    let ports = ports.iter().map(|(host, port)| (host.to_string(), Value::Integer(i64::from(*port))));
    put_table(&mut table, "ports", ports.collect());
    let hosts = extra_hosts.iter().map(|(name, address)| (name.clone(), Value::String(address.to_string())));
    put_table(&mut table, "extra_hosts", hosts.collect());
    put_list(&mut table, "dns", dns.iter().map(|address| address.to_string().into()).collect());
    put_list(&mut table, "dns_search", texts(dns_search));
    put_table(&mut table, "mounts", mounts.iter().map(|(target, spec)| (target.clone(), mount(spec))).collect());
    put_table(&mut table, "resources", resource_table(resources));
    put_unless(&mut table, "restart", restart, &RestartPolicy::of(RestartCondition::No), restart_value);
    put_option(&mut table, "healthcheck", healthcheck.as_ref().map(health));
    put_option(&mut table, "stop_signal", stop_signal.map(|signal| signal.to_string()));
    put_unless(&mut table, "stop_grace_period", stop_grace_period, &DEFAULT_STOP_GRACE_PERIOD, ToString::to_string);
    put_unless(&mut table, "logging", logging, &Logging::default(), |logging| {
        let mut written = Table::new();
        put(&mut written, "max_size", logging.max_size.to_string());
        put(&mut written, "max_files", i64::from(logging.max_files));
        written
    });
    let dependencies = depends_on.iter().map(|(name, condition)| (name.to_string(), word::<Condition>(condition)));
    put_table(&mut table, "depends_on", dependencies.collect());
    put_unless(&mut table, "update", update, &Update::default(), update_table);
    put_unless(&mut table, "replicas", replicas, &1, |replicas| i64::from(*replicas));
    put_unless(&mut table, "state", state, &RunState::default(), word);
    Value::Table(table)
}

fn update_table(update: &Update) -> Table {
    let (Update { order, failure_action, monitor }, default) = (update, Update::default());
    let mut table = Table::new();
    put_unless(&mut table, "order", order, &default.order, word);
    put_unless(&mut table, "failure_action", failure_action, &default.failure_action, word);
    put_unless(&mut table, "monitor", monitor, &default.monitor, ToString::to_string);
    table
}

fn put_network(table: &mut Table, network: &NetworkMode) {
    let networks = match network {
        NetworkMode::None => return put(table, "network_mode", "none"),
        NetworkMode::Host => return put(table, "network_mode", "host"),
        NetworkMode::Container(name) => return put(table, "network_mode", format!("container:{name}")),
        NetworkMode::Networks(networks) => networks,
    };
    let attachments = networks.iter().map(|(name, Attachment { aliases, address, address6 })| {
        let mut written = Table::new();
        put_list(&mut written, "aliases", texts(aliases));
        put_option(&mut written, "address", address.map(|address| address.to_string()));
        put_option(&mut written, "address6", address6.map(|address| address.to_string()));
        (name.to_string(), Value::Table(written))
    });
    put(table, "networks", Value::Table(attachments.collect()));
}

fn capability_words(set: &CapabilitySet) -> Vec<Value> {
    match set {
        CapabilitySet::All => vec!["ALL".into()],
        CapabilitySet::Some(some) => some.iter().map(|capability| capability.to_string().into()).collect(),
    }
}

fn ulimit(limit: &Ulimit) -> Value {
    let value = |limit: Option<u64>| match limit.and_then(|limit| i64::try_from(limit).ok()) {
        Some(limit) => Value::Integer(limit),
        None => Value::String(limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())),
    };
    match limit.soft == limit.hard {
        true => value(limit.soft),
        false => Value::Table(Table::from_iter([
            ("soft".to_owned(), value(limit.soft)),
            ("hard".to_owned(), value(limit.hard)),
        ])),
    }
}

fn mount(mount: &Mount) -> Value {
    let mut table = Table::new();
    match mount {
        Mount::Volume { name, access: Access::ReadWrite, filling: Filling::Image } => {
            return Value::String(name.to_string());
        }
        Mount::Volume { name, access, filling } => {
            put(&mut table, "volume", name.to_string());
            put_flag(&mut table, "read_only", *access == Access::ReadOnly);
            put_flag(&mut table, "nocopy", *filling == Filling::Nothing);
        }
        Mount::Bind { source, access, propagation, missing } => {
            put(&mut table, "bind", text(&source.to_string_lossy()));
            put_flag(&mut table, "read_only", *access == Access::ReadOnly);
            put_unless(&mut table, "propagation", propagation, &Propagation::default(), word);
            put_flag(&mut table, "create", *missing == MissingSource::Create);
        }
        Mount::Tmpfs { size, mode, options } => {
            put(&mut table, "tmpfs", size.map_or(Value::Boolean(true), |size| size.to_string().into()));
            put_option(&mut table, "mode", mode.map(|mode| mode.to_string()));
            put_list(&mut table, "options", options.iter().map(|option| option.to_string().into()).collect());
        }
    }
    Value::Table(table)
}

fn resource_table(resources: &Resources) -> Table {
    let Resources { memory, memory_swap, memory_reservation, cpus, cpu_shares, cpuset, pids } = resources;
    let mut table = Table::new();
    put_option(&mut table, "memory", memory.map(|size| size.to_string()));
    put_option(&mut table, "memory_swap", memory_swap.map(|size| size.to_string()));
    put_option(&mut table, "memory_reservation", memory_reservation.map(|size| size.to_string()));
    put_option(&mut table, "cpus", cpus.map(|cpus| cpus.to_string()));
    put_option(&mut table, "cpu_shares", cpu_shares.and_then(|shares| i64::try_from(shares).ok()));
    put_option(&mut table, "cpuset", cpuset.clone());
    put_option(&mut table, "pids", pids.and_then(|pids| i64::try_from(pids).ok()));
    table
}

fn restart_value(restart: &RestartPolicy) -> Value {
    let RestartPolicy { condition, max_retries, backoff } = restart;
    if *restart == RestartPolicy::of(*condition) {
        return word(condition);
    }
    let mut table = Table::new();
    put(&mut table, "policy", word(condition));
    put_option(&mut table, "max_retries", max_retries.map(i64::from));
    put_unless(&mut table, "backoff", backoff, &Backoff::default(), |backoff| {
        let mut written = Table::new();
        put(&mut written, "initial", backoff.initial.to_string());
        put(&mut written, "factor", i64::from(backoff.factor));
        put(&mut written, "max", backoff.max.to_string());
        put(&mut written, "reset_after", backoff.reset_after.to_string());
        written
    });
    Value::Table(table)
}

fn health(check: &Healthcheck) -> Value {
    let Healthcheck { probe, interval, timeout, retries, start_period, start_interval } = check;
    let defaults = Healthcheck::of(probe.clone());
    let mut table = Table::new();
    match probe {
        Probe::None => return Value::String("none".to_owned()),
        Probe::Command(command) => put(&mut table, "command", texts(command)),
        Probe::Http { port, path } => {
            let http = [("port", Value::Integer(i64::from(*port))), ("path", text(path))];
            put(&mut table, "http", Table::from_iter(http.map(|(key, value)| (key.to_owned(), value))));
        }
        Probe::Tcp { port } => put(&mut table, "tcp", i64::from(*port)),
    }
    put_unless(&mut table, "interval", interval, &defaults.interval, ToString::to_string);
    put_unless(&mut table, "timeout", timeout, &defaults.timeout, ToString::to_string);
    put_unless(&mut table, "retries", retries, &defaults.retries, |retries| i64::from(*retries));
    put_unless(&mut table, "start_period", start_period, &defaults.start_period, ToString::to_string);
    put_unless(&mut table, "start_interval", start_interval, &defaults.start_interval, ToString::to_string);
    Value::Table(table)
}
