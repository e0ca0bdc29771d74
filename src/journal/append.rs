//! Adding a line.
//!
//! ```text
//! open ─> full? ─ flock, or somebody else does ─> rename to journal.1, open anew
//!      ─> does the last line end? ─> one write
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::Journal;
use crate::model::event::Event;

impl Journal {
    /// Adds an event. It waits for nobody.
    ///
    /// # Errors
    /// When it cannot be told: there is no room, or no right to write. That is no reason to leave undone what it tells of.
    pub fn append(&self, event: &Event) -> io::Result<()> {
        let mut file = self.open()?;
        if file.metadata()?.len() >= self.largest {
            file = self.rotate(file)?;
        }
        let mut line = event.line();
        if !ends_its_line(&file)? {
            line.insert(0, b'\n');
        }
        match file.write(&line)? {
            all if all == line.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    fn open(&self) -> io::Result<File> {
        let open = || open_file(&self.current());
        match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_directory()?;
                open()
            }
            opened => opened,
        }
    }

    /// The file to write to in place of a full one. While somebody else is at it, that is the full one.
    fn rotate(&self, full: File) -> io::Result<File> {
        if flock(&full, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(full);
        }
        let is_still_it = match fs::symlink_metadata(self.current()) {
            Ok(found) => same_file(&found, &full.metadata()?),
            // Who rotated it has not written yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if is_still_it {
            fs::rename(self.current(), self.rotated())?;
        }
        self.open()
    }
}

/// What is no file is not written to, and not waited for: O_NONBLOCK, for a pipe of that name (fifo(7)).
fn open_file(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = File::options().read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other(format!("`{}` is no file", path.display()))),
    }
}

/// Whether the next line begins behind another. A line that is being written at this moment may look torn; the empty line that
/// comes of that is passed over by every reader.
fn ends_its_line(file: &File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(true);
    }
    let mut last = [b'\n'];
    // Cut shorter meanwhile, it has no last byte there.
    let read = file.read_at(&mut last, length - 1)?;
    Ok(read == 0 || last == [b'\n'])
}

pub(super) fn same_file(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::SystemTime;

    use super::super::{Reader, Start};
    use super::*;
    use crate::model::event::Kind;

    fn event(action: &str) -> Event {
        Event::new(SystemTime::UNIX_EPOCH, Kind::Volume, action, "data")
    }

    fn actions(journal: &Journal) -> Vec<String> {
        read(&mut Reader::open(journal, Start::Beginning).unwrap())
    }

    fn read(reader: &mut Reader) -> Vec<String> {
        let mut actions = Vec::new();
        let each = |event: Event| -> io::Result<()> {
            actions.push(event.action);
            Ok(())
        };
        reader.read(each).unwrap();
        actions
    }

    fn journal(root: &tempfile::TempDir, largest: u64) -> Journal {
        Journal { directory: root.path().join("events"), largest }
    }

    #[test]
    fn the_first_event_makes_the_journal_for_root_alone() {
        let root = tempfile::tempdir().unwrap();
        let journal = journal(&root, 1 << 20);
        assert!(actions(&journal).is_empty());
        journal.append(&event("create")).unwrap();
        assert_eq!(actions(&journal), ["create"]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&journal.directory), mode(&journal.current())), (0o700, 0o600));
    }

    #[test]
    fn a_torn_line_is_skipped_and_ended() {
        let root = tempfile::tempdir().unwrap();
        let journal = journal(&root, 1 << 20);
        for torn in ["{\"time\":1,\"ty", "\0\0\0\0"] {
            journal.append(&event("before")).unwrap();
            File::options().append(true).open(journal.current()).unwrap().write_all(torn.as_bytes()).unwrap();
            assert_eq!(actions(&journal).last().unwrap(), "before");
            journal.append(&event("after")).unwrap();
        }
        assert_eq!(actions(&journal), ["before", "after", "before", "after"]);
    }

    #[test]
    fn what_cannot_be_written_is_an_error_and_nothing_hangs() {
        let root = tempfile::tempdir().unwrap();
        let journal = journal(&root, 1 << 20);
        journal.make_directory().unwrap();
        nix::unistd::mkfifo(&journal.current(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(journal.append(&event("create")).unwrap_err().to_string().contains("is no file"));
        fs::remove_file(journal.current()).unwrap();
        std::os::unix::fs::symlink("/dev/full", journal.current()).unwrap();
        assert!(journal.append(&event("create")).is_err());
    }

    #[test]
    fn many_writers_lose_nothing_and_mix_nothing_over_a_rotation() {
        const WRITERS: usize = 8;
        const EACH: usize = 200;
        let root = tempfile::tempdir().unwrap();
        let length = event("00-000").line().len();
        // One rotation falls into the middle.
        let journal = journal(&root, (length * WRITERS * EACH * 2 / 3) as u64);
        journal.append(&event("first")).unwrap();
        let mut follower = Reader::open(&journal, Start::End).unwrap();
        let mut followed = Vec::new();
        std::thread::scope(|scope| {
            let write = |writer: usize| {
                let journal = &journal;
                move || (0..EACH).for_each(|n| journal.append(&event(&format!("{writer:02}-{n:03}"))).unwrap())
            };
            let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(write(writer))).collect();
            while !writers.iter().all(|writer| writer.is_finished()) {
                followed.extend(read(&mut follower));
            }
        });
        followed.extend(read(&mut follower));
        let mut kept = actions(&journal);
        assert!(journal.rotated().exists());
        assert_eq!(kept.remove(0), "first");
        let mut all: Vec<String> =
            (0..WRITERS).flat_map(|writer| (0..EACH).map(move |n| format!("{writer:02}-{n:03}"))).collect();
        all.sort();
        kept.sort();
        followed.sort();
        assert_eq!(kept, all);
        assert_eq!(followed, all);
    }

    #[test]
    fn two_files_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let journal = journal(&root, 1000);
        for number in 0..200 {
            journal.append(&event(&format!("{number:03}"))).unwrap();
        }
        let kept = actions(&journal);
        assert_eq!(kept.last().unwrap(), "199");
        assert!(kept.windows(2).all(|pair| pair[0] < pair[1]) && kept.len() < 40, "{kept:?}");
        assert_eq!(fs::read_dir(&journal.directory).unwrap().count(), 2);
    }
}
