//! `evenkeel rename`: another name for a container that nobody declares.
//!
//! # Decisions
//! The name of a declared container is how its manifest finds it again: changed by hand it would be a second container
//! and a missing one, so that is refused rather than drift.

use clap::Args;

use super::apply::Session;
use super::by_hand;
use super::context::Context;
use super::each;
use super::failure::{Exit, Failure};
use super::output::Output;
use crate::engine::Engine;
use crate::model::action::Action;
use crate::model::id::{Instance, ResourceName, Whose};
use crate::model::record::ContainerRecord;

#[derive(Debug, Args)]
pub struct RenameArguments {
    /// The container: a name or the beginning of an id
    name: String,

    /// Its name from now on
    new: ResourceName,
}

pub fn run(arguments: &RenameArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let chosen = each::one(&arguments.name, context)?;
    let session = Session::open(context)?;
    let _lock = by_hand::lock(&session, output)?;
    let actual = by_hand::observe(&session.host)?;
    let record = by_hand::current(&actual, &chosen)?;
    if let Whose::Project(project) = &record.project {
        return Err(Failure::new(format!("container `{}` is declared by project {project}", record.full_name()))
            .hint("its name is its manifest's to change"));
    }
    let instance = Instance { container: arguments.new.clone(), replica: 1 };
    if let Some(other) = actual.containers.values().find(|container| container.record.instance == instance) {
        let other = other.record.full_name();
        return Err(Failure::new(format!("the name `{instance}` is taken by container {other}")));
    }
    let renamed = ContainerRecord { instance, ..record.clone() };
    let action = Action::UpdateContainer { record: Box::new(renamed.clone()) };
    session.host.perform(&action).map_err(Failure::engine)?;
    // The names of its networks follow.
    by_hand::settle(&session, &by_hand::observe(&session.host)?, &renamed, output)?;
    each::done(&renamed, output)?;
    Ok(Exit::Done)
}
