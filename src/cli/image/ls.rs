//! `evenkeel image ls`: the images of this host, a line for each name.

use std::time::SystemTime;

use clap::Args;
use serde::Serialize;

use super::filter::{Filter, Filters};
use super::find::{columns, failure};
use super::users::Users;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, Output};
use crate::cli::table::Table;
use crate::cli::{phrase, stats};
use crate::engine::image::Store;
use crate::engine::image::catalogue::{BuildStep, Entry};
use crate::model::id::Digest;
use crate::model::image::ImageSource;

#[derive(Debug, Args)]
pub struct LsArguments {
    /// Only names that match: REPOSITORY or REPOSITORY:TAG, with wildcards
    #[arg(value_name = "PATTERN")]
    pattern: Option<String>,

    /// Also the layers that builds keep for the next one
    #[arg(short, long)]
    all: bool,

    /// With the digests that the images were pulled by
    #[arg(long)]
    digests: bool,

    /// Only the ids, one a line
    #[arg(short, long)]
    quiet: bool,

    /// Whole ids
    #[arg(long)]
    no_trunc: bool,

    /// dangling=true|false, reference=PATTERN, label=NAME[=VALUE], before=IMAGE, since=IMAGE or until=TIME; repeatable
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<Filter>,
}

/// One image as `--json` shows it.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a Digest,
    names: Vec<&'a ImageSource>,
    repository_digests: Vec<String>,
    created: Option<&'a str>,
    /// Bytes of the files in its layers.
    size: u64,
    dangling: bool,
    labels: &'a std::collections::BTreeMap<String, String>,
    used_by: Vec<String>,
    /// Layers that should be here and are not.
    missing_layers: &'a [Digest],
}

pub fn run(arguments: &LsArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let store = Store::new(&context.paths.root);
    let entries = store.catalogue().map_err(failure)?;
    let now = SystemTime::now();
    let mut wanted = arguments.filters.clone();
    wanted.extend(arguments.pattern.clone().map(Filter::Reference));
    let filters = Filters::new(&wanted, &entries, now)?;
    let chosen: Vec<(&Entry, Vec<Option<&ImageSource>>)> = entries
        .iter()
        .filter(|entry| filters.takes(entry))
        .map(|entry| (entry, names(entry, &filters)))
        .filter(|(_, names)| !names.is_empty())
        .collect();
    let steps = match arguments.all && wanted.is_empty() {
        true => store.build_steps().map_err(failure)?,
        false => Vec::new(),
    };
    let short = |id: &Digest| if arguments.no_trunc { id.to_string() } else { id.short().to_owned() };
    match (output.format(), arguments.quiet) {
        (Format::Json, true) => {
            output.document(&chosen.iter().map(|(entry, _)| &entry.image.id).collect::<Vec<_>>())?
        }
        (Format::Text, true) => {
            output.text(&chosen.iter().map(|(entry, _)| short(&entry.image.id) + "\n").collect::<String>())?;
        }
        (Format::Json, false) => {
            let users = Users::read(&context.paths)?;
            output.document(&chosen.iter().map(|(entry, names)| row(entry, names, &users)).collect::<Vec<_>>())?;
        }
        (Format::Text, false) => {
            let header: &[&str] = match arguments.digests {
                true => &["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"],
                false => &["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"],
            };
            let mut table = Table::new(header);
            for (entry, names) in &chosen {
                for name in names {
                    table.row(cells(entry, *name, arguments.digests, &short(&entry.image.id), now));
                }
            }
            for BuildStep { layer, created, size } in &steps {
                let created = humantime::parse_rfc3339(created).ok();
                let digest = arguments.digests.then(|| "<none>".to_owned());
                let start = ["<build step>".to_owned(), "<none>".to_owned()].into_iter().chain(digest);
                let end = [short(layer), age(created, now), stats::bytes(*size)];
                table.row(start.chain(end).collect());
            }
            output.text(&table.render())?;
        }
    }
    Ok(Exit::Done)
}

/// The names that are shown; a dangling image has one line without a name.
fn names<'a>(entry: &'a Entry, filters: &Filters) -> Vec<Option<&'a ImageSource>> {
    match entry.is_dangling() {
        true => Some(None).into_iter().filter(|name| filters.takes_name(*name)).collect(),
        false => entry.sources.iter().map(Some).filter(|name| filters.takes_name(*name)).collect(),
    }
}

fn cells(entry: &Entry, name: Option<&ImageSource>, digests: bool, id: &str, now: SystemTime) -> Vec<String> {
    let none = || "<none>".to_owned();
    let (repository, tag) = name.map_or_else(|| (none(), none()), columns);
    let digest = name.and_then(|name| entry.manifests.get(name)).map_or_else(none, Digest::to_string);
    let size = match entry.missing.len() {
        0 => stats::bytes(entry.size),
        missing => format!("{} missing", phrase::counted(missing as u64, "layer")),
    };
    let start = [repository, tag].into_iter().chain(digests.then_some(digest));
    start.chain([id.to_owned(), age(entry.description.created_at(), now), size]).collect()
}

/// `3 weeks ago`; images that are the same for the same contents say no time.
pub fn age(created: Option<SystemTime>, now: SystemTime) -> String {
    match created {
        Some(created) => format!("{} ago", phrase::span(now.duration_since(created).unwrap_or_default())),
        None => "N/A".to_owned(),
    }
}

fn row<'a>(entry: &'a Entry, names: &[Option<&'a ImageSource>], users: &Users) -> Row<'a> {
    Row {
        id: &entry.image.id,
        names: names.iter().copied().flatten().collect(),
        repository_digests: entry.repository_digests().into_iter().collect(),
        created: entry.description.created.as_deref(),
        size: entry.size,
        dangling: entry.is_dangling(),
        labels: &entry.image.config.labels,
        used_by: users.of_image(entry),
        missing_layers: &entry.missing,
    }
}
