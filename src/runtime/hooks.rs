//! Hooks: programs that the configuration wants run at moments of a container's life (runtime-spec, config.md,
//! "POSIX-platform Hooks"; runtime.md, "Lifecycle").
//!
//! | hook | runs in | path is of | when | state says |
//! |---|---|---|---|---|
//! | prestart, createRuntime | the caller's namespaces | the host | all is mounted, before pivot_root(2) | creating |
//! | createContainer | the container's namespaces | the host | right after those | creating |
//! | startContainer | the container's namespaces and root, as its user | the container | before execve(2) | created |
//! | poststart | the caller's namespaces | the host | after execve(2) | running |
//! | poststop | the caller's namespaces | the host | all is removed | stopped |
//!
//! Where a pid namespace is joined that the container's user namespace has no power over, createContainer hooks are
//! refused: one would be a process of that namespace with the host's tree, for everybody there to see (see `between`).
//!
//! A hook reads the state from its standard input. It has the environment that the configuration gives it and no
//! other. One for which there is no word, not even of an empty one, has the caller's, and a startContainer hook that of
//! the container's command, as with runc, crun and youki. It has a process group of its own, so that all of it ends when
//! its time is over.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use oci_spec::runtime::{ContainerState, Hook, Hooks, Spec, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, fcntl_setfl, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::error::{Context, RuntimeError, invalid, unsupported};

/// When.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Moment {
    pub const ALL: [Moment; 6] = [
        Moment::Prestart,
        Moment::CreateRuntime,
        Moment::CreateContainer,
        Moment::StartContainer,
        Moment::Poststart,
        Moment::Poststop,
    ];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Moment::Prestart => "prestart",
            Moment::CreateRuntime => "createRuntime",
            Moment::CreateContainer => "createContainer",
            Moment::StartContainer => "startContainer",
            Moment::Poststart => "poststart",
            Moment::Poststop => "poststop",
        }
    }

    fn status(self) -> ContainerState {
        match self {
            Moment::Prestart | Moment::CreateRuntime | Moment::CreateContainer => ContainerState::Creating,
            Moment::StartContainer => ContainerState::Created,
            Moment::Poststart => ContainerState::Running,
            Moment::Poststop => ContainerState::Stopped,
        }
    }
}

/// Of what a hook says, so much is told when it fails.
const LONGEST_OUTPUT: usize = 2048;

/// Those of that moment.
#[allow(deprecated, reason = "`prestart` hooks are deprecated and still to be run")]
fn of(hooks: Option<&Hooks>, moment: Moment) -> &[Hook] {
    let Some(hooks) = hooks else { return &[] };
    let list = match moment {
        Moment::Prestart => hooks.prestart(),
        Moment::CreateRuntime => hooks.create_runtime(),
        Moment::CreateContainer => hooks.create_container(),
        Moment::StartContainer => hooks.start_container(),
        Moment::Poststart => hooks.poststart(),
        Moment::Poststop => hooks.poststop(),
    };
    list.as_deref().unwrap_or_default()
}

/// Whether `spec` has hooks that interrupt the making of the root filesystem.
pub(super) fn interrupt_creation(spec: &Spec) -> bool {
    [Moment::Prestart, Moment::CreateRuntime, Moment::CreateContainer]
        .iter()
        .any(|at| !of(spec.hooks().as_ref(), *at).is_empty())
}

/// Whether `spec` has hooks that run in a container that is half made, and still see the host.
pub(super) fn run_in_creation(spec: &Spec) -> bool {
    !of(spec.hooks().as_ref(), Moment::CreateContainer).is_empty()
}

/// Refuses what no hook may be, before anything is done.
pub(super) fn check(spec: &Spec, state: Option<&State>) -> Result<(), RuntimeError> {
    for moment in Moment::ALL {
        for (at, hook) in of(spec.hooks().as_ref(), moment).iter().enumerate() {
            let field = |name: &str| format!("hooks.{}[{at}]{name}", moment.name());
            if state.is_none() {
                return Err(unsupported(field(""), "hooks need a bundle: they are run by `evenkeel runtime`"));
            }
            if !hook.path().is_absolute() {
                return Err(invalid(field(".path"), "it must be an absolute path"));
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                return Err(invalid(field(".timeout"), "it must be more than 0 seconds"));
            }
        }
    }
    Ok(())
}

/// Runs the hooks of that moment in their order, up to the first that fails. `state` has the container's id, bundle
/// and annotations; `pid` is its first process as the hooks see it.
pub fn run(hooks: Option<&Hooks>, moment: Moment, state: &State, pid: Option<Pid>) -> Result<(), RuntimeError> {
    of(hooks, moment).iter().try_for_each(|hook| run_one(hook, moment, state, pid))
}

/// The same, with an environment for the startContainer hooks that have none.
pub fn within(mut hooks: Hooks, environment: &[String]) -> Hooks {
    if let Some(mut list) = hooks.start_container().clone() {
        for hook in list.iter_mut().filter(|hook| hook.env().is_none()) {
            hook.set_env(Some(environment.to_owned()));
        }
        hooks.set_start_container(Some(list));
    }
    hooks
}

/// Runs all hooks of that moment, and says which failed.
pub fn run_all(hooks: Option<&Hooks>, moment: Moment, state: &State, pid: Option<Pid>) -> Vec<RuntimeError> {
    of(hooks, moment).iter().filter_map(|hook| run_one(hook, moment, state, pid).err()).collect()
}

fn run_one(hook: &Hook, moment: Moment, state: &State, pid: Option<Pid>) -> Result<(), RuntimeError> {
    let name = || format!("{} hook `{}`", moment.name(), hook.path().display());
    let failed = |reason: String| RuntimeError::Hook { hook: name(), reason };
    let state = describe(state, moment, pid).during("tell the state to the", name())?;
    let (output, theirs) = std::io::pipe().during("make a pipe to the", name())?;
    fcntl_setfl(&output, OFlags::NONBLOCK).during("make a pipe to the", name())?;
    let errors = theirs.try_clone().during("make a pipe to the", name())?;
    let child = command(hook).stdin(state).stdout(theirs).stderr(errors).spawn();
    let child = child.map_err(|error| failed(format!("it cannot be executed: {error}")))?;
    let patience = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let (status, said) = wait(child, output.into(), patience).during("wait for the", name())?;
    let said = if said.is_empty() { said } else { format!(": {said}") };
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(failed(format!("{}{said}", words(status)))),
        None => Err(failed(format!("it took longer than {} s{said}", patience.unwrap_or_default().as_secs()))),
    }
}

/// The state as a file: nothing blocks on it, and nobody gets SIGPIPE of a hook that does not read.
fn describe(state: &State, moment: Moment, pid: Option<Pid>) -> std::io::Result<File> {
    let mut state = state.clone();
    state.set_status(moment.status());
    state.set_pid(pid.map(|pid| pid.as_raw_nonzero().get()));
    let mut file = File::from(memfd_create("state", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(&state)?)?;
    file.rewind()?;
    Ok(file)
}

fn command(hook: &Hook) -> Command {
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(rest);
    }
    if let Some(variables) = hook.env() {
        command.env_clear();
        command.envs(variables.iter().map(|variable| variable.split_once('=').unwrap_or((variable, ""))));
    }
    command.process_group(0);
    command
}

/// The status, `None` when its time was over, and the end of what it said. Processes that it leaves behind and that
/// still hold its output are not waited for.
fn wait(
    mut child: Child,
    output: OwnedFd,
    patience: Option<Duration>,
) -> std::io::Result<(Option<ExitStatus>, String)> {
    let deadline = patience.map(|patience| Instant::now() + patience);
    let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let mut output = File::from(output);
    let mut said = Vec::new();
    let mut is_open = true;
    let status = loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            // It may have ended this moment, and that is as good.
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            child.wait()?;
            break None;
        }
        let timeout = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        let mut polled = [PollFd::new(&process, PollFlags::IN), PollFd::new(&output, PollFlags::IN)];
        let count = if is_open { 2 } else { 1 };
        match poll(&mut polled[..count], timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let has_ended = !polled[0].revents().is_empty();
        if is_open {
            is_open = listen(&mut output, &mut said);
        }
        if has_ended {
            break Some(child.wait()?);
        }
    };
    if is_open {
        listen(&mut output, &mut said);
    }
    Ok((status, String::from_utf8_lossy(&said).trim().to_owned()))
}

/// Takes what is there and keeps the end of it; `false` at the end of the file.
fn listen(output: &mut File, said: &mut Vec<u8>) -> bool {
    let mut chunk = [0; LONGEST_OUTPUT];
    // One that never stops must not keep its deadline from being seen.
    for _ in 0..16 {
        match output.read(&mut chunk) {
            Ok(0) => return false,
            Ok(n) => {
                said.extend_from_slice(&chunk[..n]);
                said.drain(..said.len().saturating_sub(LONGEST_OUTPUT));
            }
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
    true
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with status {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it did not end well".to_owned(),
    }
}
