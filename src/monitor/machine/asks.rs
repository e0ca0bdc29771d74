//! What is asked of a container, and what makes no sense at the time.

use super::state::{Life, Machine, Then};
use super::{Ask, Command, Settings, backoff};
use crate::model::status::Phase;
use crate::model::units::{Signal, Timespan};
use crate::monitor::clock::Now;

impl Machine {
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

    pub(super) fn asked(&mut self, ask: Ask, now: Now, commands: &mut Vec<Command>) {
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
                commands.push(Command::Thaw);
                self.thawed(now);
            }
            Ask::Reload(settings) => self.reload(*settings, now, commands),
        }
    }

    /// It goes on, and so does its health check.
    pub(super) fn thawed(&mut self, now: Now) {
        if let Life::Running { frozen: frozen @ true, health, .. } = &mut self.life {
            *frozen = false;
            if let (Some(fold), Some(check)) = (health, &self.settings.healthcheck) {
                fold.resume(check, now.monotonic);
            }
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
            Life::Waiting { .. } => self.stopped(then, commands),
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
}
