//! The journal of a state root: what happened to containers, images, networks and volumes, whoever did it.
//!
//! ```text
//! monitors ─────────┐                                     ┌─> `evenkeel events`
//! engine of apply,  ├─ append ─> ROOT/events/journal ─────┤
//! watch, commands ──┘              │ full                 └─> whoever reads lines of JSON
//!                                  └─> journal.1, in place of the one before
//! ```
//!
//! * [`append`](Journal::append) adds an [`Event`](crate::model::event::Event), one line by one write.
//! * [`Reader`] gives what is there, and what comes as long as it is asked, over rotations.
//!
//! # Decisions
//! * An event is a tale and no record: nothing decides by it, so nothing waits for it. It is not synced, and after a power cut
//!   the last ones may be missing, or the very last one torn. Its reader skips that, and the next writer ends its line.
//! * No lock is held to write, which somebody might hold while he is stopped. Linux appends one write of a file that was opened
//!   with O_APPEND as a whole (the inode is locked for as long as it takes; write(2), open(2)), so lines of many writers do not
//!   mix. A write that comes short, on a full disk, is not gone on with: another line may stand behind it already.
//! * The file is opened for each line, which takes some ten microseconds at a time when a container takes milliseconds: so no
//!   writer holds the file of before the last rotation, and a monitor no descriptor for what it says once a day.
//! * Two files of 8 MiB at most, some 60,000 events: enough to see what last week did, and no more than one layer of an image.
//!   A rotation is a rename. Who has just opened the file before it writes behind what was rotated; so readers look there, too.
//! * A directory of its own, so that one watch of inotify(7) sees the file, its rotation and nothing else.
//!
//! An earlier version takes no notice of the directory. A monitor that one has started tells nothing until its container is
//! started again; a root that has no directory gets it with the first event, or the first reader.

mod append;
mod reader;

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

pub use reader::{Reader, Start};

/// The file that is written to, and the one before.
const CURRENT: &str = "journal";
const ROTATED: &str = "journal.1";

/// How large a file becomes, in bytes.
const LARGEST: u64 = 8 << 20;

/// Where a journal is.
#[derive(Debug, Clone)]
pub struct Journal {
    directory: PathBuf,
    largest: u64,
}

impl Journal {
    /// The journal in this directory: [`Paths::events`](crate::model::paths::Paths::events). Nothing is made yet.
    pub fn new(directory: &Path) -> Journal {
        Journal { directory: directory.to_owned(), largest: LARGEST }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory is there, and nobody but root enters: events tell of commands and their arguments.
    pub fn make_directory(&self) -> io::Result<()> {
        match std::fs::DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    fn current(&self) -> PathBuf {
        self.directory.join(CURRENT)
    }

    fn rotated(&self) -> PathBuf {
        self.directory.join(ROTATED)
    }
}
