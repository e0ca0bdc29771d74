//! `evenkeel image tag`: gives an image a further name, which may be another image's until then.

use clap::Args;

use super::find::{failure, find};
use crate::cli::by_hand::PATIENCE;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;
use crate::model::image::ImageSource;
use crate::model::reference::Reference;

#[derive(Debug, Args)]
pub struct TagArguments {
    /// `REPOSITORY[:TAG]`, REPOSITORY@DIGEST or the beginning of an id
    #[arg(value_name = "IMAGE")]
    image: String,

    /// The new name: `REPOSITORY[:TAG]`
    #[arg(value_name = "REFERENCE")]
    name: String,
}

pub fn run(arguments: &TagArguments, context: &Context, _: &Output) -> Result<Exit, Failure> {
    let source = name(&arguments.name)?;
    let host = context.host()?;
    let _lock = host.lock(PATIENCE).map_err(Failure::engine)?;
    let store = host.images();
    let entries = store.catalogue().map_err(failure)?;
    let entry = find(&entries, &arguments.image)?.entry();
    let session = store.session(&source).map_err(failure)?;
    session.name(&source, &entry.image).map_err(failure)?;
    Ok(Exit::Done)
}

/// A name that can be given: one with a digest would say of an image what only its manifest can.
pub fn name(text: &str) -> Result<ImageSource, Failure> {
    let reference: Reference = text.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    match reference.digest {
        Some(_) => Err(Failure::usage(format!("`{text}` has a digest: a name that is given is REPOSITORY[:TAG]"))),
        None => Ok(ImageSource::Reference(reference.to_string())),
    }
}
