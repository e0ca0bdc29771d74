//! How long a container of the runtime takes from nothing to nothing: create, start, exit and delete of `/bin/true`
//! under Docker's default limits and filter; beside it crun and runc, where they are installed, with the same
//! configuration.
//!
//! ```text
//! cargo bench --bench runtime [-- --runs N]
//! ```
//!
//! Wall time is the median of all runs, processor time (user and system, of this process and of all that it waited
//! for) their mean. crun and runc are called as their users call them: one process for each of the four steps.

#[path = "../tests/bundles/mod.rs"]
#[allow(dead_code)]
mod bundles;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Command, ExitCode, Stdio as CommandStdio};
use std::time::{Duration, Instant};

use bundles::Bundle;
use evenkeel::model::launch::RootFilesystem;
use evenkeel::runtime::launch::{self, Caller, FirstProcess, Request, Stdio};
use evenkeel::runtime::{capabilities, seccomp};
use nix::sys::resource::{UsageWho, getrusage};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::json;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let runs = arguments.iter().position(|argument| argument == "--runs").and_then(|at| arguments.get(at + 1));
    let runs: usize = runs.and_then(|runs| runs.parse().ok()).unwrap_or(50);
    let mut bundle = Bundle::new();
    let profile = seccomp::default_profile(&capabilities::default_set());
    bundle.config["linux"]["seccomp"] = serde_json::to_value(profile).unwrap_or_default();
    bundle.config["linux"]["resources"] = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 64}});
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]);
    show("evenkeel, layers", runs, || whole_life(&bundle, &bundle.root()));
    show("evenkeel, directory", runs, || whole_life(&bundle, &RootFilesystem::Directory(bundle.lower(""))));
    for peer in ["crun", "runc"] {
        match Command::new(peer).arg("--version").stdout(CommandStdio::null()).status() {
            Ok(_) => {
                prepare_peer(&bundle);
                match life_under(peer, &bundle) {
                    true => show(peer, runs, || assert!(life_under(peer, &bundle))),
                    false => println!("{peer:<22} refuses this host, see above"),
                }
            }
            Err(_) => println!("{peer:<22} not installed"),
        }
    }
    ExitCode::SUCCESS
}

/// Runs `life` many times and prints what it took.
fn show(name: &str, runs: usize, mut life: impl FnMut()) {
    life();
    let before = processor_time();
    let mut walls: Vec<Duration> = (0..runs)
        .map(|_| {
            let begin = Instant::now();
            life();
            begin.elapsed()
        })
        .collect();
    let processor = (processor_time() - before) / runs as u32;
    walls.sort_unstable();
    println!("{name:<22} wall {:>8.2?} (least {:>8.2?})   processor {processor:>8.2?}", walls[runs / 2], walls[0]);
}

fn whole_life(bundle: &Bundle, root: &RootFilesystem) {
    let null: OwnedFd = File::options().read(true).write(true).open("/dev/null").unwrap().into();
    let stdio = Stdio::Descriptors { stdin: &null, stdout: &null, stderr: &null };
    let spec = bundle.spec(&["/bin/true"]);
    let request = Request {
        spec: &spec,
        root,
        directories: &[],
        stdio,
        identity: None,
        first: FirstProcess::Command,
        caller: Caller::default(),
    };
    let process = launch::start(&request).unwrap();
    assert_eq!(bundles::wait(&process), 0);
    bundle.cgroup().remove().unwrap();
}

/// The same configuration as a bundle on disk.
fn prepare_peer(bundle: &Bundle) {
    let mut config = bundle.config.clone();
    // Debian 12's crun reads no later version.
    config["ociVersion"] = json!("1.0.2");
    config["root"] = json!({"path": bundle.lower("")});
    config["process"]["args"] = json!(["/bin/true"]);
    std::fs::write(bundle.directory.path().join("config.json"), config.to_string()).unwrap();
}

/// Whether it could be lived.
fn life_under(peer: &str, bundle: &Bundle) -> bool {
    let step = |arguments: &[&str]| {
        let state = bundle.directory.path().join("state");
        let mut command = Command::new(peer);
        command.arg("--root").arg(state).args(arguments).current_dir(bundle.directory.path());
        command.stdin(CommandStdio::null()).stdout(CommandStdio::null()).status().unwrap().success()
    };
    let pid_file = bundle.directory.path().join("pid");
    if !step(&["create", "--pid-file", pid_file.to_str().unwrap(), "bench"]) {
        return false;
    }
    let pid = std::fs::read_to_string(pid_file).unwrap().trim().parse().ok().and_then(Pid::from_raw).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    assert!(step(&["start", "bench"]));
    // Asking again and again would be charged to the peer.
    poll(&mut [PollFd::new(&process, PollFlags::IN)], None).unwrap();
    while !step(&["delete", "bench"]) {}
    true
}

fn processor_time() -> Duration {
    let total = |who| {
        let usage = getrusage(who).unwrap();
        [usage.user_time(), usage.system_time()]
            .map(|time| Duration::from_micros(time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64))
    };
    [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN].into_iter().flat_map(total).sum()
}
