//! What the child does with a stream, done in this process: for fuzz targets, which see only what runs in theirs.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufWriter, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::rc::Rc;

use super::Limits;
use super::child::Recorded;
use super::compression::decoder;
use super::extract::Extractor;
use super::members::Members;
use super::report::Problem;
use super::tree::Tree;
use crate::engine::image::recipe::{self, Recipe};
use crate::engine::image::store::record::LayerRecord;

/// Makes the files of a layer in the empty directory `tree`, and the stream again from them. Nothing keeps this process
/// inside the tree but the extraction's own care, and that is what is looked at. The two files are empty.
///
/// # Panics
/// If the stream that is made again is another.
pub fn extract(bytes: &[u8], tree: &Path, files: [File; 2], limits: Limits) -> Result<LayerRecord, Problem> {
    let failed = |error: io::Error| Problem::new(error.to_string());
    let mut stream = Vec::new();
    decoder(bytes).and_then(|input| input.take(limits.content).read_to_end(&mut stream)).map_err(failed)?;
    let root = File::open(tree).map_err(failed)?;
    let [written, spool] = files;
    let recipe = written.try_clone().and_then(|file| Recipe::new(BufWriter::new(file))).map_err(failed)?;
    let recipe = Rc::new(RefCell::new(recipe));
    let recorded = Recorded { stream: stream.as_slice(), recipe: recipe.clone(), limit: limits.content };
    let mut members = Members::new(recorded);
    let own = root.try_clone().map_err(failed)?;
    let record = Extractor::new(Tree::new(own.into()), limits, recipe.clone()).extract(&mut members)?;
    members.drain()?;
    drop(members);
    let recipe = Rc::into_inner(recipe).ok_or_else(|| Problem::new("the recipe is still in use"))?.into_inner();
    let replaced = recipe.finish().map_err(failed)?;
    let mut again = Vec::new();
    let replayed = recipe::replay(&written, root.as_fd(), replaced, || Ok(spool), &mut again);
    assert!(replayed.is_ok() && again == stream, "the stream is not made again: {replayed:?}");
    Ok(record)
}
