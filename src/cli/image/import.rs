//! `evenkeel image import`: a root filesystem in a tar file as an image of one layer.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::files::input;
use super::find::failure;
use super::{tag, told};
use crate::cli::by_hand::PATIENCE;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, Output};
use crate::engine::image::load::{Importing, import};

#[derive(Debug, Args)]
pub struct ImportArguments {
    /// The tar file, plain, gzip, xz or zstd; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The name of the image: `REPOSITORY[:TAG]`
    #[arg(value_name = "REFERENCE")]
    name: Option<String>,

    /// An instruction of a Dockerfile that changes the configuration, such as `CMD ["serve"]`; repeatable
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,

    /// For the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
}

pub fn run(arguments: &ImportArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let name = arguments.name.as_deref().map(tag::name).transpose()?;
    if arguments.file.is_dir() {
        return Err(Failure::usage(format!("`{}` is a directory, expected a tar file", arguments.file.display()))
            .hint("`tar -C DIRECTORY -c . | evenkeel image import -` makes one of it"));
    }
    if let Some(url) =
        arguments.file.to_str().filter(|text| ["http://", "https://"].iter().any(|of| text.starts_with(of)))
    {
        return Err(Failure::usage(format!("`{url}` is no file, and nothing is imported from elsewhere"))
            .hint(format!("`curl -fsSL {url} | evenkeel image import -` does that")));
    }
    let host = context.host()?.report_images_to(told::progress(output));
    let store = host.images();
    let input = input(&arguments.file, store)?;
    let _lock = host.lock(PATIENCE).map_err(Failure::engine)?;
    let importing = Importing { name, changes: &arguments.changes, message: arguments.message.as_deref() };
    let image = import(store, input, &importing, host.image_tools()).map_err(failure)?;
    match output.format() {
        Format::Json => output.document(&json!({ "id": image.id }))?,
        Format::Text => output.text(&format!("{}\n", image.id))?,
    }
    Ok(Exit::Done)
}
