//! Why a container, or a process in one, could not be started.
//!
//! Errors of the child between clone3(2) and execve(2) come back as data (see `handshake`) and are the same variants
//! as those of the parent, so callers never see on which side a step failed.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::model::units::ByteSize;

/// What failed, with its subject. Display is one line in lower case; the kernel's reason is the source.
#[derive(Debug, Error)]
pub enum RuntimeError {
    #[error("`{field}` in the container's configuration is not supported: {reason}")]
    Unsupported { field: String, reason: String },
    #[error("`{field}` in the container's configuration is not valid: {reason}")]
    Invalid { field: String, reason: String },
    #[error("the command `{command}` does not exist in the container")]
    CommandNotFound { command: String },
    #[error("the interpreter that `{command}` names does not exist in the container")]
    InterpreterNotFound { command: String },
    #[error("the command `{command}` cannot be executed")]
    CommandNotExecutable {
        command: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot enter the working directory `{path}`")]
    WorkingDirectory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the user or group `{name}` does not exist in the container")]
    UserNotFound { name: String },
    #[error("cannot set the limit {resource} to {requested}: this host's own hard limit is {limit}")]
    Rlimit { resource: String, requested: String, limit: String },
    #[error("the {hook} failed: {reason}")]
    Hook { hook: String, reason: String },
    #[error("cannot {step} `{subject}`")]
    Step {
        step: Cow<'static, str>,
        subject: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot {operation} `{path}`")]
    Cgroup {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the cgroup `{path}` has processes of its own and so cannot hand on {controllers}; move them to a cgroup below it"
    )]
    Populated { path: PathBuf, controllers: String },
    #[error("a limit of {} of memory is less than the {} in use", ByteSize(*limit), ByteSize(*used))]
    InUse { used: u64, limit: u64 },
    #[error("a limit of {limit} processes leaves no room for two more beside the {used} in the container")]
    Crowded { used: u64, limit: u64 },
    #[error("this host has no cgroup controller `{controller}`, which {field} needs")]
    Controller { controller: &'static str, field: String },
    #[error("another process has stopped process {pid} before it could execute its command")]
    Held { pid: i32 },
    #[error("the container's first process ended before its command ran")]
    Died,
}

/// What the configuration asks for and does not get, where the specification wants a warning in place of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub field: String,
    pub reason: String,
}

impl Warning {
    pub(super) fn new(field: impl Into<String>, reason: impl Into<String>) -> Warning {
        Warning { field: field.into(), reason: reason.into() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` in the container's configuration: {}", self.field, self.reason)
    }
}

/// Names the step and the subject of a system call that failed.
pub(super) trait Context<T> {
    fn during(self, step: &'static str, subject: impl fmt::Display) -> Result<T, RuntimeError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn during(self, step: &'static str, subject: impl fmt::Display) -> Result<T, RuntimeError> {
        self.map_err(|error| RuntimeError::Step {
            step: step.into(),
            subject: subject.to_string(),
            source: error.into(),
        })
    }
}

/// The configuration asks for what this runtime cannot do.
pub(super) fn unsupported(field: impl Into<String>, reason: impl Into<String>) -> RuntimeError {
    RuntimeError::Unsupported { field: field.into(), reason: reason.into() }
}

/// The configuration contradicts the specification, or itself.
pub(super) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> RuntimeError {
    RuntimeError::Invalid { field: field.into(), reason: reason.into() }
}
