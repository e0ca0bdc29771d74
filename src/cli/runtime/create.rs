//! `create ID`: a container, all but its command.

use super::birth::{self, Birth, CreateArguments, Starter};
use super::death;
use super::handover::{self, Attendance};
use super::log::Log;
use super::store::Store;
use crate::cli::failure::{Exit, Failure};

pub fn run(arguments: &CreateArguments, store: &Store, log: &Log) -> Result<Exit, Failure> {
    let birth = birth::create(arguments, Attendance::Detached, Starter::Another, (store, log))?;
    let Birth { container, spec, created } = birth;
    let pid = created.pid();
    let terminal = created.leave();
    let told = handover::tell(terminal.as_ref(), pid, &arguments.handover);
    if let Err(failure) = told {
        death::bury(&container, spec.hooks().as_ref(), log);
        return Err(failure);
    }
    Ok(Exit::Done)
}
