//! What a monitor decides: a pure transition table, (state, event, now) to (state, commands).
//!
//! It reads no clock and touches no process. `super::supervise` turns kernel facts and requests into [`Event`]s,
//! passes them with the time to [`Machine::step`], and carries out the [`Command`]s.
//!
//! ```text
//!            Start                Started               end, policy wants more
//!   (new) ─────────> Starting ─────────────> Running ──────────────────────────> Waiting / CrashLoop
//!                       │  ^                  │   ^ Pause, Resume                     │
//!       first start     │  └──────────────────┼───┴───────────────────────────────────┘ delay is over
//!       failed          │                     │ Stop, Restart
//!                       v                     v
//!                    Failed               Stopping ── end ──> Stopped, or Starting again
//!                                             │ grace period over: KillAll
//! ```
//!
//! # Decisions
//! * The *first* start is answered, not repeated: whoever asked is there to hear why it failed, and the reconciler
//!   tries again at its own pace. A later start that fails counts as one more end, and the restart policy applies.
//! * A container is in a crash loop from its third end in a row on, "in a row" meaning that no run between them
//!   lasted `reset_after`. The first restart comes at once and the second after `initial`, which is an accident;
//!   the third is a pattern. The exit status does not matter: a policy that restarts what ended well loops too.
//! * `max_retries` counts restarts in a row as well: a container that ran long enough starts with a clean sheet.

mod backoff;
mod fold;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod table;

use std::time::{Duration, SystemTime};

use crate::model::health::{Healthcheck, Probe};
use crate::model::id::ContainerId;
use crate::model::launch::Launch;
use crate::model::restart::{RestartCondition, RestartPolicy};
use crate::model::status::{Exit, HealthStatus, Phase, ProbeResult, STATUS_VERSION, Status};
use crate::model::units::{Signal, Timespan};

use super::clock::Now;
use fold::Fold;

/// Ends in a row that make a crash loop.
const CRASH_LOOP_ENDS: u32 = 3;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The first process executes its command.
    Started { pid: u32 },
    /// It never came to that, for this reason.
    StartFailed { error: String },
    /// The first process ended, and everything else of the container with it.
    Exited(Exit),
    /// A probe answered, or its time was over.
    Probed(ProbeResult),
    /// A time that [`Machine::deadline`] named has come. Harmless at any other time.
    Timer,
    /// Somebody asked for something. See [`Machine::refusal`].
    Asked(Ask),
}

/// What others may ask of a running monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// End it and leave it so. What is `None` comes from the launch file.
    Stop {
        signal: Option<Signal>,
        grace: Option<Timespan>,
    },
    /// End it and start it again, with a clean sheet.
    Restart,
    /// Send a signal to the first process; the restart policy applies to what follows.
    Kill {
        signal: Signal,
    },
    Pause,
    Resume,
    /// The launch file changed.
    Reload(Box<Settings>),
}

/// What the loop has to do now, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Start the first process; answer with `Started` or `StartFailed`.
    Start,
    /// To the first process.
    Signal(Signal),
    /// SIGKILL to everything in the container's cgroup, and to a start that is under way.
    KillAll,
    Freeze,
    Thaw,
    /// Ask the health check; answer with `Probed`.
    Probe,
    /// Forget a probe that is under way; no answer is expected.
    CancelProbe,
}

/// What a container's launch file says that may change while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub restart: RestartPolicy,
    pub healthcheck: Option<Healthcheck>,
    pub stop_signal: Signal,
    pub stop_grace_period: Timespan,
}

impl Settings {
    pub fn of(launch: &Launch) -> Settings {
        Settings {
            restart: launch.restart.clone(),
            // No check is no check, whether by absence or by word.
            healthcheck: launch.healthcheck.clone().filter(|check| check.probe != Probe::None),
            stop_signal: launch.stop_signal,
            stop_grace_period: launch.stop_grace_period,
        }
    }
}

/// Where the container is in its life, with what only that moment needs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Life {
    Starting,
    Running {
        pid: u32,
        since: Duration,
        frozen: bool,
        health: Option<Fold>,
    },
    Stopping {
        /// `None` while a start that was under way has not been answered.
        pid: Option<u32>,
        signal: Signal,
        /// `None` once everything was killed.
        kill_at: Option<Duration>,
        then: Then,
    },
    Waiting {
        until: Duration,
        until_wall: SystemTime,
    },
    Over(Phase),
}

/// What follows a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    End,
    StartAgain,
}

/// The whole state of a monitor's decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    settings: Settings,
    life: Life,
    /// Nothing has run yet.
    first: bool,
    /// Restarts since the container was started by request.
    restarts: u32,
    /// Ends in a row without a run of `reset_after` between them.
    streak: u32,
    started_at: Option<SystemTime>,
    finished_at: Option<SystemTime>,
    exit: Option<Exit>,
    error: Option<String>,
    /// Health as it was when the last run ended.
    last_health: Option<HealthStatus>,
}

impl Machine {
    /// A container about to be started: the first command is [`Command::Start`], which the caller carries out.
    pub fn new(settings: Settings) -> Machine {
        Machine {
            settings,
            life: Life::Starting,
            first: true,
            restarts: 0,
            streak: 0,
            started_at: None,
            finished_at: None,
            exit: None,
            error: None,
            last_health: None,
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether all is over: the last status can be written and the monitor end.
    pub fn is_over(&self) -> bool {
        matches!(self.life, Life::Over(_))
    }

    /// Why an `ask` makes no sense now; `None` when [`Machine::step`] will do it.
    pub fn refusal(&self, ask: &Ask) -> Option<&'static str> {
        match (ask, &self.life) {
            (_, Life::Over(_)) => Some("the container has ended"),
            (Ask::Pause, Life::Running { frozen: false, .. }) | (Ask::Resume, Life::Running { frozen: true, .. }) => {
                None
            }
            (Ask::Pause, Life::Running { .. }) => Some("the container is paused already"),
            (Ask::Resume, _) => Some("the container is not paused"),
            (Ask::Pause | Ask::Kill { .. }, Life::Starting | Life::Waiting { .. }) => {
                Some("the container is not running")
            }
            (Ask::Pause, Life::Stopping { .. }) => Some("the container is being stopped"),
            (Ask::Kill { .. }, Life::Stopping { pid: None, .. }) => Some("the container is not running"),
            (Ask::Restart, Life::Stopping { then: Then::End, .. }) => Some("the container is being stopped"),
            (Ask::Stop { .. } | Ask::Restart | Ask::Kill { .. } | Ask::Reload(_), _) => None,
        }
    }

    /// When [`Event::Timer`] is due, on the monotonic clock.
    pub fn deadline(&self) -> Option<Duration> {
        match &self.life {
            Life::Running { frozen: false, health: Some(fold), .. } => fold.next_probe(),
            Life::Waiting { until, .. } => Some(*until),
            Life::Stopping { kill_at, .. } => *kill_at,
            Life::Starting | Life::Running { .. } | Life::Over(_) => None,
        }
    }

    /// Takes `event` in and says what to do. An event that cannot be true in this state changes nothing.
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Command> {
        let mut commands = Vec::new();
        match event {
            Event::Started { pid } => self.started(pid, now, &mut commands),
            Event::StartFailed { error } => self.start_failed(error, now, &mut commands),
            Event::Exited(exit) => self.exited(exit, now, &mut commands),
            Event::Probed(result) => self.probed(result, now),
            Event::Timer => self.timer(now, &mut commands),
            Event::Asked(ask) if self.refusal(&ask).is_none() => self.asked(ask, now, &mut commands),
            Event::Asked(_) => {}
        }
        commands
    }

    fn started(&mut self, pid: u32, now: Now, commands: &mut Vec<Command>) {
        match &mut self.life {
            Life::Starting => {
                self.life = Life::Running { pid, since: now.monotonic, frozen: false, health: self.new_fold(now) };
            }
            // The wish to stop came first: the grace period is counted from then.
            Life::Stopping { pid: slot @ None, signal, kill_at, .. } => {
                *slot = Some(pid);
                commands.push(match kill_at {
                    Some(_) => Command::Signal(*signal),
                    None => Command::KillAll,
                });
            }
            Life::Running { .. } | Life::Stopping { .. } | Life::Waiting { .. } | Life::Over(_) => return,
        }
        self.first = false;
        self.error = None;
        self.started_at = Some(now.wall);
    }

    fn start_failed(&mut self, error: String, now: Now, commands: &mut Vec<Command>) {
        match self.life {
            Life::Starting => {}
            Life::Stopping { pid: None, then, .. } => return self.stopped(then, commands),
            Life::Running { .. } | Life::Stopping { .. } | Life::Waiting { .. } | Life::Over(_) => return,
        }
        self.error = Some(error);
        self.finished_at = Some(now.wall);
        if self.first || !self.wants_restart(None) {
            self.life = Life::Over(Phase::Failed);
        } else {
            self.restart(now, commands);
        }
    }

    fn exited(&mut self, exit: Exit, now: Now, commands: &mut Vec<Command>) {
        let since = match &self.life {
            Life::Running { since, health, .. } => {
                if health.is_some() {
                    commands.push(Command::CancelProbe);
                }
                Some(*since)
            }
            Life::Stopping { pid: Some(_), .. } => None,
            Life::Starting | Life::Stopping { .. } | Life::Waiting { .. } | Life::Over(_) => return,
        };
        self.finished_at = Some(now.wall);
        self.exit = Some(exit);
        self.last_health = self.health();
        if let Life::Stopping { then, .. } = self.life {
            return self.stopped(then, commands);
        }
        if since.is_some_and(|since| {
            now.monotonic.saturating_sub(since) >= self.settings.restart.backoff.reset_after.to_duration()
        }) {
            self.streak = 0;
        }
        if self.wants_restart(Some(exit)) {
            self.restart(now, commands);
        } else {
            self.life = Life::Over(Phase::Exited);
        }
    }

    /// A stop sequence came to its end.
    fn stopped(&mut self, then: Then, commands: &mut Vec<Command>) {
        match then {
            Then::End => self.life = Life::Over(Phase::Stopped),
            Then::StartAgain => self.start_afresh(commands),
        }
    }

    /// `exit` is `None` for a start that failed.
    fn wants_restart(&self, exit: Option<Exit>) -> bool {
        let RestartPolicy { condition, max_retries, backoff: _ } = &self.settings.restart;
        let wanted = match condition {
            RestartCondition::No => false,
            RestartCondition::OnFailure => exit != Some(Exit::Code(0)),
            RestartCondition::Always | RestartCondition::UnlessStopped => true,
        };
        wanted && max_retries.is_none_or(|max| self.streak < max)
    }

    /// One more end in a row: starts at once or waits.
    fn restart(&mut self, now: Now, commands: &mut Vec<Command>) {
        let delay = backoff::delay(&self.settings.restart.backoff, self.streak);
        self.streak = self.streak.saturating_add(1);
        if delay.is_zero() {
            self.start_again(commands);
        } else {
            self.life = Life::Waiting { until: now.monotonic + delay, until_wall: now.wall + delay };
        }
    }

    fn start_again(&mut self, commands: &mut Vec<Command>) {
        self.restarts = self.restarts.saturating_add(1);
        self.life = Life::Starting;
        commands.push(Command::Start);
    }

    /// A start by request: what was before does not count.
    fn start_afresh(&mut self, commands: &mut Vec<Command>) {
        self.restarts = 0;
        self.streak = 0;
        self.life = Life::Starting;
        commands.push(Command::Start);
    }

    fn probed(&mut self, result: ProbeResult, now: Now) {
        let Some(check) = &self.settings.healthcheck else { return };
        if let Life::Running { health: Some(fold), .. } = &mut self.life {
            fold.take(check, result, now.monotonic);
        }
    }

    fn timer(&mut self, now: Now, commands: &mut Vec<Command>) {
        match &mut self.life {
            Life::Waiting { until, .. } if *until <= now.monotonic => self.start_again(commands),
            Life::Stopping { kill_at, .. } if kill_at.is_some_and(|at| at <= now.monotonic) => {
                *kill_at = None;
                commands.push(Command::KillAll);
            }
            Life::Running { frozen: false, health: Some(fold), .. } => {
                if fold.begin_if_due(now.monotonic) {
                    commands.push(Command::Probe);
                }
            }
            Life::Starting | Life::Running { .. } | Life::Waiting { .. } | Life::Stopping { .. } | Life::Over(_) => {}
        }
    }

    fn asked(&mut self, ask: Ask, now: Now, commands: &mut Vec<Command>) {
        match ask {
            Ask::Stop { signal, grace } => self.stop(signal, grace, Then::End, now, commands),
            Ask::Restart => self.stop(None, None, Then::StartAgain, now, commands),
            Ask::Kill { signal } => {
                commands.push(Command::Signal(signal));
                // A frozen process does not even die (cgroup v1, freezer-subsystem.rst).
                if signal == Signal::KILL {
                    self.thaw(commands);
                }
            }
            Ask::Pause => {
                if let Life::Running { frozen, health, .. } = &mut self.life {
                    *frozen = true;
                    if let Some(fold) = health {
                        fold.suspend();
                        commands.push(Command::CancelProbe);
                    }
                    commands.push(Command::Freeze);
                }
            }
            Ask::Resume => {
                self.thaw(commands);
                if let (Life::Running { health: Some(fold), .. }, Some(check)) =
                    (&mut self.life, &self.settings.healthcheck)
                {
                    fold.resume(check, now.monotonic);
                }
            }
            Ask::Reload(settings) => self.reload(*settings, now, commands),
        }
    }

    fn thaw(&mut self, commands: &mut Vec<Command>) {
        if let Life::Running { frozen: frozen @ true, .. } = &mut self.life {
            *frozen = false;
            commands.push(Command::Thaw);
        }
    }

    fn stop(
        &mut self,
        signal: Option<Signal>,
        grace: Option<Timespan>,
        then: Then,
        now: Now,
        commands: &mut Vec<Command>,
    ) {
        let signal = signal.unwrap_or(self.settings.stop_signal);
        let grace = grace.unwrap_or(self.settings.stop_grace_period);
        let kill_at = now.monotonic.saturating_add(grace.to_duration());
        match &mut self.life {
            Life::Waiting { .. } => return self.stopped(then, commands),
            // Asked again: the signal is sent again, the earlier end of patience counts, and to end is the stronger wish.
            Life::Stopping { pid, kill_at: Some(at), then: what, .. } => {
                *at = kill_at.min(*at);
                if then == Then::End {
                    *what = then;
                }
                commands.extend(pid.map(|_| Command::Signal(signal)));
            }
            Life::Stopping { then: what, .. } => {
                if then == Then::End {
                    *what = then;
                }
            }
            Life::Starting => self.life = Life::Stopping { pid: None, signal, kill_at: Some(kill_at), then },
            Life::Running { pid, health, .. } => {
                let pid = Some(*pid);
                if health.is_some() {
                    commands.push(Command::CancelProbe);
                }
                commands.push(Command::Signal(signal));
                self.thaw(commands);
                self.last_health = self.health();
                self.life = Life::Stopping { pid, signal, kill_at: Some(kill_at), then };
            }
            Life::Over(_) => {}
        }
    }

    fn reload(&mut self, settings: Settings, now: Now, commands: &mut Vec<Command>) {
        let old = std::mem::replace(&mut self.settings, settings);
        if old.healthcheck != self.settings.healthcheck {
            let fold = self.new_fold(now);
            if let Life::Running { health, frozen, .. } = &mut self.life {
                if health.is_some() {
                    commands.push(Command::CancelProbe);
                }
                *health = fold;
                if let (true, Some(fold)) = (*frozen, health) {
                    fold.suspend();
                }
            }
        }
        if let Life::Waiting { until, until_wall } = &mut self.life
            && old.restart != self.settings.restart
        {
            // The end that it waits after was counted already; ask the new policy about that one.
            let before = self.streak.saturating_sub(1);
            let delay = backoff::delay(&self.settings.restart.backoff, before);
            if now.monotonic + delay < *until {
                (*until, *until_wall) = (now.monotonic + delay, now.wall + delay);
            }
            self.streak = before;
            let wanted = self.wants_restart(self.exit.filter(|_| self.error.is_none()));
            self.streak = before.saturating_add(1);
            if !wanted {
                self.life = Life::Over(if self.error.is_some() { Phase::Failed } else { Phase::Exited });
            }
        }
    }

    fn new_fold(&self, now: Now) -> Option<Fold> {
        self.settings.healthcheck.as_ref().map(|check| Fold::new(check, now.monotonic))
    }

    fn health(&self) -> Option<HealthStatus> {
        match &self.life {
            Life::Running { health, .. } => health.as_ref().map(Fold::status),
            Life::Starting | Life::Stopping { .. } | Life::Waiting { .. } | Life::Over(_) => self.last_health.clone(),
        }
    }

    fn phase(&self) -> Phase {
        match &self.life {
            Life::Starting => Phase::Starting,
            Life::Running { frozen: false, .. } => Phase::Running,
            Life::Running { frozen: true, .. } => Phase::Paused,
            Life::Stopping { .. } => Phase::Stopping,
            Life::Waiting { .. } if self.streak >= CRASH_LOOP_ENDS => Phase::CrashLoop,
            Life::Waiting { .. } => Phase::Waiting,
            Life::Over(phase) => *phase,
        }
    }

    /// What the status file says.
    pub fn status(&self, id: &ContainerId) -> Status {
        Status {
            version: STATUS_VERSION,
            id: id.clone(),
            phase: self.phase(),
            pid: match self.life {
                Life::Running { pid, .. } => Some(pid),
                Life::Stopping { pid, .. } => pid,
                Life::Starting | Life::Waiting { .. } | Life::Over(_) => None,
            },
            started_at: self.started_at,
            finished_at: self.finished_at,
            exit: self.exit,
            restarts: self.restarts,
            next_start_at: match self.life {
                Life::Waiting { until_wall, .. } => Some(until_wall),
                Life::Starting | Life::Running { .. } | Life::Stopping { .. } | Life::Over(_) => None,
            },
            health: self.health(),
            error: self.error.clone(),
        }
    }
}
