//! A further process in a running container.

use oci_spec::runtime::{Process as ProcessSpec, Spec};
use rustix::process::Pid;
use std::os::fd::BorrowedFd;

use super::error::RuntimeError;
use super::launch::{Process, Stdio};
use crate::model::launch::Identity;

pub struct Request<'a> {
    /// The container's configuration: its seccomp filter and its namespaces hold for this process too.
    pub spec: &'a Spec,
    /// What to execute, and as whom.
    pub process: &'a ProcessSpec,
    pub identity: Option<&'a Identity>,
    pub stdio: Stdio<'a>,
    /// The container's first process.
    pub target: Target<'a>,
}

#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub pid: Pid,
    pub pidfd: BorrowedFd<'a>,
}

/// Starts a process in all namespaces and in the cgroup of `target`. Returns after execve(2) has succeeded. The
/// process is a child of the caller, which must wait for it.
pub fn exec(request: &Request<'_>) -> Result<Process, RuntimeError> {
    let _ = request;
    Err(RuntimeError::Died)
}
