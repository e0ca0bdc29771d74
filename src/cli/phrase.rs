//! Words for people: how long ago, and how a container is.

use std::time::{Duration, SystemTime};

use crate::model::actual::Liveness;
use crate::model::health::Health;
use crate::model::status::{Exit, Phase, Status};

/// `less than a second`, `3 minutes`, `2 days`: the largest unit, rounded down.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [
        ("year", 31_536_000),
        ("month", 2_592_000),
        ("week", 604_800),
        ("day", 86_400),
        ("hour", 3600),
        ("minute", 60),
        ("second", 1),
    ];
    match units.into_iter().find(|(_, length)| seconds >= *length) {
        None => "less than a second".to_owned(),
        Some((unit, length)) => counted(seconds / length, unit),
    }
}

/// `1 restart`, `5 restarts`.
pub fn counted(n: u64, noun: &str) -> String {
    match n {
        1 => format!("1 {noun}"),
        n => format!("{n} {noun}s"),
    }
}

/// From `then` to `now`; a clock that was set back counts as no time.
fn since(then: Option<SystemTime>, now: SystemTime) -> Option<Duration> {
    then.map(|then| now.duration_since(then).unwrap_or_default())
}

/// `Up 3 minutes (healthy)`, `Crash loop, restart in 2s (exited (1), 5 restarts)`, `Exited (0) 2 hours ago`.
pub fn state(liveness: &Liveness, now: SystemTime) -> String {
    match liveness {
        Liveness::Absent => "Created".to_owned(),
        Liveness::Lost(_) => "Lost, its monitor was killed".to_owned(),
        Liveness::Monitored(status) | Liveness::Ended(status) => phase(status, now),
    }
}

/// Docker's word for how it is.
pub fn dockers_state(liveness: &Liveness) -> &'static str {
    let phase = match liveness {
        Liveness::Absent | Liveness::Lost(None) => return "created",
        // What Docker calls dead is beyond its reach.
        Liveness::Lost(Some(_)) => return "dead",
        Liveness::Monitored(status) | Liveness::Ended(status) => status.phase,
    };
    match phase {
        Phase::Starting => "created",
        Phase::Running | Phase::Stopping => "running",
        Phase::Paused => "paused",
        Phase::Waiting | Phase::CrashLoop => "restarting",
        Phase::Exited | Phase::Stopped | Phase::Failed => "exited",
    }
}

/// Docker's sentence for how it is, as scripts look for it.
pub fn dockers_status(liveness: &Liveness, now: SystemTime) -> String {
    let status = match liveness {
        Liveness::Absent | Liveness::Lost(None) => return "Created".to_owned(),
        Liveness::Lost(Some(_)) => return "Dead".to_owned(),
        Liveness::Monitored(status) | Liveness::Ended(status) => status,
    };
    let ago = since(status.finished_at, now).map(|gone| format!(" {} ago", span(gone))).unwrap_or_default();
    let code = status.exit.map_or(0, Exit::code);
    match dockers_state(liveness) {
        "running" => format!("Up{}{}", up(status, now), health(status)),
        "paused" => format!("Up{} (Paused)", up(status, now)),
        "restarting" => format!("Restarting ({code}){ago}"),
        "exited" => format!("Exited ({code}){ago}"),
        _ => "Created".to_owned(),
    }
}

/// What went wrong last, where the monitor knows it.
pub fn error(liveness: &Liveness) -> Option<&str> {
    match liveness {
        Liveness::Monitored(status) | Liveness::Ended(status) | Liveness::Lost(Some(status)) => status.error.as_deref(),
        Liveness::Absent | Liveness::Lost(None) => None,
    }
}

fn phase(status: &Status, now: SystemTime) -> String {
    let ago = since(status.finished_at, now).map(|gone| format!(" {} ago", span(gone))).unwrap_or_default();
    let code = status.exit.map(|exit| format!(" ({})", how(exit))).unwrap_or_default();
    match status.phase {
        Phase::Starting => "Starting".to_owned(),
        Phase::Running => format!("Up{}{}", up(status, now), health(status)),
        Phase::Paused => format!("Up{} (paused)", up(status, now)),
        Phase::Stopping => "Stopping".to_owned(),
        Phase::Waiting => format!("Restart {}{}", soon(status, now), history(status)),
        Phase::CrashLoop => format!("Crash loop, restart {}{}", soon(status, now), history(status)),
        Phase::Exited => format!("Exited{code}{ago}"),
        Phase::Stopped => format!("Stopped{code}{ago}"),
        Phase::Failed => format!("Failed to start{ago}"),
    }
}

fn up(status: &Status, now: SystemTime) -> String {
    since(status.started_at, now).map(|up| format!(" {}", span(up))).unwrap_or_default()
}

fn health(status: &Status) -> &'static str {
    match status.health.as_ref().map(|health| health.health) {
        None => "",
        Some(Health::Starting) => " (health: starting)",
        Some(Health::Healthy) => " (healthy)",
        Some(Health::Unhealthy) => " (unhealthy)",
    }
}

/// `0`, `137, SIGKILL`, `137, out of memory`.
fn how(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => code.to_string(),
        Exit::Signal(signal) => format!("{}, {signal}", exit.code()),
        Exit::OutOfMemory => format!("{}, out of memory", exit.code()),
    }
}

/// `in 2s`, `now`.
fn soon(status: &Status, now: SystemTime) -> String {
    let left = status.next_start_at.and_then(|next| next.duration_since(now).ok()).unwrap_or_default();
    match left.as_millis() {
        0 => "now".to_owned(),
        millis @ 1..1000 => format!("in {millis}ms"),
        _ => format!("in {}s", left.as_secs()),
    }
}

/// ` (exited (1), 5 restarts)`.
fn history(status: &Status) -> String {
    let exit = match (status.exit, &status.error) {
        (_, Some(_)) => "failed to start, ".to_owned(),
        (Some(exit), None) => format!("exited ({}), ", how(exit)),
        (None, None) => String::new(),
    };
    format!(" ({exit}{})", counted(status.restarts.into(), "restart"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::health::Health;
    use crate::model::launch::LAUNCH_VERSION;
    use crate::model::status::{HealthStatus, STATUS_VERSION};
    use crate::model::units::Signal;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn status(phase: Phase) -> Status {
        Status {
            version: STATUS_VERSION,
            launch_version: LAUNCH_VERSION,
            id: "0123456789ab".parse().unwrap(),
            phase,
            pid: None,
            started_at: Some(at(1000)),
            finished_at: None,
            exit: None,
            restarts: 0,
            restarts_in_a_row: None,
            next_start_at: None,
            health: None,
            error: None,
        }
    }

    #[test]
    fn spans_name_their_largest_unit() {
        for (seconds, text) in [(0, "less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "1 minute")] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        assert_eq!(span(Duration::from_secs(3 * 86_400)), "3 days");
    }

    #[test]
    fn a_running_container_says_since_when_and_how_it_feels() {
        let mut running = status(Phase::Running);
        assert_eq!(phase(&running, at(1180)), "Up 3 minutes");
        running.health = Some(HealthStatus { health: Health::Unhealthy, failing_streak: 3, log: Vec::new() });
        assert_eq!(phase(&running, at(1180)), "Up 3 minutes (unhealthy)");
    }

    #[test]
    fn a_crash_loop_says_when_it_tries_again_and_what_happened() {
        let looping = Status {
            exit: Some(Exit::Code(1)),
            restarts: 5,
            next_start_at: Some(at(1002)),
            ..status(Phase::CrashLoop)
        };
        assert_eq!(phase(&looping, at(1000)), "Crash loop, restart in 2s (exited (1), 5 restarts)");
    }

    #[test]
    fn the_end_says_how_and_when() {
        let ended = Status { exit: Some(Exit::Code(1)), finished_at: Some(at(1000)), ..status(Phase::Exited) };
        assert_eq!(phase(&ended, at(1120)), "Exited (1) 2 minutes ago");
        let killed = Status { exit: Some(Exit::Signal(Signal::KILL)), ..status(Phase::Stopped) };
        assert_eq!(phase(&killed, at(0)), "Stopped (137, SIGKILL)");
        let hungry = Status { exit: Some(Exit::OutOfMemory), ..status(Phase::Exited) };
        assert_eq!(phase(&hungry, at(0)), "Exited (137, out of memory)");
    }

    #[test]
    fn a_clock_that_was_set_back_is_survived() {
        assert_eq!(phase(&status(Phase::Running), at(10)), "Up less than a second");
    }
}
