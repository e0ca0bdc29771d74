//! Containers that are locked in, as a user declares and runs them: users of their own, the hardened profile, filters
//! of one's own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

mod support;

use support::{eventually, on_a_host_of_its_own};

const MANIFEST: &str = r#"
project = "locked"

[images.busybox]
rootfs = "rootfs"

[volumes.data]

[containers.a]
image = "busybox"
command = ["/bin/sh", "-c", "echo a > /data/a; stat -c '%u:%g' /data/a /etc/hosts /bin/busybox; echo end; exec sleep 1000"]
init = true
userns = "auto"
mounts = { "/data" = "data" }

[containers.b]
image = "busybox"
command = ["/bin/sh", "-c", "echo b > /data/b; (nc -l -p 80 -e true 2>&1) & echo end; exec sleep 1000"]
init = true
security = { profile = "hardened" }
user = "1000:1000"
mounts = { "/data" = "data" }
depends_on = ["a"]

[containers.c]
image = "busybox"
command = ["/bin/sh", "-c", "mkdir /tmp/x 2>&1; cat /data/a /data/b; echo end; exec sleep 1000"]
init = true
security = { seccomp = "filter.json" }
mounts = { "/data" = "data" }
depends_on = ["b"]
"#;

const FILTER: &str = r#"{
    "defaultAction": "SCMP_ACT_ALLOW",
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}]
}"#;

fn try_evenkeel(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .arg("-f")
        .arg(directory.join("evenkeel.toml"))
        .args(arguments)
        .env("EVENKEEL_ROOT", directory.join("root"))
        .env("EVENKEEL_RUN", directory.join("run"))
        .output()
        .unwrap()
}

fn evenkeel(directory: &Path, arguments: &[&str]) -> String {
    let output = try_evenkeel(directory, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A test that fails leaves no container behind either.
struct TakenDown<'a>(&'a Path);

impl Drop for TakenDown<'_> {
    fn drop(&mut self) {
        try_evenkeel(self.0, &["down", "--volumes", "--yes"]);
    }
}

fn output(directory: &Path, container: &str) -> String {
    eventually("it said it all", || evenkeel(directory, &["logs", container]).contains("end"));
    evenkeel(directory, &["logs", container])
}

/// A file of the container's first process in the host's /proc.
fn proc(directory: &Path, container: &str, name: &str) -> String {
    let list: serde_json::Value = serde_json::from_str(&evenkeel(directory, &["ps", container, "--json"])).unwrap();
    let pid = list[0]["pid"].as_u64().unwrap_or_else(|| panic!("{container}: {list}"));
    fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap()
}

#[test]
fn containers_are_as_locked_in_as_declared() {
    on_a_host_of_its_own(|own| {
        let directory = own.directory.path();
        let rootfs = own.rootfs();
        fs::create_dir(rootfs.join("data")).unwrap();
        // CVE-2018-15664, CVE-2019-14271: an empty volume is filled from the image, and its links are not followed.
        std::os::unix::fs::symlink("/etc", rootfs.join("data/escape")).unwrap();
        let everybodys: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
        fs::set_permissions(rootfs.join("data"), everybodys).unwrap();
        fs::write(directory.join("evenkeel.toml"), MANIFEST).unwrap();
        fs::write(directory.join("filter.json"), FILTER).unwrap();

        let _taken_down = TakenDown(directory);
        let plan = evenkeel(directory, &["plan"]);
        assert!(plan.contains("userns") && plan.contains("\"auto\" at 1879048192"), "{plan}");
        evenkeel(directory, &["apply", "--wait", "--timeout", "60s"]);

        // What belongs to root on disk belongs to root inside, without a copy: volume, files of the engine, layers.
        let first = output(directory, "a");
        assert_eq!(first.matches("0:0").count(), 3, "{first}");
        let owner =
            |name: &str| fs::metadata(directory.join("root/volumes/locked.data/data").join(name)).unwrap().uid();
        assert_eq!([owner("a"), owner("b")], [0, 1000]);
        let link = fs::read_link(directory.join("root/volumes/locked.data/data/escape")).unwrap();
        assert_eq!(link, Path::new("/etc"));
        let third = output(directory, "c");
        assert!(third.contains("Disk quota exceeded") && third.contains('a') && third.contains('b'), "{third}");

        // Each in a range of its own, without any power.
        let range = |container: &str| -> (u32, u32) {
            let map = proc(directory, container, "uid_map");
            let numbers: Vec<u32> = map.split_whitespace().map(|word| word.parse().unwrap()).collect();
            assert_eq!(numbers[0], 0, "{map}");
            (numbers[1], numbers[2])
        };
        let (a, b) = (range("a"), range("b"));
        assert!(a.1 == 65536 && b.1 == 65536 && a.0.abs_diff(b.0) >= 65536, "{a:?} {b:?}");
        assert_eq!(range("c"), (0, u32::MAX));
        let status = proc(directory, "b", "status");
        for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(status.contains(line), "{line}: {status}");
        }
        let root = proc(directory, "b", "mountinfo");
        let root = root.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
        assert!(root.split(' ').nth(5).unwrap().split(',').any(|option| option == "ro"), "{root}");
        assert!(!output(directory, "b").contains("ermission"), "{}", output(directory, "b"));
        let inside = evenkeel(directory, &["exec", "a", "--", "id", "-u"]);
        assert_eq!(inside.trim(), "0");

        // Nothing is left to do until the filter is another.
        let again = try_evenkeel(directory, &["plan", "--detailed-exitcode"]);
        assert_eq!(again.status.code(), Some(0), "{}", String::from_utf8_lossy(&again.stdout));
        let edited = FILTER.replace("122", "13");
        fs::write(directory.join("filter.json"), edited).unwrap();
        let changed = evenkeel(directory, &["plan"]);
        assert!(changed.contains("security.seccomp"), "{changed}");
    });
}
