//! A bundle with a busybox root filesystem, and `evenkeel-runtime` called on it.

use std::fs::{self, File};
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use evenkeel::runtime::cgroup;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

pub const RUNTIME: &str = env!("CARGO_BIN_EXE_evenkeel-runtime");

/// A bundle, a state root and a container's id of its own.
pub struct Bundle {
    pub directory: tempfile::TempDir,
    pub config: Value,
    pub cgroup: String,
}

impl Bundle {
    pub fn new() -> Bundle {
        let directory = tempfile::Builder::new().prefix("evenkeel-oci").tempdir().unwrap();
        let rootfs = super::busybox_rootfs(&directory.path().join("rootfs"));
        for name in ["proc", "sys", "dev"] {
            fs::create_dir(rootfs.join(name)).unwrap();
        }
        let cgroup = format!("/{}", directory.path().file_name().unwrap().to_str().unwrap().replace('.', ""));
        runtime(&directory, &["spec", "--bundle", directory.path().to_str().unwrap()]).output().unwrap();
        let text = fs::read_to_string(directory.path().join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["process"]["terminal"] = json!(false);
        config["process"]["env"] = json!(["PATH=/bin"]);
        config["root"]["readonly"] = json!(false);
        config["linux"]["cgroupsPath"] = json!(cgroup);
        config["annotations"] = json!({"org.example.colour": "blue"});
        // Limits of a host may be lower.
        config["process"].as_object_mut().unwrap().remove("rlimits");
        Bundle { directory, config, cgroup }
    }

    /// With this command.
    pub fn of(arguments: &[&str]) -> Bundle {
        let mut bundle = Bundle::new();
        bundle.config["process"]["args"] = json!(arguments);
        bundle
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn hook(&mut self, moment: &str, hook: Value) {
        let hooks = self.config.as_object_mut().unwrap().entry("hooks").or_insert(json!({}));
        let list = hooks.as_object_mut().unwrap().entry(moment).or_insert(json!([]));
        list.as_array_mut().unwrap().push(hook);
    }

    /// A hook that runs a line of the host's shell.
    pub fn shell_hook(&mut self, moment: &str, line: &str) {
        self.hook(moment, json!({"path": "/bin/sh", "args": ["sh", "-c", line], "env": ["PATH=/usr/bin:/bin"]}));
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        fs::write(self.path("config.json"), self.config.to_string()).unwrap();
        let mut command = runtime(&self.directory, arguments);
        command.current_dir(self.directory.path()).stdin(Stdio::null());
        command
    }

    /// Runs a command and waits. Output goes to files, since what a container inherits would keep a pipe open.
    pub fn call(&self, arguments: &[&str]) -> Said {
        self.finish(self.command(arguments))
    }

    pub fn finish(&self, mut command: Command) -> Said {
        let (out, err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let status = command.stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap()).status().unwrap();
        let text = |mut file: File| {
            use std::io::Seek;
            file.rewind().unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            text
        };
        Said { code: status.code().unwrap(), out: text(out), err: text(err) }
    }

    pub fn ok(&self, arguments: &[&str]) -> String {
        let said = self.call(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        said.out
    }

    /// What went to standard error of a command that fails.
    pub fn error(&self, arguments: &[&str]) -> String {
        let said = self.call(arguments);
        // `exec` tells its own failures from those of the command.
        let code = if arguments.contains(&"exec") { 255 } else { 1 };
        assert_eq!(said.code, code, "{arguments:?}: {said:?}");
        said.err
    }

    pub fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state", "box"])).unwrap()
    }

    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    pub fn pid(&self) -> i64 {
        self.state()["pid"].as_i64().unwrap()
    }

    pub fn has_cgroup(&self) -> bool {
        cgroup::open(&cgroup::detect().unwrap(), Path::new(&self.cgroup)).exists()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let said = self.call(&["delete", "--force", "box"]);
        if !std::thread::panicking() {
            assert_eq!(said.code, 0, "{said:?}");
            assert!(!self.has_cgroup(), "a cgroup is left");
            assert_eq!(fs::read_dir(self.path("state")).map_or(0, Iterator::count), 0, "state is left");
        }
    }
}

#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub fn runtime(directory: &tempfile::TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(RUNTIME);
    command.arg("--root").arg(directory.path().join("state")).args(arguments);
    command
}

pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn namespace(pid: &str, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().to_str().unwrap().to_owned()
}

/// The descriptor that is sent over the next connection.
pub fn receive(listener: &UnixListener) -> OwnedFd {
    receive_message(listener).1
}

/// What is sent over the next connection, to its end, with the descriptor that goes with it.
pub fn receive_message(listener: &UnixListener) -> (Vec<u8>, OwnedFd) {
    let (mut connection, _) = listener.accept().unwrap();
    let mut message = vec![0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(connection.as_fd(), &mut [IoSliceMut::new(&mut message)], &mut ancillary, flags).unwrap();
    message.truncate(got.bytes);
    let received = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    connection.read_to_end(&mut message).unwrap();
    (message, received.expect("a descriptor is sent along"))
}
