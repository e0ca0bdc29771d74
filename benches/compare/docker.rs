//! Docker: a daemon of its own on the sandbox's disk, and the `docker` client, several at a time.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::Result;
use crate::cases::{CHANGE, CHECK, Case};
use crate::contender::Contender;
use crate::fleet::{CHECK as CHECK_COMMAND, Care, Fleet};
use crate::processes::wait_for;
use crate::sandbox::{Bench, NETWORK, SUBNET};
use crate::shell::{command, read, run, run_all};

/// More at a time does not make the daemon faster.
const CLIENTS: usize = 8;

pub struct Docker {
    rootfs: PathBuf,
    /// Data, sockets and the log of the daemon.
    state: PathBuf,
    daemon: Option<Child>,
}

impl Docker {
    pub fn new(bench: &Bench) -> Docker {
        Docker { rootfs: bench.rootfs.clone(), state: bench.disk.join("docker"), daemon: None }
    }

    pub fn socket(&self) -> String {
        format!("unix://{}/socket", self.state.display())
    }

    fn docker(&self, words: &str) -> Command {
        let mut docker = command("docker");
        docker.env("DOCKER_HOST", self.socket()).args(words.split_whitespace());
        docker
    }

    fn start_daemon(&mut self) -> Result<()> {
        std::fs::create_dir_all(&self.state)?;
        let log = std::fs::File::create(self.state.join("log"))?;
        let mut daemon = command("dockerd --bip 10.200.0.1/16");
        daemon.arg("--host").arg(self.socket());
        for (option, file) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            daemon.arg(option).arg(self.state.join(file));
        }
        self.daemon = Some(daemon.stdout(Stdio::null()).stderr(log).spawn()?);
        wait_for("the Docker daemon", || run(&mut self.docker("version")).ok())
    }
}

impl Contender for Docker {
    fn set_up(&mut self) -> Result<()> {
        self.start_daemon()?;
        let mut tar = command("tar --create .").current_dir(&self.rootfs).stdout(Stdio::piped()).spawn()?;
        let import = tar.stdout.take().ok_or("tar has no output")?;
        let status = self.docker("import - bench:latest").stdin(import).stdout(Stdio::null()).status()?;
        tar.wait()?;
        if !status.success() {
            return Err(format!("docker import: {status}").into());
        }
        run(&mut self.docker(&format!("network create --subnet {SUBNET} {NETWORK}")))
    }

    fn prepare(&self) -> Result<()> {
        Ok(())
    }

    fn start(&self, fleet: &Fleet) -> Result<()> {
        let start = |name: String| {
            let mut start = self.docker(&format!("run --detach --name {name} --network {NETWORK}"));
            match fleet.care {
                Care::Nothing => {}
                Care::Restart => drop(start.args(["--restart", "always"])),
                Care::Health => drop(start.args(["--health-cmd", CHECK_COMMAND, "--health-interval", "1s"])),
            }
            start.arg("bench:latest").args(fleet.command());
            start
        };
        run_all(fleet.names().map(start).collect(), CLIENTS)
    }

    fn remove(&self, fleet: &Fleet) -> Result<()> {
        run(self.docker("rm --force --volumes").args(fleet.names()))
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn list(&self) -> Result<()> {
        read(&mut self.docker("ps")).map(drop)
    }

    fn statistics(&self) -> Result<()> {
        read(&mut self.docker("stats --no-stream")).map(drop)
    }

    fn monitor(&self) -> &'static str {
        "containerd-shim-runc-v2"
    }

    fn not_applicable(&self, case: &Case) -> Option<&'static str> {
        [CHECK.name, CHANGE.name].contains(&case.name).then_some("nothing is declared")
    }

    fn tear_down(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill()?;
            daemon.wait()?;
        }
        Ok(())
    }
}
