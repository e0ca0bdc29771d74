//! `evenkeel image push`: gives an image of this host to a registry.

use clap::Args;
use serde::Serialize;

use super::find::{failure, find};
use super::told;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, Output};
use crate::engine::image::catalogue::Meaning;
use crate::engine::image::push::Push;
use crate::model::id::Digest;
use crate::model::reference::Reference;

#[derive(Debug, Args)]
pub struct PushArguments {
    /// `REPOSITORY[:TAG]`, REPOSITORY@DIGEST or the beginning of an id
    #[arg(value_name = "IMAGE")]
    image: String,

    /// Where to, with a tag: `registry.example.org/shop/web:1.4` [default: the same reference]
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    reference: String,
    id: Digest,
    digest: Digest,
    size: u64,
}

pub fn run(arguments: &PushArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let text = arguments.destination.as_ref().unwrap_or(&arguments.image);
    let destination = match (&arguments.destination, text.parse::<Reference>()) {
        (_, Ok(reference)) => reference,
        (Some(_), Err(error)) => return Err(Failure::usage(error.to_string())),
        (None, Err(error)) => {
            return Err(Failure::usage(error.to_string()).hint("name the destination behind the image"));
        }
    };
    let host = context.host()?.report_images_to(told::progress(output));
    let entries = host.images().catalogue().map_err(failure)?;
    let meaning = find(&entries, &arguments.image)?;
    let image = &meaning.entry().image;
    // It was pulled or pushed by the name that is given, if by any.
    let mut names = meaning.entry().sources.clone();
    if let Meaning::Named(_, name) = &meaning {
        names.sort_by_key(|other| other != *name);
    }
    let push = Push { names: &names, image, destination: &destination };
    let pushed = host.push_image(&push).map_err(Failure::engine)?;
    let reference = destination.to_string();
    match output.format() {
        Format::Json => {
            output.document(&Answer { reference, id: image.id.clone(), digest: pushed.manifest, size: pushed.size })?
        }
        Format::Text => output.text(&format!("{reference}  {}  {}\n", image.id.short(), pushed.manifest))?,
    }
    Ok(Exit::Done)
}
