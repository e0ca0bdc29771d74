//! Reading a container's log files, also while they are written and rotated.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::entry::{self, Entry};
use super::{log_file, number_of};
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

/// What comes next in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passage {
    Entry(Entry),
    Lost(Lost),
}

impl Passage {
    /// The entry, if it is none of a gap.
    pub fn into_entry(self) -> Option<Entry> {
        match self {
            Passage::Entry(entry) => Some(entry),
            Passage::Lost(_) => None,
        }
    }

    /// Where it belongs among those of other logs.
    pub fn time(&self) -> SystemTime {
        match self {
            Passage::Entry(entry) => entry.time,
            Passage::Lost(lost) => lost.to,
        }
    }
}

/// Files that were gone before they could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    pub files: u64,
    /// When the entry before the gap was written.
    pub from: SystemTime,
    /// When the entry after it was.
    pub to: SystemTime,
}

/// Reads entries in the order in which they were written: first those that are there, then those that come. It
/// follows rotations, however many there were since it last looked. A file that it has seen it holds open, so that
/// the rotation that removes the file takes nothing away; what was gone before it looked is told as [`Lost`].
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    since: Option<SystemTime>,
    current: Option<Source>,
    /// Newer files, the next one first.
    next: VecDeque<Source>,
    /// Found after a gap, and to be told after it.
    after_gap: Option<Entry>,
    /// How many entries it gave.
    given: u64,
    /// The number of the file that was read last.
    number: Option<u64>,
    /// When the entry that was read last was written.
    time: Option<SystemTime>,
}

/// A log file, read up to somewhere. It is the same file after a rotation, which renames it.
#[derive(Debug)]
struct Source {
    file: File,
    inode: u64,
    buffer: Vec<u8>,
    /// Where in `buffer` the next line begins.
    start: usize,
    /// Whether an entry of it was given.
    begun: bool,
}

/// A reader that is slower than the container keeps removed files from being freed. This much of them, at most: what
/// is rotated away beyond is lost to it, and it says so.
const HELD_FILES: usize = 128;
const HELD_BYTES: u64 = 64 * 1024 * 1024;

/// After so many entries it looks whether the file was rotated: one stat(2), where each entry is parsed and printed.
const LOOK_EVERY: u64 = 64;

/// How many names in a row must be missing before the files are known to end there. A rotation renames one after the
/// other, so that one is missing for a moment; it was seen under its next name, or will be.
const NO_MORE: u32 = 3;

impl Reader {
    /// Opens the log files that are there. None is fine: the container has not written yet.
    pub fn open(directory: &Path, selection: &Selection) -> Result<Reader, MonitorError> {
        let mut reader = Reader {
            directory: directory.to_owned(),
            since: selection.since,
            current: None,
            next: VecDeque::new(),
            after_gap: None,
            given: 0,
            number: None,
            time: None,
        };
        reader.next = reader.files_newer_than(None).map_err(|source| reader.failed(source))?;
        if let Some(count) = selection.tail {
            reader.skip_to_last(count).map_err(|source| reader.failed(source))?;
        }
        Ok(reader)
    }

    /// What comes next; `None` when there is nothing *yet*: ask again later.
    #[expect(clippy::should_implement_trait, reason = "an iterator that goes on after None would mislead")]
    pub fn next(&mut self) -> Result<Option<Passage>, MonitorError> {
        if let Some(entry) = self.after_gap.take() {
            return Ok(Some(Passage::Entry(entry)));
        }
        let entry = self.advance().map_err(|source| self.failed(source))?;
        Ok(entry.map(|entry| self.passage(entry)))
    }

    /// The entry, or the gap before it.
    fn passage(&mut self, entry: Entry) -> Passage {
        let to = entry.time;
        let before = self.time.replace(to);
        let Some(current) = self.current.as_mut().filter(|current| !current.begun) else {
            return Passage::Entry(entry);
        };
        current.begun = true;
        let number = number_of(&current.file);
        let missing = self.number.zip(number).map_or(0, |(last, number)| number.saturating_sub(last + 1));
        self.number = number;
        match before {
            Some(from) if missing > 0 => {
                self.after_gap = Some(entry);
                Passage::Lost(Lost { files: missing, from, to })
            }
            _ => Passage::Entry(entry),
        }
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
            if let Some(entry) = current.entry(self.since) {
                self.given += 1;
                if self.given.is_multiple_of(LOOK_EVERY) {
                    self.hold_newer()?;
                }
                return Ok(Some(entry));
            }
            if current.fill()? {
                continue;
            }
            if self.next.is_empty() {
                self.hold_newer()?;
                if self.next.is_empty() {
                    return Ok(None);
                }
                // Rotated. Something may have been written between the end that was seen and the rotation.
                continue;
            }
            self.leave_current();
        }
    }

    /// Goes on to the next file. One that nothing was chosen from counts as read, too.
    fn leave_current(&mut self) {
        if let Some(current) = self.current.take().filter(|current| !current.begun) {
            self.number = number_of(&current.file).or(self.number);
        }
        self.current = self.next.pop_front();
    }

    /// Opens what has become newer than the newest file at hand, before a rotation takes it away.
    fn hold_newer(&mut self) -> io::Result<()> {
        let Some(newest) = self.next.back().or(self.current.as_ref()).map(|source| source.inode) else {
            return Ok(());
        };
        let now = std::fs::metadata(log_file(&self.directory, 0));
        if !now.is_ok_and(|now| now.ino() != newest) {
            return Ok(());
        }
        let bytes: u64 = self.next.iter().filter_map(|source| source.file.metadata().ok()).map(|file| file.len()).sum();
        if self.next.len() < HELD_FILES && bytes < HELD_BYTES {
            let newer = self.files_newer_than(Some(newest))?;
            self.next.extend(newer);
        }
        Ok(())
    }

    /// Opens the files from the newest back to the one before `inode`, and gives them oldest first. A rotation in the
    /// middle of this shows a file under two names; it is taken once.
    fn files_newer_than(&self, inode: Option<u64>) -> io::Result<VecDeque<Source>> {
        let mut sources: VecDeque<Source> = VecDeque::new();
        let mut missing = 0;
        for age in 0.. {
            let file = match File::open(log_file(&self.directory, age)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    missing += 1;
                    if missing == NO_MORE {
                        break;
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            missing = 0;
            let found = file.metadata()?.ino();
            if Some(found) == inode {
                break;
            }
            if sources.iter().all(|source| source.inode != found) {
                sources.push_front(Source { file, inode: found, buffer: Vec::new(), start: 0, begun: false });
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
    /// The next whole entry of what was read.
    fn entry(&mut self, since: Option<SystemTime>) -> Option<Entry> {
        while let Some(end) = self.buffer[self.start..].iter().position(|byte| *byte == b'\n') {
            let line = &self.buffer[self.start..self.start + end];
            let entry = entry::parse(line).filter(|entry| since.is_none_or(|since| entry.time >= since));
            self.start += end + 1;
            if entry.is_some() {
                return entry;
            }
        }
        None
    }

    /// Reads on; false at the end of what is there.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.start);
        self.start = 0;
        Ok(self.file.by_ref().take(CHUNK as u64).read_to_end(&mut self.buffer)? > 0)
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

    /// The numbers that come next, and the gaps before them.
    fn passages(reader: &mut Reader) -> Vec<Result<u32, Lost>> {
        std::iter::from_fn(|| reader.next().unwrap())
            .map(|passage| match passage {
                Passage::Entry(entry) => Ok(entry.text.trim().parse().unwrap()),
                Passage::Lost(lost) => Err(lost),
            })
            .collect()
    }

    fn rest(reader: &mut Reader) -> Vec<u32> {
        passages(reader).into_iter().map(Result::unwrap).collect()
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
    fn a_reader_that_comes_late_gets_what_is_left_and_is_told_what_is_not() {
        for max_files in [1, 2, 5] {
            let directory = tempfile::tempdir().unwrap();
            let mut writer = writer(directory.path(), max_files);
            log(&mut writer, 0..5);
            let mut reader = Reader::open(directory.path(), &Selection::default()).unwrap();
            assert_eq!(rest(&mut reader), (0..5).collect::<Vec<_>>());
            log(&mut writer, 5..500);
            let got = passages(&mut reader);
            let gap = got.iter().position(Result::is_err).unwrap();
            let number = |at: usize| *got[at].as_ref().unwrap();
            let time = |number: u32| SystemTime::UNIX_EPOCH + Duration::from_secs(number.into());
            let lost = got[gap].unwrap_err();
            assert_eq!((lost.from, lost.to), (time(number(gap - 1)), time(number(gap + 1))));
            // 2000 bytes hold 26 of these entries, or a few less.
            assert!(
                (lost.files * 24..lost.files * 27).contains(&u64::from(number(gap + 1) - number(gap - 1))),
                "{got:?}"
            );
            let numbers: Vec<u32> = got.iter().filter_map(|got| got.ok()).collect();
            assert_eq!(numbers[..gap], (5..5 + gap as u32).collect::<Vec<_>>());
            assert_eq!(numbers[gap..], (number(gap + 1)..500).collect::<Vec<_>>());
        }
    }

    #[test]
    fn rotations_while_it_reads_take_nothing_from_a_reader_that_has_seen_the_files() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = writer(directory.path(), 8);
        log(&mut writer, 0..20);
        let mut reader = Reader::open(directory.path(), &Selection::default()).unwrap();
        let mut got = Vec::new();
        // It reads half as fast as is written: in the end, what it is given is out of files that are long gone.
        for begin in (20..1220).step_by(20) {
            got.extend((0..10).map(|_| reader.next().unwrap()));
            log(&mut writer, begin..begin + 20);
        }
        let got = got.into_iter().map(|passage| match passage {
            Some(Passage::Entry(entry)) => entry.text.trim().parse::<u32>().unwrap(),
            other => panic!("{other:?}"),
        });
        assert_eq!(got.collect::<Vec<_>>(), (0..600).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_that_is_missing_for_a_moment_does_not_end_the_files() {
        let directory = tempfile::tempdir().unwrap();
        log(&mut writer(directory.path(), 10), 0..100);
        // As in the middle of a rotation, when `.3` and `.2` have got their next names.
        for age in [3, 2] {
            std::fs::rename(log_file(directory.path(), age), log_file(directory.path(), age + 1)).unwrap();
        }
        assert_eq!(read(directory.path(), None, None), (0..100).collect::<Vec<_>>());
    }
}
