//! `delete ID`: nothing of a container is left.

use clap::Args;

use super::death;
use super::log::Log;
use super::store::{Status, Store};
use crate::cli::failure::{Exit, Failure};

#[derive(Debug, Args)]
pub struct DeleteArguments {
    /// The container's id
    #[arg(value_name = "ID")]
    id: String,

    /// End it first if it runs; one that is not there is no error
    #[arg(short, long)]
    force: bool,
}

pub fn run(arguments: &DeleteArguments, store: &Store, log: &Log) -> Result<Exit, Failure> {
    if arguments.force {
        let found = match store.look(&arguments.id) {
            Err(_) if !store.has(&arguments.id)? => return Ok(Exit::Done),
            found => found?,
        };
        // Before the lock is waited for: who holds it may wait for a hook of a container that hangs.
        death::end_processes(&found)?;
    }
    let container = match store.take(&arguments.id) {
        Err(_) if arguments.force && !store.has(&arguments.id)? => return Ok(Exit::Done),
        other => other?,
    };
    if !arguments.force {
        container.require("delete", &[Status::Stopped])?;
    }
    // A container whose `create` was killed early has no configuration, and no hooks.
    let hooks = container.hooks();
    death::remove(&container)?;
    if let Ok(hooks) = hooks {
        death::run_poststop(&container, hooks.as_ref(), log);
    }
    Ok(Exit::Done)
}
