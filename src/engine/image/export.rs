//! A layer's bytes, made again from its tree: the tar stream that its diff id is the digest of.
//!
//! A layer that was unpacked has a recipe beside its tree ([`super::unpack::recipe`]); one that was built here has been
//! written by [`super::build::layer`] and is written so again. Either way the digest decides.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use sha2::{Digest as _, Sha256};

use super::build;
use super::error::ImageError;
use super::store::Store;
use super::unpack::recipe::{Step, Steps};
use crate::model::id::Digest;

const BUFFER: usize = 256 << 10;

impl Store {
    /// Writes the uncompressed tar stream of a layer. What was written is worth nothing unless this returns `Ok`: that
    /// it has the right digest shows at its end. Nothing of the layer may be removed meanwhile: see [`Store::hold`].
    pub fn write_layer(&self, diff_id: &Digest, out: impl Write) -> Result<u64, ImageError> {
        let mut out = Hashing { out, hasher: Sha256::new(), size: 0 };
        let tree = self.layer_path(diff_id);
        match File::open(self.recipe_path(diff_id)) {
            Ok(recipe) => follow(recipe, &tree, &mut out)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => build::layer::write(&tree, &mut out)?,
            Err(error) => return Err(ImageError::file("open the recipe of", &tree)(error)),
        }
        let actual = Digest::from_sha256(&out.hasher.finalize().into());
        match actual == *diff_id {
            true => Ok(out.size),
            false => Err(ImageError::Unrepeatable { layer: diff_id.short().to_owned() }),
        }
    }
}

fn follow(recipe: File, tree: &Path, out: &mut dyn Write) -> Result<(), ImageError> {
    let unreadable = || ImageError::file("follow the recipe of", tree);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, tree, flags, Mode::empty()).map_err(|errno| unreadable()(errno.into()))?;
    let mut steps = Steps::new(recipe).map_err(unreadable())?;
    let mut buffer = vec![0; BUFFER];
    while let Some(step) = steps.step().map_err(unreadable())? {
        match step {
            Step::Bytes(bytes) => out.write_all(&bytes).map_err(ImageError::file("write the layer", tree))?,
            Step::Contents { size, path } => {
                let mut file = contents(&root, &path).map_err(unreadable())?.take(size);
                loop {
                    match file.read(&mut buffer).map_err(unreadable())? {
                        0 => break,
                        count => out.write_all(&buffer[..count]).map_err(ImageError::file("write the layer", tree))?,
                    }
                }
            }
        }
    }
    Ok(())
}

/// A file of the tree. The path is the layer's word: nothing outside is reached, no link is followed, and nothing that
/// would wait is opened. One that is not there has no contents, and the digest will tell.
fn contents(root: &OwnedFd, path: &[u8]) -> io::Result<Box<dyn Read>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = match crate::sys::path::openat2(root, path, flags, Mode::empty(), resolve) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => return Ok(Box::new(io::empty())),
        other => File::from(other?),
    };
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(Box::new(file)),
        _ => Ok(Box::new(io::empty())),
    }
}

struct Hashing<W> {
    out: W,
    hasher: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
