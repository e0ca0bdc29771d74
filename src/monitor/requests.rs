//! What clients ask for over the control socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::SystemTime;

use super::clock::Now;
use super::control::Promise;
use super::errand::{self, Descriptors, Report};
use super::job::Job;
use super::launch_file;
use super::machine::{Ask, Event, Settings};
use super::packet::Packet;
use super::protocol::{Answer, ExecSpec, InputOutput, Request, StartFailure};
use super::supervise::{ClientJob, Supervisor};
use super::telling::ToldExec;
use crate::model::status::Phase;

/// Further processes at one time, so that clients cannot use up the monitor's descriptors.
const MOST_JOBS: usize = 48;

impl Supervisor {
    pub(super) fn take_request(&mut self, number: u32, now: Now) {
        let Some(packet) = self.control.receive(number) else { return };
        if self.control.is_promised(number) {
            return self.refuse(number, "this connection waits for an answer already");
        }
        let request = match packet.read::<Request>() {
            Ok(request) => request,
            Err(error) => return self.refuse(number, &format!("this is no request that is known here: {error}")),
        };
        match request {
            Request::Status => {
                self.restore_status();
                let answer = self.status_answer();
                self.control.answer(number, &answer, &[]);
            }
            Request::Wait => self.control.promise(number, Promise::Over),
            Request::Stop { signal, grace } => self.ask(number, Ask::Stop { signal, grace }, Some(Promise::Over), now),
            Request::Restart => self.ask(number, Ask::Restart, Some(Promise::Running), now),
            Request::Kill { signal } => self.ask(number, Ask::Kill { signal }, None, now),
            Request::Pause | Request::Resume => {
                let ask = if matches!(request, Request::Pause) { Ask::Pause } else { Ask::Resume };
                if self.machine.refusal(&ask).is_none() {
                    // From here on it is paused, or not, as this one says.
                    self.holder = None;
                }
                self.ask(number, ask, None, now);
            }
            Request::Hold => self.hold(number, now),
            Request::Reload => self.reload(number, now),
            Request::Exec(request) => self.exec(number, &request, packet, now),
            Request::Attach => self.attach(number, packet),
            Request::TakeInput => self.give_input(number),
        }
    }

    fn hold(&mut self, number: u32, now: Now) {
        // What somebody else paused is not ended with this one.
        let goes_on = self.machine.refusal(&Ask::Pause).is_none();
        self.ask(number, Ask::Pause, None, now);
        if goes_on && self.machine.status(&self.launch.id).phase == Phase::Paused {
            self.holder = Some(number);
        }
    }

    /// Whoever wanted the container to be paused for a while is gone, without a word perhaps: it goes on.
    pub(super) fn end_hold(&mut self, now: Now) {
        let Some(holder) = self.holder else { return };
        let is_paused = self.machine.status(&self.launch.id).phase == Phase::Paused;
        if is_paused && self.control.has(holder) {
            return;
        }
        self.holder = None;
        if is_paused {
            self.step(Event::Asked(Ask::Resume), now);
        }
    }

    fn refuse(&mut self, number: u32, reason: &str) {
        self.control.answer(number, &Answer::Refused { reason: reason.to_owned() }, &[]);
    }

    /// Passes a wish on to the machine, and answers at once where nothing is promised.
    fn ask(&mut self, number: u32, ask: Ask, promise: Option<Promise>, now: Now) {
        if let Some(reason) = self.machine.refusal(&ask) {
            return self.refuse(number, reason);
        }
        promise.into_iter().for_each(|promise| self.control.promise(number, promise));
        self.problem = None;
        if !matches!(ask, Ask::Reload(_)) {
            self.teller.asker = self.control.asker(number);
        }
        self.step(Event::Asked(ask), now);
        match (promise, self.problem.take()) {
            (None, None) => self.control.answer(number, &Answer::Done, &[]),
            (None, Some(problem)) => self.refuse(number, &problem),
            // Kept when the time comes, whatever went wrong on the way.
            (Some(_), _) => {}
        }
    }

    /// Takes over what may change from the launch file; all else waits for the next start of a monitor.
    fn reload(&mut self, number: u32, now: Now) {
        let launch = match launch_file::read(&self.directory) {
            Ok(launch) => launch,
            Err(error) => return self.refuse(number, &super::protocol::chain(&error)),
        };
        let settings = Settings::of(&launch);
        self.output.set_logging(launch.logging.clone());
        self.set_resolver(launch.resolver);
        self.launch.logging = launch.logging;
        self.launch.healthcheck = launch.healthcheck;
        self.ask(number, Ask::Reload(Box::new(settings)), None, now);
    }

    fn exec(&mut self, number: u32, request: &ExecSpec, mut packet: Packet, now: Now) {
        let phase = self.machine.status(&self.launch.id).phase;
        let target = match (phase, self.workload.pid) {
            (Phase::Running, Some(target)) if self.jobs.len() < MOST_JOBS => target,
            (Phase::Running, Some(_)) => {
                return self.refuse(number, "too many processes were started this way already");
            }
            // It would be frozen before it began.
            (Phase::Paused, _) => return self.refuse(number, "the container is paused"),
            _ => return self.refuse(number, "the container is not running"),
        };
        if request.command.is_empty() {
            return self.refuse(number, "there is no command to execute");
        }
        let descriptors = match (request.input_output, packet.descriptors.len()) {
            (InputOutput::Terminal, _) => None,
            (InputOutput::Descriptors, 3) => descriptors(&mut packet.descriptors),
            (InputOutput::Descriptors, _) => return self.refuse(number, "three descriptors must come with this"),
        };
        match errand::exec(&self.launch, request, descriptors.as_ref(), target) {
            Ok(errand) => {
                let told = ToldExec { id: exec_id(number, now), command: request.command.join(" ") };
                self.tell_exec_asked(&told, self.control.asker(number).as_deref());
                self.jobs.push(ClientJob { job: Job::new(errand), connection: number, told });
                self.control.promise(number, Promise::Job);
            }
            Err(error) => self.control.answer(number, &Answer::Failed(StartFailure::other(&error)), &[]),
        }
    }

    /// Tells clients whether their processes run.
    pub(super) fn hear_jobs(&mut self) {
        let mut at = 0;
        while let Some(ClientJob { job, connection, told }) = self.jobs.get_mut(at) {
            let (number, told) = (*connection, told.clone());
            let failure = match job.report() {
                Report::Nothing => None,
                // The container's own matter; more may follow.
                Report::Cgroup(_) => continue,
                Report::Started { pid, terminal } => {
                    let terminal: Vec<BorrowedFd<'_>> = terminal.iter().map(AsFd::as_fd).collect();
                    let pid = pid.as_raw_nonzero().get().unsigned_abs();
                    self.tell_exec_start(&told, pid);
                    self.control.answer(number, &Answer::Started { pid }, &terminal);
                    self.control.promise(number, Promise::Job);
                    None
                }
                Report::Failed(failure) => Some(failure),
                Report::Gone => Some(StartFailure::other(&super::MonitorError::Died(String::new()))),
            };
            match failure {
                Some(failure) => {
                    self.tell_exec_end(&told, failure.kind.exit().code(), Some(&failure.message));
                    self.control.answer(number, &Answer::Failed(failure), &[]);
                    self.jobs.swap_remove(at);
                }
                None => at += 1,
            }
        }
    }

    fn give_input(&mut self, number: u32) {
        match self.output.hand_over_input() {
            Ok(input) => {
                let input: Vec<BorrowedFd<'_>> = input.iter().map(AsFd::as_fd).collect();
                self.control.answer(number, &Answer::Attached, &input);
            }
            Err(error) => self.refuse(number, &error.to_string()),
        }
    }

    fn attach(&mut self, number: u32, mut packet: Packet) {
        let (Some(stderr), Some(stdout)) = (packet.descriptors.pop(), packet.descriptors.pop()) else {
            return self.refuse(number, "two descriptors must come with this");
        };
        match self.output.attach(stdout, stderr) {
            Ok(input) => {
                let who = self.control.asker(number);
                self.tell_for(who.as_deref(), "attach", |event| event);
                let input: Vec<BorrowedFd<'_>> = input.iter().map(AsFd::as_fd).collect();
                self.control.answer(number, &Answer::Attached, &input);
            }
            Err(error) => self.refuse(number, &error.to_string()),
        }
    }
}

/// By the connection, which asks for one at a time, and the moment, since connections are counted anew with each monitor.
fn exec_id(number: u32, now: Now) -> String {
    let since = now.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{:016x}{number:08x}", since.as_nanos())
}

/// Three descriptors in the order 0, 1, 2.
fn descriptors(received: &mut Vec<OwnedFd>) -> Option<Descriptors> {
    let (stderr, stdout, stdin) = (received.pop()?, received.pop()?, received.pop()?);
    Some(Descriptors { stdin, stdout, stderr })
}
