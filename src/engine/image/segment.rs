//! A part of a sparse file.

/// Where a file has contents; what lies between segments is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub offset: u64,
    pub length: u64,
}
