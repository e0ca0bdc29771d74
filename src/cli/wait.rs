//! `evenkeel wait`: waits until containers have ended for good, and prints the exit code of each.

use clap::Args;

use super::context::Context;
use super::each::{Chosen, Names, conclude};
use super::failure::{Exit, Failure};
use super::inventory::liveness;
use super::output::{Format, Output};
use crate::model::actual::Liveness;
use crate::model::record::ContainerRecord;
use crate::model::status::Status;
use crate::monitor::client::{Client, End};

#[derive(Debug, Args)]
pub struct WaitArguments {
    #[command(flatten)]
    pub names: Names,
}

pub fn run(arguments: &WaitArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let Chosen { records, unknown } = arguments.names.read(context)?;
    let mut failures: Vec<Failure> = unknown.into_iter().map(Failure::from).collect();
    // Asked of all before the first is waited for: one that is removed at its end cannot be asked later.
    let ends: Vec<_> = records.iter().map(|record| end(record, context)).collect();
    for (record, end) in records.iter().zip(ends) {
        let status = match end {
            Ok(Ok(end)) => end.status().map_err(Failure::monitor),
            Ok(Err(status)) => Ok(status),
            Err(failure) => Err(failure),
        };
        let status = match status {
            Ok(status) => status,
            Err(failure) => {
                failures.push(failure);
                continue;
            }
        };
        let code = status.exit.map_or(125, |exit| exit.code());
        match output.format() {
            Format::Json => {
                output.line(&serde_json::json!({ "id": record.id, "name": record.full_name(), "exit_code": code }))?;
            }
            Format::Text => output.text(&format!("{code}\n"))?,
        }
    }
    conclude(failures, output)
}

/// Its end to come, or how it ended.
fn end(record: &ContainerRecord, context: &Context) -> Result<Result<End, Status>, Failure> {
    let directory = context.paths.container_run(&record.id);
    match Client::connect(&directory).and_then(Client::end) {
        Ok(end) => Ok(Ok(end)),
        Err(error) => match liveness(&context.paths, record).map_err(Failure::engine)? {
            Liveness::Ended(status) => Ok(Err(status)),
            Liveness::Absent => Err(Failure::new(format!("container `{}` was not started", record.full_name()))),
            Liveness::Monitored(_) | Liveness::Lost(_) => Err(Failure::monitor(error)),
        },
    }
}
