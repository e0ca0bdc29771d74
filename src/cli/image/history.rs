//! `evenkeel image history`: what an image was made by, newest first.

use std::time::SystemTime;

use clap::Args;
use serde::Serialize;

use super::find::{failure, find};
use super::ls::age;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::foreign::tamed;
use crate::cli::output::{Format, Output};
use crate::cli::stats;
use crate::cli::table::Table;
use crate::engine::image::Store;
use crate::engine::image::catalogue::{Entry, HistoryStep};
use crate::model::id::Digest;

#[derive(Debug, Args)]
pub struct HistoryArguments {
    /// `REPOSITORY[:TAG]`, REPOSITORY@DIGEST or the beginning of an id
    #[arg(value_name = "IMAGE")]
    image: String,

    /// Whole instructions
    #[arg(long)]
    no_trunc: bool,
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
    let mut table = Table::new(&["LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    for row in &rows {
        let by = row.step.created_by.as_deref().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let by = match by.char_indices().nth(INSTRUCTION) {
            Some((end, _)) if !arguments.no_trunc => format!("{}..", &by[..end]),
            _ => by,
        };
        let comment = row.step.comment.as_deref().unwrap_or_default();
        let created = row.step.created.as_deref().and_then(|text| humantime::parse_rfc3339(text).ok());
        table.row(vec![
            row.layer.map_or("<none>", Digest::short).to_owned(),
            age(created, now),
            tamed(&by),
            stats::bytes(row.size),
            tamed(comment),
        ]);
    }
    output.text(&table.render())?;
    Ok(Exit::Done)
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
