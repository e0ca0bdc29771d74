//! Carrying out the machine's commands, and telling it what came of them.

use std::os::fd::OwnedFd;

use rustix::process::Pid;

use super::clock::Now;
use super::complaint::say;
use super::control::Promise;
use super::conversation::Verdict;
use super::errand::{self, Errand, Report};
use super::error::MonitorError;
use super::machine::{Command, Event};
use super::probe::{self, Probe};
use super::protocol::{Answer, StartFailure, chain};
use super::supervise::{FirstStart, Supervisor};
use crate::model::status::{Exit, ProbeResult};
use crate::model::units::Signal;
use crate::runtime::RuntimeError;

impl Supervisor {
    /// Tells the machine and does as it says, and so on with what comes of that.
    pub(super) fn step(&mut self, event: Event, now: Now) {
        for command in self.machine.step(event, now) {
            self.carry_out(command, now);
        }
    }

    pub(super) fn carry_out(&mut self, command: Command, now: Now) {
        let result = match command {
            Command::Start => return self.begin_start(now),
            Command::Probe => return self.begin_probe(now),
            Command::CancelProbe => {
                if let Some(probe) = self.probe.take() {
                    probe.cancel();
                }
                Ok(())
            }
            // The process may end at any moment, so a signal that no longer finds it is no error.
            Command::Signal(signal) => {
                let hears = self.workload.hears(signal);
                let _ = self.workload.signal(signal);
                self.tell_signal(signal);
                if !hears {
                    self.step(Event::Unheard, now);
                }
                Ok(())
            }
            Command::KillAll => {
                self.start.iter().for_each(Errand::kill);
                let result = self.workload.kill_all();
                self.tell_signal(Signal::KILL);
                result
            }
            Command::Freeze => {
                let result = self.workload.freeze();
                match &result {
                    Ok(()) => self.tell_by_asker("pause", |event| event),
                    Err(_) => self.step(Event::FreezeFailed, now),
                }
                result
            }
            Command::Thaw => {
                let result = self.workload.thaw();
                if result.is_ok() {
                    self.tell_by_asker("unpause", |event| event);
                }
                result
            }
        };
        self.complain(result);
    }

    /// What failed goes to standard error, a file in the run directory, and to whoever asked for it.
    pub(super) fn complain(&mut self, result: Result<(), RuntimeError>) {
        if let Err(error) = result {
            let problem = chain(&error);
            say(format_args!("{}: {problem}", self.launch.name));
            self.problem = Some(problem);
        }
    }

    fn begin_start(&mut self, now: Now) {
        let prepared = self.output.prepare();
        let started = prepared.and_then(|descriptors| errand::start(&self.launch, self.window, descriptors.as_ref()));
        match started {
            Ok(errand) => self.start = Some(errand),
            Err(error) => self.start_failed(StartFailure::other(&error), now),
        }
    }

    pub(super) fn hear_start(&mut self, now: Now) {
        while let Some(errand) = &self.start {
            match errand.report() {
                Report::Nothing => return,
                Report::Cgroup(path) => {
                    let result = self.workload.set_cgroup(&path);
                    self.complain(result);
                }
                Report::Started { pid, terminal } => {
                    self.start = None;
                    self.started(pid, terminal, now);
                }
                Report::Failed(failure) => self.start_failed(failure, now),
                Report::Gone => {
                    let error = MonitorError::Died(": the start was ended from outside".into());
                    // It may have come as far as its execve(2) without a word to us.
                    self.workload.end_leftovers();
                    self.start_failed(StartFailure::other(&error), now);
                }
            }
        }
    }

    fn started(&mut self, pid: Pid, terminal: Option<OwnedFd>, now: Now) {
        self.workload.started(pid);
        if let Some(terminal) = terminal
            && let Err(error) = self.output.take_terminal(terminal)
        {
            say(format_args!("{}: {}", self.launch.name, chain(&error)));
        }
        let pid = pid.as_raw_nonzero().get().unsigned_abs();
        let is_first = self.first.is_none();
        self.first.get_or_insert(FirstStart::Running { pid });
        self.step(Event::Started { pid }, now);
        self.tell_start(pid, is_first);
        let answer = self.status_answer();
        self.control.keep(Promise::Running, &answer);
    }

    fn start_failed(&mut self, failure: StartFailure, now: Now) {
        self.start = None;
        self.output.finish(now);
        let (error, exit) = (failure.message.clone(), failure.kind.exit());
        self.first.get_or_insert(FirstStart::Failed(failure));
        self.step(Event::StartFailed { error: error.clone(), exit }, now);
        self.tell_failed_start(exit, &error);
    }

    fn begin_probe(&mut self, now: Now) {
        let (Some(check), Some(pid)) = (&self.machine.settings().healthcheck, self.workload.pid) else { return };
        let target = probe::Target { pid, home: &self.home };
        match Probe::begin(&self.launch, check, target, now.monotonic) {
            Ok(probe) => self.probe = Some(probe),
            Err(verdict) => self.conclude_probe(verdict, now),
        }
    }

    pub(super) fn advance_probe(&mut self, now: Now) {
        if let Some(verdict) = self.probe.as_mut().and_then(Probe::advance) {
            self.probe = None;
            self.conclude_probe(verdict, now);
        }
    }

    pub(super) fn conclude_probe(&mut self, Verdict { healthy, output }: Verdict, now: Now) {
        let before = self.machine.verdict();
        self.step(Event::Probed(ProbeResult { at: now.wall, healthy, output }), now);
        self.tell_health(before);
    }

    pub(super) fn reaped(&mut self, pid: Pid, exit: Exit, now: Now) {
        // A copy speaks before its process can become our child: whose this is may lie in a channel unread.
        self.hear_start(now);
        self.hear_jobs();
        self.advance_probe(now);
        if self.workload.pid == Some(pid) {
            let exit = self.workload.ended(exit);
            self.output.finish(now);
            let was_stopping = self.machine.is_stopping();
            self.step(Event::Exited(exit), now);
            self.tell_end(exit, was_stopping);
        } else if self.probe.as_ref().and_then(Probe::pid) == Some(pid) {
            if let Some(mut probe) = self.probe.take() {
                let verdict = probe.ended(exit);
                self.conclude_probe(verdict, now);
            }
        } else if let Some(at) = self.jobs.iter().position(|job| job.job.pid == Some(pid)) {
            let job = self.jobs.swap_remove(at);
            self.tell_exec_end(&job.told, exit.code(), None);
            self.control.answer(job.connection, &Answer::Ended(exit), &[]);
        }
        // Anything else: a copy that did its errand, a cancelled probe, an orphan of the container.
    }
}
