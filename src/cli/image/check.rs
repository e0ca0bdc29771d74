//! `evenkeel image check`: whether the layers of images are what they were when they were unpacked. What is looked at, and
//! what is not: [`crate::engine::image::check`].
//!
//! The exit code is 1 as long as something is damaged. With `--repair` damaged layers are made again, of what is left of them
//! or of what their images came from; containers keep what they wrote, and those that run go on with the files that they have
//! until they are restarted. A layer that is a directory is repaired when nothing runs on it.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde::Serialize;

use super::find::{failure, find, shown};
use super::told;
use super::users::running_on;
use crate::cli::by_hand::{self, PATIENCE};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, Output};
use crate::engine::host::Host;
use crate::engine::image::catalogue::Entry;
use crate::engine::image::check::{Found, Mending};
use crate::engine::image::store::session::Form;
use crate::model::id::Digest;
use crate::monitor::protocol::chain;

#[derive(Debug, Args)]
pub struct CheckArguments {
    /// `REPOSITORY[:TAG]`, REPOSITORY@DIGEST or the beginning of an id [default: every layer of this host]
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,

    /// Make damaged layers again; needs the registry or the file that the image came from, unless enough is left
    #[arg(long)]
    repair: bool,
}

/// A layer or a document.
#[derive(Serialize)]
struct Row {
    digest: Digest,
    kind: &'static str,
    /// Names or identifiers of the images that have it.
    images: Vec<String>,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    Damaged,
    Repaired,
}

pub fn run(arguments: &CheckArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let host = context.host()?.report_images_to(told::progress(output));
    let entries = host.images().catalogue().map_err(failure)?;
    let chosen: Vec<&Entry> = match arguments.images.is_empty() {
        true => entries.iter().collect(),
        false => {
            let found = arguments.images.iter().map(|word| Ok(find(&entries, word)?.entry()));
            found.collect::<Result<_, Failure>>()?
        }
    };
    let mut users: BTreeMap<&Digest, Vec<&Entry>> = BTreeMap::new();
    for entry in &chosen {
        entry.image.layers.iter().collect::<BTreeSet<_>>().into_iter().for_each(|layer| {
            users.entry(layer).or_default().push(entry);
        });
    }
    let all = host.images().layers().map_err(failure)?;
    if arguments.images.is_empty() {
        all.iter().for_each(|layer| _ = users.entry(layer).or_default());
    }
    let mut rows = Vec::new();
    for (layer, users) in users {
        let row = match arguments.repair && host.images().layer_form(layer) == Some(Form::Directory) {
            true => directory_row(&host, layer, &users, &entries)?,
            false => layer_row(&host, layer, &users, arguments.repair)?,
        };
        tell(&row, output)?;
        rows.push(row);
    }
    for digest in host.images().damaged_documents().map_err(failure)? {
        let has_it = |entry: &&&Entry| entry.image.id == digest || entry.image.manifest.as_ref() == Some(&digest);
        let images: Vec<String> = chosen.iter().filter(has_it).map(|entry| name(entry)).collect();
        if images.is_empty() && !arguments.images.is_empty() {
            continue;
        }
        let problem = Some("it is not what its digest says: remove the image and fetch it again".to_owned());
        let row = Row { digest, kind: "document", images, state: State::Damaged, problem };
        tell(&row, output)?;
        rows.push(row);
    }
    conclude(&rows, arguments.repair, output)
}

/// As [`layer_row`] with repair, of a layer that is a directory: who runs on it would lose the files that take others'
/// places, since an overlay does not hold what lies below it. The lock keeps others from starting on it meanwhile.
fn directory_row(host: &Host, layer: &Digest, users: &[&Entry], all: &[Entry]) -> Result<Row, Failure> {
    let _lock = host.lock(PATIENCE).map_err(Failure::engine)?;
    let actual = by_hand::observe(host)?;
    let running = running_on(layer, host.images(), &actual, all)?;
    let row = layer_row(host, layer, users, running.is_empty())?;
    let problem = row.problem.map(|why| match running.is_empty() {
        true => why,
        false => format!("{why}; stop what may run on it, and repair it then: {}", running.join(", ")),
    });
    Ok(Row { problem, ..row })
}

/// Looks at a layer, and repairs it where that is wanted and can be done.
fn layer_row(host: &Host, layer: &Digest, users: &[&Entry], repair: bool) -> Result<Row, Failure> {
    let mending = if repair { Mending::Mend } else { Mending::Leave };
    let (mut state, mut problem) = match host.check_layer(layer, mending).map_err(Failure::engine)? {
        Found::Whole => (State::Ok, None),
        Found::Mended(why) => (State::Repaired, Some(why)),
        Found::Damaged(why) => (State::Damaged, Some(why)),
    };
    if repair && state == State::Damaged {
        let damaged = BTreeSet::from([layer.clone()]);
        for entry in users {
            match host.restore_image(&entry.image.id, &damaged) {
                Ok(()) => {
                    state = State::Repaired;
                    break;
                }
                Err(error) => {
                    let next = error.hint().map_or_else(String::new, |hint| format!("; {hint}"));
                    problem = problem.map(|why| format!("{why}; {}{next}", chain(&error)));
                }
            }
        }
    }
    let images = users.iter().map(|entry| name(entry)).collect();
    Ok(Row { digest: layer.clone(), kind: "layer", images, state, problem })
}

fn name(entry: &Entry) -> String {
    entry.sources.first().map_or_else(|| entry.image.id.short().to_owned(), shown)
}

fn tell(row: &Row, output: &Output) -> Result<(), Failure> {
    if output.format() == Format::Json {
        return Ok(());
    }
    let state = match row.state {
        State::Ok => "ok",
        State::Damaged => "damaged",
        State::Repaired => "repaired",
    };
    let images = if row.images.is_empty() { "no image".to_owned() } else { row.images.join(", ") };
    output.text(&format!("{state:<8} {} {}  of {images}\n", row.kind, row.digest.short()))?;
    row.problem.iter().try_for_each(|problem| output.text(&format!("           {problem}\n")))?;
    Ok(())
}

fn conclude(rows: &[Row], repair: bool, output: &Output) -> Result<Exit, Failure> {
    let count = |state| rows.iter().filter(|row| row.state == state).count();
    let damaged = count(State::Damaged);
    match output.format() {
        Format::Json => output.document(&rows)?,
        Format::Text => {
            let repaired = if repair { format!(", {} repaired", count(State::Repaired)) } else { String::new() };
            output.text(&format!("{} looked at, {damaged} damaged{repaired}\n", rows.len()))?;
        }
    }
    Ok(if damaged > 0 { Exit::Error } else { Exit::Done })
}
