//! The options of `run` and `create`, named as Docker's users know them. What they mean is said by the manifest's keys
//! that they become: see [`super::declaration`].

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use clap::Args;

// What a container is to be.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct ContainerArguments {
    /// Print help
    #[arg(long, action = clap::ArgAction::HelpLong)]
    pub help: Option<bool>,

    /// Its name [default: the image's, and four digits]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Remove it when it has ended, and the volumes that were made for it alone
    #[arg(long)]
    pub rm: bool,

    /// Keep standard input open
    #[arg(short, long)]
    pub interactive: bool,

    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,

    /// Write the id to this file, which must not be there
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,

    // Before what is flattened in: a heading there is that of all that follows.
    /// When its registry is asked for the image: missing, always or never
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pub pull: String,

    /// Of the image; only this host's own can be run
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,

    /// A reference such as busybox:1.36, `rootfs:PATH` (a directory or tar file) or `archive:PATH` (of `docker save`, or
    /// OCI); a PATH begins with `/` or `.`. What follows is the command and its arguments, in place of the image's, and
    /// never an option of ours
    // One argument with the command: a second would begin only with a word that is no option.
    #[arg(value_name = "IMAGE", required = true, trailing_var_arg = true)]
    pub image_and_command: Vec<String>,

    #[command(flatten)]
    pub process: ProcessArguments,

    #[command(flatten)]
    pub storage: StorageArguments,

    #[command(flatten)]
    pub network: NetworkArguments,

    #[command(flatten)]
    pub limits: LimitArguments,

    #[command(flatten)]
    pub security: SecurityArguments,

    #[command(flatten)]
    pub life: LifeArguments,
}

impl ContainerArguments {
    pub fn image(&self) -> &str {
        self.image_and_command.first().map_or("", String::as_str)
    }

    /// Nothing is the image's own.
    pub fn command(&self) -> &[String] {
        self.image_and_command.get(1..).unwrap_or_default()
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Process")]
pub struct ProcessArguments {
    /// Set a variable; without a value it is passed on from here
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub environment: Vec<String>,

    /// A file of NAME=VALUE lines; `-e` wins over it
    #[arg(long = "env-file", value_name = "FILE")]
    pub env_files: Vec<String>,

    /// USER or USER:GROUP, names or numbers as the image knows them
    #[arg(short, long)]
    pub user: Option<String>,

    /// A further group of the process
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,

    /// The directory that it begins in
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,

    /// The program, in place of the image's entrypoint; empty is none
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,

    /// A small init as process 1 that reaps orphans and passes signals on
    #[arg(long)]
    pub init: bool,

    /// A label
    #[arg(short, long = "label", value_name = "KEY[=VALUE]")]
    pub labels: Vec<String>,

    /// A file of labels, one a line; `-l` wins over it
    #[arg(long = "label-file", value_name = "FILE")]
    pub label_files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Storage")]
pub struct StorageArguments {
    /// Mount a path of the host (made if missing), a volume, a volume of a project (PROJECT/NAME), or without SOURCE a
    /// volume of its own; OPTIONS: ro, rw, nocopy, and a propagation such as rslave
    #[arg(short, long = "volume", value_name = "[SOURCE:]TARGET[:OPTIONS]")]
    pub volumes: Vec<String>,

    /// type=bind|volume|tmpfs, source=, target=, readonly, bind-propagation=, volume-nocopy, tmpfs-size=, tmpfs-mode=
    #[arg(long = "mount", value_name = "KEY=VALUE,..")]
    pub mounts: Vec<String>,

    /// A filesystem in memory; OPTIONS of mount(8) and tmpfs(5): size=, mode=, uid=, gid=, exec, ro ..; noexec, nosuid and
    /// nodev unless said otherwise
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    pub tmpfs: Vec<String>,

    /// Mount what this container mounts, where nothing else is mounted
    #[arg(long, value_name = "CONTAINER[:ro]")]
    pub volumes_from: Vec<String>,

    /// The root filesystem cannot be written to
    #[arg(long)]
    pub read_only: bool,

    /// The size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    pub shm_size: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkArguments {
    /// Publish a port. Without ADDRESS it is the host's 127.0.0.1 (`*` is every address), without HOST, or with 0, a free
    /// one; ranges such as 8000-8002:80-82 too, and 8000-8009:80 for a free one of them
    #[arg(short, long = "publish", value_name = "[[ADDRESS:]HOST:]PORT[/udp]")]
    pub publish: Vec<String>,

    /// Publish every port that the image exposes, each at a free port of 127.0.0.1: `evenkeel port` tells which
    #[arg(short = 'P', long)]
    pub publish_all: bool,

    /// A further port for `-P`; on its networks every port is reachable anyway
    #[arg(long, value_name = "PORT[-PORT][/udp]")]
    pub expose: Vec<String>,

    /// default, none, host, container:NAME, a network of `evenkeel network create`, or one of a project: PROJECT/NETWORK
    #[arg(long = "network", visible_alias = "net", value_name = "NETWORK")]
    pub networks: Vec<String>,

    /// Its address on its network, which needs a declared subnet: `evenkeel network create --subnet`
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<Ipv4Addr>,

    /// Its IPv6 address there
    #[arg(long, value_name = "ADDRESS")]
    pub ip6: Option<Ipv6Addr>,

    /// A further name by which the others on its networks find it
    #[arg(long, value_name = "NAME")]
    pub network_alias: Vec<String>,

    /// The name that it has for itself
    #[arg(short = 'h', long, value_name = "NAME")]
    pub hostname: Option<String>,

    /// A further name in /etc/hosts; `host-gateway` as ADDRESS is the host
    #[arg(long = "add-host", value_name = "NAME:ADDRESS")]
    pub hosts: Vec<String>,

    /// A resolver in place of the host's
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<String>,

    /// A search domain
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub struct ResourceArguments {
    /// The most memory: 512m, 1GiB
    #[arg(short, long, value_name = "SIZE")]
    pub memory: Option<String>,

    /// Memory and swap together; -1 is no limit of swap, as without it
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub memory_swap: Option<String>,

    /// Memory that it keeps when the host is short
    #[arg(long, value_name = "SIZE")]
    pub memory_reservation: Option<String>,

    /// How many processors, such as 1.5
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<String>,

    /// Microseconds of processor time in each period: with it, another way to write `--cpus`; -1 is no limit
    #[arg(long, value_name = "MICROSECONDS", conflicts_with = "cpus", allow_negative_numbers = true)]
    pub cpu_quota: Option<i64>,

    /// The period of the quota [default: 100000]; the kernel is told the same share of a tenth of a second
    #[arg(long, value_name = "MICROSECONDS", requires = "cpu_quota")]
    pub cpu_period: Option<i64>,

    /// Its weight beside others; 1024 is usual
    #[arg(short = 'c', long, value_name = "NUMBER")]
    pub cpu_shares: Option<i64>,

    /// The processors it may run on: 0-1,3
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,

    /// How many processes; -1 is no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArguments {
    #[command(flatten)]
    pub resources: ResourceArguments,

    /// A limit of the process (setrlimit(2)), such as nofile=1024:4096
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    pub ulimits: Vec<String>,

    /// How soon the kernel kills it when memory is short: -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub oom_score_adj: Option<i64>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Security")]
pub struct SecurityArguments {
    /// A capability beside the default set, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,

    /// A capability to take from the default set, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,

    /// seccomp=unconfined, seccomp=FILE (a profile in Docker's form), profile=hardened (read-only root, no
    /// capabilities, a user namespace); and what is so already: no-new-privileges, label=disable, apparmor=unconfined,
    /// seccomp=builtin
    #[arg(long = "security-opt", value_name = "OPTION")]
    pub security_options: Vec<String>,

    /// A device of the host, with some of rwm: read, write, make nodes
    #[arg(long = "device", value_name = "SOURCE[:TARGET][:rwm]")]
    pub devices: Vec<String>,

    /// Every capability and device, no seccomp filter, nothing masked
    #[arg(long)]
    pub privileged: bool,

    /// A setting of the container's own namespaces of the kernel
    #[arg(long = "sysctl", value_name = "NAME=VALUE")]
    pub sysctls: Vec<String>,

    /// Whose users it has: host, or auto for a range of its own
    #[arg(long, value_name = "MODE")]
    pub userns: Option<String>,

    /// Whose processes it sees: private, its own alone, or host
    #[arg(long, value_name = "MODE")]
    pub pid: Option<String>,

    /// Whose shared memory and message queues it has: private or host
    #[arg(long, value_name = "MODE")]
    pub ipc: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Life")]
pub struct LifeArguments {
    /// no, `on-failure[:TIMES]`, always or unless-stopped; until the host is booted again: what must come back then is to
    /// be declared
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<String>,

    /// Where its output goes: json-file, which is so already
    #[arg(long, value_name = "DRIVER")]
    pub log_driver: Option<String>,

    /// How its output is kept: max-size=SIZE, a file of which is rotated, and max-file=NUMBER of them
    #[arg(long, value_name = "KEY=VALUE")]
    pub log_opt: Vec<String>,

    /// The signal that asks it to end
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,

    /// Seconds that it has to end before it is killed [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub stop_timeout: Option<u64>,

    /// How its health is found out: a line for the container's /bin/sh [default: the image's check]
    #[arg(long, value_name = "LINE", conflicts_with = "no_healthcheck")]
    pub health_cmd: Option<String>,

    /// How often [default: the image's, or 30s]
    #[arg(long, value_name = "TIME", conflicts_with = "no_healthcheck")]
    pub health_interval: Option<String>,

    /// How many failures in a row make it unhealthy [default: the image's, or 3]
    #[arg(long, value_name = "NUMBER", conflicts_with = "no_healthcheck")]
    pub health_retries: Option<i64>,

    /// How long an answer may take [default: the image's, or 30s]
    #[arg(long, value_name = "TIME", conflicts_with = "no_healthcheck")]
    pub health_timeout: Option<String>,

    /// Failures within this time after the start do not count
    #[arg(long, value_name = "TIME", conflicts_with = "no_healthcheck")]
    pub health_start_period: Option<String>,

    /// How often until the first success within the start period [default: 1s]
    #[arg(long, value_name = "TIME", conflicts_with = "no_healthcheck")]
    pub health_start_interval: Option<String>,

    /// Without the image's health check
    #[arg(long)]
    pub no_healthcheck: bool,
}
