//! `evenkeel attach`: looks on as a running container writes, and feeds its standard input.
//!
//! What is not read in time is left out; the log has it. So somebody who looks on never slows a container down.

use clap::Args;

use super::console::{Console, ConsoleSettings, Fate, Outcome, SignalProxy};
use super::context::Context;
use super::detach_keys::{self, DetachKeys};
use super::each;
use super::failure::{Exit, Failure};
use super::kill::{ensure_not_paused, running};
use super::output::Output;
use super::run::foreground::exit_of;
use super::terminal::Signals;
use crate::model::record::ContainerRecord;

#[derive(Debug, Args)]
pub struct AttachArguments {
    /// Do not feed its standard input
    #[arg(long)]
    no_stdin: bool,

    /// Whether signals that this command gets are passed on
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    sig_proxy: bool,

    /// The keys that leave its terminal and let it go on
    #[arg(long, value_name = "KEYS", default_value = detach_keys::DEFAULT)]
    detach_keys: DetachKeys,

    /// NAME, NAME.REPLICA, PROJECT/NAME or the beginning of an id
    name: String,
}

pub fn run(arguments: &AttachArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let record = each::one(&arguments.name, context)?;
    let proxy = if arguments.sig_proxy { SignalProxy::On } else { SignalProxy::Off };
    let settings = ConsoleSettings { proxy, detach_keys: arguments.detach_keys.clone() };
    attach(&record, !arguments.no_stdin, settings, context, output)
}

/// Until the container is over, or we leave.
pub fn attach(
    record: &ContainerRecord,
    interactive: bool,
    settings: ConsoleSettings,
    context: &Context,
    output: &Output,
) -> Result<Exit, Failure> {
    ensure_not_paused(record, context)?;
    let signals = Signals::take()?;
    let client = running(record, context)?;
    let attached = client.attach().map_err(Failure::monitor)?;
    let terminal = match &attached.stdin {
        Some(fd) if record.spec.tty => Some(fd.try_clone()?),
        _ => None,
    };
    let console = Console {
        directory: context.paths.container_run(&record.id),
        stdout: Some(attached.stdout),
        stderr: Some(attached.stderr),
        input: attached.stdin.filter(|_| interactive),
        terminal,
        fate: Fate::ToCome(client.end().map_err(Failure::monitor)?),
        settings,
    };
    match console.run(&signals)? {
        Outcome::Left { signal: None } => {
            output.remark("left it running");
            Ok(Exit::Done)
        }
        Outcome::Left { signal: Some(code) } => Ok(Exit::Status(code)),
        Outcome::Ended(status) => exit_of(&status),
    }
}
