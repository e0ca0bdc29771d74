//! Reading what was told, and what is told from now on.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Journal;
use super::append::same_file;
use crate::model::event::{Event, LONGEST_LINE};

/// How much is read at once.
const CHUNK: usize = 64 * 1024;

/// Files that are looked at: the current one, and the one before, to which somebody may still write.
const KEPT: usize = 2;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Beginning,
    /// What is told from now on.
    End,
}

/// Reads a journal, and goes on where it ended each time it is asked.
#[derive(Debug)]
pub struct Reader {
    journal: Journal,
    /// The oldest first.
    files: Vec<Tail>,
}

/// A file, and the beginning of a line whose end was not there yet.
#[derive(Debug)]
struct Tail {
    file: File,
    metadata: Metadata,
    begun: Vec<u8>,
}

impl Reader {
    /// A journal that is not there is one without events.
    pub fn open(journal: &Journal, from: Start) -> io::Result<Reader> {
        let mut reader = Reader { journal: journal.clone(), files: Vec::new() };
        // A rotation between the two leaves the second as the first, and `read` finds the new one.
        let current = Tail::open(&journal.current())?;
        let rotated = Tail::open(&journal.rotated())?;
        let is_one = |one: &Tail, other: &Tail| same_file(&one.metadata, &other.metadata);
        reader.files.extend(rotated.filter(|old| current.as_ref().is_none_or(|current| !is_one(old, current))));
        reader.files.extend(current);
        if from == Start::End {
            for tail in &mut reader.files {
                tail.file.seek(SeekFrom::End(0))?;
            }
        }
        Ok(reader)
    }

    /// Gives `each` what was told since the last time, in the order of the files. Lines that cannot be read are none.
    pub fn read<E: From<io::Error>>(&mut self, mut each: impl FnMut(Event) -> Result<(), E>) -> Result<(), E> {
        loop {
            for tail in &mut self.files {
                tail.read(&mut each)?;
            }
            if !self.follow_rotation()? {
                return Ok(());
            }
        }
    }

    /// Whether there are files that were not there the last time.
    fn follow_rotation(&mut self) -> io::Result<bool> {
        let before = self.files.len();
        // The one before the current may be new, too, where nobody has read for long.
        for path in [self.journal.rotated(), self.journal.current()] {
            let Some(found) = Tail::open(&path)? else { continue };
            if self.files.iter().all(|known| !same_file(&known.metadata, &found.metadata)) {
                self.files.push(found);
            }
        }
        let is_news = self.files.len() > before;
        // What was rotated away is read to its end by now, but for a late line of the last two.
        if !is_news && before > KEPT {
            self.files.drain(..before - KEPT);
        }
        Ok(is_news)
    }
}

impl Tail {
    /// `None` where there is no such file.
    fn open(path: &Path) -> io::Result<Option<Tail>> {
        let opened = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
        match opened {
            Ok(file) => Ok(Some(Tail { metadata: file.metadata()?, file, begun: Vec::new() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read<E: From<io::Error>>(&mut self, each: &mut impl FnMut(Event) -> Result<(), E>) -> Result<(), E> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = self.file.read(&mut chunk)?;
            if count == 0 {
                return Ok(());
            }
            let mut rest = &chunk[..count];
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                self.begun.extend_from_slice(&rest[..end]);
                let event = Event::read(&self.begun);
                self.begun.clear();
                rest = &rest[end + 1..];
                event.map_or(Ok(()), &mut *each)?;
            }
            self.begun.extend_from_slice(rest);
            // Nobody who tells writes such a line: it is kept as one that cannot be read.
            self.begun.truncate(LONGEST_LINE + 1);
        }
    }
}
