//! `evenkeel image load`: every image of an archive, with its names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::files::input;
use super::find::{failure, shown};
use super::told;
use super::users::running_on;
use crate::cli::by_hand::{self, PATIENCE};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, Output};
use crate::engine::host::Host;
use crate::engine::image::Silent;
use crate::engine::image::load::{Here, load};
use crate::engine::image::store::session::Form;
use crate::model::id::Digest;
use crate::model::image::ImageSource;

#[derive(Debug, Args)]
pub struct LoadArguments {
    /// The archive: docker save's or OCI's, plain, gzip, xz or zstd, or a directory with an OCI layout; without it standard
    /// input
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    input: PathBuf,

    /// Also unpack layers that are here already, in place of those: for an image that `image check` finds damaged. A layer
    /// that is a directory stays while something runs on it
    #[arg(long)]
    repair: bool,

    /// Only say what was loaded
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(arguments: &LoadArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let progress = if arguments.quiet { Box::new(Silent) } else { told::progress(output) };
    let host = context.host()?.report_images_to(progress);
    let store = host.images();
    let input = input(&arguments.input, store)?;
    // A name may move away from an image that something is being made of.
    let _lock = host.lock(PATIENCE).map_err(Failure::engine)?;
    let held = if arguments.repair { held(&host)? } else { BTreeMap::new() };
    let here = match arguments.repair {
        true => Here::MadeAgain { but: held.keys().cloned().collect() },
        false => Here::Stay,
    };
    let loaded = load(store, input, here, host.image_tools()).map_err(failure)?;
    for image in &loaded {
        let id = &image.image.id;
        for name in &image.ignored {
            output.warning(&format!("`{name}` is no reference, so {} has no name of it", id.short()));
        }
        for (layer, running) in image.image.layers.iter().filter_map(|layer| held.get_key_value(layer)) {
            let (layer, running) = (layer.short(), running.join(", "));
            output.warning(&format!(
                "the layer {layer} stays as it is; stop what may run on it, and load it then: {running}"
            ));
        }
        let names: Vec<String> =
            image.names.iter().map(|name| shown(&ImageSource::Reference(name.to_string()))).collect();
        match output.format() {
            Format::Json => output.line(&json!({ "id": id, "names": names }))?,
            Format::Text if names.is_empty() => output.text(&format!("Loaded image ID: {id}\n"))?,
            Format::Text => {
                output.text(&names.iter().map(|name| format!("Loaded image: {name}\n")).collect::<String>())?
            }
        }
    }
    Ok(Exit::Done)
}

/// Layers that cannot be made again now, and what runs on each of them. Images can: who runs on one goes on with its file.
fn held(host: &Host) -> Result<BTreeMap<Digest, Vec<String>>, Failure> {
    let (store, actual) = (host.images(), by_hand::observe(host)?);
    let entries = store.catalogue().map_err(failure)?;
    let mut layers = store.layers().map_err(failure)?;
    layers.retain(|layer| store.layer_form(layer) == Some(Form::Directory));
    let mut held = BTreeMap::new();
    for layer in layers {
        let running = running_on(&layer, store, &actual, &entries)?;
        if !running.is_empty() {
            held.insert(layer, running);
        }
    }
    Ok(held)
}
