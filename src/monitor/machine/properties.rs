//! What holds whatever happens in whatever order: generated stories, with a world that obeys the commands.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::model::id::ContainerId;
use crate::model::restart::{Backoff, RestartCondition};
use crate::model::status::Phase;
use crate::monitor::clock::Now;

fn asks() -> impl Strategy<Value = Ask> {
    prop_oneof![
        (0_u64..20).prop_map(|grace| Ask::Stop { signal: None, grace: Some(Timespan::from_secs(grace)) }),
        Just(Ask::Restart),
        Just(Ask::Kill { signal: Signal::KILL }),
        Just(Ask::Pause),
        Just(Ask::Resume),
        settings().prop_map(|settings| Ask::Reload(Box::new(settings))),
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    let conditions =
        [RestartCondition::No, RestartCondition::OnFailure, RestartCondition::Always, RestartCondition::UnlessStopped];
    let backoffs = (0_u64..500, 0_u32..4, 0_u64..2000, 0_u64..5000).prop_map(|(initial, factor, max, reset)| Backoff {
        initial: Timespan::from_millis(initial),
        factor,
        max: Timespan::from_millis(max),
        reset_after: Timespan::from_millis(reset),
    });
    let policies = (proptest::sample::select(conditions.to_vec()), proptest::option::of(0_u32..4), backoffs)
        .prop_map(|(condition, max_retries, backoff)| RestartPolicy { condition, max_retries, backoff });
    let checks = proptest::option::of((1_u64..3000, 0_u32..3, 0_u64..3000).prop_map(|(interval, retries, period)| {
        Healthcheck {
            interval: Timespan::from_millis(interval),
            retries,
            start_period: Timespan::from_millis(period),
            ..Healthcheck::of(Probe::Tcp { port: 1 })
        }
    }));
    (policies, checks).prop_map(|(restart, healthcheck)| Settings {
        restart,
        healthcheck,
        stop_signal: Signal::TERM,
        stop_grace_period: Timespan::from_secs(3),
    })
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1_u32..100).prop_map(|pid| Event::Started { pid }),
        Just(Event::StartFailed { error: "e".into(), exit: Exit::Code(127) }),
        (0_u8..3).prop_map(|code| Event::Exited(Exit::Code(code))),
        any::<bool>().prop_map(|healthy| Event::Probed(ProbeResult {
            at: SystemTime::UNIX_EPOCH,
            healthy,
            output: String::new()
        })),
        Just(Event::Timer),
        Just(Event::Timer),
        Just(Event::Unheard),
        Just(Event::FreezeFailed),
        asks().prop_map(Event::Asked),
        asks().prop_map(Event::Asked),
    ]
}

/// The world as the commands make it: what the machine may count on.
#[derive(Debug, Default)]
struct World {
    starting: bool,
    running: bool,
    frozen: bool,
    probing: bool,
}

impl World {
    /// Whether `event` can happen in this world. Requests and timers always can.
    fn allows(&self, event: &Event) -> bool {
        match event {
            Event::Started { .. } | Event::StartFailed { .. } => self.starting,
            Event::Exited(_) => self.running && !self.frozen,
            Event::Probed(_) => self.probing,
            Event::FreezeFailed => self.frozen,
            Event::Timer | Event::Unheard | Event::Asked(_) => true,
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Started { .. } => (self.starting, self.running) = (false, true),
            Event::StartFailed { .. } => self.starting = false,
            Event::Exited(_) => self.running = false,
            Event::Probed(_) => self.probing = false,
            Event::FreezeFailed => self.frozen = false,
            Event::Timer | Event::Unheard | Event::Asked(_) => {}
        }
    }

    /// Carries a command out; panics on one that makes no sense in this world.
    fn obey(&mut self, command: &Command) {
        match command {
            Command::Start => {
                assert!(!self.starting && !self.running, "started twice");
                assert!(!self.frozen && !self.probing);
                self.starting = true;
            }
            Command::Signal(_) => assert!(self.running, "a signal to nobody"),
            Command::KillAll => assert!(self.running || self.starting, "nothing to kill"),
            Command::Freeze => {
                assert!(self.running && !self.frozen);
                self.frozen = true;
            }
            Command::Thaw => {
                assert!(self.frozen);
                self.frozen = false;
            }
            Command::Probe => {
                assert!(self.running && !self.frozen && !self.probing, "a probe of nothing, or a second one");
                self.probing = true;
            }
            Command::CancelProbe => self.probing = false,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn commands_always_make_sense_and_the_status_tells_the_truth(
        settings in settings(),
        story in proptest::collection::vec((events(), 0_u64..3000), 0..60),
    ) {
        let id: ContainerId = "0123456789ab".parse().unwrap();
        let mut machine = Machine::new(settings);
        let mut world = World { starting: true, ..World::default() };
        let mut millis = 0;
        for (event, pause) in story {
            if !world.allows(&event) {
                continue;
            }
            millis += pause;
            let monotonic = Duration::from_millis(millis);
            let now = Now { monotonic, wall: SystemTime::UNIX_EPOCH + monotonic };
            world.happen(&event);
            let was_over = machine.is_over();
            let commands = machine.step(event, now);
            commands.iter().for_each(|command| world.obey(command));
            let status = machine.status(&id);
            prop_assert_eq!(status.pid.is_some(), world.running);
            prop_assert_eq!(status.phase == Phase::Paused, world.frozen);
            prop_assert_eq!(status.next_start_at.is_some(), matches!(status.phase, Phase::Waiting | Phase::CrashLoop));
            if machine.is_over() {
                prop_assert!(!world.running && !world.starting, "over, but something lives");
                prop_assert_eq!(machine.deadline(), None);
                prop_assert!(!was_over || commands.is_empty());
            } else {
                // Nobody waits for ever: something runs, something starts, or a time will come.
                prop_assert!(world.running || world.starting || machine.deadline().is_some());
            }
        }
    }

    /// It may be set forward or back by years while a container runs.
    #[test]
    fn what_the_wall_clock_says_decides_nothing(
        settings in settings(),
        story in proptest::collection::vec((events(), 0_u64..3000, 0_u64..4_000_000_000), 0..60),
    ) {
        let (mut steady, mut jumping) = (Machine::new(settings.clone()), Machine::new(settings));
        let mut world = World { starting: true, ..World::default() };
        let mut millis = 0;
        for (event, pause, wall) in story {
            if !world.allows(&event) {
                continue;
            }
            millis += pause;
            let at = |wall| Now { monotonic: Duration::from_millis(millis), wall: SystemTime::UNIX_EPOCH + wall };
            world.happen(&event);
            let commands = steady.step(event.clone(), at(Duration::from_millis(millis)));
            prop_assert_eq!(&jumping.step(event, at(Duration::from_secs(wall))), &commands);
            prop_assert_eq!(jumping.deadline(), steady.deadline());
            prop_assert_eq!(jumping.phase(), steady.phase());
            commands.iter().for_each(|command| world.obey(command));
        }
    }

    #[test]
    fn a_stop_always_comes_to_its_end(settings in settings(), obedient in any::<bool>(), starting in any::<bool>()) {
        let now = |millis| {
            let monotonic = Duration::from_millis(millis);
            Now { monotonic, wall: SystemTime::UNIX_EPOCH + monotonic }
        };
        let mut machine = Machine::new(settings);
        if !starting {
            machine.step(Event::Started { pid: 5 }, now(0));
        }
        machine.step(Event::Asked(Ask::Stop { signal: None, grace: None }), now(1));
        if starting {
            machine.step(Event::Started { pid: 5 }, now(2));
        }
        if !obedient {
            prop_assert_eq!(machine.deadline(), Some(Duration::from_millis(3001)));
            prop_assert_eq!(machine.step(Event::Timer, now(3001)), vec![Command::KillAll]);
        }
        machine.step(Event::Exited(Exit::Signal(Signal::KILL)), now(3002));
        prop_assert_eq!(machine.phase(), Phase::Stopped);
    }
}
