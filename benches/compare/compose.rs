//! Docker Compose: `docker-compose up` with a Docker daemon of its own, the network being there.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

use crate::Result;
use crate::cases::{CHANGE, CHECK, Case, DOWN, START_1, START_10, START_100};
use crate::contender::Contender;
use crate::docker::Docker;
use crate::fleet::Fleet;
use crate::sandbox::{Bench, NETWORK};
use crate::shell::{command, run};

pub struct Compose {
    docker: Docker,
    file: PathBuf,
}

impl Compose {
    pub fn new(bench: &Bench) -> Compose {
        Compose { docker: Docker::new(bench), file: bench.disk.join("docker-compose.yml") }
    }

    fn compose(&self, words: &str) -> Command {
        let mut compose = command("docker-compose --project-name bench --file");
        // One request at a time is its default for a hundred services, too: 64 threads, ten connections.
        compose.arg(&self.file).env("DOCKER_HOST", self.docker.socket()).env("COMPOSE_HTTP_TIMEOUT", "600");
        compose.args(words.split_whitespace());
        compose
    }
}

impl Contender for Compose {
    fn set_up(&mut self) -> Result<()> {
        self.docker.set_up()
    }

    fn prepare(&self) -> Result<()> {
        Ok(())
    }

    fn start(&self, fleet: &Fleet) -> Result<()> {
        let mut text = String::from("version: '3.5'\nservices:\n");
        for (number, name) in fleet.names().enumerate() {
            let generation = if number == 0 { fleet.generation } else { 0 };
            let command = fleet.command();
            write!(
                text,
                "  {name}:\n    image: bench:latest\n    command: {command:?}\n    networks: [{NETWORK}]\n    \
                stop_signal: SIGKILL\n    environment: {{ GENERATION: '{generation}' }}\n"
            )?;
        }
        write!(text, "networks:\n  {NETWORK}: {{ external: true }}\n")?;
        std::fs::write(&self.file, text)?;
        run(&mut self.compose("up --detach"))
    }

    fn remove(&self, _: &Fleet) -> Result<()> {
        run(&mut self.compose("down"))
    }

    fn check(&self) -> Result<()> {
        run(&mut self.compose("up --detach"))
    }

    fn list(&self) -> Result<()> {
        Ok(())
    }

    fn statistics(&self) -> Result<()> {
        Ok(())
    }

    fn monitor(&self) -> &'static str {
        self.docker.monitor()
    }

    fn not_applicable(&self, case: &Case) -> Option<&'static str> {
        let own = [START_1.name, START_10.name, START_100.name, CHECK.name, CHANGE.name, DOWN.name];
        (!own.contains(&case.name)).then_some("the same as Docker's")
    }

    fn tear_down(&mut self) -> Result<()> {
        self.docker.tear_down()
    }
}
