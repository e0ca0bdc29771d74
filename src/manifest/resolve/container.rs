//! One container: every key of its table becomes a field of [`ContainerSpec`].

use std::collections::{BTreeMap, BTreeSet};

use crate::model::container::{
    AfterEnd, Capabilities, CapabilitySet, ContainerSpec, DEFAULT_SHM_SIZE, DEFAULT_STOP_GRACE_PERIOD, Logging,
    Namespace, Update,
};
use crate::model::desired::DesiredContainer;
use crate::model::extra_host::ExtraHost;
use crate::model::id::ResourceName;
use crate::model::restart::{RestartCondition, RestartPolicy};
use crate::model::security::Device;
use crate::model::units::{ByteSize, Timespan};

use super::declared::{self, Declared};
use super::security::{Security, security};
use super::{dependency, entries, health, image, limit, mount, network, value_of};
use crate::manifest::env_file;
use crate::manifest::problem::{Placed, Problem, Source};
use crate::manifest::read::{Reading, Word};
use crate::manifest::shape::container::{self as shape, Container};
use crate::manifest::shape::form::{NetworkWord, RestartWord};
use crate::manifest::shape::name::CapabilityWord;
use crate::manifest::suggest::nearest;

/// The container, or `None` after a problem without which nothing can be said of it.
pub(super) fn resolve(
    name: &Placed<ResourceName>,
    written: &Container,
    declared: &Declared,
    reading: &mut Reading<'_>,
) -> Option<DesiredContainer> {
    let replicas = replicas_of(written);
    let image = written.image.as_ref().and_then(|image| image::of_container(image, declared, reading));
    let network = network::of_container(name, written, declared, reading);
    network::check_ports(name, written, declared, reading);
    let declared_capabilities = capabilities(written, reading);
    let Security { read_only, users, pid, ipc, seccomp, capabilities } =
        security(written, declared_capabilities, reading);
    let spec = ContainerSpec {
        entrypoint: written.entrypoint.as_ref().map(|line| line.0.clone()),
        command: written.command.as_ref().map(|line| line.0.clone()),
        environment: environment(written, reading),
        user: written.user.as_ref().map(|user| user.0.clone()),
        group_add: written.group_add.iter().flat_map(|list| &list.value).map(|group| group.0.clone()).collect(),
        working_dir: written.working_dir.as_ref().map(|path| path.0.clone()),
        hostname: written.hostname.as_ref().map(|name| name.0.clone()),
        labels: declared::labels(&written.labels),
        init: value_of(&written.init).unwrap_or_default(),
        tty: value_of(&written.tty).unwrap_or_default(),
        stdin_open: value_of(&written.stdin_open).unwrap_or_default(),
        read_only,
        privileged: value_of(&written.privileged).unwrap_or_default(),
        users,
        pid,
        ipc,
        seccomp,
        capabilities,
        devices: devices(written, reading),
        ulimits: limit::ulimits(written, reading),
        sysctls: sysctls(written, reading),
        shm_size: shm_size(written, reading).unwrap_or(DEFAULT_SHM_SIZE),
        oom_score_adj: written.oom_score_adj.as_ref().map(|number| number.0 as i32),
        network,
        ports: entries(&written.ports).map(|(host, port)| (host.value, port.0 as u16)).collect(),
        extra_hosts: extra_hosts(written, reading),
        dns: written.dns.iter().flat_map(|list| &list.value).map(|address| address.value).collect(),
        dns_search: written.dns_search.iter().flat_map(|list| &list.value).map(|name| name.0.clone()).collect(),
        mounts: mount::mounts(name, written, declared, reading),
        resources: limit::resources(written, reading),
        restart: restart(written, declared, reading),
        healthcheck: written.healthcheck.as_ref().and_then(|check| health::healthcheck(check, reading)),
        stop_signal: value_of(&written.stop_signal),
        stop_grace_period: value_of(&written.stop_grace_period).unwrap_or(DEFAULT_STOP_GRACE_PERIOD),
        logging: logging(written, reading),
        depends_on: dependency::of_container(written, declared, reading),
        update: update(written),
        state: value_of(&written.state).unwrap_or_default(),
        image: image?,
    };
    Some(DesiredContainer { replicas, spec, after_end: AfterEnd::Keep })
}

pub(super) fn replicas_of(written: &Container) -> u32 {
    written.replicas.as_ref().map_or(1, |number| number.0 as u32)
}

fn update(written: &Container) -> Update {
    let Some(written) = &written.update else { return Update::default() };
    Update {
        order: value_of(&written.order).unwrap_or_default(),
        failure_action: value_of(&written.failure_action).unwrap_or_default(),
        monitor: value_of(&written.monitor).unwrap_or_default(),
    }
}

/// The files in their order, then the table.
fn environment(written: &Container, reading: &mut Reading<'_>) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for file in written.env_files.iter().flat_map(|list| &list.value) {
        environment.extend(variables_of_file(file, reading));
    }
    environment.extend(entries(&written.environment).map(|(name, value)| (name.0.clone(), value.0.clone())));
    environment
}

fn variables_of_file(file: &Placed<String>, reading: &mut Reading<'_>) -> Vec<(String, String)> {
    let path = reading.absolute(&file.place, &file.value);
    let text = match (reading.surroundings.read_file)(&path) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("cannot read the environment file `{}`", path.display());
            reading.report(Problem::at(&file.place, message).label(error.to_string()));
            return Vec::new();
        }
    };
    let parsed = env_file::parse(&text, reading.sources.len(), reading.surroundings.variable);
    reading.sources.push(Source { path, text });
    parsed.unwrap_or_else(|problems| {
        reading.problems.extend(problems);
        Vec::new()
    })
}

fn capabilities(written: &Container, reading: &mut Reading<'_>) -> Capabilities {
    for added in written.cap_add.iter().flat_map(|list| &list.value) {
        let dropped = written.cap_drop.iter().flat_map(|list| &list.value).find(|drop| drop.value == added.value);
        if let Some(dropped) = dropped {
            reading.report(
                Problem::at(&added.place, "this capability is both added and dropped")
                    .related(&dropped.place, "dropped here"),
            );
        }
    }
    Capabilities { add: capability_set(&written.cap_add), drop: capability_set(&written.cap_drop) }
}

fn capability_set(written: &Option<Placed<Vec<Placed<CapabilityWord>>>>) -> CapabilitySet {
    let mut some = BTreeSet::new();
    for word in written.iter().flat_map(|list| &list.value) {
        match word.value {
            CapabilityWord::All => return CapabilitySet::All,
            CapabilityWord::One(capability) => {
                some.insert(capability);
            }
        }
    }
    CapabilitySet::Some(some)
}

fn devices(written: &Container, reading: &mut Reading<'_>) -> BTreeSet<Device> {
    let mut devices: BTreeMap<String, Device> = BTreeMap::new();
    for device in written.devices.iter().flat_map(|list| &list.value) {
        let value = Device {
            source: device.source.clone(),
            target: device.target.clone(),
            permissions: device.permissions.clone(),
        };
        if devices.insert(device.target.clone(), value).is_some() {
            reading.report(Problem::at(&device.place, format!("two devices are at `{}`", device.target)));
        }
    }
    devices.into_values().collect()
}

/// Settings of the network belong to whoever owns the network namespace.
fn sysctls(written: &Container, reading: &mut Reading<'_>) -> BTreeMap<String, String> {
    if let Some(mode) = written.network_mode.as_ref().filter(|mode| mode.shares_namespace()) {
        for (name, _) in entries(&written.sysctls).filter(|(name, _)| name.0.starts_with("net.")) {
            reading.report(
                Problem::at(&name.place, format!("`{}` would change a network that is not this container's", name.0))
                    .related(&mode.place, "the network comes from here"),
            );
        }
    }
    // Without a name of its own it has the host's names with the host's network.
    let names = written.network_mode.as_ref().filter(|mode| matches!(mode.value, NetworkWord::Host));
    if let (Some(mode), None) = (names, &written.hostname) {
        for (name, _) in entries(&written.sysctls).filter(|(name, _)| name.0 == "kernel.domainname") {
            let problem = Problem::at(&name.place, "`kernel.domainname` would change the host's");
            reading
                .report(problem.related(&mode.place, "its name is the host's").help("give it a `hostname` of its own"));
        }
    }
    if let Some(ipc) = written.ipc.as_ref().filter(|ipc| ipc.value == Namespace::Host) {
        let is_of_another_kind = |name: &str| name.starts_with("net.") || name == "kernel.domainname";
        for (name, _) in entries(&written.sysctls).filter(|(name, _)| !is_of_another_kind(&name.0)) {
            reading.report(
                Problem::at(&name.place, format!("`{}` would change the host", name.0))
                    .related(&ipc.place, "the namespace comes from here"),
            );
        }
    }
    entries(&written.sysctls).map(|(name, value)| (name.0.clone(), value.0.clone())).collect()
}

fn extra_hosts(written: &Container, reading: &mut Reading<'_>) -> BTreeMap<String, ExtraHost> {
    if let Some(mode) = written.network_mode.as_ref().filter(|mode| matches!(mode.value, NetworkWord::None)) {
        for (name, _) in entries(&written.extra_hosts).filter(|(_, host)| **host == ExtraHost::HostGateway) {
            reading.report(
                Problem::at(&name.place, format!("`{}` would be a host that cannot be reached", name.0))
                    .related(&mode.place, "there is no network"),
            );
        }
    }
    entries(&written.extra_hosts).map(|(name, host)| (name.0.clone(), *host)).collect()
}

fn shm_size(written: &Container, reading: &mut Reading<'_>) -> Option<ByteSize> {
    let of_the_host = written.ipc.as_ref().filter(|ipc| ipc.value == Namespace::Host);
    if let (Some(size), Some(ipc)) = (&written.shm_size, of_the_host) {
        let problem = Problem::at(&size.place, "the size of the host's /dev/shm is the host's to say");
        reading.report(problem.label("take this out").related(&ipc.place, "it is the host's here"));
    }
    above_zero(&written.shm_size, reading)
}

fn above_zero(size: &Option<Placed<ByteSize>>, reading: &mut Reading<'_>) -> Option<ByteSize> {
    let size = size.as_ref()?;
    if size.value == ByteSize(0) {
        reading.report(Problem::at(&size.place, "a size of nothing").label("expected a size above 0"));
    }
    Some(size.value)
}

fn restart(written: &Container, declared: &Declared, reading: &mut Reading<'_>) -> RestartPolicy {
    let policy = match written.restart.as_ref().map(|word| &word.value) {
        None => None,
        Some(RestartWord::Policy(policy)) => declared::restart_policy(policy, reading),
        Some(RestartWord::Word(word)) => named_restart(word, declared, reading),
    };
    policy.unwrap_or_else(|| RestartPolicy::of(RestartCondition::No))
}

fn named_restart(word: &Placed<String>, declared: &Declared, reading: &mut Reading<'_>) -> Option<RestartPolicy> {
    if let Ok(condition) = RestartCondition::parse(&word.value) {
        return Some(RestartPolicy::of(condition));
    }
    if let Some((_, policy)) = declared.restart.iter().find(|(name, _)| name.as_str() == word.value) {
        return policy.clone();
    }
    // Docker's `on-failure:5`.
    if let Some(retries) = word.value.strip_prefix("on-failure:").and_then(|number| number.parse::<u32>().ok()) {
        let max_retries = Some(retries).filter(|retries| *retries > 0);
        return Some(RestartPolicy { max_retries, ..RestartPolicy::of(RestartCondition::OnFailure) });
    }
    if !declared.knows_restart_policies() {
        return None;
    }
    let built_in = ["no", "on-failure", "always", "unless-stopped"];
    let known = built_in.into_iter().chain(declared.restart.keys().map(ResourceName::as_str));
    let problem = Problem::at(&word.place, format!("there is no restart policy `{}`", word.value));
    reading.report(problem.label("neither built in nor declared in `restart`").help(
        match nearest(&word.value, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("built in are {}", crate::manifest::suggest::one_of(&built_in)),
        },
    ));
    None
}

/// Smaller files would be rotated all the time.
const MIN_LOG_SIZE: ByteSize = ByteSize(4096);

fn logging(written: &Container, reading: &mut Reading<'_>) -> Logging {
    let defaults = Logging::default();
    let Some(shape::Logging { max_size, max_files, unread: _ }) = written.logging.as_ref().map(|l| &l.value) else {
        return defaults;
    };
    if let Some(size) = max_size.as_ref().filter(|size| size.value < MIN_LOG_SIZE) {
        let problem = Problem::at(&size.place, format!("a log file of {} is too small", size.value));
        reading.report(problem.label(format!("expected at least {MIN_LOG_SIZE}")));
    }
    Logging {
        max_size: value_of(max_size).unwrap_or(defaults.max_size),
        max_files: max_files.as_ref().map_or(defaults.max_files, |number| number.0 as u32),
    }
}

/// A time that must pass cannot be nothing.
pub(super) fn check_above_zero(span: &Option<Placed<Timespan>>, what: &str, reading: &mut Reading<'_>) {
    if let Some(span) = span.as_ref().filter(|span| span.value == Timespan::ZERO) {
        reading.report(Problem::at(&span.place, format!("{what} of nothing")).label("expected a time above 0"));
    }
}
