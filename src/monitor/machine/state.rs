//! The state of a monitor's decisions, and what events do to it.

use std::time::{Duration, SystemTime};

use super::fold::Fold;
use super::{Command, Event, Settings, backoff};
use crate::model::restart::{RestartCondition, RestartPolicy};
use crate::model::status::{Exit, HealthStatus, Phase, ProbeResult};
use crate::model::units::Signal;
use crate::monitor::clock::Now;

/// Where the container is in its life, with what only that moment needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Life {
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
pub(super) enum Then {
    End,
    StartAgain,
}

/// The whole state of a monitor's decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub(super) settings: Settings,
    pub(super) life: Life,
    /// Nothing has run yet.
    pub(super) first: bool,
    /// Restarts since the container was started by request.
    pub(super) restarts: u32,
    /// Ends in a row without a run of `reset_after` between them.
    pub(super) streak: u32,
    pub(super) started_at: Option<SystemTime>,
    pub(super) finished_at: Option<SystemTime>,
    pub(super) exit: Option<Exit>,
    pub(super) error: Option<String>,
    /// Health as it was when the last run ended.
    pub(super) last_health: Option<HealthStatus>,
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
            Event::StartFailed { error, exit } => self.start_failed((error, exit), now, &mut commands),
            Event::Exited(exit) => self.exited(exit, now, &mut commands),
            Event::Probed(result) => self.probed(result, now),
            Event::Unheard => self.unheard(&mut commands),
            Event::FreezeFailed => self.thawed(now),
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

    fn start_failed(&mut self, (error, exit): (String, Exit), now: Now, commands: &mut Vec<Command>) {
        match self.life {
            Life::Starting => {}
            Life::Stopping { pid: None, then, .. } => return self.stopped(then, commands),
            Life::Running { .. } | Life::Stopping { .. } | Life::Waiting { .. } | Life::Over(_) => return,
        }
        self.error = Some(error);
        self.exit = Some(exit);
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
    pub(super) fn stopped(&mut self, then: Then, commands: &mut Vec<Command>) {
        match then {
            Then::End => self.life = Life::Over(Phase::Stopped),
            Then::StartAgain => self.start_afresh(commands),
        }
    }

    /// `exit` is `None` for a start that failed.
    pub(super) fn wants_restart(&self, exit: Option<Exit>) -> bool {
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

    pub(super) fn start_again(&mut self, commands: &mut Vec<Command>) {
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

    /// Patience would be for nothing: the kernel drops the signal.
    fn unheard(&mut self, commands: &mut Vec<Command>) {
        if let Life::Stopping { kill_at: kill_at @ Some(_), .. } = &mut self.life {
            *kill_at = None;
            commands.push(Command::KillAll);
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

    pub(super) fn new_fold(&self, now: Now) -> Option<Fold> {
        self.settings.healthcheck.as_ref().map(|check| Fold::new(check, now.monotonic))
    }
}
