//! Turning a layer's tar stream into a directory or an image, in a child process that can reach nothing else.
//!
//! * [`parent`]: starting a child, feeding it, and hearing what came of it.
//! * [`child`]: the child's confinement and its two threads.
//! * `members`, `fields` and `sparse`: the tar format. [`compression`]: what is around it.
//! * `extract` and `tree`: what members mean, in overlayfs's form. `ground`: what they are made in, which is
//!   `directories` or an `image`. `xattrs` and `acl`: which attributes are kept, and what becomes of lists and modes.
//! * `fuzzing`: the same without a child, for those who throw nonsense at it.
//!
//! # Decisions
//! A layer becomes one EROFS image that is mounted straight from its file, where the kernel does that (Linux 6.12), and a
//! directory elsewhere: one file to make and to remove in place of tens of thousands of inodes, and one that no container
//! can change. Measured with 57,000 entries and 888 MB in 5 layers at once, each time on a new ext4, medians of six runs in
//! turns, on two processors that had two to five times as much else to do:
//!
//! ```text
//!            until it is on the disk         CPU seconds          removed after
//!         directories     images    directories   images    directories   images
//! plain           6.4        4.2            3.2      1.7            2.1      0.2
//! gzip           11.3        6.5            5.8      4.1            2.4      0.2
//! zstd            8.9        5.8            4.2      2.7            2.4      0.2
//! ```
//!
//! The disk has 854 MiB of that in place of 1012. What it costs:
//!
//! * A mount of 0.3 ms for each layer that containers use (see `runtime::layer`), and memory: what is read of an image is
//!   in the page cache once as the image's file and once as the file in it.
//! * Files of different layers are on different devices (stat(2)), as with any overlay of several file systems; a
//!   directory is always on the overlay's. The option `xino=on` would hide that, and give inode numbers beyond 2^63, which
//!   neither 32-bit programs nor those that count in floating point can hold.
//! * Names in memory until the end of the layer: some hundred bytes for each entry, 102 MiB for a million. A layer of so
//!   many that this is more than the limit is unpacked once more, as a directory, of which only directories are remembered.
//!
//! What is not done: the image's file is not sealed (fs-verity), so that who may write to the state root may change what
//! containers execute, as with directories; see `check` for what is seen of that. Whether the kernel mounts images is tried anew
//! in each session of the store.
//!
//! Layers of builds stay directories, since they are what overlayfs has written. Both kinds are stacked on each other.

mod acl;
pub mod child;
pub mod compression;
mod directories;
mod extract;
mod fields;
pub(super) mod fuzzing;
mod ground;
mod image;
pub(in crate::engine) mod members;
pub mod parent;
pub mod report;
mod sparse;
mod tree;
pub(super) mod xattrs;

pub use child::child_main;
pub use parent::{Destination, Unpacking};

/// The hidden argument by which `evenkeel` becomes the child.
pub const ARGUMENT: &str = "internal-unpack";

/// What a layer may cost before it is taken for hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory of the child (`RLIMIT_DATA`). An image takes some hundred for each entry until it is written.
    pub memory: u64,
    /// Bytes of file contents.
    pub content: u64,
    pub entries: u64,
}

impl Default for Limits {
    /// Far above what images have, far below what a small archive can be made to expand to.
    fn default() -> Limits {
        Limits { memory: 256 << 20, content: 64 << 30, entries: 8_000_000 }
    }
}
