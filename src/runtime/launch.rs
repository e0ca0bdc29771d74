//! Starting the first process of a container.

use std::os::fd::OwnedFd;

use oci_spec::runtime::Spec;
use rustix::process::Pid;

use super::error::RuntimeError;
use crate::model::launch::{Identity, RootFilesystem};

/// Everything that makes a container's first process. Borrowed: a monitor keeps it for restarts.
pub struct Request<'a> {
    pub spec: &'a Spec,
    pub root: &'a RootFilesystem,
    pub stdio: Stdio<'a>,
    /// Names to look up in the container's own `/etc/passwd` and `/etc/group`, in place of `process.user`.
    pub identity: Option<&'a Identity>,
    pub first: FirstProcess,
}

/// What becomes process 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FirstProcess {
    /// The command itself.
    #[default]
    Command,
    /// A small init that starts the command, forwards signals to it and reaps orphans.
    Init,
}

/// The standard descriptors of a process.
#[derive(Clone, Copy)]
pub enum Stdio<'a> {
    Descriptors {
        stdin: &'a OwnedFd,
        stdout: &'a OwnedFd,
        stderr: &'a OwnedFd,
    },
    /// A pseudo-terminal of the container's own devpts. Its master side comes back as `terminal`.
    Terminal,
}

/// A process that executes its command.
pub struct Process {
    /// As this process sees it, which is its parent and must wait for it.
    pub pid: Pid,
    pub pidfd: OwnedFd,
    /// The master side, where [`Stdio::Terminal`] was asked for.
    pub terminal: Option<OwnedFd>,
}

/// A container whose process waits, everything set up, for the word to execute its command.
pub struct Created {
    process: Process,
}

/// Creates a container and executes its command. Returns after execve(2) has succeeded, or with the reason why
/// not; then the process is gone and waited for.
pub fn start(request: &Request<'_>) -> Result<Process, RuntimeError> {
    create(request)?.start()
}

/// Creates a container whose command is executed by [`Created::start`] (OCI runtime-spec, runtime.md, "create").
pub fn create(request: &Request<'_>) -> Result<Created, RuntimeError> {
    let _ = request;
    Err(RuntimeError::Died)
}

impl Created {
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Executes the command (runtime.md, "start").
    pub fn start(self) -> Result<Process, RuntimeError> {
        Ok(self.process)
    }
}
