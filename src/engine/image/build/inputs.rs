//! What a build follows from: the Dockerfile, the context, the bases. And whether that is what it was.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::tree::{Item, Owners, Tree, look};
use crate::engine::image::error::ImageError;
use crate::engine::image::options::Options;
use crate::engine::image::pull;
use crate::engine::image::store::Store;
use crate::engine::image::store::record::{Stamp, sha256};
use crate::model::build::BuildSpec;
use crate::model::dockerfile::pattern::Ignore;
use crate::model::id::Digest;
use crate::model::image::Pull;
use crate::model::lock::Locks;

/// Of a Dockerfile or a list of what is no part of a context.
const TEXT_MAX: u64 = 16 << 20;

pub struct Inputs {
    /// The Dockerfile.
    pub text: String,
    pub context: Tree,
    items: Vec<Item>,
    look: Digest,
}

impl Inputs {
    /// The state root, which changes while something is built, is no part of a context that it lies in.
    pub fn read(spec: &BuildSpec, store: &Store) -> Result<Inputs, ImageError> {
        let text = read_text(&spec.dockerfile).map_err(ImageError::file("read", &spec.dockerfile))?;
        let failed = || ImageError::file("look at", &spec.context);
        let context = Tree::open(&spec.context, ignore(spec)?).and_then(|tree| tree.without(store.state_root()));
        let context = context.map_err(failed())?;
        let items = context.whole().map_err(failed())?;
        let look = look(&items);
        Ok(Inputs { text, context, items, look })
    }

    /// How it looks now, for [`moved`].
    pub fn stamp(&self, spec: &BuildSpec, bases: BTreeMap<String, Digest>) -> Result<Stamp, ImageError> {
        let contents = self.contents(spec)?;
        Ok(Stamp::Build { dockerfile: self.dockerfile(), look: self.look.clone(), contents, bases })
    }

    fn dockerfile(&self) -> Digest {
        sha256([self.text.as_bytes()])
    }

    fn contents(&self, spec: &BuildSpec) -> Result<Digest, ImageError> {
        let contents = self.context.contents(&self.items, Owners::Replaced);
        contents.map_err(ImageError::file("read", &spec.context))
    }

    /// What is different since `before`. Files that were only touched are read, and are not different.
    pub fn difference(&self, spec: &BuildSpec, before: &Stamp) -> Result<Option<String>, ImageError> {
        let Stamp::Build { dockerfile, look, contents, bases: _ } = before else {
            return Ok(Some("it was no build".to_owned()));
        };
        if *dockerfile != self.dockerfile() {
            return Ok(Some("its Dockerfile changed".to_owned()));
        }
        let changed = *look != self.look && *contents != self.contents(spec)?;
        Ok(changed.then(|| "files of its context changed".to_owned()))
    }
}

/// Why the image that was built of `stamp` is not what a build would make now.
pub fn moved(store: &Store, spec: &BuildSpec, stamp: &Stamp, options: &Options) -> Result<Option<String>, ImageError> {
    let inputs = match Inputs::read(spec, store) {
        // The image is here, and nothing else could be made.
        Err(ImageError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        inputs => inputs?,
    };
    if let Some(changed) = inputs.difference(spec, stamp)? {
        return Ok(Some(changed));
    }
    if let Some(relocked) = relocked(stamp, &options.bases) {
        return Ok(Some(relocked));
    }
    let Stamp::Build { bases, .. } = stamp else { return Ok(None) };
    let asked = |(reference, _): &(&String, &Digest)| {
        // A digest stands for the same forever.
        spec.pull == Pull::Always
            && !options.bases.as_ref().is_some_and(|locks| locks.contains_key(*reference))
            && !reference.contains('@')
    };
    for (reference, was) in bases.iter().filter(asked) {
        let now = pull::current_digest(reference, options)?;
        if now != *was {
            return Ok(Some(format!(
                "its base {reference} is {} at the registry and was {}",
                now.short(),
                was.short()
            )));
        }
    }
    Ok(None)
}

/// Which base the lock has another image for than the one that was built on.
pub fn relocked(stamp: &Stamp, locks: &Option<Locks>) -> Option<String> {
    let Stamp::Build { bases, .. } = stamp else { return None };
    let (name, locked) = locks.iter().flatten().find(|(name, locked)| bases.get(*name) != Some(*locked))?;
    let was = bases.get(name).map_or("another image", Digest::short);
    Some(format!("its base {name} is locked to {} and was {was}", locked.short()))
}

/// What of the context is left out: by the file beside the Dockerfile, or else by that of the context.
fn ignore(spec: &BuildSpec) -> Result<Ignore, ImageError> {
    let mut beside = spec.dockerfile.clone().into_os_string();
    beside.push(".dockerignore");
    let own = spec.context.join(".dockerignore");
    for path in [PathBuf::from(beside), own] {
        match read_if_there(&path)? {
            None => {}
            Some(text) => {
                let malformed = |problem| ImageError::Malformed { subject: path.display().to_string(), problem };
                return Ignore::parse(&text).map_err(malformed);
            }
        }
    }
    Ok(Ignore::default())
}

fn read_if_there(path: &Path) -> Result<Option<String>, ImageError> {
    match read_text(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(ImageError::file("read", path)),
    }
}

/// A file of a repository that may be anybody's, where a link could lead to what has no end.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(TEXT_MAX + 1).read_to_string(&mut text)?;
    match text.len() as u64 > TEXT_MAX {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {} MiB", TEXT_MAX >> 20))),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dockerfile_without_an_end_is_an_error_and_takes_no_memory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("Dockerfile");
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert_eq!(read_text(&path).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read_if_there(&directory.path().join("none")).unwrap(), None);
    }
}
