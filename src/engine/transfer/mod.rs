//! Files out of a container and into one, as a stream of tar: what `cp` does.
//!
//! ```text
//! one root ── pack ──> tar ──> unpack ── another root
//! ```
//!
//! A root is a descriptor: that of the host's `/`, or of a container's. Every path is resolved below it by the kernel
//! (`RESOLVE_IN_ROOT`, openat2(2)), each time anew, and what is opened is looked at afterwards; so a process in the
//! container that swaps directories for links while we work (CVE-2018-15664) never leads outside of its own root.
//! Nothing is executed or loaded from there, and names of users are not looked up (CVE-2019-14271).
//!
//! What a container wrote, names and attributes, is in the stream too, and the other end may be the host. So the stream is
//! read by the reader of images' layers, which takes every record for as long as it says that it is; and on the host no
//! name of the stream leads through a link, whoever made it.

mod pack;
mod unpack;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use pack::{Links, Source, pack};
pub use unpack::{Ownership, Way, unpack};

/// Which way files went, and where in the container.
#[derive(Debug, Clone, Copy)]
pub enum Copied<'a> {
    Out(&'a Path),
    In(&'a Path),
}

#[derive(Debug, Error)]
pub enum TransferError {
    #[error("cannot {operation} `{}`", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is a directory", .0.display())]
    IsDirectory(PathBuf),
    #[error("`{}` is no directory", .0.display())]
    NoDirectory(PathBuf),
    #[error("`{}` is a device, which only `--archive` copies", .0.display())]
    Device(PathBuf),
    #[error("the archive has an entry `{}`, which leads out of its directory", .0.display())]
    Escapes(PathBuf),
    #[error("cannot read the archive")]
    Archive {
        #[source]
        source: io::Error,
    },
    #[error("cannot write the archive")]
    Stream {
        #[source]
        source: io::Error,
    },
}

/// What stands before the name of an extended attribute in a PAX header: the form of star, GNU tar and Docker.
const XATTR: &str = "SCHILY.xattr.";

/// The longest list of names, and the longest value (xattr(7)).
const XATTR_LIST_MAX: usize = 64 << 10;
const XATTR_SIZE_MAX: usize = 64 << 10;

/// Whether an extended attribute goes with its file: capabilities (capabilities(7)), and what users noted. Others are of
/// the filesystem or of a security module, and mean nothing elsewhere.
fn carried(name: &str) -> bool {
    name == "security.capability" || name.starts_with("user.")
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TransferError {
    let path = path.to_owned();
    move |source| TransferError::File { operation, path, source }
}

/// A path of a root without its leading slashes, since it is resolved below a descriptor.
fn below(path: &Path) -> &Path {
    match path.strip_prefix("/") {
        Ok(rest) if rest.as_os_str().is_empty() => Path::new("."),
        Ok(rest) => rest,
        Err(_) => path,
    }
}
