//! The built binary, with a root and an environment of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::Host;

/// What a command did and said.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: &Output) -> Ran {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    pub fn ok(self) -> Ran {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }
}

pub fn evenkeel(host: &Host) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.arg("--root").arg(host.path("state")).arg("--run").arg(host.path("run"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("REGISTRY_AUTH_FILE", auth_file(host)).env("EVENKEEL_HOST_CONFIG", host_file(host));
    if !host_file(host).exists() {
        std::fs::write(host_file(host), "").unwrap();
    }
    command
}

pub fn auth_file(host: &Host) -> PathBuf {
    host.path("auth.json")
}

pub fn host_file(host: &Host) -> PathBuf {
    host.path("host.toml")
}

pub fn run(command: &mut Command) -> Ran {
    Ran::of(&command.stdin(Stdio::null()).output().unwrap())
}

pub fn run_with_input(command: &mut Command, input: &str) -> Ran {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it is built");
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    Ran::of(&child.wait_with_output().unwrap())
}

/// Makes a program of these lines of shell.
pub fn program(path: &Path, lines: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, format!("#!/bin/sh\n{lines}")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
