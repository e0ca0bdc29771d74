//! The options of `run` as a manifest of one container.
//!
//! What a value means, and what is wrong with it, is the manifest's business alone: every option becomes a key, and
//! [`crate::manifest`] reads the result. Here only Docker's forms of lists and pairs are taken apart.

use std::path::PathBuf;

use toml::{Table, Value};

use super::arguments::{
    ContainerArguments, LifeArguments, LimitArguments, NetworkArguments, ProcessArguments, ResourceArguments,
    SecurityArguments, StorageArguments,
};
use super::identifier;
use super::mounts::{self, Mounts};
use super::ports::{self, Taken};
use crate::cli::context::variable;
use crate::cli::failure::Failure;
use crate::model::network::Attachment;
use crate::model::paths::Paths;

/// What the project is called in it; the container belongs to none.
pub const PROJECT: &str = "run";
const IMAGE: &str = "image";

/// Where a container's network comes from, as far as the manifest cannot say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// As the manifest has it.
    Declared,
    /// Networks that are there, as they were written, and how it takes part in them.
    Named { words: Vec<String>, attachment: Attachment },
    /// The namespace of this container.
    Container(String),
}

/// A manifest, and what it cannot say.
#[derive(Debug)]
pub struct Declaration {
    pub manifest: Table,
    pub network: Network,
}

/// `unique` tells volumes of the container's own from those of an earlier one of its name.
pub fn declare(
    arguments: &ContainerArguments,
    (name, unique): (&str, &str),
    paths: &Paths,
    taken: &mut Taken,
) -> Result<Declaration, Failure> {
    let ContainerArguments {
        help: _,
        name: _,
        rm: _,
        interactive,
        tty,
        cidfile: _,
        process,
        storage,
        network,
        limits,
        security,
        life,
        pull,
        platform,
        image_and_command: _,
    } = arguments;
    let (image, command) = (identifier::referred(arguments.image(), paths)?, arguments.command());
    check_platform(platform.as_deref())?;
    let mut container = Table::new();
    container.insert("image".into(), text(IMAGE));
    flag(&mut container, "stdin_open", *interactive);
    flag(&mut container, "tty", *tty);
    if !command.is_empty() {
        container.insert("command".into(), list(command));
    }
    declare_process(process, &mut container)?;
    let Mounts { targets, volumes } = mounts::declare(storage, name, unique, paths)?;
    declare_storage(storage, targets, &mut container);
    let network = declare_network(network, &mut container, taken)?;
    declare_limits(limits, &mut container)?;
    declare_security(security, &mut container)?;
    declare_life(life, &mut container)?;

    let mut manifest = Table::new();
    manifest.insert("project".into(), text(PROJECT));
    manifest.insert("images".into(), Value::Table(Table::from_iter([(IMAGE.to_owned(), source(&image, pull))])));
    if !volumes.is_empty() {
        manifest.insert("volumes".into(), Value::Table(volumes));
    }
    manifest.insert("containers".into(), Value::Table(Table::from_iter([(name.to_owned(), Value::Table(container))])));
    Ok(Declaration { manifest, network })
}

/// A reference's tag begins with a letter, a digit or `_`, so these are none.
fn source(image: &str, pull: &str) -> Value {
    let path = |kind: &str| {
        let path = image.strip_prefix(kind)?.strip_prefix(':')?;
        path.starts_with(['/', '.']).then(|| (kind.to_owned(), text(path)))
    };
    let source = match path("rootfs").or_else(|| path("archive")) {
        Some(source) => vec![source],
        None => vec![("reference".to_owned(), text(image)), ("pull".to_owned(), text(pull))],
    };
    Value::Table(Table::from_iter(source))
}

/// Whether this host can run images of that platform; it can where none was named.
pub fn check_platform(wanted: Option<&str>) -> Result<(), Failure> {
    let own = crate::engine::image::Platform::host();
    let short = format!("{}/{}", own.os, own.architecture);
    match wanted {
        Some(wanted) if wanted != short && wanted != own.to_string() => {
            Err(Failure::usage(format!("this host runs images of {own}, not of {wanted}"))
                .hint("leave `--platform` out: the image's variant for this host is chosen"))
        }
        _ => Ok(()),
    }
}

fn declare_process(arguments: &ProcessArguments, container: &mut Table) -> Result<(), Failure> {
    let ProcessArguments { environment, env_files, user, group_add, workdir, entrypoint, init, labels, label_files } =
        arguments;
    let mut variables = Table::new();
    for entry in environment {
        match entry.split_once('=') {
            Some((name, value)) => drop(variables.insert(name.to_owned(), text(value))),
            // One that is not set here is not set there.
            None => drop(variable(entry).map(|value| variables.insert(entry.clone(), text(&value)))),
        }
    }
    table(container, "environment", variables);
    listed(container, "env_files", env_files);
    // Without a user it is root, as with Docker.
    let user = user.as_ref().map(|user| if user.starts_with(':') { format!("0{user}") } else { user.clone() });
    option(container, "user", &user);
    listed(container, "group_add", group_add);
    option(container, "working_dir", workdir);
    if let Some(program) = entrypoint {
        let words: Vec<String> = Some(program.clone()).filter(|program| !program.is_empty()).into_iter().collect();
        container.insert("entrypoint".into(), list(&words));
        // What the image says goes with its entrypoint.
        container.entry("command").or_insert_with(|| list(&[]));
    }
    flag(container, "init", *init);
    table(container, "labels", declare_labels(labels, label_files)?);
    Ok(())
}

fn declare_labels(labels: &[String], files: &[PathBuf]) -> Result<Table, Failure> {
    let mut lines = Vec::new();
    for path in files {
        let content = std::fs::read_to_string(path)
            .map_err(|error| Failure::from(error).context(format!("cannot read the labels in `{}`", path.display())))?;
        lines
            .extend(content.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned));
    }
    Ok(label_table(lines.iter().chain(labels)))
}

/// `KEY=VALUE` or `KEY`, a later one in the place of an earlier one.
pub fn label_table<'a>(labels: impl IntoIterator<Item = &'a String>) -> Table {
    let pairs = labels.into_iter().map(|label| label.split_once('=').unwrap_or((label, "")));
    pairs.map(|(key, value)| (key.to_owned(), text(value))).collect()
}

fn declare_storage(arguments: &StorageArguments, targets: Table, container: &mut Table) {
    let StorageArguments { volumes: _, mounts: _, tmpfs: _, volumes_from: _, read_only, shm_size } = arguments;
    table(container, "mounts", targets);
    flag(container, "read_only", *read_only);
    option(container, "shm_size", shm_size);
}

fn declare_network(arguments: &NetworkArguments, container: &mut Table, taken: &mut Taken) -> Result<Network, Failure> {
    let NetworkArguments {
        publish,
        publish_all: _,
        expose: _,
        networks,
        ip,
        ip6,
        network_alias,
        hostname,
        hosts,
        dns,
        dns_search,
    } = arguments;
    table(container, "ports", ports::table(publish, taken)?);
    option(container, "hostname", hostname);
    let mut names = Table::new();
    for host in hosts {
        let (name, address) =
            host.split_once([':', '=']).ok_or_else(|| malformed("--add-host", host, "NAME:ADDRESS"))?;
        names.insert(name.to_owned(), text(address.trim_matches(['[', ']'])));
    }
    table(container, "extra_hosts", names);
    listed(container, "dns", dns);
    listed(container, "dns_search", dns_search);
    let network = match networks.as_slice() {
        [] => Network::Declared,
        [word] if matches!(word.as_str(), "default" | "bridge") => Network::Declared,
        [word] if matches!(word.as_str(), "none" | "host") => {
            container.insert("network_mode".into(), text(word));
            Network::Declared
        }
        [word] if word.starts_with("container:") => Network::Container(word["container:".len()..].to_owned()),
        words => {
            let aliases = network_alias.iter().cloned().collect();
            let attachment = Attachment { aliases, address: *ip, address6: *ip6 };
            if words.len() > 1 && attachment != Attachment::default() {
                return Err(Failure::usage("`--ip`, `--ip6` and `--network-alias` are for one network")
                    .hint("give one `--network`"));
            }
            return Ok(Network::Named { words: words.to_vec(), attachment });
        }
    };
    let mut attachment = Table::new();
    listed(&mut attachment, "aliases", network_alias);
    option(&mut attachment, "address", &ip.map(|address| address.to_string()));
    option(&mut attachment, "address6", &ip6.map(|address| address.to_string()));
    if !attachment.is_empty() {
        if network != Network::Declared || container.contains_key("network_mode") {
            return Err(Failure::usage(
                "`--ip`, `--ip6` and `--network-alias` are for a network of the container's own",
            ));
        }
        let networks = Table::from_iter([("default".to_owned(), Value::Table(attachment))]);
        container.insert("networks".into(), Value::Table(networks));
    }
    Ok(network)
}

fn declare_limits(arguments: &LimitArguments, container: &mut Table) -> Result<(), Failure> {
    let LimitArguments { resources, ulimits, oom_score_adj } = arguments;
    declare_resources(resources, container)?;
    let mut limits = Table::new();
    for ulimit in ulimits {
        let (name, limit) = ulimit.split_once('=').ok_or_else(|| malformed("--ulimit", ulimit, "NAME=SOFT[:HARD]"))?;
        let limit = match limit.split_once(':') {
            None => text(limit),
            Some((soft, hard)) => {
                Value::Table(Table::from_iter([("soft".to_owned(), text(soft)), ("hard".to_owned(), text(hard))]))
            }
        };
        limits.insert(name.to_owned(), limit);
    }
    table(container, "ulimits", limits);
    number(container, "oom_score_adj", *oom_score_adj);
    Ok(())
}

/// The options of `update` as a manifest of a container whose other keys do not matter.
pub fn declare_update(resources: &ResourceArguments, restart: &Option<String>) -> Result<Table, Failure> {
    let mut container = Table::from_iter([("image".to_owned(), text("any"))]);
    declare_resources(resources, &mut container)?;
    option(&mut container, "restart", restart);
    let containers = Table::from_iter([("any".to_owned(), Value::Table(container))]);
    let project = ("project".to_owned(), text(PROJECT));
    Ok(Table::from_iter([project, ("containers".to_owned(), Value::Table(containers))]))
}

fn declare_resources(arguments: &ResourceArguments, container: &mut Table) -> Result<(), Failure> {
    let ResourceArguments {
        memory,
        memory_swap,
        memory_reservation,
        cpus,
        cpu_quota,
        cpu_period,
        cpu_shares,
        cpuset_cpus,
        pids_limit,
    } = arguments;
    let mut resources = Table::new();
    option(&mut resources, "memory", memory);
    option(&mut resources, "memory_swap", &memory_swap.clone().filter(|size| size != "-1"));
    option(&mut resources, "memory_reservation", memory_reservation);
    let share = cpu_quota.map(|quota| share(quota, cpu_period.unwrap_or(100_000))).transpose()?.flatten();
    option(&mut resources, "cpus", &cpus.clone().or(share));
    number(&mut resources, "cpu_shares", *cpu_shares);
    option(&mut resources, "cpuset", cpuset_cpus);
    number(&mut resources, "pids", pids_limit.filter(|limit| !matches!(limit, -1 | 0)));
    table(container, "resources", resources);
    Ok(())
}

/// The processors that a quota of each period is; `None` is no limit.
fn share(quota: i64, period: i64) -> Result<Option<String>, Failure> {
    match (quota, period) {
        (-1, _) => Ok(None),
        (1.., 1..) if quota.checked_mul(1000).is_some_and(|thousandths| thousandths % period == 0) => {
            let thousandths = quota * 1000 / period;
            Ok(Some(format!("{}.{:03}", thousandths / 1000, thousandths % 1000)))
        }
        _ => Err(Failure::usage(format!("a quota of {quota} in a period of {period} microseconds is no share"))
            .hint("it is given in thousandths of a processor: `--cpus 1.5` is 150000 of 100000")),
    }
}

fn declare_security(arguments: &SecurityArguments, container: &mut Table) -> Result<(), Failure> {
    let SecurityArguments { cap_add, cap_drop, security_options, devices, privileged, sysctls, userns, pid, ipc } =
        arguments;
    listed(container, "cap_add", cap_add);
    listed(container, "cap_drop", cap_drop);
    listed(container, "devices", &devices.iter().map(|device| at_its_place(device)).collect::<Vec<_>>());
    flag(container, "privileged", *privileged);
    let mut settings = Table::new();
    for sysctl in sysctls {
        let (name, value) = sysctl.split_once('=').ok_or_else(|| malformed("--sysctl", sysctl, "NAME=VALUE"))?;
        settings.insert(name.to_owned(), text(value));
    }
    table(container, "sysctls", settings);
    let mut security = Table::new();
    for option in security_options {
        match option.split_once(['=', ':']).unwrap_or((option, "true")) {
            ("no-new-privileges", "true") if !privileged => {}
            // It is so: no container has a label of SELinux's or a profile of AppArmor's.
            ("label", "disable") | ("apparmor", "unconfined") | ("seccomp", "builtin") => {}
            ("seccomp", profile) => drop(security.insert("seccomp".into(), text(profile))),
            ("profile", name) => drop(security.insert("profile".into(), text(name))),
            _ => {
                return Err(Failure::usage(format!("`--security-opt {option}` is not supported")).hint(
                    "there are seccomp=unconfined, seccomp=FILE, profile=hardened and no-new-privileges (without \
                     `--privileged`)",
                ));
            }
        }
    }
    table(container, "security", security);
    option(container, "userns", userns);
    for (name, mode) in [("pid", pid), ("ipc", ipc)] {
        if mode.as_ref().is_some_and(|mode| mode.starts_with("container:")) {
            return Err(Failure::usage(format!("`--{name}` shares with no other container")).hint(
                "`evenkeel exec NAME COMMAND` runs in its namespaces; `host` shares with this host and all its containers",
            ));
        }
    }
    option(container, "pid", pid);
    option(container, "ipc", ipc);
    Ok(())
}

fn declare_life(arguments: &LifeArguments, container: &mut Table) -> Result<(), Failure> {
    let LifeArguments {
        restart,
        log_driver,
        log_opt,
        stop_signal,
        stop_timeout,
        health_cmd,
        health_interval,
        health_retries,
        health_timeout,
        health_start_period,
        health_start_interval,
        no_healthcheck,
    } = arguments;
    option(container, "restart", restart);
    if let Some(driver) = log_driver.as_ref().filter(|driver| *driver != "json-file") {
        return Err(Failure::usage(format!("there is no log driver `{driver}`")).hint(
            "output is kept in files, in Docker's json-file form; `--log-opt max-size=` and `max-file=` bound them",
        ));
    }
    let mut logging = Table::new();
    for written in log_opt {
        let expected = || malformed("--log-opt", written, "max-size=SIZE or max-file=NUMBER");
        match written.split_once('=').ok_or_else(expected)? {
            ("max-size", size) => drop(logging.insert("max_size".into(), text(size))),
            ("max-file", count) => {
                let count = count.parse().map_err(|_| expected())?;
                logging.insert("max_files".into(), Value::Integer(count));
            }
            _ => return Err(expected()),
        }
    }
    table(container, "logging", logging);
    option(container, "stop_signal", stop_signal);
    option(container, "stop_grace_period", &stop_timeout.map(|seconds| format!("{seconds}s")));
    if *no_healthcheck {
        container.insert("healthcheck".into(), text("none"));
    }
    let mut check = Table::new();
    option(&mut check, "command", health_cmd);
    option(&mut check, "interval", health_interval);
    number(&mut check, "retries", *health_retries);
    option(&mut check, "timeout", health_timeout);
    option(&mut check, "start_period", health_start_period);
    option(&mut check, "start_interval", health_start_interval);
    if !check.is_empty() {
        // In the place of the image's: see `super::of_image`.
        check.entry("command").or_insert_with(|| text("true"));
    }
    table(container, "healthcheck", check);
    Ok(())
}

/// `SOURCE:rwm` is at the place that it has on the host, as Docker has it.
fn at_its_place(device: &str) -> String {
    match device.split_once(':') {
        Some((source, access)) if !access.is_empty() && access.bytes().all(|letter| b"rwm".contains(&letter)) => {
            format!("{source}:{source}:{access}")
        }
        _ => device.to_owned(),
    }
}

pub fn malformed(option: &str, written: &str, expected: &str) -> Failure {
    Failure::usage(format!("`{option} {written}`: expected {expected}"))
}

/// A text of the manifest, where a dollar is written twice.
pub fn text(written: &str) -> Value {
    Value::String(written.replace('$', "$$"))
}

fn list(words: &[String]) -> Value {
    Value::Array(words.iter().map(|word| text(word)).collect())
}

fn flag(table: &mut Table, key: &str, set: bool) {
    if set {
        table.insert(key.to_owned(), Value::Boolean(true));
    }
}

fn option(table: &mut Table, key: &str, value: &Option<String>) {
    if let Some(value) = value {
        table.insert(key.to_owned(), text(value));
    }
}

fn number(table: &mut Table, key: &str, value: Option<i64>) {
    if let Some(value) = value {
        table.insert(key.to_owned(), Value::Integer(value));
    }
}

fn listed(table: &mut Table, key: &str, words: &[String]) {
    if !words.is_empty() {
        table.insert(key.to_owned(), list(words));
    }
}

fn table(parent: &mut Table, key: &str, entries: Table) {
    if !entries.is_empty() {
        parent.insert(key.to_owned(), Value::Table(entries));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_share_of_its_period() {
        for (quota, period, processors) in
            [(50_000, 100_000, "0.500"), (20_000, 10_000, "2.000"), (1_250_000, 1_000_000, "1.250")]
        {
            assert_eq!(share(quota, period).unwrap().as_deref(), Some(processors));
        }
        assert_eq!(share(-1, 100_000).unwrap(), None);
        for (quota, period) in [(0, 100_000), (-2, 100_000), (1000, 0), (1000, 3000), (i64::MAX, 1)] {
            assert!(share(quota, period).is_err(), "{quota} {period}");
        }
    }

    #[test]
    fn a_device_may_have_its_access_right_behind_it() {
        for (written, meant) in [
            ("/dev/null:rw", "/dev/null:/dev/null:rw"),
            ("/dev/null", "/dev/null"),
            ("/dev/null:/dev/x", "/dev/null:/dev/x"),
            ("/dev/null:/dev/x:r", "/dev/null:/dev/x:r"),
            ("/dev/null:", "/dev/null:"),
        ] {
            assert_eq!(at_its_place(written), meant);
        }
    }

    #[test]
    fn paths_of_images_are_no_references() {
        for (image, key) in [
            ("rootfs:/srv/tree", "rootfs"),
            ("archive:./image.tar", "archive"),
            ("rootfs:latest", "reference"),
            ("busybox", "reference"),
        ] {
            assert!(source(image, "missing").as_table().unwrap().contains_key(key), "{image}");
        }
    }
}
