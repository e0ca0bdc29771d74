//! What the child does with a stream, done in this process: for fuzz targets, which see only what runs in theirs.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufWriter, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{MemfdFlags, memfd_create};

use super::Limits;
use super::child::Recorded;
use super::compression::decoder;
use super::directories::Directories;
use super::extract::Extractor;
use super::ground::Ground;
use super::image::Image;
use super::members::Members;
use super::report::Problem;
use super::tree::Tree;
use crate::engine::image::recipe::{self, Recipe};
use crate::engine::image::store::record::LayerRecord;

/// Makes the files of a layer in the empty directory `tree` and in an image, and the stream again from the directory.
/// Nothing keeps this process inside the tree but the extraction's own care, and that is what is looked at. The two
/// files are empty.
///
/// # Panics
/// If the stream that is made again is another, or if not all becomes an image that becomes a directory.
pub fn extract(bytes: &[u8], tree: &Path, files: [File; 2], limits: Limits) -> Result<LayerRecord, Problem> {
    let failed = |error: io::Error| Problem::new(error.to_string());
    let mut stream = Vec::new();
    decoder(bytes).and_then(|input| input.take(limits.content).read_to_end(&mut stream)).map_err(failed)?;
    let root = File::open(tree).map_err(failed)?;
    let [written, spool] = files;
    let image = memfd_create("image", MemfdFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let of_image = memfd_create("recipe", MemfdFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let of_image = File::from(of_image);
    let as_image = made(Image::new(image.into()), &stream, &of_image, limits);
    let own = root.try_clone().map_err(failed)?;
    let (record, ()) = made(Directories::new(own.into()), &stream, &written, limits)?;
    match as_image {
        Ok((other, writer)) => {
            assert!(record == other, "an image has {other:?}, and a directory {record:?}");
            assert!(contents(&written) == contents(&of_image), "an image has another recipe");
            writer.seal([0; 16]).map_err(|errno| failed(errno.into()))?;
        }
        Err(problem) => panic!("what a directory can be an image cannot: {problem:?}"),
    }
    let mut again = Vec::new();
    let replayed = recipe::replay(&written, root.as_fd(), record.replaced, || Ok(spool), &mut again);
    assert!(replayed.is_ok() && again == stream, "the stream is not made again: {replayed:?}");
    Ok(record)
}

/// Makes the files of a stream on a ground, and the recipe in an empty file.
fn made<G: Ground>(ground: G, stream: &[u8], recipe: &File, limits: Limits) -> Result<(LayerRecord, G::Done), Problem> {
    let failed = |error: io::Error| Problem::new(error.to_string());
    let recipe = recipe.try_clone().and_then(|file| Recipe::new(BufWriter::new(file))).map_err(failed)?;
    let recipe = Rc::new(RefCell::new(recipe));
    let mut members = Members::new(Recorded { stream, recipe: recipe.clone(), limit: limits.content });
    let (mut record, done) = Extractor::new(Tree::new(ground), limits, recipe.clone()).extract(&mut members)?;
    members.drain()?;
    drop(members);
    let recipe = Rc::into_inner(recipe).ok_or_else(|| Problem::new("the recipe is still in use"))?.into_inner();
    record.replaced = recipe.finish().map_err(failed)?;
    Ok((record, done))
}

fn contents(file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = 0;
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = file.read_at(&mut buffer, at) {
        bytes.extend_from_slice(&buffer[..count]);
        at += count as u64;
    }
    bytes
}
