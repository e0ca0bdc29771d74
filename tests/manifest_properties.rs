//! Manifests, properties: any text has an answer, and any project reads back what `evenkeel config` prints of it.

use std::collections::BTreeMap;
use std::path::Path;

use evenkeel::manifest::{self, FileKind, Loaded, Problems, Source, Surroundings};
use evenkeel::model::build::{BuildNetwork, BuildSpec};
use evenkeel::model::container::{
    AfterEnd, Capabilities, CapabilitySet, ContainerSpec, FailureAction, Logging, Namespace, RunState, Update,
    UpdateOrder,
};
use evenkeel::model::desired::{Desired, DesiredContainer};
use evenkeel::model::extra_host::ExtraHost;
use evenkeel::model::health::{Healthcheck, Probe};
use evenkeel::model::image::{Archived, ImageSource, Pull};
use evenkeel::model::network::{Attachment, NetworkMode, NetworkSpec};
use evenkeel::model::port::HostPort;
use evenkeel::model::resources::{Resources, Ulimit};
use evenkeel::model::restart::{Backoff, RestartCondition, RestartPolicy};
use evenkeel::model::seccomp::Seccomp;
use evenkeel::model::security::{Capability, Device, IdRange, Users};
use evenkeel::model::units::{ByteSize, Cpus, FileMode, Signal, Timespan};
use evenkeel::model::volume::{Access, Filling, MissingSource, Mount, Propagation, VolumeSpec};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

/// Where everything is a directory with a Dockerfile.
const CONTEXTS: &str = "/contexts";

/// Parses without a disk: nothing or everything is there.
fn parse(text: &str, file_kind: Option<FileKind>) -> Result<Loaded, Problems> {
    parse_layers(&[&[text]], file_kind)
}

fn parse_layers(layers: &[&[&str]], file_kind: Option<FileKind>) -> Result<Loaded, Problems> {
    let surroundings = Surroundings {
        directory: Path::new("/"),
        variable: &|_| None,
        file_kind: &|path| match path.starts_with(CONTEXTS) && file_kind.is_some() {
            true if path.ends_with("Dockerfile") => Some(FileKind::File),
            true if path.ends_with(".dockerignore") => None,
            true => Some(FileKind::Directory),
            false => file_kind,
        },
        read_file: &|_| Ok("FROM scratch AS base\n".to_owned()),
    };
    let source = |text: &&str| Source { path: "m.toml".into(), text: (*text).to_owned() };
    manifest::parse(layers.iter().map(|texts| texts.iter().map(source).collect()).collect(), &surroundings)
}

/// Pieces that manifests are made of, put together without sense.
const PIECES: [&str; 40] = [
    "project",
    "containers",
    "images",
    "networks",
    "volumes",
    "restart",
    "web",
    "db",
    ".",
    "=",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    "\n",
    " ",
    ",",
    "\"${A:-${B}}\"",
    "$",
    "8080",
    "-1",
    "1.5",
    "true",
    "\"10.0.0.0/8\"",
    "\"64MiB\"",
    "ports",
    "mounts",
    "\"/a\"",
    "depends_on",
    "healthcheck",
    "#",
    "\\u0000",
    "é",
    "[[",
    "]]",
    "image",
    "0x",
    "1979-05-27",
];

fn never_panics(text: &str) {
    if let Err(problems) = parse(text, None) {
        assert!(!problems.to_string().is_empty() && !problems.located().is_empty());
    }
}

proptest! {
    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        never_panics(&text);
    }

    #[test]
    fn any_pieces_are_answered(picks in proptest::collection::vec(0..PIECES.len(), 0..60)) {
        never_panics(&picks.into_iter().map(|pick| PIECES[pick]).collect::<String>());
    }

    #[test]
    fn any_entries_in_any_layers_are_answered(
        picks in proptest::collection::vec((0..ENTRIES.len(), 0..VALUES.len()), 3),
    ) {
        let texts: Vec<String> = picks.iter().map(|(entry, value)| format!("{} = {}", ENTRIES[*entry], VALUES[*value])).collect();
        let layers: [&[&str]; 2] = [&[&texts[0], &texts[1]], &[&texts[2]]];
        if let Err(problems) = parse_layers(&layers, None) {
            assert!(!problems.to_string().is_empty());
        }
    }

    #[test]
    fn any_value_at_any_key_is_answered(key in 0..KEYS.len(), value in 0..VALUES.len()) {
        let text = format!("project = \"p\"\n[containers.web]\nimage = \"a/b\"\n{} = {}\n", KEYS[key], VALUES[value]);
        never_panics(&text);
    }
}

const KEYS: [&str; 26] = [
    "command",
    "environment",
    "env_files",
    "user",
    "working_dir",
    "hostname",
    "labels",
    "cap_add",
    "userns",
    "security",
    "devices",
    "ulimits",
    "sysctls",
    "shm_size",
    "oom_score_adj",
    "network_mode",
    "networks",
    "ports",
    "extra_hosts",
    "mounts",
    "resources",
    "restart",
    "healthcheck",
    "depends_on",
    "replicas",
    "logging",
];
/// Keys at which layers meet.
const ENTRIES: [&str; 10] = [
    "project",
    "containers",
    "containers.web",
    "containers.web.image",
    "containers.web.mounts",
    "containers.web.mounts.\"/a\"",
    "containers.web.healthcheck",
    "images.web",
    "images.web.reference",
    "x-y",
];
const VALUES: [&str; 18] = [
    "1",
    "-9223372036854775808",
    "99999999999999999999",
    "inf",
    "\"\"",
    "\"é\"",
    "\"\\u0000\"",
    "[]",
    "{}",
    "[[]]",
    "{ a = {} }",
    "{ \"\" = \"\" }",
    "true",
    "1979-05-27",
    "[\"a:b:c:d\"]",
    "{ a = \"${X\" }",
    "\"${X:-}\"",
    "[1, \"web\", {}]",
];

/// Any text that a process can be given: dollars, quotes, line breaks, everything but NUL.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[$${}a-z\"'\\\\ \n:-]{0,12}"].prop_map(|text| text.replace('\0', ""))
}

fn path() -> impl Strategy<Value = String> {
    "(/[a-z$$ \"']{1,6}){1,3}"
}

fn span() -> impl Strategy<Value = Timespan> {
    (1..100_000_000u64).prop_map(Timespan::from_millis)
}

fn size() -> impl Strategy<Value = ByteSize> {
    prop_oneof![(1..1000u64).prop_map(ByteSize::from_mib), (8192..1u64 << 40).prop_map(ByteSize)]
}

fn texts() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("[^=\\x00]{1,8}", text(), 0..3)
}

fn restart() -> impl Strategy<Value = RestartPolicy> {
    let named = prop_oneof![
        Just(RestartCondition::OnFailure),
        Just(RestartCondition::Always),
        Just(RestartCondition::UnlessStopped)
    ];
    let backoff = (span(), 1..100u32, span(), span()).prop_map(|(a, factor, b, reset_after)| Backoff {
        initial: a.min(b),
        factor,
        max: a.max(b),
        reset_after,
    });
    let backoff = prop_oneof![Just(Backoff::default()), backoff];
    let policy = (named, option::of(1..1000u32), backoff).prop_map(|(condition, max_retries, backoff)| RestartPolicy {
        condition,
        max_retries,
        backoff,
    });
    prop_oneof![Just(RestartPolicy::of(RestartCondition::No)), policy]
}

fn healthcheck() -> impl Strategy<Value = Healthcheck> {
    let probe = prop_oneof![
        vec(text(), 1..3)
            .prop_filter("the words of Docker", |words| !words[0].starts_with("CMD"))
            .prop_map(Probe::Command),
        (1..=u16::MAX, "/[a-z$?=&]{0,8}").prop_map(|(port, path)| Probe::Http { port, path }),
        (1..=u16::MAX).prop_map(|port| Probe::Tcp { port }),
    ];
    let timed = (probe, span(), span(), 1..100u32, span(), span()).prop_map(
        |(probe, interval, timeout, retries, start_period, start_interval)| Healthcheck {
            probe,
            interval,
            timeout,
            retries,
            start_period,
            start_interval,
        },
    );
    prop_oneof![Just(Healthcheck::of(Probe::None)), timed]
}

fn mount() -> impl Strategy<Value = Mount> {
    let access = || prop_oneof![Just(Access::ReadWrite), Just(Access::ReadOnly)];
    let propagation = prop_oneof![Just(Propagation::Rprivate), Just(Propagation::Shared), Just(Propagation::Rslave)];
    let missing = prop_oneof![Just(MissingSource::Refuse), Just(MissingSource::Create)];
    let filling = prop_oneof![Just(Filling::Image), Just(Filling::Nothing)];
    let option = prop_oneof![Just("noexec"), Just("uid=7"), Just("size=10%")].prop_map(|word| word.parse().unwrap());
    let options = prop::collection::vec(option, 0..3);
    let mode = option::of((0..0o7777u32).prop_map(FileMode));
    prop_oneof![
        (access(), filling).prop_map(|(access, filling)| Mount::Volume {
            name: "data".parse().unwrap(),
            access,
            filling
        }),
        (path(), access(), propagation, missing).prop_map(|(source, access, propagation, missing)| Mount::Bind {
            source: source.into(),
            access,
            propagation,
            missing
        }),
        (option::of(size()), mode, options).prop_map(|(size, mode, options)| Mount::Tmpfs { size, mode, options }),
    ]
}

fn network() -> impl Strategy<Value = (NetworkMode, BTreeMap<HostPort, u16>)> {
    let attachment = (btree_set("[a-z]{1,5}", 0..3), option::of(2..250u8)).prop_map(|(aliases, host)| Attachment {
        aliases,
        address: host.map(|host| [10, 89, 7, host].into()),
        address6: None,
    });
    let networks =
        attachment.prop_map(|attachment| NetworkMode::Networks(BTreeMap::from([("net".parse().unwrap(), attachment)])));
    let ports = btree_map(1..=u16::MAX, 1..=u16::MAX, 0..3).prop_map(|ports| {
        let host = |(host, port): (u16, u16)| (format!("*:{host}/udp").parse().unwrap(), port);
        ports.into_iter().map(host).collect()
    });
    prop_oneof![
        (networks, ports),
        Just((NetworkMode::None, BTreeMap::new())),
        Just((NetworkMode::Host, BTreeMap::new()))
    ]
}

fn resources() -> impl Strategy<Value = Resources> {
    let memory = (8..1000u64, 0..100u64).prop_map(|(memory, more)| (memory, memory + more));
    (option::of(memory), option::of(1..64_000u32), option::of(2..262_144u64), any::<bool>(), option::of(1..9999u64))
        .prop_map(|(memory, cpus, cpu_shares, cpuset, pids)| Resources {
            memory: memory.map(|(memory, _)| ByteSize::from_mib(memory)),
            memory_swap: memory.map(|(_, swap)| ByteSize::from_mib(swap)),
            memory_reservation: memory.map(|(memory, _)| ByteSize::from_mib(memory)),
            cpus: cpus.map(Cpus::from_millis),
            cpu_shares,
            cpuset: cpuset.then(|| "0-1,3".to_owned()),
            pids,
        })
}

fn build() -> impl Strategy<Value = BuildSpec> {
    let words = (option::of(Just("base".to_owned())), option::of(text()), any::<[bool; 3]>());
    (path(), words).prop_map(|(path, (target, proxy, [none, no_cache, pull]))| BuildSpec {
        target,
        args: proxy.map(|proxy| ("HTTP_PROXY".to_owned(), proxy)).into_iter().collect(),
        network: if none { BuildNetwork::None } else { BuildNetwork::Host },
        no_cache,
        pull: if pull { Pull::Always } else { Pull::Missing },
        ..BuildSpec::of(format!("{CONTEXTS}{path}").into())
    })
}

fn spec() -> impl Strategy<Value = ContainerSpec> {
    let image = prop_oneof![
        Just(ImageSource::Reference("docker.io/library/a:1".to_owned())),
        path().prop_map(|path| ImageSource::Rootfs(path.into())),
        (path(), option::of(text()))
            .prop_map(|(path, image)| ImageSource::Archive(Archived { path: path.into(), image })),
        build().prop_map(|spec| ImageSource::Build(Box::new(spec))),
    ];
    let process = (image, option::of(vec(text(), 0..3)), option::of(vec(text(), 0..3)), texts(), texts());
    let flags = (any::<[bool; 6]>(), option::of(-1000..1000i32), option::of(1..64i32), size(), span());
    let rights = (btree_set(0..41u8, 0..4), any::<bool>(), option::of((any::<u32>(), option::of(any::<u32>()))));
    let kept = (btree_map(path(), mount(), 0..4), restart(), option::of(healthcheck()), network(), resources());
    (process, flags, rights, kept).prop_map(|(process, flags, rights, kept)| {
        let (image, entrypoint, command, environment, labels) = process;
        let ([init, tty, stdin_open, read_only, privileged, stopped], oom_score_adj, signal, size, grace) = flags;
        let (capabilities, all, ulimit) = rights;
        let (mounts, restart, healthcheck, (network, ports), resources) = kept;
        let capabilities = capabilities.into_iter().filter_map(Capability::from_number).collect();
        let device = Device { source: "/dev/a".into(), target: "/dev/b$".into(), permissions: "rw".into() };
        let shares_network = !matches!(network, NetworkMode::Networks(_));
        // Without a network the host is not to be reached.
        let host = match network {
            NetworkMode::None => ExtraHost::Address([10, 0, 0, 1].into()),
            _ => ExtraHost::HostGateway,
        };
        ContainerSpec {
            entrypoint,
            command,
            environment,
            labels,
            init,
            tty,
            stdin_open,
            read_only,
            privileged,
            capabilities: match all {
                true => Capabilities { add: CapabilitySet::All, drop: CapabilitySet::Some(capabilities) },
                false => Capabilities { add: CapabilitySet::Some(capabilities), drop: CapabilitySet::All },
            },
            devices: stopped.then_some(device).into_iter().collect(),
            ulimits: ulimit
                .map(|(soft, more)| {
                    let hard = more.map(|more| u64::from(soft) + u64::from(more));
                    ("nofile".to_owned(), Ulimit { soft: Some(soft.into()), hard })
                })
                .into_iter()
                .collect(),
            // Single capabilities may be such that mean nothing to users of one's own.
            users: match (all && !privileged, init) {
                (false, _) => Users::Host,
                (true, true) => Users::Auto,
                (true, false) => Users::Range(IdRange { start: 5, size: 7 }),
            },
            pid: if privileged { Namespace::Host } else { Namespace::Private },
            seccomp: if tty { Seccomp::Unconfined } else { Seccomp::Default },
            sysctls: BTreeMap::from([("kernel.shmmax".to_owned(), "1".to_owned())]),
            shm_size: size,
            oom_score_adj,
            network,
            ports,
            mounts,
            resources,
            restart,
            healthcheck,
            stop_signal: signal.and_then(Signal::from_number),
            stop_grace_period: grace,
            logging: Logging { max_size: size, max_files: 3 },
            update: Update {
                order: if shares_network { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst },
                failure_action: if tty { FailureAction::Pause } else { FailureAction::Rollback },
                monitor: grace,
            },
            state: if stopped { RunState::Stopped } else { RunState::Running },
            user: tty.then(|| "1000:audio".to_owned()),
            group_add: init.then(|| "29".to_owned()).into_iter().collect(),
            working_dir: init.then(|| "/a $b".to_owned()),
            hostname: tty.then(|| "host.example".to_owned()),
            extra_hosts: BTreeMap::from([("gateway".to_owned(), host)]),
            dns: vec![[1, 1, 1, 1].into()],
            dns_search: vec!["example.org".to_owned()],
            ..ContainerSpec::of(image)
        }
    })
}

fn desired(spec: ContainerSpec) -> Desired {
    let mut desired = Desired::empty("shop".parse().unwrap());
    let pull = if spec.tty { Pull::Never } else { Pull::Missing };
    let pull = if matches!(spec.image, ImageSource::Reference(_)) { pull } else { Pull::Missing };
    desired.images.insert(spec.image.clone(), pull);
    let subnet = Some("10.89.7.0/24".parse().unwrap());
    desired.networks.insert("net".parse().unwrap(), NetworkSpec { subnet, ..NetworkSpec::default() });
    desired.volumes.insert("data".parse().unwrap(), VolumeSpec::default());
    desired
        .containers
        .insert("web".parse().unwrap(), DesiredContainer { replicas: 1, spec, after_end: AfterEnd::Keep });
    desired
}

proptest! {
    #[test]
    fn any_project_reads_back_what_config_prints(spec in spec()) {
        let loaded = Loaded { desired: desired(spec), image_names: BTreeMap::new(), files: Vec::new() };
        let text = manifest::to_toml(&loaded);
        let again = parse(&text, Some(FileKind::File))
            .unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        prop_assert_eq!(again.desired, loaded.desired, "{}", text);
    }
}
