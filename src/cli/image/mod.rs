//! `evenkeel image`: what this host has of images, and how it comes and goes. One file per command.

mod pull;
mod push;
mod told;

use clap::{Args, Subcommand};

use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::Output;
use pull::PullArguments;
use push::PushArguments;

#[derive(Debug, Args)]
pub struct ImageArguments {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Fetch images from their registries
    Pull(PullArguments),
    /// Give an image of this host to a registry
    Push(PushArguments),
}

pub fn run(arguments: &ImageArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    match &arguments.command {
        ImageCommand::Pull(arguments) => pull::run(arguments, context, output),
        ImageCommand::Push(arguments) => push::run(arguments, context, output),
    }
}
