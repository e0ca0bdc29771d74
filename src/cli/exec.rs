//! `evenkeel exec`: a further process in a running container.
//!
//! Without a terminal the process gets our own descriptors, or pipes where ours are none of a container's business
//! ([`super::streams`]). With one (`-t`), bytes go between our terminal in raw mode and the master side of the container's
//! pseudo-terminal, whose size follows our window. Either way the command's status becomes ours, as a shell would
//! have it: 127 for a command that is not there, 126 for one that cannot be executed, 128 and the number for a signal.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use clap::Args;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use super::context::{Context, variable};
use super::conversation::{End, Keyboard, converse};
use super::detach_keys::{self, DetachKeys};
use super::failure::{Exit, Failure};
use super::inventory::Inventory;
use super::select;
use super::streams::{Listening, Streams, wait};
use super::terminal::{self, RawMode, Signals};
use crate::manifest::{self, Source};
use crate::monitor::client::{Client, Descriptors, Running};
use crate::monitor::error::MonitorError;
use crate::monitor::protocol::{ExecSpec, FailureKind, Privilege};
use crate::sys::clone::{Copy, clone3, exit_now};

#[derive(Debug, Args)]
pub struct ExecArguments {
    /// Come back when it runs; what it writes is not kept
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    detach: bool,

    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,

    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,

    /// The keys that leave its terminal and let it go on; with `-i` and `-t`
    #[arg(long, value_name = "KEYS", default_value = detach_keys::DEFAULT)]
    detach_keys: DetachKeys,

    /// Set a variable; without a value it is passed on from here
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    environment: Vec<String>,

    /// A file of NAME=VALUE lines; `-e` wins over it
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<PathBuf>,

    /// USER or USER:GROUP, names or numbers as the container knows them
    #[arg(short, long)]
    user: Option<String>,

    /// The working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,

    /// With every capability that this host can give
    #[arg(long)]
    privileged: bool,

    /// NAME, NAME.REPLICA, PROJECT/NAME or the beginning of an id
    name: String,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub fn run(arguments: &ExecArguments, context: &Context) -> Result<Exit, Failure> {
    let inventory = Inventory::read(context.paths.clone())?;
    let record = select::one(inventory.records(), &arguments.name, &|| context.tie_break())?;
    if arguments.tty && arguments.interactive && !io::stdin().is_terminal() {
        return Err(Failure::usage("`-i` with `-t` needs a terminal at standard input").hint("leave `-t` out"));
    }
    let name = record.full_name();
    let failed = |error: MonitorError| explain(error, &name);
    let client = Client::connect_as(&context.paths.container_run(&record.id), Some(&context.who)).map_err(failed)?;
    let spec = spec(arguments)?;
    if arguments.detach {
        let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
        let descriptors = Descriptors { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
        return client.exec(spec, &descriptors).map(|_| Exit::Done).map_err(failed);
    }
    // Before the process exists, so that no signal ends us between its start and the loop.
    let signals = Signals::take()?;
    match arguments.tty {
        true => on_terminal(&client.exec_on_terminal(spec).map_err(failed)?, &signals, arguments),
        false => {
            let listening = if arguments.interactive { Listening::Yes } else { Listening::No };
            let (streams, theirs) = Streams::open(listening)?;
            let running = client.exec(spec, &theirs.descriptors()).map_err(failed)?;
            drop(theirs);
            await_end(&running, &signals, Some(streams))
        }
    }
}

fn spec(arguments: &ExecArguments) -> Result<ExecSpec, Failure> {
    let passed_on = |name: &str| variable(name).map(|value| format!("{name}={value}"));
    let mut environment = Vec::new();
    for path in &arguments.env_files {
        let cannot = || format!("cannot read the environment file `{}`", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| Failure::from(error).context(cannot()))?;
        let source = Source { path: path.clone(), text };
        let pairs =
            manifest::variables(source, &variable).map_err(|problems| Failure::problems(problems).context(cannot()))?;
        environment.extend(pairs.into_iter().map(|(name, value)| format!("{name}={value}")));
    }
    let written = arguments.environment.iter();
    environment.extend(written.filter_map(|e| if e.contains('=') { Some(e.clone()) } else { passed_on(e) }));
    if arguments.tty && !environment.iter().any(|entry| entry.starts_with("TERM=")) {
        environment.extend(passed_on("TERM"));
    }
    Ok(ExecSpec {
        command: arguments.command.clone(),
        environment,
        user: arguments.user.clone(),
        working_dir: arguments.workdir.clone(),
        window: terminal::size(),
        privilege: if arguments.privileged { Privilege::Full } else { Privilege::Container },
        ..ExecSpec::default()
    })
}

fn explain(error: MonitorError, name: &str) -> Failure {
    let exit = match &error {
        // Who has no monitor has no process.
        MonitorError::NotRunning { .. } => {
            return Failure::new(format!("container `{name}` does not run"))
                .hint("`evenkeel ps` says what became of it");
        }
        // The monitor's hints are about manifests, and this command comes from here.
        MonitorError::Start(failure) if failure.kind == FailureKind::CommandNotFound => Exit::Status(127),
        MonitorError::Start(_) => Exit::Status(126),
        _ => Exit::Error,
    };
    Failure::from(error).context(format!("cannot execute in container `{name}`")).exit(exit)
}

/// Waits for the end. Meanwhile bytes are copied, and signals passed on.
fn await_end(running: &Running, signals: &Signals, mut streams: Option<Streams>) -> Result<Exit, Failure> {
    let process = process(running);
    loop {
        let (ended, signalled, ready) = {
            let interests: Vec<_> = streams.iter().flat_map(Streams::interests).collect();
            let mut polled = vec![PollFd::new(running, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
            polled.extend(interests.iter().map(|(_, fd, events)| PollFd::from_borrowed_fd(*fd, *events)));
            wait(&mut polled, None)?;
            let is_ready = |polled: &PollFd<'_>| !polled.revents().is_empty();
            let ready = interests.iter().zip(&polled[2..]).filter(|(_, polled)| is_ready(polled));
            let ready: Vec<_> = ready.map(|((ready, ..), _)| *ready).collect();
            (is_ready(&polled[0]), is_ready(&polled[1]), ready)
        };
        if signalled {
            pass_on(signals, process.as_ref())?;
        }
        if let Some(streams) = &mut streams {
            ready.into_iter().rev().try_for_each(|ready| streams.serve(ready))?;
        }
        if ended {
            streams.iter_mut().try_for_each(Streams::drain)?;
            return Ok(Exit::Status(running.wait()?.code()));
        }
    }
}

/// A descriptor of the process, to signal it without hitting another that got its number. `None` when it has ended.
fn process(running: &Running) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(running.pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

fn pass_on(signals: &Signals, process: Option<&OwnedFd>) -> Result<(), Failure> {
    while let Some(signal) = signals.next()? {
        let signal = rustix::process::Signal::from_named_raw(signal as i32);
        if let (Some(signal), Some(process)) = (signal, process)
            && signal != rustix::process::Signal::WINCH
        {
            // It may have ended on its own just now; then the loop is about to see that.
            let _ = pidfd_send_signal(process, signal);
        }
    }
    Ok(())
}

/// The process goes on without us, as long as its terminal has another side: a copy of this process, in a session of
/// its own, that throws away what is written there (clone(2)).
fn keep_open(master: &OwnedFd) -> Result<Exit, Failure> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    match clone3(0, None)? {
        Copy::Parent { .. } => Ok(Exit::Done),
        Copy::Child(_) => {
            let alone = rustix::process::setsid().and_then(|_| rustix::stdio::dup2_stdin(&null));
            let alone = alone.and_then(|()| rustix::stdio::dup2_stdout(&null));
            let mut chunk = [0; 4096];
            if alone.and_then(|()| rustix::stdio::dup2_stderr(&null)).is_ok() {
                while matches!(rustix::io::read(master, &mut chunk), Ok(1..) | Err(rustix::io::Errno::INTR)) {}
            }
            exit_now(0)
        }
    }
}

/// Bytes between two terminals until the process ends, or we are asked to.
fn on_terminal(running: &Running, signals: &Signals, arguments: &ExecArguments) -> Result<Exit, Failure> {
    let Some(master) = &running.terminal else {
        return Err(Failure::new("the monitor gave no terminal back"));
    };
    // A job that nobody watches may want a terminal for its command all the same.
    let _raw = if io::stdin().is_terminal() { Some(RawMode::enter()?) } else { None };
    let keys = || arguments.detach_keys.clone();
    let keyboard = if arguments.interactive { Keyboard::HeardUntil(keys()) } else { Keyboard::Ignored };
    match converse(running, master, signals, keyboard)? {
        End::Ended => Ok(Exit::Status(running.wait()?.code())),
        End::Closed => await_end(running, signals, None),
        End::Left => keep_open(master),
        End::Signalled(number) => Ok(Exit::Status(128 + number as u8)),
    }
}
