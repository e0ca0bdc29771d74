//! `evenkeel image build`: an image of a Dockerfile, beside what manifests build.
//!
//! # Decisions
//! * As with `run`, options become a manifest, and its parser reads them: a value means the same in both places.
//! * What was built stays only under the names that it is given, as with Docker. A manifest's `build` is known by what it
//!   says; this one is not, and each call goes through the Dockerfile again: what was run before is not run again.
//! * An archive as the context is refused: whoever has one can unpack it, and sees what is in it.

use std::fs::{self, DirBuilder};
use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::MultiProgress;
use serde_json::json;
use toml::{Table, Value};

use super::find::{failure, shown};
use super::secret::{self, Secret};
use super::tag;
use crate::cli::context::{Context, variable};
use crate::cli::failure::{Exit, Failure};
use crate::cli::layers::Layers;
use crate::cli::output::{Format, Output};
use crate::cli::planning;
use crate::cli::run::declaration::{self, text};
use crate::cli::run::mistakes;
use crate::engine::image::{Progress, Silent, build};
use crate::manifest::{self, Source};
use crate::model::build::BuildSpec;
use crate::model::image::ImageSource;

#[derive(Debug, Args)]
pub struct BuildArguments {
    /// The context: the directory that `COPY` and `ADD` take files from; `-` is none, with the Dockerfile at standard input
    #[arg(value_name = "CONTEXT")]
    context: PathBuf,

    /// A name of the image: `REPOSITORY[:TAG]`; repeatable
    #[arg(short, long = "tag", value_name = "REFERENCE")]
    tags: Vec<String>,

    /// The Dockerfile; `-` is standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// The stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,

    /// A value for an `ARG`; without one it is passed on from here; repeatable
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    arguments: Vec<String>,

    /// What `RUN --mount=type=secret` may ask for: `id=ID,src=FILE` or `id=ID,env=NAME`; nothing of it is kept; repeatable
    #[arg(long = "secret", value_name = "id=ID,..", value_parser = secret::parse)]
    secrets: Vec<Secret>,

    /// A label of the image, which wins over one of the Dockerfile; repeatable
    #[arg(long = "label", value_name = "KEY[=VALUE]")]
    labels: Vec<String>,

    /// What a `RUN` reaches that says nothing itself: host or none [default: host]
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,

    /// Run every instruction, whatever was run before
    #[arg(long)]
    no_cache: bool,

    /// Ask the registries of the bases; otherwise those that are here are taken
    #[arg(long)]
    pull: bool,

    /// Write the id of the image to this file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,

    /// Of the image; only this host's own can be built
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,

    /// Only print the id
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(arguments: &BuildArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    declaration::check_platform(arguments.platform.as_deref())?;
    let names: Vec<ImageSource> = arguments.tags.iter().map(|text| tag::name(text)).collect::<Result<_, _>>()?;
    let typed = Typed::read(arguments)?;
    let spec = spec(arguments, typed.as_ref())?;
    let progress: Box<dyn Progress + Send> = match (output.format(), arguments.quiet) {
        (Format::Text, false) => Box::new(Layers::among(&MultiProgress::new())),
        _ => Box::new(Silent),
    };
    let host = context.host()?.report_images_to(progress);
    let image = build::build(host.images(), &spec, &names, host.image_tools()).map_err(failure)?;
    if let Some(path) = &arguments.iidfile {
        let written = fs::write(path, image.id.to_string());
        written.map_err(|error| Failure::from(error).context(format!("cannot write `{}`", path.display())))?;
    }
    match output.format() {
        Format::Json => {
            let names: Vec<String> = names.iter().map(shown).collect();
            output.document(&json!({ "id": image.id, "names": names }))?;
        }
        Format::Text => output.text(&format!("{}\n", image.id))?,
    }
    Ok(Exit::Done)
}

/// What the options say, as a manifest would.
fn spec(arguments: &BuildArguments, typed: Option<&Typed>) -> Result<BuildSpec, Failure> {
    let BuildArguments { context, file, target, network, no_cache, pull, .. } = arguments;
    let path = |path: &Path| text(&path.to_string_lossy());
    let mut table = Table::new();
    table.insert("context".into(), path(typed.and_then(|typed| typed.context.as_deref()).unwrap_or(context)));
    if let Some(file) = typed.map(|typed| &typed.dockerfile).or(file.as_ref()) {
        table.insert("dockerfile".into(), path(&std::path::absolute(file)?));
    }
    for (key, word) in [("target", target), ("network", network)] {
        table.extend(word.iter().map(|word| (key.to_owned(), text(word))));
    }
    for (key, given) in [("no_cache", no_cache), ("pull", pull)] {
        table.extend(given.then(|| (key.to_owned(), Value::Boolean(true))));
    }
    table.insert("args".into(), pairs(&arguments.arguments, variable));
    table.insert("labels".into(), pairs(&arguments.labels, |_| Some(String::new())));
    let secrets = arguments.secrets.iter().map(|secret| Ok((secret.id.clone(), secret.to_value()?)));
    table.insert("secrets".into(), Value::Table(secrets.collect::<Result<_, Failure>>()?));

    let image = Table::from_iter([("build".to_owned(), Value::Table(table))]);
    let images = Table::from_iter([("image".to_owned(), Value::Table(image))]);
    let project = ("project".to_owned(), text(declaration::PROJECT));
    let manifest = Table::from_iter([project, ("images".to_owned(), Value::Table(images))]);
    let source = Source { path: "evenkeel image build".into(), text: toml::to_string(&manifest)? };
    let loaded = manifest::load_text(source.clone(), &variable).map_err(|problems| {
        match problems.located().iter().any(|problem| problem.file.as_deref() == Some(&source.path)) {
            true => mistakes::explain(&problems, &source.path, &source.text),
            false => Failure::dockerfile_problems(problems),
        }
    })?;
    let built = loaded.desired.images.into_keys().find_map(|source| match source {
        ImageSource::Build(spec) => Some(*spec),
        _ => None,
    });
    // The manifest declares nothing else.
    built.ok_or_else(|| Failure::new("the options declare no build"))
}

/// `NAME=VALUE`s; `missing` knows the value of a NAME alone, or leaves it out.
fn pairs(written: &[String], missing: impl Fn(&str) -> Option<String>) -> Value {
    let pair = |entry: &String| match entry.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), text(value))),
        None => missing(entry).map(|value| (entry.clone(), text(&value))),
    };
    Value::Table(written.iter().filter_map(pair).collect())
}

/// A Dockerfile that came through standard input, on the disk while it is used.
struct Typed {
    directory: PathBuf,
    dockerfile: PathBuf,
    /// An empty one, where none was named.
    context: Option<PathBuf>,
}

impl Typed {
    fn read(arguments: &BuildArguments) -> Result<Option<Typed>, Failure> {
        let is_stdin = |path: &Path| path == Path::new("-");
        let without_context = is_stdin(&arguments.context);
        match (&arguments.file, without_context) {
            (Some(file), true) if !is_stdin(file) => {
                return Err(Failure::usage(
                    "`-` as the context is a Dockerfile at standard input, and `--file` names one",
                )
                .hint("name the directory that `COPY` takes files from; an empty one if there are none"));
            }
            (Some(file), false) if !is_stdin(file) => return Ok(None),
            (None, false) => return Ok(None),
            _ => {}
        }
        let mut stdin = io::stdin();
        if stdin.is_terminal() {
            return Err(Failure::usage("a Dockerfile is not typed").hint("redirect standard input: `< Dockerfile`"));
        }
        let mut bytes = Vec::new();
        stdin.read_to_end(&mut bytes)?;
        if is_archive(&bytes) {
            return Err(Failure::usage("standard input is an archive, expected a Dockerfile")
                .hint("unpack it, and name the directory: `mkdir context && tar -C context -x`"));
        }
        let directory = std::env::temp_dir().join(format!("evenkeel-build-{:016x}", planning::seed()));
        let cannot = |error| Failure::from(error).context(format!("cannot write below `{}`", directory.display()));
        let typed = |context| Typed { dockerfile: directory.join("Dockerfile"), context, directory: directory.clone() };
        // Nobody else may have put it there: it is made, or it is an error.
        DirBuilder::new().mode(0o700).create(&directory).map_err(cannot)?;
        let typed = typed(without_context.then(|| directory.join("context")));
        fs::write(&typed.dockerfile, bytes).map_err(cannot)?;
        if let Some(context) = &typed.context {
            fs::create_dir(context).map_err(cannot)?;
        }
        Ok(Some(typed))
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        // A file in the directory for such files: what matters is said already.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// By the first bytes of gzip, zstd, bzip2 and xz, and by tar's word for itself (POSIX pax, ustar interchange format).
fn is_archive(bytes: &[u8]) -> bool {
    let magics: [&[u8]; 4] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ"];
    magics.iter().any(|magic| bytes.starts_with(magic)) || bytes.get(257..262) == Some(b"ustar")
}
