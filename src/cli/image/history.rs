//! `evenkeel image history`: what an image was made by, newest first.

use std::time::SystemTime;

use clap::{ArgAction, Args};
use serde::Serialize;

use super::find::{NONE, failure, find};
use super::ls::{age, created_at};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, Output};
use crate::cli::stats;
use crate::cli::table::Table;
use crate::cli::template::columns::{Columns, RowTemplate, heading};
use crate::engine::image::Store;
use crate::engine::image::catalogue::{Entry, HistoryStep};
use crate::model::foreign::tamed;
use crate::model::id::Digest;

#[derive(Debug, Args)]
pub struct HistoryArguments {
    /// `REPOSITORY[:TAG]`, REPOSITORY@DIGEST or the beginning of an id
    #[arg(value_name = "IMAGE")]
    image: String,

    /// Whole instructions and ids
    #[arg(long)]
    no_trunc: bool,

    /// Only the layers, one a line
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,

    /// Sizes and times for people; `--human=false` for bytes and moments
    #[arg(short = 'H', long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_missing_value = "true")]
    human: bool,

    /// As a template says, in Docker's words: '{{.CreatedBy}}', or 'table {{.ID}}\t{{.Size}}' for columns. ID,
    /// CreatedSince, CreatedAt, CreatedBy, Size and Comment are known
    #[arg(long, value_name = "TEMPLATE", conflicts_with_all = ["quiet", "json"])]
    format: Option<RowTemplate<Field>>,
}

/// What a line shows of a step, under Docker's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    CreatedSince,
    CreatedAt,
    CreatedBy,
    Size,
    Comment,
}

impl Columns for Field {
    const ALL: &'static [(Field, &'static str, &'static str)] = &[
        (Field::Id, "ID", "LAYER"),
        (Field::CreatedSince, "CreatedSince", "CREATED"),
        (Field::CreatedAt, "CreatedAt", "CREATED AT"),
        (Field::CreatedBy, "CreatedBy", "CREATED BY"),
        (Field::Size, "Size", "SIZE"),
        (Field::Comment, "Comment", "COMMENT"),
    ];
}

/// One instruction and what it wrote.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    step: &'a HistoryStep,
    layer: Option<&'a Digest>,
    /// Bytes of the files in its layer.
    size: u64,
}

const INSTRUCTION: usize = 60;

pub fn run(arguments: &HistoryArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let store = Store::new(&context.paths.root);
    let entries = store.catalogue().map_err(failure)?;
    let entry = find(&entries, &arguments.image)?.entry();
    let unsaid = unsaid(entry);
    let rows = rows(&store, entry, &unsaid)?;
    if output.format() == Format::Json {
        output.document(&rows)?;
        return Ok(Exit::Done);
    }
    let now = SystemTime::now();
    let cell = |row: &Row<'_>, field| cell(row, field, arguments, now);
    let text = match &arguments.format {
        _ if arguments.quiet => Ok(rows.iter().map(|row| cell(row, Field::Id) + "\n").collect()),
        Some(template) => template.render(&rows, cell),
        None => {
            let created = if arguments.human { Field::CreatedSince } else { Field::CreatedAt };
            let fields = [Field::Id, created, Field::CreatedBy, Field::Size, Field::Comment];
            let mut table = Table::new(&fields.map(heading));
            rows.iter().for_each(|row| table.row(fields.map(|field| cell(row, field)).into()));
            Ok(table.render())
        }
    };
    output.text(&text.map_err(Failure::usage)?)?;
    Ok(Exit::Done)
}

fn cell(row: &Row<'_>, field: Field, arguments: &HistoryArguments, now: SystemTime) -> String {
    let created = || row.step.created.as_deref().and_then(|text| humantime::parse_rfc3339(text).ok());
    match field {
        Field::Id => match row.layer {
            None => NONE.to_owned(),
            Some(layer) if arguments.no_trunc => layer.to_string(),
            Some(layer) => layer.short().to_owned(),
        },
        Field::CreatedSince => age(created(), now),
        Field::CreatedAt => created().map_or_else(|| "N/A".to_owned(), created_at),
        Field::CreatedBy => {
            let words = row.step.created_by.as_deref().unwrap_or_default().split_whitespace();
            let by = words.collect::<Vec<_>>().join(" ");
            tamed(&match by.char_indices().nth(INSTRUCTION) {
                Some((end, _)) if !arguments.no_trunc => format!("{}..", &by[..end]),
                _ => by,
            })
        }
        Field::Size if arguments.human => stats::bytes(row.size),
        Field::Size => row.size.to_string(),
        Field::Comment => tamed(row.step.comment.as_deref().unwrap_or_default()),
    }
}

/// A step for each layer of an image that says nothing of how it was made.
fn unsaid(entry: &Entry) -> Vec<HistoryStep> {
    match entry.description.history.is_empty() {
        true => entry.diff_ids.iter().map(|_| HistoryStep::default()).collect(),
        false => Vec::new(),
    }
}

fn rows<'a>(store: &Store, entry: &'a Entry, unsaid: &'a [HistoryStep]) -> Result<Vec<Row<'a>>, Failure> {
    let mut layers = entry.diff_ids.iter();
    let mut rows = Vec::new();
    for step in entry.description.history.iter().chain(unsaid) {
        let layer = if step.empty_layer { None } else { layers.next() };
        let record = layer.map(|layer| store.layer_record(layer)).transpose().map_err(failure)?.flatten();
        rows.push(Row { step, layer, size: record.map_or(0, |record| record.content_size) });
    }
    rows.reverse();
    Ok(rows)
}
