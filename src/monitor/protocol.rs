//! What is said over a monitor's control socket, and on the pipe that a monitor is started with.
//!
//! The socket is `control` in the container's run directory, of type SOCK_SEQPACKET and mode 0600: one packet is one
//! message, a JSON text, and descriptors travel beside it (SCM_RIGHTS, unix(7)). A connection carries one request
//! after another:
//!
//! ```text
//! request             descriptors      answers
//! status                               status
//! stop, wait                           status, once the container is over
//! restart                              status, once it runs again (or is over)
//! kill pause resume reload             done
//! hold                                 done
//! exec                0, 1, 2 of it    started; ended, once it did
//! exec with terminal                   started + the pty's master side; ended
//! attach              stdout, stderr   attached + standard input, if it is open
//! take_input                           attached + standard input, if it is open
//! ```
//!
//! `hold` lasts as long as its connection. Whoever is not answered when the container is over gets the status instead.
//! Any of them may be answered by `refused` or `failed`. Client and monitor may be of different versions: unknown
//! fields are ignored, an unknown request is refused.

use serde::{Deserialize, Serialize};

use crate::model::status::{Exit, Status};
use crate::model::units::{Signal, Timespan};
use crate::runtime::RuntimeError;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    Status,
    /// End the container and leave it so. What is `None` comes from the launch file.
    Stop {
        signal: Option<Signal>,
        grace: Option<Timespan>,
    },
    Kill {
        signal: Signal,
    },
    Restart,
    Pause,
    Resume,
    /// Pause it for as long as this connection lasts, or until somebody resumes it.
    Hold,
    /// Read the launch file again and take over what may change while the container runs.
    Reload,
    Wait,
    Exec(ExecSpec),
    Attach,
    /// Give the container's standard input to this client alone.
    TakeInput,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Done,
    Status(Status),
    Started { pid: u32 },
    Ended(Exit),
    Attached,
    Refused { reason: String },
    Failed(StartFailure),
}

/// A further process in a container. What is not said is as for the container's first process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    pub command: Vec<String>,
    /// `NAME=value`, beside the container's own environment; the last of one name counts.
    #[serde(default)]
    pub environment: Vec<String>,
    /// `USER` or `USER:GROUP`, names or numbers, as the container knows them.
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub working_dir: Option<String>,
    #[serde(default)]
    pub input_output: InputOutput,
    /// The size that its terminal is born with: a program that asks at once gets it right.
    #[serde(default)]
    pub window: Option<Window>,
    #[serde(default)]
    pub privilege: Privilege,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub rows: u16,
    pub columns: u16,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputOutput {
    /// The three descriptors that come with the request.
    #[default]
    Descriptors,
    /// A pseudo-terminal of the container, whose master side goes back to the client.
    Terminal,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Privilege {
    /// The container's own capabilities.
    #[default]
    Container,
    /// Every capability that this host can give, and no bar against gaining more.
    Full,
}

/// Why a process could not be started, in words and as a kind that a program can act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailure {
    pub kind: FailureKind,
    /// The whole chain of causes in one line.
    pub message: String,
    pub hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// A shell would say 127.
    CommandNotFound,
    /// A shell would say 126.
    NotExecutable,
    WorkingDirectory,
    UserNotFound,
    /// The container's configuration asks for what this host or this version cannot do.
    Unsupported,
    /// Another monitor works for this container.
    Busy,
    #[serde(other)]
    Other,
}

impl FailureKind {
    /// As a shell would have it; 125 where there is nothing that a shell would run, as Docker's `run` has it.
    pub fn exit(self) -> Exit {
        Exit::Code(match self {
            FailureKind::CommandNotFound => 127,
            FailureKind::NotExecutable => 126,
            FailureKind::WorkingDirectory
            | FailureKind::UserNotFound
            | FailureKind::Unsupported
            | FailureKind::Busy
            | FailureKind::Other => 125,
        })
    }
}

impl StartFailure {
    pub(super) fn other(error: &dyn std::error::Error) -> StartFailure {
        StartFailure { kind: FailureKind::Other, message: chain(error), hint: None }
    }

    pub(super) fn of(error: &RuntimeError) -> StartFailure {
        let (kind, hint) = match error {
            RuntimeError::CommandNotFound { .. } => {
                (FailureKind::CommandNotFound, Some("check `command` and `entrypoint` against what the image contains"))
            }
            RuntimeError::InterpreterNotFound { .. } => (
                FailureKind::CommandNotFound,
                Some(
                    "a script needs the interpreter of its first line, and a dynamic program its loader, in the image",
                ),
            ),
            RuntimeError::CommandNotExecutable { .. } => {
                (FailureKind::NotExecutable, Some("check the file's mode, and that it is a program for this machine"))
            }
            RuntimeError::WorkingDirectory { .. } => {
                (FailureKind::WorkingDirectory, Some("check `working_dir` against what the image contains"))
            }
            RuntimeError::UserNotFound { .. } => {
                (FailureKind::UserNotFound, Some("use a number, or a name of the image's /etc/passwd"))
            }
            RuntimeError::Crowded { .. } => (FailureKind::Other, Some("a higher `resources.pids` makes room")),
            RuntimeError::Unsupported { .. }
            | RuntimeError::Invalid { .. }
            | RuntimeError::Rlimit { .. }
            | RuntimeError::Controller { .. } => (FailureKind::Unsupported, None),
            _ => (FailureKind::Other, None),
        };
        StartFailure { kind, message: chain(error), hint: hint.map(str::to_owned) }
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The one line that a monitor writes to its standard output, once it knows how the first start went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handshake {
    #[serde(rename = "ok")]
    Started { pid: u32 },
    #[serde(rename = "error")]
    Failed(StartFailure),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_documented() {
        let cases = [
            (r#""status""#, Request::Status),
            (
                r#"{"stop":{"signal":"SIGINT","grace":"5s"}}"#,
                Request::Stop { signal: Signal::from_number(2), grace: Some(Timespan::from_secs(5)) },
            ),
            (
                r#"{"exec":{"command":["id"],"from_the_future":1}}"#,
                Request::Exec(ExecSpec { command: vec!["id".into()], ..ExecSpec::default() }),
            ),
        ];
        for (text, request) in cases {
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        }
        assert!(serde_json::from_str::<Request>(r#""explode""#).is_err());
    }

    #[test]
    fn the_handshake_is_one_word_and_its_data() {
        let started = serde_json::to_string(&Handshake::Started { pid: 7 }).unwrap();
        assert_eq!(started, r#"{"ok":{"pid":7}}"#);
    }

    #[test]
    fn a_failure_of_a_kind_unknown_here_is_still_read() {
        let failure: StartFailure = serde_json::from_str(r#"{"kind":"moon_phase","message":"m","hint":null}"#).unwrap();
        assert_eq!(failure.kind, FailureKind::Other);
    }

    #[test]
    fn the_chain_of_causes_is_one_line() {
        let source = std::io::Error::from_raw_os_error(libc::EACCES);
        let error = RuntimeError::CommandNotExecutable { command: "/x".into(), source };
        let failure = StartFailure::of(&error);
        assert_eq!(failure.kind, FailureKind::NotExecutable);
        assert_eq!(failure.message, "the command `/x` cannot be executed: Permission denied (os error 13)");
    }
}
