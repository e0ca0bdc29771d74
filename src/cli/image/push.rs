//! `evenkeel image push`: gives an image of this host to a registry.

use clap::Args;
use serde::Serialize;

use super::find::{self, failure, find};
use super::told;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, Output};
use crate::engine::host::Host;
use crate::engine::image::ImageError;
use crate::engine::image::catalogue::{Entry, Meaning};
use crate::engine::image::push::Push;
use crate::model::id::Digest;
use crate::model::reference::Reference;

#[derive(Debug, Args)]
pub struct PushArguments {
    /// `REPOSITORY[:TAG]`, REPOSITORY@DIGEST or the beginning of an id
    #[arg(value_name = "IMAGE")]
    image: String,

    /// Where to, with a tag: `registry.example.org/shop/web:1.4` [default: the same reference]
    #[arg(value_name = "DESTINATION", conflicts_with = "all_tags")]
    destination: Option<String>,

    /// Every tag of a repository, which is named without one
    #[arg(short, long)]
    all_tags: bool,

    /// Only say what was pushed
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Serialize)]
struct Answer {
    reference: String,
    id: Digest,
    digest: Digest,
    size: u64,
}

pub fn run(arguments: &PushArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let host = context.host()?;
    let host = if arguments.quiet { host } else { host.report_images_to(told::progress(output)) };
    let entries = host.images().catalogue().map_err(failure)?;
    let pushed = match arguments.all_tags {
        true => every_tag(&entries, &arguments.image)?
            .into_iter()
            .map(|(word, destination)| push(&host, &entries, &word, &destination))
            .collect::<Result<Vec<_>, _>>()?,
        false => vec![push(&host, &entries, &arguments.image, &destination(arguments)?)?],
    };
    match output.format() {
        Format::Json if arguments.all_tags => output.document(&pushed)?,
        Format::Json => pushed.iter().try_for_each(|answer| output.document(answer))?,
        Format::Text => {
            let line = |answer: &Answer| match arguments.quiet {
                true => format!("{}\n", answer.reference),
                false => format!("{}  {}  {}\n", answer.reference, answer.id.short(), answer.digest),
            };
            output.text(&pushed.iter().map(line).collect::<String>())?;
        }
    }
    Ok(Exit::Done)
}

fn destination(arguments: &PushArguments) -> Result<Reference, Failure> {
    let text = arguments.destination.as_ref().unwrap_or(&arguments.image);
    match (&arguments.destination, text.parse::<Reference>()) {
        (_, Ok(reference)) => Ok(reference),
        (Some(_), Err(error)) => Err(Failure::usage(error.to_string())),
        (None, Err(error)) => Err(Failure::usage(error.to_string()).hint("name the destination behind the image")),
    }
}

/// The names of a repository that have a tag, each with where it goes.
fn every_tag(entries: &[Entry], repository: &str) -> Result<Vec<(String, Reference)>, Failure> {
    let wanted = find::repository(repository)?;
    let is_of_it = |reference: &Reference| {
        reference.registry == wanted.registry && reference.repository == wanted.repository && reference.digest.is_none()
    };
    let references = entries.iter().flat_map(Entry::references).map(|(_, reference)| reference).filter(is_of_it);
    let mut all: Vec<(String, Reference)> = references.map(|reference| (reference.to_string(), reference)).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    match all.is_empty() {
        true => Err(failure(ImageError::NoImage { word: repository.to_owned() })),
        false => Ok(all),
    }
}

fn push(host: &Host, entries: &[Entry], word: &str, destination: &Reference) -> Result<Answer, Failure> {
    let meaning = find(entries, word)?;
    let image = &meaning.entry().image;
    // It was pulled or pushed by the name that is given, if by any.
    let mut names = meaning.entry().sources.clone();
    if let Meaning::Named(_, name) = &meaning {
        names.sort_by_key(|other| other != *name);
    }
    let push = Push { names: &names, image, destination };
    let pushed = host.push_image(&push).map_err(Failure::engine)?;
    let (reference, id) = (destination.to_string(), image.id.clone());
    Ok(Answer { reference, id, digest: pushed.manifest, size: pushed.size })
}
