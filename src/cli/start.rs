//! `evenkeel start`: starts containers that are there and do not run.

use clap::Args;

use super::apply::Session;
use super::attach;
use super::by_hand;
use super::console::{ConsoleSettings, SignalProxy};
use super::context::Context;
use super::detach_keys::{self, DetachKeys};
use super::each::{Names, each};
use super::failure::{Exit, Failure};
use super::kill::ensure_not_paused;
use super::output::Output;
use super::run::foreground::{Foreground, Streams};
use crate::engine::Engine;
use crate::engine::lock::Lock;
use crate::model::action::Action;
use crate::model::container::RunState;
use crate::model::id::Whose;
use crate::model::record::ContainerRecord;
use crate::plan::Policy;

#[derive(Debug, Args)]
pub struct StartArguments {
    #[command(flatten)]
    pub names: Names,

    /// Look on from the first byte, pass signals on, and exit as it does
    #[arg(short, long)]
    attach: bool,

    /// Feed its standard input, if it is open; implies `--attach`
    #[arg(short, long)]
    interactive: bool,

    /// The keys that leave its terminal and let it go on
    #[arg(long, value_name = "KEYS", default_value = detach_keys::DEFAULT)]
    detach_keys: DetachKeys,
}

pub fn run(arguments: &StartArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let mut chosen = arguments.names.read(context)?;
    if arguments.attach || arguments.interactive {
        return match (chosen.records.as_slice(), chosen.unknown.pop()) {
            ([], Some(unmet)) => Err(unmet.into()),
            ([record], None) => attached(record, arguments, context, output),
            _ => Err(Failure::usage("only one container can be attached to")),
        };
    }
    let session = Session::open(context)?;
    let _lock = by_hand::lock(&session, output)?;
    each(chosen, output, |record| {
        ensure_not_paused(record, context)?;
        start(&session, record, output)
    })
}

/// Under the lock: a monitor runs it.
pub fn start(session: &Session, record: &ContainerRecord, output: &Output) -> Result<(), Failure> {
    match record.project {
        // Its ports and names are there all the time, and its plan is its project's.
        Whose::Project(_) => {
            let action = Action::StartContainer { id: record.id.clone() };
            session.host.perform(&action).map_err(Failure::engine)
        }
        Whose::Nobody => {
            let actual = by_hand::observe(&session.host)?;
            let record = by_hand::current(&actual, record)?;
            let desired = by_hand::desired(&actual, record, RunState::Running);
            let again = [record.instance.container.clone()].into();
            by_hand::perform(session, &desired, &actual, Policy { again, ..by_hand::about(record) }, output)
        }
    }
}

fn attached(
    record: &ContainerRecord,
    arguments: &StartArguments,
    context: &Context,
    output: &Output,
) -> Result<Exit, Failure> {
    let interactive = arguments.interactive;
    let settings = ConsoleSettings { proxy: SignalProxy::On, detach_keys: arguments.detach_keys.clone() };
    let session = Session::open(context)?;
    let lock: Lock = by_hand::lock(&session, output)?;
    let actual = by_hand::observe(&session.host)?;
    if actual.containers.get(&record.id).is_some_and(|container| container.liveness.is_up()) {
        drop((lock, session));
        return attach::attach(record, interactive, settings, context, output);
    }
    let streams = Streams {
        stdin: interactive && (record.spec.stdin_open || record.spec.tty),
        stdout: true,
        stderr: true,
        terminal: record.spec.tty,
    };
    let foreground = Foreground::prepare(&context.paths, &record.id, streams)?;
    start(&session, record, output).map_err(Failure::before_the_command)?;
    foreground.go(session, lock, settings, record, output)
}
