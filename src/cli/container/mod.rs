//! `evenkeel container`: what is made of a container. One file per command.

mod commit;
mod export;

use clap::{Args, Subcommand};

use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::Output;
use commit::CommitArguments;
use export::ExportArguments;

#[derive(Debug, Args)]
pub struct ContainerArguments {
    #[command(subcommand)]
    command: ContainerCommand,
}

#[derive(Debug, Subcommand)]
enum ContainerCommand {
    /// Make an image of a container and what it changed
    Commit(CommitArguments),
    /// Write the files of a container as a tar archive
    Export(ExportArguments),
}

pub fn run(arguments: &ContainerArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    match &arguments.command {
        ContainerCommand::Commit(arguments) => commit::run(arguments, context, output),
        ContainerCommand::Export(arguments) => export::run(arguments, context),
    }
}
