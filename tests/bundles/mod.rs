//! Containers for tests: a busybox root filesystem, a configuration to change, and a way to run it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use evenkeel::model::launch::{Identity, RootFilesystem};
use evenkeel::runtime::launch::{self, Caller, Created, FirstProcess, Inheritance, Lines, Process, Request, Stdio};
use evenkeel::runtime::{RuntimeError, cgroup, exec};
use oci_spec::runtime::{Spec, State};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use serde_json::{Value, json};

/// Tests by their names, each of them a process.
#[macro_export]
macro_rules! host_tests {
    ($($name:ident => $body:expr;)*) => {
        fn main() -> std::process::ExitCode {
            bundles::main(&[$((stringify!($name), $body)),*])
        }
    };
}

/// A test by its name.
pub type Case = (&'static str, fn());

/// What libtest would do, with a process for each test: the runtime refuses to fork beside other threads. The first
/// argument that is no option selects tests by a part of their names.
pub fn main(cases: &[Case]) -> ExitCode {
    const MARK: &str = "EVENKEEL_TEST_CASE";
    if let Ok(name) = std::env::var(MARK) {
        let (_, body) = cases.iter().find(|case| case.0 == name).unwrap();
        body();
        return ExitCode::SUCCESS;
    }
    assert!(rustix::process::geteuid().is_root(), "these tests need root");
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let (mut passed, mut failed) = (0, 0);
    for (name, _) in cases.iter().filter(|(name, _)| name.contains(&filter)) {
        let output = Command::new(std::env::current_exe().unwrap()).env(MARK, name).output().unwrap();
        if output.status.success() {
            passed += 1;
            println!("test {name} ... ok");
        } else {
            failed += 1;
            println!("test {name} ... FAILED ({})", output.status);
            println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        }
    }
    // As libtest closes: the sum of tests/all.sh reads it.
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed; 0 ignored");
    ExitCode::from(u8::from(failed > 0))
}

/// A directory with layers and a configuration.
pub struct Bundle {
    pub directory: tempfile::TempDir,
    pub config: Value,
    pub directories: Vec<PathBuf>,
    pub identity: Option<Identity>,
    pub first: FirstProcess,
    pub terminal: bool,
    /// What hooks are told of.
    pub state: Option<State>,
    cgroup: PathBuf,
}

/// What a command printed, both streams in one, and how it ended.
#[derive(Debug)]
pub struct Outcome {
    pub text: String,
    /// 128 and the signal, for one that was killed.
    pub status: i32,
}

impl PartialEq<(&str, i32)> for Outcome {
    fn eq(&self, other: &(&str, i32)) -> bool {
        self.text == other.0 && self.status == other.1
    }
}

/// A container that runs; killed when dropped.
pub struct Running {
    pub process: Process,
    pub output: File,
    ended: Option<i32>,
}

impl Bundle {
    pub fn new() -> Bundle {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().file_name().unwrap().to_str().unwrap().replace('.', "");
        for part in ["lower/bin", "lower/etc", "lower/tmp", "lower/proc", "lower/sys", "lower/dev", "upper", "work"] {
            fs::create_dir_all(directory.path().join(part)).unwrap();
        }
        fs::copy("/bin/busybox", directory.path().join("lower/bin/busybox")).unwrap();
        let applets = Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
        for applet in String::from_utf8(applets).unwrap().lines().filter(|applet| *applet != "busybox") {
            symlink("busybox", directory.path().join("lower/bin").join(applet)).unwrap();
        }
        fs::write(directory.path().join("lower/etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:44::/tmp:/bin/sh\n")
            .unwrap();
        fs::write(directory.path().join("lower/etc/group"), "root:x:0:\nvideo:x:27:web\n").unwrap();
        let cgroup = PathBuf::from(format!("/evenkeel-test-{name}"));
        let config = config(&cgroup);
        let (directories, first) = (Vec::new(), FirstProcess::Command);
        Bundle { directory, config, directories, identity: None, first, terminal: false, state: None, cgroup }
    }

    pub fn lower(&self, path: &str) -> PathBuf {
        self.directory.path().join("lower").join(path)
    }

    pub fn spec(&self, arguments: &[&str]) -> Spec {
        let mut config = self.config.clone();
        config["process"]["args"] = json!(arguments);
        serde_json::from_value(config).unwrap()
    }

    pub fn root(&self) -> RootFilesystem {
        let path = |part| self.directory.path().join(part);
        RootFilesystem::Overlay { lower: vec![path("lower")], upper: path("upper"), work: path("work") }
    }

    /// The container's cgroup.
    pub fn cgroup(&self) -> cgroup::Cgroup {
        cgroup::open(&cgroup::detect().unwrap(), &self.cgroup)
    }

    pub fn cgroup_path(&self) -> String {
        self.cgroup.display().to_string()
    }

    /// One more mount.
    pub fn mount(&mut self, target: &str, kind: &str, source: &str, options: &[&str]) {
        let mount = json!({"destination": target, "type": kind, "source": source, "options": options});
        self.config["mounts"].as_array_mut().unwrap().push(mount);
    }

    pub fn try_start(&self, arguments: &[&str]) -> Result<Running, RuntimeError> {
        self.start_on(&self.root(), arguments)
    }

    pub fn start_on(&self, root: &RootFilesystem, arguments: &[&str]) -> Result<Running, RuntimeError> {
        let spec = self.spec(arguments);
        let (identity, first) = (self.identity.as_ref(), self.first);
        self.with_stdio(|stdio| {
            launch::start(&Request {
                spec: &spec,
                root,
                directories: &self.directories,
                stdio,
                identity,
                first,
                caller: Caller { state: self.state.as_ref(), ..Caller::default() },
            })
        })
    }

    pub fn create(&self, arguments: &[&str]) -> Created {
        let null: OwnedFd = File::options().read(true).write(true).open("/dev/null").unwrap().into();
        let stdio = Stdio::Descriptors { stdin: &null, stdout: &null, stderr: &null };
        let (spec, root) = (self.spec(arguments), self.root());
        launch::create(&Request {
            spec: &spec,
            root: &root,
            directories: &self.directories,
            stdio,
            identity: None,
            first: self.first,
            caller: Caller::default(),
        })
        .unwrap()
    }

    /// A further process beside `first`.
    pub fn exec(&self, first: &Running, arguments: &[&str]) -> Result<Running, RuntimeError> {
        let spec = self.spec(arguments);
        let target = exec::Target { pid: first.process.pid, pidfd: first.process.pidfd.as_fd() };
        let (process, identity) = (spec.process().as_ref().unwrap(), self.identity.as_ref());
        self.with_stdio(|stdio| {
            exec::exec(&exec::Request {
                spec: &spec,
                process,
                identity,
                stdio,
                target,
                inheritance: Inheritance::default(),
                below: &[],
                state: None,
            })
        })
    }

    fn with_stdio(
        &self,
        start: impl FnOnce(Stdio<'_>) -> Result<Process, RuntimeError>,
    ) -> Result<Running, RuntimeError> {
        let (output, theirs) = std::io::pipe().unwrap();
        let (stdin, _) = std::io::pipe().unwrap();
        let (stdin, stdout): (OwnedFd, OwnedFd) = (stdin.into(), theirs.into());
        let stdio = match self.terminal {
            true => Stdio::Terminal(Lines::Completed),
            false => Stdio::Descriptors { stdin: &stdin, stdout: &stdout, stderr: &stdout },
        };
        let process = start(stdio)?;
        let output = match &process.terminal {
            Some(terminal) => File::from(terminal.try_clone().unwrap()),
            None => File::from(OwnedFd::from(output)),
        };
        Ok(Running { process, output, ended: None })
    }

    pub fn start(&self, arguments: &[&str]) -> Running {
        self.try_start(arguments).unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    pub fn run(&self, arguments: &[&str]) -> Outcome {
        self.start(arguments).finish()
    }

    pub fn error(&self, arguments: &[&str]) -> RuntimeError {
        match self.try_start(arguments) {
            Err(error) => error,
            Ok(_) => panic!("{arguments:?} was started"),
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let cgroup = self.cgroup();
        cgroup.kill().unwrap();
        cgroup.remove().unwrap();
    }
}

impl Running {
    pub fn pid(&self) -> i32 {
        self.process.pid.as_raw_nonzero().get()
    }

    /// A file of the process in the host's /proc.
    pub fn proc(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.pid())).unwrap()
    }

    pub fn kill(&mut self) {
        if self.ended.is_none() {
            let _ = pidfd_send_signal(&self.process.pidfd, Signal::KILL);
            self.wait();
        }
    }

    pub fn wait(&mut self) -> i32 {
        *self.ended.get_or_insert_with(|| wait(&self.process))
    }

    pub fn finish(mut self) -> Outcome {
        let mut bytes = Vec::new();
        // A terminal whose other side is closed gives EIO in place of an end of file.
        let _ = self.output.read_to_end(&mut bytes);
        Outcome { text: String::from_utf8(bytes).unwrap(), status: self.wait() }
    }

    /// Reads until a line says `text`.
    pub fn wait_for(&mut self, text: &str) {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !String::from_utf8_lossy(&seen).contains(text) {
            assert_eq!(self.output.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&seen));
            seen.push(byte[0]);
        }
    }

    pub fn say(&mut self, text: &str) {
        self.output.write_all(text.as_bytes()).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for the end of a process of ours.
pub fn wait(process: &Process) -> i32 {
    let status = waitid(WaitId::PidFd(process.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap()
}

pub fn mounts_of_host() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Waits until `condition` holds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "{what} did not come true");
        std::thread::yield_now();
    }
}

fn config(cgroup: &Path) -> Value {
    let capabilities = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    ];
    let mount = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
    json!({
        "ociVersion": "1.2.0",
        "hostname": "box",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "root": {"path": "unused"},
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "cgroup"},
            ],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts",
                            "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
