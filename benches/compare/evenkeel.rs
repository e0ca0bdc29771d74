//! Evenkeel: the release binaries that cargo built for this benchmark.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

use crate::Result;
use crate::cases::Case;
use crate::contender::Contender;
use crate::fleet::{CHECK as CHECK_COMMAND, Care, Fleet};
use crate::sandbox::{Bench, NETWORK, SUBNET};
use crate::shell::run;

pub struct Evenkeel {
    rootfs: PathBuf,
    root: PathBuf,
    manifest: PathBuf,
}

impl Evenkeel {
    pub fn new(bench: &Bench) -> Evenkeel {
        let (root, manifest) = (bench.disk.join("evenkeel"), bench.disk.join("evenkeel.toml"));
        Evenkeel { rootfs: bench.rootfs.clone(), root, manifest }
    }

    fn evenkeel(&self, words: &str) -> Command {
        let mut evenkeel = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        evenkeel.arg("--root").arg(&self.root).args(["--run", "/run/evenkeel"]).arg("--file").arg(&self.manifest);
        evenkeel.args(words.split_whitespace());
        evenkeel
    }

    fn declare(&self, fleet: &Fleet) -> Result<()> {
        let mut text = format!(
            "project = 'bench'\n[images.bench]\nrootfs = '{}'\n[networks.{NETWORK}]\nsubnet = '{SUBNET}'\n",
            self.rootfs.display()
        );
        for (number, name) in fleet.names().enumerate() {
            let generation = if number == 0 { fleet.generation } else { 0 };
            // A dollar of the shell's is none of the manifest's.
            let command: Vec<String> = fleet.command().iter().map(|word| word.replace('$', "$$")).collect();
            write!(
                text,
                "[containers.{name}]\nimage = 'bench'\ncommand = {command:?}\nnetworks = ['{NETWORK}']\n\
                stop_signal = 'SIGKILL'\nenvironment = {{ GENERATION = '{generation}' }}\n"
            )?;
            text.push_str(&match fleet.care {
                Care::Nothing => "restart = 'no'\n".into(),
                Care::Restart => "restart = 'always'\n".into(),
                Care::Health => {
                    format!("healthcheck = {{ command = ['sh', '-c', '{CHECK_COMMAND}'], interval = '1s' }}\n")
                }
            });
        }
        Ok(std::fs::write(&self.manifest, text)?)
    }
}

impl Contender for Evenkeel {
    fn set_up(&mut self) -> Result<()> {
        self.prepare()
    }

    /// Image and network are declared without containers. A hundred that run stay as they are.
    fn prepare(&self) -> Result<()> {
        if self.root.join("containers").read_dir().is_ok_and(|mut containers| containers.next().is_some()) {
            return Ok(());
        }
        self.start(&Fleet::sleeping(0))
    }

    fn start(&self, fleet: &Fleet) -> Result<()> {
        self.declare(fleet)?;
        run(&mut self.evenkeel("apply"))
    }

    fn remove(&self, _: &Fleet) -> Result<()> {
        run(&mut self.evenkeel("down"))
    }

    fn check(&self) -> Result<()> {
        run(&mut self.evenkeel("apply"))
    }

    fn list(&self) -> Result<()> {
        run(&mut self.evenkeel("ps"))
    }

    fn statistics(&self) -> Result<()> {
        run(&mut self.evenkeel("stats --no-stream"))
    }

    fn monitor(&self) -> &'static str {
        "evenkeel-monitor"
    }

    fn not_applicable(&self, _: &Case) -> Option<&'static str> {
        None
    }

    fn tear_down(&mut self) -> Result<()> {
        Ok(())
    }
}
