//! `evenkeel image rm`: takes names from images, and removes an image with its last name.
//!
//! As Docker has it: a name goes and the image stays while it has another; by its identifier an image goes with all its
//! names, unless they are of several repositories.
//!
//! # Decisions
//! `--force` takes names away from an image that a container uses, but the image itself stays until no container
//! needs it: Docker lets a stopped container lose its files, and that is never meant.

use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::json;

use super::find::{failure, shown};
use super::users::Users;
use crate::cli::by_hand::PATIENCE;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, Output};
use crate::engine::image::catalogue::{self, Entry, Meaning};
use crate::engine::image::store::gc::{Patience, Removed};
use crate::engine::image::{ImageError, Store, store::trash};
use crate::model::garbage::{Extent, Policy, Thing};
use crate::model::image::ImageSource;
use crate::model::reference::Reference;

#[derive(Debug, Args)]
pub struct RmArguments {
    /// `REPOSITORY[:TAG]`, REPOSITORY@DIGEST or the beginning of an id
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,

    /// Take all names of an image, also those that containers are declared with; what is not there is no error
    #[arg(short, long)]
    force: bool,

    /// Keep the image when its last name goes: it is dangling then, and `image prune` takes it
    #[arg(long)]
    no_prune: bool,
}

pub fn run(arguments: &RmArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let host = context.host()?;
    // Nobody makes a container of an image between the look and the removal.
    let _lock = host.lock(PATIENCE).map_err(Failure::engine)?;
    let store = host.images();
    let mut failures = Vec::new();
    for word in &arguments.images {
        let entries = store.catalogue().map_err(failure)?;
        match catalogue::find(&entries, word) {
            Err(ImageError::NoImage { .. }) if arguments.force => {
                output.remark(&format!("note: there is no image `{word}`"));
            }
            meant => {
                let removed =
                    meant.map_err(failure).and_then(|meant| remove(store, (word, meant), arguments, context, output));
                failures.extend(removed.err().map(|failure| failure.context(format!("cannot remove `{word}`"))));
            }
        }
    }
    let last = failures.pop();
    for failure in failures {
        // The last one says with which code to exit.
        failure.report(output);
    }
    last.map_or(Ok(Exit::Done), Err)
}

fn remove(
    store: &Store,
    (word, meant): (&str, Meaning<'_>),
    arguments: &RmArguments,
    context: &Context,
    output: &Output,
) -> Result<(), Failure> {
    let users = Users::read(&context.paths)?;
    let (entry, names) = match meant {
        Meaning::Named(entry, name) => (entry, vec![name.clone()]),
        Meaning::Image(entry) => (entry, names(entry, word)),
    };
    if !arguments.force {
        refuse(entry, &names, &users)?;
    }
    let in_use = users.of_image(entry);
    if names.len() < entry.sources.len() || !in_use.is_empty() || arguments.no_prune {
        for name in &names {
            store.remove(name).map_err(failure)?;
            untagged(name, output)?;
        }
        if names.len() == entry.sources.len() && !in_use.is_empty() {
            output.remark(&format!("note: the image stays while {} uses it", in_use.join(", ")));
        }
        return Ok(());
    }
    users.ensure_all_known()?;
    let policy = Policy {
        extent: Extent::All,
        only: Some([entry.image.id.clone()].into()),
        unused_for: Duration::ZERO,
        now: SystemTime::now(),
    };
    let removed = store.collect(&users.needs(), &policy, Patience::Wait).map_err(failure)?.unwrap_or_default();
    trash::remove_behind(&std::env::current_exe()?, &store.removing(), &removed.trash).map_err(failure)?;
    told(&removed, output)
}

/// The names that go with an image: all of them, or those in its repository where it is named as REPOSITORY@DIGEST.
fn names(entry: &Entry, word: &str) -> Vec<ImageSource> {
    let meant = word.parse::<Reference>().ok().filter(|reference| reference.digest.is_some());
    let Some(meant) = meant else { return entry.sources.clone() };
    let is_of_it = |name: &Reference| name.registry == meant.registry && name.repository == meant.repository;
    entry.references().filter(|(_, name)| is_of_it(name)).map(|(source, _)| source.clone()).collect()
}

/// All that is against it, before anything is changed.
fn refuse(entry: &Entry, names: &[ImageSource], users: &Users) -> Result<(), Failure> {
    let mut repositories: Vec<String> = names.iter().map(|name| super::find::columns(name).0).collect();
    repositories.sort();
    repositories.dedup();
    if repositories.len() > 1 {
        return Err(Failure::new(format!("it has names in several repositories: {}", repositories.join(", ")))
            .hint("remove it by its names, or all of them with `--force`"));
    }
    for name in names {
        if let [first, ..] = users.of_name(name).as_slice() {
            return Err(Failure::new(format!("container `{first}` was made of it, by this name")).hint(
                "remove the container first; `--force` takes the name away, and a later apply fetches it again",
            ));
        }
    }
    let is_last = names.len() == entry.sources.len();
    if let ([first, ..], true) = (users.of_image(entry).as_slice(), is_last) {
        return Err(Failure::new(format!("container `{first}` was made of it")).hint(
            "remove the container first; `--force` takes the name away, and the image stays as long as it is used",
        ));
    }
    Ok(())
}

/// What went, a line each.
pub fn told(removed: &Removed, output: &Output) -> Result<(), Failure> {
    removed.sources.iter().try_for_each(|name| untagged(name, output))?;
    for chosen in &removed.chosen {
        let (kind, digest) = match &chosen.thing {
            Thing::Image(id) => ("image", id),
            Thing::Layer(layer) => ("layer", layer),
            Thing::Record(_) | Thing::Step(_) | Thing::Cache(_) | Thing::Blob(_) => continue,
        };
        match output.format() {
            Format::Text => output.text(&format!("Deleted: {digest}\n"))?,
            Format::Json => output.line(&json!({ "deleted": digest, "kind": kind }))?,
        }
    }
    Ok(())
}

fn untagged(name: &ImageSource, output: &Output) -> Result<(), Failure> {
    match output.format() {
        Format::Text => output.text(&format!("Untagged: {}\n", shown(name))),
        Format::Json => output.line(&json!({ "untagged": name })),
    }
}
