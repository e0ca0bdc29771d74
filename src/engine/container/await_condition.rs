//! Looking at a container that is waited for.
//!
//! The monitor replaces the status file on every change, so the run directory is watched (inotify(7)) and the
//! file read again. What that means is [`crate::engine::waiting`]'s.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::fs::inotify;

use crate::engine::error::{At, EngineError};
use crate::engine::files;
use crate::engine::waiting::{Attended, Awaited, Verdict, Wait};
use crate::model::paths::run;
use crate::model::status::Status;

/// Looks at the container whose monitor writes to `directory`, and again whenever that says something, until there is a
/// verdict, or till `until`.
pub fn attend(
    name: &str,
    directory: &Path,
    awaited: &Awaited<'_>,
    wait: &mut Wait,
    until: Instant,
) -> Result<Attended, EngineError> {
    let mut watched = None;
    loop {
        let status: Option<Status> = files::read_json(&directory.join(run::STATUS))?;
        let now = Instant::now();
        let next = match wait.judge(awaited, status.as_ref(), now) {
            Verdict::Holds => return Ok(Attended::Holds),
            Verdict::Stopped => return Ok(Attended::Stopped),
            Verdict::Lost(state) => return Err(EngineError::Await { name: name.to_owned(), state }),
            Verdict::Open { until: next } if now >= until => return Ok(Attended::Open { until: next }),
            Verdict::Open { until: next } => next,
        };
        match &watched {
            // What was said before it was there is seen by the next look.
            None => watched = Some(watch(directory).at("watch", directory)?),
            Some(watched) => {
                pause(watched, next.min(until).saturating_duration_since(now)).at("watch", directory)?;
            }
        }
    }
}

fn watch(directory: &Path) -> rustix::io::Result<OwnedFd> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, directory, inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CLOSE_WRITE)?;
    Ok(watch)
}

/// Waits for a change or the end of `left`, and forgets what the changes were.
fn pause(watch: &OwnedFd, left: Duration) -> rustix::io::Result<()> {
    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
    match poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error),
    }
    let mut buffer = [0u8; 4096];
    while matches!(rustix::io::read(watch, &mut buffer), Ok(length) if length > 0) {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::waiting::tests::status;
    use crate::model::container::Condition;
    use crate::model::status::{Exit, Phase};

    fn write(directory: &Path, status: &Status) {
        files::write_json(&directory.join(run::STATUS), status, files::Durability::Volatile).unwrap();
    }

    #[test]
    fn what_restarts_or_ends_while_it_is_watched_is_not_steady() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let id = "0123456789ab".parse().unwrap();
        let steady = |millis| {
            let stays = Duration::from_millis(millis);
            let awaited = Awaited { id: &id, condition: Condition::Started, timeout: stays, stays };
            let begun = Instant::now();
            attend("shop/web", directory, &awaited, &mut Wait::begin(begun), begun + 2 * stays)
        };
        write(directory, &status(Phase::Running, None, None));
        assert_eq!(steady(20).unwrap(), Attended::Holds);
        let outcome = std::thread::scope(|scope| {
            let watched = scope.spawn(|| steady(10_000));
            while !watched.is_finished() {
                write(directory, &Status { restarts: 1, ..status(Phase::Running, Some(Exit::Code(3)), None) });
                write(directory, &Status { restarts: 2, ..status(Phase::Running, Some(Exit::Code(3)), None) });
            }
            watched.join().unwrap()
        });
        let error = outcome.unwrap_err().to_string();
        assert_eq!(error, "container `shop/web` ended with status 3, within 10s of being ready");
    }

    #[test]
    fn a_wait_that_is_left_is_open() {
        let directory = tempfile::tempdir().unwrap();
        let id = "0123456789ab".parse().unwrap();
        let (timeout, stays) = (Duration::from_secs(600), Duration::ZERO);
        let awaited = Awaited { id: &id, condition: Condition::Healthy, timeout, stays };
        let begun = Instant::now();
        let mut wait = Wait::begin(begun);
        let attended = attend("shop/web", directory.path(), &awaited, &mut wait, begun + Duration::from_millis(20));
        assert_eq!(attended.unwrap(), Attended::Open { until: begun + timeout });
        assert!(begun.elapsed() >= Duration::from_millis(20));
    }
}
