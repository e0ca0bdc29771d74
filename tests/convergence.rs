//! Properties of the planner over generated worlds: hosts with two projects and a history of applies, cut short or not,
//! and of accidents.

mod worlds;

use std::collections::BTreeSet;

use evenkeel::model::action::Action;
use evenkeel::model::actual::{Actual, Liveness};
use evenkeel::model::desired::Desired;
use evenkeel::model::id::{ContainerId, ProjectName};
use evenkeel::model::status::Phase;
use evenkeel::plan::Plan;
use proptest::prelude::*;
use worlds::{Event, Project, applied, desired, event, execute, firewall, happen, host, planned, project, told};

/// One chapter of a host's history: an apply, of which only some steps are done, and then an accident.
#[derive(Debug, Clone)]
struct Chapter {
    project: Project,
    done: u64,
    event: Option<Event>,
}

fn chapter() -> impl Strategy<Value = Chapter> {
    let project = prop_oneof![3 => project("shop"), 1 => project("blog")];
    // All of it, or every step with a chance of seven in eight.
    let done = prop_oneof![Just(u64::MAX), (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(a, b, c)| a | b | c)];
    (project, done, prop::option::of(event())).prop_map(|(project, done, event)| Chapter { project, done, event })
}

/// A host with a history, and what the project `shop` should be next.
fn world() -> impl Strategy<Value = (Actual, Desired)> {
    (prop::collection::vec(chapter(), 0..4), project("shop")).prop_map(|(chapters, next)| {
        let mut actual = host();
        for (seed, chapter) in (100..).zip(&chapters) {
            let plan = planned(&desired(&chapter.project), &actual, seed);
            if plan.refusals.is_empty() {
                actual = some(&actual, &plan, chapter.done);
            }
            chapter.event.iter().for_each(|event| happen(&mut actual, event));
        }
        (actual, desired(&next))
    })
}

/// The host after those steps that the bits of `done` name.
fn some(actual: &Actual, plan: &Plan, done: u64) -> Actual {
    execute(actual, plan, |id| done >> (id % 64) & 1 == 1, |_| 0)
}

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400);
    ProptestConfig { cases, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_plan_applied_converges((actual, desired) in world(), picks in any::<u64>()) {
        let plan = planned(&desired, &actual, 1);
        prop_assume!(plan.refusals.is_empty());
        let after = applied(&actual, &plan);
        let next = planned(&desired, &after, 2);
        prop_assert!(next.is_empty(), "first\n{}then\n{}", told(&plan), told(&next));
        prop_assert!(next.refusals.is_empty(), "{}", told(&next));

        let mut picks = picks;
        let pick = |count: usize| { picks = picks.rotate_left(7).wrapping_mul(31).wrapping_add(1); picks as usize % count };
        let otherwise = execute(&actual, &plan, |_| true, pick);
        prop_assert_eq!(after, otherwise, "the order of independent steps makes no difference");
    }

    #[test]
    fn every_part_of_a_plan_applied_converges_with_the_next((actual, desired) in world(), done in any::<u64>(), also in any::<u64>()) {
        let plan = planned(&desired, &actual, 1);
        prop_assume!(plan.refusals.is_empty());
        let cut = some(&actual, &plan, done | also);
        let second = planned(&desired, &cut, 2);
        prop_assert!(second.refusals.is_empty(), "first\n{}then\n{}", told(&plan), told(&second));
        let third = planned(&desired, &applied(&cut, &second), 3);
        prop_assert!(third.is_empty(), "first\n{}then\n{}last\n{}", told(&plan), told(&second), told(&third));
    }

    #[test]
    fn every_prefix_of_a_plan_converges((actual, desired) in world()) {
        let plan = planned(&desired, &actual, 1);
        prop_assume!(plan.refusals.is_empty());
        let mut now = actual;
        for step in &plan.steps {
            now = now.after(&step.action).unwrap();
            let second = planned(&desired, &now, 2);
            let third = planned(&desired, &applied(&now, &second), 3);
            prop_assert!(third.is_empty(), "first\n{}then\n{}last\n{}", told(&plan), told(&second), told(&third));
        }
    }

    #[test]
    fn the_same_input_gives_the_same_plan((actual, desired) in world()) {
        let plan = planned(&desired, &actual, 1);
        prop_assert_eq!(&plan, &planned(&desired, &actual, 1));
        let json = serde_json::to_string(&plan).unwrap();
        prop_assert_eq!(plan, serde_json::from_str::<Plan>(&json).unwrap());
    }

    #[test]
    fn steps_wait_only_for_steps_before_them((actual, desired) in world()) {
        for (id, step) in planned(&desired, &actual, 1).steps.iter().enumerate() {
            prop_assert!(step.after.iter().all(|before| *before < id));
        }
    }

    #[test]
    fn nothing_of_another_project_is_touched((actual, desired) in world()) {
        let plan = planned(&desired, &actual, 1);
        prop_assume!(plan.refusals.is_empty());
        let after = applied(&actual, &plan);
        let foreign = |actual: &Actual| {
            let other = |project: &ProjectName| *project != desired.project;
            let containers: Vec<_> = actual.containers.values().filter(|c| other(&c.record.project)).cloned().collect();
            let networks: Vec<_> = actual.networks.values().filter(|n| other(&n.record.project)).cloned().collect();
            let volumes: Vec<_> = actual.volumes.values().filter(|v| other(&v.record.key.project)).cloned().collect();
            (containers, networks, volumes)
        };
        prop_assert_eq!(foreign(&actual), foreign(&after));
        prop_assert_eq!(after.firewall.clone().unwrap_or_default(), firewall(&after));
    }

    #[test]
    fn no_volume_goes_without_consent((actual, desired) in world()) {
        let plan = planned(&desired, &actual, 1);
        let goes = plan.steps.iter().any(|step| matches!(step.action, Action::RemoveVolume { .. }));
        prop_assert!(!goes);
    }

    #[test]
    fn an_unchanged_container_is_never_touched((actual, desired) in world()) {
        let plan = planned(&desired, &actual, 1);
        prop_assume!(plan.refusals.is_empty());
        let after = applied(&actual, &plan);
        let changed: BTreeSet<_> = plan.steps.iter().filter_map(|step| match &step.action {
            Action::EnsureNetwork { record } => Some(record.id.clone()),
            _ => None,
        }).collect();
        let touched: BTreeSet<&ContainerId> = plan.steps.iter().filter_map(|step| named(&step.action)).collect();
        for (id, before) in &actual.containers {
            let runs = matches!(&before.liveness, Liveness::Monitored(status) if status.phase == Phase::Running);
            let is_same = after.containers.get(id).is_some_and(|after| after == before);
            let on_changed = before.record.addresses.keys().any(|network| changed.contains(network));
            prop_assert!(!(runs && is_same && !on_changed && touched.contains(id)), "{id}\n{}", told(&plan));
        }
    }
}

/// The container that an action changes.
fn named(action: &Action) -> Option<&ContainerId> {
    match action {
        Action::CreateContainer { record } | Action::UpdateContainer { record } => Some(&record.id),
        Action::ConnectContainer { id }
        | Action::StartContainer { id }
        | Action::StopContainer { id }
        | Action::RemoveContainer { id } => Some(id),
        Action::FetchImage { .. }
        | Action::EnsureVolume { .. }
        | Action::RemoveVolume { .. }
        | Action::EnsureNetwork { .. }
        | Action::RemoveNetwork { .. }
        | Action::SetFirewall { .. }
        | Action::SetNames { .. }
        | Action::AwaitContainer { .. } => None,
    }
}
