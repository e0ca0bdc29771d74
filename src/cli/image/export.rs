//! `evenkeel image export`: the root filesystem of an image as a tar archive, as `image import` takes it.

use std::path::PathBuf;

use clap::Args;

use super::files::with_output;
use super::find::{failure, find};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::engine::image::Store;
use crate::engine::image::flatten::export_image;

#[derive(Debug, Args)]
#[command(
    after_help = "The layers become one, and what says how containers run stays behind: `image save` writes the image itself."
)]
pub struct ExportArguments {
    /// `REPOSITORY[:TAG]`, REPOSITORY@DIGEST or the beginning of an id
    #[arg(value_name = "IMAGE")]
    image: String,

    /// Where to; without it standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(arguments: &ExportArguments, context: &Context) -> Result<Exit, Failure> {
    let store = Store::new(&context.paths.root);
    let entries = store.catalogue().map_err(failure)?;
    let entry = find(&entries, &arguments.image)?.entry();
    with_output(arguments.output.as_ref(), |to| export_image(&store, entry, to).map_err(failure))?;
    Ok(Exit::Done)
}
