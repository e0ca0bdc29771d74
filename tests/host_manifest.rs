//! Every key of a container, for real: what the manifest says is what the kernel has, seen from inside and outside.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

mod support;

use support::{eventually, on_a_host_of_its_own};

/// One line per fact, `name=value`; the workload prints them itself, so that they are those of the process that the
/// manifest describes.
const FACTS: &str = r#"
echo "user=$(id -u):$(id -g)"
echo "groups=$(id -G)"
echo "directory=$(pwd)"
echo "hostname=$(hostname)"
echo "environment=$A/$B/$PRICE"
echo "nofile=$(ulimit -n)/$(ulimit -Hn)"
echo "core=$(ulimit -c)"
echo "somaxconn=$(cat /proc/sys/net/core/somaxconn)"
echo "msgmax=$(cat /proc/sys/kernel/msgmax)"
echo "oom=$(cat /proc/self/oom_score_adj)"
echo "bounding=$(grep CapBnd /proc/self/status | tail -c 17)"
echo "privileges=$(grep NoNewPrivs /proc/self/status | tail -c 2)"
echo "seccomp=$(grep '^Seccomp:' /proc/self/status | tail -c 2)"
echo "first=$(cat /proc/1/comm)"
echo "shm=$(($(stat -f -c '%b * %S' /dev/shm)))"
echo "tmp=$(($(stat -f -c '%b * %S' /tmp))) $(stat -c %a /tmp)"
echo "data=$(stat -c '%u:%g %a' /data)"
echo "conf=$(cat /conf/file)"
echo x 2>/dev/null > /conf/file && echo "conf_written=yes"
echo x 2>/dev/null > /etc/file && echo "root_written=yes"
echo x > /data/file && echo "data_written=yes"
echo "device=$(stat -c %F /dev/nothing)"
head -c 4 /dev/nothing | od -An -tx1 | tr -d ' ' | sed 's/^/device_read=/'
echo "gateway=$(grep -w gateway /etc/hosts | cut -f1 | cut -d' ' -f1)"
echo "search=$(grep ^search /etc/resolv.conf)"
echo "address=$(ip -o -4 address show eth0 | awk '{ print $4 }')"
echo "address6=$(ip -o -6 address show eth0 scope global | awk '{ print $4 }')"
echo "mtu=$(cat /sys/class/net/eth0/mtu)"
echo "end=1"
exec sleep 1000
"#;

const MANIFEST: &str = r#"
project = "keys"

[images.busybox]
rootfs = "rootfs"

[networks.net]
subnet = "10.213.7.0/24"
subnet6 = "fd00:213:7::/64"
mtu = 1400

[volumes.data]
owner = { uid = 1000, gid = 1000, mode = "0750" }

[containers.all]
image = "busybox"
entrypoint = ["/bin/sh", "-c"]
command = ["${FACTS}"]
environment = { A = "table", PRICE = "$$5" }
env_files = ["all.env"]
user = "1000:1000"
group_add = [29]
working_dir = "/var/www"
hostname = "app.example.org"
labels = { purpose = "test" }
init = true
read_only = true
cap_add = ["NET_ADMIN"]
cap_drop = ["ALL"]
devices = ["/dev/zero:/dev/nothing:r"]
ulimits = { nofile = { soft = 512, hard = 1024 }, core = 0 }
sysctls = { "net.core.somaxconn" = 321, "kernel.msgmax" = 9000 }
shm_size = "16MiB"
oom_score_adj = 700
networks = { net = { aliases = ["www"], address = "10.213.7.77", address6 = "fd00:213:7::77" } }
extra_hosts = { gateway = "10.0.0.1" }
dns_search = ["example.org"]
resources = { memory = "64MiB", memory_swap = "64MiB", cpus = 0.5, cpu_shares = 512, pids = 40 }
restart = "always"
stop_signal = "SIGINT"
stop_grace_period = "2s"
logging = { max_size = "1MiB", max_files = 2 }

[containers.all.mounts]
"/data" = "data"
"/conf" = { bind = "conf", read_only = true }
"/made" = { bind = "made/by/us", create = true }
"/tmp" = { tmpfs = "8MiB", mode = "0770" }

[containers.peer]
image = "busybox"
command = ["/bin/sleep", "1000"]
init = true
networks = ["net"]
tty = true
depends_on = ["all"]

[containers.sidecar]
image = "busybox"
command = ["/bin/sleep", "1000"]
init = true
network_mode = "container:all"

[containers.alone]
image = "busybox"
command = ["/bin/sleep", "1000"]
init = true
network_mode = "none"

[containers.off]
image = "busybox"
state = "stopped"
"#;

fn evenkeel(directory: &Path, arguments: &[&str]) -> String {
    let output = try_evenkeel(directory, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn try_evenkeel(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .arg("-f")
        .arg(directory.join("evenkeel.toml"))
        .args(arguments)
        .env("EVENKEEL_ROOT", directory.join("root"))
        .env("EVENKEEL_RUN", directory.join("run"))
        .env("FACTS", FACTS)
        .output()
        .unwrap()
}

/// A test that fails leaves no container behind either.
struct TakenDown<'a>(&'a Path);

impl Drop for TakenDown<'_> {
    fn drop(&mut self) {
        try_evenkeel(self.0, &["down", "--volumes", "--yes"]);
    }
}

fn facts(directory: &Path) -> BTreeMap<String, String> {
    eventually("the workload said it all", || evenkeel(directory, &["logs", "all"]).contains("end=1"));
    let lines = evenkeel(directory, &["logs", "all"]);
    lines.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.trim().to_owned())).collect()
}

/// The number that a cgroup file of the process holds, in whichever version this host has it.
fn limit(process: u64, controller: &str, file: &str, unified: &str) -> String {
    let cgroups = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap();
    let of = |line: &str, names: &str| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        (controllers.split(',').any(|name| name == names)).then(|| path.trim_start_matches('/').to_owned())
    };
    let path: PathBuf = match cgroups.lines().find_map(|line| of(line, controller)) {
        Some(path) => Path::new("/sys/fs/cgroup").join(controller).join(path).join(file),
        None => {
            let path = cgroups.lines().find_map(|line| of(line, "")).unwrap();
            Path::new("/sys/fs/cgroup").join(path).join(unified)
        }
    };
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

#[test]
fn every_key_of_a_container_is_what_the_kernel_has() {
    on_a_host_of_its_own(|own| {
        let directory = own.directory.path();
        let rootfs = own.rootfs();
        for applet in ["awk", "cut", "head", "ip", "od", "sed", "tr"] {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        fs::create_dir(directory.join("conf")).unwrap();
        fs::write(directory.join("conf/file"), "configured\n").unwrap();
        fs::write(directory.join("all.env"), "A=file\nB=file\n").unwrap();
        fs::write(directory.join("evenkeel.toml"), MANIFEST).unwrap();

        let _taken_down = TakenDown(directory);
        evenkeel(directory, &["apply", "--wait", "--timeout", "60s"]);
        let facts = facts(directory);
        let fact = |name: &str| facts.get(name).map(String::as_str).unwrap_or("-");
        let expected = [
            ("user", "1000:1000"),
            ("groups", "1000 29"),
            ("directory", "/var/www"),
            ("hostname", "app.example.org"),
            ("environment", "table/file/$5"),
            ("nofile", "512/1024"),
            ("core", "0"),
            ("somaxconn", "321"),
            ("msgmax", "9000"),
            ("oom", "700"),
            ("bounding", "0000000000001000"),
            ("privileges", "1"),
            ("seccomp", "2"),
            ("shm", &(16 << 20).to_string()),
            ("tmp", &format!("{} 770", 8 << 20)),
            ("data", "1000:1000 750"),
            ("conf", "configured"),
            ("conf_written", "-"),
            ("root_written", "-"),
            ("data_written", "yes"),
            ("device", "character special file"),
            ("device_read", "00000000"),
            ("gateway", "10.0.0.1"),
            ("search", "search example.org"),
            ("address", "10.213.7.77/24"),
            ("address6", "fd00:213:7::77/64"),
            ("mtu", "1400"),
        ];
        let wrong: Vec<String> = expected
            .iter()
            .filter(|(name, value)| fact(name) != *value)
            .map(|(name, value)| format!("{name}: expected {value:?}, found {:?}", fact(name)))
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}\n{facts:#?}");
        assert_ne!(fact("first"), "sh", "an init is process 1");
        assert!(directory.join("made/by/us").is_dir());

        let document: serde_json::Value =
            serde_json::from_str(&evenkeel(directory, &["--json", "inspect", "all"])).unwrap();
        let process = find_number(&document, "pid").unwrap_or_else(|| panic!("no process in {document:#}"));
        assert_eq!(limit(process, "memory", "memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
        assert_eq!(limit(process, "pids", "pids.max", "pids.max"), "40");
        if Path::new("/sys/fs/cgroup/cpu").exists() {
            assert_eq!(limit(process, "cpu", "cpu.cfs_quota_us", ""), "50000");
            assert_eq!(limit(process, "cpu", "cpu.shares", ""), "512");
        }

        let resolved = evenkeel(directory, &["exec", "peer", "nslookup", "www"]);
        assert!(resolved.contains("10.213.7.77"), "{resolved}");
        let links = |name: &str| evenkeel(directory, &["exec", name, "ls", "/sys/class/net"]);
        assert!(links("sidecar").contains("eth0"));
        assert!(!links("alone").contains("eth0"));
        let own_network = |name: &str| evenkeel(directory, &["exec", name, "readlink", "/proc/self/ns/net"]);
        assert_eq!(own_network("sidecar"), own_network("all"));

        evenkeel(directory, &["plan", "--detailed-exitcode"]);
        evenkeel(directory, &["down", "--volumes", "--yes"]);
    });
}

/// The first number under this key, wherever it is.
fn find_number(value: &serde_json::Value, key: &str) -> Option<u64> {
    match value {
        serde_json::Value::Object(entries) => entries
            .get(key)
            .and_then(serde_json::Value::as_u64)
            .or_else(|| entries.values().find_map(|value| find_number(value, key))),
        serde_json::Value::Array(items) => items.iter().find_map(|value| find_number(value, key)),
        _ => None,
    }
}
