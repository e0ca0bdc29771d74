//! The image that a word on the command line means, and how one is shown.

use crate::cli::failure::Failure;
use crate::cli::ps;
use crate::engine::image::ImageError;
use crate::engine::image::catalogue::{self, Entry, Meaning};
use crate::model::image::ImageSource;
use crate::model::reference::{Reference, ReferenceError};

/// The image that `word` means.
pub fn find<'a>(entries: &'a [Entry], word: &str) -> Result<Meaning<'a>, Failure> {
    catalogue::find(entries, word).map_err(failure)
}

/// An error about an image, with the next step that it knows.
pub fn failure(error: ImageError) -> Failure {
    let hint = error.hint();
    hint.into_iter().fold(Failure::from(error), Failure::hint)
}

/// A name as people write it.
pub fn shown(source: &ImageSource) -> String {
    match source {
        ImageSource::Reference(text) => ps::familiar(text).to_owned(),
        other => other.to_string(),
    }
}

/// The repository that `word` names for `--all-tags`, with a tag that means nothing.
pub fn repository(word: &str) -> Result<Reference, Failure> {
    let reference: Reference = word.parse().map_err(|error: ReferenceError| Failure::usage(error.to_string()))?;
    // What is written without a tag has the tag `latest`.
    match reference.digest.is_some() || word.rsplit('/').next().is_some_and(|name| name.contains(':')) {
        false => Ok(reference),
        true => Err(Failure::usage(format!("`{word}` has a tag or a digest, and `--all-tags` means every tag"))
            .hint("name the repository alone")),
    }
}

/// Whether a name stands for one digest, as a lock file leaves it, and not for what its tag stands for.
pub fn is_pinned(name: &ImageSource) -> bool {
    name.reference().is_some_and(|reference| reference.digest.is_some())
}

/// What is shown in place of a name or a tag that is not there.
pub const NONE: &str = "<none>";

/// REPOSITORY and TAG of a name. What has a digest is not what its tag stands for.
pub fn columns(source: &ImageSource) -> (String, String) {
    let none = || NONE.to_owned();
    match source.reference() {
        None => (source.to_string(), none()),
        Some(reference) => {
            let repository = format!("{}/{}", reference.registry, reference.repository);
            let tag = reference.tag.filter(|_| reference.digest.is_none());
            (ps::familiar(&repository).to_owned(), tag.unwrap_or_else(none))
        }
    }
}
