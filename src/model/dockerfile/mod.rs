//! Dockerfiles: the text that says how an image is built, as data.
//!
//! ```text
//! text ── lines ──> logical lines with places ── instruction ──> stages of steps
//! ```
//!
//! * `lines`: directives, comments, continuations, here-documents. `words`: how arguments are separated.
//! * `instruction`: one line becomes one [`Step`]; `flags` are the words in front that begin with two hyphens.
//! * `files` reads `COPY` and `ADD`, `mount` the mounts of a `RUN`. [`chmod`]: modes as `--chmod` has them.
//! * [`expand`]: variables, which only a build knows. [`pattern`]: what `.dockerignore` leaves out.
//!
//! The language is that of the Dockerfile reference, with BuildKit's additions where a build here can do what they
//! say. What it cannot is an error with its place, never silence. The `# syntax=` line names a program that would
//! read the file in BuildKit; it is tolerated, since here there is one reader.

pub mod chmod;
pub mod expand;
mod files;
mod flags;
mod instruction;
mod lines;
mod mount;
pub mod pattern;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeSet;
use std::ops::Range;

pub use files::names_a_user;
pub use instruction::parse_trigger;
pub use lines::Heredoc;

/// A file that was read whole. Every `COPY --from` that names a stage names an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// What joins lines and takes a character's meaning away: `\` or `` ` ``.
    pub escape: char,
    /// The `ARG`s before the first `FROM`: known to every `FROM`.
    pub arguments: Vec<Argument>,
    /// In the order of the text; at least one.
    pub stages: Vec<Stage>,
}

/// A `FROM` and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    pub line: usize,
    /// Lower case: names of stages know no case.
    pub name: Option<String>,
    /// An earlier stage, `scratch` or a reference, with its variables.
    pub base: String,
    /// Where the base stands in the line.
    base_place: Range<usize>,
    /// `os/architecture[/variant]`, with its variables.
    pub platform: Option<String>,
    pub instructions: Vec<Instruction>,
}

/// One line of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Counted from 1.
    pub line: usize,
    /// As it was written, continuations joined.
    pub text: String,
    pub step: Step,
}

/// `NAME` or `NAME=default`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    pub name: String,
    pub default: Option<String>,
}

/// What an instruction asks for. Texts hold their variables still, except where the reference leaves them to a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Arg(Vec<Argument>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Run(Run),
    Copy(Copy),
    Workdir(String),
    User(String),
    Expose(Vec<String>),
    Volume(Vec<String>),
    Entrypoint(CommandLine),
    Cmd(CommandLine),
    Shell(Vec<String>),
    StopSignal(String),
    Healthcheck(Healthcheck),
    Maintainer(String),
    /// An instruction for whoever builds on this image.
    OnBuild(String),
}

/// Shell or exec form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    Shell(String),
    Exec(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub command: CommandLine,
    /// The here-documents of the line. One that is the whole command is the script to run.
    pub documents: Vec<Heredoc>,
    pub mounts: Vec<RunMount>,
    pub secrets: Vec<RunSecret>,
    /// `None` leaves it to the build.
    pub network: Option<RunNetwork>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunNetwork {
    None,
    Host,
}

/// Something that one `RUN` sees beside the image's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunMount {
    pub target: String,
    pub kind: RunMountKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunMountKind {
    /// Files of the context, of a stage or of an image. What is written to them is dropped.
    Bind {
        from: Option<String>,
        source: String,
        writable: bool,
    },
    /// A directory that outlives the build.
    Cache {
        id: String,
        read_only: bool,
        sharing: Sharing,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    Tmpfs {
        size: Option<u64>,
    },
}

/// What only this command may know: nothing of it gets into the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSecret {
    pub id: String,
    /// The file that it is in meanwhile; `None` where a variable alone was asked for.
    pub target: Option<String>,
    /// The variable that has it.
    pub variable: Option<String>,
    /// Whether the command makes no sense without it.
    pub required: bool,
    /// Of the file.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What several builds do that have one cache directory at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    Shared,
    Locked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyKind {
    Copy,
    /// Also unpacks local tar archives.
    Add,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    pub kind: CopyKind,
    /// A stage by name or number, or an image. `None` is the context.
    pub from: Option<String>,
    pub sources: Vec<CopySource>,
    pub target: String,
    pub owner: Option<String>,
    pub mode: Option<String>,
    pub exclude: Vec<String>,
    /// Whether the files are a layer that is the same on whatever is below (`--link`).
    pub is_linked: bool,
    /// Whether the directories of a source are kept, from its `/./` on or all (`--parents`).
    pub keeps_parents: bool,
    /// Of what is fetched; there is one if something is.
    pub checksum: Option<String>,
    /// `None` for what goes without saying: local archives are unpacked by `ADD`, fetched ones are not.
    pub unpacks: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    Path(String),
    /// Fetched from another host: the only source.
    Url(String),
    Document(Heredoc),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// `None` for `HEALTHCHECK NONE`.
    pub command: Option<CommandLine>,
    /// Nanoseconds, as an image's configuration has them; 0 where nothing is said.
    pub interval: i64,
    pub timeout: i64,
    pub start_period: i64,
    pub start_interval: i64,
    pub retries: u32,
}

/// What is wrong and where: bytes of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    pub place: Range<usize>,
    pub message: String,
    /// What was expected there.
    pub expected: String,
}

/// Reads a whole file; all its errors at once.
pub fn parse(text: &str) -> Result<Dockerfile, Vec<SyntaxError>> {
    let mut errors = Vec::new();
    let (escape, lines) = lines::logical_lines(text, &mut errors);
    let mut file = Dockerfile { escape, arguments: Vec::new(), stages: Vec::new() };
    for line in &lines {
        match instruction::parse_line(line, escape) {
            Ok(instruction::Parsed::From(stage)) => {
                if let Err(message) = check_base(&file, &stage.base) {
                    errors.push(line.error(stage.base_place.clone(), message, "expected a stage above or an image"));
                }
                if let Some(name) =
                    stage.name.as_ref().filter(|name| file.stages.iter().any(|known| known.is_called(name)))
                {
                    let message = format!("the stage `{name}` is defined twice");
                    errors.push(line.error(0..line.text.len(), message, "choose another name"));
                }
                file.stages.push(stage);
            }
            Ok(instruction::Parsed::Step(step)) => {
                for name in sources(&step) {
                    if let Err(message) = check_source(&file, name) {
                        errors.push(line.error(0..line.text.len(), message, "expected a stage above or an image"));
                    }
                }
                let instruction = Instruction { line: line.number, text: line.text.clone(), step };
                match (file.stages.last_mut(), instruction.step) {
                    (Some(stage), step) => stage.instructions.push(Instruction { step, ..instruction }),
                    (None, Step::Arg(arguments)) => file.arguments.extend(arguments),
                    (None, _) => {
                        let message = "only `ARG` may stand before the first `FROM`";
                        errors.push(line.error(0..line.keyword_end(), message, "expected `FROM`"));
                    }
                }
            }
            Err(error) => errors.push(error),
        }
    }
    if file.stages.is_empty() && errors.is_empty() {
        let message = "there is no `FROM`: nothing to build".to_owned();
        errors.push(SyntaxError { place: 0..text.len().min(1), message, expected: "expected `FROM IMAGE`".into() });
    }
    for error in &mut errors {
        error.place = within(text, &error.place);
    }
    errors.sort_by_key(|error| error.place.start);
    if errors.is_empty() { Ok(file) } else { Err(errors) }
}

/// The place with whole characters, and not beyond the end: what is missing at the end of a line has its place one byte
/// behind it.
fn within(text: &str, place: &Range<usize>) -> Range<usize> {
    let mut start = place.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = place.end.clamp(start, text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

/// The base that is nothing.
pub const SCRATCH: &str = "scratch";

impl Stage {
    /// Names of stages know no case.
    pub fn is_called(&self, name: &str) -> bool {
        self.name.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(name))
    }
}

impl RunMount {
    /// The stage or image that it shows.
    pub fn from(&self) -> Option<&str> {
        match &self.kind {
            RunMountKind::Bind { from, .. } => from.as_deref(),
            RunMountKind::Cache { .. } | RunMountKind::Tmpfs { .. } => None,
        }
    }
}

impl Dockerfile {
    /// A stage by name, in any case, or by number.
    pub fn stage(&self, name: &str) -> Option<usize> {
        let named = self.stages.iter().position(|stage| stage.is_called(name));
        named.or_else(|| name.parse().ok().filter(|number| *number < self.stages.len()))
    }

    /// The ids of all secrets that the commands of this text ask for, triggers among them, with their variables.
    pub fn secret_ids(&self) -> BTreeSet<String> {
        let ids = |step: &Step| match step {
            Step::Run(run) => run.secrets.iter().map(|secret| secret.id.clone()).collect(),
            _ => Vec::new(),
        };
        let steps = self.stages.iter().flat_map(|stage| &stage.instructions);
        let all = steps.flat_map(|instruction| match &instruction.step {
            // What cannot be read is an error of who builds on it.
            Step::OnBuild(text) => parse_trigger(text).map_or(Vec::new(), |trigger| ids(&trigger.step)),
            step => ids(step),
        });
        all.collect()
    }

    /// Whether a stage begins with an image, which may have triggers that nobody sees here.
    pub fn has_bases(&self) -> bool {
        let is_image = |(at, stage): (usize, &Stage)| {
            stage.base != SCRATCH && !self.stages[..at].iter().any(|above| above.is_called(&stage.base))
        };
        self.stages.iter().enumerate().any(is_image)
    }
}

/// Names of stages and images that a step takes files from.
fn sources(step: &Step) -> Vec<&str> {
    match step {
        Step::Copy(copy) => copy.from.iter().map(String::as_str).collect(),
        Step::Run(run) => run.mounts.iter().filter_map(RunMount::from).collect(),
        _ => Vec::new(),
    }
}

fn check_base(file: &Dockerfile, base: &str) -> Result<(), String> {
    let known = base.contains('$') || base == SCRATCH || file.stages.iter().any(|stage| stage.is_called(base));
    if known { Ok(()) } else { check_reference(base) }
}

fn check_source(file: &Dockerfile, name: &str) -> Result<(), String> {
    let current = file.stages.len().saturating_sub(1);
    match (file.stage(name), name.parse::<usize>()) {
        (Some(stage), _) if stage < current => Ok(()),
        (Some(_), _) | (None, Ok(_)) => Err(format!("`{name}` is not a stage above this one")),
        (None, Err(_)) => check_reference(name),
    }
}

fn check_reference(text: &str) -> Result<(), String> {
    let parsed = text.parse::<super::reference::Reference>();
    parsed.map(drop).map_err(|error| format!("`{text}` is not an image reference: {error}"))
}
