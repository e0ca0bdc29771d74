//! Executing plans against the model of a host: what goes on, what is skipped, what is not begun.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use evenkeel::engine::fake::Fake;
use evenkeel::model::action::Action;
use evenkeel::model::actual::Actual;
use evenkeel::model::image::ImageSource;
use evenkeel::plan::{Mark, Plan, Step, StepId};
use evenkeel::reconcile::execute::{Observer, Silent, execute};
use evenkeel::reconcile::report::StepOutcome;

/// A plan that fetches images, each after those that its pair names.
fn plan(steps: &[(&str, &[StepId])]) -> Plan {
    let step = |(name, after): &(&str, &[StepId])| Step {
        action: Action::FetchImage { source: ImageSource::Reference((*name).to_owned()) },
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
        Action::FetchImage { source: ImageSource::Reference(reference) } if reference == name => {
            Some("no route".to_owned())
        }
        _ => None,
    })
}

fn fetched(fake: &Fake) -> BTreeSet<String> {
    let name = |action: Action| match action {
        Action::FetchImage { source } => source.to_string(),
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
