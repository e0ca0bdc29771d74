//! TOML text to [`crate::model::desired::Desired`]: parsing, problems with their places, the JSON Schema.
//!
//! ```text
//! inputs ── source ──> texts ── tree ──> trees with places ── merge ──> one tree
//!        ── read + shape ──> what was written, typed ── resolve ──> Desired
//!        ── config ──> TOML again;   schema: from the same shapes
//! ```
//!
//! What references stand for is beside the manifest, in `lock_file`.
//! The file of the host itself is read in the same way: [`host`].
//!
//! Every stage reports [`Problems`] and goes on, so that one run shows them all. A text that is not TOML is the
//! exception: what a parser recovers from it would only bring problems that are not there.
//!
//! Nothing here changes the host. What is read from it comes through [`Surroundings`], so that a manifest can be
//! parsed without a disk.
//!
//! # Decisions
//! * TOML is version 1.1: an inline table may span lines. Readers of 1.0 may refuse such a file.
//! * Files of one directory lie side by side, a later `-f` lies on top: see `merge`.
//! * Short and long forms are read by hand rather than by untagged enums, whose errors have no place.

mod config;
mod env_file;
pub mod host;
mod interpolate;
mod lock_file;
mod merge;
mod problem;
mod read;
mod resolve;
mod schema;
mod shape;
mod source;
mod suggest;
mod tree;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::model::desired::Desired;
use crate::model::id::{ProjectName, ResourceName};
use crate::model::image::ImageSource;

pub use config::to_toml;
pub use lock_file::{lock_path, lock_text, parse_lock, read_lock};
pub use problem::{Colour, Located, Problems, Source};
pub use schema::{host_schema_text, schema_text};
pub use source::{default_inputs, is_standard_input};

use read::{Read, Reading};
use shape::project::Manifest;

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    File,
    Directory,
    /// A device, a socket, a pipe.
    Other,
}

/// All that a manifest may ask of the world around it.
pub struct Surroundings<'a> {
    /// Where relative paths of manifests begin: the working directory, absolute.
    pub directory: &'a Path,
    /// An environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// What is at an absolute path; `None` when nothing is. Symbolic links are followed.
    pub file_kind: &'a dyn Fn(&Path) -> Option<FileKind>,
    /// The text of a file: for `env_files`.
    pub read_file: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// A project that was read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub desired: Desired,
    /// What the manifest calls its images.
    pub image_names: BTreeMap<ImageSource, ResourceName>,
    /// The files that were read, manifests and environment files: what `watch` looks at.
    pub files: Vec<PathBuf>,
}

/// Reads the manifests at `inputs` (files, directories of `*.toml`, `-` for standard input), or at the default places
/// when there are none, from this host's disk.
pub fn load(inputs: &[PathBuf], variable: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    let layers = source::read_layers(inputs)?;
    source::on_this_host(variable, |surroundings| parse(layers, surroundings))
}

/// Reads a text that is on no disk as a manifest in the working directory.
pub fn load_text(source: Source, variable: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    source::on_this_host(variable, |surroundings| parse(vec![vec![source]], surroundings))
}

/// The variables of an environment file, in its order.
pub fn variables(source: Source, variable: &dyn Fn(&str) -> Option<String>) -> Result<Vec<(String, String)>, Problems> {
    env_file::parse(&source.text, 0, variable).map_err(|problems| Problems::new(vec![source], problems))
}

/// The name of the project at `inputs`, whatever else may be wrong with it.
pub fn load_project(inputs: &[PathBuf], variable: &dyn Fn(&str) -> Option<String>) -> Result<ProjectName, Problems> {
    let layers = source::read_layers(inputs)?;
    source::on_this_host(variable, |surroundings| {
        let (mut reading, tree) = read_tree(layers, surroundings)?;
        let name = tree.and_then(|tree| tree::entry(tree, "project"));
        let project = name.and_then(|name| ProjectName::read(&name, &mut reading));
        project.ok_or_else(|| {
            let missing = resolve::missing_project(&reading.sources);
            Problems::new(reading.sources, vec![missing])
        })
    })
}

/// The project that these texts declare. Each layer lies on top of the one before; the texts of one layer lie side
/// by side.
pub fn parse(layers: Vec<Vec<Source>>, surroundings: &Surroundings<'_>) -> Result<Loaded, Problems> {
    let (mut reading, manifest) = read_manifest(layers, surroundings)?;
    let resolved = resolve::resolve(&manifest, &mut reading);
    match resolved {
        Some((desired, image_names)) if reading.problems.is_empty() => {
            let on_disk = reading.sources.iter().filter(|source| !is_standard_input(&source.path));
            let files = on_disk.map(|source| surroundings.directory.join(&source.path)).collect();
            Ok(Loaded { desired, image_names, files })
        }
        _ => Err(Problems::new(reading.sources, reading.problems)),
    }
}

fn read_manifest<'a>(
    layers: Vec<Vec<Source>>,
    surroundings: &'a Surroundings<'a>,
) -> Result<(Reading<'a>, Manifest), Problems> {
    let (mut reading, tree) = read_tree(layers, surroundings)?;
    let manifest = tree.map(tree::without_extensions).and_then(|tree| Manifest::read(&tree, &mut reading));
    Ok((reading, manifest.unwrap_or_default()))
}

/// All texts as one; nothing where there is none.
fn read_tree<'a>(
    layers: Vec<Vec<Source>>,
    surroundings: &'a Surroundings<'a>,
) -> Result<(Reading<'a>, Option<tree::Node>), Problems> {
    let mut reading = Reading { sources: Vec::new(), surroundings, problems: Vec::new() };
    let mut merged: Option<tree::Node> = None;
    let mut syntax_errors = Vec::new();
    for layer in layers {
        let mut trees = Vec::new();
        for source in layer {
            match tree::parse(&source.text, reading.sources.len()) {
                Ok(tree) => trees.push(tree),
                Err(errors) => syntax_errors.extend(errors),
            }
            reading.sources.push(source);
        }
        if let Some(layer) = merge::side_by_side(trees, &mut reading.problems) {
            merged = Some(match merged {
                None => layer,
                Some(base) => merge::overlay(base, layer),
            });
        }
    }
    if !syntax_errors.is_empty() {
        return Err(Problems::new(reading.sources, syntax_errors));
    }
    Ok((reading, merged))
}
