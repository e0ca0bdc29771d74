//! The words between a service and systemd (sd_notify(3)). Without systemd they go nowhere.

use std::time::Duration;

use sd_notify::NotifyState;

/// A service of `Type=notify`, or a plain process.
#[derive(Debug)]
pub struct Service {
    watchdog: Option<Duration>,
}

impl Service {
    /// Looks at `NOTIFY_SOCKET` and `WATCHDOG_USEC`.
    pub fn from_environment() -> Service {
        Service { watchdog: sd_notify::watchdog_enabled() }
    }

    /// How often [`Service::alive`] is to be said: thrice in the watchdog's time.
    pub fn heartbeat(&self) -> Duration {
        self.watchdog.map_or(Duration::from_secs(60), |time| time / 3)
    }

    pub fn alive(&self) {
        if self.watchdog.is_some() {
            say(&[NotifyState::Watchdog]);
        }
    }

    /// The manifest is read again; systemd waits for [`Service::ready`].
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => say(&[NotifyState::Reloading, now]),
            Err(_) => say(&[NotifyState::Reloading]),
        }
    }

    pub fn ready(&self, status: &str) {
        say(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// How things are before it is ready.
    pub fn status(&self, status: &str) {
        say(&[NotifyState::Status(status)]);
    }

    pub fn stopping(&self) {
        say(&[NotifyState::Stopping]);
    }
}

fn say(words: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(words) {
        tracing::warn!(%error, "cannot talk to systemd");
    }
}
