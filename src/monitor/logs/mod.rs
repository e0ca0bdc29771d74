//! A container's log: one JSON object a line, in files that are rotated.
//!
//! ```text
//! {"time":"2026-11-21T04:05:06.123456789Z","stream":"stdout","log":"a line\n"}
//! ```
//!
//! The fields are those of Docker's `json-file`, so what reads those files reads these. `log` holds the line with its
//! newline; a piece without one is continued by the next entry of the same stream (a line of more than 16 KiB, or the
//! last words of a process that ended without a newline). Bytes that are not UTF-8 become U+FFFD, each run that
//! cannot begin a character one, as Docker does: JSON has no other way, and the rest of the line stays readable.
//!
//! `container.log` is written to; `container.log.1` is the one before, and so on. The first entry of each file has one
//! more field, `file`: the how many-eth file of this log it is, which those who follow tell a gap by. [`entry`] makes and reads lines,
//! `splitter` and `writer` are the monitor's side, [`reader`] that of `evenkeel logs`.

pub mod entry;
pub mod reader;
pub(super) mod splitter;
pub(super) mod writer;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::model::paths::LOG_FILE;

pub use entry::{Entry, Stream};
pub use reader::{Lost, Passage, Reader, Selection};

/// The log file of this age: 0 is written to.
fn log_file(directory: &Path, age: u32) -> PathBuf {
    match age {
        0 => directory.join(LOG_FILE),
        age => directory.join(format!("{LOG_FILE}.{age}")),
    }
}

/// Which file of its log this is; `None` while nothing is in it.
fn number_of(file: &File) -> Option<u64> {
    let mut beginning = [0; entry::LONGEST_FILE_MARK];
    let length = file.read_at(&mut beginning, 0).ok()?;
    entry::marked_number(&beginning[..length])
}
