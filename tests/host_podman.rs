//! `evenkeel-runtime` under Podman, Debian's package: its own command line, conmon, pid files, console sockets, exec with
//! process files, exit codes that it derives from the runtime's words. Needs root.
//!
//! Podman has its storage and its directories below this test's own; containers have no network or the host's.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

struct Podman {
    directory: tempfile::TempDir,
}

impl Podman {
    /// With the image `box`: busybox.
    fn new() -> Podman {
        let directory = tempfile::Builder::new().prefix("evenkeel-podman").tempdir().unwrap();
        let path = directory.path().display();
        // Limits of a host may be lower than what Podman asks for by itself, and it lowers its own.
        let hard = |resource| rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX).min(20_000);
        let (files, processes) = (hard(rustix::process::Resource::Nofile), hard(rustix::process::Resource::Nproc));
        let settings = format!(
            "[containers]\ndefault_ulimits = [\"nofile={files}:{files}\", \"nproc={processes}:{processes}\"]\n\
             netns = \"none\"\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n"
        );
        fs::write(directory.path().join("containers.conf"), settings).unwrap();
        let storage = format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{path}/graph\"\nrunroot = \"{path}/run\"\n");
        fs::write(directory.path().join("storage.conf"), storage).unwrap();
        support::busybox_rootfs(&directory.path().join("rootfs"));
        let archive = directory.path().join("box.tar");
        support::run(&["tar", "-C", &format!("{path}/rootfs"), "-cf", archive.to_str().unwrap(), "."]);
        let podman = Podman { directory };
        podman.ok(&["import", "--change", "ENV PATH=/bin", archive.to_str().unwrap(), "box"]);
        podman
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let at = |name: &str| self.directory.path().join(name);
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", at("containers.conf")).env("CONTAINERS_STORAGE_CONF", at("storage.conf"));
        command.arg("--runtime").arg(env!("CARGO_BIN_EXE_evenkeel-runtime")).arg("--tmpdir").arg(at("tmp"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Standard output, standard error and exit code.
    fn call(&self, arguments: &[&str]) -> (String, String, i32) {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr), output.status.code().unwrap())
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let (out, err, code) = self.call(arguments);
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
        out
    }

    fn inspect(&self, name: &str, format: &str) -> String {
        self.ok(&["inspect", "--format", format, name]).trim().to_owned()
    }

    fn until(&self, what: &str, mut condition: impl FnMut(&Podman) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !condition(self) {
            assert!(Instant::now() < deadline, "{what} did not come true");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let (out, err, code) = self.call(&["rm", "--all", "--force", "--time", "0"]);
        if !std::thread::panicking() {
            assert_eq!(code, 0, "{out}{err}");
        }
        // vfs mounts its own directory onto itself; without it there is nothing to take away.
        let _ = Command::new("umount").arg(self.directory.path().join("graph/vfs")).stderr(Stdio::null()).status();
    }
}

#[test]
fn exit_codes_are_the_commands_or_say_why_there_was_none() {
    let podman = Podman::new();
    assert_eq!(podman.ok(&["run", "--rm", "box", "echo", "hello"]), "hello\n");
    assert_eq!(podman.call(&["run", "--rm", "box", "sh", "-c", "exit 9"]).2, 9);
    let (_, err, code) = podman.call(&["run", "--rm", "box", "nope"]);
    assert_eq!(code, 127, "{err}");
    let (_, err, code) = podman.call(&["run", "--rm", "box", "/etc/passwd"]);
    assert_eq!(code, 126, "{err}");
    let mut piped = podman.command(&["run", "--rm", "-i", "box", "cat"]);
    let input = podman.directory.path().join("input");
    fs::write(&input, "through").unwrap();
    let output = piped.stdin(fs::File::open(input).unwrap()).output().unwrap();
    assert_eq!(output.stdout, b"through");
}

#[test]
fn a_container_lives_under_podman_from_run_to_rm() {
    let podman = Podman::new();
    let script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    podman.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "--health-cmd",
        "true",
        "--health-interval",
        "disable",
        "box",
        "sh",
        "-c",
        script,
    ]);
    podman.until("the trap", |podman| podman.ok(&["logs", "web"]) == "ready\n");
    assert_eq!(podman.ok(&["exec", "web", "echo", "inside"]), "inside\n");
    assert_eq!(podman.call(&["exec", "web", "sh", "-c", "exit 5"]).2, 5);
    assert_eq!(podman.call(&["exec", "web", "nope"]).2, 127);
    assert_eq!(
        podman.ok(&["exec", "-u", "1000", "-w", "/tmp", "-e", "A=b", "web", "sh", "-c", "id -u; pwd; echo $A"]),
        "1000\n/tmp\nb\n"
    );
    assert!(podman.ok(&["top", "web"]).contains("while :"));
    podman.ok(&["healthcheck", "run", "web"]);
    assert_eq!(podman.inspect("web", "{{.State.Health.Status}}"), "healthy");
    let pid = podman.inspect("web", "{{.State.Pid}}");
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    podman.ok(&["pause", "web"]);
    assert_eq!(podman.inspect("web", "{{.State.Status}}"), "paused");
    podman.ok(&["unpause", "web"]);
    assert_eq!(podman.inspect("web", "{{.State.Status}}"), "running");
    podman.ok(&["stop", "--time", "20", "web"]);
    assert_eq!(podman.inspect("web", "{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
    podman.ok(&["start", "web"]);
    podman.ok(&["kill", "--signal", "KILL", "web"]);
    assert_eq!(podman.ok(&["wait", "web"]), "137\n");
    podman.ok(&["rm", "web"]);
    assert!(!Path::new(&format!("/proc/{pid}/ns/mnt")).exists());
}

#[test]
fn what_podman_asks_for_is_what_the_container_gets() {
    let podman = Podman::new();
    let run = |options: &[&str], script: &str| {
        let arguments = [&["run", "--rm"], options, &["box", "sh", "-c", script]].concat();
        podman.ok(&arguments)
    };
    let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true";
    assert_eq!(run(&["--memory", "32m", "--pids-limit", "20", "--cpus", "0.5"], limit), "33554432\n");
    assert_eq!(run(&["--read-only"], "echo x > /etc/y || echo kept; echo z > /tmp/z; cat /tmp/z"), "kept\nz\n");
    // A tmpfs shows what the image has there, as Podman mounts it.
    assert_eq!(
        run(&["--tmpfs", "/var/www"], "cat /var/www/index.html; echo > /var/www/new"),
        "hello from a container\n"
    );
    assert_eq!(run(&["--user", "1000:1000"], "id -u; id -g; echo out > /dev/stdout"), "1000\n1000\nout\n");
    let map = run(&["--uidmap", "0:100000:2000", "--gidmap", "0:100000:2000"], "cat /proc/self/uid_map; id -u");
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "2000", "0"]);
    for options in
        [&["--privileged"][..], &["--pid", "host"], &["--network", "host"], &["--ipc", "host"], &["--cap-add", "ALL"]]
    {
        assert_eq!(run(options, "echo ran"), "ran\n", "{options:?}");
    }
    assert_eq!(run(&["--sysctl", "kernel.msgmax=8100"], "cat /proc/sys/kernel/msgmax"), "8100\n");
    assert_eq!(run(&["--cap-drop", "ALL"], "grep CapEff /proc/self/status"), "CapEff:\t0000000000000000\n");
    assert_eq!(run(&["-t"], "tty"), "/dev/pts/0\r\n");
    let outside = podman.directory.path().join("rootfs/var/www");
    let bound = format!("{}:/v:ro", outside.display());
    assert_eq!(run(&["-v", &bound], "cat /v/index.html; touch /v/x || echo kept"), "hello from a container\nkept\n");
}

#[test]
fn a_container_joins_the_processes_of_another() {
    let podman = Podman::new();
    podman.ok(&["run", "-d", "--name", "first", "box", "sleep", "1001"]);
    podman.ok(&["run", "-d", "--name", "second", "--pid", "container:first", "box", "sleep", "1002"]);
    let namespace = |name: &str| {
        let pid = podman.inspect(name, "{{.State.Pid}}");
        assert!(fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().starts_with("sleep"), "{name}: {pid}");
        fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap()
    };
    assert_eq!(namespace("first"), namespace("second"));
    let seen = podman.ok(&["exec", "second", "cat", "/proc/1/cmdline"]);
    assert_eq!(seen, "sleep\x001001\0");
    podman.ok(&["stop", "--time", "0", "second"]);
    assert_eq!(podman.inspect("second", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    assert_eq!(podman.inspect("first", "{{.State.Status}}"), "running");
    // Podman's `rm --all` does not know in which order.
    podman.ok(&["rm", "second"]);
}
