//! `evenkeel-runtime`, also `evenkeel runtime`: the OCI runtime command line (runtime-spec, runtime.md, "Operations"),
//! with the options that runc has, for Podman, containerd and others that call a runtime.
//!
//! * `arguments`: the tree of commands and options. Each command is a file of its name.
//! * `bundle`: config.json and the root filesystem beside it.
//! * `store`: what is remembered of a container between two commands, and what the kernel says of it.
//! * `birth`, `death`: making a container and undoing it, which several commands share. `parents`: cgroups above its own.
//! * `foreground`: staying with a process until its end. `handover`: descriptors in and out.
//! * `log`: errors and warnings as callers read them.
//!
//! The containers that manifests declare go through the same [`crate::runtime`]; their monitors take the place of this
//! command line.
//!
//! # Decisions
//! * A program of its own beside `evenkeel`: callers start it several times in a container's life, and without registry
//!   client, TLS and netlink it has a third of the relocations to do. `cargo install` puts it there. A link to `evenkeel`
//!   under this name does the same.
//! * `delete` refuses a container that is only created, as runtime.md says; runc kills it. `--force` does so here.
//! * A failed poststart hook stops the container, as runtime.md says since 1.2.1; earlier versions only warned.
//! * `NOTIFY_SOCKET` is not handed into the container: it is for callers to mount, as Podman does.

mod arguments;
mod birth;
mod bundle;
mod create;
mod death;
mod delete;
mod events;
mod exec;
mod features;
mod foreground;
mod handover;
mod kill;
mod list;
mod log;
mod parents;
mod pause;
mod ps;
mod run;
mod spec;
mod start;
mod state;
mod store;
mod update;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use super::failure::{Exit, Failure};
use super::output::{Format, Output};
use arguments::{Arguments, Command, Operation};
use log::Log;
use store::Store;

/// The program's name, by which a link to `evenkeel` is known too.
pub const PROGRAM: &str = "evenkeel-runtime";

/// Under `evenkeel`, the command that stands in front.
pub const NAME: &str = "runtime";

/// The commands that start processes. Elsewhere one of these words may be a container's id, which does no harm.
const STARTERS: [&str; 3] = ["create", "run", "exec"];

/// Reads the arguments, the program's name first, runs the command, and says with which code to exit. A command that
/// starts processes first executes this program again, through a mount that nobody can write to.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    handover::take_name();
    if STARTERS.iter().any(|name| arguments.iter().any(|argument| argument == name)) {
        // Early, so that nothing is done twice. Where it fails, the command itself tries again, and knows the log.
        let _ = handover::get_ready();
    }
    let parsed = match Arguments::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(error) => return super::told(&error, Exit::Usage),
    };
    let log = Log::new(&parsed.global);
    match dispatch(parsed, &log) {
        Ok(exit) => exit.into(),
        Err(failure) => log.fail(failure),
    }
}

/// The tree of commands, for manual pages.
pub(super) fn command() -> clap::Command {
    Arguments::command()
}

fn dispatch(arguments: Arguments, log: &Log) -> Result<Exit, Failure> {
    let Arguments { global, command, .. } = arguments;
    let operation = match command {
        // There the option `--systemd-cgroup` says what is written.
        Command::Spec(arguments) => return spec::run(&arguments),
        Command::Of(operation) => operation,
    };
    global.check()?;
    let store = Store::new(std::path::absolute(&global.root)?);
    let output = Output::new(Format::Text);
    match operation {
        Operation::Create(arguments) => create::run(&arguments, &store, log),
        Operation::Start(arguments) => start::run(&arguments, &store, log),
        Operation::Run(arguments) => run::run(&arguments, &store, log),
        Operation::State(arguments) => state::run(&arguments, &store, &output),
        Operation::Kill(arguments) => kill::run(&arguments, &store),
        Operation::Delete(arguments) => delete::run(&arguments, &store, log),
        Operation::Exec(arguments) => exec::run(&arguments, &store, log),
        Operation::Ps(arguments) => ps::run(&arguments, &store, &output),
        Operation::Pause(arguments) => pause::pause(&arguments, &store),
        Operation::Resume(arguments) => pause::resume(&arguments, &store),
        Operation::Update(arguments) => update::run(&arguments, &store),
        Operation::List(arguments) => list::run(&arguments, &store, &output),
        Operation::Features => features::run(&output),
        Operation::Events(arguments) => events::run(&arguments, &store, &output),
        Operation::Checkpoint(_) => Err(unsupported("checkpoint", "processes are not frozen to disk")),
        Operation::Restore(_) => Err(unsupported("restore", "processes are not frozen to disk")),
    }
}

fn unsupported(command: &str, reason: &str) -> Failure {
    Failure::new(format!("`{command}` is not supported: {reason}"))
}
