//! `evenkeel image push`: gives an image of this host to a registry.

use clap::Args;
use serde::Serialize;

use super::told;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, Output};
use crate::engine::image::Store;
use crate::engine::image::push::Push;
use crate::model::id::Digest;
use crate::model::image::{Image, ImageSource};
use crate::model::reference::Reference;

#[derive(Debug, Args)]
pub struct PushArguments {
    /// The image: its reference, or its id
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
    let (source, image) = find(host.images(), &arguments.image)?;
    let push = Push { source: &source, image: &image, destination: &destination };
    let pushed = host.push_image(&push).map_err(Failure::engine)?;
    let reference = destination.to_string();
    match output.format() {
        Format::Json => {
            output.document(&Answer { reference, id: image.id, digest: pushed.manifest, size: pushed.size })?
        }
        Format::Text => output.text(&format!("{reference}  {}  {}\n", image.id.short(), pushed.manifest))?,
    }
    Ok(Exit::Done)
}

/// An image of this host, by reference or by the beginning of its id.
fn find(store: &Store, text: &str) -> Result<(ImageSource, Image), Failure> {
    let failed = |error: crate::engine::image::ImageError| Failure::from(error).context("cannot read the images");
    if let Ok(reference) = text.parse::<Reference>() {
        let source = ImageSource::Reference(reference.to_string());
        if let Some(image) = store.find(&source).map_err(failed)? {
            return Ok((source, image));
        }
    }
    let beginning = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hex = beginning.len() >= SHORTEST && beginning.bytes().all(|b| b.is_ascii_hexdigit());
    let all = store.list().map_err(failed)?;
    let mut found = all.into_iter().filter(|(_, image)| is_hex && image.id.hex().starts_with(beginning));
    let Some(first) = found.next() else {
        return Err(Failure::new(format!("image `{text}` is not on this host"))
            .hint("`evenkeel image pull` fetches one; an image that was built is named by its id"));
    };
    match found.find(|(_, image)| image.id != first.1.id) {
        Some(_) => Err(Failure::new(format!("several images have an id that begins with `{beginning}`"))),
        None => Ok(first),
    }
}

/// Shorter ones are more likely a slip than an id.
const SHORTEST: usize = 4;
