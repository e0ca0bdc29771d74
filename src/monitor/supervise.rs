//! The monitor's loop: kernel facts and requests become events, the machine's commands become system calls.
//!
//! One thread, one poll(2). Every part names the descriptors it waits for and the time at which it has something to
//! do; whatever is ready is handled, then deadlines, then the status file is brought up to date.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsFd;

use super::audience::{self, Audience};
use super::clock::Now;
use super::complaint::say;
use super::control::{self, Control, Promise};
use super::errand::Errand;
use super::error::MonitorError;
use super::job::Job;
use super::lock::{self, Lock};
use super::logs::Stream;
use super::machine::{Ask, Command, Event, Machine, Settings};
use super::names::server as names;
use super::netns::Home;
use super::output::Output;
use super::probe::Probe;
use super::protocol::{Answer, StartFailure, Window, chain};
use super::telling::{Teller, ToldExec};
use super::workload::Workload;
use super::{children, launch_file, status_file};
use crate::model::launch::{Launch, Resolver, Terminal};
use crate::model::paths::run;
use crate::model::status::Status;

/// How long until a status that could not be written is tried again.
const PUBLISH_AGAIN: Duration = Duration::from_secs(1);

/// How long the names of a shared network may be unserved after the monitor that served them is gone.
const NAMES_AGAIN: Duration = Duration::from_secs(3);

/// Which descriptor is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ready {
    Signals,
    Start,
    Jobs,
    Probe,
    Output(Stream),
    Audience(Stream),
    Control(control::Ready),
    Names(names::Ready),
}

/// A further process that a client asked for.
#[derive(Debug)]
pub(super) struct ClientJob {
    pub job: Job,
    pub connection: u32,
    pub told: ToldExec,
}

/// One monitor at work.
pub struct Supervisor {
    pub(super) directory: PathBuf,
    pub(super) launch: Launch,
    pub(super) machine: Machine,
    pub(super) workload: Workload,
    pub(super) output: Output,
    /// What the container's terminal is born with, where it has one.
    pub(super) window: Option<Window>,
    pub(super) control: Control,
    pub(super) jobs: Vec<ClientJob>,
    /// The connection for whose time it is paused.
    pub(super) holder: Option<u32>,
    pub(super) names: Option<names::Server>,
    /// When to try again to serve names, while the monitor of a container that shares our network does.
    names_again: Option<Duration>,
    pub(super) home: Home,
    signals: SignalFd,
    pub(super) start: Option<Errand>,
    pub(super) probe: Option<Probe>,
    /// What the status file says; `None` while it could not be written.
    published: Option<Status>,
    /// How the first start went, since that is known.
    pub(super) first: Option<FirstStart>,
    /// What the last command could not do.
    pub(super) problem: Option<String>,
    pub(super) teller: Teller,
    _lock: Lock,
}

/// How a first start went.
#[derive(Debug, Clone)]
pub enum FirstStart {
    Running {
        pid: u32,
    },
    Failed(StartFailure),
    /// It was stopped before it could be told.
    Stopped,
}

impl Supervisor {
    /// Takes the lock of a run directory, reads the launch file and opens what the loop needs. Nothing runs yet.
    pub fn open(directory: PathBuf) -> Result<Box<Supervisor>, MonitorError> {
        let lock = lock::acquire(&directory)?;
        let launch = launch_file::read(&directory)?;
        let machine = Machine::new(Settings::of(&launch));
        let status = machine.status(&launch.id);
        status_file::write(&directory, &status)?;
        let system = |operation| {
            let name = launch.name.clone();
            move |source: std::io::Error| MonitorError::system(operation, name, source)
        };
        let home = Home::open().map_err(system("find the network namespace"))?;
        let names = serve_names(&home, &launch).map_err(system("serve names at 127.0.0.11"))?;
        let signals = signals().map_err(system("receive signals"))?;
        Ok(Box::new(Supervisor {
            control: Control::open(&directory)?,
            output: Output::new(
                launch.terminal,
                Audience::find(&directory),
                launch.logs.clone(),
                launch.logging.clone(),
            ),
            window: audience::window(&directory).filter(|_| launch.terminal == Terminal::Tty),
            workload: Workload::default(),
            jobs: Vec::new(),
            holder: None,
            names_again: is_due_later(&launch, names.as_ref()),
            names,
            home,
            signals,
            start: None,
            probe: None,
            published: Some(status),
            first: None,
            problem: None,
            teller: Teller::default(),
            machine,
            launch,
            directory,
            _lock: lock,
        }))
    }

    /// Shows the container's name where ps(1) and top(1) look, as far as 15 bytes go (prctl(2), PR_SET_NAME).
    pub fn name_process(&self) {
        let instance = self.launch.name.rsplit('/').next().unwrap_or_default();
        let name: Vec<u8> = format!("ek-{instance}").bytes().filter(|byte| *byte != 0).take(15).collect();
        if let Ok(name) = std::ffi::CString::new(name) {
            // Only a convenience.
            let _ = rustix::thread::set_name(&name);
        }
    }

    /// Runs the container until it is over. `tell` hears once how the first start went.
    ///
    /// Gives the last act of its process.
    pub fn run(mut self: Box<Self>, tell: impl FnOnce(FirstStart)) -> Result<Vec<OsString>, MonitorError> {
        let mut tell = Some(tell);
        self.carry_out(Command::Start, Now::read());
        loop {
            self.publish();
            if self.machine.is_over() {
                let first = self.first.take().unwrap_or(FirstStart::Stopped);
                let goodbye = self.say_goodbye();
                // Told last: a start that failed leaves no monitor behind.
                tell.into_iter().for_each(|tell| tell(first.clone()));
                return goodbye;
            }
            // After the status file, so that whoever is told finds it so.
            if let Some(first) = &self.first {
                tell.take().into_iter().for_each(|tell| tell(first.clone()));
            }
            let ready = self.wait()?;
            let now = Now::read();
            for ready in ready {
                self.handle(ready, now)?;
            }
            self.end_hold(now);
            self.expire(now);
        }
    }

    /// Waits until something is ready or a time has come.
    fn wait(&self) -> Result<Vec<Ready>, MonitorError> {
        let now = Now::read().monotonic;
        let mut what = vec![Ready::Signals];
        let mut polled = vec![PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
        let mut add = |ready, fd, flags| {
            what.push(ready);
            polled.push(PollFd::from_borrowed_fd(fd, flags));
        };
        self.start.iter().for_each(|errand| add(Ready::Start, errand.as_fd(), PollFlags::IN));
        let errands = self.jobs.iter().filter_map(|job| job.job.errand.as_ref());
        errands.for_each(|errand| add(Ready::Jobs, errand.as_fd(), PollFlags::IN));
        let probing = self.probe.iter().flat_map(Probe::interests);
        probing.for_each(|(fd, flags)| add(Ready::Probe, fd, flags));
        self.output.interests(now).for_each(|(stream, fd)| add(Ready::Output(stream), fd, PollFlags::IN));
        let behind = self.output.audience_interests();
        behind.for_each(|(stream, fd)| add(Ready::Audience(stream), fd, PollFlags::OUT));
        self.control.interests().for_each(|(ready, fd)| add(Ready::Control(ready), fd, PollFlags::IN));
        let names = self.names.iter().flat_map(names::Server::interests);
        names.for_each(|(ready, fd, flags)| add(Ready::Names(ready), fd, flags));
        match poll(&mut polled, self.patience(now).as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(MonitorError::system("wait for events", &self.launch.name, error)),
        }
        let pairs = what.into_iter().zip(&polled);
        Ok(pairs.filter(|(_, polled)| !polled.revents().is_empty()).map(|(ready, _)| ready).collect())
    }

    /// How long from `now` until the next deadline.
    fn patience(&self, now: Duration) -> Option<Timespec> {
        let deadlines = [
            self.machine.deadline(),
            self.probe.as_ref().map(|probe| probe.deadline),
            self.output.deadline(now),
            self.names.as_ref().and_then(names::Server::deadline),
            self.names_again,
        ];
        let try_again = self.published.is_none().then(|| now + PUBLISH_AGAIN);
        let next = deadlines.into_iter().chain([try_again]).flatten().min()?;
        let left = next.saturating_sub(now);
        // A far deadline is looked at again after a day.
        let left = left.min(Duration::from_secs(86_400));
        Some(Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() })
    }

    fn handle(&mut self, ready: Ready, now: Now) -> Result<(), MonitorError> {
        match ready {
            Ready::Signals => self.take_signals(now)?,
            Ready::Start => self.hear_start(now),
            Ready::Jobs => self.hear_jobs(),
            Ready::Probe => self.advance_probe(now),
            Ready::Output(stream) => self.output.read(stream, now),
            Ready::Audience(stream) => self.output.audience().catch_up(stream),
            Ready::Control(control::Ready::Listener) => self.control.accept(),
            Ready::Control(control::Ready::Connection(number)) => self.take_request(number, now),
            Ready::Names(ready) => {
                if let Some(names) = &mut self.names {
                    names.serve(ready, now.monotonic);
                }
            }
        }
        Ok(())
    }

    /// Does what its time has come for.
    fn expire(&mut self, now: Now) {
        if let Some(probe) = self.probe.take_if(|probe| probe.deadline <= now.monotonic) {
            let verdict = probe.expire();
            self.conclude_probe(verdict, now);
        }
        if self.machine.deadline().is_some_and(|deadline| deadline <= now.monotonic) {
            self.step(Event::Timer, now);
        }
        self.output.rest(now);
        if let Some(names) = &mut self.names {
            names.expire(now.monotonic);
        }
        if self.names_again.is_some_and(|again| again <= now.monotonic) {
            // What goes wrong here went well for the other one: it stays the other one's until the next time.
            self.names = serve_names(&self.home, &self.launch).unwrap_or_default();
            self.names_again = is_due_later(&self.launch, self.names.as_ref());
        }
    }

    /// Also for the time when this monitor comes to serve the names, if another does now.
    pub(super) fn set_resolver(&mut self, resolver: Option<Resolver>) {
        if let (Some(names), Some(resolver)) = (&mut self.names, &resolver) {
            names.set_resolver(resolver);
        }
        self.launch.resolver = resolver;
        self.names_again = is_due_later(&self.launch, self.names.as_ref());
    }

    fn take_signals(&mut self, now: Now) -> Result<(), MonitorError> {
        let failed = |error: nix::errno::Errno| MonitorError::system("receive signals", "itself", error);
        while let Some(signal) = self.signals.read_signal().map_err(failed)? {
            // A host that goes down says so with SIGTERM: the container gets its stop sequence.
            if signal.ssi_signo == NixSignal::SIGTERM as u32 {
                self.teller.asker = Some("SIGTERM".to_owned());
                self.step(Event::Asked(Ask::Stop { signal: None, grace: None }), now);
            }
        }
        while let Some((pid, exit)) =
            children::reap().map_err(|error| MonitorError::system("wait for processes", "itself", error))?
        {
            self.reaped(pid, exit, now);
        }
        Ok(())
    }

    pub(super) fn status_answer(&self) -> Answer {
        Answer::Status(self.machine.status(&self.launch.id))
    }

    /// Brings the status file up to date where something changed that others look at. A file system that is full is
    /// tried again: it is no reason to leave the container alone.
    pub(super) fn publish(&mut self) {
        let status = self.machine.status(&self.launch.id);
        if self.published.as_ref().is_some_and(|published| !differ(published, &status)) {
            return;
        }
        match status_file::write(&self.directory, &status) {
            Ok(()) => self.published = Some(status),
            Err(error) => {
                // Said once, not every second.
                if self.published.take().is_some() {
                    say(format_args!("{}: {}", self.launch.name, chain(&error)));
                }
            }
        }
    }

    /// Somebody took the file away: it is written again.
    pub(super) fn restore_status(&mut self) {
        if !self.directory.join(run::STATUS).exists() {
            self.published = None;
            self.publish();
        }
    }

    /// The container is over: everything goes, the lock last, and then those are told who wait for it. Gives what is to
    /// be executed then.
    fn say_goodbye(mut self: Box<Self>) -> Result<Vec<OsString>, MonitorError> {
        let answer = self.status_answer();
        self.workload.end_leftovers();
        let removed = self.workload.remove_cgroup();
        self.complain(removed);
        control::remove(&self.directory)
            .map_err(|source| MonitorError::file("remove the control socket in", &self.directory, source))?;
        self.control.hear_no_more(Promise::Over);
        let Supervisor { launch, names, probe, output, _lock: lock, mut control, .. } = *self;
        drop((names, probe));
        drop(lock);
        control.keep(Promise::Over, &answer);
        control.keep(Promise::Running, &answer);
        drop(control);
        if let Err(error) = output.take_leave() {
            say(format_args!("{}: some output was not read to its end: {error}", launch.name));
        }
        Ok(launch.after_end)
    }
}

/// The name service of a container that has a network of its own; `None` too where another monitor has it.
fn serve_names(home: &Home, launch: &Launch) -> std::io::Result<Option<names::Server>> {
    match (&launch.netns, &launch.resolver) {
        (Some(netns), Some(resolver)) => names::Server::open(home, netns, resolver),
        _ => Ok(None),
    }
}

fn is_due_later(launch: &Launch, names: Option<&names::Server>) -> Option<Duration> {
    let wanted = launch.netns.is_some() && launch.resolver.is_some();
    (wanted && names.is_none()).then(|| Now::read().monotonic + NAMES_AGAIN)
}

/// Good answers of a health check that was healthy before are not worth a write every time.
fn differ(old: &Status, new: &Status) -> bool {
    let essence = |status: &Status| {
        let mut status = status.clone();
        if let Some(health) = &mut status.health {
            health.log.retain(|answer| !answer.healthy);
        }
        status
    };
    essence(old) != essence(new)
}

/// SIGCHLD and SIGTERM as a descriptor; signals of a terminal or a session that is not ours are taken and ignored.
fn signals() -> std::io::Result<SignalFd> {
    let mut mask = SigSet::empty();
    for signal in [NixSignal::SIGCHLD, NixSignal::SIGTERM, NixSignal::SIGINT, NixSignal::SIGHUP] {
        mask.add(signal);
    }
    mask.thread_block()?;
    Ok(SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}
