//! What host tests share: a host of their own and a root filesystem.
//!
//! A host is a network namespace (so that bridges, routes and firewall rules are the test's own), a state root and a
//! run directory in a temporary directory. When it is dropped, nothing of it may be left; that is checked.

#![allow(dead_code, reason = "each test binary uses its part of it")]

pub mod oci;
pub mod shell;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use evenkeel::engine::host::{Host, Settings};
use evenkeel::engine::image;
use evenkeel::model::paths::Paths;
use tempfile::TempDir;

/// The applets that tests use.
const APPLETS: [&str; 32] = [
    "cat", "chmod", "chown", "cp", "dd", "echo", "env", "false", "grep", "hostname", "httpd", "id", "kill", "ls", "ln",
    "mkdir", "mv", "nc", "nslookup", "ps", "readlink", "rm", "sh", "sleep", "stat", "stty", "tail", "test", "touch",
    "true", "tty", "wget",
];

/// Makes a small root filesystem from the package busybox-static.
pub fn busybox_rootfs(at: &Path) -> PathBuf {
    for directory in ["bin", "etc", "tmp", "var/www", "root"] {
        fs::create_dir_all(at.join(directory)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.expect("the package busybox-static is installed"), at.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", at.join("bin").join(applet)).unwrap();
    }
    fs::write(at.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/:/bin/sh\n").unwrap();
    fs::write(at.join("etc/group"), "root:x:0:\nweb:x:1000:\n").unwrap();
    fs::write(at.join("var/www/index.html"), "hello from a container\n").unwrap();
    at.to_owned()
}

/// A host of the test's own.
pub struct OwnHost {
    pub directory: tempfile::TempDir,
    pub host: Host,
}

impl OwnHost {
    pub fn rootfs(&self) -> PathBuf {
        let at = self.directory.path().join("rootfs");
        if at.exists() { at } else { busybox_rootfs(&at) }
    }
}

/// Runs a test with a host of its own.
pub fn on_a_host_of_its_own(test: impl FnOnce(&OwnHost) + Send) {
    in_a_network_of_its_own(|| {
        let directory = room_for_a_root("evenkeel-test");
        let paths = Paths { root: directory.path().join("root"), run: directory.path().join("run") };
        let settings = Settings {
            paths,
            monitor: env!("CARGO_BIN_EXE_evenkeel-monitor").into(),
            images: image::Options::new(env!("CARGO_BIN_EXE_evenkeel").into()),
        };
        let own = OwnHost { directory, host: Host::open(settings).unwrap() };
        test(&own);
        let lock = own.host.lock(Duration::from_secs(10)).unwrap();
        own.host.tidy(&lock).unwrap();
    });
}

/// A new directory, whose `root` has a tag that no other state root of this host has: of 65536 tags, two of hundreds of tests
/// now and then draw the same, and the second would be refused.
pub fn room_for_a_root(prefix: &str) -> TempDir {
    loop {
        let directory = tempfile::Builder::new().prefix(prefix).tempdir().unwrap();
        let tag = evenkeel::engine::host::tag(&directory.path().canonicalize().unwrap().join("root"));
        if fs::symlink_metadata(Path::new("/run/evenkeel-tags").join(tag.as_str())).is_err() {
            return directory;
        }
    }
}

/// Runs a test on a thread in a network namespace of its own, so that tests may run side by side. What it executes
/// is in that namespace too.
pub fn in_a_network_of_its_own(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let result = scope
            .spawn(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root may make namespaces");
                run(&["ip", "link", "set", "lo", "up"]);
                test();
            })
            .join();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs a command in the calling thread's namespaces and gives its output.
pub fn run(command: &[&str]) -> String {
    let output = std::process::Command::new(command[0]).args(&command[1..]).output().expect("the command exists");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The directory of a process's cgroup: that of `controller` with version 1, its only one with version 2.
pub fn cgroup_of(pid: u32, controller: &str) -> PathBuf {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of = |controller: &str| {
        let fields = groups.lines().map(|line| line.splitn(3, ':'));
        let paths = fields
            .filter(|fields| fields.clone().nth(1).is_some_and(|all| all.split(',').any(|one| one == controller)));
        paths.filter_map(|mut fields| fields.nth(2)).next()
    };
    match (of(controller), of("")) {
        (Some(path), _) => Path::new("/sys/fs/cgroup").join(controller).join(path.trim_start_matches('/')),
        (None, Some(path)) => Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/')),
        (None, None) => panic!("process {pid} is in no cgroup:\n{groups}"),
    }
}

/// Waits until `holds`, with a deadline.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}
