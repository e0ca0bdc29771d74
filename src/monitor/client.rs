//! Speaking to a running monitor: what the engine and the command line use.
//!
//! One [`Client`] is one connection; calls block. A command that waits for something (`stop`, `wait`, `exec`) holds its
//! connection until then. Any other is answered at once, and given up where that is not so: the monitor's process may be
//! stopped, or hang in the kernel. An end that was asked for comes within the grace period and what the kernel needs to
//! kill; one that does not is an error, too, which says what does not go.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, socketpair};

use super::error::MonitorError;
use super::packet::{self, Packet};
use super::protocol::{Answer, ExecSpec, InputOutput, Request};
use super::{hanging, launch_file, liveness, lock};
use crate::model::container::DEFAULT_STOP_GRACE_PERIOD;
use crate::model::paths::run;
use crate::model::status::{Exit, Status};
use crate::model::units::{Signal, Timespan};

/// How long a monitor may take to hear a call, and to answer one that waits for nothing: it does so in milliseconds, on a
/// machine without memory or time in seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the kernel may take to end processes that were killed. One in uninterruptible sleep (a dead file server) does
/// not end at all.
pub const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How long a start that somebody waits for may take. It takes milliseconds, after a boot with hundreds of others seconds;
/// one that hangs in a mount of a dead file server never ends.
pub const START_PATIENCE: Duration = Duration::from_secs(60);

/// How long a monitor that said that all is over may take to be gone.
const GOODBYE: Duration = Duration::from_secs(5);

/// A connection to the monitor of one container.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    directory: PathBuf,
    patience: Duration,
}

/// The standard descriptors of a further process.
pub struct Descriptors<'a> {
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
}

/// A further process that runs. Dropping it leaves the process alone.
#[derive(Debug)]
pub struct Running {
    client: Client,
    /// As the host sees it.
    pub pid: u32,
    /// The master side of its pseudo-terminal, where one was asked for. Its window size is the caller's to set.
    pub terminal: Option<OwnedFd>,
}

/// A view of a container's first process. The streams carry what it writes from now on; what is not read in time is
/// left out of them (the log has it). With a terminal everything comes on `stdout`.
#[derive(Debug)]
pub struct Attached {
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// Where its standard input is open: the write end of the pipe, or the terminal.
    pub stdin: Option<OwnedFd>,
}

impl Client {
    /// Connects to the monitor that works in a container's run directory.
    pub fn connect(directory: &Path) -> Result<Client, MonitorError> {
        Client::connect_as(directory, None)
    }

    /// The same for somebody who acts: `who` says what he is, in a word (`stop`, `watch`), for the journal.
    pub fn connect_as(directory: &Path, who: Option<&str>) -> Result<Client, MonitorError> {
        let attempt = || {
            let opened = packet::open_directory(directory)?;
            let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
            // It holds for connect(2), too, which waits while the queue of the listener is full (socket(7)).
            set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
            if let Some(who) = who {
                // Without it nothing is told of who asked, and what he asks for is done.
                let _ = packet::introduction(who).and_then(|name| Ok(bind(&socket, &name)?));
            }
            connect(&socket, &packet::address(&opened, run::CONTROL)?)?;
            Ok(socket)
        };
        match attempt() {
            Ok(socket) => Ok(Client { socket, directory: directory.to_owned(), patience: PATIENCE }),
            Err(source) => Err(MonitorError::NotRunning { directory: directory.to_owned(), source }),
        }
    }

    pub fn status(&self) -> Result<Status, MonitorError> {
        self.send(&Request::Status, &[])?;
        self.status_in(&self.receive_soon()?)
    }

    /// Ends the container, and comes back when it has ended and its monitor too. What is `None` comes from the
    /// container's own settings. [`MonitorError::Overdue`] when it does not end though it was killed.
    pub fn stop(&self, signal: Option<Signal>, grace: Option<Timespan>) -> Result<Status, MonitorError> {
        let patience = self.grace(grace) + KILL_PATIENCE;
        let status = self.call_in_time(&Request::Stop { signal, grace }, patience, "end")?;
        await_goodbye(&self.directory)?;
        Ok(status)
    }

    /// How long it may take to end by itself.
    fn grace(&self, asked: Option<Timespan>) -> Duration {
        let own = || launch_file::stop_grace_period(&self.directory);
        // Somebody may have taken the file away: the monitor has its own memory of it.
        asked.or_else(own).unwrap_or(DEFAULT_STOP_GRACE_PERIOD).to_duration()
    }

    /// Comes back when the container has ended for good, and its monitor too.
    pub fn wait(&self) -> Result<Status, MonitorError> {
        let status = self.call_for_status(&Request::Wait)?;
        await_goodbye(&self.directory)?;
        Ok(status)
    }

    /// Stops and starts the container. The answer tells how the new start went.
    pub fn restart(&self) -> Result<Status, MonitorError> {
        self.call_in_time(&Request::Restart, self.grace(None) + KILL_PATIENCE + START_PATIENCE, "start again")
    }

    /// Sends a signal to the first process.
    pub fn kill(&self, signal: Signal) -> Result<(), MonitorError> {
        self.call(&Request::Kill { signal })
    }

    pub fn pause(&self) -> Result<(), MonitorError> {
        self.call(&Request::Pause)
    }

    /// Pauses it until what comes back is dropped, be it by the end of this process.
    pub fn hold(self) -> Result<Held, MonitorError> {
        self.call(&Request::Hold)?;
        Ok(Held { client: self })
    }

    pub fn resume(&self) -> Result<(), MonitorError> {
        self.call(&Request::Resume)
    }

    /// Makes the monitor take over what may change from the launch file.
    pub fn reload(&self) -> Result<(), MonitorError> {
        self.call(&Request::Reload)
    }

    /// Starts a further process with these descriptors as its own: no byte passes through the monitor.
    pub fn exec(self, mut spec: ExecSpec, descriptors: &Descriptors<'_>) -> Result<Running, MonitorError> {
        spec.input_output = InputOutput::Descriptors;
        self.start(spec, &[descriptors.stdin, descriptors.stdout, descriptors.stderr])
    }

    /// Starts a further process on a pseudo-terminal of the container.
    pub fn exec_on_terminal(self, mut spec: ExecSpec) -> Result<Running, MonitorError> {
        spec.input_output = InputOutput::Terminal;
        self.start(spec, &[])
    }

    fn start(self, spec: ExecSpec, descriptors: &[BorrowedFd<'_>]) -> Result<Running, MonitorError> {
        self.send(&Request::Exec(spec), descriptors)?;
        let mut packet = self.receive()?;
        match self.read(&packet)? {
            Answer::Started { pid } => Ok(Running { pid, terminal: packet.descriptors.pop(), client: self }),
            other => Err(unexpected(other)),
        }
    }

    /// Looks on as the first process writes, and takes hold of its input.
    pub fn attach(&self) -> Result<Attached, MonitorError> {
        let (stdout, their_stdout) = stream_pair()?;
        let (stderr, their_stderr) = stream_pair()?;
        self.send(&Request::Attach, &[their_stdout.as_fd(), their_stderr.as_fd()])?;
        let mut packet = self.receive_soon()?;
        match self.read(&packet)? {
            Answer::Attached => Ok(Attached { stdout, stderr, stdin: packet.descriptors.pop() }),
            other => Err(unexpected(other)),
        }
    }

    /// Takes hold of the first process's standard input, alone: it ends when the descriptor is closed. `None` when it is
    /// not open.
    pub fn take_input(&self) -> Result<Option<OwnedFd>, MonitorError> {
        self.send(&Request::TakeInput, &[])?;
        let mut packet = self.receive_soon()?;
        match self.read(&packet)? {
            Answer::Attached => Ok(packet.descriptors.pop()),
            // It is over already.
            Answer::Status(_) => Ok(None),
            other => Err(unexpected(other)),
        }
    }

    /// Asks for the end of the container, to be waited for beside other things.
    pub fn end(self) -> Result<End, MonitorError> {
        self.send(&Request::Wait, &[])?;
        Ok(End { client: self })
    }

    fn call(&self, request: &Request) -> Result<(), MonitorError> {
        self.send(request, &[])?;
        match self.read(&self.receive_soon()?)? {
            Answer::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    fn call_for_status(&self, request: &Request) -> Result<Status, MonitorError> {
        self.send(request, &[])?;
        self.status_in(&self.receive()?)
    }

    /// What was asked for has come about by then, or what hangs is the error.
    fn call_in_time(&self, request: &Request, patience: Duration, what: &'static str) -> Result<Status, MonitorError> {
        self.send(request, &[])?;
        match self.receive_within(patience) {
            Err(MonitorError::Silent { time, .. }) => {
                Err(MonitorError::Overdue { what, time, hanging: hanging::below(self.monitor()) })
            }
            packet => self.status_in(&packet?),
        }
    }

    /// The process at the other end (unix(7), SO_PEERCRED): whoever listens there, however it was started.
    pub(super) fn monitor(&self) -> Option<u32> {
        let peer = rustix::net::sockopt::socket_peercred(&self.socket).ok()?;
        u32::try_from(peer.pid.as_raw_nonzero().get()).ok()
    }

    fn status_in(&self, packet: &Packet) -> Result<Status, MonitorError> {
        match self.read(packet)? {
            Answer::Status(status) => Ok(status),
            other => Err(unexpected(other)),
        }
    }

    fn send(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), MonitorError> {
        packet::send(&self.socket, request, descriptors).map_err(|source| self.broken(source, PATIENCE))
    }

    /// The answer to a call that waits for nothing.
    fn receive_soon(&self) -> Result<Packet, MonitorError> {
        self.receive_within(self.patience)
    }

    /// [`MonitorError::Silent`] when nothing was said by then.
    fn receive_within(&self, time: Duration) -> Result<Packet, MonitorError> {
        let wait = |time| set_socket_timeout(&self.socket, Timeout::Recv, time);
        wait(Some(time)).map_err(|error| self.broken(error.into(), time))?;
        let packet = packet::receive(&self.socket);
        wait(None).map_err(|error| self.broken(error.into(), time))?;
        self.whole(packet, time)
    }

    fn receive(&self) -> Result<Packet, MonitorError> {
        self.whole(packet::receive(&self.socket), Duration::MAX)
    }

    fn whole(&self, packet: io::Result<Option<Packet>>, time: Duration) -> Result<Packet, MonitorError> {
        packet
            .and_then(|packet| packet.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()))
            .map_err(|source| self.broken(source, time))
    }

    fn broken(&self, source: io::Error, time: Duration) -> MonitorError {
        match source.kind() {
            io::ErrorKind::WouldBlock => MonitorError::Silent { directory: self.directory.clone(), time },
            _ => MonitorError::Conversation { source },
        }
    }

    fn read(&self, packet: &Packet) -> Result<Answer, MonitorError> {
        packet.read().map_err(|error| MonitorError::Answer(error.to_string()))
    }
}

/// A monitor answers just before it ends; only then can the next one take its place.
fn await_goodbye(directory: &Path) -> Result<(), MonitorError> {
    let deadline = Instant::now() + GOODBYE;
    while lock::is_held(directory)? {
        if Instant::now() > deadline {
            return Err(MonitorError::Busy { directory: directory.to_owned() });
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// A container that is paused for as long as this is there.
#[derive(Debug)]
pub struct Held {
    client: Client,
}

impl Held {
    /// It goes on, and that is known when this comes back.
    pub fn resume(self) -> Result<(), MonitorError> {
        self.client.resume()
    }
}

/// The end of a container, which is to come.
#[derive(Debug)]
pub struct End {
    client: Client,
}

impl End {
    /// Waits for it.
    pub fn status(&self) -> Result<Status, MonitorError> {
        match self.client.read(&self.client.receive()?)? {
            Answer::Status(status) => Ok(status),
            other => Err(unexpected(other)),
        }
    }
}

/// Readable when [`End::status`] would not block.
impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.client.socket.as_fd()
    }
}

impl Running {
    /// Waits until the process has ended.
    pub fn wait(&self) -> Result<Exit, MonitorError> {
        match self.client.read(&self.client.receive()?)? {
            Answer::Ended(exit) => Ok(exit),
            other => Err(unexpected(other)),
        }
    }
}

/// Readable when [`Running::wait`] would not block.
impl AsFd for Running {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.client.socket.as_fd()
    }
}

/// Ends the container of a run directory whatever its monitor does: `None` when no monitor runs there. What is left out
/// is the container's own to say.
pub fn stop_if_running(
    directory: &Path,
    signal: Option<Signal>,
    grace: Option<Timespan>,
    who: Option<&str>,
) -> Result<Option<Status>, MonitorError> {
    match Client::connect_as(directory, who).and_then(|client| client.stop(signal, grace)) {
        Ok(status) => Ok(Some(status)),
        // It ended by itself between the two calls, or is about to, or there was none.
        Err(MonitorError::NotRunning { .. } | MonitorError::Conversation { .. }) if is_over(directory)? => {
            await_goodbye(directory)?;
            liveness::read_status(directory)
        }
        Err(error) => Err(error),
    }
}

/// Whether no monitor is there, or one that has nothing left to do but to go.
fn is_over(directory: &Path) -> Result<bool, MonitorError> {
    let says_so = || Ok(liveness::read_status(directory)?.is_some_and(|status| liveness::is_final(status.phase)));
    if lock::is_held(directory)? { says_so() } else { Ok(true) }
}

fn stream_pair() -> Result<(OwnedFd, OwnedFd), MonitorError> {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|source| MonitorError::system("make a socket pair", "attach", source))
}

fn unexpected(answer: Answer) -> MonitorError {
    match answer {
        Answer::Refused { reason } => MonitorError::Refused(reason),
        Answer::Failed(failure) => MonitorError::Start(failure),
        // What those are told who asked too late.
        Answer::Status(_) => MonitorError::Refused("the container has ended".to_owned()),
        other => MonitorError::Answer(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::liveness::tests::write_status;
    use super::*;
    use crate::model::status::Phase;

    /// It has removed its socket, and not yet let go of its lock.
    #[test]
    fn a_monitor_in_its_last_moments_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let lock = lock::acquire(directory).unwrap();
        write_status(directory, Phase::Running);
        assert!(matches!(stop_if_running(directory, None, None, None), Err(MonitorError::NotRunning { .. })));
        write_status(directory, Phase::Exited);
        let stopping = std::thread::scope(|scope| {
            let stopping = scope.spawn(|| stop_if_running(directory, None, None, None));
            std::thread::sleep(Duration::from_millis(100));
            drop(lock);
            stopping.join().unwrap()
        });
        assert_eq!(stopping.unwrap().map(|status| status.phase), Some(Phase::Exited));
    }

    #[test]
    fn a_monitor_that_does_not_answer_is_given_up_and_one_that_is_waited_for_is_not() {
        let kind = (AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (socket, theirs) = socketpair(kind.0, kind.1, kind.2, None).unwrap();
        let client = Client { socket, directory: "/run/x".into(), patience: Duration::from_millis(50) };
        let silent = client.status().unwrap_err();
        assert!(matches!(silent, MonitorError::Silent { .. }) && silent.hint().is_some(), "{silent}");
        assert!(matches!(client.pause().unwrap_err(), MonitorError::Silent { .. }));

        let stopped = std::thread::spawn(move || client.call_for_status(&Request::Wait));
        std::thread::sleep(Duration::from_millis(200));
        assert!(!stopped.is_finished());
        packet::send(&theirs, &Answer::Refused { reason: "enough".into() }, &[]).unwrap();
        assert!(matches!(stopped.join().unwrap().unwrap_err(), MonitorError::Refused(_)));
    }
}
