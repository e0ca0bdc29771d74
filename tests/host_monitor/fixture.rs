//! A container of busybox with a monitor, and what tests need to look at it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use evenkeel::model::container::Logging;
use evenkeel::model::launch::{LAUNCH_VERSION, Launch, RootFilesystem, Terminal};
use evenkeel::model::restart::{Backoff, RestartCondition, RestartPolicy};
use evenkeel::model::status::{Phase, Status};
use evenkeel::model::units::{Signal, Timespan};
use evenkeel::monitor::client::START_PATIENCE;
use evenkeel::monitor::logs::{Reader, Selection};
use evenkeel::monitor::{Client, MonitorError, Started, client, liveness, spawn};
use evenkeel::runtime::cgroup;
use serde_json::{Value, json};
use tempfile::TempDir;

const BUSYBOX: &str = "/bin/busybox";

/// Everything a host test waits for comes within this time, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// One container. Dropping it ends whatever is left of it.
pub struct Container {
    pub directory: TempDir,
    pub launch: Launch,
    pub config: Value,
}

impl Container {
    /// A container that runs a shell line, restarts never, and stops quickly.
    pub fn of(line: &str) -> Container {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = tempfile::Builder::new().prefix("evenkeel-monitor-").tempdir().unwrap();
        let root = directory.path().join("root");
        make_root(&root);
        std::fs::create_dir(directory.path().join("run")).unwrap();
        let id = format!("{:08x}{number:04x}", std::process::id()).parse().unwrap();
        let launch = Launch {
            version: LAUNCH_VERSION,
            id,
            name: format!("test/c{number}"),
            config: directory.path().join("run/config.json"),
            root: RootFilesystem::Directory(root),
            directories: Vec::new(),
            identity: None,
            init: false,
            netns: None,
            terminal: Terminal::None,
            logs: directory.path().join("logs"),
            resolver: None,
            restart: RestartPolicy::of(RestartCondition::No),
            healthcheck: None,
            stop_signal: Signal::TERM,
            stop_grace_period: Timespan::from_secs(5),
            logging: Logging::default(),
            telling: None,
            after_end: Vec::new(),
        };
        let config = config(line, &format!("/evenkeel-monitor-test-{}", launch.id));
        Container { directory, launch, config }
    }

    pub fn run_directory(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Restarts always, as fast as the test says.
    pub fn restarting(mut self, initial: u64, reset_after: u64) -> Container {
        self.launch.restart = RestartPolicy {
            condition: RestartCondition::Always,
            max_retries: None,
            backoff: Backoff {
                initial: Timespan::from_millis(initial),
                factor: 2,
                max: Timespan::from_secs(60),
                reset_after: Timespan::from_millis(reset_after),
            },
        };
        self
    }

    pub fn write_launch(&self) {
        let text = serde_json::to_vec(&self.launch).unwrap();
        std::fs::write(self.run_directory().join("launch.json"), text).unwrap();
        std::fs::write(&self.launch.config, serde_json::to_vec(&self.config).unwrap()).unwrap();
    }

    pub fn try_start(&self) -> Result<Started, MonitorError> {
        self.write_launch();
        spawn(Path::new(env!("CARGO_BIN_EXE_evenkeel-monitor")), &self.run_directory(), None, START_PATIENCE)
    }

    pub fn start(&self) -> u32 {
        self.try_start().unwrap_or_else(|error| panic!("{error:?}")).pid
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.run_directory()).unwrap()
    }

    /// What the status file says.
    pub fn status(&self) -> Status {
        liveness::read_status(&self.run_directory()).unwrap().unwrap()
    }

    /// Waits until the status file says so.
    pub fn await_status(&self, what: impl Fn(&Status) -> bool) -> Status {
        let read = || liveness::read_status(&self.run_directory()).unwrap();
        wait_for(|| read().filter(&what), || format!("{:#?}", read()))
    }

    pub fn await_phase(&self, phase: Phase) -> Status {
        self.await_status(|status| status.phase == phase)
    }

    pub fn log(&self) -> Vec<String> {
        let mut reader = Reader::open(&self.launch.logs, &Selection::default()).unwrap();
        std::iter::from_fn(|| reader.next().unwrap()).map(|passage| passage.into_entry().unwrap().text).collect()
    }

    pub fn await_log(&self, line: &str) {
        wait_for(|| self.log().iter().any(|text| text.trim() == line).then_some(()), || format!("{:?}", self.log()));
    }

    pub fn cgroup(&self) -> cgroup::Cgroup {
        let path = self.config["linux"]["cgroupsPath"].as_str().unwrap();
        cgroup::open(&cgroup::detect().unwrap(), Path::new(path))
    }

    /// The monitor's process id: the parent of the first process.
    pub fn monitor_pid(&self) -> u32 {
        parent_of(self.status().pid.unwrap()).unwrap()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let stopped = Client::connect(&self.run_directory())
            .and_then(|client| client.stop(Some(Signal::KILL), Some(Timespan::ZERO)));
        if stopped.is_err() {
            let _ = client::stop_if_running(&self.run_directory(), None, None, None);
            let _ = self.cgroup().kill();
        }
        let _ = self.cgroup().remove();
    }
}

/// Waits until `look` finds something.
pub fn wait_for<T>(look: impl Fn() -> Option<T>, seen: impl Fn() -> String) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain; last seen: {}", seen());
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn parent_of(pid: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Whether it runs: one that only waits to be reaped does not.
pub fn is_alive(pid: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines().any(|line| line.starts_with("State:") && !line.contains("(zombie)") && !line.contains("(dead)"))
}

pub fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

fn make_root(root: &Path) {
    for directory in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "sleep", "cat", "echo", "true", "false", "nslookup", "httpd", "nc", "id", "stty", "tty", "seq", "yes",
        "head", "tail", "dd", "env", "pwd", "touch", "rm", "test", "kill", "mkdir", "date", "printf",
    ] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\nweb:x:100:101::/:/bin/sh\n").unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nweb:x:101:\n").unwrap();
    std::fs::write(root.join("etc/resolv.conf"), "nameserver 127.0.0.11\n").unwrap();
}

/// The OCI configuration of a shell line in namespaces of its own, the host's network.
fn config(line: &str, cgroup: &str) -> Value {
    let capabilities = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID"];
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": "unused", "readonly": false },
        "process": {
            "args": ["/bin/sh", "-c", line],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "user": { "uid": 0, "gid": 0 },
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "noNewPrivileges": true,
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }],
        },
    })
}
