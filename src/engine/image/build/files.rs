//! Instructions that write files: `RUN`, `COPY`, `ADD`, `WORKDIR`.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use super::cache::{self, Built};
use super::config::Made;
use super::copy::{Devices, Look, Target};
use super::layer;
use super::mounts::Mounts;
use super::sandbox::{self, Ground, Point};
use super::secrets::Secrets;
use super::stage::{Builder, Stage, problem};
use super::tree::{Chosen, Item, Owners, Tree, look, shown};
use crate::engine::container::effective::DEFAULT_PATH;
use crate::engine::image::error::ImageError;
use crate::engine::image::rootfs;
use crate::engine::image::store::session::StagedLayer;
use crate::engine::storage::view::{self, Writable};
use crate::model::build::BuildNetwork;
use crate::model::dockerfile::expand::expand_document;
use crate::model::dockerfile::pattern::Ignore;
use crate::model::dockerfile::{CommandLine, Copy, CopyKind, CopySource, Heredoc, Instruction, Run, RunNetwork};
use crate::model::launch::Identity;
use crate::model::volume::{Access, MissingSource, Mount, Propagation};
use crate::runtime::identity;

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
fn lower(stage: &Stage, place: &Path) -> Result<Vec<PathBuf>, ImageError> {
    for layer in &stage.lower {
        // Once for the whole build: what mounts them later finds them here.
        crate::runtime::layer::attach(layer).map_err(ImageError::file("mount", layer))?;
    }
    if !stage.lower.is_empty() {
        return Ok(stage.lower.clone());
    }
    let empty = place.join("empty");
    if !empty.is_dir() {
        fs::create_dir(&empty).map_err(ImageError::file("make the directory", &empty))?;
    }
    fs::set_permissions(&empty, Permissions::from_mode(0o755)).map_err(ImageError::file("set the mode of", &empty))?;
    Ok(vec![empty])
}

/// Where an instruction writes.
struct Writing<'w> {
    lower: &'w [PathBuf],
    upper: &'w Path,
    place: &'w Path,
}

impl Writing<'_> {
    /// The files of the stage, writable.
    fn target(&self) -> Result<Target, ImageError> {
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

    fn stage_place(&self) -> Result<StagedLayer, ImageError> {
        self.workshop.session.stage()
    }

    /// The layer of these inputs: one that was built before, or what `write` writes.
    fn layer(
        &self,
        stage: &mut Stage,
        instruction: &Instruction,
        inputs: Value,
        write: impl FnOnce(&Writing<'_>) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let session = self.workshop.session;
        let key = cache::key(&json!({ "form": 1, "below": stage.chain, "what": inputs }));
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
                write(&Writing { lower: &lower, upper: &upper, place: &place })?;
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
        self.layer(stage, instruction, inputs, |writing| {
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
        self.layer(stage, instruction, json!({ "directory": path }), |writing| {
            let made = writing.target()?.make_directories(path.as_bytes(), None);
            made.map(drop).map_err(|error| problem(error.to_string()))
        })
    }

    pub(super) fn copy(&self, stage: &mut Stage, instruction: &Instruction, copy: &Copy) -> Result<(), ImageError> {
        let expand = |text: &str| self.scope.expand(text, &|name| stage.variable(name)).map_err(problem);
        let told = |error: io::Error| problem(error.to_string());
        let place = self.stage_place()?;
        let files = Files::of(self, copy.from.as_deref(), &place.tree())?;
        let exclude: Vec<String> = copy.exclude.iter().map(|text| expand(text)).collect::<Result<_, _>>()?;
        let exclude = Ignore::of(exclude.iter().map(String::as_str)).map_err(problem)?;
        let (mut chosen, mut documents) = (Vec::new(), Vec::new());
        for source in &copy.sources {
            match source {
                CopySource::Path(path) => chosen.extend(files.tree().choose(&expand(path)?, &exclude).map_err(told)?),
                CopySource::Document(Heredoc { name, body, expands: false }) => documents.push((name, body.clone())),
                CopySource::Document(Heredoc { name, body, expands: true }) => {
                    let body = expand_document(body, &|name| stage.variable(name)).map_err(problem)?;
                    documents.push((name, body));
                }
            }
        }
        let owner = copy.owner.as_deref().map(&expand).transpose()?;
        let mode = copy.mode.as_deref().map(|text| mode(&expand(text)?)).transpose()?;
        let written = expand(&copy.target)?;
        let target = stage.absolute(&written);
        let is_directory = written.ends_with('/') || matches!(written.as_str(), "." | "..") || written.ends_with("/.");
        if chosen.len() + documents.len() > 1 && !is_directory {
            return Err(problem(format!("several files cannot become one; write the target as `{written}/`")));
        }
        let (kind, owners) = (copy.kind, if owner.is_some() { Owners::Replaced } else { files.owners() });
        let mut parts = Vec::new();
        for one in &chosen {
            let digest = files.tree().contents(&one.items, owners).map_err(told)?;
            parts.push(json!({ "name": shown(&one.name), "directory": one.is_directory, "contents": digest }));
        }
        let inputs = json!({
            "copy": parts, "documents": documents, "unpack": kind == CopyKind::Add, "target": target,
            "owner": owner, "mode": mode, "owners": owners == Owners::Kept,
        });
        let items = || chosen.iter().flat_map(|one| one.items.iter().cloned()).collect::<Vec<Item>>();
        self.layer(stage, instruction, inputs, |writing| {
            let to = writing.target()?;
            let named = owner.as_deref().map(|owner| numbers(&to, owner)).transpose()?;
            let devices = if files.owners() == Owners::Kept { Devices::Copied } else { Devices::Refused };
            let owner = named.or((files.owners() == Owners::Replaced).then_some((0, 0)));
            let copies = Look { owner, mode, devices };
            let into = is_directory || to.is_directory(target.as_bytes());
            let path = |name: &[u8]| match into {
                true => [target.trim_end_matches('/').as_bytes(), b"/", name].concat(),
                false => target.clone().into_bytes(),
            };
            for one in &chosen {
                let archive = if kind == CopyKind::Add { self.unpacked(&files, one)? } else { None };
                match archive {
                    Some(archive) => {
                        let tree =
                            Tree::new(crate::runtime::layer::open(&archive.files()).map_err(told)?, Ignore::default());
                        let whole = tree.choose("/", &Ignore::default()).map_err(told)?;
                        let look = Look { owner: named, mode: None, devices: Devices::Copied };
                        for one in &whole {
                            to.copy(&tree, one, target.as_bytes(), look).map_err(told)?;
                        }
                    }
                    None if one.is_directory => to.copy(files.tree(), one, target.as_bytes(), copies).map_err(told)?,
                    None => to.copy(files.tree(), one, &path(&one.name), copies).map_err(told)?,
                }
            }
            for (name, body) in &documents {
                to.write(&path(name.as_bytes()), body.as_bytes(), copies).map_err(told)?;
            }
            self.check_unchanged(&files, &items())
        })
    }

    /// The layer is remembered under the contents that were read before it was copied.
    fn check_unchanged(&self, files: &Files<'_>, before: &[Item]) -> Result<(), ImageError> {
        let Files::Context(tree) = files else { return Ok(()) };
        let now: io::Result<Vec<Item>> = before.iter().map(|item| tree.again(item)).collect();
        match now.is_ok_and(|now| look(&now) == look(before)) {
            true => Ok(()),
            false => Err(problem("files of the context changed while they were copied; apply again")),
        }
    }

    /// The files of a chosen archive, unpacked by a confined child; `None` if it is none.
    fn unpacked(&self, files: &Files<'_>, chosen: &Chosen) -> Result<Option<StagedLayer>, ImageError> {
        let Some(item) = chosen.items.first().filter(|_| !chosen.is_directory) else { return Ok(None) };
        let failed = |error: io::Error| problem(error.to_string());
        let mut file = files.tree().open_file(item).map_err(failed)?;
        let mut start = Vec::new();
        file.by_ref().take(512).read_to_end(&mut start).map_err(failed)?;
        if !is_archive(&start, &chosen.name, || files.tree().open_file(item)).map_err(problem)? {
            return Ok(None);
        }
        let file = files.tree().open_file(item).map_err(failed)?;
        rootfs::unpack_open_file(&self.workshop, file, &shown(&item.path)).map(|layer| Some(layer.staged))
    }
}

/// Whether a file that begins so is a tar archive.
fn is_archive(start: &[u8], name: &[u8], again: impl FnOnce() -> io::Result<fs::File>) -> Result<bool, String> {
    let is_tar = |block: &[u8]| block.get(257..262) == Some(b"ustar");
    match start {
        [0x1f, 0x8b, ..] => {
            let mut block = Vec::new();
            let read =
                again().and_then(|file| flate2::read::MultiGzDecoder::new(file).take(512).read_to_end(&mut block));
            Ok(read.is_ok() && is_tar(&block))
        }
        // Its contents are for the confined child alone to inflate, so its name decides.
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(name.ends_with(b".tar.zst") || name.ends_with(b".tzst")),
        [b'B', b'Z', b'h', ..] | [0xfd, b'7', b'z', b'X', b'Z', 0, ..] if has_tar_name(name) => {
            Err(format!("`{}` is compressed in a way that is not read; use gzip or zstd, or `COPY` it", shown(name)))
        }
        block => Ok(is_tar(block)),
    }
}

fn has_tar_name(name: &[u8]) -> bool {
    [&b".tar.bz2"[..], b".tar.xz", b".tbz2", b".txz", b".tbz"].iter().any(|end| name.ends_with(end))
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

fn mode(text: &str) -> Result<u32, ImageError> {
    let parsed = text.parse::<crate::model::units::FileMode>();
    parsed.map(|mode| mode.0).map_err(|error| problem(format!("`{text}` is not a mode: {error}")))
}

/// User and group of `--chown`, by the image's own files. A number alone is both.
fn numbers(files: &Target, owner: &str) -> Result<(u32, u32), ImageError> {
    if let Ok(number) = owner.parse() {
        return Ok((number, number));
    }
    let read =
        |path| files.read_accounts(path).map(Option::unwrap_or_default).map_err(|error| problem(error.to_string()));
    let identity = Identity { user: owner.to_owned(), groups: Vec::new() };
    let found = identity::find(&identity, &read("etc/passwd")?, &read("etc/group")?);
    found.map(|numbers| (numbers.uid, numbers.gid)).map_err(|error| problem(error.to_string()))
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
