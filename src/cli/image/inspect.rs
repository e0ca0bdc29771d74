//! `evenkeel image inspect`: everything that is known of images, as JSON.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::find::{failure, find, is_pinned, shown};
use super::users::Users;
use crate::cli::context::Context;
use crate::cli::documents::{Inspected, Shape, Sought};
use crate::cli::each::conclude;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::ps::familiar;
use crate::engine::image::Store;
use crate::engine::image::catalogue::{Entry, HistoryStep};
use crate::engine::image::store::record::LayerRecord;
use crate::engine::image::store::session::Form;
use crate::model::id::Digest;
use crate::model::image::ImageSource;

#[derive(Debug, Args)]
pub struct InspectArguments {
    /// `REPOSITORY[:TAG]`, REPOSITORY@DIGEST or the beginning of an id
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,

    #[command(flatten)]
    shape: Shape,
}

#[derive(Serialize)]
struct Document<'a> {
    id: &'a Digest,
    names: &'a [ImageSource],
    repository_digests: Vec<String>,
    created: Option<&'a str>,
    author: Option<&'a str>,
    os: &'a str,
    architecture: &'a str,
    variant: Option<&'a str>,
    /// Bytes of the files in its layers.
    size: u64,
    used_by: Vec<String>,
    layers: Vec<Layer>,
    /// What containers mount, lowest first, where it is not `layers`.
    mounted: Option<&'a [Digest]>,
    /// By name, the digest of the manifest that it was pulled by.
    manifests: BTreeMap<String, &'a Digest>,
    /// As the image has it.
    config: &'a Value,
    history: &'a [HistoryStep],
}

#[derive(Serialize)]
struct Layer {
    diff_id: Digest,
    /// Absent for one that should be here and is not.
    #[serde(flatten)]
    record: Option<LayerRecord>,
    /// What `path` is; absent as `record` is.
    form: Option<&'static str>,
    path: std::path::PathBuf,
}

pub fn run(arguments: &InspectArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let store = Store::new(&context.paths.root);
    let entries = store.catalogue().map_err(failure)?;
    let (found, unknown) = inspected(&arguments.images, &store, &entries, context)?;
    arguments.shape.show(&found, output)?;
    conclude(unknown, output)
}

/// Beside what else may have such names.
pub fn sought(names: &[String], context: &Context) -> Result<Sought, Failure> {
    let store = Store::new(&context.paths.root);
    let entries = store.catalogue().map_err(failure)?;
    let (found, unknown) = inspected(names, &store, &entries, context)?;
    Ok((found.into_iter().map(Inspected::into_value).collect::<Result<_, _>>()?, unknown))
}

fn inspected<'a>(
    names: &[String],
    store: &Store,
    entries: &'a [Entry],
    context: &Context,
) -> Result<(Vec<Inspected<Document<'a>>>, Vec<Failure>), Failure> {
    let users = Users::read(&context.paths)?;
    let (mut found, mut unknown) = (Vec::new(), Vec::new());
    for word in names {
        match find(entries, word) {
            Ok(meaning) => {
                let entry = meaning.entry();
                found.push(Inspected { document: document(store, entry, &users)?, docker: in_dockers_words(entry) });
            }
            Err(failure) => unknown.push(failure),
        }
    }
    Ok((found, unknown))
}

/// As far as `docker image inspect` means the same.
fn in_dockers_words(entry: &Entry) -> Value {
    let description = &entry.description;
    // What has a digest is no tag; it is among the digests.
    let names: Vec<String> = entry.sources.iter().filter(|name| !is_pinned(name)).map(shown).collect();
    let digests = entry.repository_digests();
    let digests: Vec<&str> = digests.iter().map(|digest| familiar(digest)).collect();
    json!({
        "Id": entry.image.id,
        "RepoTags": names,
        "RepoDigests": digests,
        "Created": description.created,
        "Author": description.author.clone().unwrap_or_default(),
        "Architecture": description.architecture,
        "Variant": description.variant.clone().unwrap_or_default(),
        "Os": description.os,
        "Size": entry.size,
        "Config": description.config,
        "RootFS": { "Type": "layers", "Layers": entry.diff_ids },
    })
}

fn document<'a>(store: &Store, entry: &'a Entry, users: &Users) -> Result<Document<'a>, Failure> {
    let layer = |diff_id: &Digest| -> Result<Layer, Failure> {
        let record = store.layer_record(diff_id).map_err(failure)?;
        let form = store.layer_form(diff_id).map(|form| match form {
            Form::Image => "EROFS file",
            Form::Directory => "directory",
        });
        Ok(Layer { diff_id: diff_id.clone(), record, form, path: store.layer_path(diff_id) })
    };
    let description = &entry.description;
    Ok(Document {
        id: &entry.image.id,
        names: &entry.sources,
        repository_digests: entry.repository_digests().into_iter().collect(),
        created: description.created.as_deref(),
        author: description.author.as_deref(),
        os: &description.os,
        architecture: &description.architecture,
        variant: description.variant.as_deref(),
        size: entry.size,
        used_by: users.of_image(entry),
        layers: entry.diff_ids.iter().map(layer).collect::<Result<_, _>>()?,
        mounted: (entry.image.layers != entry.diff_ids).then_some(entry.image.layers.as_slice()),
        manifests: entry.manifests.iter().map(|(source, digest)| (source.to_string(), digest)).collect(),
        config: &description.config,
        history: &description.history,
    })
}
