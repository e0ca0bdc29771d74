//! Stages: where they begin, and what each instruction does to them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;

use serde_json::{Value, json};

use super::cache::Reuse;
use super::config::{Config, Made};
use super::scope::{Scope, Variables};
use super::tree::Tree;
use crate::engine::image::ensure::ensure;
use crate::engine::image::error::ImageError;
use crate::engine::image::layer::Workshop;
use crate::engine::image::progress::Event;
use crate::model::build::BuildSpec;
use crate::model::dockerfile::{Argument, Dockerfile, Instruction, SCRATCH, Step, parse_trigger};
use crate::model::id::Digest;
use crate::model::image::{Image, ImageSource, Pull, normalize_reference};
use crate::model::lock::pinned;

/// One build.
pub struct Builder<'a> {
    pub(super) workshop: Workshop<'a>,
    pub(super) spec: &'a BuildSpec,
    pub(super) file: &'a Dockerfile,
    pub(super) context: &'a Tree,
    pub(super) scope: Scope<'a>,
    /// Those that are built.
    stages: RefCell<BTreeMap<usize, Rc<Stage>>>,
    /// Images that were used, with the digests of their manifests.
    bases: RefCell<BTreeMap<String, Digest>>,
    /// Secrets that commands asked for.
    pub(super) asked: RefCell<BTreeSet<String>>,
}

/// The files and the configuration so far.
#[derive(Clone)]
pub struct Stage {
    /// What to mount, lowest first, and the names of that.
    pub lower: Vec<PathBuf>,
    pub chain: Vec<Digest>,
    pub config: Config,
    /// The `ARG`s that were declared.
    pub arguments: Variables,
}

impl Stage {
    /// A variable of an instruction: the environment wins over arguments.
    pub fn variable(&self, name: &str) -> Option<String> {
        let environment = self.config.environment().into_iter().find(|(known, _)| known == name);
        environment.map(|(_, value)| value).or_else(|| self.arguments.get(name).cloned())
    }

    /// The directory that relative paths begin at.
    pub fn working_dir(&self) -> &str {
        match self.config.text("WorkingDir") {
            "" => "/",
            directory => directory,
        }
    }

    /// Does an instruction that changes nothing but the configuration; `false` for any other.
    pub fn configure(&mut self, step: &Step, scope: &Scope<'_>) -> Result<bool, ImageError> {
        let expand = |stage: &Stage, text: &str| scope.expand(text, &|name| stage.variable(name)).map_err(problem);
        let pairs = |stage: &Stage, list: &[(String, String)]| -> Result<Vec<(String, String)>, ImageError> {
            list.iter().map(|(name, value)| Ok((expand(stage, name)?, expand(stage, value)?))).collect()
        };
        match step {
            Step::Run(_) | Step::Copy(_) | Step::Workdir(_) | Step::Arg(_) => return Ok(false),
            Step::Env(list) => {
                for (name, value) in pairs(self, list)? {
                    self.config.set_variable(&name, &value);
                }
            }
            Step::Label(list) => {
                let labels = pairs(self, list)?;
                self.config.add("Labels", labels.into_iter().map(|(name, value)| (name, Value::String(value))));
            }
            Step::Expose(list) => {
                for text in list {
                    let ports = ports(&expand(self, text)?)?;
                    self.config.add("ExposedPorts", ports.into_iter().map(|port| (port, json!({}))));
                }
            }
            Step::Volume(list) => {
                for text in list {
                    let path = self.absolute(&expand(self, text)?);
                    self.config.add("Volumes", [(path, json!({}))]);
                }
            }
            Step::User(text) => {
                let user = expand(self, text)?;
                self.config.set("User", json!(user));
            }
            Step::StopSignal(text) => {
                let signal = expand(self, text)?;
                signal.parse::<crate::model::units::Signal>().map_err(|error| problem(error.to_string()))?;
                self.config.set("StopSignal", json!(signal));
            }
            Step::Entrypoint(command) => self.config.set_entrypoint(command),
            Step::Cmd(command) => self.config.set_command(command),
            Step::Shell(words) => self.config.set("Shell", json!(words)),
            Step::Healthcheck(check) => self.config.set_healthcheck(check),
            Step::Maintainer(name) => self.config.set_author(name),
            Step::OnBuild(text) => self.config.add_trigger(text),
        }
        Ok(true)
    }

    pub fn absolute(&self, path: &str) -> String {
        match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("{}/{path}", self.working_dir().trim_end_matches('/')),
        }
    }
}

/// The number of the stage that is to be built.
pub fn wanted_stage(spec: &BuildSpec, file: &Dockerfile) -> Result<usize, ImageError> {
    match &spec.target {
        None => Ok(file.stages.len() - 1),
        Some(name) => file.stage(name).ok_or_else(|| problem(format!("the Dockerfile has no stage `{name}`"))),
    }
}

/// An error that an instruction has no better name for.
pub fn problem(text: impl Into<String>) -> ImageError {
    ImageError::Build { problem: text.into() }
}

impl<'a> Builder<'a> {
    pub fn new(
        workshop: Workshop<'a>,
        spec: &'a BuildSpec,
        file: &'a Dockerfile,
        context: &'a Tree,
    ) -> Result<Builder<'a>, ImageError> {
        let scope =
            Scope::new(file.escape, &file.arguments, &spec.args, &workshop.options.platform).map_err(problem)?;
        let (stages, bases, asked) = (RefCell::default(), RefCell::default(), RefCell::default());
        Ok(Builder { workshop, spec, file, context, scope, stages, bases, asked })
    }

    /// Builds the wanted stage; its configuration.
    pub fn build(&self) -> Result<Vec<u8>, ImageError> {
        let mut config = self.stage(wanted_stage(self.spec, self.file)?)?.config.clone();
        self.warn_of_secrets();
        if !self.spec.labels.is_empty() {
            let words: Vec<String> = self.spec.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            config.add("Labels", self.spec.labels.iter().map(|(name, value)| (name.clone(), json!(value))));
            config.record(&format!("LABEL {}", words.join(" ")), &Made::Nothing);
        }
        config.complete();
        Ok(config.to_bytes())
    }

    /// Which secrets had no effect: no command asked for them, nor would one of a stage that is not built.
    fn warn_of_secrets(&self) {
        let (asked, written) = (self.asked.borrow(), self.file.secret_ids());
        if written.iter().any(|id| id.contains('$')) {
            return;
        }
        for id in self.spec.secrets.keys().filter(|id| !asked.contains(*id) && !written.contains(*id)) {
            tracing::warn!("no command of the build asks for the secret `{id}`");
        }
    }

    pub fn into_bases(self) -> BTreeMap<String, Digest> {
        self.bases.into_inner()
    }

    pub(super) fn reuse(&self) -> Reuse {
        if self.spec.no_cache { Reuse::Never } else { Reuse::Allowed }
    }

    /// Builds a stage, once.
    pub(super) fn stage(&self, index: usize) -> Result<Rc<Stage>, ImageError> {
        if let Some(known) = self.stages.borrow().get(&index) {
            return Ok(known.clone());
        }
        let declared = &self.file.stages[index];
        let from = format!("FROM {}", declared.base);
        let mut stage = self.begin(index).map_err(|error| self.at(declared.line, &from, error))?;
        for text in stage.config.take_triggers() {
            let failed = |why| self.at(declared.line, &from, problem(format!("its base wants `{text}`: {why}")));
            let trigger = Instruction { line: declared.line, ..parse_trigger(&text).map_err(failed)? };
            self.perform(&mut stage, &trigger)?;
        }
        for instruction in &declared.instructions {
            self.perform(&mut stage, instruction)?;
        }
        let stage = Rc::new(stage);
        self.stages.borrow_mut().insert(index, stage.clone());
        Ok(stage)
    }

    fn begin(&self, index: usize) -> Result<Stage, ImageError> {
        let declared = &self.file.stages[index];
        let platform = &self.workshop.options.platform;
        if let Some(wanted) = &declared.platform {
            let wanted = self.scope.expand_from(wanted).map_err(problem)?;
            let short = format!("{}/{}", platform.os, platform.architecture);
            if ![short, platform.to_string()].contains(&wanted) {
                return Err(problem(format!(
                    "it is for `{wanted}`, and images are built for this host's `{platform}`"
                )));
            }
        }
        let base = self.scope.expand_from(&declared.base).map_err(problem)?;
        if base == SCRATCH {
            let config = Config::scratch(platform);
            return Ok(Stage { lower: Vec::new(), chain: Vec::new(), config, arguments: Variables::new() });
        }
        let above = self.file.stages[..index].iter().position(|stage| stage.is_called(&base));
        match above {
            Some(above) => {
                let above = self.stage(above)?;
                Ok(Stage { config: above.config.inherited(), arguments: Variables::new(), ..(*above).clone() })
            }
            None => self.image(&base),
        }
    }

    /// An image as something to begin with, or to take files from.
    pub(super) fn image(&self, reference: &str) -> Result<Stage, ImageError> {
        let name = normalize_reference(reference)?;
        let locked = self.workshop.options.bases.as_ref().and_then(|locks| locks.get(&name));
        let source = match locked {
            Some(digest) => pinned(&name, digest),
            None => ImageSource::Reference(name.clone()),
        };
        let store = self.workshop.session.store();
        let image: Image = match (self.spec.pull, store.find(&source)?) {
            (Pull::Missing | Pull::Never, Some(image)) => image,
            _ => ensure(store, &source, self.workshop.options, self.workshop.progress)?,
        };
        if let Some(manifest) = locked.or(image.manifest.as_ref()) {
            self.bases.borrow_mut().insert(name, manifest.clone());
        }
        let bytes = store.configuration(&image.id)?;
        Ok(Stage {
            lower: store.layer_paths(&image),
            chain: image.layers,
            config: Config::of_base(reference, &bytes)?,
            arguments: Variables::new(),
        })
    }

    /// A stage above by name or number, or an image: what `--from` means.
    pub(super) fn files_of(&self, name: &str) -> Result<Rc<Stage>, ImageError> {
        match self.file.stage(name) {
            Some(index) => self.stage(index),
            None => self.image(name).map(Rc::new),
        }
    }

    /// The error of an instruction, with its place.
    fn at(&self, line: usize, text: &str, error: ImageError) -> ImageError {
        match error {
            // That of another stage has its own.
            placed @ ImageError::Instruction { .. } => placed,
            error => ImageError::Instruction {
                file: self.spec.dockerfile.clone(),
                line,
                text: text.to_owned(),
                source: Box::new(error),
            },
        }
    }

    fn perform(&self, stage: &mut Stage, instruction: &Instruction) -> Result<(), ImageError> {
        self.change(stage, instruction).map_err(|error| self.at(instruction.line, &instruction.text, error))
    }

    pub(super) fn told(&self, instruction: &Instruction, cached: bool) {
        let Instruction { line, text, .. } = instruction;
        self.workshop.progress.report(Event::Step { line: *line, instruction: text, cached });
    }

    fn change(&self, stage: &mut Stage, instruction: &Instruction) -> Result<(), ImageError> {
        let mut said = instruction.text.clone();
        match &instruction.step {
            Step::Run(run) => return self.run(stage, instruction, run),
            Step::Copy(copy) => return self.copy(stage, instruction, copy),
            Step::Workdir(path) => {
                let path = self.scope.expand(path, &|name| stage.variable(name)).map_err(problem)?;
                let path = stage.absolute(&path);
                return self.enter(stage, instruction, &path);
            }
            Step::Arg(arguments) => {
                self.declare(stage, arguments)?;
                // What a value is stays out of the image; that there is one is in its history.
                said = said.split('=').next().unwrap_or_default().to_owned();
            }
            step => drop(stage.configure(step, &self.scope)?),
        }
        stage.config.record(&said, &Made::Nothing);
        Ok(())
    }

    fn declare(&self, stage: &mut Stage, arguments: &[Argument]) -> Result<(), ImageError> {
        for argument in arguments {
            let value = self.scope.argument(argument, &|name| stage.variable(name)).map_err(problem)?;
            match value {
                Some(value) => drop(stage.arguments.insert(argument.name.clone(), value)),
                None => drop(stage.arguments.remove(&argument.name)),
            }
        }
        Ok(())
    }
}

/// `80`, `80/udp`, `8000-8005`: each as `PORT/PROTOCOL`.
fn ports(text: &str) -> Result<Vec<String>, ImageError> {
    let wrong = || problem(format!("`{text}` is not a port; write `80`, `53/udp` or `8000-8005`"));
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    let (first, last) = (number(first)?, number(last)?);
    match matches!(protocol, "tcp" | "udp" | "sctp") && first > 0 && first <= last {
        true => Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect()),
        false => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_protocols_and_ranges() {
        assert_eq!(ports("80").unwrap(), ["80/tcp"]);
        assert_eq!(ports("53-54/udp").unwrap(), ["53/udp", "54/udp"]);
        for wrong in ["", "x", "0", "2-1", "80/http", "70000"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }
}
