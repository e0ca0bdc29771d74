//! How long a container takes from nothing to nothing: create, start, exit and delete of `/bin/true` under Docker's
//! default configuration; beside it crun and runc, where they are installed, with the same configuration.
//!
//! ```text
//! cargo bench --bench runtime [-- --runs N] [--only NAME] [--runtime PATH]
//! ```
//!
//! Contenders take turns, so that what else the machine does falls on all of them. Runtimes are called as their users
//! call them: a process each for create, start and delete. The library is called as a monitor calls it. The floor is
//! what the kernel alone takes: one process makes the cgroups, copies itself into the same namespaces, makes the same
//! mounts, devices and masks, installs the same filter, executes and is undone, without a configuration to read or a
//! state to keep.
//!
//! Wall and processor time are medians of all runs. Processor time is user and system time of everything that this
//! process waited for, the container's own process too, which becomes this process's child when `create` ends
//! (prctl(2), `PR_SET_CHILD_SUBREAPER`). Work that the kernel leaves to its own threads is nobody's.
//!
//! State is kept on a tmpfs, as below /run.
//!
//! crun refuses a host with cgroups of both versions. So where controllers are in version 1, the version 2 tree beside
//! them is hidden from everybody here, in a mount namespace of this process's own.

#[path = "../tests/bundles/mod.rs"]
#[allow(dead_code)]
mod bundles;
#[path = "runtime/floor.rs"]
mod floor;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio as CommandStdio};
use std::time::{Duration, Instant};

use bundles::Bundle;
use evenkeel::model::launch::RootFilesystem;
use evenkeel::runtime::launch::{self, Caller, FirstProcess, Request, Stdio};
use evenkeel::runtime::{capabilities, seccomp};
use evenkeel::sys::namespace::unshare;
use nix::sys::resource::{UsageWho, getrusage};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, getpid, pidfd_open, set_child_subreaper, waitid};
use serde_json::{Value, json};

/// Lives a container's life once; `false` when it could not.
type Life<'a> = Box<dyn FnMut() -> bool + 'a>;

struct Contender<'a> {
    name: &'a str,
    life: Life<'a>,
    /// Wall and processor time of each run.
    walls: Vec<Duration>,
    processors: Vec<Duration>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let runs: usize = option("--runs").and_then(|runs| runs.parse().ok()).unwrap_or(50);
    let runtime = option("--runtime").unwrap_or_else(|| env!("CARGO_BIN_EXE_evenkeel-runtime").to_owned());
    hide_second_tree();
    set_child_subreaper(Some(getpid())).unwrap();
    let mut bundle = Bundle::new();
    as_docker(&mut bundle);
    prepare_peer(&bundle);
    let directory = RootFilesystem::Directory(bundle.lower(""));
    let layers = bundle.root();
    let state = tempfile::tempdir_in("/dev/shm").unwrap();
    let peer = |name: &str| life_under(name, &bundle, state.path());
    let mut contenders = vec![
        contender("floor", || floor::life(&bundle)),
        contender("evenkeel-runtime", || peer(&runtime)),
        contender("crun", || peer("crun")),
        contender("runc", || peer("runc")),
        contender("library, directory", || whole_life(&bundle, &directory)),
        contender("library, layers", || whole_life(&bundle, &layers)),
    ];
    if let Some(only) = option("--only") {
        contenders.retain(|contender| contender.name.contains(&only));
    }
    contenders.retain_mut(|contender| {
        let can = (contender.life)();
        if !can {
            println!("{:<22} not installed, or it refuses this host", contender.name);
        }
        can
    });
    for _ in 0..runs {
        for contender in &mut contenders {
            let (begin, before) = (Instant::now(), processor_time());
            assert!((contender.life)(), "{}", contender.name);
            contender.walls.push(begin.elapsed());
            contender.processors.push(processor_time() - before);
        }
    }
    show(&mut contenders);
    ExitCode::SUCCESS
}

fn contender<'a>(name: &'a str, life: impl FnMut() -> bool + 'a) -> Contender<'a> {
    Contender { name, life: Box::new(life), walls: Vec::new(), processors: Vec::new() }
}

fn show(contenders: &mut [Contender<'_>]) {
    for contender in &mut *contenders {
        contender.walls.sort_unstable();
        contender.processors.sort_unstable();
    }
    let median = |times: &[Duration]| times[times.len() / 2];
    let crun = contenders.iter().find(|contender| contender.name == "crun");
    let crun = crun.map(|crun| (median(&crun.walls), median(&crun.processors)));
    for Contender { name, walls, processors, .. } in contenders {
        let (wall, processor) = (median(walls), median(processors));
        let ratios = crun.map_or_else(String::new, |crun| {
            let times = |ours: Duration, theirs: Duration| ours.as_secs_f64() / theirs.as_secs_f64();
            format!("   of crun's {:.2} and {:.2}", times(wall, crun.0), times(processor, crun.1))
        });
        println!("{name:<22} wall {wall:>8.2?} (least {:>8.2?})   processor {processor:>8.2?}{ratios}", walls[0]);
    }
}

/// Everybody's view of the cgroups; see the head.
fn hide_second_tree() {
    unshare(libc::CLONE_NEWNS).unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let unified = "/sys/fs/cgroup/unified";
    if Path::new(unified).join("cgroup.procs").exists() {
        unmount(unified, UnmountFlags::empty()).unwrap();
    }
}

/// What Docker adds to a configuration that asks for limits of memory and processes.
fn as_docker(bundle: &mut Bundle) {
    let capabilities = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_KILL",
        "CAP_AUDIT_WRITE",
    ];
    bundle.config["process"]["noNewPrivileges"] = json!(false);
    bundle.config["process"]["capabilities"] =
        json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities});
    let filter = seccomp::default_profile(&capabilities::default_set());
    let device = |allow: bool, major: u32, minor: u32| json!({"allow": allow, "type": "c", "major": major, "minor": minor, "access": "rwm"});
    let devices: Vec<Value> = [json!({"allow": false, "access": "rwm"})]
        .into_iter()
        .chain([(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)].map(|(major, minor)| device(true, major, minor)))
        .chain([device(false, 10, 229)])
        .collect();
    let linux = &mut bundle.config["linux"];
    linux["seccomp"] = serde_json::to_value(filter).unwrap();
    linux["resources"] = json!({"devices": devices, "memory": {"limit": 64 << 20}, "pids": {"limit": 64}});
    linux["maskedPaths"] = json!([
        "/proc/asound",
        "/proc/acpi",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ]);
    linux["readonlyPaths"] = json!(["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]);
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]);
}

fn whole_life(bundle: &Bundle, root: &RootFilesystem) -> bool {
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
    true
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
fn life_under(runtime: &str, bundle: &Bundle, state: &Path) -> bool {
    let step = |arguments: &[&str]| {
        let mut command = Command::new(runtime);
        command.arg("--root").arg(state).args(arguments).current_dir(bundle.directory.path());
        command.stdin(CommandStdio::null()).stdout(CommandStdio::null()).status().is_ok_and(|status| status.success())
    };
    let pid_file = state.join("pid");
    if !step(&["create", "--pid-file", pid_file.to_str().unwrap(), "bench"]) {
        return false;
    }
    let pid = std::fs::read_to_string(pid_file).unwrap().trim().parse().ok().and_then(Pid::from_raw).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    assert!(step(&["start", "bench"]));
    let end = waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(&process)), WaitIdOptions::EXITED).unwrap();
    assert_eq!(end.and_then(|end| end.exit_status()), Some(0));
    assert!(step(&["delete", "bench"]));
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
