//! What a monitor tells of its container in the journal of the state root: see [`crate::journal`].
//!
//! Told is what a monitor sees or does: starts and ends, signals, freezing, turns of health, further processes. What the engine
//! does (make, change, connect, remove) the engine tells.
//!
//! # Decisions
//! * After the status file, so that whoever hears of an act finds it so; before the answer to whoever asked for it, so that he
//!   finds it told.
//! * Name and labels are read from the launch file each time. They may change while the container runs, and a monitor keeps no
//!   memory for what it says once a day.
//! * Who asked is what the other end of the control socket is called (`packet::introduction`): an attribute `by`. It stands in
//!   no request, since monitors of before refuse those that they do not know, and they outlive an upgrade. What a monitor does
//!   by itself, as the restart policy says, is by `monitor`.
//! * Probes of a health check are no events, as Docker has it that each is one `exec` of three: every ten seconds, for each
//!   container, they would be all that a journal of two files holds. What they find is, when it is not what it was.

use std::time::SystemTime;

use super::complaint::say;
use super::launch_file;
use super::supervise::Supervisor;
use crate::journal::Journal;
use crate::model::event::{Event, Kind};
use crate::model::health::Health;
use crate::model::status::Exit;
use crate::model::units::Signal;
use crate::sys::memory;

/// Who restarts a container as its policy says.
const ITSELF: &str = "monitor";

/// What is known of whoever wants what is under way.
#[derive(Debug, Default)]
pub struct Teller {
    /// What was asked for last, and is not over.
    pub asker: Option<String>,
    /// It could not be told, and that was said.
    is_silent: bool,
}

/// As what a further process is told of.
#[derive(Debug, Clone)]
pub struct ToldExec {
    pub id: String,
    pub command: String,
}

impl Supervisor {
    /// Tells that this happened; `more` says how.
    pub(super) fn tell(&mut self, action: &str, more: impl FnOnce(Event) -> Event) {
        let Some(journal) = self.launch.telling.as_ref().map(|telling| Journal::new(&telling.journal)) else { return };
        self.publish();
        let event = Event::new(SystemTime::now(), Kind::Container, action, &self.launch.id);
        let event = match launch_file::telling(&self.directory) {
            Some(telling) => event.of(telling.traits),
            // Somebody took the file away.
            None => event.with("name", &self.launch.name),
        };
        let told = journal.append(&more(event));
        // Said once, not with every event of a disk that is full.
        if let (Err(error), false) = (&told, self.teller.is_silent) {
            say(format_args!(
                "{}: cannot tell of it in `{}`: {error}",
                self.launch.name,
                journal.directory().display()
            ));
        }
        self.teller.is_silent = told.is_err();
        // Reading the launch file and writing the line took more than a monitor has while nothing happens.
        memory::trim();
    }

    /// The same of what somebody asked for.
    pub(super) fn tell_by_asker(&mut self, action: &str, more: impl FnOnce(Event) -> Event) {
        let asker = self.teller.asker.clone();
        self.tell_for(asker.as_deref(), action, more);
    }

    /// The same of what `who` wants.
    pub(super) fn tell_for(&mut self, who: Option<&str>, action: &str, more: impl FnOnce(Event) -> Event) {
        self.tell(action, |event| more(by(event, who)));
    }

    pub(super) fn tell_signal(&mut self, signal: Signal) {
        self.tell_by_asker("kill", |event| event.with("signal", signal.number()));
    }

    /// It runs: for the first time, again by request, or again by its policy.
    pub(super) fn tell_start(&mut self, pid: u32, is_first: bool) {
        let is_policys = self.machine.is_restarted_by_policy();
        let who = match (is_first, is_policys) {
            (true, _) => launch_file::telling(&self.directory).and_then(|telling| telling.by),
            (false, true) => Some(ITSELF.to_owned()),
            (false, false) => self.teller.asker.clone(),
        };
        self.tell_for(who.as_deref(), "start", |event| event.with("pid", pid));
        if !is_first && !is_policys {
            self.tell_for(who.as_deref(), "restart", |event| event);
        }
    }

    /// It ended, `was_stopping` because somebody wanted it.
    pub(super) fn tell_end(&mut self, exit: Exit, was_stopping: bool) {
        if exit == Exit::OutOfMemory {
            self.tell("oom", |event| event);
        }
        let ran = self.machine.last_run().unwrap_or_default();
        self.tell("die", |event| event.with("exitCode", exit.code()).with("execDuration", ran.as_secs()));
        if was_stopping {
            self.tell_by_asker("stop", |event| event);
        }
    }

    /// It never came to run.
    pub(super) fn tell_failed_start(&mut self, exit: Exit, error: &str) {
        self.tell("die", |event| event.with("exitCode", exit.code()).with("error", error));
    }

    /// What its health is now, if that is not `before`.
    pub(super) fn tell_health(&mut self, before: Option<Health>) {
        let word = match self.machine.verdict() {
            now if now == before => return,
            None | Some(Health::Starting) => return,
            Some(Health::Healthy) => "healthy",
            Some(Health::Unhealthy) => "unhealthy",
        };
        self.tell(&format!("health_status: {word}"), |event| event);
    }

    pub(super) fn tell_exec_asked(&mut self, exec: &ToldExec, who: Option<&str>) {
        self.tell_for(who, &format!("exec_create: {}", exec.command), |event| event.with("execID", &exec.id));
    }

    pub(super) fn tell_exec_start(&mut self, exec: &ToldExec, pid: u32) {
        let how = |event: Event| event.with("execID", &exec.id).with("pid", pid);
        self.tell(&format!("exec_start: {}", exec.command), how);
    }

    /// It ended, or never came to run for the reason that `error` gives.
    pub(super) fn tell_exec_end(&mut self, exec: &ToldExec, code: u8, error: Option<&str>) {
        let how = |event: Event| event.with("execID", &exec.id).with("exitCode", code);
        self.tell("exec_die", |event| match error {
            Some(error) => how(event).with("error", error),
            None => how(event),
        });
    }
}

fn by(event: Event, who: Option<&str>) -> Event {
    match who {
        Some(who) => event.with("by", who),
        None => event,
    }
}
