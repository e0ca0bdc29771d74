//! The transition table, row by row: a story is a list of events and times, and what must come of each.

use std::time::{Duration, SystemTime};

use super::*;
use crate::model::restart::{Backoff, RestartCondition};
use crate::model::status::Phase;
use crate::monitor::clock::Now;

/// A story: each step is checked against the commands and the phase that must follow.
struct Story {
    machine: Machine,
    millis: u64,
}

fn settings(condition: RestartCondition) -> Settings {
    Settings {
        restart: RestartPolicy::of(condition),
        healthcheck: None,
        stop_signal: Signal::TERM,
        stop_grace_period: Timespan::from_secs(10),
    }
}

fn at(millis: u64) -> Now {
    let monotonic = Duration::from_millis(millis);
    Now { monotonic, wall: SystemTime::UNIX_EPOCH + monotonic }
}

impl Story {
    fn of(settings: Settings) -> Story {
        Story { machine: Machine::new(settings), millis: 0 }
    }

    /// One that runs since 0.
    fn running(settings: Settings) -> Story {
        let mut story = Story::of(settings);
        story.step(Event::Started { pid: 7 }, &[], Phase::Running);
        story
    }

    fn after(&mut self, millis: u64) -> &mut Story {
        self.millis += millis;
        self
    }

    fn step(&mut self, event: Event, commands: &[Command], phase: Phase) -> &mut Story {
        let what = format!("{event:?} at {} ms in {:?}", self.millis, self.machine);
        assert_eq!(self.machine.step(event, at(self.millis)), commands, "{what}");
        assert_eq!(self.machine.phase(), phase, "{what}");
        self
    }

    /// Lets the time come that the machine waits for, and says how long that was.
    fn timer(&mut self, commands: &[Command], phase: Phase) -> u64 {
        let deadline = self.machine.deadline().expect("the machine waits for a time").as_millis() as u64;
        let waited = deadline - self.millis;
        self.millis = deadline;
        self.step(Event::Timer, commands, phase);
        waited
    }
}

fn exited(code: u8) -> Event {
    Event::Exited(Exit::Code(code))
}

fn stop() -> Event {
    Event::Asked(Ask::Stop { signal: None, grace: None })
}

use Command::{CancelProbe, Freeze, KillAll, Probe as AskHealth, Start, Thaw};
const TERM: Command = Command::Signal(Signal::TERM);

#[test]
fn what_follows_an_end_is_the_policys_choice() {
    use RestartCondition::{Always, No, OnFailure, UnlessStopped};
    let cases = [
        (No, Exit::Code(0), false),
        (No, Exit::Code(1), false),
        (OnFailure, Exit::Code(0), false),
        (OnFailure, Exit::Code(1), true),
        (OnFailure, Exit::Signal(Signal::KILL), true),
        (OnFailure, Exit::OutOfMemory, true),
        (Always, Exit::Code(0), true),
        (UnlessStopped, Exit::Code(1), true),
    ];
    for (condition, exit, again) in cases {
        let mut story = Story::running(settings(condition));
        match again {
            true => story.step(Event::Exited(exit), &[Start], Phase::Starting),
            false => story.step(Event::Exited(exit), &[], Phase::Exited),
        };
        let status = story.machine.status(&"0123456789ab".parse().unwrap());
        assert_eq!((status.exit, status.restarts), (Some(exit), u32::from(again)));
    }
}

#[test]
fn the_third_end_in_a_row_is_a_crash_loop_and_a_long_run_ends_it() {
    let mut story = Story::running(settings(RestartCondition::Always));
    story.step(exited(1), &[Start], Phase::Starting).step(Event::Started { pid: 8 }, &[], Phase::Running);
    story.step(exited(1), &[], Phase::Waiting);
    assert_eq!(story.timer(&[Start], Phase::Starting), 100);
    story.step(Event::Started { pid: 9 }, &[], Phase::Running).after(9_999).step(exited(1), &[], Phase::CrashLoop);
    assert_eq!(story.timer(&[Start], Phase::Starting), 200);
    story.step(Event::Started { pid: 10 }, &[], Phase::Running);
    story.after(10_000).step(exited(1), &[Start], Phase::Starting);
    assert_eq!(story.machine.restarts, 4);
}

#[test]
fn retries_in_a_row_come_to_an_end() {
    let mut limited = settings(RestartCondition::OnFailure);
    limited.restart.max_retries = Some(2);
    let mut story = Story::running(limited);
    story.step(exited(1), &[Start], Phase::Starting).step(Event::Started { pid: 8 }, &[], Phase::Running);
    story.step(exited(1), &[], Phase::Waiting);
    story.timer(&[Start], Phase::Starting);
    story.step(Event::Started { pid: 9 }, &[], Phase::Running).step(exited(3), &[], Phase::Exited);
    assert_eq!(story.machine.exit, Some(Exit::Code(3)));
}

#[test]
fn the_first_start_that_fails_is_final_and_a_later_one_is_one_more_end() {
    let failed = || Event::StartFailed { error: "why".into(), exit: Exit::Code(127) };
    let mut first = Story::of(settings(RestartCondition::Always));
    first.step(failed(), &[], Phase::Failed);
    assert_eq!(first.machine.exit, Some(Exit::Code(127)));
    let mut story = Story::running(settings(RestartCondition::OnFailure));
    story.step(exited(1), &[Start], Phase::Starting).step(failed(), &[], Phase::Waiting);
    assert_eq!(story.machine.error.as_deref(), Some("why"));
    story.timer(&[Start], Phase::Starting);
    story.step(Event::Started { pid: 8 }, &[], Phase::Running);
    assert_eq!(story.machine.error, None);
}

#[test]
fn a_stop_is_a_signal_a_time_of_grace_and_then_force() {
    let mut story = Story::running(settings(RestartCondition::Always));
    story.step(stop(), &[TERM], Phase::Stopping);
    assert_eq!(story.timer(&[KillAll], Phase::Stopping), 10_000);
    assert_eq!(story.machine.deadline(), None);
    story.step(Event::Exited(Exit::Signal(Signal::KILL)), &[], Phase::Stopped);
    assert!(story.machine.is_over());
}

#[test]
fn a_stop_that_is_not_heard_needs_no_patience() {
    let mut story = Story::running(settings(RestartCondition::Always));
    story.step(stop(), &[TERM], Phase::Stopping).step(Event::Unheard, &[KillAll], Phase::Stopping);
    assert_eq!(story.machine.deadline(), None);
    story.step(Event::Unheard, &[], Phase::Stopping);
    story.step(Event::Exited(Exit::Signal(Signal::KILL)), &[], Phase::Stopped);
    Story::running(settings(RestartCondition::Always)).step(Event::Unheard, &[], Phase::Running);
}

#[test]
fn a_stop_during_a_start_waits_for_its_answer() {
    let mut story = Story::of(settings(RestartCondition::Always));
    story.step(stop(), &[], Phase::Stopping).after(5).step(Event::Started { pid: 7 }, &[TERM], Phase::Stopping);
    story.step(exited(0), &[], Phase::Stopped);
    let mut late = Story::of(settings(RestartCondition::Always));
    late.step(stop(), &[], Phase::Stopping);
    late.timer(&[KillAll], Phase::Stopping);
    late.step(Event::StartFailed { error: "killed".into(), exit: Exit::Code(125) }, &[], Phase::Stopped);
}

#[test]
fn a_stop_while_it_waits_is_over_at_once() {
    let mut story = Story::running(settings(RestartCondition::Always));
    story.step(exited(1), &[Start], Phase::Starting).step(
        Event::StartFailed { error: String::new(), exit: Exit::Code(125) },
        &[],
        Phase::Waiting,
    );
    story.step(stop(), &[], Phase::Stopped);
}

#[test]
fn a_second_stop_can_only_shorten_the_grace() {
    let mut story = Story::running(settings(RestartCondition::No));
    story.step(stop(), &[TERM], Phase::Stopping);
    let interrupt = Signal::from_number(2).unwrap();
    let ask = |seconds| Ask::Stop { signal: Some(interrupt), grace: Some(Timespan::from_secs(seconds)) };
    story.step(Event::Asked(ask(1)), &[Command::Signal(interrupt)], Phase::Stopping);
    story.step(Event::Asked(ask(100)), &[Command::Signal(interrupt)], Phase::Stopping);
    assert_eq!(story.timer(&[KillAll], Phase::Stopping), 1000);
}

#[test]
fn a_restart_by_request_begins_with_a_clean_sheet() {
    let mut story = Story::running(settings(RestartCondition::No));
    story.machine.restarts = 5;
    story.step(Event::Asked(Ask::Restart), &[TERM], Phase::Stopping).step(exited(0), &[Start], Phase::Starting);
    assert_eq!(story.machine.restarts, 0);
    story.step(Event::Started { pid: 8 }, &[], Phase::Running);
    // The wish to end is stronger than the wish to start again.
    story.step(Event::Asked(Ask::Restart), &[TERM], Phase::Stopping).step(stop(), &[TERM], Phase::Stopping);
    story.step(exited(0), &[], Phase::Stopped);
}

#[test]
fn what_is_paused_is_thawed_before_it_is_stopped_or_killed() {
    let paused = || {
        let mut story = Story::running(settings(RestartCondition::No));
        story.step(Event::Asked(Ask::Pause), &[Freeze], Phase::Paused);
        story
    };
    assert!(paused().machine.refusal(&Ask::Pause).is_some());
    paused().step(Event::Asked(Ask::Resume), &[Thaw], Phase::Running);
    paused().step(stop(), &[TERM, Thaw], Phase::Stopping);
    let kill = Event::Asked(Ask::Kill { signal: Signal::KILL });
    paused().step(kill, &[Command::Signal(Signal::KILL), Thaw], Phase::Running);
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let mut story = Story::running(settings(RestartCondition::Always));
    story.step(exited(1), &[Start], Phase::Starting).step(
        Event::StartFailed { error: String::new(), exit: Exit::Code(125) },
        &[],
        Phase::Waiting,
    );
    for ask in [Ask::Pause, Ask::Resume, Ask::Kill { signal: Signal::TERM }] {
        assert!(story.machine.refusal(&ask).is_some());
        story.step(Event::Asked(ask), &[], Phase::Waiting);
    }
}

fn checked() -> Settings {
    let check = Healthcheck {
        interval: Timespan::from_secs(10),
        retries: 1,
        ..Healthcheck::of(Probe::Command(vec!["true".into()]))
    };
    Settings { healthcheck: Some(check), ..settings(RestartCondition::Always) }
}

fn answer(healthy: bool) -> Event {
    Event::Probed(ProbeResult { at: SystemTime::UNIX_EPOCH, healthy, output: String::new() })
}

#[test]
fn health_is_asked_while_it_runs_and_one_probe_at_a_time() {
    use crate::model::health::Health;
    let mut story = Story::running(checked());
    assert_eq!(story.timer(&[AskHealth], Phase::Running), 125);
    assert_eq!(story.machine.deadline(), None);
    story.step(Event::Timer, &[], Phase::Running).step(answer(true), &[], Phase::Running);
    assert_eq!(story.machine.health().unwrap().health, Health::Healthy);
    assert_eq!(story.timer(&[AskHealth], Phase::Running), 10_000);
    story.step(answer(false), &[], Phase::Running);
    assert_eq!(story.machine.health().unwrap().health, Health::Unhealthy);
    story.step(Event::Asked(Ask::Pause), &[CancelProbe, Freeze], Phase::Paused);
    assert_eq!(story.machine.deadline(), None);
    story.step(Event::Asked(Ask::Resume), &[Thaw], Phase::Running);
    assert!(story.machine.deadline().is_some());
    // A pause that could not be had leaves it as it was, to be asked for again.
    story.step(Event::Asked(Ask::Pause), &[CancelProbe, Freeze], Phase::Paused);
    story.step(Event::FreezeFailed, &[], Phase::Running);
    assert!(story.machine.deadline().is_some());
    assert_eq!(story.machine.refusal(&Ask::Pause), None);
    story.step(exited(1), &[CancelProbe, Start], Phase::Starting).step(answer(true), &[], Phase::Starting);
}

#[test]
fn a_reload_changes_the_check_and_the_policy_of_what_runs() {
    let mut story = Story::running(checked());
    let reload = |settings| Event::Asked(Ask::Reload(Box::new(settings)));
    story.step(reload(checked()), &[], Phase::Running);
    story.step(reload(settings(RestartCondition::No)), &[CancelProbe], Phase::Running);
    assert_eq!(story.machine.health(), None);
    story.step(reload(checked()), &[], Phase::Running);
    assert!(story.machine.deadline().is_some());
    story.step(reload(settings(RestartCondition::No)), &[CancelProbe], Phase::Running);
    story.step(exited(1), &[], Phase::Exited);
}

#[test]
fn a_reload_while_it_waits_is_asked_about_the_end_it_waits_after() {
    let mut story = Story::running(settings(RestartCondition::Always));
    story.step(exited(1), &[Start], Phase::Starting).step(Event::Started { pid: 8 }, &[], Phase::Running);
    story.step(exited(1), &[], Phase::Waiting);
    let quick = Backoff { initial: Timespan::from_millis(20), ..Backoff::default() };
    let mut quicker = settings(RestartCondition::Always);
    quicker.restart.backoff = quick;
    story.step(Event::Asked(Ask::Reload(Box::new(quicker))), &[], Phase::Waiting);
    assert_eq!(story.machine.deadline(), Some(Duration::from_millis(20)));
    let never = settings(RestartCondition::No);
    story.step(Event::Asked(Ask::Reload(Box::new(never))), &[], Phase::Exited);
}
