//! Turning a layer's tar stream into a directory, in a child process that can reach nothing else.
//!
//! * [`parent`]: starting a child, feeding it, and hearing what came of it.
//! * [`child`]: the child's confinement and its two threads.
//! * `members`, `fields` and `sparse`: the tar format. [`compression`]: what is around it.
//! * `extract` and `tree`: files and directories in overlayfs's form.
//! * `fuzzing`: the same without a child, for those who throw nonsense at it.

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
