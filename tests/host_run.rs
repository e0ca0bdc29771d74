//! Containers beside what is declared: `run` and its like, with real containers, as somebody at a shell would have them.
//!
//! Every test has a network namespace and a state root of its own, and leaves nothing behind.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::eventually;
use support::shell::{Answer, Shell};

/// The image of every container here.
const BOX: &str = "rootfs:./rootfs";

/// A container that sleeps.
fn sleeper(shell: &Shell, name: &str, options: &[&str]) {
    let mut arguments = vec!["run", "-d", "--name", name];
    arguments.extend(options);
    arguments.extend([BOX, "sleep", "1000"]);
    shell.ok(&arguments);
}

#[test]
fn exit_codes_are_docker_s() {
    Shell::with(|shell| {
        let code = |arguments: &[&str]| shell.run(&[&["run", "--rm", BOX], arguments].concat());
        assert_eq!(code(&["true"]).code, 0);
        assert_eq!(code(&["sh", "-c", "exit 42"]).code, 42);
        // The first process of a namespace is spared its own SIGKILL; its child is not.
        assert_eq!(code(&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).code, 137);
        assert_eq!(code(&["nowhere"]).code, 127);
        assert_eq!(code(&["/etc"]).code, 126);
        let wrong = shell.run(&["run", "--rm", "--memory", "lots", BOX, "true"]);
        assert_eq!(wrong.code, 125);
        assert!(wrong.stderr.contains("expected a size such as"), "the manifest's own words: {}", wrong.stderr);
        let foreign = shell.run(&["run", "--rm", "--platform", "linux/s390x", BOX, "true"]);
        assert!(foreign.code == 125 && foreign.stderr.contains("s390x"), "{foreign:?}");
        for wrong in
            [&["run", "--nope", BOX][..], &["run"], &["create", "--cpu-shares", "x", BOX], &["exec", "nobody", "true"]]
        {
            let answer = shell.run(wrong);
            assert!(answer.code == 125 && !answer.stderr.is_empty(), "{wrong:?}: {answer:?}");
        }
        eventually("what failed is removed too", || shell.entries("root/containers").is_empty());
    });
}

#[test]
fn output_and_error_stay_apart_and_are_whole() {
    Shell::with(|shell| {
        let answer = shell.ok(&["run", "--rm", BOX, "sh", "-c", "echo out; echo err >&2"]);
        assert_eq!((answer.stdout.as_str(), answer.stderr.as_str()), ("out\n", "err\n"));
        // More than every pipe on the way holds, read late.
        let script = "i=0; while [ $i -lt 40000 ]; do echo 0123456789abcdef0123456789abcdef; i=$((i+1)); done";
        let mut command = shell.command(&["run", "--rm", BOX, "sh", "-c", script]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(700));
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((text.len(), child.wait().unwrap().code()), (40000 * 33, Some(0)));
    });
}

#[test]
fn input_is_passed_on_and_ends_with_ours() {
    Shell::with(|shell| {
        let input: Vec<u8> = (0..500_000_u32).map(|n| b'a' + (n % 23) as u8).collect();
        let answer = shell.feed(&["run", "--rm", "-i", BOX, "cat"], &input);
        assert!(answer.code == 0 && answer.stdout.as_bytes() == input, "{} bytes came back", answer.stdout.len());
        // Without -i there is none.
        assert_eq!(shell.feed(&["run", "--rm", BOX, "cat"], b"not read").stdout, "");
        // One that does not read to the end.
        assert_eq!(shell.feed(&["run", "--rm", "-i", BOX, "true"], &input).code, 0);
    });
}

/// A terminal with a program on it.
struct Terminal {
    master: fs::File,
    child: Child,
    seen: String,
}

impl Terminal {
    fn with(mut command: Command) -> Terminal {
        let pair = nix::pty::openpty(None, None).unwrap();
        let theirs = || Stdio::from(pair.slave.try_clone().unwrap());
        let size = rustix::termios::Winsize { ws_row: 31, ws_col: 97, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&pair.master, size).unwrap();
        let child = command.stdin(theirs()).stdout(theirs()).stderr(theirs()).spawn().unwrap();
        Terminal { master: pair.master.into(), child, seen: String::new() }
    }

    fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.seen.contains(text) {
            assert!(Instant::now() < deadline, "{text:?} is not in {:?}", self.seen);
            let mut bytes = [0; 4096];
            // EIO: nobody has the other side any more.
            match self.master.read(&mut bytes) {
                Ok(count) => self.seen.push_str(&String::from_utf8_lossy(&bytes[..count])),
                Err(error) => panic!("{text:?} is not in {:?}: {error}", self.seen),
            }
        }
        let at = self.seen.find(text).unwrap() + text.len();
        self.seen.drain(..at);
    }
}

#[test]
fn a_terminal_is_handed_over_resized_and_left() {
    Shell::with(|shell| {
        let name = ["run", "-it", "--name", "look", BOX, "sh"];
        let mut terminal = Terminal::with(shell.command(&name));
        terminal.type_in("[ -t 0 ] && echo is-a-ter''minal\n");
        terminal.expect("is-a-terminal");
        terminal.type_in("stty size\n");
        terminal.expect("31 97");
        // Ctrl-C is the shell's inside, not ours.
        terminal.type_in("sleep 1000\n");
        std::thread::sleep(Duration::from_millis(200));
        terminal.type_in("\x03");
        terminal.type_in("echo still-he''re\n");
        terminal.expect("still-here");
        terminal.type_in("\x10\x11");
        terminal.expect("left it running");
        assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
        let pid = shell.pid("look");
        let mut terminal = Terminal::with(shell.command(&["attach", "look"]));
        terminal.type_in("echo ag''ain; exit 7\n");
        terminal.expect("again");
        assert_eq!(terminal.child.wait().unwrap().code(), Some(7));
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    });
}

#[test]
fn a_terminal_has_its_size_from_the_first_moment_on() {
    Shell::with(|shell| {
        // One that asks at once and is gone before anybody could tell it more.
        let mut terminal = Terminal::with(shell.command(&["run", "--rm", "-t", BOX, "stty", "size"]));
        terminal.expect("31 97");
        assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
        shell.ok(&["create", "-t", "--name", "later", BOX, "stty", "size"]);
        Terminal::with(shell.command(&["start", "-a", "later"])).expect("31 97");
    });
}

#[test]
fn a_start_that_failed_is_remembered_as_run_told_it() {
    Shell::with(|shell| {
        fs::write(shell.path("rootfs/data"), "no program").unwrap();
        for (command, code) in [("nowhere", 127), ("/data", 126)] {
            let failed = shell.run(&["run", "--name", "job", BOX, command]);
            assert_eq!(failed.code, code, "{failed:?}");
            assert_eq!(shell.ok(&["wait", "job"]).stdout, format!("{code}\n"));
            assert_eq!(shell.ok(&["inspect", "-f", "{{.State.ExitCode}}", "job"]).stdout, format!("{code}\n"));
            assert!(shell.ok(&["ps", "-a"]).stdout.contains("Failed to start"));
            shell.ok(&["rm", "job"]);
        }
    });
}

#[test]
fn who_is_paused_is_neither_started_nor_attached_to_and_stops_with_grace() {
    Shell::with(|shell| {
        let script = "trap 'exit 7' TERM; while :; do sleep 0.05; done";
        shell.ok(&["run", "-d", "--name", "box", BOX, "sh", "-c", script]);
        shell.ok(&["pause", "box"]);
        for refused in [&["start", "box"][..], &["start", "-a", "box"], &["attach", "box"]] {
            let answer = shell.run(refused);
            assert!(answer.code == 1 && answer.stderr.contains("evenkeel unpause box"), "{refused:?}: {answer:?}");
        }
        shell.ok(&["stop", "box"]);
        assert_eq!(shell.ok(&["wait", "box"]).stdout, "7\n");
    });
}

#[test]
fn an_init_that_waits_for_signals_hears_them() {
    Shell::with(|shell| {
        let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done";
        shell.ok(&["run", "-d", "--init", "--name", "box", BOX, "sh", "-c", script]);
        eventually("it is ready", || shell.ok(&["logs", "box"]).stdout == "ready\n");
        shell.ok(&["stop", "box"]);
        assert_eq!(shell.ok(&["wait", "box"]).stdout, "7\n", "not 137: it was given the time to end");
    });
}

#[test]
fn what_is_removed_at_its_end_is_not_started_again() {
    Shell::with(|shell| {
        sleeper(shell, "gone", &["--rm", "--restart", "no"]);
        let answer = shell.run(&["update", "--restart", "always", "gone"]);
        assert!(answer.code == 1 && answer.stderr.contains("--rm"), "{answer:?}");
        assert_eq!(shell.run(&["run", "--rm", "--restart", "always", BOX, "true"]).code, 125);
    });
}

#[test]
fn logs_are_followed_until_a_moment() {
    Shell::with(|shell| {
        shell.ok(&["run", "-d", "--name", "talker", BOX, "sh", "-c", "while :; do echo line; sleep 0.05; done"]);
        let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let until = now() + Duration::from_millis(1500);
        let moment = format!("{}.{:03}", until.as_secs(), until.subsec_millis());
        let answer = shell.ok(&["logs", "-f", "--tail", "-1", "--until", &moment, "talker"]);
        assert!(now() >= until && answer.stdout.lines().count() > 5, "{answer:?}");
        // The moment itself is in.
        let first = shell.ok(&["logs", "-t", "talker"]).stdout.lines().next().unwrap().to_owned();
        let until = first.split(' ').next().unwrap().to_owned();
        assert_eq!(shell.ok(&["logs", "-t", "--until", &until, "talker"]).stdout, format!("{first}\n"));
    });
}

#[test]
fn limits_have_dockers_words() {
    Shell::with(|shell| {
        let words = ["-m", "0.0625g", "--memory-swap", "-1", "--cpu-period", "50000", "--cpu-quota", "25000"];
        sleeper(shell, "limited", &words);
        let config =
            |name: &str| shell.ok(&["inspect", "-f", &format!("{{{{.HostConfig.{name}}}}}"), "limited"]).stdout;
        assert_eq!((config("Memory").as_str(), config("NanoCpus").as_str()), ("67108864\n", "500000000\n"));
        shell.ok(&["update", "--cpu-quota", "200000", "limited"]);
        assert_eq!(config("NanoCpus"), "2000000000\n");
        shell.ok(&["update", "--cpu-quota", "-1", "limited"]);
        assert_eq!(config("NanoCpus"), "0\n");
        for wrong in
            [&["--cpu-quota", "1000", "--cpu-period", "3000"][..], &["--cpu-period", "1000"], &["--expose", "80"]]
        {
            let answer = shell.run(&[&["run", "--rm"], wrong, &[BOX, "true"]].concat());
            assert_eq!(answer.code, 125, "{wrong:?}: {answer:?}");
        }
    });
}

#[test]
fn files_that_are_given_are_read_only_with_the_root() {
    Shell::with(|shell| {
        let script = "for f in hosts hostname resolv.conf; do { echo x >>/etc/$f; } 2>/dev/null && echo $f; done; true";
        assert_eq!(shell.ok(&["run", "--rm", "--read-only", BOX, "sh", "-c", script]).stdout, "");
        assert_eq!(shell.ok(&["run", "--rm", BOX, "sh", "-c", script]).stdout, "hosts\nhostname\nresolv.conf\n");
    });
}

#[test]
fn times_of_a_check_are_about_the_image_s() {
    Shell::with(|shell| {
        shell.write(
            "Dockerfile",
            "FROM scratch\nCOPY rootfs /\nHEALTHCHECK --retries=2 --interval=7s CMD test -e /ok\n",
        );
        shell.ok(&["image", "build", "-t", "checked", "."]);
        shell.ok(&["create", "--name", "box", "--health-interval", "3s", "checked", "true"]);
        let check = "{{with .Config.Healthcheck}}{{json .Test}} {{.Interval}} {{.Retries}}{{end}}";
        let shown = shell.ok(&["inspect", "-f", check, "box"]).stdout;
        assert_eq!(shown, "[\"CMD-SHELL\",\"test -e /ok\"] 3000000000 2\n");
        let none = shell.run(&["create", "--health-retries", "5", BOX, "true"]);
        assert!(none.code == 125 && none.stderr.contains("--health-cmd"), "{none:?}");
    });
}

#[test]
fn signals_are_the_container_s() {
    Shell::with(|shell| {
        let script =
            "trap 'echo got-usr1' USR1; trap 'echo got-term; exit 3' TERM; echo ready; while true; do sleep 0.05; done";
        let mut child =
            shell.command(&["run", "--rm", BOX, "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut seen = String::new();
        let mut expect = |text: &str| {
            while !seen.contains(text) {
                let mut bytes = [0; 100];
                let count = stdout.read(&mut bytes).unwrap();
                assert!(count > 0, "{text} is not in {seen:?}");
                seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        };
        expect("ready");
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).unwrap();
        expect("got-usr1");
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        expect("got-term");
        assert_eq!(child.wait().unwrap().code(), Some(3));
    });
}

#[test]
fn what_is_removed_at_its_end_goes_even_when_its_client_is_gone() {
    Shell::with(|shell| {
        let mut child = shell
            .command(&["run", "--rm", "--name", "job", "-v", "/scratch", "-p", "18080:80", BOX, "sleep", "1000"])
            .spawn()
            .unwrap();
        eventually("it runs", || shell.run(&["ps", "-q", "job"]).code == 0 && shell.inspect("job")["pid"].is_u64());
        assert_eq!(shell.entries("root/volumes").len(), 1, "it has a volume of its own");
        child.kill().unwrap();
        child.wait().unwrap();
        shell.ok(&["stop", "-t", "0", "job"]);
        eventually("container", || shell.entries("root/containers").is_empty());
        eventually("volume", || shell.entries("root/volumes").is_empty());
        eventually("rules", || !support::run(&["nft", "list", "ruleset"]).contains("18080"));
    });
}

#[test]
fn volumes_environment_and_limits_reach_the_kernel() {
    Shell::with(|shell| {
        fs::create_dir(shell.path("given")).unwrap();
        fs::write(shell.path("given/file"), "from the host\n").unwrap();
        let script = "cat /given/file; echo $A-$B; touch /given/no 2>/dev/null || echo read-only; echo kept > /cache/x";
        let answer = shell.ok(&[
            "run",
            "--rm",
            "-e",
            "A=1 $x",
            "-e",
            "B",
            "-v",
            "./given:/given:ro",
            "-v",
            "cache:/cache",
            "--tmpfs",
            "/run:size=1m",
            BOX,
            "sh",
            "-c",
            script,
        ]);
        assert_eq!(answer.stdout, "from the host\n1 $x-\nread-only\n");
        let data = shell.path("root/volumes/_.cache/data/x");
        assert_eq!(fs::read_to_string(&data).unwrap(), "kept\n", "a named volume stays");

        sleeper(shell, "limited", &["-m", "64m", "--pids-limit", "20", "--ulimit", "nofile=100:200"]);
        let limits = |pid: u64| fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let files = limits(shell.pid("limited"));
        let files = files.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["100", "200"]);
        let cgroup = shell.inspect("limited")["places"]["cgroup"].as_str().unwrap().to_owned();
        let memory = || {
            let v1 = format!("/sys/fs/cgroup/memory{cgroup}/memory.limit_in_bytes");
            let v2 = format!("/sys/fs/cgroup{cgroup}/memory.max");
            let text = fs::read_to_string(v1).or_else(|_| fs::read_to_string(v2)).unwrap();
            text.trim().parse::<u64>().unwrap()
        };
        assert_eq!(memory(), 64 << 20);
        assert_eq!(shell.run(&["update", "limited"]).code, 64, "nothing to change");
        shell.ok(&["update", "-m", "96m", "limited"]);
        assert_eq!(memory(), 96 << 20);
        assert_eq!(shell.inspect("limited")["record"]["spec"]["resources"]["pids"], 20, "the rest is as it was");
    });
}

#[test]
fn what_is_listed_is_what_was_asked_for() {
    Shell::with(|shell| {
        sleeper(shell, "first", &["--label", "tier=web"]);
        sleeper(shell, "second", &[]);
        shell.ok(&["exec", "second", "dd", "if=/dev/zero", "of=/tmp/file", "bs=1000", "count=3"]);
        shell.ok(&["exec", "second", "ln", "/tmp/file", "/tmp/other"]);
        shell.ok(&["run", "--name", "ended", BOX, "true"]);
        let listed = |options: &[&str]| shell.ok(&[&["ps"], options].concat()).stdout;
        assert_eq!(
            listed(&["--format", r"{{.Names}}\t{{.State}}\t{{.Labels}}"]),
            "first\trunning\ttier=web\nsecond\trunning\t\n"
        );
        let names = "{{.Names}}";
        assert_eq!(listed(&["-l", "--format", names]), "ended\n");
        assert_eq!(listed(&["-n", "2", "--format", names]), "ended\nsecond\n");
        assert_eq!(listed(&["-n", "1", "--filter", "label=tier", "--format", names]), "first\n");
        assert_eq!(
            listed(&["-f", "exited=0", "--format", "{{.Names}} {{.RunningFor}}"]).split(' ').next(),
            Some("ended")
        );
        shell.ok(&[
            "create",
            "--name",
            "long",
            "-v",
            "data:/data",
            "--network",
            "none",
            BOX,
            "echo",
            "a b",
            "0123456789",
        ]);
        let template = "{{.Command}} {{.Mounts}} {{.Networks}}";
        assert_eq!(listed(&["-f", "volume=data", "--format", template]), "\"echo 'a b' 01234567…\" data none\n");
        let whole = listed(&["--no-trunc", "-f", "network=none", "--format", template]);
        assert_eq!(whole, "\"echo 'a b' 0123456789\" data none\n");
        shell.ok(&["rm", "long"]);
        assert_eq!(listed(&["--format", "table {{.Image}} {{.Names}}", "first"]).lines().next(), Some("IMAGE NAMES"));
        assert_eq!(shell.json(&["ps", "-s", "second"])[0]["size_bytes"], 3000, "a file with two names is one");
        assert!(listed(&["-s", "second"]).contains("2.9KiB"), "{}", listed(&["-s", "second"]));
        let refused = shell.run(&["ps", "--format", "{{.Nmaes}}"]);
        assert!(refused.code == 64 && refused.stderr.contains("{{.Names}}"), "{refused:?}");

        let processes = shell.ok(&["top", "first", "-o", "pid,comm"]).stdout;
        let words: Vec<&str> = processes.split_whitespace().collect();
        assert_eq!(words, ["PID", "NAME", &shell.pid("first").to_string(), "sleep"]);
        let refused = shell.run(&["top", "first", "-o", "pid,colour"]);
        assert!(refused.code == 64 && refused.stderr.contains("colour"), "{refused:?}");
    });
}

/// Each has chosen its container before it has the lock, and then changes what the one before it left.
#[test]
fn commands_that_wait_for_one_another_lose_nothing() {
    Shell::with(|shell| {
        sleeper(shell, "web", &["--pids-limit", "20"]);
        let lock = fs::File::options().append(true).open(shell.path("root/lock")).unwrap();
        lock.lock().unwrap();
        let commands: [&[&str]; 3] =
            [&["update", "-m", "96m", "web"], &["update", "--cpus", "2", "web"], &["rename", "web", "page"]];
        let waiting = commands.map(|arguments| {
            let command = shell.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            // The lock is the last that it opens before it waits.
            let descriptors = format!("/proc/{}/fd", command.id());
            let has_opened = |entry: std::io::Result<fs::DirEntry>| {
                fs::read_link(entry.unwrap().path()).is_ok_and(|file| file == shell.path("root/lock"))
            };
            eventually("it waits for the lock", || fs::read_dir(&descriptors).unwrap().any(has_opened));
            command
        });
        drop(lock);
        for command in waiting {
            let ended = command.wait_with_output().unwrap();
            assert!(ended.status.success(), "{ended:?}");
        }
        let record = &shell.inspect("page")["record"];
        let resources = &record["spec"]["resources"];
        assert_eq!((&resources["memory"], &resources["pids"]), (&"96MiB".into(), &20.into()), "{record:#}");
        assert_eq!(resources["cpus"], "2", "{record:#}");
    });
}

/// An answer and a pipe take as long as somebody likes.
#[test]
fn whoever_is_waited_for_holds_up_nobody_else() {
    Shell::with(|shell| {
        shell.ok(&["volume", "create", "old"]);
        let mut asked = Terminal::with(shell.command(&["volume", "prune", "--all"]));
        asked.expect("Type `yes`");
        shell.ok(&["volume", "create", "young"]);
        asked.type_in("yes\n");
        assert!(asked.child.wait().unwrap().success());
        assert_eq!(shell.ok(&["volume", "ls", "-q"]).stdout, "young\n", "only what was named in the question goes");

        let mut load = shell.command(&["image", "load"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let descriptors = format!("/proc/{}/fd", load.id());
        let is_spool = |entry: std::io::Result<fs::DirEntry>| {
            fs::read_link(entry.unwrap().path()).is_ok_and(|file| file.starts_with(shell.path("root/layers")))
        };
        eventually("it keeps what comes", || fs::read_dir(&descriptors).unwrap().any(is_spool));
        let lock = fs::File::options().append(true).open(shell.path("root/lock")).unwrap();
        lock.try_lock().expect("nobody has the lock");
        drop(lock);
        drop(load.stdin.take());
        assert!(!load.wait().unwrap().success(), "nothing is no archive");
    });
}

#[test]
fn names_are_found_by_prefix_resolved_and_changed() {
    Shell::with(|shell| {
        sleeper(shell, "one", &[]);
        let id = shell.ok(&["run", "-d", "--name", "two", BOX, "sleep", "1000"]).stdout.trim().to_owned();
        let taken = shell.run(&["run", "--name", "one", BOX, "true"]);
        assert!(taken.code == 125 && taken.stderr.contains("taken by container one"), "{taken:?}");
        assert_eq!(shell.inspect(&id[..5])["name"], "two");
        let address = shell.inspect("one")["addresses"][0].as_str().unwrap().to_owned();
        assert!(shell.ok(&["exec", "two", "nslookup", "one"]).stdout.contains(&address));
        shell.ok(&["rename", "one", "uno"]);
        assert!(shell.ok(&["exec", "two", "nslookup", "uno"]).stdout.contains(&address));
        assert_ne!(shell.run(&["exec", "two", "nslookup", "one"]).code, 0, "the old name is gone");
        shell.ok(&["stop", "-t", "0", "uno"]);
        assert!(!shell.ok(&["ps"]).stdout.contains("uno") && shell.ok(&["ps", "-a"]).stdout.contains("uno"));
        eventually("a name goes with its container", || shell.run(&["exec", "two", "nslookup", "uno"]).code != 0);
    });
}

#[test]
fn a_container_lives_by_hand() {
    Shell::with(|shell| {
        let script = "echo begun; read line; echo $line; exit 5";
        shell.ok(&["create", "--name", "job", "-i", BOX, "sh", "-c", script]);
        assert!(shell.inspect("job")["pid"].is_null());
        let answer = shell.feed(&["start", "-ai", "job"], b"hello\n");
        assert_eq!((answer.stdout.as_str(), answer.code), ("begun\nhello\n", 5));
        assert_eq!(shell.ok(&["wait", "job"]).stdout, "5\n");
        // Again, though its policy lets it rest.
        shell.ok(&["start", "job"]);
        let pid = shell.pid("job");
        shell.ok(&["restart", "-t", "0", "job"]);
        assert_ne!(shell.pid("job"), pid);
        let waiting = shell.command(&["wait", "job"]).stdout(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        shell.ok(&["kill", "job"]);
        assert_eq!(Answer::of(waiting.wait_with_output().unwrap()).stdout, "137\n");
        let refused = shell.run(&["kill", "job"]);
        assert!(refused.code == 1 && refused.stderr.contains("does not run"), "{refused:?}");

        sleeper(shell, "sleeper", &[]);
        shell.ok(&["pause", "sleeper"]);
        assert_eq!(shell.inspect("sleeper")["state"], "paused");
        shell.ok(&["unpause", "sleeper"]);
        assert_eq!(shell.inspect("sleeper")["state"], "running");
        assert_eq!(shell.run(&["rm", "sleeper"]).code, 1);
        shell.ok(&["rm", "-f", "sleeper", "job"]);
    });
}

#[test]
fn what_is_declared_and_what_is_run_leave_each_other_alone() {
    Shell::with(|shell| {
        sleeper(shell, "mine", &["-p", "18081:80"]);
        let pid = shell.pid("mine");
        shell.manifest("[containers.web]\nimage = \"box\"\ncommand = [\"sleep\", \"1000\"]\nports = { 18082 = 80 }\n");
        shell.ok(&["apply"]);
        assert!(shell.plan().contains("Nothing to do"));
        let rules = support::run(&["nft", "list", "ruleset"]);
        assert!(rules.contains("18081") && rules.contains("18082"), "both are published: {rules}");
        // Into the project's network, for a look.
        let look = shell.ok(&["run", "--rm", "--network", "shop/default", BOX, "nslookup", "web"]);
        let address = shell.inspect("web")["addresses"][0].as_str().unwrap().to_owned();
        assert!(look.stdout.contains(&address), "{look:?}");
        let shared = shell.ok(&["run", "--rm", "--network", "container:web", BOX, "cat", "/proc/net/fib_trie"]);
        assert!(shared.stdout.contains(&address), "{shared:?}");
        assert!(shell.plan().contains("Nothing to do"), "{}", shell.plan());

        // A port that is taken is told while planning, and nothing is done.
        shell.manifest("[containers.web]\nimage = \"box\"\ncommand = [\"sleep\", \"1000\"]\nports = { 18081 = 80 }\n");
        let refused = shell.run(&["apply"]);
        assert!(refused.code != 0 && refused.stderr.contains("published by container mine"), "{refused:?}");
        shell.ok(&["stop", "-t", "0", "mine"]);
        shell.ok(&["apply"]);
        let taken = shell.run(&["start", "mine"]);
        assert!(taken.code != 0 && taken.stderr.contains("of project shop"), "{taken:?}");
        shell.ok(&["rm", "mine"]);
        sleeper(shell, "mine", &[]);
        assert_ne!(shell.pid("mine"), pid);
        let pid = shell.pid("mine");
        shell.ok(&["down", "--yes"]);
        assert_eq!(shell.pid("mine"), pid, "down is about its project");
    });
}

#[test]
fn what_is_done_to_a_declared_container_by_hand_is_drift() {
    Shell::with(|shell| {
        shell.manifest("[containers.web]\nimage = \"box\"\ncommand = [\"sleep\", \"1000\"]\n");
        shell.ok(&["apply"]);
        let stopped = shell.ok(&["stop", "-t", "0", "web"]);
        assert!(stopped.stderr.contains("declared"), "{stopped:?}");
        assert!(shell.plan().contains("stopped by hand"), "{}", shell.plan());
        shell.ok(&["apply"]);
        shell.ok(&["pause", "web"]);
        assert!(shell.plan().contains("paused by hand"), "{}", shell.plan());
        shell.ok(&["apply"]);
        assert_eq!(shell.inspect("web")["state"], "running");
        shell.ok(&["kill", "web"]);
        assert!(shell.plan().contains("stopped by hand"), "{}", shell.plan());
        shell.ok(&["apply"]);
        let refused = shell.run(&["rm", "web"]);
        assert!(refused.code == 1 && refused.stderr.contains("declared by project shop"), "{refused:?}");
        shell.ok(&["rm", "-f", "web"]);
        assert!(shell.plan().contains("declared, not there"), "{}", shell.plan());
        shell.ok(&["apply"]);
        for refused in [&["rename", "web", "other"][..], &["update", "-m", "64m", "web"]] {
            assert!(shell.run(refused).stderr.contains("declared by project shop"), "{refused:?}");
        }
        shell.ok(&["down", "--yes"]);
    });
}

#[test]
fn who_lends_its_network_stays_and_so_does_who_has_its_name() {
    Shell::with(|shell| {
        sleeper(shell, "lender", &[]);
        // What is run by hand takes no declared name; the other way round is allowed.
        sleeper(shell, "web", &[]);
        shell.manifest("[containers.web]\nimage = \"box\"\ncommand = [\"sleep\", \"1000\"]\n");
        shell.ok(&["apply"]);
        let ids = shell.ok(&["ps", "-q"]).stdout;
        let network = |pid: u64| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        let lent = network(shell.pid("lender"));
        let seen = shell.ok(&["run", "--rm", "--network", "container:lender", BOX, "readlink", "/proc/self/ns/net"]);
        assert_eq!(Path::new(seen.stdout.trim()), lent);
        shell.ok(&["run", "--rm", "--network", "container:shop/web", BOX, "true"]);
        sleeper(shell, "guest", &["--network", "container:lender"]);
        shell.ok(&["restart", "-t", "0", "guest"]);
        shell.ok(&["rm", "-f", "guest"]);
        assert_eq!((shell.ok(&["ps", "-q"]).stdout, network(shell.pid("lender"))), (ids, lent));
    });
}

#[test]
fn a_job_has_the_streams_that_were_asked_for_and_leaves_no_volume() {
    Shell::with(|shell| {
        let both = ["sh", "-c", "echo out; echo err >&2"];
        for (options, out, err) in
            [(&["-a", "stdout"][..], "out\n", ""), (&["-a", "stderr"], "", "err\n"), (&[], "out\n", "err\n")]
        {
            let ran = shell.ok(&[&["run", "--rm"], options, &[BOX], &both].concat());
            assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), (out, err), "{options:?}");
        }
        let volumes = || fs::read_dir(shell.path("root/volumes")).map_or(0, Iterator::count);
        shell.ok(&["run", "--name", "kept", "-v", "/own", BOX, "true"]);
        assert_eq!(volumes(), 1);
        shell.ok(&["rm", "-v", "kept"]);
        // As soon as the command is back.
        for _ in 0..5 {
            shell.ok(&["run", "--rm", "-v", "/own", BOX, "true"]);
            assert_eq!(volumes(), 0);
        }
        // What follows the image is no option.
        assert_eq!(shell.ok(&["run", "--rm", "--entrypoint", "echo", BOX, "--rm", "-i"]).stdout, "--rm -i\n");
        assert_eq!(shell.run(&["run", "--rm", "-p", "18070:80", "-p", "18070:81", BOX, "true"]).code, 125);
    });
}

#[test]
fn what_was_asked_for_is_inspected_under_the_names_that_docker_has() {
    Shell::with(|shell| {
        sleeper(shell, "plain", &[]);
        fs::create_dir(shell.path("bound")).unwrap();
        let bound = shell.path("bound");
        let bind = format!("{}:/b:ro", bound.display());
        let words = "--cap-add NET_ADMIN --cap-drop CHOWN --security-opt seccomp=unconfined --ulimit nofile=100:200 \
            --sysctl net.core.somaxconn=99 --device /dev/null:/dev/other:r --group-add 50 --tmpfs /run:size=1m --cpus 0.5 \
            --health-cmd true --health-interval 1s --health-retries 2 --log-opt max-size=1m --log-opt max-file=3 \
            --stop-timeout 5 --stop-signal INT -v kept:/v -p 18071:80";
        let words: Vec<&str> = words.split_whitespace().chain(["-v", &bind]).collect();
        sleeper(shell, "asked", &words);
        let said = |name: &str, template: &str| shell.ok(&["inspect", "-f", template, name]).stdout;
        let mounts = "{{range .Mounts}}{{.Type}},{{.Name}},{{.Destination}},{{.Mode}},{{.RW}},{{.Driver}} {{end}}";
        for (template, plain, asked) in [
            ("{{json .HostConfig.CapAdd}}{{json .HostConfig.CapDrop}}", "nullnull", "[\"NET_ADMIN\"][\"CHOWN\"]"),
            (
                "{{json .HostConfig.SecurityOpt}}",
                "[\"no-new-privileges\"]",
                "[\"no-new-privileges\",\"seccomp=unconfined\"]",
            ),
            ("{{json .HostConfig.Ulimits}}", "[]", "[{\"Hard\":200,\"Name\":\"nofile\",\"Soft\":100}]"),
            ("{{json .HostConfig.Sysctls}}", "null", "{\"net.core.somaxconn\":\"99\"}"),
            (
                "{{range .HostConfig.Devices}}{{.PathOnHost}} {{.PathInContainer}} {{.CgroupPermissions}}{{end}}",
                "",
                "/dev/null /dev/other r",
            ),
            ("{{json .HostConfig.GroupAdd}}", "null", "[\"50\"]"),
            ("{{json .HostConfig.Tmpfs}}", "null", "{\"/run\":\"size=1048576,noexec\"}"),
            ("{{.HostConfig.NanoCpus}} {{.HostConfig.UsernsMode}}", "0 host", "500000000 host"),
            (
                "{{.HostConfig.LogConfig.Type}} {{index .HostConfig.LogConfig.Config \"max-size\"}}",
                "json-file 10485760",
                "json-file 1048576",
            ),
            ("{{json .HostConfig.Binds}}", "null", &format!("[\"{bind}\",\"kept:/v\"]")),
            (
                "{{if .Config.Healthcheck}}{{json .Config.Healthcheck.Test}}{{.Config.Healthcheck.Interval}}{{end}}",
                "",
                "[\"CMD-SHELL\",\"true\"]1000000000",
            ),
            ("{{.Config.StopSignal}} {{.Config.StopTimeout}}", " 10", "SIGINT 5"),
            ("{{json .Config.ExposedPorts}}", "null", "{\"80/tcp\":{}}"),
            (mounts, "", "bind,,/b,ro,false, tmpfs,,/run,,true, volume,kept,/v,,true,local "),
        ] {
            assert_eq!(said("plain", template), format!("{plain}\n"), "{template}");
            assert_eq!(said("asked", template), format!("{asked}\n"), "{template}");
        }
        eventually("it was asked", || said("asked", "{{len .State.Health.Log}}") != "0\n");
        assert_eq!(
            said("asked", "{{(index .State.Health.Log 0).ExitCode}}{{len (index .State.Health.Log 0).End}}"),
            "024\n"
        );
        // What could not start did not end well.
        assert_eq!(shell.run(&["run", "-d", "--name", "failed", BOX, "nowhere"]).code, 127);
        assert_eq!(said("failed", "{{.State.ExitCode}}"), "127\n");
    });
}

#[test]
fn a_job_whose_cidfile_is_there_does_not_run() {
    Shell::with(|shell| {
        let read = |name: &str| fs::read_to_string(shell.path(name)).unwrap();
        shell.ok(&["run", "--name", "once", "--cidfile", "cid", BOX, "true"]);
        assert_eq!(shell.inspect("once")["id"], read("cid"));
        for options in [&["run"][..], &["run", "-d"], &["create"]] {
            let twice = shell.run(&[options, &["--name", "twice", "--cidfile", "cid", BOX, "true"]].concat());
            assert!(twice.code == 125 && twice.stderr.contains("`cid`"), "{twice:?}");
            assert_eq!(shell.ok(&["ps", "-a", "--format", "{{.Names}}"]).stdout, "once\n");
        }
        // One that could not be started is there all the same; without a container there is no file.
        assert_eq!(shell.run(&["run", "--name", "failed", "--cidfile", "failed", BOX, "nowhere"]).code, 127);
        assert_eq!(shell.inspect("failed")["id"], read("failed"));
        assert_eq!(shell.run(&["run", "--cidfile", "none", "rootfs:./nowhere", "true"]).code, 125);
        assert!(!shell.path("none").exists());
    });
}

#[test]
fn files_are_copied_as_docker_does() {
    Shell::with(|shell| {
        fs::create_dir_all(shell.path("tree/sub")).unwrap();
        fs::write(shell.path("tree/sub/file"), "text\n").unwrap();
        std::os::unix::fs::chown(shell.path("tree/sub/file"), Some(1000), Some(1000)).unwrap();
        sleeper(shell, "box", &["-v", "data:/data"]);
        shell.ok(&["stop", "-t", "0", "box"]);
        // The same, stopped and running; volumes are seen either way.
        for round in ["stopped", "running"] {
            let text = |path: &str| {
                let archive = shell.command(&["cp", &format!("box:{path}"), "-"]).output().unwrap();
                assert!(archive.status.success(), "{round} {path}: {archive:?}");
                let mut archive = tar::Archive::new(archive.stdout.as_slice());
                let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                (text, entry.header().uid().unwrap())
            };
            shell.ok(&["cp", "tree", "box:/data"]);
            assert_eq!(text("/data/tree/sub/file"), ("text\n".to_owned(), 0), "{round}");
            assert!(shell.path("root/volumes/_.data/data/tree/sub/file").exists(), "{round}");
            shell.ok(&["cp", "-a", "tree/.", &format!("box:/tmp/{round}")]);
            assert_eq!(text(&format!("/tmp/{round}/sub/file")), ("text\n".to_owned(), 1000), "{round}");
            shell.ok(&["cp", "tree/sub/file", "box:/tmp/renamed"]);
            assert_eq!(text("/tmp/renamed").0, "text\n");
            shell.ok(&["cp", "box:/data/tree", &format!("back-{round}")]);
            assert_eq!(fs::read_to_string(shell.path(&format!("back-{round}/sub/file"))).unwrap(), "text\n");
            for (arguments, reason) in [
                (["cp", "tree", "box:/tmp/renamed"], "no directory"),
                (["cp", "tree/sub/file", "box:/nowhere/x"], "no directory"),
                (["cp", "box:/nowhere", "out"], "cannot find"),
                (["cp", "box:/tmp/renamed/", "out"], "no directory"),
                (["cp", "tree/sub/file/", "box:/tmp"], "no directory"),
            ] {
                let answer = shell.run(&arguments);
                assert!(answer.code == 1 && answer.stderr.contains(reason), "{arguments:?}: {answer:?}");
            }
            // A link is written through, on both sides, and to what is not there yet.
            let link = format!("link-{round}");
            std::os::unix::fs::symlink(format!("there-{round}"), shell.path(&link)).unwrap();
            shell.ok(&["cp", "box:/data/tree/sub/file", &link]);
            assert_eq!(fs::read_to_string(shell.path(&format!("there-{round}"))).unwrap(), "text\n");
            assert!(fs::symlink_metadata(shell.path(&link)).unwrap().is_symlink());
            shell.ok(&["cp", &link, "box:/tmp/link"]);
            shell.ok(&["cp", "tree/sub/file", "box:/tmp/link"]);
            assert_eq!(text(&format!("/tmp/there-{round}")).0, "text\n", "{round}");
            let archive = {
                let mut builder = tar::Builder::new(Vec::new());
                builder.append_dir_all("packed", shell.path("tree")).unwrap();
                builder.into_inner().unwrap()
            };
            assert_eq!(shell.feed(&["cp", "-", "box:/tmp"], &archive).code, 0);
            assert_eq!(text("/tmp/packed/sub/file").0, "text\n");
            shell.ok(&["start", "box"]);
        }
        let changes = shell.ok(&["diff", "box"]).stdout;
        assert!(changes.contains("C /tmp\n") && changes.contains("A /tmp/renamed\n"), "{changes}");
        shell.ok(&[
            "exec",
            "box",
            "sh",
            "-c",
            "cat /etc/passwd >/dev/null; chmod 600 /etc/passwd; mv /etc/group /tmp/g",
        ]);
        let changes = shell.ok(&["diff", "box"]).stdout;
        assert!(changes.contains("C /etc/passwd\n") && changes.contains("D /etc/group\n"), "{changes}");
        assert!(!changes.contains("/proc") && !changes.contains("hosts"), "{changes}");
    });
}

/// CVE-2018-15664: a container that swaps a directory for a link to the host while something is copied, both ways.
#[test]
fn a_copy_never_leaves_the_container() {
    Shell::with(|shell| {
        let secret = shell.path("secret");
        fs::create_dir(&secret).unwrap();
        fs::write(secret.join("file"), "secret of the host\n").unwrap();
        let outside = secret.to_str().unwrap();
        // Inside, the same path leads to a decoy, so that what is copied tells where it came from.
        let script = format!(
            "mkdir -p {outside} /x/real; echo decoy > {outside}/file; echo mine > /x/real/file; cd /x; mv real swap; \
             echo ready; while true; do mv swap real; ln -s {outside} swap; rm swap; ln -s / swap; rm swap; mv real swap; done"
        );
        shell.ok(&["run", "-d", "--name", "hostile", BOX, "sh", "-c", &script]);
        eventually("it swaps", || shell.ok(&["logs", "hostile"]).stdout.contains("ready"));
        fs::write(shell.path("harmless"), "harmless\n").unwrap();
        let before = fs::metadata("/").unwrap();
        let (mut outs, mut ins) = (0, 0);
        let begun = Instant::now();
        let enough = |outs, ins| outs > 0 && ins > 0 && begun.elapsed() > Duration::from_secs(6);
        while !enough(outs, ins) && begun.elapsed() < Duration::from_secs(60) {
            let out = shell.command(&["cp", "hostile:/x/swap/file", "-"]).output().unwrap();
            assert!(!String::from_utf8_lossy(&out.stdout).contains("secret of the host"));
            outs += usize::from(out.status.success());
            ins += usize::from(shell.run(&["cp", "harmless", "hostile:/x/swap/harmless"]).code == 0);
            assert_eq!(shell.entries("secret"), ["file"], "nothing was written to the host");
        }
        assert!(!Path::new("/harmless").exists() && fs::metadata("/").unwrap().ino() == before.ino());
        assert!(outs > 0 && ins > 0, "some copies went through ({outs} out, {ins} in)");
    });
}

/// What a container writes into an extended attribute comes along in the archive between the two ends, and is never taken
/// for another of its records there: neither for a name, nor for a size, which says where the next header is.
#[test]
fn an_attribute_of_a_file_says_nothing_but_itself() {
    Shell::with(|shell| {
        let victim = shell.path("victim");
        fs::create_dir(&victim).unwrap();
        let record = |key: &str, value: &str| {
            let rest = format!(" {key}={value}\n");
            let length = (rest.len()..).find(|length| length.to_string().len() + rest.len() == *length).unwrap();
            format!("{length}{rest}")
        };
        let says = |path: &Path, records: &str| {
            rustix::fs::setxattr(path, "user.x", format!("a\n{records}").as_bytes(), rustix::fs::XattrFlags::empty())
                .unwrap();
        };
        // In whichever order a file system lists them, in one of these trees the link comes before the file.
        for (tree, link, file) in [("one", "a", "z"), ("other", "z", "a")] {
            let path = shell.path("rootfs").join(tree);
            fs::create_dir(&path).unwrap();
            std::os::unix::fs::symlink(&victim, path.join(link)).unwrap();
            fs::write(path.join(file), "* * * * * root attack\n").unwrap();
            says(&path.join(file), &record("path", &format!("{tree}/{link}/cron-entry")));
        }
        fs::write(shell.path("rootfs/log"), "log\n").unwrap();
        says(&shell.path("rootfs/log"), &record("path", ".profile"));
        let hidden = {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(3);
            header.set_mode(0o755);
            builder.append_data(&mut header, "hidden", &b"bad"[..]).unwrap();
            builder.into_inner().unwrap()
        };
        fs::write(shell.path("rootfs/entries"), &hidden).unwrap();
        says(&shell.path("rootfs/entries"), &record("size", "0"));
        sleeper(shell, "hostile", &[]);
        for archive in [&[][..], &["-a"]] {
            let out = shell.path("out");
            fs::create_dir(&out).unwrap();
            let copy = |name| shell.run(&[&["cp"], archive, &[&format!("hostile:/{name}"), "out"]].concat());
            let copied = ["one", "other", "log", "entries"].map(copy);
            assert_eq!(shell.entries("victim"), [] as [&str; 0], "nothing was written through the link");
            assert!(copied.iter().all(|copied| copied.code == 0), "{copied:#?}");
            for (directory, expected) in
                [("out", &["entries", "log", "one", "other"][..]), ("out/one", &["a", "z"]), ("out/other", &["a", "z"])]
            {
                let mut entries = shell.entries(directory);
                entries.sort();
                assert_eq!(entries, expected);
            }
            assert_eq!(fs::read(out.join("entries")).unwrap(), hidden);
            fs::remove_dir_all(&out).unwrap();
        }
    });
}

/// The host's null device is behind masked paths and is what a process reads where it has no input; root of a container
/// may write to it and no more.
#[test]
fn a_container_cannot_change_the_null_device_of_the_host() {
    Shell::with(|shell| {
        let device = || {
            let found = fs::metadata("/dev/null").unwrap();
            (found.mode(), found.uid(), found.gid())
        };
        let before = device();
        let attack = "for path in /proc/keys /proc/timer_list /proc/self/fd/0 /proc/self/fd/1; do \
                      chmod 1666 $path; chown 0:1 $path; done; echo tried > /proc/self/fd/1; cat; echo it is one > /proc/keys";
        let ways: [&[&str]; 3] = [
            &["run", "--rm", BOX, "sh", "-c", attack],
            &["exec", "box", "sh", "-c", attack],
            &["exec", "-d", "box", "sh", "-c", attack],
        ];
        sleeper(shell, "box", &[]);
        shell.ok(&[
            "run",
            "-d",
            "--name",
            "own",
            "--health-cmd",
            attack,
            "--health-interval",
            "200ms",
            BOX,
            "sh",
            "-c",
            &format!("{attack}; sleep 1000"),
        ]);
        let said: Vec<_> = ways.iter().map(|way| shell.run(way)).collect();
        eventually("it was asked", || shell.inspect("own")["health"] == "healthy");
        let after = device();
        rustix::fs::chmod("/dev/null", rustix::fs::Mode::from_raw_mode(before.0 & 0o7777)).unwrap();
        std::os::unix::fs::chown("/dev/null", Some(before.1), Some(before.2)).unwrap();
        assert_eq!(after, before);
        assert!(said.iter().all(|said| said.code == 0), "{said:?}");
        assert!(said[0].stdout.contains("tried") && said[0].stderr.contains("Read-only"), "{said:?}");
    });
}

/// Leases on files of the container that we write (fcntl(2)): the kernel has whoever opens them wait for 45 seconds.
const LEASE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int main(void) {
    const char *files[] = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"};
    signal(SIGIO, SIG_IGN);
    for (int i = 0; i < 3; i++) {
        int file = open(files[i], O_RDWR);
        if (ftruncate(file, 1L << 40) || fcntl(file, F_SETLEASE, F_WRLCK)) { perror(files[i]); return 1; }
    }
    puts("leased");
    fflush(stdout);
    for (;;) pause();
}
"#;

#[test]
fn a_container_holds_nobody_up_by_the_files_that_are_written_for_it() {
    Shell::with(|shell| {
        shell.write("lease.c", LEASE);
        let (source, program) = (shell.path("lease.c"), shell.path("rootfs/lease"));
        support::run(&["gcc", "-static", "-o", program.to_str().unwrap(), source.to_str().unwrap()]);
        shell.ok(&["run", "-d", "--name", "hostile", "--network", "none", BOX, "/lease"]);
        eventually("it has the leases", || shell.ok(&["logs", "hostile"]).stdout.contains("leased"));
        let begun = Instant::now();
        shell.ok(&["update", "--memory", "100m", "hostile"]);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        shell.ok(&["restart", "-t", "0", "hostile"]);
        let files = shell.path("root/containers").join(shell.inspect("hostile")["id"].as_str().unwrap()).join("files");
        eventually("it has them again", || shell.ok(&["logs", "hostile"]).stdout.matches("leased").count() == 2);
        shell.ok(&["stop", "-t", "0", "hostile"]);
        shell.ok(&["start", "hostile"]);
        eventually("and again", || shell.ok(&["logs", "hostile"]).stdout.matches("leased").count() == 3);
        for name in ["hosts", "hostname", "resolv.conf"] {
            assert!(
                fs::metadata(files.join(name)).unwrap().blocks() < 1024,
                "nothing was written as far as it was long"
            );
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        // Where the root filesystem is read-only, they are as well.
        let refused = shell.run(&["run", "--rm", "--read-only", BOX, "sh", "-c", "echo 1 > /etc/hosts"]);
        assert!(refused.code != 0 && refused.stderr.contains("Read-only"), "{refused:?}");
    });
}

/// CVE-2019-14271: a copy must not load or execute what a container provides.
#[test]
fn a_copy_executes_nothing_of_the_container() {
    Shell::with(|shell| {
        for library in ["libnss_files.so.2", "libnss_compat.so.2", "libc.so.6", "ld-linux-x86-64.so.2"] {
            for directory in ["lib", "lib64", "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"] {
                fs::create_dir_all(shell.path("rootfs").join(directory)).unwrap();
                fs::write(shell.path("rootfs").join(directory).join(library), "not a library").unwrap();
            }
        }
        fs::create_dir_all(shell.path("rootfs/usr/bin")).unwrap();
        fs::write(shell.path("rootfs/usr/bin/tar"), "#!/bin/sh\ntouch /tmp/executed\n").unwrap();
        sleeper(shell, "hostile", &[]);
        let traced = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=execve,execveat,chroot,setns,openat,open", "-o", "trace"])
            .arg(env!("CARGO_BIN_EXE_evenkeel"))
            .args(["cp", "-a", "hostile:/etc/passwd", "out"])
            .current_dir(shell.directory.path())
            .env("EVENKEEL_ROOT", shell.path("root"))
            .env("EVENKEEL_RUN", shell.path("run"))
            .status()
            .unwrap();
        assert!(traced.success());
        let trace = fs::read_to_string(shell.path("trace")).unwrap();
        let executed: Vec<&str> = trace.lines().filter(|line| line.contains("exec")).collect();
        assert_eq!(executed.len(), 1, "only the program itself: {executed:#?}");
        assert!(!trace.contains("chroot(") && !trace.contains("setns("), "it stays where it is");
        assert!(!trace.contains("libnss"), "names of users are not looked up");
        assert_eq!(shell.run(&["exec", "hostile", "test", "-e", "/tmp/executed"]).code, 1);
    });
}

#[test]
fn somebody_who_looks_on_sees_a_declared_container_too() {
    Shell::with(|shell| {
        let command = "[\"sh\", \"-c\", \"while true; do echo tick; sleep 0.1; done\"]";
        shell.manifest(&format!("[containers.clock]\nimage = \"box\"\ncommand = {command}\n"));
        shell.ok(&["apply"]);
        let mut child =
            shell.command(&["attach", "--sig-proxy=false", "clock"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut bytes = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"tick\n");
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert_eq!(shell.inspect("clock")["state"], "running");
        shell.ok(&["down", "--yes"]);
    });
}

#[test]
fn a_published_port_is_told_and_reached() {
    Shell::with(|shell| {
        shell.ok(&[
            "run",
            "-d",
            "--name",
            "web",
            "-p",
            "18083:8080",
            BOX,
            "httpd",
            "-f",
            "-p",
            "8080",
            "-h",
            "/var/www",
        ]);
        assert_eq!(shell.ok(&["port", "web"]).stdout, "8080/tcp -> 127.0.0.1:18083\n");
        assert_eq!(shell.ok(&["port", "web", "8080"]).stdout, "127.0.0.1:18083\n");
        assert_eq!(shell.run(&["port", "web", "81"]).code, 1);
        eventually("it serves", || {
            let get = Command::new("busybox").args(["wget", "-qO-", "http://127.0.0.1:18083/index.html"]).output();
            get.is_ok_and(|output| output.stdout == b"hello from a container\n")
        });
    });
}

#[test]
fn volumes_and_networks_are_made_listed_and_removed_by_hand() {
    Shell::with(|shell| {
        let refused = |arguments: &[&str], reason: &str| {
            let answer = shell.run(arguments);
            assert!(answer.code != 0 && answer.stderr.contains(reason), "{arguments:?}: {answer:?}");
        };
        shell.ok(&["volume", "create", "--label", "kind=cache", "made"]);
        refused(&["volume", "create", "made"], "already");
        shell.manifest(
            "[volumes.kept]\n[networks.side]\n[containers.web]\nimage = \"box\"\ncommand = [\"sleep\", \"1000\"]\n\
             networks = [\"side\"]\nmounts = { \"/kept\" = \"kept\" }\n",
        );
        shell.ok(&["apply"]);
        shell.ok(&["network", "create", "--subnet", "10.77.3.0/24", "--internal", "quiet"]);
        shell.ok(&["network", "create", "loud"]);
        let bridges = || support::run(&["ip", "-o", "link", "show", "type", "bridge"]).lines().count();
        assert_eq!(bridges(), 3, "two of ours and the project's");
        assert!(support::run(&["ip", "-o", "addr"]).contains("10.77.3.1/24"), "the bridge has the first address");
        refused(&["network", "create", "quiet"], "already");
        refused(&["network", "create", "--subnet", "10.77.3.128/25", "other"], "10.77.3");
        refused(&["network", "create", "--subnet", "10.77.3.1/24", "other"], "the subnet is");

        let name = [
            "run",
            "-d",
            "--name",
            "user",
            "-v",
            "made:/made",
            "-v",
            "/own",
            "--network",
            "quiet",
            "--network",
            "loud",
        ];
        shell.ok(&[&name[..], &[BOX, "sleep", "1000"]].concat());
        let fixed = ["--network", "quiet", "--ip", "10.77.3.77", "--network-alias", "other"];
        let found =
            shell.ok(&[&["run", "--rm"], &fixed[..], &[BOX, "sh", "-c", "ip -o addr; nslookup other"]].concat());
        assert!(
            found.stdout.contains("inet 10.77.3.77/24") && found.stdout.contains("Address: 10.77.3.77"),
            "{found:?}"
        );
        for wrong in ["10.78.0.5", "10.77.3.1"] {
            refused(&["run", "--rm", "--network", "quiet", "--ip", wrong, BOX, "true"], "not one of network quiet");
        }
        refused(&["run", "--rm", "--network", "nowhere", BOX, "true"], "quiet");

        let listed: Value = serde_json::from_str(&shell.ok(&["volume", "ls", "--json"]).stdout).unwrap();
        let used: Vec<_> = listed.as_array().unwrap().iter().map(|v| v["used_by"][0].as_str().unwrap()).collect();
        assert_eq!(used, ["user", "user", "shop/web"], "{listed:#}");
        let one: Value = serde_json::from_str(&shell.ok(&["volume", "inspect", "made"]).stdout).unwrap();
        assert!(
            one[0]["spec"]["labels"]["kind"] == "cache" && one[0]["path"].as_str().unwrap().ends_with("_.made/data")
        );
        let networks: Value = serde_json::from_str(&shell.ok(&["network", "inspect", "quiet"]).stdout).unwrap();
        assert!(networks[0]["containers"]["user"]["v4"].as_str().unwrap().starts_with("10.77.3."), "{networks:#}");

        refused(&["volume", "rm", "made"], "container user uses");
        refused(&["volume", "rm", "shop/kept"], "--remove-volume kept");
        refused(&["network", "rm", "loud"], "container user is on");
        refused(&["network", "rm", "shop/side"], "belongs to project shop");
        assert_eq!(shell.ok(&["network", "prune", "--force"]).stdout, "", "both have a container");
        assert!(shell.plan().contains("Nothing to do"), "{}", shell.plan());

        shell.ok(&["rm", "-f", "user"]);
        assert_eq!(bridges(), 3, "what was made by hand stays");
        let data = shell.path("root/volumes/_.made/data/x");
        fs::write(data, "kept").unwrap();
        // Without a terminal nobody can agree.
        assert_eq!(shell.run(&["volume", "prune"]).code, 4);
        assert_eq!(shell.ok(&["volume", "prune", "-f"]).stdout.lines().count(), 1, "only what was made for one alone");
        assert_eq!(shell.ok(&["volume", "rm", "made"]).stdout, "made\n");
        let trash = shell.entries("root/trash");
        assert!(trash.len() == 1 && trash[0].starts_with("_.made."), "{trash:?}");
        assert_eq!(fs::read_to_string(shell.path(&format!("root/trash/{}/data/x", trash[0]))).unwrap(), "kept");
        shell.ok(&["network", "rm", "loud"]);
        assert_eq!(shell.ok(&["network", "prune", "-f"]).stdout, "quiet\n");
        assert_eq!(bridges(), 1);
        assert!(!support::run(&["nft", "list", "ruleset"]).contains("10.77.3"), "their rules go with them");
        assert!(shell.plan().contains("Nothing to do"), "{}", shell.plan());
        assert_eq!(shell.ok(&["volume", "ls", "-q"]).stdout, "shop/kept\n");
        shell.ok(&["down", "--yes", "--volumes"]);
    });
}

#[test]
fn options_of_docker_that_are_not_ours_say_what_to_use() {
    Shell::with(|shell| {
        for (option, advice) in
            [("--mac-address=02:00:00:00:00:01", "--ip"), ("--uts=host", "namespace"), ("-q", "leave it out")]
        {
            let answer = shell.run(&["run", "--rm", option, BOX, "true"]);
            assert!(answer.code == 125 && answer.stderr.contains(advice), "{option}: {answer:?}");
        }
        let unknown = shell.run(&["run", "--rm", "--nmae", "x", BOX, "true"]);
        assert!(unknown.code == 125 && unknown.stderr.contains("--name"), "{unknown:?}");
        let wrong = shell.run(&["run", "--rm", "--log-opt", "mode=blocking", BOX, "true"]);
        assert!(wrong.code == 125 && wrong.stderr.contains("max-size"), "{wrong:?}");
    });
}

#[test]
fn every_exposed_port_is_published_on_a_free_one() {
    Shell::with(|shell| {
        let serve = ["httpd", "-f", "-p", "8080", "-h", "/var/www"];
        let options = ["run", "-d", "--name", "web", "-P", "--expose", "8080", "--expose", "53/udp", BOX];
        shell.ok(&[&options[..], &serve].concat());
        let told = shell.ok(&["port", "web", "8080"]).stdout;
        let port: u16 = told.trim().strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
        assert!(shell.ok(&["port", "web", "53/udp"]).stdout.starts_with("127.0.0.1:"));
        let url = format!("http://127.0.0.1:{port}/index.html");
        eventually("it serves", || {
            let get = Command::new("busybox").args(["wget", "-qO-", &url]).output();
            get.is_ok_and(|output| output.stdout == b"hello from a container\n")
        });
        assert_eq!(shell.run(&["run", "--rm", "--expose", "80", BOX, "true"]).code, 125, "it says nothing without -P");
    });
}

#[test]
fn a_terminal_is_left_by_the_keys_that_were_chosen() {
    Shell::with(|shell| {
        let mut terminal =
            Terminal::with(shell.command(&["run", "-it", "--name", "look", "--detach-keys", "ctrl-x,d", BOX, "sh"]));
        // Not these, and half of them is typed through.
        terminal.type_in("\x10\x11echo he''re\n");
        terminal.expect("here");
        terminal.type_in("\x18d");
        terminal.expect("left it running");
        assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
        let wrong = shell.run(&["run", "-it", "--detach-keys", "ctrl-1", BOX, "sh"]);
        assert!(wrong.code == 125 && wrong.stderr.contains("ctrl-p,ctrl-q"), "{wrong:?}");
    });
}

#[test]
fn the_terminal_of_a_further_process_is_left_and_it_goes_on() {
    Shell::with(|shell| {
        sleeper(shell, "box", &[]);
        // A terminal hangs up when nobody is at its other side, and takes nothing then.
        let script = "echo here; until [ -e /tmp/go ]; do sleep 0.1; done; echo on && touch /tmp/went-on";
        let mut terminal =
            Terminal::with(shell.command(&["exec", "-it", "--detach-keys", "ctrl-x,d", "box", "sh", "-c", script]));
        terminal.expect("here");
        terminal.type_in("\x18d");
        assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
        shell.ok(&["exec", "box", "touch", "/tmp/go"]);
        eventually("it goes on", || shell.run(&["exec", "box", "test", "-e", "/tmp/went-on"]).code == 0);
    });
}

#[test]
fn mounts_ports_and_hosts_have_dockers_words() {
    Shell::with(|shell| {
        let hosts = shell.ok(&["run", "--rm", "--add-host", "host:host-gateway", BOX, "cat", "/etc/hosts"]).stdout;
        let route = shell.ok(&["run", "--rm", BOX, "busybox", "ip", "route"]).stdout;
        let gateway = route.split_whitespace().skip_while(|word| *word != "via").nth(1).unwrap();
        assert!(hosts.contains(&format!("{gateway}\thost\n")), "{hosts}{route}");

        let mounted = |options: &[&str]| {
            let words = [&["run", "--rm"], options, &[BOX, "grep", " /x ", "/proc/mounts"]].concat();
            shell.ok(&words).stdout
        };
        let tmpfs = mounted(&["--tmpfs", "/x:size=1m,mode=1770,uid=5,gid=6"]);
        for option in ["noexec", "nosuid", "nodev", "size=1024k", "mode=1770", "uid=5", "gid=6"] {
            assert!(tmpfs.contains(option), "{option}: {tmpfs}");
        }
        assert!(!mounted(&["--tmpfs", "/x:exec,ro"]).contains("noexec"));
        assert!(mounted(&["-v", "/tmp:/x:ro,Z"]).contains(" ro,"));

        // An empty volume is filled with what the image has there, or not.
        let content = |volume: &str| shell.ok(&["run", "--rm", "-v", volume, BOX, "ls", "/var/www"]).stdout;
        assert_eq!((content("full:/var/www"), content("empty:/var/www:nocopy")), ("index.html\n".into(), "".into()));

        // What one mounts another has, but what is in memory; and it goes with the last of them.
        sleeper(shell, "first", &["-v", "/anonymous", "-v", "named:/named", "--tmpfs", "/own"]);
        let script = "touch /anonymous/x; touch /named/y; grep -c -e /anonymous -e /named -e /own /proc/mounts";
        let refused = shell.run(&["run", "--rm", "--volumes-from", "first:ro", BOX, "sh", "-c", script]);
        assert_eq!(refused.stdout, "2\n");
        assert_eq!(refused.stderr.matches("Read-only file system").count(), 2, "{refused:?}");
        shell.ok(&["run", "--rm", "--volumes-from", "first", BOX, "sh", "-c", script]);
        shell.ok(&["exec", "first", "ls", "/anonymous/x", "/named/y"]);

        for published in ["80", "0:80", "18080-18099:80"] {
            let name = format!("port-{}", published.len());
            sleeper(shell, &name, &["-p", published]);
            let port = shell.ok(&["port", &name]).stdout;
            assert!(port.starts_with("80/tcp -> 127.0.0.1:") && !port.ends_with(":0\n"), "{port}");
        }
        // What a container publishes has no socket that listens.
        for (name, published) in
            [("tcp-2", "18080-18099:80"), ("udp-1", "18080-18099:80/udp"), ("udp-2", "*:18080-18099:80/udp")]
        {
            sleeper(shell, name, &["-p", published]);
        }
        let publishes = |name: &str| shell.ok(&["port", name]).stdout;
        assert_eq!(publishes("tcp-2"), "80/tcp -> 127.0.0.1:18081\n");
        assert_eq!(publishes("udp-1"), "80/udp -> 127.0.0.1:18080\n");
        assert!(publishes("udp-2").contains(":18081\n"), "{}", publishes("udp-2"));
        assert!(shell.ok(&["run", "--rm", "-u", ":7", BOX, "id"]).stdout.starts_with("uid=0(root) gid=7"));
        for (option, value) in
            [("--memory", "1x"), ("--ulimit", "nope=1"), ("--stop-signal", "SIGNOPE"), ("--cpus", "0")]
        {
            let refused = shell.run(&["run", option, value, BOX, "true"]);
            assert_eq!(refused.code, 125);
            assert!(refused.stderr.contains(option) && !refused.stderr.contains("manifest"), "{refused:?}");
        }
    });
}

#[test]
fn a_name_that_is_none_keeps_nobody_from_the_others() {
    Shell::with(|shell| {
        sleeper(shell, "box", &[]);
        for command in ["pause", "unpause", "stop", "start", "restart", "kill", "wait", "inspect", "rm"] {
            let outcome = shell.run(&[command, "nope", "box"]);
            assert_eq!(outcome.code, 1, "{command}: {outcome:?}");
            assert!(outcome.stderr.contains("no container `nope`"), "{command}: {outcome:?}");
            assert!(!outcome.stdout.is_empty(), "{command}: {outcome:?}");
        }
        assert_eq!(shell.ok(&["ps", "-a", "-q"]).stdout, "");
        assert_eq!(shell.run(&["rm", "nope"]).code, 1);
        let forced = shell.ok(&["rm", "-f", "nope"]);
        assert!(forced.stdout.is_empty() && forced.stderr.contains("nope"), "{forced:?}");
    });
}

#[test]
fn what_may_be_there_is_not_taken_for_gone() {
    Shell::with(|shell| {
        for project in ["shop", "blog"] {
            let web = "[images.box]\nrootfs = \"rootfs\"\n[containers.web]\nimage = \"box\"\ncommand = [\"sleep\", \"1000\"]\n";
            shell.write(&format!("{project}.toml"), &format!("project = \"{project}\"\n{web}"));
            shell.ok(&["apply", "-f", &format!("{project}.toml")]);
        }
        let both = (shell.pid("shop/web"), shell.pid("blog/web"));
        shell.write("broken.toml", "project = \n");
        for options in [&["rm", "-f", "web"][..], &["rm", "-f", "--file", "broken.toml", "web"]] {
            let refused = shell.run(options);
            assert!(refused.code != 0 && refused.stdout.is_empty(), "{options:?}: {refused:?}");
        }
        assert_eq!((shell.pid("shop/web"), shell.pid("blog/web")), both);
        for project in ["shop", "blog"] {
            shell.ok(&["down", "--project", project]);
        }
    });
}

#[test]
fn templates_show_what_is_inspected_in_dockers_words() {
    Shell::with(|shell| {
        sleeper(shell, "box", &["-p", "18077:80", "-v", "data:/data", "-l", "a.b=c"]);
        let shown = |template: &str| shell.ok(&["inspect", "-f", template, "box"]).stdout;
        assert_eq!(shown("{{.State.Pid}} {{.State.Status}} {{.Name}}"), format!("{} running /box\n", shell.pid("box")));
        assert_eq!(shown(r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#), "18077\n");
        assert_eq!(
            shown(r#"{{range .Mounts}}{{.Name}}:{{.Destination}}{{end}} {{index .Config.Labels "a.b"}}"#),
            "data:/data c\n"
        );
        let all: serde_json::Value = serde_json::from_str(&shown("{{json .}}")).unwrap();
        assert_eq!(all["State"]["Running"], true);
        let refused = shell.run(&["inspect", "-f", "{{.State.Pdi}}", "box"]);
        assert!(refused.code == 64 && refused.stderr.contains("Pid"), "{refused:?}");
        assert!(shell.ok(&["volume", "inspect", "-f", "{{.Mountpoint}}", "data"]).stdout.ends_with("/data\n"));
        assert_eq!(shell.ok(&["network", "inspect", "-f", "{{.Driver}}", "default"]).stdout, "bridge\n");

        let listed = shell.ok(&["top", "box", "-eo", "pid,comm"]).stdout;
        let words: Vec<&str> = listed.split_whitespace().collect();
        assert_eq!(words, ["PID", "COMMAND", &shell.pid("box").to_string(), "sleep"]);
        assert!(shell.ok(&["top", "box", "aux"]).stdout.starts_with("USER"));
    });
}

#[test]
fn a_further_process_is_left_to_itself() {
    Shell::with(|shell| {
        sleeper(shell, "box", &[]);
        fs::write(shell.path("variables"), "A=1\nB=from the file\n").unwrap();
        let script = "echo $A-$B > /tmp/said; exec sleep 2000";
        let begun = Instant::now();
        shell.ok(&["exec", "-d", "--env-file", "variables", "-e", "A=2", "box", "sh", "-c", script]);
        assert!(begun.elapsed() < Duration::from_secs(60));
        eventually("it runs", || shell.ok(&["top", "box"]).stdout.contains("sleep 2000"));
        assert_eq!(shell.ok(&["exec", "box", "cat", "/tmp/said"]).stdout, "2-from the file\n");
        assert_eq!(shell.run(&["exec", "-d", "box", "nowhere"]).code, 127);
    });
}

#[test]
fn lists_are_narrowed_and_logs_cut() {
    Shell::with(|shell| {
        sleeper(shell, "one", &["-l", "kind=a", "-l", "size=1"]);
        shell.run(&[
            "run",
            "--name",
            "two",
            "-l",
            "kind=b",
            "--log-opt",
            "max-size=1m",
            "--log-opt",
            "max-file=2",
            BOX,
            "sh",
            "-c",
            "echo first; sleep 1.2; echo second; exit 3",
        ]);
        let names = |filters: &[&str]| {
            let arguments: Vec<&str> = filters.iter().flat_map(|filter| ["--filter", filter]).collect();
            let list: Value =
                serde_json::from_str(&shell.ok(&[&["ps", "--json"], &arguments[..]].concat()).stdout).unwrap();
            list.as_array()
                .unwrap()
                .iter()
                .map(|c| c["name"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(names(&["status=exited"]), "two");
        assert_eq!(names(&["status=exited", "status=running"]), "one two");
        assert_eq!(names(&["label=kind"]), "one two");
        assert_eq!(names(&["label=kind=a", "label=size"]), "one");
        assert_eq!(names(&["label=kind=a", "label=kind=b"]), "");
        assert_eq!(names(&["name=tw", "health=none"]), "two");
        assert_eq!(shell.inspect("two")["record"]["spec"]["logging"]["max_files"], 2);

        let lines: Vec<Value> =
            shell.ok(&["logs", "--json", "two"]).stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let [first, second] = [0, 1].map(|at: usize| lines[at]["time"].as_str().unwrap());
        assert_eq!(shell.ok(&["logs", "--until", first, "two"]).stdout, "first\n");
        assert_eq!(shell.ok(&["logs", "--until", first, "--tail", "1", "two"]).stdout, "first\n");
        assert_eq!(shell.ok(&["logs", "--until", second, "two"]).stdout, "first\nsecond\n");
        assert_eq!(shell.ok(&["logs", "--until", "0s", "--tail", "1", "two"]).stdout, "second\n");
    });
}

#[test]
fn who_has_users_of_his_own_has_what_is_copied_to_him() {
    Shell::with(|shell| {
        shell.ok(&["run", "-d", "--name", "own", "--userns", "auto", "-v", "data:/vol", BOX, "sleep", "1000"]);
        shell.write("hi", "text");
        std::os::unix::fs::chown(shell.path("hi"), Some(12), Some(34)).unwrap();
        for place in ["/tmp", "/vol"] {
            let owner = |name: &str| {
                let path = format!("{place}/{name}");
                shell.ok(&["exec", "own", "stat", "-c", "%u:%g", &path]).stdout.trim().to_owned()
            };
            shell.ok(&["cp", "hi", &format!("own:{place}/hi")]);
            assert_eq!(owner("hi"), "0:0", "{place}");
            shell.ok(&["cp", "--archive", "hi", &format!("own:{place}/kept")]);
            assert_eq!(owner("kept"), "12:34", "{place}");
            shell.ok(&["exec", "own", "rm", &format!("{place}/hi")]);

            let archive = shell.ok(&["cp", &format!("own:{place}/kept"), "-"]).bytes;
            let mut read = tar::Archive::new(archive.as_slice());
            let header = read.entries().unwrap().next().unwrap().unwrap().header().clone();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (12, 34), "{place}");
            let answer = shell.feed(&["cp", "-", &format!("own:{place}")], &archive);
            assert_eq!((answer.code, owner("kept")), (0, "12:34".to_owned()), "{place}: {answer:?}");
        }
    });
}

#[test]
fn a_container_by_hand_is_as_locked_in_as_its_options_say() {
    Shell::with(|shell| {
        let status = |options: &[&str]| {
            let arguments =
                [&["run", "--rm"], options, &[BOX, "sh", "-c", "cat /proc/self/status /proc/self/uid_map"]].concat();
            shell.ok(&arguments).stdout
        };
        let usual = status(&["--security-opt", "no-new-privileges"]);
        assert!(usual.contains("NoNewPrivs:\t1") && usual.contains("Seccomp:\t2"), "{usual}");
        let open = status(&["--security-opt", "seccomp=unconfined"]);
        assert!(open.contains("Seccomp:\t0") && open.contains("NoNewPrivs:\t1"), "{open}");
        let own = status(&["--userns", "auto"]);
        let map: Vec<u32> = own.lines().last().unwrap().split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert!(map[0] == 0 && map[1] >= 65536 && map[2] == 65536, "{map:?}");
        let hard = status(&["--security-opt", "profile=hardened"]);
        assert!(hard.contains("CapBnd:\t0000000000000000"), "{hard}");
        assert_ne!(hard.lines().last().unwrap().split_whitespace().nth(1), Some("0"), "{hard}");
        let written = shell.run(&["run", "--rm", "--security-opt", "profile=hardened", BOX, "touch", "/x"]);
        assert!(written.code == 1 && written.stderr.contains("Read-only"), "{written:?}");
        let filter = r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[],"syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":122}]}"#;
        fs::write(shell.path("filter.json"), filter).unwrap();
        let made = shell.run(&["run", "--rm", "--security-opt", "seccomp=./filter.json", BOX, "mkdir", "/tmp/x"]);
        assert!(made.code == 1 && made.stderr.contains("quota"), "{made:?}");
        let missing = shell.run(&["run", "--rm", "--security-opt", "seccomp=./nowhere.json", BOX, "true"]);
        assert!(missing.code == 125 && missing.stderr.contains("nowhere.json"), "{missing:?}");
    });
}

#[test]
fn namespaces_of_the_host_are_shared_when_asked_for_and_nothing_in_them_outlives_the_container() {
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().to_str().unwrap().to_owned();
    Shell::with(|shell| {
        let ask = "for kind in pid ipc; do readlink /proc/self/ns/$kind; done";
        let answer = |options: &[&str]| {
            let all = [&["run", "--rm"], options, &[BOX, "sh", "-c", ask]].concat();
            shell.ok(&all).stdout.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let alone = answer(&[]);
        assert!(alone[0] != own("pid") && alone[1] != own("ipc"), "{alone:?}");
        let shared = answer(&["--pid", "host", "--ipc", "host"]);
        assert_eq!(shared, [own("pid"), own("ipc")]);
        let one = answer(&["--pid", "host"]);
        assert!(one[0] == own("pid") && one[1] != own("ipc"), "{one:?}");

        // The host's shared memory is there, and it sees our process.
        let memory = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        let ours = std::process::id().to_string();
        let (file, process) = (memory.path().to_str().unwrap(), format!("/proc/{ours}/stat"));
        shell.ok(&["run", "--rm", "--pid", "host", "--ipc", "host", BOX, "ls", file, &process]);
        assert_ne!(shell.run(&["run", "--rm", BOX, "ls", file]).code, 0);

        // No process 1 takes what it left with it: the cgroup does.
        sleeper(shell, "look", &["--pid", "host", "--init"]);
        let pid = shell.ok(&["exec", "look", "sh", "-c", "setsid sleep 900 >/dev/null 2>&1 & echo $!"]).stdout;
        let left = format!("/proc/{}/comm", pid.trim());
        eventually("it is there", || fs::read_to_string(&left).is_ok_and(|name| name.trim() == "sleep"));
        shell.ok(&["stop", "look"]);
        assert!(!Path::new(&left).exists());
        // It is no process 1, which would be spared: a signal ends it by default.
        sleeper(shell, "plain", &["--pid", "host"]);
        shell.ok(&["stop", "plain"]);
        assert_eq!(shell.ok(&["inspect", "-f", "{{.State.ExitCode}}", "plain"]).stdout, "143\n");
        let word = shell.run(&["run", "--rm", "--ipc", "shareable", BOX, "true"]);
        assert!(word.code == 125 && word.stderr.contains("--ipc: "), "{word:?}");
        let apart = shell.run(&["run", "--rm", "--pid", "host", "--userns", "auto", BOX, "true"]);
        assert!(apart.code == 125 && apart.stderr.contains("--pid: "), "{apart:?}");
    });
}

#[test]
fn what_is_no_container_is_inspected_too() {
    Shell::with(|shell| {
        shell.ok(&["run", "--name", "box", BOX, "sh", "-c", "head -c 100000 /dev/zero >/file"]);
        shell.ok(&["volume", "create", "data"]);
        shell.ok(&["network", "create", "--subnet", "10.77.3.0/24", "lane"]);
        fs::create_dir(shell.path("context")).unwrap();
        shell.write("context/Dockerfile", "FROM scratch\nLABEL a=b\n");
        shell.ok(&["image", "build", "-t", "empty:1", "context"]);
        let inspect = |words: &[&str]| shell.run(&[&["inspect"], words].concat());
        assert_eq!(inspect(&["-s", "-f", "{{.SizeRw}}", "box"]).stdout, "100000\n");
        let all = inspect(&["-f", "{{.Name}}", "lane", "box", "data"]);
        assert_eq!(all.stdout, "lane\n/box\ndata\n", "{all:?}");
        assert_eq!(inspect(&["--type", "image", "-f", "{{json .RepoTags}}", "empty:1"]).stdout, "[\"empty:1\"]\n");
        let wrong = inspect(&["--type", "volume", "box"]);
        assert!(wrong.code == 1 && wrong.stderr.contains("volume"), "{wrong:?}");
        let nothing = inspect(&["nothing", "data"]);
        assert!(nothing.code == 1 && nothing.stderr.contains("no container `nothing`"), "{nothing:?}");
        assert!(nothing.stdout.contains("data"), "one that is none keeps nobody from the others");
        let file = inspect(&["-f", "{{.HostsPath}}", "box"]).stdout;
        assert!(Path::new(file.trim()).exists(), "{file}");
        shell.ok(&["rm", "-v", "box"]);
        shell.ok(&["network", "rm", "lane"]);
    });
}

#[test]
fn lists_have_dockers_fields_filters_and_words() {
    Shell::with(|shell| {
        let ps = |words: &[&str]| {
            let answer = shell.run(&[&["ps", "-a"], words].concat());
            assert_eq!(answer.code, 0, "{words:?}: {answer:?}");
            answer.stdout
        };
        sleeper(shell, "first", &["-p", "18081:80", "-p", "*:18082:53/udp", "-l", "a.b=c", "-v", "data:/data"]);
        shell.ok(&["run", "--name", "second", BOX, "true"]);
        sleeper(shell, "third", &[]);
        shell.ok(&["stop", "-t", "0", "third"]);
        let named = |filter: &str| ps(&["--filter", filter, "--format", "{{.Names}}"]);
        for (filter, names) in [
            ("before=second", "first\n"),
            ("since=second", "third\n"),
            ("publish=18081", "first\n"),
            ("publish=18000-19000/udp", "first\n"),
            ("publish=80", ""),
            ("expose=80", "first\n"),
            ("name=^/?first$", "first\n"),
            ("name=^irst", ""),
            ("network=bridge", "first\nsecond\nthird\n"),
            ("is-task=true", ""),
            ("status=exited", "second\nthird\n"),
            ("status=stopped", "third\n"),
        ] {
            assert_eq!(named(filter), names, "{filter}");
        }
        assert_eq!(shell.run(&["ps", "--filter", "before=nobody"]).code, 1);
        let first = ["--filter", "name=first", "--format"];
        let of_first = |template: &str| ps(&[&first[..], &[template]].concat());
        assert_eq!(of_first(r#"{{.Label "a.b"}}|{{.Label "x"}}|{{.LocalVolumes}}"#), "c||1\n");
        let ports = "127.0.0.1:18081->80/tcp, 0.0.0.0:18082->53/udp, [::]:18082->53/udp\n";
        assert_eq!(of_first("{{.Ports}}").split(", ").count(), 3);
        assert!(
            ports.trim().split(", ").all(|port| of_first("{{.Ports}}").contains(port)),
            "{}",
            of_first("{{.Ports}}")
        );
        let all: Value = serde_json::from_str(&of_first("json")).unwrap();
        assert_eq!((&all["Command"], &all["State"]), (&"\"sleep 1000\"".into(), &"running".into()));
        assert!(ps(&["--format", "{{.State}} {{.Status}}", "third"]).starts_with("exited Exited (137)"));

        let stats = |words: &[&str]| shell.ok(&[&["stats", "--no-stream"], words].concat()).stdout;
        assert_eq!(stats(&["-a", "--format", "{{.Name}} {{.PIDs}}"]), "first 1\nsecond 0\nthird 0\n");
        let shown = stats(&["--format", "table {{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.BlockIO}}", "first"]);
        assert!(shown.starts_with("NAME") && shown.contains("MEM USAGE / LIMIT") && shown.contains("iB / "), "{shown}");
        assert!(stats(&["--format", "{{json .}}", "first"]).contains("\"NetIO\""));
    });
}

#[test]
fn volumes_and_networks_are_listed_in_dockers_words() {
    Shell::with(|shell| {
        shell.ok(&["volume", "create", "-l", "kind=a", "data"]);
        shell.ok(&["volume", "create", "other"]);
        shell.ok(&["network", "create", "--internal", "lane"]);
        sleeper(shell, "box", &["-v", "data:/data"]);
        let list = |words: &[&str]| shell.ok(words).stdout;
        assert_eq!(list(&["volume", "ls", "-q", "--filter", "dangling=true"]), "other\n");
        let shown =
            list(&["volume", "ls", "-f", "label=kind", "--format", r#"{{.Name}} {{.Driver}} {{.Label "kind"}}"#]);
        assert_eq!(shown, "data local a\n");
        assert_eq!(list(&["network", "ls", "-f", "name=lan", "--format", "{{.Name}} {{.Internal}}"]), "lane true\n");
        assert!(list(&["network", "ls", "--format", "json", "-f", "name=lane"]).contains(r#""Driver":"bridge""#));
        assert_eq!(shell.run(&["volume", "ls", "-f", "size=1"]).code, 64);
        shell.ok(&["rm", "-f", "box"]);
        shell.ok(&["network", "rm", "lane"]);
    });
}
