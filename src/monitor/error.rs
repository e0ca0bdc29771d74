//! What can go wrong between a monitor, its files and those who speak to it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::hanging::{Hanging, told};
use super::protocol::StartFailure;

#[derive(Debug, Error)]
pub enum MonitorError {
    #[error("cannot {operation} `{path}`")]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` does not hold what it should")]
    Content {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{path}` was written by another version of Evenkeel: its format is {found}, this one knows {known}")]
    Version { path: PathBuf, found: u32, known: u32 },
    #[error("another monitor works in `{directory}`")]
    Busy { directory: PathBuf },
    #[error("cannot {operation} for `{subject}`")]
    System {
        operation: &'static str,
        subject: String,
        #[source]
        source: io::Error,
    },
    #[error("no monitor answers in `{directory}`")]
    NotRunning {
        directory: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the monitor in `{directory}` did not answer within {}", humantime::format_duration(*.time))]
    Silent { directory: PathBuf, time: Duration },
    #[error("it did not {what} within {}{}", humantime::format_duration(*.time), told(.hanging))]
    Overdue { what: &'static str, time: Duration, hanging: Vec<Hanging> },
    #[error("the conversation with the monitor broke off")]
    Conversation {
        #[source]
        source: io::Error,
    },
    #[error("the monitor's answer makes no sense: {0}")]
    Answer(String),
    #[error("the monitor refused: {0}")]
    Refused(String),
    #[error("the monitor ended before it could say how the start went{0}")]
    Died(String),
    #[error("{}", .0.message)]
    Start(StartFailure),
}

impl MonitorError {
    /// The next step for the user, where it is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            MonitorError::Start(failure) => failure.hint.as_deref(),
            MonitorError::Silent { .. } => Some(
                "its process `evenkeel-monitor` is stopped or hangs in the kernel; when it was killed, `evenkeel apply` \
                 starts the container anew",
            ),
            MonitorError::Overdue { hanging, .. } if hanging.iter().any(Hanging::is_uninterruptible) => Some(
                "the kernel ends such a process when the disk or the file server answers that it waits for, or when \
                 what froze it lets go; then apply again",
            ),
            MonitorError::Overdue { hanging, .. } if hanging.iter().any(Hanging::is_stopped) => {
                Some("`kill -CONT` with the number of the process lets it go on; then apply again")
            }
            MonitorError::Overdue { .. } => Some(
                "`cat /proc/PID/stack` shows what the kernel does for a process, /proc/PID/wchan what it waits for; apply again \
                 when it is gone",
            ),
            _ => None,
        }
    }

    pub(super) fn file(
        operation: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> MonitorError {
        MonitorError::File { operation, path: path.into(), source: source.into() }
    }

    pub(super) fn system(
        operation: &'static str,
        subject: impl ToString,
        source: impl Into<io::Error>,
    ) -> MonitorError {
        MonitorError::System { operation, subject: subject.to_string(), source: source.into() }
    }
}
