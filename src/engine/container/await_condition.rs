//! Waiting until a container has started, is healthy or has completed.
//!
//! The monitor replaces the status file on every change, so the run directory is watched (inotify(7)) and the
//! file read again.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::fs::inotify;

use crate::engine::error::{At, EngineError};
use crate::engine::files;
use crate::model::container::Condition;
use crate::model::health::Health;
use crate::model::paths::run;
use crate::model::status::{Exit, Phase, Status};

/// How far a container is from a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    Reached,
    NotYet,
    /// Why it will not hold any more.
    Never(String),
}

/// Waits until `condition` holds of the container whose monitor writes to `directory`.
pub fn await_condition(
    name: &str,
    directory: &Path,
    condition: Condition,
    timeout: Duration,
) -> Result<(), EngineError> {
    let failed = |state: String| EngineError::Await { name: name.to_owned(), state };
    let deadline = Instant::now() + timeout;
    let watch = watch(directory).at("watch", directory)?;
    loop {
        let status: Option<Status> = files::read_json(&directory.join(run::STATUS))?;
        match progress(status.as_ref(), condition) {
            Progress::Reached => return Ok(()),
            Progress::Never(state) => return Err(failed(state)),
            Progress::NotYet => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let wanted = match condition {
                Condition::Started => "has not started",
                Condition::Healthy => "is not healthy",
                Condition::Completed => "has not completed",
            };
            return Err(failed(format!("{wanted} after {}", humantime::format_duration(timeout))));
        }
        wait(&watch, left).at("watch", directory)?;
    }
}

/// Waits for as long as `stays`, in which the condition must not cease to hold, not even for a restart. A condition
/// that means an end is steady as it is.
pub fn await_steadiness(
    name: &str,
    directory: &Path,
    condition: Condition,
    stays: Duration,
) -> Result<(), EngineError> {
    if stays.is_zero() || condition == Condition::Completed {
        return Ok(());
    }
    let deadline = Instant::now() + stays;
    let watch = watch(directory).at("watch", directory)?;
    let first: Option<Status> = files::read_json(&directory.join(run::STATUS))?;
    let mut status = first.clone();
    loop {
        let restarts = |status: &Option<Status>| status.as_ref().map(|status| (status.restarts, status.started_at));
        let state = match progress(status.as_ref(), condition) {
            Progress::Reached if restarts(&status) == restarts(&first) => None,
            Progress::Never(state) => Some(state),
            Progress::Reached | Progress::NotYet => Some(status.as_ref().map_or_else(|| "ended".to_owned(), ended)),
        };
        if let Some(state) = state {
            let span = humantime::format_duration(stays);
            let state = format!("{state}, within {span} of being ready");
            return Err(EngineError::Await { name: name.to_owned(), state });
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        wait(&watch, left).at("watch", directory)?;
        status = files::read_json(&directory.join(run::STATUS))?;
    }
}

fn progress(status: Option<&Status>, condition: Condition) -> Progress {
    let Some(status) = status else { return Progress::NotYet };
    match (condition, status.phase) {
        (Condition::Started | Condition::Healthy, Phase::Failed) => {
            Progress::Never(format!("could not be started: {}", status.error.as_deref().unwrap_or("no reason known")))
        }
        (Condition::Completed, Phase::Exited) if status.exit == Some(Exit::Code(0)) => Progress::Reached,
        (Condition::Completed, Phase::Running | Phase::Starting | Phase::Stopping | Phase::Paused) => Progress::NotYet,
        // It was started, and what it was to do is done.
        (Condition::Started, Phase::Exited) if status.exit == Some(Exit::Code(0)) => Progress::Reached,
        (_, Phase::Exited | Phase::Stopped | Phase::Failed) => Progress::Never(ended(status)),
        (Condition::Completed, Phase::Waiting | Phase::CrashLoop) => Progress::NotYet,
        (Condition::Started, Phase::Running) => Progress::Reached,
        (Condition::Healthy, Phase::Running) => match &status.health {
            None => Progress::Never("has no health check".into()),
            Some(health) => match health.health {
                Health::Healthy => Progress::Reached,
                Health::Starting => Progress::NotYet,
                Health::Unhealthy => Progress::Never(unhealthy(health.log.last().map(|probe| probe.output.as_str()))),
            },
        },
        (Condition::Started | Condition::Healthy, Phase::CrashLoop) => {
            Progress::Never(format!("keeps ending: {}", ended(status)))
        }
        (Condition::Started | Condition::Healthy, _) => Progress::NotYet,
    }
}

fn ended(status: &Status) -> String {
    match (status.exit, &status.error) {
        (_, Some(error)) => format!("could not be started: {error}"),
        (Some(Exit::Code(code)), _) => format!("ended with status {code}"),
        (Some(Exit::Signal(signal)), _) => format!("was ended by {signal}"),
        (Some(Exit::OutOfMemory), _) => "was killed for lack of memory".into(),
        (None, None) => "was stopped".into(),
    }
}

fn unhealthy(output: Option<&str>) -> String {
    match output.map(str::trim).filter(|output| !output.is_empty()) {
        Some(output) => format!("is unhealthy: {output}"),
        None => "is unhealthy".into(),
    }
}

fn watch(directory: &Path) -> rustix::io::Result<OwnedFd> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, directory, inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CLOSE_WRITE)?;
    Ok(watch)
}

/// Waits for a change or the end of `left`, and forgets what the changes were.
fn wait(watch: &OwnedFd, left: Duration) -> rustix::io::Result<()> {
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
    use crate::model::launch::LAUNCH_VERSION;
    use crate::model::status::{HealthStatus, STATUS_VERSION};

    fn status(phase: Phase, exit: Option<Exit>, health: Option<Health>) -> Status {
        Status {
            version: STATUS_VERSION,
            launch_version: LAUNCH_VERSION,
            id: "0123456789ab".parse().unwrap(),
            phase,
            pid: None,
            started_at: None,
            finished_at: None,
            exit,
            restarts: 0,
            next_start_at: None,
            health: health.map(|health| HealthStatus { health, failing_streak: 0, log: Vec::new() }),
            error: None,
        }
    }

    #[test]
    fn each_condition_is_reached_missed_or_open() {
        use Condition::{Completed, Healthy, Started};
        let of = |phase, exit, health, condition| progress(Some(&status(phase, exit, health)), condition);
        assert_eq!(progress(None, Started), Progress::NotYet);
        assert_eq!(of(Phase::Running, None, None, Started), Progress::Reached);
        assert_eq!(of(Phase::Running, None, Some(Health::Starting), Healthy), Progress::NotYet);
        assert_eq!(of(Phase::Running, None, Some(Health::Healthy), Healthy), Progress::Reached);
        assert_eq!(of(Phase::Exited, Some(Exit::Code(0)), None, Completed), Progress::Reached);
        assert_eq!(of(Phase::Exited, Some(Exit::Code(0)), None, Started), Progress::Reached);
        assert_eq!(of(Phase::Waiting, Some(Exit::Code(1)), None, Completed), Progress::NotYet);
        for (phase, exit, health, condition) in [
            (Phase::Exited, Some(Exit::Code(3)), None, Completed),
            (Phase::Exited, Some(Exit::Code(1)), None, Started),
            (Phase::Running, None, None, Healthy),
            (Phase::Running, None, Some(Health::Unhealthy), Healthy),
            (Phase::CrashLoop, Some(Exit::Code(1)), None, Started),
        ] {
            assert!(matches!(of(phase, exit, health, condition), Progress::Never(_)), "{phase:?} {condition:?}");
        }
    }

    #[test]
    fn what_restarts_or_ends_while_it_is_watched_is_not_steady() {
        let directory = tempfile::tempdir().unwrap();
        let write = |status: &Status| {
            files::write_json(&directory.path().join(run::STATUS), status, files::Durability::Volatile).unwrap();
        };
        let steady = |millis| {
            await_steadiness("shop/web", directory.path(), Condition::Started, Duration::from_millis(millis))
                .map_err(|error| error.to_string())
        };
        write(&status(Phase::Running, None, None));
        assert_eq!(steady(20), Ok(()));
        let outcome = std::thread::scope(|scope| {
            let watched = scope.spawn(|| steady(10_000));
            while !watched.is_finished() {
                write(&Status { restarts: 1, ..status(Phase::Running, Some(Exit::Code(3)), None) });
                write(&Status { restarts: 2, ..status(Phase::Running, Some(Exit::Code(3)), None) });
            }
            watched.join().unwrap()
        });
        assert_eq!(outcome.unwrap_err(), "container `shop/web` ended with status 3, within 10s of being ready");
    }

    #[test]
    fn a_wait_ends_with_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let error = await_condition("shop/web", directory.path(), Condition::Healthy, Duration::from_millis(20));
        assert_eq!(error.unwrap_err().to_string(), "container `shop/web` is not healthy after 20ms");
    }
}
