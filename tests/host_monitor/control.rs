//! Exec, attach, and clients that do not keep to the rules.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use evenkeel::model::actual::Liveness;
use evenkeel::model::launch::Terminal;
use evenkeel::model::status::{Exit, Phase};
use evenkeel::model::units::Timespan;
use evenkeel::monitor::client::Descriptors;
use evenkeel::monitor::protocol::{ExecSpec, FailureKind};
use evenkeel::monitor::{MonitorError, liveness};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with};

use rustix::process::Signal;

use crate::fixture::{Container, kill, wait_for};

fn shell(line: &str) -> ExecSpec {
    ExecSpec { command: ["/bin/sh", "-c", line].map(str::to_owned).to_vec(), ..ExecSpec::default() }
}

/// Runs a further process to its end: what it wrote, and how it ended.
fn exec(container: &Container, spec: ExecSpec, input: &str) -> Result<(String, Exit), MonitorError> {
    let (stdin, mut feed) = std::io::pipe().unwrap();
    let (mut output, stdout) = std::io::pipe().unwrap();
    feed.write_all(input.as_bytes()).unwrap();
    drop(feed);
    let descriptors = Descriptors { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stdout.as_fd() };
    let running = container.client().exec(spec, &descriptors)?;
    drop((stdin, stdout));
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    Ok((text, running.wait()?))
}

#[test]
fn a_further_process_has_the_callers_descriptors_and_its_end_is_told() {
    let container = Container::of("sleep 1000");
    container.start();
    let (text, exit) = exec(&container, shell("cat; echo $A $PATH; pwd; exit 9"), "in\n").unwrap();
    assert_eq!((text.as_str(), exit), ("in\n/bin\n/\n", Exit::Code(9)));
    let spec = ExecSpec {
        environment: vec!["A=b c".into()],
        working_dir: Some("/tmp".into()),
        user: Some("web".into()),
        ..shell("echo $A; pwd; id -un; kill -9 $$")
    };
    let (text, exit) = exec(&container, spec, "").unwrap();
    assert_eq!(text, "b c\n/tmp\nweb\n");
    assert_eq!(exit, Exit::Signal(evenkeel::model::units::Signal::KILL));
    assert_eq!(container.status().phase, Phase::Running);
}

#[test]
fn a_further_process_that_cannot_start_says_why() {
    let container = Container::of("sleep 1000");
    container.start();
    let nothing = ExecSpec { command: vec!["nothing".into()], ..ExecSpec::default() };
    let Err(MonitorError::Start(failure)) = exec(&container, nothing, "") else { panic!("it started") };
    assert_eq!(failure.kind, FailureKind::CommandNotFound, "{failure:?}");
    container.client().pause().unwrap();
    let Err(MonitorError::Refused(reason)) = exec(&container, shell("true"), "") else { panic!("it started") };
    assert!(reason.contains("paused"), "{reason}");
}

/// Whoever paused it for a while may be killed.
#[test]
fn a_container_that_is_held_goes_on_when_its_holder_is_gone() {
    let container = Container::of("sleep 1000");
    container.start();
    let phase = || container.client().status().unwrap().phase;
    let held = container.client().hold().unwrap();
    assert_eq!(phase(), Phase::Paused);
    drop(held);
    wait_for(|| (phase() == Phase::Running).then_some(()), || "it is paused".into());

    container.client().hold().unwrap().resume().unwrap();
    assert_eq!(phase(), Phase::Running);

    // What somebody else pauses stays so: before, and meanwhile.
    container.client().pause().unwrap();
    let Err(MonitorError::Refused(_)) = container.client().hold() else { panic!("it is paused already") };
    container.client().resume().unwrap();
    let held = container.client().hold().unwrap();
    container.client().resume().unwrap();
    container.client().pause().unwrap();
    drop(held);
    // Asked after that connection has ended.
    assert_eq!([phase(), phase()], [Phase::Paused; 2]);
}

#[test]
fn a_further_process_gets_a_terminal() {
    let container = Container::of("sleep 1000");
    container.start();
    let mut running =
        container.client().exec_on_terminal(shell("tty; stty size; read line; echo \"<$line>\"")).unwrap();
    let mut terminal = File::from(running.terminal.take().unwrap());
    let size = rustix::termios::Winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&terminal, size).unwrap();
    terminal.write_all(b"hello\n").unwrap();
    let mut text = Vec::new();
    // The end of a terminal is an error (pty(7)).
    let _ = terminal.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("/dev/pts/") && text.contains("<hello>"), "{text}");
    assert_eq!(running.wait().unwrap(), Exit::Code(0));
}

#[test]
fn a_container_with_a_terminal_is_logged_and_can_be_typed_to() {
    let mut container = Container::of("tty; while read line; do echo \"<$line>\"; done");
    container.launch.terminal = Terminal::Tty;
    container.config["process"]["terminal"] = true.into();
    container.start();
    container.await_log("/dev/pts/0");
    let client = container.client();
    let attached = client.attach().unwrap();
    let mut input = File::from(attached.stdin.unwrap());
    input.write_all(b"one\n").unwrap();
    container.await_log("<one>");
    let mut shown = File::from(attached.stdout);
    let mut text = String::new();
    while !text.contains("<one>") {
        let mut piece = [0; 100];
        let count = shown.read(&mut piece).unwrap();
        text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
}

#[test]
fn an_open_standard_input_is_handed_to_who_attaches() {
    let mut container = Container::of("while read line; do echo \"<$line>\"; echo \"[$line]\" >&2; done");
    container.launch.terminal = Terminal::StdinOpen;
    container.start();
    let attached = container.client().attach().unwrap();
    File::from(attached.stdin.unwrap()).write_all(b"one\n").unwrap();
    let first_line = |from: OwnedFd| {
        let mut text = [0; 6];
        File::from(from).read_exact(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    };
    assert_eq!((first_line(attached.stdout), first_line(attached.stderr)), ("<one>\n".into(), "[one]\n".into()));
}

#[test]
fn an_onlooker_who_does_not_read_holds_nobody_up() {
    let container = Container::of("seq 1 300000; echo done; sleep 1000");
    container.start();
    let _attached = container.client().attach().unwrap();
    container.await_log("done");
}

#[test]
fn rubbish_is_refused_and_changes_nothing() {
    let container = Container::of("sleep 1000");
    let pid = container.start();
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    connect(&socket, &SocketAddrUnix::new(container.run_directory().join("control")).unwrap()).unwrap();
    for rubbish in [&b"{"[..], b"\xff\xff", b"\"explode\"", b"{\"exec\":{\"command\":[\"true\"]}}", b"\"attach\""] {
        send(&socket, rubbish, SendFlags::NOSIGNAL).unwrap();
        let mut answer = [0; 4096];
        let (count, _) = rustix::net::recv(&socket, &mut answer[..], rustix::net::RecvFlags::empty()).unwrap();
        let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
        assert!(answer.starts_with("{\"refused\":"), "{answer}");
    }
    assert_eq!(container.client().status().unwrap().pid, Some(pid));
}

#[test]
fn many_clients_at_once_are_served() {
    let container = Container::of("sleep 1000");
    container.start();
    let idle: Vec<_> = (0..40).map(|_| container.client()).collect();
    let clients: Vec<_> = (0..40)
        .map(|n| {
            let line = format!("exit {n}");
            std::thread::scope(|scope| scope.spawn(|| exec(&container, shell(&line), "").unwrap().1).join().unwrap())
        })
        .collect();
    assert_eq!(clients, (0..40).map(Exit::Code).collect::<Vec<_>>());
    drop(idle);
    wait_for(|| container.client().status().ok().map(drop), || "no answer".into());
}

#[test]
fn a_status_file_that_was_taken_away_comes_back_with_the_first_look() {
    let container = Container::of("sleep 1000");
    let pid = container.start();
    let directory = container.run_directory();
    let file = directory.join(evenkeel::model::paths::run::STATUS);
    std::fs::remove_file(&file).unwrap();
    let Liveness::Monitored(status) = liveness(&directory).unwrap() else { panic!("it runs, and is not seen") };
    assert_eq!(status.pid, Some(pid));
    assert!(file.exists());
}

#[test]
fn a_monitor_that_is_stopped_is_given_up_when_its_container_is_to_end() {
    let container = Container::of("sleep 1000");
    container.start();
    let monitor = container.monitor_pid();
    kill(monitor, Signal::STOP);
    let error = container.client().stop(None, Some(Timespan::ZERO)).unwrap_err();
    kill(monitor, Signal::CONT);
    let MonitorError::Overdue { hanging, .. } = &error else { panic!("{error}") };
    assert!(matches!(&hanging[..], [process] if process.pid == monitor && process.is_stopped()), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("kill -CONT")), "{error}");
    wait_for(
        || matches!(liveness(&container.run_directory()), Ok(Liveness::Ended(_))).then_some(()),
        || "it runs".into(),
    );
}

/// Frozen by somebody else's control group of version 1 a process sleeps uninterruptibly, as one does that waits for a dead
/// disk: no signal ends it. Version 2 has no such state for a test to make.
#[test]
fn what_cannot_be_killed_is_named_and_its_monitor_goes_on() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let hierarchies = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let freezer = hierarchies.filter(|mount| mount[2] == "cgroup" && mount[3].split(',').any(|it| it == "freezer"));
    let Some(freezer) = freezer.map(|mount| mount[1].to_owned()).next() else {
        return println!("ignored: there is no freezer of version 1");
    };
    let container = Container::of("sleep 1000");
    let pid = container.start();
    let home = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let home = home.lines().find_map(|line| line.split_once(":freezer:")).unwrap().1.to_owned();
    let frozen = std::path::PathBuf::from(&freezer).join(format!("evenkeel-test-{}", std::process::id()));
    std::fs::create_dir(&frozen).unwrap();
    std::fs::write(frozen.join("cgroup.procs"), pid.to_string()).unwrap();
    std::fs::write(frozen.join("freezer.state"), "FROZEN").unwrap();
    let stopped = container.client().stop(None, Some(Timespan::ZERO));
    let status = container.client().status();
    std::fs::write(frozen.join("freezer.state"), "THAWED").unwrap();
    let home = std::path::PathBuf::from(&freezer).join(home.trim_start_matches('/')).join("cgroup.procs");
    // The signal that was sent ends it now; it may be gone already.
    let _ = std::fs::write(home, pid.to_string());
    let error = stopped.unwrap_err();
    let MonitorError::Overdue { hanging, .. } = &error else { panic!("{error}") };
    assert!(matches!(&hanging[..], [process] if process.pid == pid && process.is_uninterruptible()), "{error}");
    assert_eq!(status.unwrap().phase, Phase::Stopping);
    wait_for(
        || matches!(liveness(&container.run_directory()), Ok(Liveness::Ended(_))).then_some(()),
        || "it runs".into(),
    );
    wait_for(|| std::fs::remove_dir(&frozen).ok(), || "somebody is frozen".into());
}
