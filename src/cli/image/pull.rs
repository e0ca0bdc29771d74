//! `evenkeel image pull`: makes images whole on this host before anybody needs them.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::find::{self, failure};
use super::told;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, Output};
use crate::engine::host::Host;
use crate::engine::image::{Platform, tags};
use crate::model::id::Digest;
use crate::model::image::{ImageSource, Pull, normalize_reference};
use crate::model::lock::pinned;
use crate::model::reference::Reference;

#[derive(Debug, Args)]
pub struct PullArguments {
    /// What to fetch: `registry.example.org/shop/web:1.4` [default: every reference of the manifests, as it is locked]
    #[arg(value_name = "REFERENCE")]
    references: Vec<String>,

    /// A manifest, a directory of manifests, or `-` for standard input; repeat it to overlay [default: ./evenkeel.toml, else /etc/evenkeel]
    #[arg(short, long = "file", value_name = "PATH", conflicts_with = "references")]
    pub files: Vec<PathBuf>,

    /// Every tag of the repositories, which are named without one
    #[arg(short, long, requires = "references")]
    all_tags: bool,

    /// Only say what was fetched
    #[arg(short, long)]
    quiet: bool,

    /// The platform of this host, which is the one whose images are taken
    #[arg(long, value_name = "OS/ARCHITECTURE", value_parser = own_platform)]
    platform: Option<String>,
}

#[derive(Serialize)]
struct Pulled {
    reference: String,
    id: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
}

pub fn run(arguments: &PullArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let host = context.host()?;
    let host = if arguments.quiet { host } else { host.report_images_to(told::progress(output)) };
    let references = match arguments.references.is_empty() {
        true => declared(context)?,
        false if arguments.all_tags => every_tag(&arguments.references, &host)?,
        false => named(&arguments.references)?,
    };
    let mut pulled = Vec::new();
    for reference in references {
        let source = ImageSource::Reference(reference.clone());
        let image = host.ensure_image(&source, None).map_err(Failure::engine)?;
        if output.format() == Format::Text && arguments.quiet {
            output.text(&format!("{reference}\n"))?;
        } else if output.format() == Format::Text {
            let digest = image.manifest.as_ref().map(|digest| format!("  {digest}")).unwrap_or_default();
            output.text(&format!("{reference}  {}{digest}\n", image.id.short()))?;
        }
        pulled.push(Pulled { reference, id: image.id, digest: image.manifest });
    }
    if output.format() == Format::Json {
        output.document(&pulled)?;
    }
    Ok(Exit::Done)
}

/// Another would be fetched in vain: nothing here runs it.
fn own_platform(text: &str) -> Result<String, String> {
    let own = Platform::host();
    match text == own.to_string() || text == format!("{}/{}", own.os, own.architecture) {
        true => Ok(text.to_owned()),
        false => Err(format!("this host runs images of {own}; leave the option out, and its variant is chosen")),
    }
}

fn named(words: &[String]) -> Result<Vec<String>, Failure> {
    words.iter().map(|text| normalize_reference(text).map_err(|error| Failure::usage(error.to_string()))).collect()
}

fn every_tag(words: &[String], host: &Host) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for word in words {
        let repository = find::repository(word)?;
        let mut tags = tags(&repository, host.image_tools().options).map_err(failure)?;
        tags.sort();
        let tagged = |tag| Reference { tag: Some(tag), ..repository.clone() }.to_string();
        all.extend(tags.into_iter().map(tagged));
    }
    Ok(all)
}

/// What may be pulled of what the manifests declare, and what their builds begin with.
fn declared(context: &Context) -> Result<Vec<String>, Failure> {
    let desired = context.load_in_force()?;
    let bases = desired.lock.bases.values().flatten().map(|(name, digest)| pinned(name, digest));
    let images = desired.images.iter().filter(|(_, pull)| **pull != Pull::Never).map(|(source, _)| source.clone());
    Ok(images.chain(bases).filter_map(|source| source.reference()).map(|reference| reference.to_string()).collect())
}
