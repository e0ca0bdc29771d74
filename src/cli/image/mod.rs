//! `evenkeel image`: what this host has of images, and how it comes and goes. One file per command.
//!
//! `files` is where archives come from and go to, `find` what a word means and how a name is shown, `filter` what
//! `--filter` chooses, `users` which containers keep an image, `told` how a transfer is told,
//! `secret` how `--secret` is written.

mod build;
mod check;
mod export;
mod files;
mod filter;
mod find;
mod history;
mod import;
pub mod inspect;
mod load;
mod ls;
mod prune;
mod pull;
mod push;
mod rm;
mod save;
mod secret;
mod tag;
mod told;
mod unpack;
mod users;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::Output;
use build::BuildArguments;
use check::CheckArguments;
use export::ExportArguments;
use history::HistoryArguments;
use import::ImportArguments;
use inspect::InspectArguments;
use load::LoadArguments;
use ls::LsArguments;
use prune::PruneArguments;
use pull::PullArguments;
use push::PushArguments;
use rm::RmArguments;
use save::SaveArguments;
use tag::TagArguments;
use unpack::UnpackArguments;

pub use files::with_output;
pub use find::failure;
pub use tag::name;

#[derive(Debug, Args)]
pub struct ImageArguments {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// List the images of this host
    #[command(visible_alias = "list")]
    Ls(LsArguments),
    /// Build an image of a Dockerfile
    Build(BuildArguments),
    /// Fetch images from their registries
    Pull(PullArguments),
    /// Give an image of this host to a registry
    Push(PushArguments),
    /// Give an image a further name
    Tag(TagArguments),
    /// Take names from images, and remove images with their last name
    Rm(RmArguments),
    /// Show everything that is known of images, as JSON
    Inspect(InspectArguments),
    /// Show what an image was made by
    History(HistoryArguments),
    /// Write images as an archive that other engines take
    Save(SaveArguments),
    /// Take every image of an archive
    Load(LoadArguments),
    /// Make an image of a root filesystem in a tar file
    Import(ImportArguments),
    /// Write the root filesystem of an image as a tar file
    Export(ExportArguments),
    /// Write the root filesystem of an image into a directory
    Unpack(UnpackArguments),
    /// Look whether the layers of images are what they were, byte by byte
    Check(CheckArguments),
    /// Remove images that nothing needs
    Prune(PruneArguments),
}

impl ImageArguments {
    /// The manifests that were named.
    pub fn files(&self) -> &[PathBuf] {
        match &self.command {
            ImageCommand::Pull(arguments) => &arguments.files,
            _ => &[],
        }
    }
}

pub fn run(arguments: &ImageArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    match &arguments.command {
        ImageCommand::Ls(arguments) => ls::run(arguments, context, output),
        ImageCommand::Build(arguments) => build::run(arguments, context, output),
        ImageCommand::Pull(arguments) => pull::run(arguments, context, output),
        ImageCommand::Push(arguments) => push::run(arguments, context, output),
        ImageCommand::Tag(arguments) => tag::run(arguments, context, output),
        ImageCommand::Rm(arguments) => rm::run(arguments, context, output),
        ImageCommand::Inspect(arguments) => inspect::run(arguments, context, output),
        ImageCommand::History(arguments) => history::run(arguments, context, output),
        ImageCommand::Save(arguments) => save::run(arguments, context, output),
        ImageCommand::Load(arguments) => load::run(arguments, context, output),
        ImageCommand::Import(arguments) => import::run(arguments, context, output),
        ImageCommand::Export(arguments) => export::run(arguments, context),
        ImageCommand::Unpack(arguments) => unpack::run(arguments, context, output),
        ImageCommand::Check(arguments) => check::run(arguments, context, output),
        ImageCommand::Prune(arguments) => prune::run(arguments, context, output),
    }
}
