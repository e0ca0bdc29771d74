//! `evenkeel image unpack`: the root filesystem of an image as a plain directory.

use std::path::PathBuf;

use clap::Args;

use super::files::input;
use super::find::{failure, find};
use super::told;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;
use crate::engine::image::Store;
use crate::engine::image::flatten::{flatten_archive, flatten_image};

#[derive(Debug, Args)]
#[command(
    after_help = "What names a file here is an archive, whatever images there are; `./` in front makes that sure."
)]
pub struct UnpackArguments {
    /// An archive of one image, `-` for one on standard input, or an image of this host
    #[arg(value_name = "ARCHIVE|IMAGE")]
    what: String,

    /// A directory that is empty or not there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub fn run(arguments: &UnpackArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let host = context.host()?.report_images_to(told::progress(output));
    let store = Store::new(&context.paths.root);
    let directory = std::path::absolute(&arguments.directory)?;
    let path = PathBuf::from(&arguments.what);
    // A directory that just has the name of an image is no archive.
    let is_archive = path.is_file() || ["index.json", "manifest.json"].iter().any(|name| path.join(name).is_file());
    if arguments.what == "-" || is_archive {
        flatten_archive(&store, input(&path, &store)?, &directory, host.image_tools()).map_err(failure)?;
    } else {
        let entries = store.catalogue().map_err(failure)?;
        let entry = find(&entries, &arguments.what)?.entry();
        flatten_image(&store, entry, &directory, host.image_tools()).map_err(failure)?;
    }
    Ok(Exit::Done)
}
