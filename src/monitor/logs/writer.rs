//! Writing a container's log files: batches, rotation, and what happens when there is no room.
//!
//! # Decisions
//! * A full disk never blocks or ends the workload. Lines that cannot be written are counted and forgotten; as soon
//!   as something can be written again, an entry on stderr says how many are missing and why.
//! * A batch that was written in part is cut back to its last whole line, so readers meet no torn entry.
//! * If a full file cannot be renamed, it is emptied: that logs are bounded is worth more than their past.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::entry::{self, LONGEST_FILE_MARK, Stream};
use super::{log_file, number_of};
use crate::model::container::Logging;
use crate::monitor::clock::Now;

/// A batch that grew to this size is written before more is added.
const FLUSH_SIZE: usize = 64 * 1024;

#[derive(Debug)]
pub struct Writer {
    directory: PathBuf,
    logging: Logging,
    /// `None` until the first entry, and while it cannot be opened.
    file: Option<File>,
    size: u64,
    /// Which file of this log that is; `None` until one was opened.
    number: Option<u64>,
    /// Whole lines that are not written yet.
    batch: Vec<u8>,
    lost: Option<Lost>,
}

#[derive(Debug)]
struct Lost {
    lines: u64,
    reason: io::Error,
}

/// Entries of one stream and one moment.
pub struct Batch<'a> {
    writer: &'a mut Writer,
    now: Now,
    prefix: String,
}

impl Batch<'_> {
    /// Adds one entry. It is in the file after [`Batch::flush`].
    pub fn entry(&mut self, text: &[u8]) {
        let writer = &mut *self.writer;
        let start = writer.batch.len();
        entry::append(&mut writer.batch, &self.prefix, text);
        let mark = if writer.size == 0 { LONGEST_FILE_MARK } else { 0 };
        let full = writer.size + (writer.batch.len() + mark) as u64 > writer.logging.max_size.0;
        if full && writer.size + start as u64 > 0 {
            let entry = writer.batch.split_off(start);
            writer.flush(self.now);
            writer.rotate();
            writer.batch = entry;
        } else if writer.batch.len() >= FLUSH_SIZE {
            writer.flush(self.now);
        }
    }

    pub fn flush(self) {
        self.writer.flush(self.now);
    }
}

impl Writer {
    pub fn new(directory: PathBuf, logging: Logging) -> Writer {
        Writer { directory, logging, file: None, size: 0, number: None, batch: Vec::new(), lost: None }
    }

    /// Takes effect with the next entry.
    pub fn set_logging(&mut self, logging: Logging) {
        self.logging = logging;
    }

    /// Begins a batch.
    pub fn begin(&mut self, now: Now, stream: Stream) -> Batch<'_> {
        Batch { prefix: entry::prefix(now.wall, stream), writer: self, now }
    }

    /// Gives memory back that only a busy log needs.
    pub fn release_memory(&mut self) {
        self.batch = Vec::new();
    }

    fn flush(&mut self, now: Now) {
        if self.batch.is_empty() {
            return;
        }
        if let Some(lost) = self.lost.take() {
            let mut notice = Vec::new();
            let text = format!("evenkeel: {} lines were lost here: {}\n", lost.lines, lost.reason);
            entry::append(&mut notice, &entry::prefix(now.wall, Stream::Stderr), text.as_bytes());
            let notice_length = notice.len();
            notice.append(&mut self.batch);
            self.batch = notice;
            let written = self.write_batch();
            if let Err((kept, reason)) = written {
                // The notice itself is no line of the container's: it is made again next time.
                let lines = lines_in(&self.batch[kept.max(notice_length)..]);
                let before = if kept == 0 { lost.lines } else { 0 };
                self.lost = Some(Lost { lines: before + lines, reason });
            }
        } else if let Err((kept, reason)) = self.write_batch() {
            self.lost = Some(Lost { lines: lines_in(&self.batch[kept..]), reason });
        }
        self.batch.clear();
    }

    /// Writes the batch. On an error, the number of its bytes that are in the file: whole lines.
    fn write_batch(&mut self) -> Result<(), (usize, io::Error)> {
        let file = match self.file.take() {
            Some(file) => file,
            None => self.open().map_err(|reason| (0, reason))?,
        };
        // The first line of a file carries the file's number: the mark takes the place of its brace.
        let mark = if self.size == 0 { entry::file_mark(self.number.unwrap_or(1)) } else { String::new() };
        self.batch.splice(..usize::from(!mark.is_empty()), mark.bytes());
        let written = self.write_to(file);
        written.map_err(|(kept, reason)| {
            if !mark.is_empty() {
                self.batch.splice(..mark.len(), *b"{");
            }
            (kept.saturating_sub(mark.len().saturating_sub(1)), reason)
        })
    }

    fn write_to(&mut self, mut file: File) -> Result<(), (usize, io::Error)> {
        let mut done = 0;
        while done < self.batch.len() {
            let result = match file.write(&self.batch[done..]) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                other => other,
            };
            match result {
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(reason) => {
                    let kept = self.batch[..done].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                    self.size += kept as u64;
                    // A file that cannot even be cut is opened anew, which mends a torn last line.
                    self.file = file.set_len(self.size).is_ok().then_some(file);
                    return Err((kept, reason));
                }
            }
        }
        self.size += done as u64;
        self.file = Some(file);
        Ok(())
    }

    /// Opens the current file and ends a line that a crash left torn.
    fn open(&mut self) -> io::Result<File> {
        std::fs::create_dir_all(&self.directory)?;
        let path = log_file(&self.directory, 0);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        self.size = file.seek(SeekFrom::End(0))?;
        let before = || File::open(log_file(&self.directory, 1)).ok().and_then(|file| number_of(&file));
        self.number = number_of(&file).or(self.number).or_else(|| before().map(|number| number + 1)).or(Some(1));
        if self.size > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                self.size += 1;
            }
        }
        Ok(file)
    }

    /// Makes room: every file ages by one, the oldest goes.
    fn rotate(&mut self) {
        if self.size > 0 {
            self.number = self.number.map(|number| number + 1);
        }
        let files = self.logging.max_files.max(1);
        let mut result = Ok(());
        if files == 1 {
            // A new file, not an emptied one, so that those who follow finish the old one.
            result = std::fs::remove_file(log_file(&self.directory, 0));
        } else {
            for age in (0..files - 1).rev() {
                match std::fs::rename(log_file(&self.directory, age), log_file(&self.directory, age + 1)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => result = Err(error),
                    Ok(()) => {}
                }
            }
        }
        // Older ones are left when `max_files` became smaller.
        let mut age = files;
        while std::fs::remove_file(log_file(&self.directory, age)).is_ok() {
            age += 1;
        }
        match (&self.file, result) {
            (Some(file), Err(_)) if file.set_len(0).is_ok() => {}
            _ => self.file = None,
        }
        self.size = 0;
    }
}

fn lines_in(batch: &[u8]) -> u64 {
    batch.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::units::ByteSize;
    use crate::monitor::logs::{Reader, Selection};
    use std::path::Path;

    fn log(writer: &mut Writer, lines: impl IntoIterator<Item = String>) {
        let mut batch = writer.begin(Now::read(), Stream::Stdout);
        lines.into_iter().for_each(|line| batch.entry(line.as_bytes()));
        batch.flush();
    }

    fn texts(directory: &Path) -> Vec<String> {
        let mut reader = Reader::open(directory, &Selection::default()).unwrap();
        std::iter::from_fn(|| reader.next().unwrap())
            .map(|passage| passage.into_entry().expect("nothing is lost").text)
            .collect()
    }

    fn logging(max_size: u64, max_files: u32) -> Logging {
        Logging { max_size: ByteSize(max_size), max_files }
    }

    #[test]
    fn files_are_rotated_before_they_exceed_their_size_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(directory.path().to_owned(), logging(1000, 3));
        log(&mut writer, (0..100).map(|n| format!("line {n}\n")));
        let mut names: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        assert_eq!(names, (0..3).map(|age| log_file(directory.path(), age)).collect::<Vec<_>>());
        assert!(names.iter().all(|name| std::fs::metadata(name).unwrap().len() <= 1000));
        let texts = texts(directory.path());
        assert_eq!(texts.last().unwrap(), "line 99\n");
        let first: usize = texts[0].trim().rsplit(' ').next().unwrap().parse().unwrap();
        assert_eq!(texts, (first..100).map(|n| format!("line {n}\n")).collect::<Vec<_>>());
    }

    #[test]
    fn fewer_files_after_a_reload_remove_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(directory.path().to_owned(), logging(300, 5));
        log(&mut writer, (0..30).map(|n| format!("line {n}\n")));
        assert!(log_file(directory.path(), 4).exists());
        writer.set_logging(logging(300, 1));
        log(&mut writer, (30..40).map(|n| format!("line {n}\n")));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(texts(directory.path()).last().unwrap(), "line 39\n");
    }

    #[test]
    fn files_are_numbered_on_by_the_next_monitor() {
        let directory = tempfile::tempdir().unwrap();
        let numbers = || [0, 1].map(|age| number_of(&File::open(log_file(directory.path(), age)).unwrap()).unwrap());
        let mut writer = Writer::new(directory.path().to_owned(), logging(300, 3));
        log(&mut writer, (0..30).map(|n| format!("line {n}\n")));
        let [newest, before] = numbers();
        assert!(newest > 5 && before == newest - 1, "{newest} {before}");
        // It ends, once between two entries, once in the middle of a rotation.
        let mut writer = Writer::new(directory.path().to_owned(), logging(300, 3));
        log(&mut writer, ["after\n".to_owned()]);
        assert!(numbers()[0] == newest || numbers() == [newest + 1, newest]);
        let [newest, _] = numbers();
        writer.rotate();
        let mut writer = Writer::new(directory.path().to_owned(), logging(300, 3));
        log(&mut writer, ["after\n".to_owned()]);
        assert_eq!(numbers(), [newest + 1, newest]);
    }

    #[test]
    fn a_torn_line_of_an_earlier_life_is_ended_and_skipped() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(log_file(directory.path(), 0), r#"{"time":"2026-11-21T0"#).unwrap();
        let mut writer = Writer::new(directory.path().to_owned(), Logging::default());
        log(&mut writer, ["whole\n".to_owned()]);
        assert_eq!(texts(directory.path()), ["whole\n"]);
    }

    #[test]
    fn what_could_not_be_written_is_counted_and_said_when_it_goes_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(directory.path().to_owned(), Logging::default());
        // /dev/full refuses every write with ENOSPC (full(4)) and cannot be cut.
        std::os::unix::fs::symlink("/dev/full", log_file(directory.path(), 0)).unwrap();
        log(&mut writer, ["a\n".to_owned(), "b\n".to_owned()]);
        log(&mut writer, ["c\n".to_owned()]);
        std::fs::remove_file(log_file(directory.path(), 0)).unwrap();
        writer.file = None;
        log(&mut writer, ["d\n".to_owned()]);
        let texts = texts(directory.path());
        assert_eq!(texts[0], "evenkeel: 3 lines were lost here: No space left on device (os error 28)\n");
        assert_eq!(texts[1..], ["d\n"]);
    }
}
