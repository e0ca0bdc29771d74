//! Executing plans against the model of a host: what goes on, what is skipped, what is not begun; and the rounds of
//! `watch`.

mod worlds;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evenkeel::engine::fake::Fake;
use evenkeel::manifest::{self, Colour, FileKind, Source};
use evenkeel::model::action::Action;
use evenkeel::model::actual::{Actual, ActualContainer, ActualImage};
use evenkeel::model::desired::Desired;
use evenkeel::model::image::{Image, ImageConfig, ImageSource};
use evenkeel::plan::{Mark, Plan, Step, StepId};
use evenkeel::reconcile::execute::{Observer, Silent, execute};
use evenkeel::reconcile::fetch::{Fetched, Fetches};
use evenkeel::reconcile::report::StepOutcome;
use evenkeel::reconcile::watch;
use evenkeel::reconcile::watch::pace::{Pace, Times};
use evenkeel::reconcile::watch::round::{Outcome, Rounds, Standing, Surroundings};
use evenkeel::reconcile::watch::service::Service;
use evenkeel::reconcile::watch::wake::Wake;

/// A plan that fetches images, each after those that its pair names.
fn plan(steps: &[(&str, &[StepId])]) -> Plan {
    let step = |(name, after): &(&str, &[StepId])| Step {
        action: Action::FetchImage { source: ImageSource::Reference((*name).to_owned()), bases: None },
        subject: format!("image {name}"),
        mark: Mark::Create,
        reason: "declared".to_owned(),
        changes: Vec::new(),
        after: after.iter().copied().collect::<BTreeSet<_>>(),
        on_failure_of: BTreeSet::new(),
    };
    Plan {
        version: evenkeel::plan::PLAN_VERSION,
        project: "shop".parse().unwrap(),
        steps: steps.iter().map(step).collect(),
        warnings: Vec::new(),
        refusals: Vec::new(),
        held_back: Vec::new(),
    }
}

fn failing(name: &'static str) -> Fake {
    Fake::failing(Actual::default(), move |action| match action {
        Action::FetchImage { source: ImageSource::Reference(reference), .. } if reference == name => {
            Some("no route".to_owned())
        }
        _ => None,
    })
}

fn fetched(fake: &Fake) -> BTreeSet<String> {
    let name = |action: Action| match action {
        Action::FetchImage { source, .. } => source.to_string(),
        other => panic!("{other:?}"),
    };
    fake.performed().into_iter().map(name).collect()
}

#[test]
fn a_failed_step_skips_what_waits_for_it_and_nothing_else() {
    let fake = failing("b");
    let plan = plan(&[("a", &[]), ("b", &[0]), ("c", &[1]), ("d", &[2, 0]), ("e", &[0])]);
    let report = execute(&fake, &plan, &Silent, &AtomicBool::new(false));
    assert_eq!(fetched(&fake), ["a", "e"].map(str::to_owned).into());
    assert!(matches!(&report.outcomes[1], StepOutcome::Failed { causes, .. } if causes == &["no route".to_owned()]));
    assert_eq!(report.outcomes[2], StepOutcome::Skipped { because: 1 });
    assert_eq!(report.outcomes[3], StepOutcome::Skipped { because: 2 });
    assert!(report.is_partial());
}

#[test]
fn a_step_begins_only_after_those_that_it_waits_for() {
    /// Remembers the order of beginnings and ends.
    #[derive(Default)]
    struct Order(Mutex<Vec<(StepId, bool)>>);
    impl Observer for Order {
        fn step_started(&self, step: StepId) {
            self.0.lock().unwrap().push((step, false));
        }
        fn step_ended(&self, step: StepId, _: &StepOutcome) {
            self.0.lock().unwrap().push((step, true));
        }
    }
    let order = Order::default();
    let plan = plan(&[("a", &[]), ("b", &[]), ("c", &[0, 1]), ("d", &[2])]);
    let report = execute(&Fake::new(Actual::default()), &plan, &order, &AtomicBool::new(false));
    assert!(report.is_success());
    let order = order.0.into_inner().unwrap();
    let at = |event: (StepId, bool)| order.iter().position(|e| *e == event).unwrap();
    for (id, step) in plan.steps.iter().enumerate() {
        for before in &step.after {
            assert!(at((*before, true)) < at((id, false)), "{order:?}");
        }
    }
}

#[test]
fn a_rescue_runs_when_its_trigger_failed_and_is_not_needed_otherwise() {
    let with_rescues = |rescues: &[(StepId, &[StepId])]| {
        let mut plan = plan(&[("a", &[]), ("b", &[0]), ("c", &[1]), ("d", &[]), ("e", &[3])]);
        for (id, triggers) in rescues {
            plan.steps[*id].on_failure_of = triggers.iter().copied().collect();
        }
        plan
    };
    let plan = with_rescues(&[(3, &[0, 1]), (4, &[0, 1])]);
    let report = execute(&failing("b"), &plan, &Silent, &AtomicBool::new(false));
    assert!(matches!(report.outcomes[3..], [StepOutcome::Done { .. }, StepOutcome::Done { .. }]), "{report:?}");

    let report = execute(&failing("nothing"), &plan, &Silent, &AtomicBool::new(false));
    assert_eq!(report.outcomes[3..], [StepOutcome::NotNeeded, StepOutcome::NotNeeded]);
    assert!(report.is_success());

    // What was skipped did not fail: nothing was begun that would have to be taken back.
    let report = execute(&failing("a"), &with_rescues(&[(3, &[1, 2]), (4, &[1, 2])]), &Silent, &AtomicBool::new(false));
    assert_eq!(report.outcomes[3..], [StepOutcome::NotNeeded, StepOutcome::NotNeeded]);
}

#[test]
fn after_a_cancellation_no_step_begins() {
    /// Cancels when the first step has ended.
    struct Cancel<'a>(&'a AtomicBool);
    impl Observer for Cancel<'_> {
        fn step_started(&self, _: StepId) {}
        fn step_ended(&self, _: StepId, _: &StepOutcome) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (fake, cancel) = (Fake::new(Actual::default()), AtomicBool::new(false));
    let plan = plan(&[("a", &[]), ("b", &[0]), ("c", &[1])]);
    let report = execute(&fake, &plan, &Cancel(&cancel), &cancel);
    assert_eq!(fetched(&fake), ["a".to_owned()].into());
    assert_eq!(report.outcomes[1..], [StepOutcome::Cancelled, StepOutcome::Cancelled]);
}

fn declared(text: &str) -> Desired {
    let surroundings = manifest::Surroundings {
        directory: Path::new("/project"),
        variable: &|_| None,
        file_kind: &|_| Some(FileKind::Directory),
        read_file: &|_| Ok(String::new()),
    };
    let source = Source { path: PathBuf::from("evenkeel.toml"), text: text.to_owned() };
    match manifest::parse(vec![vec![source]], &surroundings) {
        Ok(loaded) => loaded.desired,
        Err(problems) => panic!("{}", problems.render(Colour::Plain)),
    }
}

fn up(fake: &Fake) -> BTreeSet<String> {
    let containers = fake.actual().containers;
    containers.values().filter(|c| worlds::is_up(c)).map(|c| c.record.instance.to_string()).collect()
}

const SHOP: &str = r#"
    project = "shop"
    [networks.front]
    [containers.db]
    image = "postgres:17"
    [containers.web]
    image = "nginx:1.27"
    networks = ["front"]
    ports = { "127.0.0.1:8080" = 80 }
"#;

/// After a boot: the manifest is the one that was in force, and another process has a port of it.
#[test]
fn what_speaks_against_one_container_does_not_keep_down_the_rest() {
    let mut actual = worlds::host();
    actual.host.listening.insert("127.0.0.1:8080".parse().unwrap());
    let fake = Fake::new(actual);
    let remembered = Mutex::new(Vec::new());
    let tidied = AtomicUsize::new(0);
    let manifest = Mutex::new(declared(SHOP));
    let surroundings = Surroundings {
        load: &|| Ok(manifest.lock().unwrap().clone()),
        recall: &|_| Some(declared(SHOP)),
        remember: &|desired| {
            remembered.lock().unwrap().push(desired.clone());
            false
        },
        collect: &|_| {
            tidied.fetch_add(1, Ordering::Relaxed);
        },
        ..usual()
    };
    let mut rounds = Rounds::new(&fake, surroundings);
    let outcome = round(&mut rounds);
    assert!(
        matches!(&outcome, Outcome::Refused { first, rest: Standing::Settled } if first.contains("8080")),
        "{outcome}"
    );
    assert_eq!(up(&fake), ["db".to_owned()].into());
    assert_eq!(*remembered.lock().unwrap(), [], "what is refused is not the last good one");
    assert_eq!(tidied.load(Ordering::Relaxed), 1, "space may be what is missing");

    fake.edit(|actual| actual.host.listening.clear());
    assert_eq!(round(&mut rounds), Outcome::Converged);
    assert_eq!(up(&fake), ["db", "web"].map(str::to_owned).into());
    assert_eq!(*remembered.lock().unwrap(), [declared(SHOP)]);

    // A manifest that is refused whole: what was in force is kept so.
    let wrong = SHOP.replace("postgres:17", "postgres:18").replace(":8080", ":9090");
    *manifest.lock().unwrap() = declared(&wrong);
    fake.edit(|actual| {
        actual.host.listening.insert("127.0.0.1:9090".parse().unwrap());
        worlds::happen(actual, &worlds::Event::Reboot);
    });
    assert_eq!(up(&fake), BTreeSet::new());
    assert!(matches!(round(&mut rounds), Outcome::Refused { .. }));
    assert_eq!(up(&fake), ["db", "web"].map(str::to_owned).into());
    let images: BTreeSet<String> = fake.actual().containers.values().map(|c| c.record.spec.image.to_string()).collect();
    assert!(images.iter().all(|image| !image.contains(":18")), "{images:?}");
}

/// The lock of a state root that tells whether somebody has it.
struct Held(Arc<AtomicBool>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// A registry may take an hour; whoever wants to start a container meanwhile needs the lock.
#[test]
fn images_are_fetched_without_the_lock_and_asked_for_once() {
    let held = Arc::new(AtomicBool::new(false));
    let (seen, collected) = (held.clone(), AtomicUsize::new(0));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (log, has_network) = (asked.clone(), AtomicBool::new(false));
    let script = move |action: &Action| {
        let is_held = seen.load(Ordering::SeqCst);
        match action {
            Action::FetchImage { source, .. } => {
                assert!(has_network.load(Ordering::SeqCst), "what needs no image does not wait for a registry");
                log.lock().unwrap().push((source.to_string(), is_held));
                source.to_string().contains("nginx").then(|| "the registry is down".to_owned())
            }
            Action::EnsureNetwork { .. } if is_held => {
                has_network.store(true, Ordering::SeqCst);
                None
            }
            other => (!is_held).then(|| format!("{other:?} without the lock")),
        }
    };
    let fake = Fake::failing(worlds::host(), script);
    let surroundings = Surroundings {
        collect: &|_| {
            assert!(held.load(Ordering::SeqCst));
            collected.fetch_add(1, Ordering::SeqCst);
        },
        lock: &|_| {
            assert!(!held.swap(true, Ordering::SeqCst), "it is let go of before it is taken again");
            Ok(Some(Box::new(Held(held.clone())) as Box<dyn Send>))
        },
        ..usual()
    };
    let mut rounds = Rounds::new(&fake, surroundings).lingering(Duration::ZERO);
    let outcome = round(&mut rounds);
    let Outcome::Degraded { failed: 1, first } = &outcome else { panic!("{outcome}") };
    assert!(first.contains("nginx:1.27: the registry is down"), "{first}");
    let mut all = asked.lock().unwrap().clone();
    all.sort();
    let expected = ["docker.io/library/nginx:1.27", "docker.io/library/postgres:17"];
    assert_eq!(all, expected.map(|name| (name.to_owned(), false)));
    assert_eq!(up(&fake), ["db".to_owned()].into(), "what has its image runs");
    assert_eq!(collected.load(Ordering::SeqCst), 1);
    assert!(!held.load(Ordering::SeqCst));
}

/// Somebody else got the lock while a registry was asked in vain, and keeps it.
#[test]
fn what_was_fetched_without_the_lock_and_is_gone_again_does_not_count_as_fetched() {
    let plan = plan(&[("a", &[]), ("b", &[])]);
    let fetches = Fetches::of(&plan, &Fetched::default()).unwrap();
    let fake = failing("b");
    let fetched = fetches.fetch(&fake, &Silent, &AtomicBool::new(false));
    let known = |fetched: &Fetched| [0, 1].map(|step: StepId| fetched.get(&plan.steps[step].action).is_some());
    assert_eq!(known(&fetched), [true, true]);
    let Action::FetchImage { source, .. } = plan.steps[0].action.clone() else { panic!("an image is fetched") };
    let mut after = Actual::default();
    let id = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    let whole = Image { id, manifest: None, layers: Vec::new(), config: ImageConfig::default() };
    let image = |image| ActualImage { image, moved: None, unasked: None, tag: None };
    after.images.insert(source.clone(), image(Some(whole)));
    assert_eq!(known(&Fetches::still_there(fetched.clone(), &after)), [true, true]);
    after.images.insert(source, image(None));
    assert_eq!(known(&Fetches::still_there(fetched, &after)), [false, true], "a failure is no image");
}

#[test]
fn a_round_that_finds_the_lock_taken_after_its_fetch_does_not_ask_the_registry_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let fake = Fake::failing(worlds::host(), move |action| {
        let Action::FetchImage { source, .. } = action else { return None };
        source.to_string().contains("nginx").then(|| {
            counter.fetch_add(1, Ordering::SeqCst);
            "the registry is down".to_owned()
        })
    });
    let locks = AtomicUsize::new(0);
    let surroundings = Surroundings {
        // The first round gets it once, before the fetch.
        lock: &|_| {
            let is_free = !(1..4).contains(&locks.fetch_add(1, Ordering::SeqCst));
            Ok(is_free.then(|| Box::new(()) as Box<dyn Send>))
        },
        ..usual()
    };
    let mut rounds = Rounds::new(&fake, surroundings).lingering(Duration::ZERO);
    for _ in 0..3 {
        assert_eq!(round(&mut rounds), Outcome::Busy);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
    let outcome = round(&mut rounds);
    assert!(
        matches!(&outcome, Outcome::Degraded { failed: 1, first } if first.contains("registry is down")),
        "{outcome}"
    );
    assert_eq!((asked.load(Ordering::SeqCst), up(&fake)), (1, ["db".to_owned()].into()));
    // That was a failed round: the next comes after a pause, and asks.
    round(&mut rounds);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

/// Layers that are made again come from a registry, too.
#[test]
fn images_are_restored_without_the_lock() {
    let held = Arc::new(AtomicBool::new(false));
    let (seen, has_failed) = (held.clone(), AtomicBool::new(false));
    let fake = Fake::failing(worlds::host(), move |action| match action {
        Action::RestoreImage { .. } => {
            assert!(!seen.load(Ordering::SeqCst), "{action:?} with the lock");
            (!has_failed.swap(true, Ordering::SeqCst)).then(|| "no route".to_owned())
        }
        Action::FetchImage { .. } => None,
        other => (!seen.load(Ordering::SeqCst)).then(|| format!("{other:?} without the lock")),
    });
    let surroundings = Surroundings {
        lock: &|_| {
            held.store(true, Ordering::SeqCst);
            Ok(Some(Box::new(Held(held.clone())) as Box<dyn Send>))
        },
        ..usual()
    };
    let mut rounds = Rounds::new(&fake, surroundings).lingering(Duration::ZERO);
    assert_eq!(round(&mut rounds), Outcome::Converged);
    fake.edit(|actual| {
        worlds::happen(actual, &worlds::Event::Reboot);
        let db = actual.containers.values().find(|c| c.record.instance.to_string() == "db").unwrap();
        let image = db.record.image.clone().unwrap();
        actual.damaged.insert(image.clone(), [image].into());
    });
    let outcome = round(&mut rounds);
    assert!(matches!(&outcome, Outcome::Degraded { failed: 1, first } if first.contains("no route")), "{outcome}");
    assert_eq!(up(&fake), ["web".to_owned()].into());
    assert_eq!(round(&mut rounds), Outcome::Converged);
    assert_eq!(up(&fake), ["db", "web"].map(str::to_owned).into());
}

/// What `apply` brings into force while the manifest of the service is refused.
#[test]
fn what_came_by_hand_while_the_manifest_is_refused_stays() {
    let fake = Fake::new(worlds::host());
    let (manifest, in_force) = (Mutex::new(declared(SHOP)), Mutex::new(None));
    let surroundings = Surroundings {
        load: &|| Ok(manifest.lock().unwrap().clone()),
        recall: &|_| in_force.lock().unwrap().clone(),
        remember: &|desired| {
            *in_force.lock().unwrap() = Some(desired.clone());
            true
        },
        ..usual()
    };
    let mut rounds = Rounds::new(&fake, surroundings);
    assert_eq!(round(&mut rounds), Outcome::Converged);
    let newer = SHOP.replace("postgres:17", "postgres:18");
    fake.edit(|actual| {
        actual.host.listening.insert("127.0.0.1:9090".parse().unwrap());
    });
    *manifest.lock().unwrap() = declared(&newer.replace(":8080", ":9090"));
    assert!(matches!(rounds.run(Wake::Manifest, &AtomicBool::new(false)), Outcome::Refused { .. }));

    // `apply --target db`.
    let plan = worlds::planned(&declared(&newer), &fake.actual(), 3);
    fake.edit(|actual| *actual = worlds::applied(actual, &plan));
    *in_force.lock().unwrap() = Some(declared(&newer));
    assert!(matches!(round(&mut rounds), Outcome::Refused { .. }));
    let images: BTreeSet<String> = fake.actual().containers.values().map(|c| c.record.spec.image.to_string()).collect();
    assert!(images.iter().any(|image| image.contains(":18")), "{images:?}");
}

/// A rule that somebody flushes just after a round has looked.
#[test]
fn what_happens_during_a_round_begins_another_one() {
    let (to, wakes) = mpsc::sync_channel(0);
    let rounds_begun = AtomicUsize::new(0);
    let fake = Fake::new(worlds::host());
    let surroundings = Surroundings {
        load: &|| Ok(declared("project = \"shop\"")),
        remember: &|_| false,
        lock: &|_| {
            // The channel holds nothing: it is heard while the round runs.
            let wake = if rounds_begun.fetch_add(1, Ordering::Relaxed) == 0 { Wake::Host } else { Wake::End };
            to.send(wake).map_err(|error| error.to_string())?;
            Ok(Some(Box::new(()) as Box<dyn Send>))
        },
        ..usual()
    };
    let times = Times { interval: Duration::from_secs(600), ..Times::default() };
    let begun = Instant::now();
    let mut pace = Pace::new(times, begun);
    watch::run(&mut Rounds::new(&fake, surroundings), &wakes, &Service::from_environment(), &mut pace);
    assert_eq!(rounds_begun.into_inner(), 2);
    assert!(begun.elapsed() < times.interval / 2);
}

/// Its links could not be taken away: it is stopped already, and the new one waits for them.
#[test]
fn what_cannot_go_runs_on() {
    let desired = |text: &str| declared(text);
    let plan = |actual: &Actual, text: &str| worlds::planned(&desired(text), actual, 1);
    let first = worlds::applied(&worlds::host(), &plan(&worlds::host(), SHOP));
    let update = plan(&first, &SHOP.replace("nginx:1.27", "nginx:1.28"));
    for fails in ["disconnect", "stop"] {
        let script = move |action: &Action| match action {
            Action::DisconnectContainer { .. } if fails == "disconnect" => Some("the kernel is busy".to_owned()),
            Action::StopContainer { .. } if fails == "stop" => Some("it does not end".to_owned()),
            _ => None,
        };
        let fake = Fake::failing(first.clone(), script);
        let report = execute(&fake, &update, &Silent, &AtomicBool::new(false));
        assert!(report.is_partial());
        assert_eq!(report.rolled_back(&update).count(), 0, "nothing speaks against the update");
        let after = fake.actual();
        let old = after.containers.values().find(|c| c.record.spec.image.to_string().contains("1.27")).unwrap();
        assert!(worlds::is_up(old), "{fails}: {}", worlds::told(&update));
    }
}

/// A shop as it is declared, a lock that is free, and nobody who listens.
fn usual<'a>() -> Surroundings<'a, Box<dyn Send>> {
    Surroundings {
        load: &|| Ok(declared(SHOP)),
        recall: &|_| None,
        remember: &|_| true,
        ask_again: &|| {},
        collect: &|_| {},
        lock: &|_| Ok(Some(Box::new(()) as Box<dyn Send>)),
        seed: &|| 7,
        leave: &|| {},
    }
}

/// Rounds of `watch` over a fake host, for a manifest.
fn rounds<'a>(fake: &'a Fake, load: &'a (dyn Fn() -> Result<Desired, String> + Sync)) -> Rounds<'a, Fake> {
    let surroundings = Surroundings { load, remember: &|_| false, ..usual() };
    Rounds::new(fake, surroundings).lingering(Duration::ZERO)
}

fn round(rounds: &mut Rounds<'_, Fake>) -> Outcome {
    rounds.run(Wake::Timer, &AtomicBool::new(false))
}

fn starts(fake: &Fake) -> usize {
    fake.performed().iter().filter(|action| matches!(action, Action::StartContainer { .. })).count()
}

const CHAIN: &str = r#"
    project = "shop"
    [containers.db]
    image = "postgres:17"
    healthcheck = { tcp = 5432 }
    [containers.web]
    image = "nginx:1.27"
    depends_on = { db = "healthy" }
"#;

#[test]
fn a_round_leaves_what_takes_long_and_a_later_one_goes_on() {
    let slow = Arc::new(AtomicBool::new(true));
    let is_slow = Arc::clone(&slow);
    let fake = Fake::new(worlds::host()).taking_time(move |_| is_slow.load(Ordering::Relaxed));
    let mut rounds = rounds(&fake, &|| Ok(declared(CHAIN)));
    for _ in 0..3 {
        let outcome = round(&mut rounds);
        let is_db = |first: &str| first.contains("container db");
        assert!(matches!(&outcome, Outcome::Waiting { first, is_up: false } if is_db(first)), "{outcome}");
        assert_eq!((up(&fake), starts(&fake)), (["db".to_owned()].into(), 1));
    }
    // What somebody breaks meanwhile is put back.
    fake.edit(|actual| {
        actual.containers.values_mut().filter_map(|c| c.limits.as_mut()).for_each(|limits| limits.pids = Some(7));
    });
    assert!(matches!(round(&mut rounds), Outcome::Waiting { .. }));
    let limits = fake.actual().containers.into_values().filter_map(|container| container.limits);
    assert_eq!(limits.map(|limits| limits.pids).collect::<Vec<_>>(), [None]);

    slow.store(false, Ordering::Relaxed);
    assert_eq!(round(&mut rounds), Outcome::Converged);
    assert_eq!((up(&fake), starts(&fake)), (["db", "web"].map(str::to_owned).into(), 2));
    assert_eq!(round(&mut rounds), Outcome::Converged);
}

/// Its end is no reason to start it at once and for ever.
#[test]
fn a_migration_that_fails_is_a_failure_before_it_is_tried_again() {
    let fake = Fake::new(worlds::host()).taking_time(|_| true);
    let text = CHAIN.replace("\"healthy\"", "\"completed\"");
    let load = move || Ok(declared(&text));
    let mut rounds = rounds(&fake, &load);
    for tries in 1..4 {
        assert!(matches!(round(&mut rounds), Outcome::Waiting { .. }));
        assert_eq!(starts(&fake), tries);
        let all = fake.actual().containers;
        let db = all.values().position(|c| c.record.instance.container.as_str() == "db").unwrap();
        fake.edit(|actual| worlds::happen(actual, &worlds::Event::Exit(db as u8, 3)));
        let outcome = round(&mut rounds);
        assert!(matches!(outcome, Outcome::Degraded { failed: 1, .. }), "{outcome}");
        assert_eq!((starts(&fake), up(&fake)), (tries, BTreeSet::new()));
    }
}

const SERVES: &str = r#"
    project = "shop"
    [containers.web]
    image = "nginx:1.27"
    restart = "no"
    dns = ["9.9.9.9"]
    update = { monitor = "1h" }
"#;

/// Both ways of an update: another container, and the same one changed in place.
#[test]
fn an_update_whose_verdict_comes_rounds_later_goes_back() {
    for (from, to) in [("nginx:1.27", "nginx:1.28"), ("9.9.9.9", "9.9.9.10")] {
        let first = worlds::applied(&worlds::host(), &worlds::planned(&declared(SERVES), &worlds::host(), 1));
        let is_lost = Arc::new(AtomicBool::new(false));
        let lost = Arc::clone(&is_lost);
        let script = move |action: &Action| match action {
            Action::AwaitContainer { .. } if lost.load(Ordering::Relaxed) => Some("it is unhealthy".to_owned()),
            _ => None,
        };
        let fake = Fake::failing(first.clone(), script).taking_time(|_| true);
        let load = || Ok(declared(&SERVES.replace(from, to)));
        let mut before = rounds(&fake, &load);
        for _ in 0..2 {
            let outcome = round(&mut before);
            // It serves: who waits for this service to be up finds it.
            assert!(matches!(outcome, Outcome::Waiting { is_up: true, .. }), "{to}: {outcome}");
            assert_eq!(outcome.standing(), Standing::Proving);
        }
        // The service is started anew, and then there is a verdict.
        let mut rounds = rounds(&fake, &load);
        assert!(matches!(round(&mut rounds), Outcome::Waiting { .. }));
        is_lost.store(true, Ordering::Relaxed);
        let outcome = round(&mut rounds);
        assert!(matches!(outcome, Outcome::Degraded { .. }), "{to}: {outcome}");
        let outcome = round(&mut rounds);
        assert!(matches!(outcome, Outcome::HeldBack { .. }), "{to}: {outcome}");
        let (after, before) = (fake.actual().containers, &first.containers);
        assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "{to}");
        for (id, container) in after {
            assert!(worlds::is_up(&container));
            assert_eq!((&container.record.spec, &container.record.before), (&before[&id].record.spec, &None), "{to}");
        }
    }
}

/// A manifest that is edited between rounds.
fn edited(text: &Mutex<String>) -> impl Fn() -> Result<Desired, String> + Sync + '_ {
    || Ok(declared(&text.lock().unwrap()))
}

/// The one container of a host that declares one.
fn only(fake: &Fake) -> ActualContainer {
    let actual = fake.actual();
    assert_eq!(actual.containers.len(), 1);
    actual.containers.into_values().next().unwrap()
}

/// What the version before it came to is no verdict on one that never ran.
#[test]
fn an_update_that_follows_one_which_ended_is_tried() {
    let first = worlds::applied(&worlds::host(), &worlds::planned(&declared(SERVES), &worlds::host(), 1));
    let fake = Fake::new(first).taking_time(|_| true);
    let text = Mutex::new(SERVES.replace("9.9.9.9", "9.9.9.10"));
    let load = edited(&text);
    let mut rounds = rounds(&fake, &load);
    assert!(matches!(round(&mut rounds), Outcome::Waiting { .. }));
    fake.edit(|actual| worlds::happen(actual, &worlds::Event::Exit(0, 1)));
    *text.lock().unwrap() = SERVES.replace("9.9.9.9", "9.9.9.11");
    let outcome = rounds.run(Wake::Manifest, &AtomicBool::new(false));
    assert!(matches!(outcome, Outcome::Waiting { .. }), "{outcome}");
    let web = only(&fake);
    assert!(worlds::is_up(&web));
    assert_eq!(web.record.refused, None);
    assert_eq!(web.record.spec, declared(&text.lock().unwrap()).containers.values().next().unwrap().spec);
    let before = declared(SERVES).containers.into_values().next().unwrap().spec;
    assert_eq!(web.record.before.as_deref(), Some(&before), "it goes back to what ran well");
}

/// It runs again, and has its whole time.
#[test]
fn an_update_that_somebody_stops_is_not_refused() {
    let first = worlds::applied(&worlds::host(), &worlds::planned(&declared(SERVES), &worlds::host(), 1));
    let fake = Fake::new(first).taking_time(|_| true);
    let load = || Ok(declared(&SERVES.replace("9.9.9.9", "9.9.9.10")));
    let mut rounds = rounds(&fake, &load);
    assert!(matches!(round(&mut rounds), Outcome::Waiting { .. }));
    let before = only(&fake).record;
    fake.edit(|actual| worlds::happen(actual, &worlds::Event::StopByHand(0)));
    let outcome = round(&mut rounds);
    assert!(matches!(outcome, Outcome::Waiting { .. }), "{outcome}");
    let web = only(&fake);
    assert!(worlds::is_up(&web));
    assert_eq!(web.record, before);
}

#[test]
fn all_that_is_awaited_of_a_container_ends_with_it() {
    let twice =
        SERVES.replace("\"no\"", "\"on-failure\"").replace("dns", "replicas = 2\nhealthcheck = { tcp = 80 }\ndns");
    let first = worlds::applied(&worlds::host(), &worlds::planned(&declared(&twice), &worlds::host(), 1));
    let checked = twice.replace("9.9.9.9", "9.9.9.10");
    let starts_fail = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&starts_fail);
    let script = move |action: &Action| match action {
        Action::StartContainer { .. } if fails.load(Ordering::Relaxed) => Some("no processes left".to_owned()),
        _ => None,
    };
    let fake = Fake::failing(first, script).taking_time(|_| true);
    let load = || Ok(declared(&checked));
    let mut rounds = rounds(&fake, &load);
    assert!(matches!(round(&mut rounds), Outcome::Waiting { .. }));
    // Its way back cannot be gone either, in that round.
    let (id, _) = fake.actual().containers.into_iter().find(|(_, web)| web.record.before.is_some()).unwrap();
    fake.edit(|actual| worlds::happen_to(actual, &id, &worlds::Event::Exit(0, 1)));
    starts_fail.store(true, Ordering::Relaxed);
    assert!(matches!(round(&mut rounds), Outcome::Degraded { .. }));
    assert!(fake.actual().containers[&id].record.refused.is_some());
    starts_fail.store(false, Ordering::Relaxed);
    let outcome = round(&mut rounds);
    assert!(worlds::is_up(&fake.actual().containers[&id]), "{outcome}");
}

/// Whatever is begun before that has had its verdict, and however it takes the place of what is there.
#[test]
fn what_is_gone_back_to_has_proven_itself() {
    let declaring = |dns: &str, image: &str, order: &str| {
        let text = SERVES.replace("9.9.9.9", dns).replace("nginx:1.27", image);
        text.replace("monitor", &format!("order = \"{order}\", monitor"))
    };
    for order in ["stop-first", "start-first"] {
        let (v1, v2) = (declaring("9.9.9.9", "nginx:1.27", order), declaring("9.9.9.10", "nginx:1.27", order));
        let v3 = declaring("9.9.9.10", "nginx:1.28", order);
        let first = worlds::applied(&worlds::host(), &worlds::planned(&declared(&v1), &worlds::host(), 1));
        // A version after the one without a verdict, and back to that one.
        for history in [&[&v2, &v3][..], &[&v2, &v3, &v2]] {
            let is_lost = Arc::new(AtomicBool::new(false));
            let lost = Arc::clone(&is_lost);
            let script = move |action: &Action| match action {
                Action::AwaitContainer { .. } if lost.load(Ordering::Relaxed) => Some("it is unhealthy".to_owned()),
                _ => None,
            };
            let fake = Fake::failing(first.clone(), script).taking_time(|_| true);
            let text = Mutex::new(String::new());
            let load = edited(&text);
            let mut rounds = rounds(&fake, &load);
            for version in history {
                *text.lock().unwrap() = (*version).clone();
                let outcome = rounds.run(Wake::Manifest, &AtomicBool::new(false));
                assert!(matches!(outcome, Outcome::Waiting { .. }), "{order}: {outcome}");
            }
            is_lost.store(true, Ordering::Relaxed);
            assert!(matches!(round(&mut rounds), Outcome::Degraded { .. }));
            let outcome = round(&mut rounds);
            assert!(matches!(outcome, Outcome::HeldBack { .. }), "{order}: {outcome}");
            let web = only(&fake);
            assert!(worlds::is_up(&web));
            let wanted = first.containers.values().next().unwrap();
            assert_eq!((&web.record.spec, &web.record.before), (&wanted.record.spec, &None), "{order}");
        }
    }
}

#[test]
fn what_is_in_the_way_of_a_way_back_is_no_proof() {
    let v1 = SERVES.replace("dns", "ports = { 8080 = 80 }\ndns");
    let v2 = v1.replace("8080", "9090").replace("9.9.9.9", "9.9.9.10");
    let taken = format!("{v2}[containers.other]\nimage = \"nginx:1.27\"\nports = {{ 8080 = 80 }}\n");
    let stopped = v2.replace("dns", "state = \"stopped\"\ndns");
    let first = worlds::applied(&worlds::host(), &worlds::planned(&declared(&v1), &worlds::host(), 1));
    let was = first.containers.values().next().unwrap().record.spec.clone();
    for meanwhile in [&taken, &stopped] {
        let is_lost = Arc::new(AtomicBool::new(false));
        let lost = Arc::clone(&is_lost);
        let script = move |action: &Action| match action {
            Action::AwaitContainer { .. } if lost.load(Ordering::Relaxed) => Some("it is unhealthy".to_owned()),
            _ => None,
        };
        let fake = Fake::failing(first.clone(), script).taking_time(|_| true);
        let web = || fake.actual().containers.into_values().find(|c| c.record.instance.to_string() == "web").unwrap();
        let text = Mutex::new(String::new());
        let load = edited(&text);
        let mut rounds = rounds(&fake, &load);
        for version in [&v2, meanwhile, &v2] {
            *text.lock().unwrap() = version.clone();
            let outcome = rounds.run(Wake::Manifest, &AtomicBool::new(false));
            assert_eq!(web().record.before.as_deref(), Some(&was), "{outcome}\n{version}");
        }
        is_lost.store(true, Ordering::Relaxed);
        assert!(matches!(round(&mut rounds), Outcome::Degraded { .. }));
        assert_eq!((web().record.spec, web().record.before), (was.clone(), None));
    }
}

/// The steps of a plan that are as `is_wanted` says.
fn find(plan: &Plan, is_wanted: impl Fn(&Step) -> bool) -> Vec<StepId> {
    let steps = plan.steps.iter().enumerate().filter(|(_, step)| is_wanted(step));
    steps.map(|(id, _)| id).collect()
}

/// A host on which an update in place that moves a port waits for its verdict.
fn on_trial(text: &str) -> Actual {
    let v1 = text.replace("9090", "8080").replace("9.9.9.10", "9.9.9.9");
    let first = worlds::applied(&worlds::host(), &worlds::planned(&declared(&v1), &worlds::host(), 1));
    let fake = Fake::new(first).taking_time(|_| true);
    let load = || Ok(declared(text));
    assert!(matches!(round(&mut rounds(&fake, &load)), Outcome::Waiting { .. }));
    fake.actual()
}

const ON_TRIAL: &str = r#"
    project = "shop"
    [containers.web]
    image = "nginx:1.27"
    dns = ["9.9.9.10"]
    ports = { 9090 = 80 }
    update = { monitor = "1h" }
"#;

/// The verdict is on what is declared now, and that the update is accepted is the last word on it.
#[test]
fn what_is_changed_on_trial_is_judged_as_changed() {
    let changed = ON_TRIAL.replace("dns", "resources = { memory = \"64MiB\" }\ndns");
    let plan = worlds::planned(&declared(&changed), &on_trial(ON_TRIAL), 2);
    let update = |is_accepted: bool| {
        let is_wanted = |step: &Step| matches!(&step.action, Action::UpdateContainer { record } if record.before.is_none() == is_accepted);
        find(&plan, is_wanted)
    };
    let waits = find(&plan, |step| matches!(step.action, Action::AwaitContainer { .. }));
    let (change, accepts) = (update(false), update(true));
    assert_eq!((change.len(), waits.len(), accepts.len()), (1, 1, 1), "{}", worlds::told(&plan));
    assert!(plan.steps[waits[0]].after.contains(&change[0]), "{}", worlds::told(&plan));
    assert!(plan.steps[accepts[0]].after.contains(&waits[0]), "{}", worlds::told(&plan));
}

#[test]
fn traffic_that_goes_back_is_the_last_that_is_set() {
    let mut actual = on_trial(ON_TRIAL);
    worlds::happen(&mut actual, &worlds::Event::DropFirewall);
    let plan = worlds::planned(&declared(ON_TRIAL), &actual, 2);
    let set = |is_rescue: bool| {
        find(&plan, |step| step.is_rescue() == is_rescue && matches!(step.action, Action::SetFirewall { .. }))
    };
    let (forward, back) = (set(false), set(true));
    assert_eq!((forward.len(), back.len()), (1, 1), "{}", worlds::told(&plan));
    assert!(plan.steps[back[0]].after.contains(&forward[0]), "{}", worlds::told(&plan));
}

#[test]
fn a_reload_asks_what_was_left_alone() {
    let (fake, asked) = (Fake::new(worlds::host()), AtomicUsize::new(0));
    let surroundings = Surroundings {
        load: &|| Ok(declared("project = \"shop\"")),
        remember: &|_| false,
        ask_again: &|| {
            asked.fetch_add(1, Ordering::Relaxed);
        },
        ..usual()
    };
    let mut rounds = Rounds::new(&fake, surroundings);
    for (wake, times) in [(Wake::Start, 0), (Wake::Reload, 1), (Wake::Timer, 1), (Wake::Manifest, 1)] {
        rounds.run(wake, &AtomicBool::new(false));
        assert_eq!(asked.load(Ordering::Relaxed), times, "{wake:?}");
    }
}

/// An `apply` that sits out a migration is no failure of anybody else.
#[test]
fn who_finds_the_lock_taken_waits_without_a_complaint() {
    let (fake, is_free) = (Fake::new(worlds::host()), AtomicBool::new(false));
    let surroundings = Surroundings {
        load: &|| Ok(declared(CHAIN)),
        remember: &|_| false,
        lock: &|_| Ok(is_free.load(Ordering::Relaxed).then(|| Box::new(()) as Box<dyn Send>)),
        ..usual()
    };
    let mut rounds = Rounds::new(&fake, surroundings);
    assert_eq!(round(&mut rounds), Outcome::Busy);
    assert_eq!((Outcome::Busy.standing(), fake.performed().len()), (Standing::Open, 0));
    is_free.store(true, Ordering::Relaxed);
    assert_eq!(round(&mut rounds), Outcome::Converged);
}

/// The port of what runs again is reachable before anybody plans again.
#[test]
fn an_update_in_place_that_goes_back_takes_its_ports_along() {
    const PUBLISHES: &str = r#"
        project = "shop"
        [containers.web]
        image = "nginx:1.27"
        dns = ["9.9.9.9"]
        ports = { 8080 = 80 }
        update = { monitor = "1s" }
    "#;
    let first = worlds::applied(&worlds::host(), &worlds::planned(&declared(PUBLISHES), &worlds::host(), 1));
    for (from, to) in [("nginx:1.27", "nginx:1.28"), ("9.9.9.9", "9.9.9.10")] {
        let desired = declared(&PUBLISHES.replace(from, to).replace("8080", "9090"));
        let plan = worlds::planned(&desired, &first, 2);
        let report = |fails: bool| {
            let fake = Fake::failing(first.clone(), move |action| {
                matches!(action, Action::AwaitContainer { .. } if fails).then(|| "it is unhealthy".to_owned())
            });
            execute(&fake, &plan, &Silent, &AtomicBool::new(false));
            fake.actual().firewall
        };
        assert_eq!(report(true), first.firewall, "{to}: {}", worlds::told(&plan));
        assert_ne!(report(false), first.firewall);
    }
}
