//! An image by the beginning of its identifier, as `image ls -q` and `container commit` print it.
//!
//! A container's image is a reference, so that it can be found again: an identifier stands for a name of its image.

use std::borrow::Cow;

use crate::cli::failure::Failure;
use crate::cli::image::failure;
use crate::engine::image::catalogue::{self, Meaning};
use crate::engine::image::{ImageError, Store};
use crate::model::paths::Paths;

/// What may be a name is looked up as an identifier from so many digits on.
const SHORTEST: usize = 4;

/// The reference that `word` stands for: another one only where it begins the identifier of an image on this host, and no
/// image here has it as its name.
pub fn referred<'w>(word: &'w str, paths: &Paths) -> Result<Cow<'w, str>, Failure> {
    let digits = word.strip_prefix("sha256:").unwrap_or(word);
    let is_hexadecimal = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    if !(SHORTEST..=64).contains(&digits.len()) || !digits.chars().all(is_hexadecimal) {
        return Ok(word.into());
    }
    let entries = Store::new(&paths.root).catalogue().map_err(failure)?;
    match catalogue::find(&entries, word) {
        Ok(Meaning::Named(..)) | Err(ImageError::NoImage { .. }) => Ok(word.into()),
        Ok(Meaning::Image(entry)) => match entry.references().next() {
            Some((_, reference)) => Ok(reference.to_string().into()),
            None => Err(Failure::new(format!("the image {} has no name", entry.image.id.short()))
                .hint(format!("give it one: `evenkeel image tag {word} NAME`"))),
        },
        Err(error) => Err(failure(error)),
    }
}
