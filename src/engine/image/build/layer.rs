//! From what an instruction wrote to a layer.
//!
//! The upper directory of an overlay is already in the form in which the store keeps layers; what is missing is the
//! digest. So the directory is written as a tar stream into a hash, and then only renamed.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use rustix::io::Errno;

use crate::engine::image::digesting::Digesting;
use crate::engine::image::error::ImageError;
use crate::engine::image::pack::{Entry, Packer, Purpose, is_whiteout, walk};
use crate::engine::image::store::record::LayerRecord;
use crate::engine::image::store::session::{FinishedLayer, StagedLayer};
use crate::runtime::layer;

/// Attributes by which overlayfs remembers where it copied from: they mean nothing in a layer.
const OVERLAY_MEMORY: [&str; 4] =
    ["trusted.overlay.origin", "trusted.overlay.impure", "trusted.overlay.nlink", "trusted.overlay.uuid"];

/// Gives the empty upper directory the look that `/` has in the layer below it.
pub fn dress_root(upper: &Path, below: &Path) -> Result<(), ImageError> {
    let failed = || ImageError::file("prepare", upper);
    let root = layer::open(below).and_then(|root| File::from(root).metadata());
    let root = root.map_err(ImageError::file("look at", below))?;
    chown(upper, Some(root.uid()), Some(root.gid())).map_err(failed())?;
    fs::set_permissions(upper, Permissions::from_mode(root.mode() & 0o7777)).map_err(failed())?;
    let time = Timespec { tv_sec: root.mtime(), tv_nsec: root.mtime_nsec() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, upper, &times, AtFlags::empty()).map_err(|errno| failed()(errno.into()))
}

/// Finishes the layer whose upper directory is `staged`. Nothing writes to it any more.
pub fn finish(staged: StagedLayer) -> Result<FinishedLayer, ImageError> {
    let mut digesting = Digesting::new(io::sink());
    let mut record = write(&staged.tree(), &mut digesting, &mut |entry| forget(entry.path))?;
    let (diff_id, size) = digesting.finish();
    record.tar_size = size;
    Ok(FinishedLayer { diff_id, staged, record })
}

/// Writes the tree of a layer as a tar stream, the same for the same tree. `visit` sees each entry that is no whiteout
/// before it is written.
pub fn write(
    root: &Path,
    to: impl Write,
    visit: &mut dyn FnMut(&Entry<'_>) -> Result<(), ImageError>,
) -> Result<LayerRecord, ImageError> {
    let mut packer = Packer::of_layer(to);
    let mut record = LayerRecord::default();
    walk(root, Purpose::Layer, &mut |entry| {
        record.entries += 1;
        if !is_whiteout(entry.metadata) {
            visit(&entry)?;
            record.content_size += if entry.metadata.is_file() { entry.metadata.size() } else { 0 };
        }
        packer.layer_member(&entry)
    })?;
    packer.finish(root)?;
    Ok(record)
}

fn forget(path: &Path) -> Result<(), ImageError> {
    for name in OVERLAY_MEMORY {
        match rustix::fs::lremovexattr(path, name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(ImageError::file("remove the attributes of", path)(errno.into())),
        }
    }
    Ok(())
}
