//! `evenkeel lock`: writes down what every image reference of the manifest stands for, for review in git.
//!
//! Lines that are there stay, unless `--update` asks again; lines that nothing needs go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::image;
use super::locking::{self, Lockable, absent};
use super::output::{Format, Output};
use super::phrase::counted;
use crate::engine::files;
use crate::engine::image::{Options, tag_digest};
use crate::manifest::{self, Loaded};
use crate::model::id::Digest;
use crate::model::image::{ImageSource, normalize_reference};
use crate::model::lock::{Locks, without_digest};

/// How many registries are asked at once.
const AT_ONCE: usize = 16;

#[derive(Debug, Args)]
pub struct LockFileArguments {
    /// A manifest, or a directory of manifests; repeat it to overlay, and the last one has the lock file [default: ./evenkeel.toml, else /etc/evenkeel]
    #[arg(short, long = "file", value_name = "PATH")]
    pub files: Vec<PathBuf>,

    /// Only say whether every image has a line and nothing else does, with exit code 2 where it is not so; asks no registry
    #[arg(long, conflicts_with = "update")]
    check: bool,

    /// Ask again what references stand for: those of the images named, or all
    #[arg(long, value_name = "NAME", num_args = 0..)]
    update: Option<Vec<String>>,
}

/// One line that is another than before.
#[derive(Debug, Serialize)]
struct Change<'a> {
    reference: &'a str,
    old: Option<&'a Digest>,
    new: Option<&'a Digest>,
}

pub fn run(arguments: &LockFileArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let loaded = context.load()?;
    let path = manifest::lock_path(&context.inputs()).ok_or_else(|| {
        Failure::usage("a manifest from standard input has no lock file")
            .hint("name a file or a directory with `-f PATH`")
    })?;
    let known = locking::read(&path)?;
    let wanted = locking::lockable_of(&loaded.desired)?;
    if arguments.check {
        return check(&wanted, known.as_ref(), &path, output);
    }
    let again = match &arguments.update {
        None => BTreeSet::new(),
        Some(names) if names.is_empty() => wanted.keys().cloned().collect(),
        Some(names) => chosen(names, &wanted, &loaded)?,
    };
    let before = known.clone().unwrap_or_default();
    let (kept, asked): (Vec<&String>, Vec<&String>) =
        wanted.keys().partition(|name| before.contains_key(*name) && !again.contains(*name));
    let mut locks: Locks = kept.into_iter().map(|name| (name.clone(), before[name].clone())).collect();
    locks.extend(resolve(&asked, context)?);
    if known.as_ref() != Some(&locks) {
        files::write_shared(&path, manifest::lock_text(&locks).as_bytes()).map_err(Failure::engine)?;
    }
    tell(&changes(&before, &locks), &locks, &path, output)?;
    Ok(Exit::Done)
}

fn check(wanted: &Lockable, known: Option<&Locks>, path: &Path, output: &Output) -> Result<Exit, Failure> {
    let hint = "`evenkeel lock` makes it so";
    let Some(known) = known else {
        return Err(Failure::new(format!("there is no `{}`", path.display())).hint(hint).exit(Exit::Pending));
    };
    let missing = wanted.iter().filter(|(name, _)| !known.contains_key(*name));
    let missing = missing.map(|(name, users)| format!("no line for {}", absent(name, users, known)));
    let idle = known.keys().filter(|name| !wanted.contains_key(*name)).map(|name| format!("nothing needs {name}"));
    let reasons: Vec<String> = missing.chain(idle).collect();
    if !reasons.is_empty() {
        let message = format!("`{}` is not what the manifest needs", path.display());
        return Err(Failure::list(message, reasons).hint(hint).exit(Exit::Pending));
    }
    match output.format() {
        Format::Json => output.document(known)?,
        Format::Text => {
            output.text(&format!("{}: {} locked\n", path.display(), counted(known.len() as u64, "image")))?
        }
    }
    Ok(Exit::Done)
}

/// The references of images that were named as the manifest names them, or as references. A build is named for its bases.
fn chosen(names: &[String], wanted: &Lockable, loaded: &Loaded) -> Result<BTreeSet<String>, Failure> {
    let mut all = BTreeSet::new();
    for word in names {
        let declared = loaded.image_names.iter().find(|(_, name)| name.as_str() == word).map(|(source, _)| source);
        let found: Vec<String> = match declared {
            Some(build @ ImageSource::Build(_)) => {
                let of_build = |(_, users): &(&String, &BTreeSet<String>)| users.contains(&build.to_string());
                wanted.iter().filter(of_build).map(|(name, _)| name.clone()).collect()
            }
            Some(source) => without_digest(source).into_iter().collect(),
            None => normalize_reference(word).into_iter().collect(),
        };
        let found: Vec<String> = found.into_iter().filter(|name| wanted.contains_key(name)).collect();
        if found.is_empty() {
            return Err(Failure::usage(format!("the manifest has no image `{word}` that is locked"))
                .hint("name it as in `[images]`, or by its reference"));
        }
        all.extend(found);
    }
    Ok(all)
}

/// What the references stand for at their registries.
fn resolve(asked: &[&String], context: &Context) -> Result<Locks, Failure> {
    let helper = std::env::current_exe().map_err(|error| Failure::from(error).context("cannot find the own binary"))?;
    let options = context.images(helper)?;
    let (mut locks, mut failures) = (Locks::new(), Vec::new());
    for some in asked.chunks(AT_ONCE) {
        for (name, answer) in ask(some, &options) {
            match answer {
                Ok(digest) => drop(locks.insert(name.clone(), digest)),
                Err(failure) => failures.push(format!("{name}: {}", failure.line())),
            }
        }
    }
    match failures.is_empty() {
        true => Ok(locks),
        false => Err(Failure::list("not every image can be locked, and nothing was written", failures)
            .hint("an image that only this host has is not locked with `pull = \"never\"`")),
    }
}

/// All at once.
fn ask<'a>(names: &[&'a String], options: &Options) -> BTreeMap<&'a String, Result<Digest, Failure>> {
    std::thread::scope(|scope| {
        let ask = |name: &str| tag_digest(&ImageSource::Reference(name.to_owned()), options).map_err(image::failure);
        let threads: Vec<_> = names.iter().map(|name| (*name, scope.spawn(move || ask(name)))).collect();
        let answer = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(|(name, thread)| (name, answer(thread))).collect()
    })
}

fn changes<'a>(known: &'a Locks, locks: &'a Locks) -> Vec<Change<'a>> {
    let names: BTreeSet<&String> = known.keys().chain(locks.keys()).collect();
    let change = |name: &'a String| Change { reference: name, old: known.get(name), new: locks.get(name) };
    names.into_iter().map(change).filter(|change| change.old != change.new).collect()
}

fn tell(changes: &[Change<'_>], locks: &Locks, path: &Path, output: &Output) -> Result<(), Failure> {
    if output.format() == Format::Json {
        return output.document(&changes);
    }
    let mut text = String::new();
    for Change { reference, old, new } in changes {
        text += &match (old, new) {
            (None, Some(new)) => format!("+ {reference}  {new}\n"),
            (Some(old), None) => format!("- {reference}  {old}\n"),
            (Some(old), Some(new)) => format!("~ {reference}  {old} -> {new}\n"),
            (None, None) => continue,
        };
    }
    let count = counted(locks.len() as u64, "image");
    let verb = if changes.is_empty() { "unchanged" } else { "written" };
    output.text(&format!("{text}{}: {count} locked, {verb}\n", path.display()))
}
