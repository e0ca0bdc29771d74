//! `evenkeel image pull`: makes images whole on this host before anybody needs them.

use clap::Args;
use serde::Serialize;

use super::told;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, Output};
use crate::model::id::Digest;
use crate::model::image::{ImageSource, normalize_reference};

#[derive(Debug, Args)]
pub struct PullArguments {
    /// What to fetch: `registry.example.org/shop/web:1.4`
    #[arg(required = true, value_name = "REFERENCE")]
    references: Vec<String>,
}

#[derive(Serialize)]
struct Pulled {
    reference: String,
    id: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
}

pub fn run(arguments: &PullArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let references: Vec<String> = arguments
        .references
        .iter()
        .map(|text| normalize_reference(text).map_err(|error| Failure::usage(error.to_string())))
        .collect::<Result<_, _>>()?;
    let host = context.host()?.report_images_to(told::progress(output));
    let mut pulled = Vec::new();
    for reference in references {
        let source = ImageSource::Reference(reference.clone());
        let image = host.ensure_image(&source).map_err(Failure::engine)?;
        if output.format() == Format::Text {
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
