//! A container that is about to start, on our own standard descriptors from its first byte on.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cli::apply::Session;
use crate::cli::console::{Console, ConsoleSettings, Fate, Outcome};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::terminal;
use crate::engine::host::Host;
use crate::engine::lock::Lock;
use crate::model::actual::Liveness;
use crate::model::container::AfterEnd;
use crate::model::id::ContainerId;
use crate::model::paths::{Paths, run};
use crate::model::record::ContainerRecord;
use crate::model::status::{Phase, Status};
use crate::monitor::audience::Seats;
use crate::monitor::client::Client;
use crate::monitor::liveness;

/// What of the process is ours.
#[derive(Debug, Clone, Copy)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub terminal: bool,
}

/// How long the removal of a container may take that its monitor sees to.
const REMOVAL: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Foreground {
    /// The container's run directory.
    directory: PathBuf,
    /// Its place in the state root.
    container: PathBuf,
    seats: Seats,
    streams: Streams,
}

impl Foreground {
    /// Before the container is started.
    pub fn prepare(paths: &Paths, id: &ContainerId, streams: Streams) -> Result<Foreground, Failure> {
        let directory = paths.container_run(id);
        let seats = Seats::take(&directory, terminal::size().filter(|_| streams.terminal)).map_err(Failure::monitor)?;
        Ok(Foreground { directory, container: paths.container(id), seats, streams })
    }

    /// It could not be started.
    pub fn give_up(self, session: &Session, lock: Lock, record: &ContainerRecord, failure: Failure) -> Failure {
        // Nobody listens at them any more; what is left of a run directory goes with its container.
        let _ = Seats::close_the_doors(&self.directory);
        drop(lock);
        // Only what came to a monitor has somebody to remove it.
        if record.after_end == AfterEnd::Remove && self.directory.join(run::STATUS).exists() {
            await_removal(&self.container, record, &session.host);
        }
        failure
    }

    /// Once it is started. The lock is held until we have its end in hand: who removes it waits for that lock.
    pub fn go(
        self,
        session: Session,
        lock: Lock,
        settings: ConsoleSettings,
        record: &ContainerRecord,
        output: &Output,
    ) -> Result<Exit, Failure> {
        let Foreground { directory, container, seats, streams } = self;
        Seats::close_the_doors(&directory)?;
        let (fate, given) = match connect(&directory, streams)? {
            Some((fate, given)) => (fate, given),
            None => (Fate::Known(last_status(&directory)?), None),
        };
        drop(lock);
        let terminal = if streams.terminal { given.as_ref().map(|fd| fd.try_clone()).transpose()? } else { None };
        let input = given.filter(|_| streams.stdin);
        let Session { host, interrupt, .. } = session;
        let signals = interrupt.into_signals()?;
        // Who leaves a seat is no longer written to.
        let stdout = Some(seats.stdout).filter(|_| streams.stdout);
        let stderr = Some(seats.stderr).filter(|_| streams.stderr);
        let console = Console { directory, stdout, stderr, input, terminal, fate, settings };
        match console.run(&signals)? {
            Outcome::Left { signal: None } => {
                output.remark("left it running");
                Ok(Exit::Done)
            }
            Outcome::Left { signal: Some(code) } => Ok(Exit::Status(code)),
            Outcome::Ended(status) => {
                if record.after_end == AfterEnd::Remove {
                    await_removal(&container, record, &host);
                }
                exit_of(&status)
            }
        }
    }
}

/// The end to come and the process's input; `None` when it is over already.
fn connect(
    directory: &std::path::Path,
    streams: Streams,
) -> Result<Option<(Fate, Option<std::os::fd::OwnedFd>)>, Failure> {
    let attempt = || {
        let client = Client::connect(directory)?;
        let input = if streams.stdin || streams.terminal { client.take_input()? } else { None };
        Ok((Fate::ToCome(client.end()?), input))
    };
    match attempt() {
        Ok(connected) => Ok(Some(connected)),
        // Nobody listens any more when it is over, or about to be.
        Err(error) => match liveness::liveness(directory) {
            Ok(Liveness::Ended(_)) => Ok(None),
            Ok(Liveness::Monitored(status))
                if matches!(status.phase, Phase::Exited | Phase::Stopped | Phase::Failed) =>
            {
                Ok(None)
            }
            _ => Err(Failure::monitor(error)),
        },
    }
}

fn last_status(directory: &std::path::Path) -> Result<Status, Failure> {
    match liveness::liveness(directory).map_err(Failure::monitor)? {
        Liveness::Ended(status) | Liveness::Monitored(status) => Ok(status),
        other => Err(Failure::new(format!("its end is not known: {other:?}"))),
    }
}

/// The exit code of a container is ours.
pub fn exit_of(status: &Status) -> Result<Exit, Failure> {
    match (status.exit, &status.error) {
        (exit, Some(error)) => {
            Err(Failure::new(error.clone()).exit(Exit::Status(exit.map_or(125, |exit| exit.code()))))
        }
        (Some(exit), None) => Ok(Exit::Status(exit.code())),
        (None, None) => Ok(Exit::Done),
    }
}

/// A script that runs one and then looks for it, or for a volume of its own, should not find it. If it takes longer, the
/// next command sees to it.
fn await_removal(container: &std::path::Path, record: &ContainerRecord, host: &Host) {
    let deadline = Instant::now() + REMOVAL;
    while container.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    if record.spec.volumes().next().is_some() {
        // They go after it, under the lock of who removes it. One that is held for longer is somebody else's.
        drop(host.lock(deadline.saturating_duration_since(Instant::now())));
    }
}
