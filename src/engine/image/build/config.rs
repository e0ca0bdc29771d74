//! The configuration of the image that is being built (OCI image-spec, config.md, and Docker's additions).
//!
//! It begins as the base's, fields that nobody here knows included, and is changed instruction by instruction. What the
//! time of a build would change is kept out: an instruction that made no layer has the time of the layer below it, so
//! that a build whose layers are all known gives the same image.

use serde_json::{Map, Value, json};

use crate::engine::image::commit::CommittedStep;
use crate::engine::image::error::ImageError;
use crate::engine::image::options::Platform;
use crate::model::dockerfile::{CommandLine, Healthcheck};
use crate::model::id::Digest;

#[derive(Debug, Clone)]
pub struct Config {
    all: Map<String, Value>,
    /// Whether a `CMD` of this stage is in force: an `ENTRYPOINT` takes an inherited one away.
    has_own_command: bool,
}

/// What an instruction left in the image's history.
pub enum Made<'m> {
    /// Only the configuration changed.
    Nothing,
    Layer {
        diff_id: &'m Digest,
        created: &'m str,
    },
}

impl Config {
    /// An image of nothing.
    pub fn scratch(platform: &Platform) -> Config {
        let mut all = Map::new();
        all.insert("architecture".to_owned(), json!(platform.architecture));
        all.insert("os".to_owned(), json!(platform.os));
        if let Some(variant) = &platform.variant {
            all.insert("variant".to_owned(), json!(variant));
        }
        Config { all, has_own_command: false }
    }

    /// A stage that begins with these bytes of a configuration. `subject` is what errors call it.
    pub fn of_base(subject: &str, bytes: &[u8]) -> Result<Config, ImageError> {
        let all = serde_json::from_slice(bytes).map_err(|error| ImageError::Malformed {
            subject: format!("the configuration of {subject}"),
            problem: error.to_string(),
        })?;
        Ok(Config { all, has_own_command: false })
    }

    /// The beginning of a stage on this one.
    pub fn inherited(&self) -> Config {
        Config { has_own_command: false, ..self.clone() }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        Value::Object(self.all.clone()).to_string().into_bytes()
    }

    fn section(&mut self, name: &str) -> &mut Map<String, Value> {
        let section = self.all.entry(name.to_owned()).or_insert_with(|| json!({}));
        if !section.is_object() {
            *section = json!({});
        }
        section.as_object_mut().expect("it was made an object just above")
    }

    fn execution(&self, name: &str) -> Option<&Value> {
        self.all.get("config")?.get(name)
    }

    fn texts(&self, name: &str) -> Vec<String> {
        let list = self.execution(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    }

    pub fn text(&self, name: &str) -> &str {
        self.execution(name).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn set(&mut self, name: &str, value: Value) {
        self.section("config").insert(name.to_owned(), value);
    }

    /// The environment, in its order.
    pub fn environment(&self) -> Vec<(String, String)> {
        let split = |entry: String| entry.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.texts("Env").into_iter().filter_map(split).collect()
    }

    pub fn set_variable(&mut self, name: &str, value: &str) {
        let mut all = self.environment();
        match all.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value.to_owned(),
            None => all.push((name.to_owned(), value.to_owned())),
        }
        let all: Vec<String> = all.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.set("Env", json!(all));
    }

    /// The words in front of a line of shell.
    pub fn shell(&self) -> Vec<String> {
        match self.texts("Shell") {
            shell if shell.is_empty() => vec!["/bin/sh".to_owned(), "-c".to_owned()],
            shell => shell,
        }
    }

    fn words(&self, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Exec(words) => words.clone(),
            CommandLine::Shell(line) if line.is_empty() => Vec::new(),
            CommandLine::Shell(line) => [self.shell(), vec![line.clone()]].concat(),
        }
    }

    pub fn set_command(&mut self, command: &CommandLine) {
        self.has_own_command = true;
        self.set("Cmd", json!(self.words(command)));
    }

    pub fn set_entrypoint(&mut self, command: &CommandLine) {
        self.set("Entrypoint", json!(self.words(command)));
        if !self.has_own_command {
            self.section("config").remove("Cmd");
        }
    }

    /// Adds keys to a map: labels, ports, volumes.
    pub fn add(&mut self, name: &str, entries: impl IntoIterator<Item = (String, Value)>) {
        let mut map = self.execution(name).and_then(Value::as_object).cloned().unwrap_or_default();
        map.extend(entries);
        self.set(name, Value::Object(map));
    }

    pub fn set_author(&mut self, author: &str) {
        self.all.insert("author".to_owned(), json!(author));
    }

    pub fn set_healthcheck(&mut self, check: &Healthcheck) {
        let test = match &check.command {
            None => vec!["NONE".to_owned()],
            Some(CommandLine::Exec(words)) => [vec!["CMD".to_owned()], words.clone()].concat(),
            Some(CommandLine::Shell(line)) => vec!["CMD-SHELL".to_owned(), line.clone()],
        };
        let mut value = json!({ "Test": test });
        let times = [
            ("Interval", check.interval),
            ("Timeout", check.timeout),
            ("StartPeriod", check.start_period),
            ("StartInterval", check.start_interval),
            ("Retries", check.retries.into()),
        ];
        for (name, time) in times.into_iter().filter(|(_, time)| *time > 0) {
            value[name] = json!(time);
        }
        self.set("Healthcheck", value);
    }

    pub fn add_trigger(&mut self, text: &str) {
        let all = [self.texts("OnBuild"), vec![text.to_owned()]].concat();
        self.set("OnBuild", json!(all));
    }

    /// The instructions that the base keeps for whoever builds on it; they are for one generation.
    pub fn take_triggers(&mut self) -> Vec<String> {
        let all = self.texts("OnBuild");
        if !all.is_empty() {
            self.section("config").remove("OnBuild");
        }
        all
    }

    /// Adds a layer that no instruction made.
    pub fn record_commit(&mut self, step: &CommittedStep<'_>) {
        let CommittedStep { diff_id, created, author, message } = step;
        let mut line = json!({ "created_by": "evenkeel container commit" });
        let words = [("author", author), ("comment", message)];
        for (name, value) in words.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            line[name] = json!(value);
        }
        if let Some(author) = author {
            self.set_author(author);
        }
        self.add_line(line, &Made::Layer { diff_id, created });
    }

    /// Adds a line to the history, and the layer if one was made.
    pub fn record(&mut self, instruction: &str, made: &Made<'_>) {
        self.add_line(json!({ "created_by": instruction, "comment": "evenkeel" }), made);
    }

    fn add_line(&mut self, mut line: Value, made: &Made<'_>) {
        match made {
            Made::Nothing => {
                line["empty_layer"] = json!(true);
                if let Some(created) = self.all.get("created") {
                    line["created"] = created.clone();
                }
            }
            Made::Layer { diff_id, created } => {
                line["created"] = json!(created);
                self.all.insert("created".to_owned(), json!(created));
                let files = self.section("rootfs");
                files.insert("type".to_owned(), json!("layers"));
                match files.get_mut("diff_ids").and_then(Value::as_array_mut) {
                    Some(all) => all.push(json!(diff_id)),
                    None => drop(files.insert("diff_ids".to_owned(), json!([diff_id]))),
                }
            }
        }
        match self.all.get_mut("history").and_then(Value::as_array_mut) {
            Some(history) => history.push(line),
            None => drop(self.all.insert("history".to_owned(), json!([line]))),
        }
    }

    /// What every image has, also one without a layer.
    pub fn complete(&mut self) {
        self.section("config");
        let files = self.section("rootfs");
        files.entry("type").or_insert_with(|| json!("layers"));
        files.entry("diff_ids").or_insert_with(|| json!([]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let base = json!({
            "architecture": "amd64", "os": "linux", "other": 1,
            "config": { "Env": ["A=1", "B=2"], "Cmd": ["old"], "OnBuild": ["RUN x"] },
            "rootfs": { "type": "layers", "diff_ids": ["sha256:0"] },
        });
        Config::of_base("it", base.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn an_entrypoint_takes_an_inherited_command_away_and_no_own_one() {
        let line = |text: &str| CommandLine::Shell(text.to_owned());
        let mut inherited = config();
        inherited.set_entrypoint(&line("serve"));
        assert_eq!(inherited.execution("Entrypoint"), Some(&json!(["/bin/sh", "-c", "serve"])));
        assert_eq!(inherited.execution("Cmd"), None);
        let mut own = config();
        own.set("Shell", json!(["/bin/bash", "-ec"]));
        own.set_command(&line("x"));
        own.set_entrypoint(&CommandLine::Exec(vec!["serve".to_owned()]));
        assert_eq!(own.execution("Cmd"), Some(&json!(["/bin/bash", "-ec", "x"])));
    }

    #[test]
    fn variables_keep_their_order_and_triggers_are_taken_once() {
        let mut config = config();
        config.set_variable("A", "3=4");
        config.set_variable("C", "");
        assert_eq!(config.execution("Env"), Some(&json!(["A=3=4", "B=2", "C="])));
        assert_eq!((config.take_triggers(), config.take_triggers()), (vec!["RUN x".to_owned()], vec![]));
    }

    #[test]
    fn history_tells_layers_from_words_and_unknown_fields_stay() {
        let mut config = config();
        let diff_id: Digest = format!("sha256:{}", "1".repeat(64)).parse().unwrap();
        config.record("RUN x", &Made::Layer { diff_id: &diff_id, created: "2020-01-01T00:00:00Z" });
        config.record("ENV a=b", &Made::Nothing);
        let all: Value = serde_json::from_slice(&config.to_bytes()).unwrap();
        assert_eq!((&all["other"], &all["created"]), (&json!(1), &json!("2020-01-01T00:00:00Z")));
        assert_eq!(all["rootfs"]["diff_ids"], json!(["sha256:0", diff_id]));
        assert_eq!(all["history"][1]["created"], all["created"]);
        assert_eq!(all["history"][1]["empty_layer"], json!(true));
    }
}
