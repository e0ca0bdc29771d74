//! Rings when something happens in one of several directories: inotify(7).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;

use super::failure::Failure;

pub struct Bell {
    inotify: OwnedFd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rang {
    Something,
    /// It was quiet for as long as was waited.
    Nothing,
}

impl Bell {
    /// For files that are written to, made or exchanged in these directories. One that is not there never rings.
    pub fn of(directories: impl IntoIterator<Item = PathBuf>) -> Result<Bell, Failure> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        for directory in directories {
            match inotify::add_watch(&inotify, &directory, events) {
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => {
                    return Err(Failure::from(error).context(format!("cannot watch `{}`", directory.display())));
                }
            }
        }
        Ok(Bell { inotify })
    }

    /// Waits until it rings, or for as long as this.
    pub fn wait(&self, patience: Option<Duration>) -> Result<Rang, Failure> {
        let mut polled = [PollFd::new(&self.inotify, PollFlags::IN)];
        match poll(&mut polled, patience.map(timespec).as_ref()) {
            Ok(0) | Err(Errno::INTR) => Ok(Rang::Nothing),
            Ok(_) => self.silence(),
            Err(error) => Err(error.into()),
        }
    }

    /// What happened does not matter, who looks finds out; but it must be read, or it would ring on.
    pub fn silence(&self) -> Result<Rang, Failure> {
        let mut events = [0; 4096];
        match rustix::io::read(&self.inotify, &mut events) {
            Ok(_) => Ok(Rang::Something),
            Err(Errno::AGAIN) => Ok(Rang::Nothing),
            Err(error) => Err(error.into()),
        }
    }
}

/// Readable when it rings.
impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// As poll(2) takes it.
pub fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() }
}
