//! A state root of its own, and the binary.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::hosts::shell::Answer;
use crate::hosts::{eventually, in_a_network_of_its_own, run};
use crate::support::Host;

pub struct Shell {
    pub host: Host,
}

impl Shell {
    /// Runs a test on a host of its own, and sees that no container of it is left.
    pub fn with(test: impl FnOnce(&Shell) + Send) {
        in_a_network_of_its_own(|| {
            let shell = Shell { host: Host::new() };
            test(&shell);
            let all = shell.ok(&["ps", "-aq"]).stdout;
            let mut remove = vec!["rm", "-fv"];
            remove.extend(all.lines());
            if remove.len() > 2 {
                shell.ok(&remove);
            }
            eventually("no container is left", || shell.count("state/containers") == 0);
            // A removal that goes on behind must not meet that of the directory.
            eventually("nothing is being removed", || shell.host.leftovers().is_empty());
            // What `run --rm` came back from may go on behind, too.
            eventually("no link is left", || !run(&["ip", "-o", "link"]).contains("ek"));
        });
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.host.path(name)
    }

    /// The path as an argument.
    pub fn word(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn count(&self, directory: &str) -> usize {
        let Ok(listed) = fs::read_dir(self.path(directory)) else { return 0 };
        listed.filter(|entry| !entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.')).count()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command.args(arguments).current_dir(self.host.directory.path()).env_clear().stdin(Stdio::null());
        command.env("EVENKEEL_ROOT", self.path("state")).env("EVENKEEL_RUN", self.path("run"));
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

    /// Runs it and expects it to fail, saying this.
    pub fn refused(&self, arguments: &[&str], words: &str) -> Answer {
        let answer = self.run(arguments);
        assert_ne!(answer.code, 0, "{arguments:?}: {answer:#?}");
        assert!(answer.stderr.contains(words), "{arguments:?} says `{words}`: {answer:#?}");
        answer
    }

    pub fn feed(&self, arguments: &[&str], input: &[u8]) -> Answer {
        Answer::to(self.command(arguments), input)
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut with_json = arguments.to_vec();
        with_json.push("--json");
        serde_json::from_str(&self.ok(&with_json).stdout).unwrap()
    }

    /// The image that a name or the beginning of an identifier means.
    pub fn image(&self, word: &str) -> Value {
        self.json(&["image", "inspect", word])[0].take()
    }

    pub fn id(&self, word: &str) -> String {
        self.image(word)["id"].as_str().unwrap().trim_start_matches("sha256:").to_owned()
    }
}
