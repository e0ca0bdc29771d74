//! `evenkeel-runtime` as its callers use it, on real bundles with a busybox root filesystem: the lifecycle in the words
//! of runtime.md, hooks, descriptors, and errors as containerd and Podman read them. Needs root.

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use evenkeel::runtime::cgroup;
use serde_json::{Value, json};
use support::oci::{Bundle, RUNTIME, namespace, receive, until};

#[test]
fn a_container_is_created_started_killed_and_deleted() {
    let bundle = Bundle::of(&["sh", "-c", "echo ran > /tmp/ran; exec sleep 600"]);
    assert!(bundle.error(&["state", "box"]).contains("does not exist"));
    bundle.ok(&["create", "box"]);
    let state = bundle.state();
    assert_eq!(
        (&state["status"], &state["ociVersion"], &state["id"]),
        (&json!("created"), &json!("1.3.0"), &json!("box"))
    );
    let path = bundle.directory.path().canonicalize().unwrap();
    assert_eq!(state["bundle"], json!(path));
    assert_eq!(state["rootfs"], json!(path.join("rootfs")));
    assert_eq!(state["annotations"], json!({"org.example.colour": "blue"}));
    assert!(humantime::parse_rfc3339(state["created"].as_str().unwrap()).is_ok());
    let pid = bundle.pid();
    assert_ne!(namespace(&pid.to_string(), "mnt"), namespace("self", "mnt"));
    assert!(!bundle.path("rootfs/tmp/ran").exists(), "the command must not run before start");
    assert!(bundle.error(&["delete", "box"]).contains("it is created, not stopped"));
    assert!(bundle.error(&["create", "box"]).contains("exists already"));
    assert_eq!(bundle.pid(), pid);

    bundle.ok(&["start", "box"]);
    assert_eq!((bundle.status(), bundle.pid()), ("running".to_owned(), pid));
    until("the command", || bundle.path("rootfs/tmp/ran").exists());
    assert!(bundle.error(&["start", "box"]).contains("it is running, not created"));
    assert!(bundle.error(&["delete", "box"]).contains("it is running, not stopped"));
    assert_eq!(bundle.pid(), pid);

    bundle.ok(&["kill", "box", "KILL"]);
    until("the end", || bundle.status() == "stopped");
    assert_eq!(bundle.pid(), 0);
    for signal in ["TERM", "9"] {
        assert!(bundle.error(&["kill", "box", signal]).contains("container not running"));
    }
    assert!(bundle.error(&["start", "box"]).contains("it is stopped, not created"));
    bundle.ok(&["delete", "box"]);
    assert!(bundle.error(&["state", "box"]).contains("does not exist"));
    assert!(bundle.error(&["delete", "box"]).contains("does not exist"));
    bundle.ok(&["delete", "--force", "box"]);
    // Its id may be used again.
    bundle.ok(&["create", "box"]);
}

#[test]
fn changes_of_the_bundle_after_create_have_no_effect() {
    let mut bundle = Bundle::of(&["sh", "-c", "echo first > /tmp/said"]);
    bundle.ok(&["create", "box"]);
    bundle.config["process"]["args"] = json!(["sh", "-c", "echo second > /tmp/said"]);
    bundle.config["linux"]["cgroupsPath"] = json!("/elsewhere");
    bundle.ok(&["start", "box"]);
    until("the end", || bundle.status() == "stopped");
    assert_eq!(bundle.text("rootfs/tmp/said"), "first\n");
}

#[test]
fn signals_have_names_and_numbers_and_reach_one_or_all() {
    let bundle = Bundle::of(&["sh", "-c", "trap 'echo usr1 >> /tmp/got' USR1; sleep 600 & while :; do wait; done"]);
    bundle.ok(&["create", "box"]);
    bundle.ok(&["start", "box"]);
    let processes = || -> Vec<i32> { serde_json::from_str(&bundle.ok(&["ps", "--format", "json", "box"])).unwrap() };
    until("two processes", || processes().len() == 2);
    for (round, signal) in ["SIGUSR1", "usr1", "10"].into_iter().enumerate() {
        bundle.ok(&["kill", "box", signal]);
        until(signal, || bundle.text("rootfs/tmp/got").lines().count() == round + 1);
    }
    assert_eq!(processes().len(), 2);
    bundle.ok(&["kill", "--all", "box", "KILL"]);
    until("the end of all", || processes().is_empty());
    assert_eq!(bundle.call(&["kill", "box", "NOPE"]).code, 64);
}

#[test]
fn hooks_of_all_six_kinds_run_in_order_each_in_its_place() {
    let mut bundle = Bundle::of(&["sh", "-c", "echo command >> /tmp/inside; exec sleep 600"]);
    let log = bundle.path("log");
    for moment in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        for number in 1..=2 {
            let line = format!(
                "echo \"{moment}{number} $(readlink /proc/self/ns/mnt) $(readlink /proc/self/ns/net) $(cat)\" >> {}",
                log.display()
            );
            bundle.shell_hook(moment, &line);
        }
    }
    fs::write(
        bundle.path("rootfs/hook"),
        "#!/bin/sh\necho \"$0 $1 $VARIABLE $(readlink /proc/self/ns/mnt) $(cat)\" >> /tmp/inside\n",
    )
    .unwrap();
    support::run(&["chmod", "755", bundle.path("rootfs/hook").to_str().unwrap()]);
    bundle.hook(
        "startContainer",
        json!({"path": "/hook", "args": ["zero", "one"], "env": ["PATH=/bin", "VARIABLE=value"], "timeout": 20}),
    );
    bundle.ok(&["create", "box"]);
    let pid = bundle.pid();
    let inner = namespace(&pid.to_string(), "mnt");
    let text = |name: &str| bundle.text(name);
    let names =
        |text: &str| -> Vec<String> { text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect() };
    let created =
        ["prestart1", "prestart2", "createRuntime1", "createRuntime2", "createContainer1", "createContainer2"];
    assert_eq!(names(&text("log")), created);
    assert_eq!(text("rootfs/tmp/inside"), "");
    bundle.ok(&["start", "box"]);
    until("the command", || text("rootfs/tmp/inside").lines().count() == 2);
    let inside = text("rootfs/tmp/inside");
    assert!(inside.starts_with(&format!("/hook one value {inner} ")), "{inside}");
    assert!(inside.ends_with("command\n"), "{inside}");
    bundle.ok(&["kill", "box", "KILL"]);
    until("the end", || bundle.status() == "stopped");
    bundle.ok(&["delete", "box"]);

    let log = text("log");
    assert_eq!(names(&log)[6..], ["poststart1", "poststart2", "poststop1", "poststop2"]);
    let inside = inside.lines().next().unwrap().to_owned();
    for line in log.lines().chain([inside.as_str()]) {
        let state: Value = serde_json::from_str(&line[line.find('{').unwrap()..]).unwrap();
        assert_eq!((&state["id"], &state["ociVersion"]), (&json!("box"), &json!("1.3.0")));
        assert_eq!(state["bundle"], json!(bundle.directory.path().canonicalize().unwrap()));
        assert_eq!(state["annotations"], json!({"org.example.colour": "blue"}));
        let (status, seen, is_inside) = match line {
            _ if line.starts_with("prestart") || line.starts_with("createRuntime") => ("creating", json!(pid), false),
            _ if line.starts_with("createContainer") => ("creating", json!(1), true),
            _ if line.starts_with("/hook") => ("created", json!(1), true),
            _ if line.starts_with("poststart") => ("running", json!(pid), false),
            _ => ("stopped", Value::Null, false),
        };
        assert_eq!((&state["status"], &state["pid"]), (&json!(status), &seen), "{line}");
        let place = if is_inside { inner.clone() } else { namespace("self", "mnt") };
        assert!(line.contains(&place), "{line}");
    }
}

#[test]
fn a_hook_of_creation_that_fails_leaves_nothing_but_its_reason() {
    for moment in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = Bundle::of(&["sh", "-c", "echo > /tmp/ran"]);
        bundle.shell_hook(moment, "echo because >&2; exit 9");
        let log = bundle.path("log").display().to_string();
        bundle.shell_hook(moment, &format!("echo second >> {log}"));
        bundle.shell_hook("poststop", &format!("echo poststop >> {log}"));
        let error = bundle.error(&["create", "box"]);
        let expected = format!("the {moment} hook `/bin/sh` failed: it ended with status 9: because");
        assert!(error.contains(&expected), "{error}");
        assert!(bundle.error(&["state", "box"]).contains("does not exist"));
        assert_eq!(bundle.text("log"), "poststop\n");
        assert!(!bundle.has_cgroup() && !bundle.path("rootfs/tmp/ran").exists());
    }
}

#[test]
fn a_hook_of_a_start_that_fails_ends_the_container() {
    for (moment, path) in [("startContainer", "/bin/false"), ("poststart", "/bin/false")] {
        let mut bundle = Bundle::of(&["sh", "-c", "echo > /tmp/ran; exec sleep 600"]);
        bundle.hook(moment, json!({"path": path}));
        let log = bundle.path("log").display().to_string();
        bundle.shell_hook("poststop", &format!("echo poststop >> {log}"));
        bundle.ok(&["create", "box"]);
        let pid = bundle.pid();
        let error = bundle.error(&["start", "box"]);
        assert!(error.contains(&format!("the {moment} hook `/bin/false` failed: it ended with status 1")), "{error}");
        assert!(bundle.error(&["state", "box"]).contains("does not exist"));
        assert_eq!(bundle.text("log"), "poststop\n");
        assert!(!bundle.has_cgroup());
        assert!(moment == "poststart" || !bundle.path("rootfs/tmp/ran").exists());
        until("the end of the process", || !Path::new(&format!("/proc/{pid}/ns/mnt")).exists());
    }
}

#[test]
fn a_poststop_hook_that_fails_is_a_warning() {
    let mut bundle = Bundle::of(&["true"]);
    bundle.hook("poststop", json!({"path": "/nowhere"}));
    let log = bundle.path("log").display().to_string();
    bundle.shell_hook("poststop", &format!("echo second >> {log}"));
    bundle.ok(&["create", "box"]);
    bundle.ok(&["start", "box"]);
    until("the end", || bundle.status() == "stopped");
    let said = bundle.call(&["--log-format", "json", "delete", "box"]);
    assert_eq!(said.code, 0);
    let warning: Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!(warning["level"], "warning");
    assert!(warning["msg"].as_str().unwrap().contains("the poststop hook `/nowhere` failed"), "{warning}");
    assert_eq!(bundle.text("log"), "second\n");
}

#[test]
fn a_hook_ends_with_its_time_and_all_that_it_started() {
    let mut bundle = Bundle::of(&["true"]);
    let log = bundle.path("log").display().to_string();
    let line = format!("sleep 300 & echo $! > {log}; wait");
    bundle.hook(
        "createRuntime",
        json!({"path": "/bin/sh", "args": ["sh", "-c", line], "env": ["PATH=/bin"], "timeout": 1}),
    );
    let begun = Instant::now();
    let error = bundle.error(&["create", "box"]);
    assert!(error.contains("it took longer than 1 s"), "{error}");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let child = bundle.text("log").trim().to_owned();
    until("the end of what it started", || {
        let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
        status.is_empty() || status.contains("State:\tZ")
    });
    for (hook, reason) in [
        (json!({"path": "bin/true"}), "`hooks.poststart[0].path`"),
        (json!({"path": "/bin/true", "timeout": 0}), "`hooks.poststart[0].timeout`"),
    ] {
        let mut bundle = Bundle::of(&["true"]);
        bundle.hook("poststart", hook);
        let error = bundle.error(&["create", "box"]);
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_create_that_is_killed_is_cleaned_by_delete() {
    let mut bundle = Bundle::of(&["true"]);
    let mark = bundle.path("mark").display().to_string();
    bundle.shell_hook("createContainer", &format!("echo > {mark}; exec sleep 300"));
    let mut create = bundle.command(&["create", "box"]).process_group(0).spawn().unwrap();
    until("the hook", || Path::new(&mark).exists());
    assert_eq!(bundle.status(), "creating");
    assert!(bundle.error(&["kill", "box"]).contains("which is creating"));
    create.kill().unwrap();
    create.wait().unwrap();
    assert!(bundle.has_cgroup());
    assert!(bundle.error(&["start", "box"]).contains("not created"));
    bundle.ok(&["delete", "--force", "box"]);
    assert!(!bundle.has_cgroup());
    // Nothing but a directory, as when it is killed at once.
    fs::create_dir(bundle.path("state/box")).unwrap();
    assert_eq!(bundle.status(), "stopped");
    bundle.ok(&["delete", "box"]);
}

#[test]
fn a_create_that_is_killed_leaves_no_process_that_the_record_does_not_have() {
    let first = Bundle::of(&["sleep", "600"]);
    first.ok(&["create", "box"]);
    first.ok(&["start", "box"]);
    let mut joining = Bundle::of(&["true"]);
    let namespaces = joining.config["linux"]["namespaces"].as_array_mut().unwrap();
    let pid = namespaces.iter_mut().find(|namespace| namespace["type"] == "pid").unwrap();
    pid["path"] = json!(format!("/proc/{}/ns/pid", first.pid()));
    // No cgroup that would end them all.
    joining.config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    joining.config["linux"].as_object_mut().unwrap().remove("resources");
    let marks = || {
        let state = joining.path("state").display().to_string();
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let its =
            |pid: &String| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(&state));
        processes.filter(its).collect::<Vec<_>>()
    };
    let inside = format!("/proc/{}/root/proc", first.pid());
    let members = || {
        let names = fs::read_dir(&inside).unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.parse::<u32>().is_ok()).collect::<BTreeSet<_>>()
    };
    let alone = members();
    for delay in (0..100).map(|step| Duration::from_micros(100 * step)) {
        let mut create = joining.command(&["create", "box"]).stderr(Stdio::null()).spawn().unwrap();
        // The first to come only begins the mount of /proc.
        let mut seen = BTreeSet::new();
        while seen.len() < 2 && create.try_wait().unwrap().is_none() {
            seen.extend(members().difference(&alone).cloned());
        }
        let end = Instant::now() + delay;
        while Instant::now() < end {}
        create.kill().unwrap();
        create.wait().unwrap();
        joining.call(&["delete", "--force", "box"]);
        until("the end of all", || marks().is_empty());
    }
}

#[test]
fn who_helps_a_process_into_a_namespace_does_not_count_against_its_limit() {
    let first = Bundle::of(&["sleep", "600"]);
    first.ok(&["create", "box"]);
    first.ok(&["start", "box"]);
    let mut joining = Bundle::of(&["sleep", "600"]);
    let namespaces = joining.config["linux"]["namespaces"].as_array_mut().unwrap();
    let pid = namespaces.iter_mut().find(|namespace| namespace["type"] == "pid").unwrap();
    pid["path"] = json!(format!("/proc/{}/ns/pid", first.pid()));
    joining.config["linux"]["resources"]["pids"] = json!({"limit": 1});
    // With hooks of creation the cgroup is joined early in version 1 too.
    joining.shell_hook("createRuntime", "true");
    joining.ok(&["create", "box"]);
    joining.ok(&["start", "box"]);
    let cgroup = cgroup::open(&cgroup::detect().unwrap(), Path::new(&joining.cgroup));
    assert_eq!((cgroup.stats().unwrap().pids, cgroup.stats().unwrap().pids_limit), (1, Some(1)));
    let refused = joining.call(&["exec", "box", "true"]);
    assert!(refused.code != 0 && refused.err.contains("a limit of 1 processes leaves no room"), "{refused:?}");
}

#[test]
fn the_number_of_the_process_is_written_to_a_file() {
    let bundle = Bundle::of(&["sleep", "600"]);
    bundle.ok(&["create", "box", "--pid-file", "pid"]);
    assert_eq!(bundle.text("pid"), bundle.pid().to_string());
    bundle.ok(&["start", "box"]);
    bundle.ok(&["exec", "box", "--detach", "--pid-file", "pid2", "sleep", "600"]);
    let found = fs::read_to_string(format!("/proc/{}/cmdline", bundle.text("pid2"))).unwrap();
    assert_eq!(found, "sleep\x00600\x00");
    // A file that cannot be written leaves no container.
    let other = Bundle::of(&["sleep", "600"]);
    assert!(other.error(&["create", "box", "--pid-file", "/nowhere/pid"]).contains("/nowhere/pid"));
    assert!(!other.has_cgroup());
}

#[test]
fn only_descriptors_that_are_asked_for_go_in() {
    let bundle = Bundle::of(&["sh", "-c", "ls -l /proc/self/fd > /tmp/fds; cat <&3 > /tmp/three; env > /tmp/env"]);
    fs::write(bundle.path("data"), "through").unwrap();
    let with_descriptors = |arguments: &[&str]| {
        // A shell, since what a Rust program opens is closed on exec.
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            "exec 3< data 4< data 5< data; export LISTEN_PID=$$; exec \"$0\" \"$@\"",
            RUNTIME,
            "--root",
        ]);
        command.arg(bundle.path("state")).args(arguments).current_dir(bundle.directory.path());
        command
    };
    bundle.ok(&["list"]);
    let said = bundle.finish(with_descriptors(&["run", "--preserve-fds", "1", "box"]));
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(bundle.text("rootfs/tmp/three"), "through");
    let numbers = |text: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.split_once(" -> "));
        lines.map(|(front, _)| front.rsplit(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(numbers(&bundle.text("rootfs/tmp/fds")), ["0", "1", "2", "3"]);
    let mut listening = with_descriptors(&["run", "box"]);
    listening.env("LISTEN_FDS", "2");
    assert_eq!(bundle.finish(listening).code, 0);
    assert_eq!(bundle.text("rootfs/tmp/three"), "through");
    let environment = bundle.text("rootfs/tmp/env");
    assert!(environment.contains("LISTEN_FDS=2\n") && environment.contains("LISTEN_PID=1\n"), "{environment}");
    let refused = bundle.call(&["create", "--preserve-fds", "7", "box"]);
    assert_eq!(refused.code, 64);
    assert!(refused.err.contains("is not open"), "{refused:?}");
}

/// What a terminal says until its other side is closed.
fn said_on(terminal: OwnedFd) -> String {
    let (mut terminal, mut bytes) = (File::from(terminal), Vec::new());
    // The end of a terminal is EIO.
    let _ = terminal.read_to_end(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_terminal_goes_to_the_console_socket() {
    let mut bundle = Bundle::of(&["sh", "-c", "tty; exec sleep 600"]);
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({"height": 33, "width": 77});
    let refused = bundle.call(&["create", "box"]);
    assert!(refused.code == 64 && refused.err.contains("--console-socket"), "{refused:?}");
    let listener = UnixListener::bind(bundle.path("console")).unwrap();
    bundle.ok(&["create", "--console-socket", "console", "box"]);
    let terminal = receive(&listener);
    let size = rustix::termios::tcgetwinsize(&terminal).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (33, 77));
    bundle.ok(&["start", "box"]);
    bundle.ok(&["exec", "--tty", "--detach", "--console-socket", "console", "box", "tty"]);
    assert_eq!(said_on(receive(&listener)), "/dev/pts/1\r\n");
    bundle.ok(&["kill", "box", "KILL"]);
    assert_eq!(said_on(terminal), "/dev/pts/0\r\n");
    bundle.ok(&["delete", "--force", "box"]);
    bundle.config["process"]["terminal"] = json!(false);
    let refused = bundle.call(&["create", "--console-socket", "console", "box"]);
    assert!(refused.code == 64 && refused.err.contains("process.terminal"), "{refused:?}");
}

#[test]
fn exec_has_its_own_status_user_directory_and_capabilities() {
    let bundle = Bundle::of(&["sleep", "600"]);
    bundle.ok(&["create", "box"]);
    bundle.ok(&["start", "box"]);
    assert_eq!(bundle.call(&["exec", "box", "sh", "-c", "exit 7"]).code, 7);
    assert_eq!(bundle.call(&["exec", "box", "sh", "-c", "kill -9 $$"]).code, 137);
    let said = bundle.ok(&[
        "exec",
        "--user",
        "5:6",
        "-g",
        "7",
        "box",
        "--cwd",
        "/tmp",
        "-e",
        "A=b",
        "sh",
        "-c",
        "id; pwd; echo $A",
    ]);
    assert_eq!(said, "uid=5 gid=6 groups=6,7\n/tmp\nb\n".replace("groups=6,7", "groups=7"), "{said}");
    assert_eq!(bundle.ok(&["exec", "-u", "web", "box", "id", "-u"]), "1000\n");
    let effective = |arguments: &[&str]| {
        let arguments = [&["exec"], arguments, &["box", "grep", "CapEff", "/proc/self/status"]].concat();
        u64::from_str_radix(bundle.ok(&arguments).split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    assert_eq!(effective(&["--cap", "CAP_CHOWN"]), effective(&[]) | 1);
    let first = bundle.pid().to_string();
    let namespaces = bundle.ok(&["exec", "box", "readlink", "/proc/self/ns/mnt"]);
    assert_eq!(namespaces.trim(), namespace(&first, "mnt"));

    for (user, id) in [(json!({"uid": 8, "gid": 9}), "8\n"), (Value::Null, "0\n")] {
        let mut process = json!({"args": ["id", "-u"], "env": ["PATH=/bin"], "cwd": "/"});
        if !user.is_null() {
            process["user"] = user;
        }
        fs::write(bundle.path("process.json"), process.to_string()).unwrap();
        assert_eq!(bundle.ok(&["exec", "--process", "process.json", "box"]), id);
    }
    assert_eq!(bundle.call(&["exec", "--process", "process.json", "--cwd", "/", "box"]).code, 64);
    for (command, words) in [("nope", "executable file not found in $PATH"), ("/nope", "no such file or directory")] {
        let said = bundle.call(&["--log", "log", "--log-format", "json", "exec", "box", command]);
        assert_eq!(said.code, 255);
        assert!(said.err.contains(words) && bundle.text("log").contains(words), "{said:?}");
    }
    bundle.ok(&["kill", "box", "KILL"]);
    until("the end", || bundle.status() == "stopped");
    assert!(bundle.error(&["exec", "box", "true"]).contains("it is stopped"));
}

#[test]
fn a_container_is_paused_listed_and_limited() {
    let bundle = Bundle::of(&["sh", "-c", "while :; do echo >> /tmp/ticks; sleep 0.01; done"]);
    assert_eq!(bundle.ok(&["list", "--quiet"]), "");
    bundle.ok(&["create", "box"]);
    bundle.ok(&["start", "box"]);
    until("ticks", || !bundle.text("rootfs/tmp/ticks").is_empty());
    assert!(bundle.error(&["resume", "box"]).contains("it is running, not paused"));
    bundle.ok(&["pause", "box"]);
    assert_eq!(bundle.status(), "paused");
    let ticks = bundle.text("rootfs/tmp/ticks");
    assert!(bundle.error(&["exec", "box", "true"]).contains("it is paused"));
    assert_eq!(bundle.text("rootfs/tmp/ticks"), ticks);
    let mut patient = bundle.command(&["exec", "--ignore-paused", "box", "true"]).spawn().unwrap();
    bundle.ok(&["resume", "box"]);
    assert!(patient.wait().unwrap().success());
    until("more ticks", || bundle.text("rootfs/tmp/ticks").len() > ticks.len());

    let listed: Value = serde_json::from_str(&bundle.ok(&["list", "--format", "json"])).unwrap();
    assert_eq!(
        (&listed[0]["id"], &listed[0]["status"], &listed[0]["owner"]),
        (&json!("box"), &json!("running"), &json!("root"))
    );
    assert_eq!(listed[0]["pid"], json!(bundle.pid()));
    assert!(bundle.ok(&["list"]).starts_with("ID"));
    assert_eq!(bundle.ok(&["list", "--quiet"]), "box\n");
    let table = bundle.ok(&["ps", "box"]);
    assert!(table.starts_with("UID") && table.contains("while :"), "{table}");
    assert!(bundle.ok(&["ps", "box", "-o", "pid,comm"]).contains("sh"));

    let limits = || cgroup::open(&cgroup::detect().unwrap(), Path::new(&bundle.cgroup)).observe().unwrap();
    bundle.ok(&["update", "box", "--memory", "64MiB", "--pids-limit", "50"]);
    assert_eq!((limits().memory.unwrap().0, limits().pids), (64 << 20, Some(50)));
    // With what Docker writes for limits that are not set.
    fs::write(
        bundle.path("resources.json"),
        json!({"memory": {"limit": 48 << 20, "kernel": 0}, "blockIO": {"weight": 0}}).to_string(),
    )
    .unwrap();
    bundle.ok(&["update", "--resources", "resources.json", "box"]);
    assert_eq!((limits().memory.unwrap().0, limits().pids), (48 << 20, Some(50)));
    bundle.ok(&["update", "box", "--memory", "-1", "--pids-limit", "-1"]);
    assert_eq!((limits().memory, limits().pids), (None, None));
    // SIGKILL ends a frozen container.
    bundle.ok(&["pause", "box"]);
    bundle.ok(&["kill", "box", "KILL"]);
    until("the end", || bundle.status() == "stopped");
}

#[test]
fn run_stays_until_the_end_and_its_status_is_the_commands() {
    let mut bundle = Bundle::of(&["sh", "-c", "echo out; echo err >&2; exit 6"]);
    let said = bundle.call(&["run", "box"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (6, "out\n", "err\n"));
    assert!(bundle.error(&["state", "box"]).contains("does not exist"));
    assert_eq!(bundle.call(&["run", "--keep", "box"]).code, 6);
    assert_eq!(bundle.status(), "stopped");
    bundle.ok(&["delete", "box"]);
    bundle.config["process"]["args"] =
        json!(["sh", "-c", "trap 'exit 5' TERM; echo > /tmp/ready; while :; do sleep 0.01; done"]);
    let mut run = bundle.command(&["run", "box"]).spawn().unwrap();
    until("the trap", || bundle.path("rootfs/tmp/ready").exists());
    rustix::process::kill_process(rustix::process::Pid::from_child(&run), rustix::process::Signal::TERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(5));
    bundle.config["process"]["args"] = json!(["sleep", "600"]);
    bundle.ok(&["run", "--detach", "box"]);
    assert_eq!(bundle.status(), "running");
    let nope = Bundle::of(&["nope"]);
    let error = nope.error(&["run", "box"]);
    assert!(error.contains("executable file not found in $PATH"), "{error}");
}

#[test]
fn signals_reach_the_command_of_who_stands_in_front_of_it() {
    // The shell's waits are interrupted by what it traps.
    let line = "for s in HUP INT QUIT USR1 USR2 ALRM TERM CONT URG WINCH IO PWR XCPU VTALRM; do \
        trap \"echo $s >> /tmp/caught\" $s; done; touch /tmp/ready; while :; do sleep 0.05; done";
    let bundle = Bundle::of(&["sh", "-c", line]);
    let mut front = bundle.command(&["run", "box"]).spawn().unwrap();
    until("the traps", || bundle.path("rootfs/tmp/ready").exists());
    let names = "HUP INT QUIT USR1 USR2 ALRM TERM CONT URG WINCH IO PWR XCPU VTALRM";
    for name in names.split(' ') {
        support::run(&["kill", "-s", if name == "IO" { "POLL" } else { name }, &front.id().to_string()]);
        until(name, || bundle.text("rootfs/tmp/caught").lines().any(|line| line == name));
    }
    bundle.ok(&["kill", "box", "KILL"]);
    assert_eq!(front.wait().unwrap().code(), Some(137));
}

#[test]
fn a_terminal_in_front_goes_on_after_a_signal_and_follows_the_window() {
    let line = "trap 'echo caught' USR1; stty size; touch /tmp/ready; while [ ! -e /tmp/end ]; do sleep 0.05; done; \
        stty size; echo last";
    let mut bundle = Bundle::of(&["sh", "-c", line]);
    bundle.config["process"]["terminal"] = json!(true);
    let size = |ws_row, ws_col| rustix::termios::Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
    let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    rustix::termios::tcsetwinsize(&master, size(20, 40)).unwrap();
    let slave = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    let slave = File::options().read(true).write(true).open(slave.to_str().unwrap()).unwrap();
    let mut front = bundle.command(&["run", "box"]);
    front.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
    let mut child = front.spawn().unwrap();
    // Its copies of the slave side would keep the terminal open.
    drop(front);
    until("the trap", || bundle.path("rootfs/tmp/ready").exists());
    let pid = child.id().to_string();
    support::run(&["kill", "-s", "USR1", &pid]);
    rustix::termios::tcsetwinsize(&master, size(33, 66)).unwrap();
    support::run(&["kill", "-s", "WINCH", &pid]);
    let inside = format!("/proc/{}/fd/0", bundle.pid());
    let terminal = || rustix::termios::tcgetwinsize(File::open(&inside).unwrap()).unwrap();
    until("the new size", || terminal().ws_row == 33);
    fs::write(bundle.path("rootfs/tmp/end"), "").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let said = said_on(master);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines, ["20 40", "caught", "33 66", "last"], "{said}");
}

#[test]
fn a_command_that_cannot_be_executed_is_told_to_who_starts_it() {
    let bundle = Bundle::of(&["/script"]);
    fs::write(bundle.path("rootfs/script"), "#!/nowhere\n").unwrap();
    support::run(&["chmod", "755", bundle.path("rootfs/script").to_str().unwrap()]);
    bundle.ok(&["create", "box"]);
    let error = bundle.error(&["start", "box"]);
    assert!(error.contains("the interpreter that `/script` names does not exist"), "{error}");
    assert_eq!(bundle.status(), "stopped");
    // Docker makes 126 of these words, Podman too.
    let bundle = Bundle::of(&["/plain"]);
    fs::write(bundle.path("rootfs/plain"), "").unwrap();
    let error = bundle.error(&["create", "box"]);
    assert!(error.contains("`/plain` cannot be executed") && error.contains("permission denied"), "{error}");
}

#[test]
fn errors_are_one_json_object_in_the_log() {
    let bundle = Bundle::of(&["true"]);
    let said = bundle.call(&["--log", "log", "--log-format", "json", "start", "box"]);
    assert_eq!(said.code, 1);
    let entry: Value = serde_json::from_str(&bundle.text("log")).unwrap();
    assert_eq!((&entry["level"], &entry["msg"]), (&json!("error"), &json!("the container `box` does not exist")));
    assert!(humantime::parse_rfc3339(entry["time"].as_str().unwrap()).is_ok());
    // A further line, not a new file.
    bundle.call(&["start", "box", "--log", "log", "--log-format", "json"]);
    assert_eq!(bundle.text("log").lines().count(), 2);
    bundle.call(&["start", "box", "--log", "text"]);
    assert!(bundle.text("text").contains("level=error msg=\"the container `box` does not exist\""));
}

#[test]
fn what_is_not_supported_or_not_known_is_said() {
    let mut bundle = Bundle::of(&["true"]);
    for (version, reason) in
        [("1.4.0", "1.0 to 1.3 are read"), ("2.0.0", "1.0 to 1.3"), ("1.x", "not a version"), ("", "not a version")]
    {
        bundle.config["ociVersion"] = json!(version);
        let error = bundle.error(&["create", "box"]);
        assert!(error.contains("ociVersion") && error.contains(reason), "{version}: {error}");
    }
    for version in ["1.0.0", "1.0.2-dev", "1.1.0+dev", "1.2.1", "1.3.0-rc.1"] {
        bundle.config["ociVersion"] = json!(version);
        // As Docker writes that there is no limit.
        bundle.config["linux"]["resources"]["blockIO"] = json!({"weight": 0});
        bundle.ok(&["create", "box"]);
        bundle.ok(&["delete", "--force", "box"]);
    }
    assert!(bundle.error(&["--systemd-cgroup", "create", "box"]).contains("cgroupfs"));
    assert!(bundle.error(&["create", "--no-pivot", "box"]).contains("--no-pivot"));
    for command in ["checkpoint", "restore"] {
        assert!(bundle.error(&[command, "box", "--tcp-established"]).contains("is not supported"));
    }
    bundle.config["linux"]["cgroupsPath"] = json!("system.slice:evenkeel:box");
    assert!(bundle.error(&["create", "box"]).contains("systemd"));
    bundle.config["linux"]["cgroupsPath"] = json!(bundle.cgroup);
    bundle.config["process"]["shoeSize"] = json!(43);
    let said = bundle.call(&["create", "box"]);
    assert!(said.code == 0 && said.err.contains("`process.shoeSize`"), "{said:?}");
    bundle.ok(&["delete", "--force", "box"]);
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_KILL", "CAP_LEVITATE"]);
    }
    let said = bundle.call(&["create", "box"]);
    assert!(said.code == 0 && said.err.contains("CAP_LEVITATE"), "{said:?}");
    let status = fs::read_to_string(format!("/proc/{}/status", bundle.pid())).unwrap();
    assert!(status.contains("CapBnd:\t0000000000000020\n"), "{status}");
    let text = bundle.config.to_string();
    fs::write(bundle.path("twice.json"), text.replacen('{', "{\"ociVersion\": \"1.0.0\", ", 1)).unwrap();
    let twice = Bundle::of(&["true"]);
    let command = twice.command(&["create", "box"]);
    fs::copy(bundle.path("twice.json"), twice.path("config.json")).unwrap();
    let said = twice.finish(command);
    assert!(said.code == 1 && said.err.contains("`ociVersion` stands there twice"), "{said:?}");
    let same = Bundle::of(&["true"]);
    fs::remove_dir_all(same.path("rootfs")).unwrap();
    assert!(same.error(&["create", "box"]).contains("rootfs"));
}

#[test]
fn a_cgroup_with_processes_is_not_shared() {
    let bundle = Bundle::of(&["sleep", "600"]);
    bundle.ok(&["create", "box"]);
    let mut other = Bundle::of(&["sleep", "600"]);
    other.config["linux"]["cgroupsPath"] = json!(bundle.cgroup);
    assert!(other.error(&["create", "box"]).contains("there are processes in the cgroup"));
    assert_eq!(bundle.status(), "created");
    // Nor is it touched.
    other.config["linux"]["cgroupsPath"] = json!(other.cgroup);
    assert!(other.error(&["state", "box"]).contains("does not exist"));
}

#[test]
fn features_are_those_of_the_specification() {
    let bundle = Bundle::of(&["true"]);
    let features: Value = serde_json::from_str(&bundle.ok(&["features"])).unwrap();
    assert_eq!((&features["ociVersionMin"], &features["ociVersionMax"]), (&json!("1.0.0"), &json!("1.3.0")));
    assert_eq!(features["hooks"].as_array().unwrap().len(), 6);
    assert!(features["linux"]["capabilities"].as_array().unwrap().contains(&json!("CAP_SYS_ADMIN")));
    // oci-spec's own reader takes it.
    let read: oci_spec::runtime::Features = serde_json::from_value(features.clone()).unwrap();
    assert_eq!(read.oci_version_max(), "1.3.0");
    assert!(features["mountOptions"].as_array().unwrap().contains(&json!("tmpcopyup")));
}

#[test]
fn the_same_runs_as_a_command_of_evenkeel() {
    let bundle = Bundle::of(&["sh", "-c", "exit 4"]);
    let call = |program: &str, arguments: &[&str]| -> Output {
        Command::new(program).args(arguments).current_dir(bundle.directory.path()).output().unwrap()
    };
    let evenkeel = env!("CARGO_BIN_EXE_evenkeel");
    fs::write(bundle.path("config.json"), bundle.config.to_string()).unwrap();
    let state = bundle.path("state");
    let run = ["--root", state.to_str().unwrap(), "run", "box"];
    assert_eq!(call(evenkeel, &[&["runtime"], &run[..]].concat()).status.code(), Some(4));
    let help = String::from_utf8(call(evenkeel, &["runtime", "--help"]).stdout).unwrap();
    assert!(help.contains("Usage: evenkeel runtime "), "{help}");

    let link = bundle.path("evenkeel-runtime");
    std::os::unix::fs::symlink(evenkeel, &link).unwrap();
    assert_eq!(call(link.to_str().unwrap(), &run).status.code(), Some(4));

    let refused = call(evenkeel, &["--root", "/nowhere", "runtime", "list"]);
    assert_eq!(refused.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("follow it"));
}

#[test]
fn the_program_is_executed_from_a_mount_that_nobody_can_write_to() {
    // CVE-2019-5736: whoever follows /proc/PID/exe of the waiting process arrives at a file that is read-only.
    let bundle = Bundle::of(&["true"]);
    bundle.ok(&["create", "box"]);
    let path = format!("/proc/{}/exe", bundle.pid());
    let file = File::open(&path).unwrap();
    assert_eq!(rustix::fs::fstat(&file).unwrap().st_ino, rustix::fs::stat(RUNTIME).unwrap().st_ino);
    // While it is executed the kernel refuses to write for that reason alone; the mount's answer is what lasts.
    let flags = rustix::fs::fstatvfs(&file).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{flags:?}");
}

#[test]
fn network_devices_move_with_their_addresses_and_names() {
    // The host's network here is one that this thread, and what it starts, has for itself.
    evenkeel::sys::namespace::unshare(libc::CLONE_NEWNET).unwrap();
    let ip = |line: &str| support::run(&["ip"].into_iter().chain(line.split(' ')).collect::<Vec<_>>());
    ip("link add ek0 type veth peer name ek1");
    ip("link add ek2 type veth peer name ek3");
    for line in [
        "addr add 192.0.2.1/24 broadcast 192.0.2.255 dev ek0",
        "addr add 192.0.2.7/32 dev ek0",
        "addr add 169.254.9.9/16 scope link dev ek0",
        "addr add 2001:db8::1/64 dev ek0 nodad",
        "addr add 192.0.2.2/24 dev ek1",
        "link set ek1 up",
    ] {
        ip(line);
    }
    let hardware = |text: &str| text.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let before = hardware(&support::run(&["ip", "-o", "link", "show", "ek0"]));
    let line = "ip -o addr show eth0; ip -o link show eth0; ls /sys/class/net; cat /proc/sys/net/ipv4/conf/eth0/forwarding; \
        touch /tmp/ready; while [ ! -e /tmp/end ]; do sleep 0.05; done";
    let mut bundle = Bundle::of(&["sh", "-c", line]);

    bundle.config["linux"]["netDevices"] = json!({"ek0": {"name": "lo"}});
    assert!(bundle.error(&["run", "box"]).contains("cannot move the network device `ek0 to lo`"));
    bundle.config["linux"]["netDevices"] = json!({"ek0": {"name": "eth0"}, "nope": {}});
    assert!(bundle.error(&["run", "box"]).contains("cannot move the network device `nope`"));
    ip("link show ek0");
    // The number that the kernel finds for the first is the second's name: the first comes back as it was.
    let addresses = || {
        let all = support::run(&["ip", "-o", "addr", "show", "ek0", "scope", "global"]);
        (all, support::run(&["ip", "-o", "link", "show", "ek0"]).contains("state UP"))
    };
    let as_they_were = addresses();
    bundle.config["linux"]["netDevices"] = json!({"ek0": {"name": "clash%d"}, "ek2": {"name": "clash0"}});
    assert!(bundle.error(&["run", "box"]).contains("cannot move the network device `ek2`"));
    assert_eq!(addresses(), as_they_were);

    bundle.config["linux"]["netDevices"] = json!({"ek0": {"name": "eth0"}, "ek2": {"name": "more%d"}});
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.conf.eth0.forwarding": "1"});
    let front = bundle.command(&["run", "box"]).stdout(Stdio::piped()).spawn().unwrap();
    until("the command", || bundle.path("rootfs/tmp/ready").exists());
    // It is up on both sides.
    support::run(&["busybox", "ping", "-c", "1", "-w", "10", "192.0.2.1"]);
    fs::write(bundle.path("rootfs/tmp/end"), "").unwrap();
    let output = front.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for address in [
        "inet 192.0.2.1/24 brd 192.0.2.255 scope global",
        "inet 192.0.2.7/32 scope global",
        "inet6 2001:db8::1/64 scope global",
    ] {
        assert!(text.contains(address), "{address}: {text}");
    }
    assert!(!text.contains("169.254.9.9"), "{text}");
    assert_eq!(hardware(&text), before);
    assert!(text.ends_with("eth0\nlo\nmore0\n1\n"), "{text}");
    assert!(!support::run(&["ip", "-o", "link"]).contains("ek0"));
}

#[test]
fn cgroups_above_a_containers_own_go_with_the_last_that_needs_them() {
    let mut bundle = Bundle::of(&["sleep", "600"]);
    let hierarchy = cgroup::detect().unwrap();
    let top = bundle.cgroup.clone();
    let exists = |below: &str| cgroup::open(&hierarchy, Path::new(&format!("{top}{below}"))).exists();
    let place =
        |bundle: &mut Bundle, below: &str| bundle.config["linux"]["cgroupsPath"] = json!(format!("{top}{below}"));
    place(&mut bundle, "/deep/box");
    bundle.ok(&["create", "box"]);
    place(&mut bundle, "/deep/other");
    bundle.ok(&["create", "other"]);
    bundle.ok(&["delete", "--force", "box"]);
    assert!(exists("/deep/other") && !exists("/deep/box"));
    bundle.ok(&["delete", "--force", "other"]);
    assert!(!exists("/deep") && !exists(""));

    // What was there before stays.
    cgroup::create(&hierarchy, Path::new(&format!("{top}/kept")), &Default::default()).unwrap();
    place(&mut bundle, "/kept/made/box");
    bundle.ok(&["create", "box"]);
    bundle.ok(&["delete", "--force", "box"]);
    assert!(exists("/kept") && !exists("/kept/made"));
    cgroup::open(&hierarchy, Path::new(&top)).remove().unwrap();
}

#[test]
fn a_container_that_waits_has_the_runtimes_name_and_takes_real_time_signals() {
    let bundle =
        Bundle::of(&["sh", "-c", "trap 'echo got >> /tmp/got' 37; touch /tmp/ready; while :; do sleep 0.05; done"]);
    bundle.ok(&["create", "box"]);
    // 15 bytes of it (proc(5)).
    assert_eq!(fs::read_to_string(format!("/proc/{}/comm", bundle.pid())).unwrap(), "evenkeel-runtim\n");
    bundle.ok(&["start", "box"]);
    until("the trap", || bundle.path("rootfs/tmp/ready").exists());
    for (round, signal) in ["SIGRTMIN+3", "RTMAX-27", "37"].into_iter().enumerate() {
        bundle.ok(&["kill", "box", signal]);
        until(signal, || bundle.text("rootfs/tmp/got").lines().count() == round + 1);
    }
}

#[test]
fn a_rootless_configuration_has_a_user_namespace_and_the_hosts_network() {
    let mut bundle = Bundle::new();
    fs::remove_file(bundle.path("config.json")).unwrap();
    let made = support::oci::runtime(&bundle.directory, &["spec", "--rootless", "--bundle"])
        .arg(bundle.directory.path())
        .status();
    assert!(made.unwrap().success());
    let mut config: Value = serde_json::from_str(&bundle.text("config.json")).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!([
        "sh",
        "-c",
        "cat /proc/self/uid_map; readlink /proc/self/ns/net; readlink /proc/self/ns/user; ls /sys/class/net/lo/mtu"
    ]);
    config["process"]["env"] = json!(["PATH=/bin"]);
    config["process"].as_object_mut().unwrap().remove("rlimits");
    config["linux"]["cgroupsPath"] = json!(bundle.cgroup);
    bundle.config = config;
    let said = bundle.ok(&["run", "box"]);
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words[..3], ["0", "0", "1"], "{said}");
    assert_eq!(words[3], namespace("self", "net"));
    assert_ne!(words[4], namespace("self", "user"));
    assert_eq!(words[5], "/sys/class/net/lo/mtu");
}

#[test]
fn an_exec_that_waits_for_a_paused_container_can_be_ended() {
    let bundle = Bundle::of(&["sleep", "600"]);
    bundle.ok(&["create", "box"]);
    bundle.ok(&["start", "box"]);
    bundle.ok(&["pause", "box"]);
    let processes = || -> Vec<i32> { serde_json::from_str(&bundle.ok(&["ps", "--format", "json", "box"])).unwrap() };
    let mut waiting = bundle.command(&["exec", "--detach", "--ignore-paused", "box", "sleep", "600"]).spawn().unwrap();
    until("the second process", || processes().len() == 2);
    support::run(&["kill", &waiting.id().to_string()]);
    until("the end of who waits", || waiting.try_wait().unwrap().is_some());
    // What it has begun ends with it.
    bundle.ok(&["resume", "box"]);
    until("one process", || processes().len() == 1);
}

#[test]
fn a_kill_ends_everything_where_the_container_has_no_pid_namespace_of_its_own() {
    let mut bundle = Bundle::of(&["sleep", "600"]);
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|kind| kind["type"] != "pid");
    let processes = || cgroup::open(&cgroup::detect().unwrap(), Path::new(&bundle.cgroup)).processes().unwrap();
    for ends_first in [false, true] {
        bundle.ok(&["run", "--detach", "box"]);
        bundle.ok(&["exec", "--detach", "box", "sleep", "600"]);
        assert_eq!(processes().len(), 2);
        if ends_first {
            let first = rustix::process::Pid::from_raw(bundle.pid() as i32).unwrap();
            rustix::process::kill_process(first, rustix::process::Signal::KILL).unwrap();
            until("the end of the first", || bundle.status() == "stopped");
            assert_eq!(processes().len(), 1, "nothing ends the other");
        } else {
            bundle.ok(&["kill", "box", "0"]);
        }
        bundle.ok(&["kill", "box", "KILL"]);
        until("the end of all", || processes().is_empty());
        assert!(bundle.error(&["kill", "box", "0"]).contains("container not running"));
        bundle.ok(&["delete", "box"]);
    }
}

#[test]
fn a_variable_is_there_once_and_hooks_inside_have_what_the_command_has() {
    let mut bundle = Bundle::of(&["sh", "-c", "env | sort; cat /tmp/hook"]);
    bundle.config["process"]["env"] = json!(["PATH=/bin", "A=1", "B=x=y", "HOME=", "A=2"]);
    bundle.hook("startContainer", json!({"path": "/bin/sh", "args": ["sh", "-c", "echo hook $A > /tmp/hook"]}));
    let own = json!({"path": "/bin/sh", "args": ["sh", "-c", "echo own $A >> /tmp/hook"], "env": ["A=3"]});
    bundle.hook("startContainer", own);
    let said = bundle.ok(&["run", "box"]);
    let lines: Vec<&str> =
        said.lines().filter(|line| !line.starts_with("SHLVL=") && !line.starts_with("PWD=")).collect();
    assert_eq!(lines, ["A=2", "B=x=y", "HOME=/root", "PATH=/bin", "hook 2", "own 3"]);
    // A shell would hide that there are two.
    bundle.config["process"]["args"] = json!(["cat", "/proc/self/environ"]);
    assert_eq!(bundle.ok(&["run", "box"]).split('\0').filter(|variable| variable.starts_with("A=")).count(), 1);
}

#[test]
fn on_which_processors_the_caller_runs_does_not_limit_the_container() {
    let allowed = |status: &str| status.lines().find(|line| line.starts_with("Cpus_allowed_list")).map(str::to_owned);
    let everything = allowed(&fs::read_to_string("/proc/self/status").unwrap());
    let bundle = Bundle::of(&["sh", "-c", "cat /proc/self/status > /tmp/status; exec sleep 600"]);
    let pinned = |arguments: &[&str]| {
        let command = bundle.command(arguments);
        let mut pinned = Command::new("taskset");
        pinned.args(["-c", "0"]).arg(command.get_program()).args(command.get_args());
        let said = bundle.finish({
            pinned.current_dir(bundle.directory.path()).stdin(Stdio::null());
            pinned
        });
        assert_eq!(said.code, 0, "{said:?}");
        said.out
    };
    pinned(&["run", "--detach", "box"]);
    until("the status", || allowed(&bundle.text("rootfs/tmp/status")).is_some());
    assert_eq!(allowed(&bundle.text("rootfs/tmp/status")), everything);
    assert_eq!(allowed(&pinned(&["exec", "box", "cat", "/proc/self/status"])), everything);
}

#[test]
fn a_descriptor_of_the_process_goes_to_the_pidfd_socket() {
    let bundle = Bundle::of(&["sleep", "600"]);
    let listener = UnixListener::bind(bundle.path("pidfd.sock")).unwrap();
    let of = |pidfd: OwnedFd| {
        let number = std::os::fd::AsRawFd::as_raw_fd(&pidfd);
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
        text.lines().find_map(|line| line.strip_prefix("Pid:")).map(|pid| pid.trim().to_owned()).unwrap()
    };
    bundle.ok(&["run", "--detach", "--pidfd-socket", "pidfd.sock", "box"]);
    assert_eq!(of(receive(&listener)), bundle.pid().to_string());
    bundle.ok(&["exec", "--detach", "--pidfd-socket", "pidfd.sock", "--pid-file", "pid", "box", "sleep", "600"]);
    assert_eq!(of(receive(&listener)), bundle.text("pid"));
}

#[test]
fn a_bind_mount_is_found_in_the_bundle_and_a_path_is_masked_once() {
    let mut bundle = Bundle::of(&["sh", "-c", "cat /data/word; grep -c ' /masked ' /proc/self/mountinfo"]);
    fs::create_dir(bundle.path("data")).unwrap();
    fs::write(bundle.path("data/word"), "found\n").unwrap();
    fs::create_dir(bundle.path("rootfs/masked")).unwrap();
    let mount = json!({"destination": "/data", "source": "data", "options": ["rbind", "ro"]});
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
    bundle.config["linux"]["maskedPaths"] = json!(["/masked", "/masked"]);
    assert_eq!(bundle.ok(&["run", "box"]), "found\n1\n");
}

#[test]
fn a_limit_of_no_processes_is_one_and_a_period_counts_for_the_quota_that_comes_after_it() {
    let mut bundle = Bundle::of(&["sleep", "600"]);
    bundle.config["linux"]["resources"]["cpu"] = json!({"period": 50_000});
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 0});
    bundle.ok(&["run", "--detach", "box"]);
    let limits = || cgroup::open(&cgroup::detect().unwrap(), Path::new(&bundle.cgroup)).observe().unwrap();
    assert_eq!((limits().cpus, limits().pids), (None, Some(1)));
    bundle.ok(&["update", "box", "--cpu-quota", "25000"]);
    assert_eq!(limits().cpus.map(|cpus| cpus.to_string()).as_deref(), Some("0.5"));
}

#[test]
fn a_filter_holds_for_hooks_of_the_start_and_need_not_know_of_new_system_calls() {
    let refusing = |names: &[&str]| {
        let calls = json!([{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}]);
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls})
    };
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::of(&["true"]);
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.config["linux"]["seccomp"] =
            refusing(&["close_range", "openat2", "open_tree", "move_mount", "mount_setattr", "fsopen", "fsconfig"]);
        bundle.ok(&["run", "box"]);
        bundle.config["linux"]["seccomp"] = refusing(&["mkdir", "mkdirat"]);
        bundle.hook("startContainer", json!({"path": "/bin/mkdir", "args": ["mkdir", "/tmp/made"]}));
        let error = bundle.error(&["run", "box"]);
        assert!(error.contains("startContainer hook") && error.contains("not implemented"), "{error}");
        assert!(!bundle.path("rootfs/tmp/made").exists());
    }
}

#[test]
fn events_tell_what_is_used_and_that_memory_was_short() {
    let mut bundle =
        Bundle::of(&["sh", "-c", "while ! test -e /tmp/go; do sleep 0.05; done; tail /dev/zero; sleep 600"]);
    bundle.config["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
    assert!(bundle.error(&["events", "--stats", "box"]).contains("does not exist"));
    bundle.ok(&["run", "--detach", "box"]);
    let line = bundle.ok(&["events", "--stats", "box"]);
    assert!(line.starts_with(r#"{"type":"stats","id":"box","data":{"#), "{line}");
    let data = &serde_json::from_str::<Value>(&line).unwrap()["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 16 << 20);
    for path in ["/memory/usage/usage", "/cpu/usage/total", "/pids/current"] {
        assert!(data.pointer(path).and_then(Value::as_u64).is_some_and(|value| value > 0), "{path}: {line}");
    }
    let said = File::create(bundle.path("events")).unwrap();
    let mut events = bundle.command(&["events", "--interval", "10ms", "box"]).stdout(said).spawn().unwrap();
    until("several lines", || bundle.text("events").matches("\"stats\"").count() > 2);
    assert!(!bundle.text("events").contains("oom"));
    File::create(bundle.path("rootfs/tmp/go")).unwrap();
    until("the kill", || bundle.text("events").contains("{\"type\":\"oom\",\"id\":\"box\"}\n"));
    bundle.ok(&["kill", "box", "KILL"]);
    assert!(events.wait().unwrap().success(), "it ends with the container");
    assert!(bundle.error(&["events", "box"]).contains("it is stopped"));
}

#[test]
fn a_dev_that_is_read_only_has_its_devices_all_the_same() {
    let mut bundle =
        Bundle::of(&["sh", "-c", "ls -d /dev/null /dev/pts/ptmx; echo > /dev/null; touch /dev/shm/a; touch /dev/a"]);
    for mount in bundle.config["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/dev" {
            mount["options"].as_array_mut().unwrap().push(json!("ro"));
        }
    }
    let said = bundle.call(&["run", "box"]);
    assert_eq!(said.out, "/dev/null\n/dev/pts/ptmx\n", "{said:?}");
    assert_eq!((said.code, said.err.as_str()), (1, "touch: /dev/a: Read-only file system\n"));
}

#[test]
fn nobody_is_born_in_a_frozen_cgroup() {
    let bundle = Bundle::of(&["true"]);
    let cgroup = cgroup::create(&cgroup::detect().unwrap(), Path::new(&bundle.cgroup), &Default::default()).unwrap();
    cgroup.freeze().unwrap();
    assert!(bundle.error(&["create", "box"]).contains("is there already, and frozen"));
    assert!(bundle.error(&["state", "box"]).contains("does not exist"));
    cgroup.thaw().unwrap();
    bundle.ok(&["run", "box"]);
}
