//! The command line: one file per command. Only this module prints, and only `main` exits.
//!
//! * `arguments`: the tree of commands and options that clap reads. [`run()`] walks it.
//! * `failure`: exit codes, and an error with its causes and hints, printed once at the edge.
//! * `output`, `table`, `phrase`: how state is shown, to people and as JSON.
//! * `logging`: where `tracing` goes: stderr, with priorities where that is the journal.
//! * `context`, `planning`, `locking`, `select`, `inventory`, `each`, `by_hand`: what several commands begin with.
//! * `progress`, `layers`, `settle`, `interrupt`: while the host is being changed. `collecting`, `follow`: parts of `watch`.
//! * `console`, `conversation`, `streams`, `terminal`, `detach_keys`: our descriptors and those of a container.
//! * `filter`, `template`, `foreign`, `log_printer`, `bell`, `process`, `examples`: helpers of some. Any other file is a command.

mod after_end;
mod apply;
mod arguments;
mod attach;
mod bell;
mod by_hand;
mod collecting;
mod completions;
mod config;
mod console;
mod container;
mod context;
mod conversation;
mod cp;
mod detach_keys;
mod diff;
mod documents;
mod down;
mod each;
mod events;
mod examples;
mod exec;
mod failure;
mod filter;
mod follow;
mod host_ps;
mod image;
mod inspect;
mod interrupt;
mod inventory;
mod kill;
mod layers;
mod listing;
mod lock;
mod locking;
mod log_printer;
mod logging;
mod login;
mod logs;
mod man;
mod network;
mod output;
mod past;
mod pause;
mod phrase;
mod plan;
mod planning;
mod port;
mod process;
mod progress;
mod ps;
mod rename;
mod restart;
mod rm;
mod run;
pub mod runtime;
mod schema;
mod select;
mod settle;
mod start;
mod stats;
mod status;
mod stop;
mod streams;
mod table;
mod template;
mod terminal;
mod top;
mod update;
mod validate;
mod version;
mod volume;
mod wait;
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use arguments::{Arguments, Command};
use context::Context;
use failure::{Exit, Failure};
use output::Output;

/// Reads the arguments, the program's name first, runs the command, and says with which code to exit.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut words: Vec<OsString> = arguments.into_iter().collect();
    let (arguments, who) = loop {
        match arguments::parse(&words) {
            Ok(parsed) => break parsed,
            Err(error) => match arguments::without_value_of_a_flag(&error, &words) {
                Some(fewer) => words = fewer,
                None => return usage(&error, &words),
            },
        }
    };
    arguments.global.color.apply();
    let output = Output::new(arguments.global.format());
    let is_dockers = matches!(arguments.command, Command::Run(_) | Command::Create(_) | Command::Exec(_));
    match dispatch(arguments, &who, &output) {
        Ok(exit) => exit.into(),
        Err(failure) if is_dockers => failure.before_the_command().report(&output),
        Err(failure) => failure.report(&output),
    }
}

/// What clap has to say: help and version are answers, anything else is a mistake of usage.
fn usage(error: &clap::Error, words: &[OsString]) -> ExitCode {
    if let Some(failure) = run::unsupported::explain(error, words) {
        return failure.report(&Output::new(output::Format::Text));
    }
    told(error, arguments::mistake(words))
}

fn told(error: &clap::Error, mistake: Exit) -> ExitCode {
    // Nothing is left to be told to anybody when the terminal is gone.
    let _ = error.print();
    match error.use_stderr() {
        true => mistake.into(),
        false => Exit::Done.into(),
    }
}

fn dispatch(arguments: Arguments, who: &str, output: &Output) -> Result<Exit, Failure> {
    let Arguments { global, files, command } = arguments;
    logging::start(global.log_level(&command));
    let paths = global.paths()?;
    let context = |own: &[PathBuf]| Context {
        paths: paths.clone(),
        who: who.to_owned(),
        keep_removed: global.keep_removed,
        files: if own.is_empty() { &files } else { own }.to_vec(),
        host_config: global.host_config.clone(),
    };
    match command {
        Command::Validate(arguments) => validate::run(&context(&arguments.files), output),
        Command::Config(arguments) => config::run(&context(&arguments.files), output),
        Command::Schema(arguments) => schema::run(&arguments, output),
        Command::Plan(arguments) => plan::run(&arguments, &context(&arguments.files), output),
        Command::Apply(arguments) => apply::run(&arguments, &context(&arguments.files), output),
        Command::Watch(arguments) => {
            let context = context(&arguments.files);
            watch::run(arguments, context)
        }
        Command::Down(arguments) => down::run(&arguments, &context(&arguments.files), output),
        Command::Status(arguments) => status::run(&arguments, &context(&arguments.files), output),
        Command::Top(arguments) => top::run(&arguments, &context(&[]), output),
        Command::Stats(arguments) => stats::run(&arguments, &context(&[]), output),
        Command::Inspect(arguments) => inspect::run(&arguments, &context(&[]), output),
        Command::Ps(arguments) => ps::run(&arguments, &context(&[]), output),
        Command::Logs(arguments) => logs::run(&arguments, &context(&arguments.files), output),
        Command::Exec(arguments) => exec::run(&arguments, &context(&[])),
        Command::Events(arguments) => events::run(&arguments, &context(&[]), output),
        Command::Runtime(_) => Err(Failure::usage("`runtime` has options of its own, which follow it")
            .hint("evenkeel runtime --root DIR create ..")),
        Command::Run(arguments) => run::run(&arguments, &context(&[]), output),
        Command::Create(arguments) => run::create(&arguments, &context(&[]), output),
        Command::AfterEnd(arguments) => after_end::run(&arguments, &context(&[]), output),
        Command::Start(arguments) => start::run(&arguments, &context(&arguments.names.files), output),
        Command::Stop(arguments) => stop::run(&arguments, &context(&arguments.names.files), output),
        Command::Restart(arguments) => restart::run(&arguments, &context(&arguments.names.files), output),
        Command::Kill(arguments) => kill::run(&arguments, &context(&arguments.names.files), output),
        Command::Wait(arguments) => wait::run(&arguments, &context(&arguments.names.files), output),
        Command::Rm(arguments) => rm::run(&arguments, &context(&arguments.names.files), output),
        Command::Pause(arguments) => pause::pause(&arguments, &context(&arguments.names.files), output),
        Command::Unpause(arguments) => pause::unpause(&arguments, &context(&arguments.names.files), output),
        Command::Update(arguments) => update::run(&arguments, &context(&arguments.names.files), output),
        Command::Attach(arguments) => attach::run(&arguments, &context(&[]), output),
        Command::Rename(arguments) => rename::run(&arguments, &context(&[]), output),
        Command::Port(arguments) => port::run(&arguments, &context(&[]), output),
        Command::Volume(arguments) => volume::run(&arguments, &context(&[]), output),
        Command::Network(arguments) => network::run(&arguments, &context(&[]), output),
        Command::Cp(arguments) => cp::run(&arguments, &context(&[])),
        Command::Diff(arguments) => diff::run(&arguments, &context(&[]), output),
        Command::Login(arguments) => login::login(&arguments, &context(&[]), output),
        Command::Logout(arguments) => login::logout(&arguments, output),
        Command::Image(arguments) => image::run(&arguments, &context(arguments.files()), output),
        Command::Lock(arguments) => lock::run(&arguments, &context(&arguments.files), output),
        Command::Container(arguments) => container::run(&arguments, &context(&[]), output),
        Command::Completions(arguments) => completions::run(&arguments, output),
        Command::Man(arguments) => man::run(&arguments, output),
        Command::Version => version::run(output),
    }
}
