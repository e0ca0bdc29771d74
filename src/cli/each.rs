//! The same with each of several containers: one that fails keeps nobody from the others.

use std::path::PathBuf;

use clap::Args;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::inventory::Inventory;
use super::output::{Format, Output};
use super::select;
use crate::model::id::Whose;
use crate::model::record::ContainerRecord;

// For every command that takes containers.
#[derive(Debug, Args)]
pub struct Names {
    /// A manifest whose project decides between equal names
    #[arg(long = "file", value_name = "PATH")]
    pub files: Vec<PathBuf>,

    /// NAME (all its replicas), NAME.REPLICA, PROJECT/NAME or the beginning of an id
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// Which containers were meant, in the order of the names, each once; and why some names mean none.
#[derive(Debug)]
pub struct Chosen {
    pub records: Vec<ContainerRecord>,
    pub unknown: Vec<Unmet>,
}

/// Why a name means no container.
#[derive(Debug)]
pub enum Unmet {
    NotThere(Failure),
    /// There may be one: the name fits several, or what decides between them cannot be read.
    Failed(Failure),
}

impl From<Unmet> for Failure {
    fn from(unmet: Unmet) -> Failure {
        match unmet {
            Unmet::NotThere(failure) | Unmet::Failed(failure) => failure,
        }
    }
}

impl Names {
    pub fn read(&self, context: &Context) -> Result<Chosen, Failure> {
        choose(&Inventory::read(context.paths.clone())?, &self.names, context)
    }
}

/// A name that means nothing keeps nobody from what the others mean.
pub fn choose(inventory: &Inventory, names: &[String], context: &Context) -> Result<Chosen, Failure> {
    let mut chosen = Chosen { records: Vec::new(), unknown: Vec::new() };
    for word in names {
        match select::sought(inventory.records(), word, &|| context.tie_break()) {
            Ok(found) if found.is_empty() => {
                chosen.unknown.push(Unmet::NotThere(select::unknown(inventory.records(), word)));
            }
            Ok(found) => {
                for record in found {
                    if chosen.records.iter().all(|known| known.id != record.id) {
                        chosen.records.push(record.clone());
                    }
                }
            }
            Err(failure) => chosen.unknown.push(Unmet::Failed(failure)),
        }
    }
    Ok(chosen)
}

/// Tells what went wrong. The last failure says with which code to exit.
pub fn conclude(mut failures: Vec<Failure>, output: &Output) -> Result<Exit, Failure> {
    let last = failures.pop();
    for failure in failures {
        failure.report(output);
    }
    last.map_or(Ok(Exit::Done), Err)
}

/// The one container that `word` means.
pub fn one(word: &str, context: &Context) -> Result<ContainerRecord, Failure> {
    let inventory = Inventory::read(context.paths.clone())?;
    select::one(inventory.records(), word, &|| context.tie_break()).cloned()
}

/// Acts on each, names those with which it went well, and tells what went wrong with the others.
pub fn each(
    chosen: Chosen,
    output: &Output,
    mut act: impl FnMut(&ContainerRecord) -> Result<(), Failure>,
) -> Result<Exit, Failure> {
    let Chosen { records, unknown } = chosen;
    let mut failures: Vec<Failure> = unknown.into_iter().map(Failure::from).collect();
    for record in &records {
        match act(record) {
            Ok(()) => done(record, output)?,
            Err(failure) => failures.push(failure),
        }
    }
    conclude(failures, output)
}

pub fn done(record: &ContainerRecord, output: &Output) -> Result<(), Failure> {
    match output.format() {
        Format::Json => output.line(&serde_json::json!({ "id": record.id, "name": record.full_name() })),
        Format::Text => output.text(&format!("{}\n", record.full_name())),
    }
}

/// What somebody did to a declared container does not last, and they should know, once it is done.
pub fn remark_drift(record: &ContainerRecord, becomes: &str, output: &Output) {
    if matches!(record.project, Whose::Project(_)) {
        let name = record.full_name();
        output.remark(&format!("note: {name} is declared: `evenkeel apply` or a `watch` that runs {becomes}"));
    }
}
