//! Podman with crun, conmon, netavark and cgroupfs, as it is without systemd; several clients at a time.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Result;
use crate::cases::{CHANGE, CHECK, Case};
use crate::contender::Contender;
use crate::fleet::{CHECK as CHECK_COMMAND, Care, Fleet};
use crate::sandbox::{Bench, NETWORK, SUBNET};
use crate::shell::{command, run, run_all};

/// They wait for each other's locks: more at a time is not faster.
const CLIENTS: usize = 4;

/// The limits are those that a host with few privileges can give; the others are Debian's defaults without systemd.
const CONFIGURATION: &str = r#"
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
[network]
network_backend = "netavark"
network_config_dir = "/run/bench/podman/networks"
"#;

pub struct Podman {
    rootfs: PathBuf,
    state: PathBuf,
}

impl Podman {
    pub fn new(bench: &Bench) -> Podman {
        Podman { rootfs: bench.rootfs.clone(), state: bench.disk.join("podman") }
    }

    fn podman(&self, words: &str) -> Command {
        let mut podman = command("podman");
        podman.env("CONTAINERS_CONF", self.state.join("containers.conf"));
        podman.arg("--root").arg(self.state.join("root"));
        // On a tmpfs, as it is by default.
        podman.args(["--runroot", "/run/podman/root", "--tmpdir", "/run/podman/libpod"]);
        podman.args(words.split_whitespace());
        podman
    }
}

impl Contender for Podman {
    fn set_up(&mut self) -> Result<()> {
        std::fs::create_dir_all(self.state.join("networks"))?;
        std::fs::write(self.state.join("containers.conf"), CONFIGURATION)?;
        // crun refuses to work where v1 controllers stand beside a v2 tree.
        if std::path::Path::new("/sys/fs/cgroup/unified").exists() {
            run(&mut command("umount /sys/fs/cgroup/unified"))?;
        }
        let mut tar = command("tar --create .").current_dir(&self.rootfs).stdout(Stdio::piped()).spawn()?;
        let import = tar.stdout.take().ok_or("tar has no output")?;
        let mut command = self.podman("import --quiet - bench:latest");
        let status = command.stdin(import).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        tar.wait()?;
        if !status.success() {
            return Err(format!("podman import: {status}").into());
        }
        run(&mut self.podman(&format!("network create --subnet {SUBNET} {NETWORK}")))
    }

    fn prepare(&self) -> Result<()> {
        Ok(())
    }

    fn start(&self, fleet: &Fleet) -> Result<()> {
        let start = |name: String| {
            let mut start = self.podman(&format!("run --detach --name {name} --network {NETWORK}"));
            match fleet.care {
                Care::Nothing => {}
                Care::Restart => drop(start.args(["--restart", "always"])),
                Care::Health => drop(start.args(["--health-cmd", CHECK_COMMAND, "--health-interval", "disable"])),
            }
            start.arg("localhost/bench:latest").args(fleet.command());
            start
        };
        run_all(fleet.names().map(start).collect(), CLIENTS)
    }

    fn remove(&self, fleet: &Fleet) -> Result<()> {
        run(self.podman("rm --force --time 0 --volumes").args(fleet.names()))
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn list(&self) -> Result<()> {
        run(&mut self.podman("ps"))
    }

    fn statistics(&self) -> Result<()> {
        run(&mut self.podman("stats --no-stream"))
    }

    fn monitor(&self) -> &'static str {
        "conmon"
    }

    /// A timer of systemd would run the same command.
    fn check_health(&self, fleet: &Fleet) -> Option<Result<()>> {
        let check = |name: String| self.podman(&format!("healthcheck run {name}"));
        Some(run_all(fleet.names().map(check).collect(), 1))
    }

    fn not_applicable(&self, case: &Case) -> Option<&'static str> {
        [CHECK.name, CHANGE.name].contains(&case.name).then_some("nothing is declared")
    }

    fn tear_down(&mut self) -> Result<()> {
        Ok(())
    }
}
