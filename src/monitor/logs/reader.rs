//! Reading a container's log files, also while they are written and rotated.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::entry::{self, Entry};
use super::log_file;
use crate::monitor::error::MonitorError;

const CHUNK: usize = 64 * 1024;

/// Which entries to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only this many of the last ones there are now.
    pub tail: Option<usize>,
    /// Only those from this time on.
    pub since: Option<SystemTime>,
}

/// Reads entries in the order in which they were written: first those that are there, then those that come. It
/// follows rotations, however many there were since it last looked, as far as the files still exist.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    since: Option<SystemTime>,
    current: Option<Source>,
    /// Newer files, the next one first.
    next: VecDeque<Source>,
}

/// A log file, read up to somewhere. It is the same file after a rotation, which renames it.
#[derive(Debug)]
struct Source {
    file: File,
    inode: u64,
    buffer: Vec<u8>,
    /// Where in `buffer` the next line begins.
    start: usize,
}

impl Reader {
    /// Opens the log files that are there. None is fine: the container has not written yet.
    pub fn open(directory: &Path, selection: &Selection) -> Result<Reader, MonitorError> {
        let mut reader =
            Reader { directory: directory.to_owned(), since: selection.since, current: None, next: VecDeque::new() };
        reader.next = reader.files_newer_than(None).map_err(|source| reader.failed(source))?;
        if let Some(count) = selection.tail {
            reader.skip_to_last(count).map_err(|source| reader.failed(source))?;
        }
        Ok(reader)
    }

    /// The next entry; `None` when there is none *yet*: ask again later.
    #[expect(clippy::should_implement_trait, reason = "an iterator that goes on after None would mislead")]
    pub fn next(&mut self) -> Result<Option<Entry>, MonitorError> {
        self.advance().map_err(|source| self.failed(source))
    }

    fn advance(&mut self) -> io::Result<Option<Entry>> {
        loop {
            let Some(current) = &mut self.current else {
                if self.next.is_empty() {
                    self.next = self.files_newer_than(None)?;
                }
                self.current = self.next.pop_front();
                if self.current.is_none() {
                    return Ok(None);
                }
                continue;
            };
            if let Some(entry) = current.entry(self.since)? {
                return Ok(Some(entry));
            }
            if self.next.is_empty() {
                let newest = std::fs::metadata(log_file(&self.directory, 0));
                if !newest.is_ok_and(|newest| newest.ino() != current.inode) {
                    return Ok(None);
                }
                // Rotated. Something may have been written between the end that was seen and the rotation.
                if let Some(entry) = current.entry(self.since)? {
                    return Ok(Some(entry));
                }
                let inode = current.inode;
                self.next = self.files_newer_than(Some(inode))?;
            }
            self.current = self.next.pop_front();
        }
    }

    /// Opens the files from the newest back to the one before `inode`, and gives them oldest first. A rotation in the
    /// middle of this shows a file under two names; it is taken once.
    fn files_newer_than(&self, inode: Option<u64>) -> io::Result<VecDeque<Source>> {
        let mut sources: VecDeque<Source> = VecDeque::new();
        for age in 0.. {
            let file = match File::open(log_file(&self.directory, age)) {
                Ok(file) => file,
                // In the middle of a rotation the newest one is missing for a moment.
                Err(error) if error.kind() == io::ErrorKind::NotFound && age == 0 => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            let found = file.metadata()?.ino();
            if Some(found) == inode {
                break;
            }
            if sources.iter().all(|source| source.inode != found) {
                sources.push_front(Source { file, inode: found, buffer: Vec::new(), start: 0 });
            }
        }
        Ok(sources)
    }

    fn skip_to_last(&mut self, count: usize) -> io::Result<()> {
        let mut left = count;
        for at in (0..self.next.len()).rev() {
            let (offset, found) = last_lines(&self.next[at].file, left)?;
            self.next[at].file.seek(SeekFrom::Start(offset))?;
            left -= found;
            if left == 0 {
                self.next.drain(..at);
                break;
            }
        }
        Ok(())
    }

    fn failed(&self, source: io::Error) -> MonitorError {
        MonitorError::file("read the log files in", &self.directory, source)
    }
}

impl Source {
    /// The next entry that is whole; `None` at the end of what is there.
    fn entry(&mut self, since: Option<SystemTime>) -> io::Result<Option<Entry>> {
        loop {
            while let Some(end) = self.buffer[self.start..].iter().position(|byte| *byte == b'\n') {
                let line = &self.buffer[self.start..self.start + end];
                let entry = entry::parse(line).filter(|entry| since.is_none_or(|since| entry.time >= since));
                self.start += end + 1;
                if entry.is_some() {
                    return Ok(entry);
                }
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            if self.file.by_ref().take(CHUNK as u64).read_to_end(&mut self.buffer)? == 0 {
                return Ok(None);
            }
        }
    }
}

/// Where the last `count` lines of a file begin, and how many there really are.
fn last_lines(file: &File, count: usize) -> io::Result<(u64, usize)> {
    let size = file.metadata()?.len();
    if count == 0 {
        return Ok((size, 0));
    }
    let mut chunk = vec![0; CHUNK];
    let mut found = 0;
    let mut end = size;
    while end > 0 {
        let begin = end.saturating_sub(CHUNK as u64);
        let chunk = &mut chunk[..(end - begin) as usize];
        file.read_exact_at(chunk, begin)?;
        for at in (0..chunk.len()).rev().filter(|at| chunk[*at] == b'\n') {
            // The newline at the very end closes the last line; every other one lies before a line.
            let next_line = begin + at as u64 + 1;
            if next_line < size {
                found += 1;
            }
            if found == count {
                return Ok((next_line, found));
            }
        }
        end = begin;
    }
    Ok((0, found + usize::from(size > 0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::container::Logging;
    use crate::model::units::ByteSize;
    use crate::monitor::clock::Now;
    use crate::monitor::logs::Stream;
    use crate::monitor::logs::writer::Writer;
    use std::ops::Range;
    use std::time::Duration;

    fn writer(directory: &Path, max_files: u32) -> Writer {
        Writer::new(directory.to_owned(), Logging { max_size: ByteSize(2000), max_files })
    }

    fn log(writer: &mut Writer, numbers: Range<u32>) {
        for number in numbers {
            let now = Now { wall: SystemTime::UNIX_EPOCH + Duration::from_secs(number.into()), ..Now::read() };
            let mut batch = writer.begin(now, Stream::Stdout);
            batch.entry(format!("{number}\n").as_bytes());
            batch.flush();
        }
    }

    fn rest(reader: &mut Reader) -> Vec<u32> {
        std::iter::from_fn(|| reader.next().unwrap()).map(|entry| entry.text.trim().parse().unwrap()).collect()
    }

    fn read(directory: &Path, tail: Option<usize>, since: Option<u64>) -> Vec<u32> {
        let since = since.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        rest(&mut Reader::open(directory, &Selection { tail, since }).unwrap())
    }

    #[test]
    fn the_tail_reaches_over_files() {
        let directory = tempfile::tempdir().unwrap();
        log(&mut writer(directory.path(), 10), 0..100);
        assert!(log_file(directory.path(), 3).exists());
        for tail in [0, 1, 2, 26, 27, 50, 99, 100, 1000] {
            let first = 100_u32.saturating_sub(tail as u32);
            assert_eq!(read(directory.path(), Some(tail), None), (first..100).collect::<Vec<_>>(), "{tail}");
        }
        assert_eq!(read(directory.path(), None, Some(42)), (42..100).collect::<Vec<_>>());
        assert_eq!(read(directory.path(), Some(10), Some(95)), (95..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_reader_follows_over_rotations() {
        let directory = tempfile::tempdir().unwrap();
        let mut reader = Reader::open(directory.path(), &Selection::default()).unwrap();
        assert!(rest(&mut reader).is_empty());
        let mut writer = writer(directory.path(), 10);
        for begin in (0..300).step_by(60) {
            log(&mut writer, begin..begin + 60);
            assert_eq!(rest(&mut reader), (begin..begin + 60).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_reader_that_comes_late_gets_what_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = writer(directory.path(), 2);
        log(&mut writer, 0..5);
        let mut reader = Reader::open(directory.path(), &Selection { tail: Some(0), since: None }).unwrap();
        log(&mut writer, 5..500);
        let got = rest(&mut reader);
        assert_eq!(*got.last().unwrap(), 499);
        assert!(got.windows(2).skip(30).all(|pair| pair[1] == pair[0] + 1), "{got:?}");
    }
}
