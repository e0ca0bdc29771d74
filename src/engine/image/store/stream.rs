//! The tar stream of a layer, made again from what is here.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use sha2::{Digest as _, Sha256};

use super::Store;
use crate::engine::image::build::layer;
use crate::engine::image::error::ImageError;
use crate::engine::image::recipe;
use crate::model::id::Digest;

impl Store {
    /// Writes the uncompressed tar stream whose digest is `diff_id`, as its recipe says or, for a layer that was made
    /// here, by the writer that made it. Returns its length.
    ///
    /// # Errors
    /// [`ImageError::Unrepeatable`] where the tree is not what was unpacked. By then something else has been written, so
    /// whoever passes it on does that afterwards.
    pub fn write_layer(&self, diff_id: &Digest, to: &mut dyn Write) -> Result<u64, ImageError> {
        let record = self.layer_record(diff_id)?.filter(|_| self.has_layer(diff_id));
        let record = record.ok_or_else(|| ImageError::NoLayer { diff_id: diff_id.clone() })?;
        let tree = self.layer_path(diff_id);
        let failed = ImageError::file("write again the layer in", &tree);
        let mut counted = Counted { to, failure: None, hasher: Sha256::new(), size: 0 };
        let written = match File::open(tree.with_file_name(recipe::NAME)) {
            Ok(recipe) => recipe::open_tree(&tree)
                .and_then(|tree| {
                    recipe::replay(
                        &recipe,
                        tree.as_fd(),
                        record.replaced,
                        || self.spool().map_err(io::Error::other),
                        &mut counted,
                    )
                })
                .map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                layer::write(&tree, &mut counted, &mut |_| Ok(())).map(drop)
            }
            Err(error) => Err(failed(error)),
        };
        // That nobody takes it is not the layer's fault.
        counted.failure.take().map_or(written, |error| Err(ImageError::Output(error)))?;
        let actual = Digest::from_sha256(&counted.hasher.finalize().into());
        match actual == *diff_id {
            true => Ok(counted.size),
            false => Err(ImageError::Unrepeatable { layer: diff_id.short().to_owned() }),
        }
    }
}

/// Digests and counts what passes.
struct Counted<'a> {
    to: &'a mut dyn Write,
    /// Why no more could be passed on.
    failure: Option<io::Error>,
    hasher: Sha256,
    size: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes).map_err(|error| {
            let kind = error.kind();
            self.failure = Some(error);
            io::Error::from(kind)
        })?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
