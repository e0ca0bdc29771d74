//! The table of a container and the tables inside it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::container::{FailureAction, Namespace, RunState, UpdateOrder};
use crate::model::extra_host::ExtraHost;
use crate::model::port::HostPort;
use crate::model::units::{ByteSize, Cpus, Signal, Timespan};

use super::advice;
use super::form::{
    CommandLine, Dependencies, Device, Group, Healthcheck, Labels, Limit, NetworkWord, Networks, Probe, RestartWord,
    Scalar, User,
};
use super::mount::Mount;
use super::name::{Alias, CapabilityWord, CpuList, HostName, Sysctl, Target, UlimitName, Variable};
use super::security::{Security, UsersWord};
use crate::manifest::problem::Placed;
use crate::manifest::read::{Entries, Whole, choice, table};

table! {
    /// One container, or several equal ones.
    Container: "a container", requires ["image"], advice advice::CONTAINER, {
        /// The name of an entry of `images`, or a reference such as `docker.io/library/postgres:17`.
        image: String,
        /// What is run: `["/bin/serve"]`. No shell reads it. Default: the image's entrypoint.
        entrypoint: CommandLine,
        /// The arguments of the entrypoint: `["--port", "80"]`. Default: the image's, unless `entrypoint` is set.
        command: CommandLine,
        /// Environment variables beside the image's: `{ TZ = "UTC" }`.
        environment: Entries<Variable, Scalar>,
        /// Files of `NAME=value` lines, relative to this file. `environment` wins over them.
        env_files: Vec<Placed<String>>,
        /// Who it runs as: a name or a number, with a group behind a colon: `"1000:1000"`. Default: the image's user,
        /// or root.
        user: User,
        /// Further groups of the process: `["audio", 29]`.
        group_add: Vec<Placed<Group>>,
        /// The directory that it begins in. Default: the image's, or `/`.
        working_dir: Target,
        /// The name that the container has for itself. Default: its instance's name.
        hostname: HostName,
        /// Labels of the container: `{ "org.example.team" = "web" }`. Nothing in Evenkeel looks at them.
        labels: Labels,
        /// A small init as process 1 that reaps orphans and passes signals on. Default: false.
        init: bool,
        /// A terminal as standard input and output. Default: false.
        tty: bool,
        /// Standard input is kept open. Default: false.
        stdin_open: bool,
        /// The root filesystem cannot be written to. Default: false.
        read_only: bool,
        /// Every capability and device, no seccomp filter, nothing masked. Default: false.
        privileged: bool,
        /// Whose users and groups it has: `host`, `auto` for a range of numbers of its own, or a table. Default: `host`.
        userns: UsersWord,
        /// Whose processes it sees: `private`, its own alone, or `host`. Default: `private`.
        pid: Namespace,
        /// Whose shared memory, semaphores and message queues it has: `private` or `host`. Default: `private`.
        ipc: Namespace,
        /// How far it is locked in: `{ profile = "hardened" }`.
        security: Security,
        /// Capabilities beside the default set, or `ALL`: `["NET_ADMIN"]`.
        cap_add: Vec<Placed<CapabilityWord>>,
        /// Capabilities to take from the default set, or `ALL`: `["CHOWN"]`.
        cap_drop: Vec<Placed<CapabilityWord>>,
        /// Devices of the host: `"/dev/fuse"`, `"/dev/sda:/dev/disk:r"`, or a table.
        devices: Vec<Placed<Device>>,
        /// Limits of the process (setrlimit(2)) by name: `{ nofile = 4096, core = 0 }`. Default: those of Evenkeel itself.
        ulimits: Entries<UlimitName, Ulimit>,
        /// Kernel settings of the container's own namespaces: `{ "net.core.somaxconn" = 1024 }`.
        sysctls: Entries<Sysctl, Scalar>,
        /// The size of /dev/shm. Default: `"64MiB"`.
        shm_size: ByteSize,
        /// How soon the kernel kills it when memory is short, 1000 first. Default: as Evenkeel itself.
        oom_score_adj: Whole<-1000, 1000>,
        /// `none`, `host` or `container:NAME`, in place of `networks`.
        network_mode: NetworkWord,
        /// The networks that it is on: a list of names, or a table by name. Default: `["default"]`.
        networks: Networks,
        /// Published ports: the host's side = the container's. A side without an address is 127.0.0.1; `*:` is
        /// every address of the host.
        ports: Entries<HostPort, Whole<1, 65535>>,
        /// Further names in /etc/hosts: `{ gateway = "10.0.0.1", host = "host-gateway" }`; `host-gateway` is the host, as
        /// this container reaches it.
        extra_hosts: Entries<Alias, ExtraHost>,
        /// Resolvers for names that are not of its networks: `["9.9.9.9"]`. Default: the host's.
        dns: Vec<Placed<IpAddr>>,
        /// Search domains: `["example.org"]`. Default: the host's.
        dns_search: Vec<Placed<Alias>>,
        /// What is mounted, by the path inside the container: the name of a volume, or a table.
        mounts: Entries<Target, Mount>,
        /// Limits of all its processes together: `{ memory = "256MiB", cpus = 1.5, pids = 100 }`.
        resources: Resources,
        /// `no`, `on-failure`, `always`, `unless-stopped`, the name of an entry of `restart`, or a table.
        /// Default: `no`.
        restart: RestartWord,
        /// How its health is found out: a table, or `"none"` to drop the image's check. Default: the image's check.
        healthcheck: Healthcheck,
        /// The signal that asks it to end. Default: the image's, or `SIGTERM`.
        stop_signal: Signal,
        /// How long it has to end before it is killed. Default: `"10s"`.
        stop_grace_period: Timespan,
        /// How its output is kept: `{ max_size = "10MiB", max_files = 5 }`.
        logging: Logging,
        /// Containers that must be `started`, `healthy` or `completed` before it starts.
        depends_on: Dependencies,
        /// How it is replaced: `{ order = "start-first" }`.
        update: Update,
        /// How many of it. Default: 1.
        replicas: Whole<0, 1000>,
        /// Whether it should run. Default: `running`.
        state: RunState,
    }
}

choice!(Namespace, "a namespace to be in", [
    "private" => Namespace::Private,
    "host" => Namespace::Host,
]);

choice!(RunState, "a state", [
    "running" => RunState::Running,
    "stopped" => RunState::Stopped,
]);

table! {
    /// How a container takes part in a network.
    Attachment: "a container's network", requires [], advice advice::ATTACHMENT, {
        /// Further names by which the others on this network find it.
        aliases: Vec<Placed<Alias>>,
        /// A fixed IPv4 address within the network's subnet.
        address: Ipv4Addr,
        /// A fixed IPv6 address within the network's subnet6.
        address6: Ipv6Addr,
    }
}

table! {
    /// Limits by cgroups.
    Resources: "resources", requires [], advice advice::RESOURCES, {
        /// The most memory it may use: `"256MiB"`. Default: no limit.
        memory: ByteSize,
        /// Memory and swap together; equal to `memory` for no swap. Default: the kernel's.
        memory_swap: ByteSize,
        /// Memory that it keeps when the host is short. Default: none.
        memory_reservation: ByteSize,
        /// How many processors it may use, such as 1.5, and at least 0.01. Default: no limit.
        cpus: Cpus,
        /// Its weight beside others when processors are short; 1024 is usual. Default: the kernel's.
        cpu_shares: Whole<2, 262144>,
        /// The processors it may run on: `"0-1,3"`. Default: all.
        cpuset: CpuList,
        /// How many processes and threads it may have. Default: no limit.
        pids: Whole<1, 4194304>,
    }
}

table! {
    /// A soft and a hard limit.
    UlimitPair: "a limit", requires ["soft", "hard"], advice advice::NONE, {
        /// What applies.
        soft: Limit,
        /// How far the process may raise it.
        hard: Limit,
    }
}

/// One number for both limits, or both.
#[derive(Debug)]
pub(in crate::manifest) enum Ulimit {
    Both(Limit),
    Pair(UlimitPair),
}

table! {
    /// A health check: exactly one of `command`, `http` and `tcp`, with its timing.
    #[schemars(extend("oneOf" = [{ "required": ["command"] }, { "required": ["http"] }, { "required": ["tcp"] }]))]
    HealthcheckTable: "a health check", requires [], advice advice::HEALTHCHECK, {
        /// A command inside the container, status 0 is healthy; a string is a line for /bin/sh.
        command: Probe,
        /// A GET request; a status of 200 to 399 is healthy.
        http: HttpProbe,
        /// A connection to this port.
        tcp: Whole<1, 65535>,
        /// How often. Default: `"30s"`.
        interval: Timespan,
        /// How long an answer may take. Default: `"30s"`.
        timeout: Timespan,
        /// How many failures in a row make it unhealthy. Default: 3.
        retries: Whole<1, 1000>,
        /// Failures within this time after the start do not count. Default: `"0s"`.
        start_period: Timespan,
        /// How often until the first success within the start period. Default: `"1s"`.
        start_interval: Timespan,
    }
}

table! {
    /// A GET request to a port of the container.
    HttpProbe: "an HTTP check", requires ["port"], advice advice::NONE, {
        /// The container's port.
        port: Whole<1, 65535>,
        /// The path. Default: `/`.
        path: String,
    }
}

table! {
    /// Log files are rotated by size.
    Logging: "logging", requires [], advice advice::LOGGING, {
        /// A file of this size is rotated. Default: `"10MiB"`.
        max_size: ByteSize,
        /// How many files are kept. Default: 5.
        max_files: Whole<1, 1000>,
    }
}

table! {
    /// How a container is replaced by its successor.
    Update: "an update", requires [], advice advice::UPDATE, {
        /// Which of the two moves first. Default: `stop-first`.
        order: UpdateOrder,
        /// What happens when the new one cannot be started, does not get healthy, or does not stay so. Default:
        /// `rollback`, the new one goes and the old one runs again; one that is changed in place is changed back.
        failure_action: FailureAction,
        /// How long the new one must stay ready, without a restart, before the old one goes. Default: `"0s"`.
        monitor: Timespan,
    }
}

choice!(FailureAction, "what to do after a failure", [
    "rollback" => FailureAction::Rollback,
    "pause" => FailureAction::Pause,
]);

choice!(UpdateOrder, "an update order", [
    "stop-first" => UpdateOrder::StopFirst,
    "start-first" => UpdateOrder::StartFirst,
]);
