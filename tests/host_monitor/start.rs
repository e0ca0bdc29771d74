//! How a container begins, and what is left when it does not.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use evenkeel::model::actual::Liveness;
use evenkeel::model::status::{Exit, Phase};
use evenkeel::model::units::Timespan;
use evenkeel::monitor::client::START_PATIENCE;
use evenkeel::monitor::protocol::FailureKind;
use evenkeel::monitor::{MonitorError, liveness};

use crate::fixture::{Container, is_alive, kill, parent_of, wait_for};

#[test]
fn a_monitor_that_cannot_complain_does_not_die_of_it() {
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    // A panic would end it with a signal, as it is built.
    let status = Command::new(env!("CARGO_BIN_EXE_evenkeel-monitor")).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(64));
}

#[test]
fn a_container_runs_and_its_monitor_is_nobodys_child() {
    let container = Container::of("sleep 1000");
    let pid = container.start();
    let status = container.status();
    assert_eq!((status.phase, status.pid, status.restarts), (Phase::Running, Some(pid), 0));
    assert!(matches!(liveness(&container.run_directory()).unwrap(), Liveness::Monitored(_)));
    let monitor = container.monitor_pid();
    assert_ne!(parent_of(monitor), Some(std::process::id()));
    let session = rustix::process::getsid(rustix::process::Pid::from_raw(monitor as i32)).unwrap();
    assert_eq!(session.as_raw_nonzero().get() as u32, monitor);
    let environment = std::fs::read(format!("/proc/{monitor}/environ")).unwrap();
    assert_eq!(String::from_utf8(environment).unwrap(), "GLIBC_TUNABLES=glibc.malloc.tcache_count=0\0");
    assert_eq!(std::fs::read_link(format!("/proc/{monitor}/cwd")).unwrap(), Path::new("/"));
    for descriptor in std::fs::read_dir(format!("/proc/{monitor}/fd")).unwrap() {
        let target = std::fs::read_link(descriptor.unwrap().path()).unwrap();
        let target = target.to_string_lossy().into_owned();
        let run = container.run_directory().to_string_lossy().into_owned();
        let own = ["/dev/null", "pipe:", "socket:", "anon_inode:[signalfd]", "net:"];
        assert!(own.iter().any(|own| target.starts_with(own)) || target.starts_with(&run), "{target}");
    }
    let stopped = container.client().stop(None, None).unwrap();
    assert_eq!(stopped.phase, Phase::Stopped);
    assert!(matches!(liveness(&container.run_directory()).unwrap(), Liveness::Ended(_)));
    wait_for(|| (!is_alive(monitor)).then_some(()), || "the monitor lives".into());
    assert!(!container.cgroup().exists());
    assert!(!container.run_directory().join("control").exists());
}

#[test]
fn a_command_that_is_not_there_is_said_to_whoever_starts_it() {
    let mut container = Container::of("");
    container.config["process"]["args"] = serde_json::json!(["/bin/nothing"]);
    let Err(MonitorError::Start(failure)) = container.try_start() else { panic!("it started") };
    assert_eq!(failure.kind, FailureKind::CommandNotFound);
    assert!(failure.message.contains("/bin/nothing"), "{}", failure.message);
    assert!(failure.hint.is_some());
    let Liveness::Ended(status) = liveness(&container.run_directory()).unwrap() else { panic!("it lives") };
    assert_eq!((status.phase, status.error), (Phase::Failed, Some(failure.message)));
    assert!(!container.cgroup().exists());
}

#[test]
fn a_file_that_is_no_program_is_told_apart() {
    let mut container = Container::of("");
    container.config["process"]["args"] = serde_json::json!(["/etc/passwd"]);
    let Err(MonitorError::Start(failure)) = container.try_start() else { panic!("it started") };
    assert_eq!(failure.kind, FailureKind::NotExecutable);
}

#[test]
fn a_second_monitor_for_one_container_is_refused() {
    let container = Container::of("sleep 1000");
    let pid = container.start();
    let Err(MonitorError::Start(failure)) = container.try_start() else { panic!("two monitors") };
    assert!(failure.message.contains("another monitor"), "{}", failure.message);
    assert!(is_alive(pid));
}

#[test]
fn the_end_is_recorded() {
    for (line, exit) in [("exit 0", Exit::Code(0)), ("exit 42", Exit::Code(42))] {
        let container = Container::of(line);
        container.start();
        let status = container.await_phase(Phase::Exited);
        assert_eq!(status.exit, Some(exit));
        assert!(status.finished_at >= status.started_at);
    }
    let container = Container::of("sleep 1000");
    let pid = container.start();
    kill(pid, rustix::process::Signal::KILL);
    let status = container.await_phase(Phase::Exited);
    assert_eq!(status.exit, Some(Exit::Signal(evenkeel::model::units::Signal::KILL)));
}

#[test]
fn a_kill_for_memory_is_recorded_as_such() {
    let mut container = Container::of("head -c 200m /dev/zero | tail > /dev/null; exit 137");
    container.config["mounts"] = serde_json::json!([
        { "destination": "/proc", "type": "proc", "source": "proc" },
        { "destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"] },
    ]);
    container.config["linux"]["resources"] = serde_json::json!({ "memory": { "limit": 20 << 20, "swap": 20 << 20 } });
    container.start();
    let status = container.await_phase(Phase::Exited);
    assert_eq!(status.exit, Some(Exit::OutOfMemory));
}

#[test]
fn a_monitor_outlives_whoever_started_it() {
    let container = Container::of("sleep 1000");
    container.write_launch();
    // A process that starts the monitor and is killed at once, with everything in its session.
    let monitor = env!("CARGO_BIN_EXE_evenkeel-monitor");
    let script = format!("setsid sh -c '{monitor} {}; kill -9 0'", container.run_directory().display());
    let status = Command::new("sh").args(["-c", &script]).status().unwrap();
    assert!(!status.success());
    let status = container.await_phase(Phase::Running);
    assert!(is_alive(status.pid.unwrap()));
    container.client().status().unwrap();
}

#[test]
fn a_killed_monitor_is_seen_and_the_next_one_clears_up() {
    let container = Container::of("sleep 1000");
    let pid = container.start();
    let monitor = container.monitor_pid();
    kill(monitor, rustix::process::Signal::KILL);
    wait_for(|| (!is_alive(monitor)).then_some(()), || "the monitor lives".into());
    let Liveness::Lost(Some(status)) = liveness(&container.run_directory()).unwrap() else { panic!("not lost") };
    assert_eq!(status.pid, Some(pid));
    assert!(is_alive(pid), "the container goes on without it");
    let again = container.start();
    assert_ne!(again, pid);
    assert!(!is_alive(pid), "two run side by side");
}

#[test]
fn a_long_path_is_no_obstacle() {
    let mut container = Container::of("sleep 1000");
    let long = container.directory.path().join("long").join("x".repeat(150));
    std::fs::create_dir_all(long.parent().unwrap()).unwrap();
    std::fs::rename(container.run_directory(), &long).unwrap();
    std::os::unix::fs::symlink(&long, container.run_directory()).unwrap();
    container.launch.config = long.join("config.json");
    container.write_launch();
    evenkeel::monitor::spawn(Path::new(env!("CARGO_BIN_EXE_evenkeel-monitor")), &long, None, START_PATIENCE).unwrap();
    let client = evenkeel::monitor::Client::connect(&long).unwrap();
    assert_eq!(client.status().unwrap().phase, Phase::Running);
}

/// The processes that were started as `evenkeel-monitor DIRECTORY`: the monitor, and its copies.
fn monitors_of(directory: &Path) -> Vec<u32> {
    let suffix = format!("\0{}\0", directory.display());
    let processes = std::fs::read_dir("/proc").unwrap();
    let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_of =
        |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|it| it.ends_with(&suffix));
    numbers.filter(is_of).collect()
}

#[test]
fn a_start_that_hangs_ends_with_its_monitor() {
    let container = Container::of("sleep 1000");
    container.write_launch();
    // Whoever reads it waits for a writer.
    std::fs::remove_file(&container.launch.config).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &container.launch.config, rustix::fs::Mode::RUSR).unwrap();
    let run = container.run_directory();
    let starting = std::thread::spawn({
        let run = run.clone();
        move || {
            evenkeel::monitor::spawn(Path::new(env!("CARGO_BIN_EXE_evenkeel-monitor")), &run, None, START_PATIENCE)
                .map(drop)
        }
    });
    let (monitor, copy) = wait_for(
        || match monitors_of(&run)[..] {
            [a, b] if parent_of(a) == Some(b) => Some((b, a)),
            [a, b] if parent_of(b) == Some(a) => Some((a, b)),
            _ => None,
        },
        || format!("{:?}", monitors_of(&run)),
    );
    // Of the monitor's descriptors it has its standard ones, those of the process to be, and the way to say so.
    let open = || std::fs::read_dir(format!("/proc/{copy}/fd")).unwrap().count();
    wait_for(|| (open() <= 7).then_some(()), || open().to_string());
    kill(monitor, rustix::process::Signal::KILL);
    wait_for(|| monitors_of(&run).is_empty().then_some(()), || format!("{:?}", monitors_of(&run)));
    assert!(matches!(liveness(&run).unwrap(), Liveness::Lost(_)));
    assert!(starting.join().unwrap().is_err());
}

/// As one in a mount of a file server that is gone: the reader of a pipe waits for a writer.
#[test]
fn a_start_that_hangs_is_given_up_with_the_name_of_what_hangs() {
    let container = Container::of("sleep 1000");
    container.write_launch();
    std::fs::remove_file(&container.launch.config).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &container.launch.config, rustix::fs::Mode::RUSR).unwrap();
    let (program, run) = (Path::new(env!("CARGO_BIN_EXE_evenkeel-monitor")), container.run_directory());
    let error = evenkeel::monitor::spawn(program, &run, None, Duration::from_secs(1)).unwrap_err();
    let MonitorError::Overdue { hanging, .. } = &error else { panic!("{error}") };
    let all = monitors_of(&run);
    let copy = all.iter().copied().find(|pid| parent_of(*pid).is_some_and(|parent| all.contains(&parent)));
    assert_eq!(hanging.iter().map(|process| process.pid).collect::<Vec<_>>(), Vec::from_iter(copy), "{error}");
    assert!(error.to_string().starts_with("it did not start within 1s: process "), "{error}");

    // The monitor goes on with it, and ends it when it is asked to.
    assert_eq!(container.client().status().unwrap().phase, Phase::Starting);
    container.client().stop(None, Some(Timespan::ZERO)).unwrap();
    // It lets go of its lock a moment before it is gone.
    wait_for(|| monitors_of(&run).is_empty().then_some(()), || format!("{:?}", monitors_of(&run)));
}
