//! `evenkeel image prune`: removes images that nothing needs, and says what went, why, and how much space that was.
//!
//! Without `--all` those without a name, and contents that no image has. With it every image that is not needed, and
//! what builds keep for the next one. With `--when-full` what `watch` would remove for the sake of space. Needed is what
//! runs or stands still, what is declared by the manifests at hand or by a service, and what there is to go back to: see
//! [`crate::engine::garbage`].

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::filter::{Filter, Filters};
use super::find::{failure, shown};
use crate::cli::by_hand::PATIENCE;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, Output};
use crate::cli::stats;
use crate::engine::host::Host;
use crate::engine::image::catalogue::Entry;
use crate::engine::image::store::gc::Patience;
use crate::engine::image::store::trash;
use crate::model::garbage::{Chosen, Extent, Policy, Thing};
use crate::model::host_config::GcConfig;
use crate::model::id::Digest;
use crate::model::units::Timespan;

#[derive(Debug, Args)]
pub struct PruneArguments {
    /// Also images with a name that nothing needs, and what builds keep for the next one
    #[arg(short, long)]
    all: bool,

    /// As `watch` does it: nothing unless the disk is as full as `high` in `[gc]` of the host file, and then the longest
    /// unused until it is down to `low`
    #[arg(long, conflicts_with_all = ["all", "filters"])]
    when_full: bool,

    /// Only what was not used for this long: 36h, 2w [default with --when-full: `min_age` in `[gc]`]
    #[arg(long, value_name = "AGE")]
    until: Option<Timespan>,

    /// Only these: label=NAME[=VALUE], until=TIME (since they were made) and those of `image ls`; repeatable
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<Filter>,

    /// Do not ask: it never does, an image can be had again
    #[arg(short, long, conflicts_with = "dry_run")]
    force: bool,

    /// Say what would go and leave it
    #[arg(long)]
    dry_run: bool,
}

pub fn run(arguments: &PruneArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let host = context.host()?;
    let desired = context.declared()?;
    let declared = desired.as_ref();
    let lock = host.lock(PATIENCE).map_err(Failure::engine)?;
    let entries = host.images().catalogue().map_err(failure)?;
    let now = SystemTime::now();
    let mut policy = match arguments.when_full {
        true => when_full(&host, &context.host_config()?.0.gc, now)?,
        false => by_hand(arguments, &entries, now)?,
    };
    if let Some(age) = arguments.until {
        policy.unused_for = age.to_duration();
    }
    let names: BTreeMap<&Digest, &Entry> = entries.iter().map(|entry| (&entry.image.id, entry)).collect();
    if arguments.dry_run {
        let chosen = host.garbage(declared, &policy).map_err(Failure::engine)?;
        return told(&chosen, &names, output);
    }
    let removed = host.remove_garbage(declared, &policy, Patience::Wait).map_err(Failure::engine)?;
    let removed = removed.unwrap_or_default();
    host.forget_generations(declared, now).map_err(Failure::engine)?;
    // What has no name any more takes its time to go, and is in nobody's way.
    drop(lock);
    trash::remove(&host.images().removing(), &removed.trash).map_err(failure)?;
    told(&removed.chosen, &names, output)
}

fn by_hand(arguments: &PruneArguments, entries: &[Entry], now: SystemTime) -> Result<Policy, Failure> {
    let extent = if arguments.all { Extent::All } else { Extent::Dangling };
    let mut only = None;
    if !arguments.filters.is_empty() {
        let filters = Filters::new(&arguments.filters, entries)?;
        let taken = entries.iter().filter(|entry| filters.takes(entry) && takes_a_name(entry, &filters));
        only = Some(taken.map(|entry| entry.image.id.clone()).collect());
    }
    Ok(Policy { extent, only, unused_for: Duration::ZERO, now })
}

/// What the host file asks for.
fn when_full(host: &Host, config: &GcConfig, now: SystemTime) -> Result<Policy, Failure> {
    let disk = host.image_disk().map_err(Failure::engine)?;
    Ok(Policy::of_host(config, disk.and_then(|disk| disk.excess(config)), now))
}

fn takes_a_name(entry: &Entry, filters: &Filters) -> bool {
    match entry.is_dangling() {
        true => filters.takes_name(None),
        false => entry.sources.iter().all(|source| filters.takes_name(Some(source))),
    }
}

/// A line for each thing that goes, and the sum.
fn told(chosen: &[Chosen], names: &BTreeMap<&Digest, &Entry>, output: &Output) -> Result<Exit, Failure> {
    for one in chosen {
        match output.format() {
            Format::Text => output.text(&format!("{}: {}\n", what(&one.thing, names), one.why))?,
            Format::Json => output.line(&Line { chosen: one, names: names_of(&one.thing, names) })?,
        }
    }
    let bytes: u64 = chosen.iter().map(|chosen| chosen.bytes).sum();
    match output.format() {
        Format::Text => output.text(&format!("Total reclaimed space: {}\n", stats::bytes(bytes)))?,
        Format::Json => output.line(&json!({ "reclaimed": bytes }))?,
    }
    Ok(Exit::Done)
}

/// A line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    chosen: &'a Chosen,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
}

fn names_of(thing: &Thing, names: &BTreeMap<&Digest, &Entry>) -> Vec<String> {
    let Thing::Image(id) = thing else { return Vec::new() };
    names.get(id).iter().flat_map(|entry| &entry.sources).map(shown).collect()
}

fn what(thing: &Thing, names: &BTreeMap<&Digest, &Entry>) -> String {
    match names_of(thing, names) {
        names if names.is_empty() => thing.to_string(),
        names => format!("{thing} ({})", names.join(", ")),
    }
}
