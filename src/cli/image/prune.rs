//! `evenkeel image prune`: removes images that nothing needs, and says what went, why, and how much space that was.
//!
//! Without `--all` those without a name, and contents that no image has. With it every image that no container was made
//! of or is declared with, and what builds keep for the next one. An image that a container uses, running or not, never
//! goes.

use std::collections::BTreeMap;
use std::time::SystemTime;

use clap::Args;
use serde_json::json;

use super::filter::{Filter, Filters};
use super::find::failure;
use super::rm::told;
use super::users::Users;
use crate::cli::by_hand::PATIENCE;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, Output};
use crate::cli::stats;
use crate::engine::image::Store;
use crate::engine::image::catalogue::Entry;
use crate::engine::image::store::gc::BuildCache;
use crate::engine::image::store::trash;
use crate::model::id::Digest;

#[derive(Debug, Args)]
pub struct PruneArguments {
    /// Also images with a name that no container uses or is declared with, and what builds keep for the next one
    #[arg(short, long)]
    all: bool,

    /// Only these: label=NAME[=VALUE], until=TIME and those of `image ls`; repeatable
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<Filter>,

    /// Say what would go and leave it
    #[arg(long)]
    dry_run: bool,
}

pub fn run(arguments: &PruneArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let host = context.host()?;
    let _lock = host.lock(PATIENCE).map_err(Failure::engine)?;
    let store = Store::new(&context.paths.root);
    let entries = store.catalogue().map_err(failure)?;
    let users = Users::read(&context.paths)?;
    users.ensure_all_known()?;
    let filters = Filters::new(&arguments.filters, &entries, SystemTime::now())?;
    let chosen = entries.iter().filter(|entry| filters.takes(entry) && takes_a_name(entry, &filters));
    let going: BTreeMap<&Digest, &str> =
        chosen.filter_map(|entry| Some((&entry.image.id, why(entry, &users, arguments.all)?))).collect();
    for (id, why) in &going {
        match output.format() {
            Format::Text => output.text(&format!("{}: {why}\n", id.short()))?,
            Format::Json => output.line(&json!({ "id": id, "why": why }))?,
        }
    }
    if arguments.dry_run {
        return Ok(Exit::Done);
    }
    let builds = if arguments.all && arguments.filters.is_empty() { BuildCache::Remove } else { BuildCache::Keep };
    let removed = store.remove_where(|image| going.contains_key(&image.id), builds).map_err(failure)?;
    told(&removed, output)?;
    trash::remove(&removed.trash).map_err(failure)?;
    match output.format() {
        Format::Text => output.text(&format!("Total reclaimed space: {}\n", stats::bytes(removed.bytes)))?,
        Format::Json => output.line(&json!({ "reclaimed": removed.bytes }))?,
    }
    Ok(Exit::Done)
}

fn takes_a_name(entry: &Entry, filters: &Filters) -> bool {
    match entry.is_dangling() {
        true => filters.takes_name(None),
        false => entry.sources.iter().all(|source| filters.takes_name(Some(source))),
    }
}

/// Why an image goes, if it does.
fn why(entry: &Entry, users: &Users, all: bool) -> Option<&'static str> {
    let is_used = !users.of_image(entry).is_empty() || entry.sources.iter().any(|name| !users.of_name(name).is_empty());
    match (is_used, entry.is_dangling(), all) {
        (true, _, _) | (false, false, false) => None,
        (false, true, _) => Some("it has no name and no container uses it"),
        (false, false, true) => Some("no container uses it or is declared with it"),
    }
}
