//! `evenkeel completions SHELL`: a completion script, for example
//! `evenkeel completions bash > /etc/bash_completion.d/evenkeel`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::arguments::Arguments;
use super::failure::{Exit, Failure};
use super::output::Output;

#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell that will read the script
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(arguments: &CompletionsArguments, output: &Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "evenkeel", &mut script);
    output.bytes(&script)?;
    Ok(Exit::Done)
}
