//! Turning a layer's tar stream into a directory, in a child process that can reach nothing else.

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
