//! `evenkeel image ls`: the images of this host, a line for each name.

use std::collections::BTreeSet;
use std::time::SystemTime;

use clap::Args;
use serde::Serialize;

use super::filter::{Filter, Filters};
use super::find::{NONE, columns, failure, is_pinned};
use super::users::Users;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, Output};
use crate::cli::table::Table;
use crate::cli::template::columns::{Columns, RowTemplate, heading};
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
    #[arg(short, long = "filter", value_name = "FILTER")]
    filters: Vec<Filter>,

    /// As a template says, in Docker's words: '{{.Repository}}:{{.Tag}}', or 'table {{.ID}}\t{{.Size}}' for columns. ID,
    /// Repository, Tag, Digest, CreatedSince, CreatedAt and Size are known
    #[arg(long, value_name = "TEMPLATE", conflicts_with_all = ["quiet", "json"])]
    format: Option<RowTemplate<Field>>,
}

/// What a line shows of a name and its image, under Docker's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Repository,
    Tag,
    Digest,
    Id,
    CreatedSince,
    CreatedAt,
    Size,
}

impl Columns for Field {
    const ALL: &'static [(Field, &'static str, &'static str)] = &[
        (Field::Repository, "Repository", "REPOSITORY"),
        (Field::Tag, "Tag", "TAG"),
        (Field::Digest, "Digest", "DIGEST"),
        (Field::Id, "ID", "IMAGE ID"),
        (Field::CreatedSince, "CreatedSince", "CREATED"),
        (Field::CreatedAt, "CreatedAt", "CREATED AT"),
        (Field::Size, "Size", "SIZE"),
    ];
}

/// One line: a name and its image, or a layer that builds keep.
struct Line {
    repository: String,
    tag: String,
    digest: Option<String>,
    id: String,
    created: Option<SystemTime>,
    size: String,
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
    let filters = Filters::new(&wanted, &entries)?;
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
            let names =
                chosen.iter().flat_map(|(entry, names)| with_lines(names).into_iter().map(|name| (*entry, name)));
            let names = names.map(|(entry, name)| of_name(entry, name, short(&entry.image.id)));
            let steps = steps.iter().map(|step| of_step(step, short(&step.layer)));
            let lines: Vec<Line> = names.chain(steps).collect();
            let text = match &arguments.format {
                Some(template) => template.render(&lines, |line, field| cell(line, field, now)),
                None => Ok(table(&lines, arguments.digests, now)),
            };
            output.text(&text.map_err(Failure::usage)?)?;
        }
    }
    Ok(Exit::Done)
}

/// The names that are chosen; a dangling image has one line without a name.
fn names<'a>(entry: &'a Entry, filters: &Filters) -> Vec<Option<&'a ImageSource>> {
    match entry.is_dangling() {
        true => Some(None).into_iter().filter(|name| filters.takes_name(*name)).collect(),
        false => entry.sources.iter().map(Some).filter(|name| filters.takes_name(*name)).collect(),
    }
}

/// Those that have a line, one for each repository and tag: one that is pinned to a digest is none of its tag, which may
/// stand for something else by now, and says nothing more beside one of a tag.
fn with_lines<'a>(names: &[Option<&'a ImageSource>]) -> Vec<Option<&'a ImageSource>> {
    let mut shown: Vec<_> = names.iter().map(|name| (name.map(columns), *name)).collect();
    let tagged = shown.iter().filter_map(|(columns, _)| columns.clone().filter(|(_, tag)| tag != NONE));
    let tagged: BTreeSet<String> = tagged.map(|(repository, _)| repository).collect();
    let is_beside_a_tag =
        |columns: &Option<(String, String)>| columns.as_ref().is_some_and(|(name, _)| tagged.contains(name));
    shown.retain(|(columns, name)| !name.is_some_and(is_pinned) || !is_beside_a_tag(columns));
    shown.dedup_by(|(a, _), (b, _)| a == b);
    shown.into_iter().map(|(_, name)| name).collect()
}

fn of_name(entry: &Entry, name: Option<&ImageSource>, id: String) -> Line {
    let none = || NONE.to_owned();
    let (repository, tag) = name.map_or_else(|| (none(), none()), columns);
    let digest = name.and_then(|name| entry.manifests.get(name)).map(Digest::to_string);
    let size = match entry.missing.len() {
        0 => stats::bytes(entry.size),
        missing => format!("{} missing", phrase::counted(missing as u64, "layer")),
    };
    Line { repository, tag, digest, id, created: entry.description.created_at(), size }
}

fn of_step(step: &BuildStep, id: String) -> Line {
    let BuildStep { layer: _, created, size } = step;
    let (repository, tag) = ("<build step>".to_owned(), NONE.to_owned());
    let created = humantime::parse_rfc3339(created).ok();
    Line { repository, tag, digest: None, id, created, size: stats::bytes(*size) }
}

fn table(lines: &[Line], with_digests: bool, now: SystemTime) -> String {
    let digest = with_digests.then_some(Field::Digest);
    let fields: Vec<Field> = [Field::Repository, Field::Tag]
        .into_iter()
        .chain(digest)
        .chain([Field::Id, Field::CreatedSince, Field::Size])
        .collect();
    let mut table = Table::new(&fields.iter().map(|field| heading(*field)).collect::<Vec<_>>());
    for line in lines {
        table.row(fields.iter().map(|field| cell(line, *field, now)).collect());
    }
    table.render()
}

fn cell(line: &Line, field: Field, now: SystemTime) -> String {
    match field {
        Field::Repository => line.repository.clone(),
        Field::Tag => line.tag.clone(),
        Field::Digest => line.digest.clone().unwrap_or_else(|| NONE.to_owned()),
        Field::Id => line.id.clone(),
        Field::CreatedSince => age(line.created, now),
        Field::CreatedAt => line.created.map_or_else(|| "N/A".to_owned(), created_at),
        Field::Size => line.size.clone(),
    }
}

pub fn created_at(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
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
