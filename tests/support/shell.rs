//! Somebody at a shell: a directory to work in, and the built program with a state root and a run directory in it.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use evenkeel::model::id::RootTag;
use serde_json::Value;

use super::{busybox_rootfs, eventually, in_a_network_of_its_own, room_for_a_root, run};

/// A directory to work in, with a root filesystem in `rootfs`.
pub struct Shell {
    pub directory: tempfile::TempDir,
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub stdout: String,
    /// The same, where it is no text.
    pub bytes: Vec<u8>,
    pub stderr: String,
}

impl Answer {
    pub fn of(output: Output) -> Answer {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        Answer { code: output.status.code().unwrap_or(-1), stdout, bytes: output.stdout, stderr }
    }

    /// Of a command that has this on its standard input.
    pub fn to(mut command: Command, input: &[u8]) -> Answer {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            // Who does not read to the end is no failure of this side.
            let _ = stdin.write_all(&input);
        });
        let answer = Answer::of(child.wait_with_output().unwrap());
        writer.join().unwrap();
        answer
    }
}

impl Shell {
    /// Runs a test in a network namespace of its own, and takes everything down afterwards.
    pub fn with(test: impl FnOnce(&Shell) + Send) {
        in_a_network_of_its_own(|| test(&Shell::here()));
    }

    /// A state root of its own in the network namespace of the calling thread.
    pub fn here() -> Shell {
        let directory = room_for_a_root("evenkeel-shell");
        busybox_rootfs(&directory.path().join("rootfs"));
        Shell { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn entries(&self, directory: &str) -> Vec<String> {
        let Ok(listed) = fs::read_dir(self.path(directory)) else { return Vec::new() };
        listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// The manifest of the default name: `project = "shop"`, an image `box`, and this.
    pub fn manifest(&self, text: &str) {
        self.write("evenkeel.toml", &format!("project = \"shop\"\n[images.box]\nrootfs = \"rootfs\"\n{text}"));
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command.args(arguments).current_dir(self.directory.path()).env_clear().stdin(Stdio::null());
        command.env("EVENKEEL_ROOT", self.path("root")).env("EVENKEEL_RUN", self.path("run"));
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Answer {
        Answer::of(self.command(arguments).output().unwrap())
    }

    /// Runs it and expects it to succeed.
    pub fn ok(&self, arguments: &[&str]) -> Answer {
        let answer = self.run(arguments);
        assert_eq!(answer.code, 0, "{arguments:?}: {answer:#?}");
        answer
    }

    /// Runs it with this on its standard input.
    pub fn feed(&self, arguments: &[&str], input: &[u8]) -> Answer {
        Answer::to(self.command(arguments), input)
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--json"]].concat()).stdout).unwrap()
    }

    pub fn inspect(&self, name: &str) -> Value {
        self.json(&["inspect", name])[0].take()
    }

    pub fn pid(&self, name: &str) -> u64 {
        let found = self.inspect(name);
        found["pid"].as_u64().unwrap_or_else(|| panic!("{name} runs: {found:#}"))
    }

    /// What is planned, in words.
    pub fn plan(&self) -> String {
        self.ok(&["plan"]).stdout
    }

    pub fn plan_is_empty(&self) -> bool {
        self.run(&["plan", "--detailed-exitcode"]).code == 0
    }

    /// What names on the host carry.
    pub fn tag(&self) -> RootTag {
        evenkeel::engine::host::tag(&self.path("root").canonicalize().unwrap())
    }
}

/// Takes down the project and what nobody declares, so that a test that failed leaves nothing behind either; of one that
/// passed nothing may be left.
impl Drop for Shell {
    fn drop(&mut self) {
        let down = self.run(&["down", "--project", "shop", "--volumes", "--yes"]);
        let all = self.run(&["ps", "-aq"]).stdout;
        let by_hand: Vec<&str> = all.lines().collect();
        let removed = (!by_hand.is_empty()).then(|| self.run(&[&["rm", "-fv"], &by_hand[..]].concat()));
        if std::thread::panicking() {
            return;
        }
        assert_eq!(down.code, 0, "{down:#?}");
        assert!(removed.as_ref().is_none_or(|removed| removed.code == 0), "{removed:#?}");
        eventually("no container is left", || self.entries("root/containers").is_empty());
        eventually("no network is left", || self.entries("root/networks").is_empty());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.directory.path().to_str().unwrap()), "mounts are left: {mounts}");
        let name = format!("evenkeel-{}", self.tag());
        assert_eq!(run(&["find", "/sys/fs/cgroup", "-maxdepth", "2", "-name", &name]), "");
        assert!(!run(&["nft", "list", "tables"]).contains(&name));
        assert!(!run(&["ip", "-o", "link"]).contains(&format!(": ek{}", self.tag())));
    }
}
