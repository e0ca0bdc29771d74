//! Words of Docker, Compose and others that people write here, and what to write instead.

/// (The word that was written, what to write.)
pub(super) type Advice = [(&'static str, &'static str)];

/// For tables that nobody else has.
pub(super) const NONE: &Advice = &[];

pub(super) const MANIFEST: &Advice = &[
    ("services", "services are called `containers` here"),
    ("service", "services are called `containers` here"),
    ("container", "write `[containers.NAME]`"),
    ("image", "write `[images.NAME]`"),
    ("network", "write `[networks.NAME]`"),
    ("volume", "write `[volumes.NAME]`"),
    ("name", "write `project = \"NAME\"`"),
    ("version", "leave it out: manifests have no version"),
    ("restart_policy", "write `[restart.NAME]`"),
    ("secrets", "there are no secrets yet: mount a file with `mounts = { \"/run/secrets/NAME\" = { bind = \"..\" } }`"),
    ("configs", "there are no configs: mount a file with `mounts = { \"/etc/NAME\" = { bind = \"..\" } }`"),
    ("include", "pass several files with `-f`, or put them into one directory"),
];

pub(super) const IMAGE: &Advice = &[
    ("build", "this version does not build images: build it elsewhere, and give a `reference` or an `archive`"),
    ("image", "write `reference`"),
    ("tag", "write it as part of `reference`: \"NAME:TAG\""),
    ("tar", "write `archive`"),
    ("path", "write `archive` or `rootfs`"),
    ("pull_policy", "write `pull`"),
    ("platform", "images are chosen for this host's own platform"),
];

pub(super) const NETWORK: &Advice = &[
    ("driver", "leave it out: every network is a bridge"),
    ("driver_opts", "only `mtu` can be set"),
    ("ipam", "write `subnet = \"10.89.7.0/24\"`"),
    ("gateway", "the gateway is the first address of the subnet"),
    ("external", "leave it out: a network belongs to its project"),
    ("enable_ipv6", "write `subnet6 = \"fd00:89:7::/64\"`"),
    ("ipv6", "write `subnet6 = \"fd00:89:7::/64\"`"),
    ("attachable", "leave it out"),
    ("name", "the name is the table's: `[networks.NAME]`"),
];

pub(super) const VOLUME: &Advice = &[
    ("driver", "leave it out: a volume is a directory of the state root"),
    ("driver_opts", "leave it out: a volume is a directory; for other filesystems mount a path with `bind`"),
    ("external", "leave it out: a volume belongs to its project"),
    ("name", "the name is the table's: `[volumes.NAME]`"),
    ("uid", "write `owner = { uid = .., gid = .. }`"),
    ("gid", "write `owner = { uid = .., gid = .. }`"),
    ("mode", "write `owner = { uid = .., gid = .., mode = \"0755\" }`"),
];

pub(super) const RESTART: &Advice = &[
    ("condition", "write `policy`"),
    ("name", "write `policy`"),
    ("delay", "write `backoff = { initial = \"..\" }`"),
    ("max_attempts", "write `max_retries`"),
    ("window", "write `backoff = { reset_after = \"..\" }`"),
];

pub(super) const CONTAINER: &Advice = &[
    ("args", "write `command`"),
    ("cmd", "write `command`"),
    ("env", "write `environment`"),
    ("env_file", "write `env_files = [\"..\"]`"),
    ("volumes", "write `mounts = { \"/path/inside\" = \"VOLUME\" }`"),
    ("volume", "write `mounts = { \"/path/inside\" = \"VOLUME\" }`"),
    ("mount", "write `mounts = { \"/path/inside\" = \"VOLUME\" }`"),
    ("binds", "write `mounts = { \"/path/inside\" = { bind = \"/path/outside\" } }`"),
    ("tmpfs", "write `mounts = { \"/tmp\" = { tmpfs = \"64MiB\" } }`"),
    ("port", "write `ports = { 8080 = 80 }`: the host's side = the container's"),
    ("publish", "write `ports = { 8080 = 80 }`: the host's side = the container's"),
    ("expose", "leave it out: containers of one network reach every port of each other"),
    ("links", "leave it out: containers of one network find each other by name"),
    ("network", "write `networks = [\"NAME\"]` or `network_mode`"),
    ("restart_policy", "write `restart`"),
    ("max_retries", "write `restart = { policy = \"on-failure\", max_retries = 5 }`"),
    ("container_name", "leave it out: a container is called as its table, `[containers.NAME]`"),
    ("name", "leave it out: a container is called as its table, `[containers.NAME]`"),
    ("build", "this version does not build images: build it elsewhere, and name it in `image`"),
    ("pull", "write it in `[images.NAME]`"),
    ("pull_policy", "write `pull` in `[images.NAME]`"),
    ("platform", "images are chosen for this host's own platform"),
    ("health", "write `healthcheck`"),
    ("deploy", "write `replicas`, `resources`, `restart` and `update`"),
    ("scale", "write `replicas`"),
    ("mem_limit", "write `resources = { memory = \"..\" }`"),
    ("memory", "write `resources = { memory = \"..\" }`"),
    ("memory_swap", "write `resources = { memory_swap = \"..\" }`"),
    ("memswap_limit", "write `resources = { memory_swap = \"..\" }`"),
    ("mem_reservation", "write `resources = { memory_reservation = \"..\" }`"),
    ("cpus", "write `resources = { cpus = .. }`"),
    ("cpu_shares", "write `resources = { cpu_shares = .. }`"),
    ("cpuset", "write `resources = { cpuset = \"..\" }`"),
    ("pids_limit", "write `resources = { pids = .. }`"),
    ("capabilities", "write `cap_add` and `cap_drop`"),
    ("security_opt", "the defaults are strict; `privileged` and `cap_add` loosen them"),
    ("userns_mode", "user namespaces cannot be set"),
    ("pid", "a container always has process numbers of its own"),
    ("ipc", "a container always has an IPC namespace of its own"),
    ("uts", "a container always has a host name of its own"),
    ("cgroup_parent", "leave it out: Evenkeel keeps the cgroups"),
    ("runtime", "leave it out: the runtime is Evenkeel's own"),
    ("stop_timeout", "write `stop_grace_period`"),
    ("workdir", "write `working_dir`"),
    ("domainname", "write it into `hostname`"),
    ("mac_address", "leave it out: it follows from the address"),
    ("ip", "write `networks = { NAME = { address = \"..\" } }`"),
    ("ipv4_address", "write `networks = { NAME = { address = \"..\" } }`"),
    ("aliases", "write `networks = { NAME = { aliases = [\"..\"] } }`"),
    ("log_driver", "output is always kept as files; `logging` sets their size"),
    ("shm", "write `shm_size`"),
    ("interactive", "write `stdin_open`"),
    ("stdin", "write `stdin_open`"),
    ("dns_opt", "write `dns` and `dns_search`; options cannot be set"),
    ("annotations", "write `labels`"),
    ("update_config", "write `update = { order = \"start-first\" }`"),
    ("update_order", "write `update = { order = \"start-first\" }`"),
    ("profiles", "there are no profiles: pass another file with `-f`"),
    ("extends", "there is no `extends`: pass another file with `-f`"),
    ("secrets", "there are no secrets yet: mount a file with `mounts`"),
    ("configs", "there are no configs: mount a file with `mounts`"),
];

pub(super) const ATTACHMENT: &Advice = &[
    ("ipv4_address", "write `address`"),
    ("ip", "write `address`"),
    ("ipv6_address", "write `address6`"),
    ("mac_address", "leave it out: it follows from the address"),
];

pub(super) const RESOURCES: &Advice = &[
    ("limits", "write the limits directly: `resources = { memory = \"..\", cpus = .. }`"),
    ("reservations", "write `memory_reservation`"),
    ("mem_limit", "write `memory`"),
    ("mem", "write `memory`"),
    ("cpu", "write `cpus`"),
    ("pids_limit", "write `pids`"),
    ("swap", "write `memory_swap`: memory and swap together"),
    ("shm_size", "write `shm_size` in the container"),
];

pub(super) const HEALTHCHECK: &Advice = &[
    ("test", "write `command`"),
    ("cmd", "write `command`"),
    ("disable", "write `healthcheck = \"none\"`"),
    ("url", "write `http = { port = 80, path = \"/\" }`"),
    ("path", "write `http = { port = 80, path = \"/\" }`"),
    ("port", "write `tcp = PORT` or `http = { port = PORT }`"),
];

pub(super) const LOGGING: &Advice = &[
    ("driver", "leave it out: output is always kept as files"),
    ("options", "write `max_size` and `max_files` directly"),
    ("max_file", "write `max_files`"),
    ("max-size", "write `max_size`"),
    ("max-file", "write `max_files`"),
];

pub(super) const UPDATE: &Advice = &[
    ("parallelism", "leave it out: replicas are replaced one after another"),
    ("delay", "leave it out: the next one waits until this one is healthy"),
    ("failure_action", "leave it out"),
];

pub(super) const MOUNT: &Advice = &[
    ("type", "write the kind as the key: `bind = \"..\"`, `volume = \"..\"` or `tmpfs = \"64MiB\"`"),
    ("source", "write `bind = \"..\"` or `volume = \"..\"`"),
    ("src", "write `bind = \"..\"` or `volume = \"..\"`"),
    ("target", "the target is the key: `mounts = { \"/path/inside\" = .. }`"),
    ("ro", "write `read_only = true`"),
    ("readonly", "write `read_only = true`"),
    ("size", "write it as the value of `tmpfs`"),
    ("create_host_path", "write `create = true`"),
];
