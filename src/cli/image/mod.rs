//! `evenkeel image`: what this host has of images, and how it comes and goes. One file per command.

mod pull;
mod told;

use clap::{Args, Subcommand};

use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::Output;
use pull::PullArguments;

#[derive(Debug, Args)]
pub struct ImageArguments {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Fetch images from their registries
    Pull(PullArguments),
}

pub fn run(arguments: &ImageArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    match &arguments.command {
        ImageCommand::Pull(arguments) => pull::run(arguments, context, output),
    }
}
