//! `evenkeel watch` on a real kernel: what people and crashes break is put back, and ending it ends no container.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{busybox_rootfs, cgroup_of, eventually, in_a_network_of_its_own, room_for_a_root, run};

const MANIFEST: &str = r#"
project = "shop"
[images.box]
rootfs = "rootfs"
[networks.front]
[volumes.pages]
[containers.web]
image = "box"
command = ["httpd", "-f", "-p", "80", "-h", "/var/www"]
networks = ["front"]
ports = { 8088 = 80 }
mounts = { "/var/www" = "pages" }
restart = "always"
"#;

/// A directory with a manifest, and the service that watches it.
struct Watched {
    directory: tempfile::TempDir,
    service: Child,
}

impl Watched {
    fn begin() -> Watched {
        let directory = room_for_a_root("evenkeel-watch");
        busybox_rootfs(&directory.path().join("rootfs"));
        fs::write(directory.path().join("evenkeel.toml"), MANIFEST).unwrap();
        let service = service(directory.path());
        let mut watched = Watched { directory, service };
        eventually("the page is served", || {
            assert!(watched.is_alive(), "{}", watched.log());
            watched.page().is_some_and(|page| page.contains("hello"))
        });
        watched
    }

    fn is_alive(&mut self) -> bool {
        self.service.try_wait().unwrap().is_none()
    }

    fn page(&self) -> Option<String> {
        let to = (Ipv4Addr::LOCALHOST, 8088).into();
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_millis(500)).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        Some(page)
    }

    fn manifest(&self) -> PathBuf {
        self.directory.path().join("evenkeel.toml")
    }

    /// As an editor does: a new file renamed over the old one.
    fn edit(&self, text: &str) {
        let aside = self.directory.path().join(".evenkeel.toml.swp");
        fs::write(&aside, text).unwrap();
        fs::rename(aside, self.manifest()).unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    fn evenkeel(&self, arguments: &[&str]) -> String {
        let output = evenkeel(self.directory.path()).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn is_as_declared(&self) -> bool {
        evenkeel(self.directory.path()).args(["plan", "--detailed-exitcode"]).output().unwrap().status.code() == Some(0)
    }

    fn pid(&self) -> i32 {
        self.pid_if_it_runs().expect("it runs")
    }

    /// `None`, too, in the moment in which its monitor was killed and nobody has seen it.
    fn pid_if_it_runs(&self) -> Option<i32> {
        self.pid_of("web")
    }

    fn pid_of(&self, name: &str) -> Option<i32> {
        let inspected: serde_json::Value = serde_json::from_str(&self.evenkeel(&["inspect", name])).unwrap();
        inspected[0]["pid"].as_i64().map(|pid| pid as i32)
    }

    fn end(mut self) {
        kill(Pid::from_raw(self.service.id() as i32), Signal::SIGTERM).unwrap();
        assert!(self.service.wait().unwrap().success(), "{}", self.log());
        assert!(self.page().is_some(), "the container outlives the service");
        self.evenkeel(&["down"]);
    }
}

/// A failed test leaves no process behind.
impl Drop for Watched {
    fn drop(&mut self) {
        // Both may have ended already, as they should.
        let _ = self.service.kill();
        let _ = self.service.wait();
        let _ = evenkeel(self.directory.path()).arg("down").output();
    }
}

fn evenkeel(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.arg("--root").arg(directory.join("root")).arg("--run").arg(directory.join("run")).current_dir(directory);
    command
}

fn service(directory: &Path) -> Child {
    let log = fs::File::options().create(true).append(true).open(directory.join("log")).unwrap();
    evenkeel(directory).arg("watch").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

#[test]
fn what_is_broken_by_hand_is_put_back() {
    in_a_network_of_its_own(|| {
        let watched = Watched::begin();
        let bridge = |link: &&str| link.starts_with("ek") && link.contains('b');
        let links = run(&["ip", "-o", "-br", "link"]);
        let bridge = links.split_whitespace().find(bridge).expect("there is a bridge").to_owned();

        let before = watched.pid();
        run(&["ip", "link", "delete", &bridge]);
        eventually("the bridge is back", || watched.page().is_some() && watched.is_as_declared());
        let tables = run(&["nft", "list", "tables"]);
        let table = tables.lines().find(|line| line.contains("evenkeel-")).expect("there is a table").to_owned();
        let words: Vec<&str> = table.split_whitespace().collect();
        run(&["nft", "delete", "table", words[1], words[2]]);
        eventually("the firewall is back", || watched.page().is_some() && watched.is_as_declared());
        assert_eq!(watched.pid(), before, "the process was not touched");

        kill(Pid::from_raw(before), Signal::SIGKILL).unwrap();
        eventually("the container runs again", || watched.page().is_some());

        // Its restart policy lets somebody stop it; that it should run is declared.
        let stopped = watched.pid();
        watched.evenkeel(&["stop", "-t", "0", "web"]);
        eventually("what was stopped by hand runs again", || {
            watched.is_as_declared()
                && watched.page().is_some()
                && watched.pid_if_it_runs().is_some_and(|pid| pid != stopped)
        });

        let workload = watched.pid();
        let status = fs::read_to_string(format!("/proc/{workload}/status")).unwrap();
        let monitor = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
        kill(Pid::from_raw(monitor), Signal::SIGKILL).unwrap();
        eventually("the container is supervised again", || {
            watched.is_as_declared()
                && watched.page().is_some()
                && watched.pid_if_it_runs().is_some_and(|pid| pid != workload)
        });
        watched.end();
    });
}

#[test]
fn edits_are_applied_and_a_broken_manifest_changes_nothing() {
    in_a_network_of_its_own(|| {
        let watched = Watched::begin();
        let before = watched.pid();
        watched.edit(&MANIFEST.replace("restart = \"always\"", "restart = \"on-failure\"\nresources = { pids = 64 }"));
        eventually("the limit is set", || {
            let limit = fs::read_to_string(cgroup_of(before as u32, "pids").join("pids.max"));
            limit.is_ok_and(|limit| limit.trim() == "64")
        });
        assert_eq!(watched.pid(), before, "a live change touches no process");

        watched.edit("project = \"shop\"\n[containers.web]\nimage = \"box\nmemory = 3\n");
        eventually("the complaint is in the log", || watched.log().contains("manifest is broken"));
        assert_eq!(watched.pid(), before, "the last good manifest stays in force");

        watched.edit(&format!("{MANIFEST}\n[containers.side]\nimage = \"box\"\ncommand = [\"sleep\", \"1000\"]\n"));
        eventually("the second container runs", || watched.evenkeel(&["ps"]).contains("side"));
        watched.end();
    });
}

#[test]
fn what_ends_again_and_again_is_said_once() {
    in_a_network_of_its_own(|| {
        let watched = Watched::begin();
        let loops = "\n[containers.loop]\nimage = \"box\"\ncommand = [\"false\"]\nnetwork_mode = \"none\"\n\
                     restart = { policy = \"always\", backoff = { initial = \"1ms\", max = \"20ms\" } }\n";
        watched.edit(&format!("{MANIFEST}{loops}"));
        let times = |watched: &Watched| watched.log().matches("container loop ends again and again").count();
        eventually("it is said", || times(&watched) == 1);
        // Rounds go on, each with a container that has ended more often.
        for round in 1..=3 {
            watched.edit(&format!("{MANIFEST}{loops}[volumes.v{round}]\n"));
            eventually("a round has come", || {
                watched.directory.path().join(format!("root/volumes/shop.v{round}")).exists()
            });
        }
        assert_eq!(times(&watched), 1, "{}", watched.log());
        watched.end();
    });
}

#[test]
fn a_service_that_was_killed_adopts_what_runs() {
    in_a_network_of_its_own(|| {
        let mut watched = Watched::begin();
        let before = watched.pid();
        watched.service.kill().unwrap();
        watched.service.wait().unwrap();
        assert!(watched.page().is_some(), "the container outlives the service");
        fs::write(watched.manifest(), "broken [").unwrap();
        watched.service = service(watched.directory.path());
        eventually("the complaint is in the log", || watched.log().contains("manifest is broken"));
        run(&["sh", "-c", "nft delete table $(nft list tables | grep evenkeel- | cut -d' ' -f2-)"]);
        eventually("the last good manifest is in force", || watched.page().is_some());
        assert_eq!(watched.pid(), before);
        fs::write(watched.manifest(), MANIFEST).unwrap();
        kill(Pid::from_raw(watched.service.id() as i32), Signal::SIGHUP).unwrap();
        eventually("the manifest is read again", || watched.log().contains("can be read again"));
        watched.end();
    });
}

/// A release is put in force by renaming a link over the one before: no file is written, and the directory that holds
/// the manifest is another one afterwards.
#[test]
fn a_link_that_is_swapped_and_a_file_of_variables_are_edits() {
    in_a_network_of_its_own(|| {
        let watched = Watched::begin();
        let at = |name: &str| watched.directory.path().join(name);
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, at("new")).unwrap();
            fs::rename(at("new"), at(name)).unwrap();
        };
        let side = |label: &str| {
            format!("{MANIFEST}\n[containers.side]\nimage = \"box\"\ncommand = [\"sleep\", \"1000\"]\n{label}")
        };
        for (release, label) in [("1", ""), ("2", "labels = { release = \"2\" }"), ("3", "env_files = [\"variables\"]")]
        {
            fs::create_dir_all(at("releases").join(release)).unwrap();
            fs::write(at("releases").join(release).join("evenkeel.toml"), side(label)).unwrap();
        }
        fs::write(at("variables"), "COLOUR=red\n").unwrap();
        link("releases/1", "current");
        link("current/evenkeel.toml", "evenkeel.toml");
        let inspected = || watched.evenkeel(&["inspect", "side"]);
        eventually("the first release runs", || inspected().contains("sleep"));
        link("releases/2", "current");
        eventually("the second release is in force", || inspected().contains("\"release\": \"2\""));
        link("releases/3", "current");
        eventually("the third release is in force", || inspected().contains("red"));
        fs::write(at("variables"), "COLOUR=blue\n").unwrap();
        eventually("the edited file of variables is in force", || inspected().contains("blue"));
        watched.end();
    });
}

/// A migration that takes its time: it holds up what needs it, and nothing else.
#[test]
fn what_takes_long_holds_nobody_up() {
    in_a_network_of_its_own(|| {
        let watched = Watched::begin();
        let before = watched.pid();
        let side = "\n[containers.migrate]\nimage = \"box\"\nmounts = { \"/pages\" = \"pages\" }\n\
            command = [\"sh\", \"-c\", \"until [ -e /pages/go ]; do sleep 0.1; done\"]\n\
            [containers.side]\nimage = \"box\"\ncommand = [\"sleep\", \"1000\"]\ndepends_on = { migrate = \"completed\" }\n";
        watched.edit(&format!("{MANIFEST}{side}"));
        eventually("the migration is left to itself", || watched.log().contains("other rounds go on meanwhile"));
        let other = "project = \"other\"\nimages.box.rootfs = \"rootfs\"\n[containers.job]\nimage = \"box\"\n\
            command = [\"sleep\", \"1000\"]\nstop_grace_period = \"1s\"\n";
        fs::write(watched.directory.path().join("other.toml"), other).unwrap();
        let other = |arguments: &[&str]| {
            let output =
                evenkeel(watched.directory.path()).args(arguments).args(["-f", "other.toml"]).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        };
        other(&["apply", "--lock-timeout", "10s"]);
        run(&["sh", "-c", "nft delete table $(nft list tables | grep evenkeel- | cut -d' ' -f2-)"]);
        eventually("the firewall is back", || watched.page().is_some());
        assert_eq!(watched.pid(), before);
        assert_eq!(watched.pid_of("side"), None, "{}", watched.log());

        // Somebody sits out something by hand: the service waits, too, and says so, once.
        let lock = fs::File::options().append(true).open(watched.directory.path().join("root/lock")).unwrap();
        lock.lock().unwrap();
        let go = watched.directory.path().join("root/volumes/shop.pages/data/go");
        fs::write(go, "").unwrap();
        eventually("the service waits for the lock", || watched.log().contains("waiting for another evenkeel"));
        drop(lock);
        eventually("what waited for the migration runs", || watched.pid_of("side").is_some());
        assert_eq!(watched.log().matches("ERROR").count(), 0, "{}", watched.log());
        other(&["down", "--lock-timeout", "10s"]);
        watched.end();
    });
}
