//! Turning a layer's tar stream into a directory, in a child process that can reach nothing else.
//!
//! * [`parent`]: starting a child, feeding it, and hearing what came of it.
//! * [`child`]: the child's confinement and its two threads.
//! * `members`, `fields` and `sparse`: the tar format. [`compression`]: what is around it.
//! * `extract` and `tree`: files and directories in overlayfs's form.
//! * `fuzzing`: the same without a child, for those who throw nonsense at it.
//!
//! # Decisions
//! Directories, and not one EROFS image per layer that is mounted straight from its file (Linux 6.12), though that is one
//! file to make and to remove in place of tens of thousands of inodes. What it could win at most was measured with
//! 57,000 entries and 888 MB in 5 layers on two busy cores, kernel 6.18: the streams took the same way here, through the
//! pipe, inflated and hashed, and were then written into one file each, with no tar read and no inode described.
//!
//! ```text
//! CPU seconds    directories    one file    less
//! plain                  3.4         2.2     36 %
//! gzip                   6.5         4.6     29 %
//! zstd                   5.3         4.2     21 %
//! ```
//!
//! A registry's layers are gzip or zstd, and a real writer takes some of that back. A third was wanted for what it costs:
//! a writer of that format in the child, a mount for each layer of whatever starts (0.5 ms), recipes, builds and pushes
//! that read from mounts, and all of it a second time for older kernels. Removing takes no time at the prompt as it is.
//! `cargo bench --bench pull -- --engine floor --engine file` compares the two with the system's own tools.

pub mod child;
pub mod compression;
mod extract;
mod fields;
pub(super) mod fuzzing;
mod members;
pub mod parent;
pub mod report;
mod sparse;
mod tree;

pub use child::child_main;
pub use parent::Unpacking;
pub use sparse::Segment;

/// The hidden argument by which `evenkeel` becomes the child.
pub const ARGUMENT: &str = "internal-unpack";

/// What a layer may cost before it is taken for hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory of the child (`RLIMIT_DATA`).
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
