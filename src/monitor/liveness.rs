//! Whether a container's monitor is there, and what it last said.

use std::io;
use std::path::Path;

use super::client::Client;
use super::error::MonitorError;
use super::lock;
use crate::model::actual::Liveness;
use crate::model::paths::run;
use crate::model::status::{Phase, STATUS_VERSION, Status};

/// Looks at the run directory of a container. Costs three system calls where a monitor runs, and disturbs none.
///
/// The lock is looked at before the status and, when it was free, the status decides: a monitor writes its last
/// status before it lets go of the lock, so "free" and "not over" means that it died.
pub fn liveness(directory: &Path) -> Result<Liveness, MonitorError> {
    let held = lock::is_held(directory)?;
    let status = read_status(directory)?;
    Ok(match (held, status) {
        (true, Some(status)) => Liveness::Monitored(status),
        // Between taking the lock and writing the first status lie microseconds, and nobody listens yet; to the planner
        // it is no different from a monitor that has not got to the lock. One that answers has lost its file.
        (true, None) => match Client::connect(directory).and_then(|client| client.status()) {
            Ok(status) => Liveness::Monitored(status),
            Err(_) => Liveness::Absent,
        },
        (false, None) => Liveness::Absent,
        (false, Some(status)) if is_final(status.phase) => Liveness::Ended(status),
        (false, Some(status)) => Liveness::Lost(Some(status)),
    })
}

/// Whether a monitor that reached this phase has nothing more to do.
pub fn is_final(phase: Phase) -> bool {
    match phase {
        Phase::Exited | Phase::Stopped | Phase::Failed => true,
        Phase::Starting | Phase::Running | Phase::Paused | Phase::Stopping | Phase::Waiting | Phase::CrashLoop => false,
    }
}

/// The status file; `None` when there is none.
pub fn read_status(directory: &Path) -> Result<Option<Status>, MonitorError> {
    let path = directory.join(run::STATUS);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(MonitorError::file("read", path, source)),
    };
    let status: Status =
        serde_json::from_slice(&text).map_err(|source| MonitorError::Content { path: path.clone(), source })?;
    if status.version > STATUS_VERSION {
        return Err(MonitorError::Version { path, found: status.version, known: STATUS_VERSION });
    }
    Ok(Some(status))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::launch::LAUNCH_VERSION;
    use crate::model::status::Exit;

    pub(in crate::monitor) fn write_status(directory: &Path, phase: Phase) {
        let status = Status {
            version: STATUS_VERSION,
            launch_version: LAUNCH_VERSION,
            id: "0123456789ab".parse().unwrap(),
            phase,
            pid: None,
            started_at: None,
            finished_at: None,
            exit: Some(Exit::Code(0)),
            restarts: 0,
            restarts_in_a_row: None,
            next_start_at: None,
            health: None,
            error: None,
        };
        std::fs::write(directory.join(run::STATUS), serde_json::to_vec(&status).unwrap()).unwrap();
    }

    #[test]
    fn lock_and_status_together_tell_the_four_cases_apart() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        assert_eq!(liveness(&directory.join("nowhere")).unwrap(), Liveness::Absent);
        assert_eq!(liveness(directory).unwrap(), Liveness::Absent);
        let lock = lock::acquire(directory).unwrap();
        write_status(directory, Phase::Running);
        assert!(matches!(liveness(directory).unwrap(), Liveness::Monitored(_)));
        drop(lock);
        assert!(matches!(liveness(directory).unwrap(), Liveness::Lost(Some(_))));
        write_status(directory, Phase::Exited);
        assert!(matches!(liveness(directory).unwrap(), Liveness::Ended(_)));
    }
}
