//! Turning a layer's tar stream into a directory, in a child process that can reach nothing else.
//!
//! * [`parent`]: starting a child, feeding it, and hearing what came of it.
//! * [`child`]: the child's confinement and its two threads.
//! * `members`, `fields` and `sparse`: the tar format. [`compression`]: what is around it.
//! * `extract` and `tree`: files and directories in overlayfs's form.
//! * `fuzzing`: the same without a child, for those who throw nonsense at it.
//!
//! # Decisions
//! Directories, and not one EROFS image per layer that is mounted straight from its file (Linux 6.12): one file to
//! make and to remove in place of tens of thousands of inodes. What that could win at most was measured with 57,000
//! entries and 888 MB in 5 layers on two busy cores, kernel 6.18, in turns: the streams took the same way, through the
//! pipe, inflated and hashed, and were then written into one file each, with no tar read and no inode described.
//!
//! ```text
//!               seconds                  CPU seconds
//!         directories   one file    directories   one file
//! plain           6.3        2.0            3.4        1.5
//! gzip           12.0        8.5            6.1        4.2
//! zstd            9.1        5.0            4.3        2.7
//! ```
//!
//! So it would be worth its price where the writer takes little of it back, least for gzip, of which inflating is
//! most. The price is the whole of it: a writer of that format in the child, a mount for each layer of whatever starts
//! (0.5 ms, and as much for the overlay), recipes, builds, commits and pushes that read from mounts, layers in use as
//! long as they are mounted, and directories beside it for older kernels and for what is here already. A part of that
//! would be a store of two kinds of which one cannot be pushed or built on. `cargo bench --bench pull -- --engine
//! floor --engine file` shows the same bound with the system's own tools.

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
