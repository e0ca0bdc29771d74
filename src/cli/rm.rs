//! `evenkeel rm`: removes containers.
//!
//! # Decisions
//! A declared container is removed only with `--force`, as somebody who is used to Docker expects it to work; it is
//! drift then, and the next apply makes it anew.

use clap::Args;

use super::apply::Session;
use super::by_hand::{self, Volumes};
use super::context::Context;
use super::each::{self, Names, remark_drift};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::stop::{Manner, stop};
use crate::engine::Engine;
use crate::model::action::Action;
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
    let records = arguments.names.read(context)?;
    let session = Session::open(context)?;
    let lock = by_hand::lock(&session, output)?;
    if !arguments.force {
        refuse(&session, &records)?;
    }
    for record in &records {
        stop(record, Manner::KILL, context, Some(&lock))?;
    }
    let actual = by_hand::observe(&session.host)?;
    let (declared, by_hand): (Vec<_>, Vec<_>) =
        records.iter().partition(|record| matches!(record.project, Whose::Project(_)));
    if !by_hand.is_empty() {
        let volumes = if arguments.volumes { Volumes::Own } else { Volumes::Keep };
        by_hand::remove(&session, &actual, &by_hand, volumes, output)?;
    }
    for record in declared {
        let action = Action::RemoveContainer { id: record.id.clone() };
        session.host.perform(&action).map_err(Failure::engine)?;
    }
    session.host.tidy(&lock).map_err(Failure::engine)?;
    remark_drift(&records, "makes it again", output);
    records.iter().try_for_each(|record| each::done(record, output))?;
    Ok(Exit::Done)
}

/// All or nothing: a list of which some cannot go was not meant so.
fn refuse(session: &Session, records: &[ContainerRecord]) -> Result<(), Failure> {
    let actual = by_hand::observe(&session.host)?;
    for record in records {
        let name = record.full_name();
        if let Whose::Project(project) = &record.project {
            return Err(Failure::new(format!("container `{name}` is declared by project {project}"))
                .hint("take it out of the manifest; `--force` removes it until the next apply"));
        }
        if actual.containers.get(&record.id).is_some_and(|container| by_hand::is_up(&container.liveness)) {
            return Err(Failure::new(format!("container `{name}` runs")).hint("stop it first, or add `--force`"));
        }
    }
    Ok(())
}
