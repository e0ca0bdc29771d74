//! Instructions that write files: what they write on, and what becomes of it; `RUN` and `WORKDIR`.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use super::cache::{self, Built};
use super::config::Made;
use super::copy::Target;
use super::layer;
use super::mounts::Mounts;
use super::sandbox::{self, Ground, Point};
use super::secrets::Secrets;
use super::stage::{Builder, Stage, problem};
use super::tree::{Owners, Tree};
use crate::engine::container::effective::DEFAULT_PATH;
use crate::engine::image::error::ImageError;
use crate::engine::image::store::session::StagedLayer;
use crate::engine::storage::view::{self, Writable};
use crate::model::build::BuildNetwork;
use crate::model::dockerfile::pattern::Ignore;
use crate::model::dockerfile::{CommandLine, Heredoc, Instruction, Run, RunNetwork};
use crate::model::volume::{Access, MissingSource, Mount, Propagation};

/// Where the script of a `RUN` is that brings its own interpreter; below /dev, so that the image keeps nothing of it.
const SCRIPTS: &str = "/dev/pipes";

/// Files to take from, and whose they are.
pub enum Files<'a> {
    Context(&'a Tree),
    Stage(Tree),
}

impl<'a> Files<'a> {
    /// `place` is a directory to mount on; nobody sees it covered.
    pub fn of(builder: &Builder<'a>, from: Option<&str>, place: &Path) -> Result<Files<'a>, ImageError> {
        let Some(name) = from else { return Ok(Files::Context(builder.context)) };
        let stage = builder.files_of(name)?;
        let root = view::open(&lower(&stage, place)?, None, place).map_err(ImageError::file("mount on", place))?;
        Ok(Files::Stage(Tree::new(root, Ignore::default())))
    }

    pub fn tree(&self) -> &Tree {
        match self {
            Files::Context(tree) => tree,
            Files::Stage(tree) => tree,
        }
    }

    /// Who owns a file on the host that builds is nothing to the image.
    pub fn owners(&self) -> Owners {
        match self {
            Files::Context(_) => Owners::Replaced,
            Files::Stage(_) => Owners::Kept,
        }
    }
}

/// What to mount for a stage; there is always something.
pub(super) fn lower(stage: &Stage, place: &Path) -> Result<Vec<PathBuf>, ImageError> {
    for layer in &stage.lower {
        // Once for the whole build: what mounts them later finds them here.
        crate::runtime::layer::attach(layer).map_err(ImageError::file("mount", layer))?;
    }
    if !stage.lower.is_empty() {
        return Ok(stage.lower.clone());
    }
    Ok(vec![empty(place)?])
}

/// A layer that has nothing.
fn empty(place: &Path) -> Result<PathBuf, ImageError> {
    let empty = place.join("empty");
    if !empty.is_dir() {
        fs::create_dir(&empty).map_err(ImageError::file("make the directory", &empty))?;
    }
    fs::set_permissions(&empty, Permissions::from_mode(0o755)).map_err(ImageError::file("set the mode of", &empty))?;
    Ok(empty)
}

/// Mode and owner of the root directory.
fn root_look(stage: &Stage) -> Result<Value, ImageError> {
    let Some(layer) = stage.lower.last() else { return Ok(json!([0o755, 0, 0])) };
    let root = crate::runtime::layer::attach(layer).and_then(|root| fs::File::from(root).metadata());
    let root = root.map_err(ImageError::file("look at", layer))?;
    Ok(json!([root.mode() & 0o7777, root.uid(), root.gid()]))
}

/// What an instruction writes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Stage,
    /// Nothing, so that its layer is the same wherever it is put.
    Nothing,
}

/// Where an instruction writes.
pub struct Writing<'w> {
    on: On,
    lower: &'w [PathBuf],
    upper: &'w Path,
    place: &'w Path,
}

impl Writing<'_> {
    /// The files of the stage, or none, writable.
    pub fn target(&self) -> Result<Target, ImageError> {
        if self.on == On::Nothing {
            // Without an overlay: a new directory in its root may become opaque there, as `index` or an older kernel has
            // it, and the layer would hide what it is put on.
            let root = fs::File::open(self.upper).map_err(ImageError::file("open", self.upper))?;
            return Ok(Target::new(root.into()));
        }
        let failed = || ImageError::file("mount on", self.place);
        let work = self.place.join("work");
        fs::create_dir(&work).map_err(failed())?;
        let root = view::open(self.lower, Some(Writable { upper: self.upper, work: &work }), self.place);
        root.map(Target::new).map_err(failed())
    }
}

impl<'a> Builder<'a> {
    pub(super) fn caches(&self) -> PathBuf {
        self.workshop.session.store().caches()
    }

    pub(super) fn stage_place(&self) -> Result<StagedLayer, ImageError> {
        self.workshop.session.stage()
    }

    /// The layer of these inputs: one that was built before, or what `write` writes.
    pub(super) fn layer(
        &self,
        stage: &mut Stage,
        instruction: &Instruction,
        (inputs, on): (Value, On),
        write: impl FnOnce(&Writing<'_>) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let session = self.workshop.session;
        let key = match on {
            On::Stage => json!({ "form": 1, "below": stage.chain, "what": inputs }),
            // The root of a layer is part of it, and looks as the one below.
            On::Nothing => json!({ "form": 2, "root": root_look(stage)?, "what": inputs }),
        };
        let key = cache::key(&key);
        let built = match cache::find(session, &key, self.reuse())? {
            Some(built) => {
                self.told(instruction, true);
                built
            }
            None => {
                self.told(instruction, false);
                let (staged, place) = (session.stage()?, self.stage_place()?);
                let (upper, place) = (staged.tree(), place.tree());
                let lower = lower(stage, &place)?;
                layer::dress_root(&upper, &lower[lower.len() - 1])?;
                write(&Writing { on, lower: &lower, upper: &upper, place: &place })?;
                let layer = layer::finish(staged)?;
                let created = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
                let built = Built { layer: layer.diff_id.clone(), created };
                session.publish(layer, &key, &built)?;
                built
            }
        };
        stage.lower.push(session.store().layer_path(&built.layer));
        stage.config.record(&instruction.text, &Made::Layer { diff_id: &built.layer, created: &built.created });
        stage.chain.push(built.layer);
        Ok(())
    }

    pub(super) fn run(&self, stage: &mut Stage, instruction: &Instruction, run: &Run) -> Result<(), ImageError> {
        let place = self.stage_place()?;
        let mounts = Mounts::find(self, stage, &run.mounts, &place.tree())?;
        let secrets = Secrets::find(self, stage, &run.secrets)?;
        let (arguments, script) = command(&stage.config.shell(), run);
        let network = match run.network {
            None => self.spec.network,
            Some(RunNetwork::Host) => BuildNetwork::Host,
            Some(RunNetwork::None) => BuildNetwork::None,
        };
        let mut environment = BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned())]);
        environment.extend(stage.arguments.clone());
        environment.extend(stage.config.environment());
        let (working_dir, user) = (stage.working_dir().to_owned(), stage.config.text("User").to_owned());
        let mut inputs = json!({
            "run": arguments, "script": script.map(|script| &script.body), "environment": environment,
            "directory": working_dir, "user": user, "network": network, "mounts": mounts.key()?,
        });
        if let Some(key) = secrets.key() {
            inputs["secrets"] = key;
        }
        for (name, value) in self.scope.proxies() {
            environment.entry(name.clone()).or_insert_with(|| value.clone());
        }
        self.layer(stage, instruction, (inputs, On::Stage), |writing| {
            let mut made = mounts.make(&place.tree())?;
            let told = secrets.tell(&place.tree(), self.workshop.options.variable)?;
            made.mounts.extend(told.mounts.iter().cloned());
            environment.extend(told.variables.iter().cloned());
            if let Some(script) = script {
                made.mounts.push(script_mount(script, writing.place)?);
            }
            let command = sandbox::Command {
                arguments,
                environment: environment.into_iter().map(|(name, value)| format!("{name}={value}")).collect(),
                working_dir,
                user,
                network,
                mounts: made.mounts.clone(),
            };
            let mounted = writing.place.join("view");
            fs::create_dir(&mounted).map_err(ImageError::file("make the directory", &mounted))?;
            let view = view::open(writing.lower, None, &mounted).map_err(ImageError::file("mount on", &mounted))?;
            let ground = Ground {
                state_root: self.workshop.session.store().state_root(),
                place: writing.place,
                lower: writing.lower,
                upper: writing.upper,
                view: view.as_fd(),
            };
            let task = sandbox::task(command, &ground).map_err(|error| ImageError::Sandbox(Box::new(error)))?;
            super::run::run(&self.workshop.options.helper, &task, self.workshop.progress)
        })
    }

    pub(super) fn enter(&self, stage: &mut Stage, instruction: &Instruction, path: &str) -> Result<(), ImageError> {
        let path = clean(path);
        stage.config.set("WorkingDir", json!(path));
        let place = self.stage_place()?;
        let place = place.tree();
        let files = view::open(&lower(stage, &place)?, None, &place).map_err(ImageError::file("mount on", &place))?;
        if Target::new(files).is_directory(path.as_bytes()) {
            stage.config.record(&instruction.text, &Made::Nothing);
            return Ok(());
        }
        self.layer(stage, instruction, (json!({ "directory": path }), On::Stage), |writing| {
            let made = writing.target()?.make_directories(path.as_bytes(), None);
            made.map(drop).map_err(|error| problem(error.to_string()))
        })
    }
}

/// The words to execute, and the script that is mounted for them.
fn command<'r>(shell: &[String], run: &'r Run) -> (Vec<String>, Option<&'r Heredoc>) {
    let line = match &run.command {
        CommandLine::Exec(words) => return (words.clone(), None),
        CommandLine::Shell(line) => line,
    };
    let in_shell = |text: String| [shell, &[text]].concat();
    match run.documents.as_slice() {
        [] => (in_shell(line.clone()), None),
        // The here-document is all there is: it is the script.
        [script] if line.split_whitespace().count() == 1 => match script.body.starts_with("#!") {
            true => (vec![format!("{SCRIPTS}/{}", script.name)], Some(script)),
            false => (in_shell(script.body.clone()), None),
        },
        documents => {
            let text =
                documents.iter().fold(line.clone(), |text, Heredoc { name, body, .. }| format!("{text}\n{body}{name}"));
            (in_shell(text + "\n"), None)
        }
    }
}

fn script_mount(script: &Heredoc, place: &Path) -> Result<(String, Mount, Point), ImageError> {
    let source = place.join("script");
    fs::write(&source, &script.body).map_err(ImageError::file("write", &source))?;
    fs::set_permissions(&source, Permissions::from_mode(0o755)).map_err(ImageError::file("write", &source))?;
    let mount = Mount::Bind {
        source,
        access: Access::ReadOnly,
        propagation: Propagation::Rprivate,
        missing: MissingSource::Refuse,
    };
    Ok((format!("{SCRIPTS}/{}", script.name), mount, Point::File))
}

/// Without `.`, `..` and doubled slashes.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_mounted_where_nothing_is_below() {
        let directory = tempfile::tempdir().unwrap();
        let (upper, place) = (directory.path().join("upper"), directory.path().join("nowhere"));
        fs::create_dir_all(upper.join("usr")).unwrap();
        let writing = Writing { on: On::Nothing, lower: &[], upper: &upper, place: &place };
        assert!(writing.target().unwrap().is_directory(b"usr"));
    }
}
