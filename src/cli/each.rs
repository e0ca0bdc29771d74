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

impl Names {
    pub fn read(&self, context: &Context) -> Result<Vec<ContainerRecord>, Failure> {
        let inventory = Inventory::read(context.paths.clone())?;
        let chosen = select::many(inventory.records(), &self.names, &|| context.tie_break())?;
        Ok(chosen.into_iter().cloned().collect())
    }
}

/// The one container that `word` means.
pub fn one(word: &str, context: &Context) -> Result<ContainerRecord, Failure> {
    let inventory = Inventory::read(context.paths.clone())?;
    select::one(inventory.records(), word, &|| context.tie_break()).cloned()
}

/// Acts on each, names those with which it went well, and tells what went wrong with the others.
pub fn each(
    records: &[ContainerRecord],
    output: &Output,
    mut act: impl FnMut(&ContainerRecord) -> Result<(), Failure>,
) -> Result<Exit, Failure> {
    let mut failures = Vec::new();
    for record in records {
        match act(record) {
            Ok(()) => done(record, output)?,
            Err(failure) => failures.push(failure),
        }
    }
    let last = failures.pop();
    for failure in failures {
        // The last one says with which code to exit.
        failure.report(output);
    }
    last.map_or(Ok(Exit::Done), Err)
}

pub fn done(record: &ContainerRecord, output: &Output) -> Result<(), Failure> {
    match output.format() {
        Format::Json => output.line(&serde_json::json!({ "id": record.id, "name": record.full_name() })),
        Format::Text => output.text(&format!("{}\n", record.full_name())),
    }
}

/// What somebody did to a declared container does not last, and they should know.
pub fn remark_drift(records: &[ContainerRecord], becomes: &str, output: &Output) {
    let declared = records.iter().filter(|record| matches!(record.project, Whose::Project(_)));
    for record in declared {
        let name = record.full_name();
        output.remark(&format!("note: {name} is declared: `evenkeel apply` or a `watch` that runs {becomes}"));
    }
}
