//! `evenkeel after-end ID`: what the monitor of a container that nobody declares executes as its last act. See
//! [`super::by_hand`].

use clap::Args;

use super::apply::Session;
use super::by_hand;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::Output;
use crate::model::id::ContainerId;
use crate::runtime::cgroup;

#[derive(Debug, Args)]
pub struct AfterEndArguments {
    id: ContainerId,
}

/// Taking the lock sees to everything that ended; this container is one of those, unless somebody else came first.
pub fn run(arguments: &AfterEndArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let session = Session::open(context)?;
    // Where a monitor was, its cgroup cannot go with the last container while we are in it. That this host does not let
    // us out of it leaves an empty directory for the next command to remove.
    let _ = cgroup::detect().and_then(|hierarchy| cgroup::leave_shelter(&hierarchy));
    let lock = by_hand::lock(&session, output)?;
    let actual = by_hand::observe(&session.host)?;
    if let Some(container) = actual.containers.get(&arguments.id).filter(|c| !c.liveness.is_up()) {
        by_hand::see_off(&session, &actual, &container.record, output)?;
    }
    session.host.tidy(&lock).map_err(Failure::engine)?;
    Ok(Exit::Done)
}
