//! Updates that fail on a real kernel: what ran before runs again, with its files and its address, and is not updated
//! again by itself.

mod support;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::{busybox_rootfs, eventually, in_a_network_of_its_own, room_for_a_root, run};

/// A directory with a manifest whose container `web` serves pages, and what else its update says.
struct Project {
    directory: tempfile::TempDir,
    update: &'static str,
}

const SERVES: &str = r#"["httpd", "-f", "-p", "80", "-h", "/var/www"]"#;
const FAILS: &str = r#"["sh", "-c", "echo the disk is purple; sleep 0.2; exit 7"]"#;

impl Project {
    /// Runs a test with `web` running, and takes everything down afterwards.
    fn with(update: &'static str, test: impl FnOnce(&Project) + Send) {
        in_a_network_of_its_own(|| {
            let directory = room_for_a_root("evenkeel-update");
            busybox_rootfs(&directory.path().join("rootfs"));
            let project = Project { directory, update };
            project.declare(SERVES);
            project.apply(0);
            test(&project);
        });
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn declare(&self, command: &str) {
        let text = format!(
            r#"
project = "shop"
images.box.rootfs = "rootfs"
[networks.front]
[containers.web]
image = "box"
command = {command}
networks = ["front"]
restart = "always"
stop_grace_period = "1s"
{}
"#,
            self.update
        );
        fs::write(self.path("new.toml"), text).unwrap();
        fs::rename(self.path("new.toml"), self.path("evenkeel.toml")).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command.args(arguments).current_dir(self.directory.path()).env_clear().stdin(Stdio::null());
        command.env("EVENKEEL_ROOT", self.path("root")).env("EVENKEEL_RUN", self.path("run"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn apply(&self, code: i32) -> String {
        let output = self.run(&["apply"]);
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    }

    /// What is known of `web`, and of it alone: a failed update leaves no second container.
    fn web(&self) -> Value {
        let inspected: Value = serde_json::from_slice(&self.run(&["inspect", "web"]).stdout).unwrap();
        assert_eq!(inspected.as_array().unwrap().len(), 1, "{inspected}");
        inspected[0].clone()
    }

    fn pid(&self) -> i32 {
        self.web()["pid"].as_i64().expect("it runs") as i32
    }

    /// The address that the kernel has in its namespace.
    fn address(&self) -> String {
        let pid = self.pid().to_string();
        let links: Value =
            serde_json::from_str(&run(&["nsenter", "--net", "--target", &pid, "ip", "-j", "-4", "addr"])).unwrap();
        let eth0 = links.as_array().unwrap().iter().find(|link| link["ifname"] == "eth0").expect("it has a link");
        eth0["addr_info"][0]["local"].as_str().unwrap().to_owned()
    }

    fn page(&self) -> String {
        run(&["wget", "-q", "-T", "5", "-O", "-", &format!("http://{}/", self.address())])
    }

    fn containers(&self) -> usize {
        fs::read_dir(self.path("root/containers")).unwrap().count()
    }
}

/// A failed test leaves nothing behind either.
impl Drop for Project {
    fn drop(&mut self) {
        let down = self.run(&["down", "--project", "shop"]);
        if !std::thread::panicking() {
            assert!(down.status.success(), "{down:?}");
            assert!(!run(&["ip", "-o", "link"]).contains(": ek"), "links are left");
        }
    }
}

#[test]
fn stop_first_goes_back_to_the_old_files_at_the_old_address() {
    Project::with("healthcheck = { tcp = 80, interval = \"100ms\", retries = 2 }", |project| {
        let (pid, address) = (project.pid(), project.address());
        let written = Path::new("/proc").join(pid.to_string()).join("root/var/www/index.html");
        fs::write(written, "written by hand\n").unwrap();

        project.declare(FAILS);
        let said = project.apply(3);
        assert!(said.contains("rolled back") && said.contains("the disk is purple"), "{said}");
        assert_ne!(project.pid(), pid, "it was stopped and started");
        assert_eq!((project.page().as_str(), project.address()), ("written by hand\n", address));
        assert_eq!(project.containers(), 1);

        let plan = project.run(&["plan", "--detailed-exitcode"]);
        let text = String::from_utf8(plan.stdout).unwrap();
        assert_eq!(plan.status.code(), Some(2), "what runs is not what is declared: {text}");
        assert!(text.contains("command changed") && text.contains("rolled back at 20"), "{text}");

        project.declare(SERVES);
        assert!(project.apply(0).contains("updated"), "that it was refused is forgotten");
        assert_eq!(project.run(&["plan", "--detailed-exitcode"]).status.code(), Some(0));
    });
}

#[test]
fn start_first_leaves_the_old_one_untouched() {
    let update = "update = { order = \"start-first\" }\nhealthcheck = { tcp = 80, interval = \"100ms\", retries = 2 }";
    Project::with(update, |project| {
        let pid = project.pid();
        project.declare(r#"["sleep", "1000"]"#);
        let said = project.apply(3);
        assert!(said.contains("is unhealthy") && said.contains("rolled back"), "{said}");
        assert_eq!((project.pid(), project.containers()), (pid, 1));
    });
}

#[test]
fn one_that_ends_while_it_is_monitored_is_rolled_back_and_with_pause_it_stays() {
    Project::with("update = { monitor = \"5s\" }", |project| {
        project.declare(FAILS);
        let said = project.apply(3);
        assert!(said.contains("ended with status 7, within 5s of being ready"), "{said}");
        assert_eq!(project.page(), "hello from a container\n");
    });
    Project::with("update = { failure_action = \"pause\", order = \"start-first\", monitor = \"5s\" }", |project| {
        let pid = project.pid();
        project.declare(FAILS);
        project.apply(3);
        assert_eq!(project.containers(), 2, "both are there");
        assert!(Path::new("/proc").join(pid.to_string()).exists(), "the old one serves");
    });
}

#[test]
fn a_command_that_is_not_there_is_rolled_back_without_a_health_check() {
    Project::with("", |project| {
        project.declare(r#"["nonesuch"]"#);
        let said = project.apply(3);
        assert!(said.contains("nonesuch") && said.contains("1 update rolled back"), "{said}");
        assert_eq!(project.page(), "hello from a container\n");
    });
}

#[test]
fn what_is_changed_in_place_is_changed_back() {
    Project::with("healthcheck = { tcp = 80, interval = \"100ms\", retries = 2 }", |project| {
        let (old, pid) = (project.web()["record"].clone(), project.pid());
        let written = Path::new("/proc").join(pid.to_string()).join("root/var/www/index.html");
        fs::write(written, "written by hand\n").unwrap();
        // A filter that refuses what a server cannot do without.
        let filter = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["listen"], "action": "SCMP_ACT_ERRNO" }] }"#;
        fs::write(project.path("deaf.json"), filter).unwrap();
        project.declare(&format!("{SERVES}\nsecurity = {{ seccomp = \"deaf.json\" }}"));
        let plan = String::from_utf8(project.run(&["plan"]).stdout).unwrap();
        assert!(plan.contains("(restart)") && plan.contains("if it fails: what runs now is started again"), "{plan}");
        let said = project.apply(3);
        assert!(said.contains("1 update rolled back") && said.contains("listen"), "{said}");
        assert_eq!((project.page().as_str(), project.containers()), ("written by hand\n", 1));
        assert_ne!(project.pid(), pid, "it was stopped and started");
        let new = project.web()["record"].clone();
        assert_eq!((&new["id"], &new["spec"]), (&old["id"], &old["spec"]));

        let plan = project.run(&["plan", "--detailed-exitcode"]);
        let text = String::from_utf8(plan.stdout).unwrap();
        assert!(plan.status.code() == Some(2) && text.contains("rolled back at 20"), "{text}");
        project.declare(SERVES);
        project.apply(0);
        assert_eq!(project.run(&["plan", "--detailed-exitcode"]).status.code(), Some(0));
    });
}

/// The service, which ends with the test.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

#[test]
fn watch_tries_an_update_once_and_again_when_the_manifest_changes() {
    Project::with("update = { monitor = \"1s\" }", |project| {
        let log = fs::File::create(project.path("log")).unwrap();
        let mut watch = project.command(&["watch", "--interval", "200ms"]);
        watch.env("NOTIFY_SOCKET", project.path("notify"));
        let service = Service(watch.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let tries = || fs::read_to_string(project.path("log")).unwrap().matches("refuse the update").count();
        project.declare(FAILS);
        eventually("the update is rolled back", || tries() == 1);
        eventually("the container runs again", || project.containers() == 1 && project.web()["pid"].is_i64());
        let pid = project.pid();
        let systemd = UnixDatagram::bind(project.path("notify")).unwrap();
        systemd.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        // Every round tells systemd how things are; ten times it is the same, and nothing is done.
        for _ in 0..10 {
            let mut buffer = [0; 4096];
            let told = loop {
                let length = systemd.recv(&mut buffer).unwrap();
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                // The round that failed may come first.
                if text.contains("STATUS=") && !text.contains("step failed") {
                    break text;
                }
            };
            assert!(told.contains("runs as before an update that failed: container web: it was rolled back"), "{told}");
        }
        assert_eq!((tries(), project.pid()), (1, pid));

        project.declare(&FAILS.replace("exit 7", "exit 8"));
        eventually("another wish is tried", || tries() == 2);
        project.declare(&SERVES.replace("-f", "-f\", \"-v"));
        eventually("one that works is applied", || {
            let plan = project.run(&["plan", "--detailed-exitcode"]);
            plan.status.code() == Some(0)
        });
        drop(service);
    });
}

#[test]
fn an_apply_that_is_killed_while_it_waits_is_taken_up_and_goes_back() {
    Project::with("healthcheck = { tcp = 80, interval = \"1s\", retries = 3 }", |project| {
        let old = project.web()["record"]["id"].clone();
        project.declare(r#"["sleep", "1000"]"#);
        let mut apply = project.command(&["apply"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the new one runs", || {
            let all: Value = serde_json::from_slice(&project.run(&["ps", "--json"]).stdout).unwrap();
            let rows = all.as_array().unwrap();
            rows.len() == 2 && rows.iter().filter(|row| row["pid"].is_u64()).count() == 1
        });
        apply.kill().unwrap();
        apply.wait().unwrap();
        let said = project.apply(3);
        assert!(said.contains("rolled back"), "{said}");
        assert_eq!((project.page().as_str(), project.containers()), ("hello from a container\n", 1));
        assert_eq!(project.web()["record"]["id"], old);
    });
}

/// The record of what was changed in place is the new one; it says itself what it was.
#[test]
fn a_change_in_place_whose_apply_is_killed_goes_back_too() {
    Project::with("healthcheck = { tcp = 80, interval = \"1s\", retries = 3 }", |project| {
        let old = project.web()["record"].clone();
        let text = fs::read_to_string(project.path("evenkeel.toml")).unwrap();
        // Nobody listens where it is asked now, and the search list is what restarts it.
        let text = text.replace("tcp = 80", "tcp = 81").replace("restart =", "dns_search = [\"x\"]\nrestart =");
        fs::write(project.path("evenkeel.toml"), text).unwrap();
        let mut apply = project.command(&["apply"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("it is changed and runs", || {
            let web = project.web();
            web["record"]["before"].is_object() && web["pid"].is_i64()
        });
        apply.kill().unwrap();
        apply.wait().unwrap();
        let said = project.apply(3);
        assert!(said.contains("rolled back"), "{said}");
        let new = project.web()["record"].clone();
        assert_eq!((&new["id"], &new["spec"], &new["before"]), (&old["id"], &old["spec"], &Value::Null));
        assert_eq!(project.page(), "hello from a container\n");
    });
}
