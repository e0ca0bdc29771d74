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

mod asks;
mod backoff;
mod fold;
#[cfg(test)]
mod properties;
mod report;
mod state;
#[cfg(test)]
mod table;

use crate::model::health::{Healthcheck, Probe};
use crate::model::launch::Launch;
use crate::model::restart::RestartPolicy;
use crate::model::status::{Exit, ProbeResult};
use crate::model::units::{Signal, Timespan};

pub use state::Machine;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The first process executes its command.
    Started { pid: u32 },
    /// It never came to that, for this reason; a shell would say `exit`.
    StartFailed { error: String, exit: Exit },
    /// The first process ended, and everything else of the container with it.
    Exited(Exit),
    /// A probe answered, or its time was over.
    Probed(ProbeResult),
    /// The first process cannot hear the signal that it was sent.
    Unheard,
    /// Not every process could be stopped in time, and so they all go on.
    FreezeFailed,
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
    /// Stop all or none; answer with `FreezeFailed` where it comes to that.
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
