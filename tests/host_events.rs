//! `evenkeel events` on a real host: what is done is told, once, by whoever did it, and by the kernel's own numbers.
//!
//! Every test has a network namespace and a state root of its own, and leaves nothing behind.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::shell::Shell;
use support::{eventually, run};

const BOX: &str = "rootfs:./rootfs";

/// Everything that was told until now and fits.
fn told(shell: &Shell, filters: &[&str]) -> Vec<Value> {
    let filters = filters.iter().flat_map(|filter| ["--filter", filter]);
    let all: Vec<&str> =
        ["events", "--json", "--since", "1970-01-02", "--until", "0s"].into_iter().chain(filters).collect();
    lines(&shell.ok(&all).stdout)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

fn actions(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["Action"].as_str().unwrap()).collect()
}

fn attribute<'a>(event: &'a Value, name: &str) -> &'a str {
    event["Actor"]["Attributes"][name].as_str().unwrap_or_default()
}

/// The last with this action.
fn last<'a>(events: &'a [Value], action: &str) -> &'a Value {
    events.iter().rfind(|event| event["Action"] == action).unwrap_or_else(|| panic!("{action} is in {events:#?}"))
}

/// `evenkeel events` at work, writing to a file.
struct Following<'a> {
    shell: &'a Shell,
    child: Child,
    name: String,
}

impl<'a> Following<'a> {
    fn begin(shell: &'a Shell, name: &str, arguments: &[&str]) -> Following<'a> {
        let file = fs::File::create(shell.path(name)).unwrap();
        let mut command: Command = shell.command(&[&["events"], arguments].concat());
        let child = command.stdout(file).stderr(Stdio::inherit()).spawn().unwrap();
        Following { shell, child, name: name.to_owned() }
    }

    fn seen(&self) -> String {
        fs::read_to_string(self.shell.path(&self.name)).unwrap()
    }

    fn signal(&mut self, signal: Signal) -> std::process::ExitStatus {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        // It has ended already where the test passed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn journal(shell: &Shell) -> PathBuf {
    shell.path("root/events/journal")
}

#[test]
fn the_life_of_a_container_is_told_by_whoever_acts() {
    Shell::with(|shell| {
        let mut following = Following::begin(shell, "live", &["--since", "1970-01-02", "--json"]);
        let script = "trap 'exit 7' TERM; trap : USR1; while true; do sleep 0.1; done";
        shell.ok(&["run", "-d", "--name", "a", "--label", "tier=front", BOX, "sh", "-c", script]);
        let first = shell.pid("a");
        for act in [
            &["exec", "a", "echo", "hi"][..],
            &["cp", "./rootfs/etc/passwd", "a:/tmp/"],
            &["pause", "a"],
            &["unpause", "a"],
            &["kill", "-s", "USR1", "a"],
            &["restart", "a"],
            &["update", "--memory", "64m", "a"],
            &["rename", "a", "b"],
        ] {
            shell.ok(act);
        }
        let second = shell.pid("b");
        shell.ok(&["stop", "b"]);
        shell.ok(&["rm", "b"]);
        let events = told(shell, &["type=container"]);
        assert_eq!(
            actions(&events),
            [
                "create",
                "start",
                "exec_create: echo hi",
                "exec_start: echo hi",
                "exec_die",
                "extract-to-dir",
                "pause",
                "unpause",
                "kill",
                "kill",
                "die",
                "stop",
                "start",
                "restart",
                "update",
                "rename",
                "kill",
                "die",
                "stop",
                "destroy"
            ]
        );
        let by: Vec<&str> = events.iter().map(|event| attribute(event, "by")).collect();
        assert_eq!(
            by,
            [
                "run", "run", "exec", "", "", "cp", "pause", "unpause", "kill", "restart", "", "restart", "restart",
                "restart", "update", "rename", "stop", "", "stop", "rm"
            ]
        );
        let id = events[0]["id"].as_str().unwrap();
        assert!(events.iter().all(|event| event["Actor"]["ID"] == id && attribute(event, "tier") == "front"));
        let starts: Vec<&str> =
            events.iter().filter(|event| event["Action"] == "start").map(|event| attribute(event, "pid")).collect();
        assert_eq!(starts, [first.to_string(), second.to_string()]);
        let signals: Vec<&str> =
            events.iter().filter(|event| event["Action"] == "kill").map(|event| attribute(event, "signal")).collect();
        assert_eq!(signals, ["10", "15", "15"]);
        assert_eq!(attribute(last(&events, "die"), "exitCode"), "7");
        assert_eq!(attribute(last(&events, "exec_die"), "exitCode"), "0");
        assert_eq!(attribute(last(&events, "rename"), "oldName"), "a");
        assert_eq!(attribute(last(&events, "destroy"), "name"), "b");
        let times: Vec<u64> = events.iter().map(|event| event["timeNano"].as_u64().unwrap()).collect();
        assert!(times.is_sorted(), "{times:?}");
        // Who follows has seen the same, and ends well.
        eventually("all was followed", || following.seen().contains("\"destroy\""));
        assert_eq!(following.signal(Signal::SIGINT).code(), Some(0));
        let followed = lines(&following.seen());
        let of_it: Vec<Value> = followed.into_iter().filter(|event| event["Type"] == "container").collect();
        assert_eq!(of_it, events);
    });
}

#[test]
fn what_a_monitor_does_by_itself_is_told_with_its_reasons() {
    Shell::with(|shell| {
        shell.ok(&["run", "-d", "--name", "again", "--restart", "on-failure:1", BOX, "sh", "-c", "exit 3"]);
        eventually("it gave up", || {
            actions(&told(shell, &["container=again"])).iter().filter(|a| **a == "die").count() == 2
        });
        let events = told(shell, &["container=again"]);
        assert_eq!(actions(&events), ["create", "start", "die", "start", "die"]);
        assert_eq!((attribute(&events[1], "by"), attribute(&events[3], "by")), ("run", "monitor"));
        assert_eq!((attribute(&events[4], "exitCode"), attribute(&events[4], "by")), ("3", ""));

        let failed = shell.run(&["run", "--name", "never", BOX, "nowhere"]);
        assert_eq!(failed.code, 127);
        let die = &told(shell, &["container=never", "event=die"])[0];
        assert!(attribute(die, "exitCode") == "127" && attribute(die, "error").contains("nowhere"), "{die}");

        let eat = "x=x; while true; do x=$x$x; done";
        assert_eq!(shell.run(&["run", "--name", "fat", "--memory", "8m", BOX, "sh", "-c", eat]).code, 137);
        assert_eq!(actions(&told(shell, &["container=fat"])), ["create", "start", "oom", "die"]);

        let health = ["--health-cmd", "test -e /tmp/well", "--health-interval", "100ms", "--health-retries", "1"];
        shell.ok(&[&["run", "-d", "--name", "sick"], &health[..], &[BOX, "sleep", "1000"]].concat());
        let turns = || told(shell, &["event=health_status"]).len();
        eventually("it is ill", || turns() == 1);
        shell.ok(&["exec", "sick", "touch", "/tmp/well"]);
        eventually("it is well", || turns() == 2);
        let events = told(shell, &["container=sick", "event=health_status"]);
        assert_eq!(actions(&events), ["health_status: unhealthy", "health_status: healthy"]);
        assert!(told(shell, &["container=sick"]).len() < 10, "probes are no events");

        // What was killed without a monitor that sees it.
        let monitor = run(&["ps", "-o", "ppid=", "-p", &shell.pid("sick").to_string()]);
        kill(Pid::from_raw(monitor.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
        shell.ok(&["rm", "-f", "sick"]);
        let events = told(shell, &["container=sick"]);
        assert_eq!(&actions(&events)[events.len() - 2..], ["die", "destroy"]);
        assert_eq!(attribute(last(&events, "die"), "reason"), "its monitor was lost");
    });
}

#[test]
fn images_networks_and_volumes_are_told_when_something_changes() {
    Shell::with(|shell| {
        shell.ok(&["run", "--rm", BOX, "true"]);
        shell.ok(&["run", "--rm", BOX, "true"]);
        eventually("both are gone", || told(shell, &["event=destroy", "type=container"]).len() == 2);
        let events = told(shell, &["type=image"]);
        assert_eq!(actions(&events), ["import"], "the second finds it here");
        let id = events[0]["id"].as_str().unwrap();
        shell.ok(&["image", "tag", &id[7..], "localhost/x:1"]);
        shell.ok(&["image", "tag", &id[7..], "localhost/x:1"]);
        shell.ok(&["image", "save", "-o", "x.tar", "localhost/x:1"]);
        shell.ok(&["image", "rm", "localhost/x:1"]);
        shell.ok(&["image", "prune", "-a"]);
        shell.ok(&["image", "load", "-i", "x.tar"]);
        let events = told(shell, &["type=image"]);
        assert_eq!(actions(&events), ["import", "tag", "save", "untag", "untag", "delete", "load", "tag"]);
        assert_eq!(attribute(&events[3], "by"), "image rm");
        assert_eq!(attribute(&events[5], "by"), "image prune");
        assert!(!attribute(&events[5], "reason").is_empty());
        assert_eq!(actions(&told(shell, &["image=localhost/x"])), ["tag", "save", "untag", "tag"]);
        shell.write("Dockerfile", "FROM localhost/x:1\nLABEL a=b\n");
        shell.ok(&["image", "build", "-t", "localhost/y", "."]);
        assert_eq!(actions(&told(shell, &["type=image", "label=a=b"])), ["build", "tag"]);
        shell.ok(&["run", "--name", "made", BOX, "true"]);
        shell.ok(&["container", "commit", "made", "localhost/z"]);
        assert_eq!(attribute(last(&told(shell, &["container=made"]), "commit"), "imageRef"), "localhost/z:latest");
        shell.ok(&["rm", "made"]);

        shell.ok(&["volume", "create", "data"]);
        shell.ok(&["run", "--rm", "-v", "data:/data", BOX, "true"]);
        eventually("the volume is free", || shell.run(&["volume", "rm", "data"]).code == 0);
        assert_eq!(actions(&told(shell, &["volume=data"])), ["create", "destroy"]);
        shell.ok(&["--keep-removed", "0s", "volume", "create", "other"]);
        assert_eq!(actions(&told(shell, &["volume=data"])), ["create", "destroy", "expire"]);
        shell.ok(&["volume", "rm", "other"]);

        shell.ok(&["network", "create", "front"]);
        shell.ok(&["run", "-d", "--name", "on", "--network", "front", BOX, "sleep", "1000"]);
        let pid = shell.pid("on");
        let connect = &told(shell, &["network=front", "event=connect"])[0];
        let links = run(&["nsenter", "-t", &pid.to_string(), "-n", "ip", "-o", "link"]);
        assert!(links.contains("eth0") && attribute(connect, "container") == shell.inspect("on")["id"], "{connect}");
        shell.ok(&["rm", "-f", "on"]);
        shell.ok(&["network", "rm", "front"]);
        let events = told(shell, &["network=front"]);
        assert_eq!(actions(&events), ["create", "connect", "disconnect", "destroy"]);
    });
}

#[test]
fn apply_and_watch_tell_what_they_did_and_what_they_put_back() {
    Shell::with(|shell| {
        shell.manifest(
            "[networks.front]\n[volumes.data]\n[containers.web]\nimage = \"box\"\ncommand = [\"sleep\", \"1000\"]\n\
             networks = [\"front\"]\nports = { 18099 = 80 }\nmounts = { \"/data\" = \"data\" }\nlabels = { tier = \"front\" }\n",
        );
        shell.ok(&["apply"]);
        let words = |events: &[Value]| -> Vec<String> {
            events
                .iter()
                .map(|event| format!("{} {}", event["Type"].as_str().unwrap(), event["Action"].as_str().unwrap()))
                .collect()
        };
        let events = told(shell, &[]);
        let mut done = words(&events);
        done.sort();
        let expected = [
            "container create",
            "container start",
            "host firewall",
            "image import",
            "network connect",
            "network create",
            "volume create",
        ];
        assert_eq!(done, expected);
        assert!(events.iter().all(|event| attribute(event, "by") == "apply"), "{events:#?}");
        shell.ok(&["apply"]);
        assert_eq!(told(shell, &[]), events, "nothing to do is nothing to tell");
        assert_eq!(told(shell, &["project=shop", "label=tier=front"]).len(), 2);
        let named =
            shell.ok(&["-f", "evenkeel.toml", "events", "--json", "--since", "1970-01-02", "--until", "0s"]).stdout;
        assert_eq!(lines(&named), told(shell, &["project=shop"]));

        let log = fs::File::create(shell.path("log")).unwrap();
        let mut watch = shell.command(&["watch"]).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let by_watch = || {
            let all = told(shell, &[]);
            words(&all.into_iter().filter(|event| attribute(event, "by") == "watch").collect::<Vec<_>>())
        };
        let links = run(&["ip", "-o", "-br", "link"]);
        let ours = |kind: char| {
            let prefix = format!("ek{}{kind}", shell.tag());
            let name = |line: &&str| line.starts_with(&prefix);
            links.lines().find(name).unwrap().split([' ', '@']).next().unwrap().to_owned()
        };
        run(&["ip", "link", "delete", &ours('v')]);
        eventually("the pair is back", || by_watch().contains(&"network connect".to_owned()));
        run(&["nft", "delete", "table", "inet", &format!("evenkeel-{}", shell.tag())]);
        eventually("the rules are back", || by_watch().contains(&"host firewall".to_owned()));
        run(&["ip", "link", "set", &ours('b'), "down"]);
        eventually("the bridge is up", || by_watch().contains(&"network repair".to_owned()));
        let pid = shell.pid("web").to_string();
        shell.ok(&["rm", "-f", "web"]);
        eventually("it is made again", || by_watch().contains(&"container start".to_owned()));
        assert_ne!(pid, attribute(last(&told(shell, &["container=web"]), "start"), "pid"));
        kill(Pid::from_raw(watch.id() as i32), Signal::SIGTERM).unwrap();
        assert!(watch.wait().unwrap().success());
        shell.ok(&["down", "--volumes", "--yes"]);
        let gone = told(shell, &["event=destroy"]).into_iter().filter(|event| attribute(event, "by") == "down").count();
        assert_eq!(gone, 3);
    });
}

#[test]
fn an_update_that_is_given_up_is_told_with_its_reason() {
    Shell::with(|shell| {
        let declare =
            |command: &str| shell.manifest(&format!("[containers.web]\nimage = \"box\"\ncommand = {command}\n"));
        declare("[\"sleep\", \"1000\"]");
        shell.ok(&["apply"]);
        let old = shell.inspect("web")["id"].as_str().unwrap().to_owned();
        declare("[\"nonesuch\"]");
        assert_eq!(shell.run(&["apply"]).code, 3);
        let events = told(shell, &["event=rollback"]);
        assert_eq!((events.len(), events[0]["id"].as_str()), (1, Some(old.as_str())), "{events:#?}");
        assert!(attribute(&events[0], "reason").contains("nonesuch") && attribute(&events[0], "by") == "apply");
        let of_the_new = told(shell, &[&format!("container={}", attribute(&events[0], "failed"))]);
        assert_eq!(actions(&of_the_new), ["create", "die", "destroy"]);
        assert_eq!(actions(&told(shell, &[&format!("container={old}")])).last(), Some(&"start"));
    });
}

#[test]
fn who_follows_sees_what_fits_and_what_comes() {
    Shell::with(|shell| {
        // In a root where nothing has happened, which is made.
        let mut plain = Following::begin(shell, "plain", &["-f", "type=volume", "-f", "event=create"]);
        let mut shaped =
            Following::begin(shell, "shaped", &["--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.none}}|"]);
        // Whoever begins to follow sees only what comes.
        let mut count = 0;
        eventually("both follow", || {
            count += 1;
            shell.ok(&["volume", "create", &format!("v{count}")]);
            !plain.seen().is_empty() && !shaped.seen().is_empty()
        });
        shell.ok(&["volume", "rm", "v1"]);
        eventually("the removal is seen", || shaped.seen().contains("volume destroy |\n"));
        let seen = plain.seen();
        assert!(seen.lines().all(|line| line.contains("Z volume create v") && line.contains("driver=local")), "{seen}");
        // Somebody takes all of it away, and it goes on.
        fs::remove_dir_all(shell.path("root/events")).unwrap();
        eventually("what comes then is seen", || {
            count += 1;
            shell.ok(&["volume", "create", &format!("w{count}")]);
            plain.seen().contains(" volume create w")
        });
        assert_eq!(plain.signal(Signal::SIGINT).code(), Some(0));
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(shaped.signal(Signal::SIGTERM).signal(), Some(libc::SIGTERM));

        let names: Vec<String> = shell.entries("root/volumes");
        for name in names {
            shell.ok(&["volume", "rm", name.strip_prefix("_.").unwrap()]);
        }
        // It ends by itself when the time has come, and with its reader.
        let soon = std::time::SystemTime::now() + std::time::Duration::from_millis(700);
        let soon = soon.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let until = format!("{}.{:09}", soon.as_secs(), soon.subsec_nanos());
        let answer = shell.ok(&["events", "--since", "1970-01-02", "--until", &until, "-f", "type=volume"]);
        assert!(!answer.stdout.is_empty());
        let mut left = shell.command(&["events", "--since", "1970-01-02"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(left.stdout.take().unwrap()).read_line(&mut line).unwrap();
        eventually("who has no reader any more ends", || {
            shell.ok(&["volume", "create", "last"]);
            shell.ok(&["volume", "rm", "last"]);
            left.try_wait().unwrap().is_some_and(|status| status.success())
        });
        for wrong in
            [&["events", "--since", "soon"][..], &["events", "-f", "evnt=die"], &["events", "--format", "Type"]]
        {
            assert_eq!(shell.run(wrong).code, 64, "{wrong:?}");
        }
    });
}

#[test]
fn a_full_journal_is_rotated_and_a_torn_one_goes_on() {
    Shell::with(|shell| {
        shell.ok(&["volume", "create", "before"]);
        let torn = b"{\"time\":1700000000000000000,\"type\":\"volume\",\"action\":\"cre";
        fs::File::options().append(true).open(journal(shell)).unwrap().write_all(torn).unwrap();
        let mut following = Following::begin(shell, "live", &["--since", "1970-01-02", "-f", "type=volume"]);
        shell.ok(&["volume", "create", "after"]);
        eventually("both are seen", || following.seen().lines().count() == 2);

        let line = "{\"time\":1,\"type\":\"host\",\"action\":\"x\",\"id\":\"x\"}\n";
        let full = line.repeat((8 << 20) / line.len() + 1);
        fs::File::options().append(true).open(journal(shell)).unwrap().write_all(full.as_bytes()).unwrap();
        // Eight at once: one of them rotates.
        let acts: Vec<Child> = (0..8)
            .map(|number| {
                shell.command(&["volume", "create", &format!("n{number}")]).stdout(Stdio::null()).spawn().unwrap()
            })
            .collect();
        for mut act in acts {
            assert!(act.wait().unwrap().success());
        }
        assert!(fs::metadata(journal(shell)).unwrap().len() < 1 << 20, "it was rotated");
        eventually("all are followed", || following.seen().lines().count() == 10);
        assert_eq!(told(shell, &["type=volume"]).len(), 10);
        assert_eq!(following.signal(Signal::SIGINT).code(), Some(0));
        for name in ["before", "after", "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7"] {
            shell.ok(&["volume", "rm", name]);
        }
    });
}

#[test]
fn a_journal_that_cannot_be_written_keeps_nobody_from_anything() {
    Shell::with(|shell| {
        fs::create_dir_all(shell.path("root")).unwrap();
        fs::write(shell.path("root/events"), "in the way").unwrap();
        let answer = shell.ok(&["run", "-d", "--name", "a", BOX, "sleep", "1000"]);
        let said = answer.stderr.matches("is not told").count();
        assert!(said == 1 && answer.stderr.contains("root/events"), "once: {}", answer.stderr);
        shell.ok(&["restart", "-t", "0", "a"]);
        assert_eq!(shell.inspect("a")["state"], "running");
        let error = fs::read_to_string(
            shell.path("run/containers").join(shell.entries("run/containers")[0].as_str()).join("monitor.err"),
        );
        assert_eq!(error.unwrap().matches("cannot tell").count(), 1);
        let refused = shell.run(&["events", "--until", "0s", "--since", "1h"]);
        assert!(refused.code == 1 && refused.stderr.contains("root/events"), "{refused:?}");
        shell.ok(&["rm", "-f", "a"]);
        // What a file system can do to it is no different.
        fs::remove_file(shell.path("root/events")).unwrap();
        fs::create_dir(shell.path("root/events")).unwrap();
        std::os::unix::fs::symlink("/dev/full", journal(shell)).unwrap();
        let answer = shell.ok(&["run", "--rm", BOX, "echo", "well"]);
        assert!(answer.stdout == "well\n" && answer.stderr.contains("is not told"), "{answer:?}");
    });
}
