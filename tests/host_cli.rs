//! The command line end to end: real containers, as somebody at a shell would have them.
//!
//! Every test has a network namespace, a state root and a project of its own, and takes it down at its end.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evenkeel::model::record::RECORD_VERSION;
use serde_json::Value;
use support::shell::{Answer, Shell};
use support::{eventually, run};

/// A container that waits to be stopped, and obeys at once.
const WEB: &str = r#"
[containers.web]
image = "box"
command = ["sh", "-c", "trap 'exit 0' TERM; echo started; echo complaint >&2; while :; do sleep 0.1; done"]
restart = "always"
"#;

#[test]
fn a_project_is_applied_looked_at_changed_and_taken_down() {
    Shell::with(|shell| {
        shell.manifest(WEB);
        let plan = shell.run(&["plan", "--detailed-exitcode"]);
        assert_eq!(plan.code, 2, "{plan:#?}");
        assert!(plan.stdout.contains("+   container web"), "{plan:#?}");
        assert_eq!(shell.json(&["ps"]), serde_json::json!([]), "a plan changes nothing");

        let applied = shell.ok(&["apply", "--wait"]);
        assert!(applied.stdout.contains("done     container web  started"), "{applied:#?}");
        let pid = shell.pid("web");
        assert!(shell.ok(&["ps"]).stdout.contains("shop/web"));
        assert!(shell.plan_is_empty());
        assert!(shell.ok(&["apply"]).stdout.contains("nothing to do"));
        assert!(shell.ok(&["status"]).stdout.contains("project shop is as declared"));

        shell.manifest(&WEB.replace("\"always\"", "\"on-failure\""));
        let plan = shell.ok(&["plan"]).stdout;
        assert!(plan.contains("\"always\" -> \"on-failure\"  (live)"), "{plan}");
        assert!(shell.ok(&["status"]).stdout.contains("restart"));
        shell.ok(&["apply"]);
        assert_eq!(shell.pid("web"), pid, "a live change does not restart");

        shell.manifest(&WEB.replace("echo started", "echo replaced"));
        shell.ok(&["apply", "--wait"]);
        assert_ne!(shell.pid("web"), pid);
        assert!(shell.plan_is_empty());

        shell.ok(&["down"]);
        assert_eq!(shell.json(&["ps"]), serde_json::json!([]));
        assert!(!shell.plan_is_empty());
    });
}

#[test]
fn what_a_container_wrote_is_shown_and_followed() {
    Shell::with(|shell| {
        shell.manifest(WEB);
        shell.ok(&["apply", "--wait"]);
        eventually("both streams are logged", || {
            let logs = shell.run(&["logs", "web"]);
            (logs.stdout.as_str(), logs.stderr.as_str()) == ("started\n", "complaint\n")
        });
        assert_eq!(shell.ok(&["logs", "web", "--tail", "0"]).stdout, "");
        assert_eq!(shell.ok(&["logs", "web", "--since", "2000-01-01T00:00:00Z"]).stdout, "started\n");
        let stamped = shell.ok(&["logs", "--timestamps", "web"]).stdout;
        assert!(stamped.starts_with("20") && stamped.ends_with("Z started\n"), "{stamped}");
        let line: Value = serde_json::from_str(shell.ok(&["logs", "--json"]).stdout.lines().next().unwrap()).unwrap();
        assert_eq!((&line["container"], &line["text"]), (&"shop/web".into(), &"started\n".into()));

        let mut follower = shell.command(&["logs", "-f", "web"]).stdout(Stdio::piped()).spawn().unwrap();
        shell.ok(&["exec", "web", "sh", "-c", "echo later >/proc/1/fd/1"]);
        let screen = Screen::of(follower.stdout.take().unwrap());
        screen.shows("started\nlater\n");
        shell.ok(&["down"]);
        assert_eq!(exit_code(follower, Duration::from_secs(10)), 0, "following ends with the container");
    });
}

fn exit_code(mut child: Child, patience: Duration) -> i32 {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it did not end in time: {child:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn exec_gives_status_input_environment_and_directory() {
    Shell::with(|shell| {
        shell.manifest(WEB);
        shell.ok(&["apply", "--wait"]);
        assert_eq!(shell.run(&["exec", "web", "sh", "-c", "exit 42"]).code, 42);
        assert_eq!(shell.run(&["exec", "web", "sh", "-c", "kill -9 $$"]).code, 137);
        let missing = shell.run(&["exec", "web", "nonesuch"]);
        assert_eq!(missing.code, 127, "{missing:#?}");
        assert!(missing.stderr.contains("nonesuch"), "{missing:#?}");
        assert_eq!(shell.run(&["exec", "web", "/etc/passwd"]).code, 126);
        assert_eq!(shell.ok(&["exec", "-e", "A=1 2", "web", "sh", "-c", "echo $A"]).stdout, "1 2\n");
        assert_eq!(shell.ok(&["exec", "-w", "/tmp", "web", "sh", "-c", "pwd"]).stdout, "/tmp\n");
        assert_eq!(shell.ok(&["exec", "-u", "web", "web", "id", "-u"]).stdout, "1000\n");
        assert_eq!(shell.ok(&["exec", "web", "cat"]).stdout, "", "without -i the input is empty");

        let mut child = shell
            .command(&["exec", "-i", "web", "sh", "-c", "cat; echo end >&2"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"through and through\n").unwrap();
        let answer = Answer::of(child.wait_with_output().unwrap());
        assert_eq!(
            (answer.code, answer.stdout.as_str(), answer.stderr.as_str()),
            (0, "through and through\n", "end\n")
        );

        let unknown = shell.run(&["exec", "wbe", "true"]);
        assert_eq!(unknown.code, 125);
        assert!(unknown.stderr.contains("did you mean `web`?"), "{unknown:#?}");
        assert_eq!(shell.run(&["exec", "-it", "web", "true"]).code, 125, "no terminal to type at");
        // Where nobody types, a command may want a terminal all the same.
        assert_eq!(shell.ok(&["exec", "-t", "web", "tty"]).stdout, "/dev/pts/0\r\n");
    });
}

#[test]
fn a_container_gets_no_terminal_and_no_file_of_the_host() {
    const LOOK: &str = "cat; for n in 0 1 2; do readlink /proc/self/fd/$n; done; echo more >&2";
    Shell::with(|shell| {
        shell.manifest(WEB);
        shell.ok(&["apply", "--wait"]);
        // More than a pipe holds, both ways.
        let text = "to and fro\n".repeat(100_000);
        shell.write("input", &text);
        let (input, output) = (fs::File::open(shell.path("input")).unwrap(), shell.path("output"));
        let written = fs::File::create(&output).unwrap();
        let mut command = shell.command(&["exec", "-i", "web", "sh", "-c", LOOK]);
        command.stdin(input).stdout(written.try_clone().unwrap()).stderr(written);
        assert_eq!(exit_code(command.spawn().unwrap(), Duration::from_secs(20)), 0);
        let told = fs::read_to_string(&output).unwrap();
        let told: Vec<&str> = told.strip_prefix(&text).expect("all of it, first").lines().collect();
        assert!(told[..3].iter().all(|link| link.starts_with("pipe:")), "{told:?}");
        assert_eq!(told[3], "more");

        let nix::pty::OpenptyResult { master, slave } = nix::pty::openpty(None, None).unwrap();
        let copy = || Stdio::from(slave.try_clone().unwrap());
        let line = "for n in 0 1 2; do readlink /proc/self/fd/$n; done; read word; echo heard $word; exit 3";
        let mut command = shell.command(&["exec", "-i", "web", "sh", "-c", line]);
        let child = command.stdin(copy()).stdout(copy()).stderr(copy()).spawn().unwrap();
        let mut keyboard = fs::File::from(master.try_clone().unwrap());
        let screen = Screen::of(master);
        screen.shows("pipe:");
        keyboard.write_all(b"word\n").unwrap();
        screen.shows("heard word");
        assert_eq!(exit_code(child, Duration::from_secs(10)), 3);
        assert!(!screen.said.lock().unwrap().contains("/dev/"));

        // Who stays behind keeps nobody waiting.
        let mut command = shell.command(&["exec", "web", "sh", "-c", "sleep 1000 & echo started"]);
        let child = command.stdout(fs::File::create(&output).unwrap()).spawn().unwrap();
        assert_eq!(exit_code(child, Duration::from_secs(10)), 0);
        assert_eq!(fs::read_to_string(&output).unwrap(), "started\n");
    });
}

/// What a terminal shows, read on a thread of its own until the other side is closed.
struct Screen {
    said: Arc<Mutex<String>>,
}

impl Screen {
    fn of(master: impl Into<OwnedFd>) -> Screen {
        let said = Arc::<Mutex<String>>::default();
        let (mut stream, to) = (fs::File::from(master.into()), Arc::clone(&said));
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(n @ 1..) = stream.read(&mut bytes) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        });
        Screen { said }
    }

    fn shows(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.said.lock().unwrap().contains(text) {
            assert!(Instant::now() < deadline, "`{text}` is not in {:?}", self.said.lock().unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn exec_with_a_terminal_has_its_size_and_leaves_ours_as_it_was() {
    Shell::with(|shell| {
        shell.manifest(WEB);
        shell.ok(&["apply", "--wait"]);
        let size = nix::pty::Winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
        let nix::pty::OpenptyResult { master, slave } = nix::pty::openpty(Some(&size), None).unwrap();
        let before = rustix::termios::tcgetattr(&slave).unwrap();
        let copy = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let child = shell
            .command(&["exec", "-it", "web", "sh", "-c", "stty size; read line; echo got $line; exit 7"])
            .stdin(copy(&slave))
            .stdout(copy(&slave))
            .stderr(copy(&slave))
            .spawn()
            .unwrap();
        let mut keyboard = fs::File::from(master.try_clone().unwrap());
        let screen = Screen::of(master);
        screen.shows("33 99");
        keyboard.write_all(b"hello\r").unwrap();
        screen.shows("got hello");
        assert_eq!(exit_code(child, Duration::from_secs(10)), 7);
        let after = rustix::termios::tcgetattr(&slave).unwrap();
        assert_eq!((after.local_modes, after.input_modes), (before.local_modes, before.input_modes));
    });
}

#[test]
fn a_kept_plan_runs_as_it_is_or_not_at_all() {
    Shell::with(|shell| {
        shell.manifest(WEB);
        shell.ok(&["plan", "-o", "first.plan"]);
        shell.ok(&["plan", "-o", "second.plan"]);
        shell.write("evenkeel.toml", "this is no manifest any more");
        shell.ok(&["apply", "first.plan"]);
        let pid = shell.pid("web");

        let stale = shell.run(&["apply", "second.plan"]);
        assert_eq!(stale.code, 5, "{stale:#?}");
        assert!(stale.stderr.contains("stale"), "{stale:#?}");
        assert_eq!(shell.pid("web"), pid);
        assert_eq!(shell.run(&["apply", "evenkeel.toml"]).code, 1);
    });
}

#[test]
fn a_second_apply_is_told_that_the_state_is_locked() {
    Shell::with(|shell| {
        shell.manifest(WEB);
        fs::create_dir_all(shell.path("root")).unwrap();
        let lock = fs::File::create(shell.path("root/lock")).unwrap();
        lock.lock().unwrap();
        let refused = shell.run(&["apply"]);
        assert_eq!(refused.code, 5, "{refused:#?}");
        assert!(refused.stderr.contains("--lock-timeout"), "{refused:#?}");
        shell.ok(&["plan"]);

        let waiting = shell.command(&["apply", "--lock-timeout", "30s"]).stdout(Stdio::null()).spawn().unwrap();
        drop(lock);
        assert_eq!(exit_code(waiting, Duration::from_secs(30)), 0);
    });
}

/// A registry may take an hour. Meanwhile others change the state root; what has its image goes on behind it.
#[test]
fn an_apply_holds_no_lock_while_a_registry_is_waited_for() {
    Shell::with(|shell| {
        let registry = TcpListener::bind("127.0.0.1:0").unwrap();
        registry.set_nonblocking(true).unwrap();
        let address = registry.local_addr().unwrap();
        let slow = format!("{WEB}[containers.slow]\nimage = \"{address}/slow:1\"\n");
        shell.manifest(&slow);
        for arguments in [&["apply", "--json"][..], &["apply", "--json", "kept.plan"]] {
            shell.ok(&["plan", "-o", "kept.plan"]);
            let mut command = shell.command(arguments);
            let applying = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let asking = asked(&registry);
            eventually("the lock is free", || {
                fs::File::open(shell.path("root/lock")).is_ok_and(|lock| lock.try_lock().is_ok())
            });
            assert_eq!(shell.json(&["ps"]), serde_json::json!([]), "nothing is begun before");
            shell.ok(&["volume", "create", "meanwhile"]);
            drop(asking);
            let end = Answer::of(ended_while(applying, || drop(registry.accept())));
            assert_eq!(end.code, 3, "{end:#?}");
            let events: Vec<Value> = end.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let of = |word: &str| events.iter().filter(|event| event["event"] == word).collect::<Vec<_>>();
            let reports = of("report");
            assert_eq!((reports.len(), &reports[0]["failed"]), (1, &1.into()), "{events:#?}");
            let mut ended: Vec<u64> = of("step_ended").iter().map(|event| event["step"].as_u64().unwrap()).collect();
            ended.sort_unstable();
            assert_eq!(ended, (0..ended.len() as u64).collect::<Vec<_>>(), "each step ends once: {events:#?}");
            assert!(shell.pid("web") > 0);
            shell.ok(&["down"]);
            shell.ok(&["volume", "rm", "meanwhile"]);
        }

        // Others may have been busy meanwhile with what a kept plan is about.
        shell.ok(&["plan", "-o", "kept.plan"]);
        let applying = shell.command(&["apply", "kept.plan"]).stderr(Stdio::piped()).spawn().unwrap();
        let asking = asked(&registry);
        shell.write("other.toml", &fs::read_to_string(shell.path("evenkeel.toml")).unwrap().replace("always", "no"));
        shell.ok(&["apply", "-f", "other.toml", "--target", "web", "--lock-timeout", "30s"]);
        drop((asking, registry));
        let stale = Answer::of(applying.wait_with_output().unwrap());
        assert_eq!(stale.code, 5, "{stale:#?}");
        assert!(stale.stderr.contains("stale") && stale.stderr.contains("container web"), "{stale:#?}");
    });
}

/// Somebody connects.
fn asked(registry: &TcpListener) -> TcpStream {
    let mut found = None;
    eventually("the registry is asked", || {
        found = registry.accept().ok();
        found.is_some()
    });
    found.unwrap().0
}

/// What became of a process, with `meanwhile` done again and again until then.
fn ended_while(mut child: Child, mut meanwhile: impl FnMut()) -> std::process::Output {
    while child.try_wait().unwrap().is_none() {
        meanwhile();
        std::thread::yield_now();
    }
    child.wait_with_output().unwrap()
}

#[test]
fn mass_removal_and_loss_of_data_are_refused_until_they_are_confirmed() {
    Shell::with(|shell| {
        let many: String = (1..=4)
            .map(|n| {
                format!(
                    "[containers.c{n}]\nimage = \"box\"\ncommand = [\"sleep\", \"1000\"]\nstop_signal = \"SIGKILL\"\n"
                )
            })
            .collect();
        shell.manifest(&format!("{many}mounts = {{ \"/data\" = \"data\" }}\n[volumes.data]\n"));
        shell.ok(&["apply"]);
        shell
            .manifest("[containers.c1]\nimage = \"box\"\ncommand = [\"sleep\", \"1000\"]\nstop_signal = \"SIGKILL\"\n");
        let refused = shell.run(&["apply"]);
        assert_eq!(refused.code, 4, "{refused:#?}");
        assert!(refused.stderr.contains("--allow-mass-removal"), "{refused:#?}");
        assert_eq!(shell.run(&["plan"]).code, 4);
        assert_eq!(shell.json(&["ps"]).as_array().unwrap().len(), 4);
        shell.ok(&["apply", "--allow-mass-removal"]);
        assert_eq!(shell.json(&["ps"]).as_array().unwrap().len(), 1);

        let refused = shell.run(&["down", "--volumes"]);
        assert_eq!(refused.code, 4, "{refused:#?}");
        assert!(refused.stderr.contains("data") && refused.stderr.contains("--yes"), "{refused:#?}");
        assert_eq!(shell.json(&["ps"]).as_array().unwrap().len(), 1);
    });
}

#[test]
fn what_lost_its_record_goes_and_nothing_of_another_root() {
    const TWO: &str = r#"
[networks.front]
[containers.web]
image = "box"
command = ["sleep", "1000"]
networks = ["front"]
[containers.job]
image = "box"
command = ["sleep", "1000"]
network_mode = "none"
"#;
    Shell::with(|other| {
        other.manifest("[containers.web]\nimage = \"box\"\ncommand = [\"sleep\", \"1000\"]\n");
        other.ok(&["apply", "--wait"]);
        let shell = Shell::here();
        shell.manifest(TWO);
        shell.ok(&["apply", "--wait"]);
        let (foreign, tag) = (other.pid("web"), shell.tag());
        let only = |directory: &str| fs::read_dir(shell.path(directory)).unwrap().next().unwrap().unwrap().path();
        let of = |name: &str| {
            let id = shell.json(&["inspect", name])[0]["record"]["id"].as_str().unwrap().to_owned();
            let pid = shell.pid(name);
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let monitor = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap().to_owned();
            (id, pid, monitor)
        };
        let left_of = |(id, pid, monitor): &(String, u64, String)| {
            // A process that ended is there until its parent asks for it.
            let processes = [pid.to_string(), monitor.clone()].map(|pid| format!("/proc/{pid}/exe"));
            let places = ["run/containers", "run/netns"].map(|place| shell.path(place).join(id).display().to_string());
            let mut left: Vec<String> = processes.into_iter().filter(|link| fs::read_link(link).is_ok()).collect();
            left.extend(places.into_iter().filter(|place| fs::exists(place).unwrap()));
            let cgroups = format!("*/evenkeel-{tag}/{id}");
            left.push(run(&["find", "/sys/fs/cgroup", "-maxdepth", "3", "-path", &cgroups]));
            left.concat()
        };

        let (web, bridge) = (of("web"), format!("ek{tag}b{}", only("root/networks").file_name().unwrap().display()));
        fs::remove_dir_all(shell.path("root/containers").join(&web.0)).unwrap();
        fs::remove_dir_all(only("root/networks")).unwrap();
        let plan = shell.ok(&["plan"]).stdout;
        for words in
            ["-   container web (without a record)", "monitor: there ->", "-   bridge of network", "no record names it"]
        {
            assert!(plan.contains(words), "{words}: {plan}");
        }
        shell.ok(&["apply", "--wait"]);
        assert_eq!(left_of(&web), "");
        assert!(!run(&["ip", "-o", "link"]).contains(&bridge));
        assert!(shell.plan_is_empty(), "{:?}", shell.run(&["plan"]));
        assert_ne!(of("web").0, web.0);

        // Its monitor is dead and its run directory gone too: only namespace and control group are left.
        let job = of("job");
        run(&["kill", "-KILL", &job.2]);
        fs::remove_dir_all(shell.path("root/containers").join(&job.0)).unwrap();
        fs::remove_dir_all(shell.path("run/containers").join(&job.0)).unwrap();
        let plan = shell.ok(&["plan"]).stdout;
        assert!(plan.contains(&format!("-   container {} (without a record)", job.0)), "{plan}");
        shell.ok(&["apply", "--wait"]);
        assert_eq!(left_of(&job), "");
        assert!(shell.plan_is_empty(), "{:?}", shell.run(&["plan"]));
        assert_eq!(other.pid("web"), foreign);
        assert!(other.plan_is_empty());
        // Before the other one looks whether anything is left.
        drop(shell);
    });
}

#[test]
fn records_that_cannot_be_read_are_named_and_put_right_and_no_data_is_lost() {
    Shell::with(|shell| {
        shell.manifest(&format!(
            "[networks.front]\n[volumes.data]\n{WEB}networks = [\"front\"]\nmounts = {{ \"/data\" = \"data\" }}\n{}",
            WEB.replace("web", "other"),
        ));
        shell.ok(&["apply", "--wait"]);
        let record = |name: &str| {
            let id = shell.json(&["inspect", name])[0]["record"]["id"].as_str().unwrap().to_owned();
            shell.path("root/containers").join(id).join("record.json")
        };
        let (web, other, pid) = (record("web"), record("other"), shell.pid("web"));
        // That of `web`: the other one is on `default`.
        let is_front = |path: &PathBuf| fs::read_to_string(path.join("record.json")).unwrap().contains("\"front\"");
        let networks = fs::read_dir(shell.path("root/networks")).unwrap().map(|entry| entry.unwrap().path());
        let network = networks.into_iter().find(is_front).unwrap();
        shell.write("root/volumes/shop.data/data/kept", "kept");
        let volume = shell.path("root/volumes/shop.data/record.json");
        fs::write(&web, "{\"version\":1,\"id\":").unwrap();
        fs::write(&volume, "").unwrap();
        fs::write(network.join("record.json"), "[]").unwrap();

        let ps = shell.ok(&["ps"]);
        assert!(ps.stdout.contains("shop/other") && !ps.stdout.contains("shop/web"), "{ps:?}");
        assert!(ps.stderr.contains(web.to_str().unwrap()), "{ps:?}");
        let plan = shell.ok(&["plan"]).stdout;
        for path in [&web, &volume, &network.join("record.json")] {
            assert!(plan.contains(path.to_str().unwrap()), "{plan}");
        }
        shell.ok(&["status"]);
        shell.ok(&["apply", "--wait"]);
        assert!(shell.plan_is_empty(), "{:?}", shell.run(&["plan"]));
        assert!(!fs::exists(format!("/proc/{pid}/root/bin")).unwrap(), "what ran without a record was ended");
        assert_eq!(fs::read_to_string(shell.path("root/volumes/shop.data/data/kept")).unwrap(), "kept");
        let trash = fs::read_dir(shell.path("root/trash")).unwrap().next().unwrap().unwrap().path();
        assert!(trash.join("upper").is_dir(), "what it wrote is kept for a while: {trash:?}");

        // A newer version's container is whole: it runs on, and nothing is done about it.
        let (pid, text) = (shell.pid("other"), fs::read_to_string(&other).unwrap());
        let now = format!("\"version\": {RECORD_VERSION}");
        assert!(text.contains(&now), "{text}");
        fs::write(&other, text.replace(&now, "\"version\": 999").replace("\"spec\"", "\"plan\"")).unwrap();
        let refused = shell.run(&["apply"]);
        assert_eq!((refused.code, refused.stderr.contains(other.to_str().unwrap())), (1, true), "{refused:?}");
        assert!(fs::exists(format!("/proc/{pid}/root/bin")).unwrap());
        fs::write(&other, text).unwrap();
        assert!(shell.plan_is_empty(), "{:?}", shell.run(&["plan"]));
    });
}

#[test]
fn a_monitor_whose_run_directory_was_removed_is_found_and_ended() {
    Shell::with(|shell| {
        shell.manifest(WEB);
        shell.ok(&["apply", "--wait"]);
        let pid = shell.pid("web");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let monitor = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap().to_owned();
        let run = fs::read_dir(shell.path("run/containers")).unwrap().next().unwrap().unwrap().path();
        fs::remove_dir_all(run).unwrap();
        assert_eq!(shell.json(&["ps"])[0]["state"], "lost", "who looks sees what is planned on");
        assert!(!shell.plan_is_empty());
        shell.ok(&["apply", "--wait"]);
        let has_ended = |pid: &str| fs::read_link(format!("/proc/{pid}/exe")).is_err();
        for left in [&pid.to_string(), &monitor] {
            // A process that ended is there until its parent asks for it.
            assert!(has_ended(left), "{left} still runs");
        }
        assert_ne!(shell.pid("web"), pid);
        assert!(shell.plan_is_empty(), "{:?}", shell.run(&["plan"]));

        // Without its monitor, too, and by the command that stops it.
        let pid = shell.pid("web").to_string();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let monitor = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap().parse().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(monitor).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
        eventually("the monitor has ended", || has_ended(&monitor.to_string()));
        let run = fs::read_dir(shell.path("run/containers")).unwrap().next().unwrap().unwrap().path();
        fs::remove_dir_all(run).unwrap();
        assert!(!has_ended(&pid));
        assert_eq!(shell.json(&["ps"])[0]["state"], "lost");
        shell.ok(&["stop", "web"]);
        assert!(has_ended(&pid));
    });
}

#[test]
fn a_failed_step_is_explained_and_the_others_go_on() {
    Shell::with(|shell| {
        let broken = "[containers.broken]\nimage = \"box\"\ncommand = [\"nonesuch\"]\n";
        shell.manifest(&format!("{WEB}{broken}"));
        let applied = shell.run(&["apply"]);
        assert_eq!(applied.code, 3, "{applied:#?}");
        assert!(applied.stdout.contains("failed   container broken"), "{applied:#?}");
        assert!(applied.stdout.contains("nonesuch") && applied.stdout.contains("hint: "), "{applied:#?}");
        assert!(shell.pid("web") > 0);

        let events = shell.run(&["apply", "--json"]).stdout;
        let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events.last().unwrap()["event"], "report");
        assert!(events.iter().any(|event| event["outcome"] == "failed"), "{events:#?}");
    });
}

#[test]
fn a_registry_that_cannot_be_asked_holds_up_nothing_else() {
    Shell::with(|shell| {
        // Nobody listens on port 1 of a namespace that is new.
        let far = "[images.far]\nreference = \"127.0.0.1:1/far:1\"\npull = \"always\"\n";
        let side = "[containers.side]\nimage = \"box\"\ncommand = [\"sleep\", \"1000\"]\n";
        shell.manifest(&format!("{far}{side}"));
        shell.ok(&["plan"]);
        let applied = shell.run(&["apply"]);
        assert_eq!(applied.code, 3, "{applied:#?}");
        assert!(applied.stdout.contains("cannot reach the registry `127.0.0.1:1`"), "{applied:#?}");
        assert!(shell.pid("side") > 0);
        shell.manifest(side);
        shell.ok(&["down"]);
    });
}

/// A packet filter that drops, or a server that hangs: connections are taken, and nothing is said.
#[test]
fn a_registry_that_is_silent_is_waited_for_once_for_all_its_images() {
    Shell::with(|shell| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tree = shell.path("rootfs");
        run(&["tar", "-C", tree.to_str().unwrap(), "-cf", shell.path("fs.tar").to_str().unwrap(), "."]);
        let mut manifest = String::new();
        for name in ["a", "b", "c"] {
            shell.ok(&["image", "import", "fs.tar", &format!("{address}/{name}:1")]);
            let image = format!("[images.{name}]\nreference = \"{address}/{name}:1\"\npull = \"always\"\n");
            let container = "command = [\"sleep\", \"1000\"]\nnetwork_mode = \"none\"\nstop_signal = \"SIGKILL\"\n";
            manifest.push_str(&format!("{image}[containers.{name}]\nimage = \"{name}\"\n{container}"));
        }
        shell.manifest(&manifest);
        let begun = std::time::Instant::now();
        let applied = shell.ok(&["apply"]);
        assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
        assert!(applied.stderr.contains("gave no answer in 10 s"), "{applied:#?}");
        assert!(["a", "b", "c"].iter().all(|name| shell.pid(name) > 0));
        shell.ok(&["down"]);
    });
}

#[test]
fn waiting_tells_what_did_not_get_well() {
    Shell::with(|shell| {
        let sick = "[containers.sick]\nimage = \"box\"\ncommand = [\"sleep\", \"1000\"]\nstop_signal = \"SIGKILL\"\n\
             healthcheck = { command = [\"false\"], interval = \"100ms\", retries = 1 }\n";
        shell.manifest(sick);
        let applied = shell.run(&["apply", "--wait", "--timeout", "1s"]);
        assert_eq!(applied.code, 3, "{applied:#?}");
        assert!(applied.stderr.contains("unhealthy"), "{applied:#?}");
        let once = "[containers.sick]\nimage = \"box\"\ncommand = [\"true\"]\n";
        shell.manifest(once);
        shell.ok(&["apply", "--wait", "--timeout", "20s"]);
    });
}

#[test]
fn processes_and_usage_are_those_of_the_container() {
    Shell::with(|shell| {
        shell.manifest(&WEB.replace("restart =", "resources = { memory = \"64MiB\" }\nrestart ="));
        shell.ok(&["apply", "--wait"]);
        let pid = shell.pid("web");
        let top = shell.json(&["top", "web"]);
        let first = top.as_array().unwrap().iter().find(|row| row["pid"] == pid).expect("its first process");
        assert_eq!(first["container_pid"], 1);
        let stats = shell.json(&["stats", "--no-stream"]);
        assert_eq!(stats[0]["container"], "shop/web");
        assert_eq!(stats[0]["memory_limit_bytes"], 64 << 20);
        assert!(stats[0]["memory_bytes"].as_u64().unwrap() > 0);
        assert!(stats[0]["processes"].as_u64().unwrap() >= 1);
        let inspected = shell.json(&["inspect", "web"]);
        assert_eq!(inspected[0]["pid"], pid);
        assert_eq!(inspected[0]["networks"][0]["name"], "default");
    });
}

#[test]
fn a_limit_below_what_is_in_use_kills_nobody() {
    Shell::with(|shell| {
        let web = |limit: &str| {
            let mounts = "mounts = { \"/held\" = { tmpfs = \"64MiB\" } }";
            shell.manifest(
                &WEB.replace("restart =", &format!("resources = {{ memory = \"{limit}\" }}\n{mounts}\nrestart =")),
            );
        };
        web("128MiB");
        shell.ok(&["apply", "--wait"]);
        let pid = shell.pid("web");
        // Pages that the kernel can only keep: there is no swap for a container without `memory_swap` to go to.
        shell.ok(&["exec", "web", "--", "dd", "if=/dev/zero", "of=/held/file", "bs=1M", "count=40"]);
        web("24MiB");
        let refused = shell.run(&["apply"]);
        assert!(
            refused.code != 0 && refused.stdout.contains("a limit of 24MiB of memory is less than the"),
            "{refused:#?}"
        );
        assert!(refused.stdout.contains("declare more than is in use"), "{refused:#?}");
        assert_eq!(shell.pid("web"), pid);
        // It is planned again as long as it is not so, and then done.
        assert_eq!(shell.run(&["plan", "--detailed-exitcode"]).code, 2);
        shell.ok(&["exec", "web", "--", "rm", "/held/file"]);
        shell.ok(&["apply"]);
        assert_eq!(shell.pid("web"), pid);
        assert_eq!(shell.json(&["stats", "--no-stream"])[0]["memory_limit_bytes"], 24 << 20);
    });
}

#[test]
fn watch_applies_edits_keeps_the_last_good_manifest_and_ends_without_touching_containers() {
    Shell::with(|shell| {
        shell.manifest(WEB);
        let log = fs::File::create(shell.path("watch.log")).unwrap();
        let watch = shell.command(&["watch"]).stderr(log).spawn().unwrap();
        let is_running = |name: &str| {
            let ps = shell.run(&["ps", name, "--json"]);
            ps.code == 0 && serde_json::from_str::<Value>(&ps.stdout).unwrap()[0]["state"] == "running"
        };
        eventually("web runs", || is_running("web"));
        let other = WEB.replace("containers.web", "containers.other");
        // As an editor does it: a new file renamed over the old one.
        shell.manifest(&format!("{WEB}{other}"));
        fs::copy(shell.path("evenkeel.toml"), shell.path("new.tmp")).unwrap();
        fs::rename(shell.path("new.tmp"), shell.path("evenkeel.toml")).unwrap();
        eventually("the edit is applied", || is_running("other"));
        let pid = shell.pid("web");

        shell.write("evenkeel.toml", "[containers.web");
        eventually("the complaint is logged", || {
            fs::read_to_string(shell.path("watch.log")).unwrap().contains("broken")
        });
        assert_eq!(shell.pid("web"), pid);

        end(watch);
        assert_eq!(shell.pid("web"), pid);
        assert!(is_running("other"));
    });
}

/// Ends the service and comes back when it has ended.
fn end(watch: Child) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(watch.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(exit_code(watch, Duration::from_secs(10)), 0);
}

#[test]
fn watch_falls_back_on_what_was_applied_by_hand_while_it_did_not_run() {
    Shell::with(|shell| {
        let service = |until: &dyn Fn() -> bool| {
            let log = fs::File::create(shell.path("watch.log")).unwrap();
            let watch = shell.command(&["watch"]).stderr(log).spawn().unwrap();
            eventually("the service did what it was to do", until);
            end(watch);
        };
        let log = || fs::read_to_string(shell.path("watch.log")).unwrap();
        shell.manifest(WEB);
        service(&|| shell.run(&["exec", "web", "true"]).code == 0);

        let newer = WEB.replace("[containers.web]", "[containers.web]\nenvironment = { NEWER = \"yes\" }");
        let other = WEB.replace("containers.web", "containers.other");
        shell.manifest(&format!("{newer}{other}"));
        shell.ok(&["apply"]);
        let pid = shell.pid("web");
        shell.ok(&["stop", "other"]);
        shell.write("evenkeel.toml", "[containers.web");
        service(&|| log().contains("broken") && shell.run(&["exec", "other", "true"]).code == 0);
        assert_eq!(shell.pid("web"), pid, "it is not what the service knew of itself");

        shell.ok(&["down", "--project", "shop"]);
        service(&|| log().contains("broken"));
        assert_eq!(shell.run(&["ps", "--json"]).stdout.trim(), "[]", "what was taken down stays down");
    });
}

#[test]
fn a_volume_that_is_a_disk_of_its_own_is_filled_from_the_image() {
    Shell::with(|shell| {
        let site = shell.path("rootfs/site/sub");
        fs::create_dir_all(&site).unwrap();
        fs::write(site.join("page"), "of the image").unwrap();
        shell.manifest("[volumes.site]\n");
        shell.ok(&["apply"]);
        let data = shell.path("root/volumes/shop.site/data");
        let data = data.to_str().unwrap();
        run(&["mount", "-t", "tmpfs", "-o", "size=1m", "none", data]);
        // As mke2fs(8) makes it.
        fs::create_dir(format!("{data}/lost+found")).unwrap();
        let filled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let container = "[containers.web]\nimage = \"box\"\ncommand = [\"sleep\", \"1000\"]\n";
            shell.manifest(&format!("[volumes.site]\n{container}mounts = {{ \"/site\" = \"site\" }}\n"));
            shell.ok(&["apply"]);
            let read = shell.ok(&["exec", "web", "--", "cat", "/site/sub/page"]);
            assert_eq!(read.stdout, "of the image");
            let names = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            assert_eq!(names, ["lost+found", "sub"]);
            assert!(!shell.path("root/volumes/shop.site/image").exists());
            shell.ok(&["down"]);
        }));
        run(&["umount", data]);
        filled.unwrap();
        assert_eq!(fs::read_dir(data).unwrap().count(), 0, "nothing below the mount point");
    });
}

#[test]
fn nothing_that_is_removed_takes_the_files_of_a_disk_mounted_in_it() {
    Shell::with(|shell| {
        let web = "image = \"box\"\ncommand = [\"sleep\", \"1000\"]\nmounts = { \"/data\" = \"kept\" }\n";
        shell.manifest(&format!("[volumes.kept]\n[containers.web]\n{web}"));
        shell.ok(&["apply"]);
        shell.ok(&["volume", "create", "free"]);
        let free = shell.json(&["volume", "inspect", "free"])[0]["path"].as_str().unwrap().to_owned();
        let kept = shell.path("root/volumes/shop.kept/data");
        let trash = shell.path("root/trash/shop.old.1000000000/data");
        let crumb = shell.path("root/volumes/.shop.crumb.1-1/data");
        let disks = [&kept, &PathBuf::from(free), &trash, &crumb];
        for disk in disks {
            fs::create_dir_all(disk).unwrap();
            run(&["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk.to_str().unwrap()]);
            fs::create_dir(disk.join("sub")).unwrap();
            fs::write(disk.join("sub/precious"), "still here").unwrap();
        }
        // What was removed goes at once.
        let run_now = |arguments: &[&str]| shell.run(&[&["--keep-removed", "0s"], arguments].concat());
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let refused = run_now(&["volume", "rm", "free"]);
            assert_ne!(refused.code, 0);
            let said = |answer: &Answer, disk: &PathBuf| {
                let mounted = format!("a file system is mounted on `{}`", disk.display());
                let hint = format!("`umount {}` first", disk.display());
                let told = format!("{}{}", answer.stdout, answer.stderr);
                assert!(told.contains(&mounted) && told.contains(&hint), "{answer:#?}");
            };
            disks[1..].iter().for_each(|disk| said(&refused, disk));
            let down = shell.run(&["down", "--volumes", "--yes"]);
            assert_ne!(down.code, 0);
            said(&down, &kept);
            assert_eq!(shell.json(&["ps", "--all"]), serde_json::json!([]), "the rest goes");
            for disk in disks {
                assert_eq!(fs::read_to_string(disk.join("sub/precious")).unwrap(), "still here");
            }
        }));
        for disk in disks {
            run(&["umount", disk.to_str().unwrap()]);
        }
        tried.unwrap();
        let down = run_now(&["down", "--volumes", "--yes"]);
        assert!(down.code == 0 && !down.stderr.contains("mounted"), "{down:#?}");
        shell.ok(&["volume", "rm", "free"]);
        assert_eq!(fs::read_dir(shell.path("root/volumes")).unwrap().count(), 0);
        assert!(!trash.exists());
    });
}

#[test]
fn a_terminal_that_is_closed_takes_nothing_with_it() {
    Shell::with(|shell| {
        shell.manifest(WEB);
        let nix::pty::OpenptyResult { master, slave } = nix::pty::openpty(None, None).unwrap();
        // Nobody else may hold its other side open.
        let close_on_exec = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
        nix::fcntl::fcntl(&master, close_on_exec).unwrap();
        let mut session = Command::new("setsid");
        session.args(["--ctty", "sh", "-c", "\"$0\" apply --wait; exec sleep 1000", env!("CARGO_BIN_EXE_evenkeel")]);
        session.current_dir(shell.directory.path());
        session.env("EVENKEEL_ROOT", shell.path("root")).env("EVENKEEL_RUN", shell.path("run"));
        let output = || slave.try_clone().unwrap();
        let mut login = session.stdin(output()).stdout(output()).stderr(output()).spawn().unwrap();
        drop((session, slave));
        eventually("it is started", || shell.json(&["ps"])[0]["state"] == "running");
        eventually("apply has ended", || {
            fs::read_to_string(format!("/proc/{}/comm", login.id())).is_ok_and(|name| name == "sleep\n")
        });
        let pid = shell.pid("web");
        // Parent, group, session and terminal: proc_pid_stat(5).
        let stat = |pid: u64| -> Vec<i64> {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let fields = stat.rsplit_once(") ").unwrap().1.split(' ');
            fields.skip(1).take(4).map(|field| field.parse().unwrap()).collect()
        };
        let monitor = stat(pid)[0];
        assert_eq!(stat(monitor as u64)[1..], [monitor, monitor, 0], "a session of its own without a terminal");

        drop(master);
        let ended = login.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(1), "SIGHUP ended who sat there");
        assert_eq!((shell.pid("web"), stat(pid)[0]), (pid, monitor));
        assert!(shell.plan_is_empty());
    });
}

#[test]
fn what_a_monitor_of_another_version_cannot_take_over_is_a_restart_and_nothing_else_is() {
    Shell::with(|shell| {
        shell.manifest(WEB);
        shell.ok(&["apply", "--wait"]);
        let pid = shell.pid("web");
        // As a monitor of the version before would have written it.
        let id = shell.json(&["ps", "web"])[0]["id"].as_str().unwrap().to_owned();
        let status = shell.path("run").join("containers").join(id).join("status.json");
        let mut said: Value = serde_json::from_slice(&fs::read(&status).unwrap()).unwrap();
        let version = said["launch_version"].as_u64().unwrap();
        said["launch_version"] = (version - 1).into();
        fs::write(&status, said.to_string()).unwrap();

        assert!(shell.plan_is_empty(), "an upgrade alone touches no container");
        shell.manifest(&format!("{WEB}labels = {{ tier = \"front\" }}\nresources = {{ pids = 64 }}\n"));
        shell.ok(&["apply"]);
        assert_eq!(shell.pid("web"), pid, "what needs no monitor stays live");
        assert!(shell.plan_is_empty());

        shell.manifest(&WEB.replace("\"always\"", "\"on-failure\""));
        let plan = shell.ok(&["plan"]).stdout;
        assert!(plan.contains("\"always\" -> \"on-failure\"  (restart)"), "{plan}");
        assert!(plan.contains("its monitor, of another version, cannot take that over"), "{plan}");
        shell.ok(&["apply", "--wait"]);
        assert_ne!(shell.pid("web"), pid);
        assert!(shell.plan_is_empty());
        let said: Value = serde_json::from_slice(&fs::read(&status).unwrap()).unwrap();
        assert_eq!(said["launch_version"].as_u64(), Some(version));
    });
}
