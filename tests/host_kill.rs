//! `apply` is killed at many points; the next one converges, and nothing is left of the first.
//!
//! strace(1) kills at the Nth call of a kind that makes something visible (a rename, a mount, a clone, a message to
//! the kernel's network), before the call takes effect; the monitors that `apply` spawns are traced too, and die like it.
//! Other kills come at moments of the clock, from a fixed seed.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use evenkeel::runtime::layer::IMAGE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{busybox_rootfs, eventually, in_a_network_of_its_own, room_for_a_root, run};

const MANIFEST: &str = r#"
project = "shop"
[images.box]
rootfs = "rootfs"
[networks.front]
[volumes.pages]
[containers.db]
image = "box"
command = ["sleep", "100000"]
stop_signal = "SIGKILL"
networks = ["front"]
restart = "always"
[containers.web]
image = "box"
command = ["httpd", "-f", "-p", "80", "-h", "/var/www"]
stop_signal = "SIGKILL"
networks = ["front"]
ports = { 8088 = 80 }
mounts = { "/var/www" = "pages" }
restart = "always"
depends_on = { db = "started" }
"#;

/// What must be the same after every crash and repair. Two containers: the numbers are small.
#[derive(Debug, PartialEq, Eq)]
struct Leftovers {
    /// Without those of layers that containers share.
    mounts: usize,
    /// Layers that are images are attached once each while containers are made of them, and never else.
    shared_otherwise: bool,
    links: usize,
    monitors: usize,
    layers: usize,
    /// Names below the cgroup of this root, of all hierarchies, that no container has.
    stray_cgroups: Vec<String>,
    /// Files that were being made or going away.
    unfinished: Vec<PathBuf>,
}

const NOTHING_MORE: Leftovers = Leftovers {
    mounts: 2,
    shared_otherwise: false,
    links: 4,
    monitors: 2,
    layers: 1,
    stray_cgroups: Vec::new(),
    unfinished: Vec::new(),
};

/// A state root, a manifest and a network namespace.
struct Trial {
    directory: tempfile::TempDir,
}

impl Trial {
    fn begin() -> Trial {
        let directory = room_for_a_root("evenkeel-crash");
        busybox_rootfs(&directory.path().join("rootfs"));
        fs::write(directory.path().join("evenkeel.toml"), MANIFEST).unwrap();
        Trial { directory }
    }

    /// Applied, then edited: one container is to be replaced, a port to be added.
    fn begin_with_a_change() -> Trial {
        let trial = Trial::begin();
        trial.succeed(&["apply"]);
        let edited = MANIFEST.replace("100000", "100001").replace("8088 = 80", "8088 = 80, 8089 = 80");
        fs::write(trial.path("evenkeel.toml"), edited).unwrap();
        trial
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, program: &[&str], arguments: &[&str]) -> Command {
        let all = [program, arguments].concat();
        let mut command = Command::new(all[0]);
        command.args(&all[1..]).current_dir(self.directory.path()).stdin(Stdio::null());
        command.env("EVENKEEL_ROOT", self.path("root")).env("EVENKEEL_RUN", self.path("run"));
        command
    }

    fn evenkeel(&self, arguments: &[&str]) -> Output {
        self.command(&[EVENKEEL], arguments).output().unwrap()
    }

    fn succeed(&self, arguments: &[&str]) {
        let output = self.evenkeel(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    /// Runs `apply` and kills it, or a monitor that it spawned, at the `when`th call. Whether there was one so late.
    fn apply_killed_at(&self, call: &str, when: usize) -> bool {
        let (trace, ended) = (self.path("trace"), self.path("ended"));
        let inject = format!("inject={call}:signal=KILL:when={when}");
        let script = r#""$0" apply >/dev/null 2>&1; echo $? >ended"#;
        let strace = [
            "strace",
            "-I",
            "2",
            "-f",
            "-q",
            "-o",
            trace.to_str().unwrap(),
            "-e",
            &format!("trace={call}"),
            "-e",
            &inject,
        ];
        let mut strace = self.command(&strace, &["sh", "-c", script, EVENKEEL]).stderr(Stdio::null()).spawn().unwrap();
        // strace stays with the monitors. Asked to end it lets them go, which `-o` alone would block (strace(1), `-I`).
        eventually("apply ends", || {
            fs::read_to_string(&ended).is_ok_and(|text| text.ends_with('\n')) || strace.try_wait().unwrap().is_some()
        });
        end(&mut strace);
        fs::read_to_string(trace).unwrap().contains("killed by SIGKILL")
    }

    /// Runs a command and kills it after a while, unless it has ended.
    fn killed_after(&self, arguments: &[&str], moment: Duration) {
        let mut child =
            self.command(&[EVENKEEL], arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(moment);
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(status.success() || status.signal() == Some(9), "{arguments:?}: {status}");
    }

    fn leftovers(&self) -> Leftovers {
        let here = self.directory.path().to_str().unwrap();
        let is_ours = |text: &&str| text.contains(here);
        let (shared, mounts): (Vec<String>, Vec<String>) = self.mounts().into_iter().partition(|line| is_layer(line));
        let command_lines = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| String::from_utf8(fs::read(entry.ok()?.path().join("cmdline")).ok()?).ok());
        let mut unfinished = Vec::new();
        for directory in ["root/images", "root/networks", "root/volumes", "root/containers", "run"] {
            collect_unfinished(&self.path(directory), &mut unfinished);
        }
        let monitors = command_lines.filter(|line| is_ours(&line.as_str())).count();
        let layers = names(&self.path("root/layers")).filter(|layer| layer != ".claims").collect::<Vec<_>>();
        let images = layers.iter().filter(|layer| self.path("root/layers").join(layer).join(IMAGE).exists()).count();
        Leftovers {
            mounts: mounts.len(),
            shared_otherwise: shared.len() != if monitors > 0 { images } else { 0 },
            links: run(&["ip", "-o", "link"]).lines().count(),
            monitors,
            layers: layers.len(),
            stray_cgroups: self.stray_cgroups(),
            unfinished,
        }
    }

    /// Lines of mountinfo (proc_pid_mountinfo(5)).
    fn mounts(&self) -> Vec<String> {
        let here = self.directory.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        mounts.lines().filter(|line| line.contains(here)).map(str::to_owned).collect()
    }

    fn stray_cgroups(&self) -> Vec<String> {
        let parent = format!("evenkeel-{}", evenkeel::engine::host::tag(&self.path("root").canonicalize().unwrap()));
        let mut known: BTreeSet<String> = names(&self.path("root/containers")).collect();
        if !known.is_empty() {
            // With cgroup version 2 that of their monitors.
            known.insert("monitors".to_owned());
        }
        let hierarchies = names(Path::new("/sys/fs/cgroup")).map(|name| Path::new("/sys/fs/cgroup").join(name));
        let parents = hierarchies.chain(["/sys/fs/cgroup".into()]).map(|hierarchy| hierarchy.join(&parent));
        let is_group = |parent: &Path, name: &String| parent.join(name).is_dir();
        let groups = parents.flat_map(|parent| {
            let children: Vec<String> = names(&parent).filter(|name| is_group(&parent, name)).collect();
            children
        });
        groups.filter(|group| !known.contains(group)).collect()
    }

    /// The next apply makes it right, and the one after that has nothing to do.
    fn converges(self, crash: &str) {
        let again = self.evenkeel(&["apply"]);
        assert!(again.status.success(), "{crash}: {again:?}");
        let plan = self.evenkeel(&["plan", "--detailed-exitcode"]);
        assert!(plan.status.success(), "{crash}: {plan:?}");
        eventually(&format!("{crash}: the page is served"), || page().is_some_and(|page| page.contains("hello")));
        // A monitor that is told to end needs a moment to be gone.
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while self.leftovers() != NOTHING_MORE && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.leftovers(), NOTHING_MORE, "{crash}");
    }
}

const EVENKEEL: &str = env!("CARGO_BIN_EXE_evenkeel");

/// Takes everything down, in a failed test too, and finds nothing.
impl Drop for Trial {
    fn drop(&mut self) {
        let down = self.evenkeel(&["down", "--volumes", "--yes"]);
        if !std::thread::panicking() {
            assert!(down.status.success(), "{down:?}");
            let nothing = Leftovers { mounts: 0, links: 1, monitors: 0, ..NOTHING_MORE };
            eventually("all is gone", || self.leftovers() == nothing && self.mounts().is_empty());
            assert_eq!(run(&["nft", "list", "tables"]), "");
        }
    }
}

/// Whether a line of mountinfo is of a layer that containers share: one that is an image has such a mount.
fn is_layer(line: &str) -> bool {
    line.contains(" - erofs ")
}

fn end(child: &mut Child) {
    if child.try_wait().unwrap().is_none() {
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
        child.wait().unwrap();
    }
}

fn names(directory: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// Two levels: what is deeper belongs to containers.
fn collect_unfinished(directory: &Path, unfinished: &mut Vec<PathBuf>) {
    for path in names(directory).map(|name| directory.join(name)) {
        let below = names(&path).map(|name| path.join(name));
        let dotted = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        unfinished.extend(below.chain([path.clone()]).filter(dotted));
    }
}

fn page() -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, 8088).into(), Duration::from_secs(1)).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    Some(page)
}

/// Every call of a kind up to the last; each of a first apply and of a change.
fn crash_at_every(call: &str) {
    in_a_network_of_its_own(|| {
        for begin in [Trial::begin, Trial::begin_with_a_change] {
            for when in 1.. {
                let trial = begin();
                let killed = trial.apply_killed_at(call, when);
                trial.converges(&format!("{call} {when}"));
                if !killed {
                    break;
                }
            }
        }
    });
}

#[test]
fn apply_killed_at_any_rename_converges() {
    crash_at_every("rename,renameat2");
}

#[test]
fn apply_killed_at_any_mount_converges() {
    crash_at_every("mount");
}

#[test]
fn apply_killed_at_any_new_process_converges() {
    crash_at_every("clone3");
}

#[test]
fn apply_killed_at_any_removal_converges() {
    crash_at_every("unlink,rmdir");
}

#[test]
fn commands_killed_at_any_moment_converge() {
    in_a_network_of_its_own(|| {
        let mut seed: u32 = 20_261_121;
        for _ in 0..16 {
            // Numerical Recipes' linear congruential generator: the same moments every time.
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let moment = Duration::from_millis(u64::from(seed >> 16) % 400);
            let (begin, command): (fn() -> Trial, &[&str]) = match seed >> 8 & 3 {
                0 => (Trial::begin_with_a_change, &["down"]),
                1 => (Trial::begin_with_a_change, &["apply"]),
                _ => (Trial::begin, &["apply"]),
            };
            let trial = begin();
            trial.killed_after(command, moment);
            trial.converges(&format!("{command:?} after {moment:?}"));
        }
    });
}
