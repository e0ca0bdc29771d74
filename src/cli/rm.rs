//! `evenkeel rm`: removes containers.
//!
//! # Decisions
//! A declared container is removed only with `--force`, as somebody who is used to Docker expects it to work; it is
//! drift then, and the next apply makes it anew.

use clap::Args;

use super::apply::Session;
use super::by_hand::{self, Volumes};
use super::context::Context;
use super::each::{self, Chosen, Names, Unmet, remark_drift};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::stop::{Manner, stop};
use crate::engine::Engine;
use crate::model::action::Action;
use crate::model::actual::Actual;
use crate::model::id::Whose;
use crate::model::record::ContainerRecord;

#[derive(Debug, Args)]
pub struct RmArguments {
    #[command(flatten)]
    pub names: Names,

    /// Kill those that run, and remove declared ones too
    #[arg(short, long)]
    force: bool,

    /// With the volumes that were made for them alone
    #[arg(short, long)]
    volumes: bool,
}

pub fn run(arguments: &RmArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let Chosen { mut records, unknown } = arguments.names.read(context)?;
    let mut failures = Vec::new();
    for unmet in unknown {
        match unmet {
            // What is not there is gone, as who forces it wants it.
            Unmet::NotThere(failure) if arguments.force => output.remark(&format!("note: {}", failure.line())),
            Unmet::NotThere(failure) | Unmet::Failed(failure) => failures.push(failure),
        }
    }
    let session = Session::open(context)?;
    let lock = by_hand::lock(&session, output)?;
    if !arguments.force {
        let actual = by_hand::observe(&session.host)?;
        records.retain(|record| keep(refusal(record, &actual), &mut failures));
    }
    records.retain(|record| keep(stop(record, Manner::KILL, context, Some(&lock)).err(), &mut failures));
    for record in &records {
        match remove(record, arguments, &session, output) {
            Ok(()) => {
                remark_drift(record, "makes it again", output);
                each::done(record, output)?;
            }
            Err(failure) => failures.push(failure),
        }
    }
    failures.extend(session.host.tidy(&lock).map_err(Failure::engine).err());
    each::conclude(failures, output)
}

/// By a plan of its own, so that one which cannot go keeps no other.
fn remove(
    record: &ContainerRecord,
    arguments: &RmArguments,
    session: &Session,
    output: &Output,
) -> Result<(), Failure> {
    let actual = by_hand::observe(&session.host)?;
    // Gone by somebody else, meanwhile: it is as is wanted.
    let Some(record) = by_hand::unless_gone(&actual, record)? else { return Ok(()) };
    match record.project {
        Whose::Project(_) => {
            let action = Action::RemoveContainer { id: record.id.clone() };
            session.host.perform(&action).map_err(Failure::engine)
        }
        Whose::Nobody => {
            let volumes = if arguments.volumes { Volumes::Own } else { Volumes::Keep };
            by_hand::remove(session, &actual, &[record], volumes, output)
        }
    }
}

/// Whether there is nothing against it; what there is goes to the others.
fn keep(failure: Option<Failure>, failures: &mut Vec<Failure>) -> bool {
    let is_fine = failure.is_none();
    failures.extend(failure);
    is_fine
}

fn refusal(record: &ContainerRecord, actual: &Actual) -> Option<Failure> {
    let name = record.full_name();
    if let Whose::Project(project) = &record.project {
        let declared = Failure::new(format!("container `{name}` is declared by project {project}"));
        return Some(declared.hint("take it out of the manifest; `--force` removes it until the next apply"));
    }
    let is_up = actual.containers.get(&record.id).is_some_and(|container| container.liveness.is_up());
    is_up.then(|| Failure::new(format!("container `{name}` runs")).hint("stop it first, or add `--force`"))
}
