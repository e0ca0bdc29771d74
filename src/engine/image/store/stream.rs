//! The tar stream of a layer, made again from what is here.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use super::Store;
use crate::engine::image::build::layer;
use crate::engine::image::digesting::Digesting;
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
        let files = self.layer_path(diff_id);
        let failed = ImageError::file("write again the layer in", &files);
        let mut digesting = Digesting::new(to);
        let written = match File::open(files.with_file_name(recipe::NAME)) {
            Ok(recipe) => crate::runtime::layer::open(&files)
                .and_then(|tree| {
                    recipe::replay(
                        &recipe,
                        tree.as_fd(),
                        record.replaced,
                        || self.spool().map_err(io::Error::other),
                        &mut digesting,
                    )
                })
                .map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                layer::write(&files, &mut digesting, &mut |_| Ok(())).map(drop)
            }
            Err(error) => Err(failed(error)),
        };
        // That nobody takes it is not the layer's fault.
        digesting.take_failure().map_or(written, |error| Err(ImageError::Output(error)))?;
        let (actual, size) = digesting.finish();
        match actual == *diff_id {
            true => Ok(size),
            false => Err(ImageError::Unrepeatable { layer: diff_id.short().to_owned() }),
        }
    }
}
