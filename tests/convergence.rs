//! Properties of the planner over generated worlds: hosts with two projects and a history of applies, cut short or not,
//! and of accidents.

mod worlds;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel::engine::fake::Fake;
use evenkeel::model::action::Action;
use evenkeel::model::actual::{Actual, ActualContainer, Liveness};
use evenkeel::model::container::{ContainerSpec, RunState};
use evenkeel::model::desired::Desired;
use evenkeel::model::id::{ContainerId, Ids, NetworkId, ResourceName, VolumeKey, Whose};
use evenkeel::model::names::NameTable;
use evenkeel::model::network::NetworkMode;
use evenkeel::model::orphan::Orphan;
use evenkeel::model::record::Refused;
use evenkeel::model::status::Phase;
use evenkeel::model::units::Timespan;
use evenkeel::plan::{Plan, Policy, Step, plan};
use evenkeel::reconcile::execute::{Before, Silent, advance};
use evenkeel::reconcile::fetch::{Fetched, Fetches};
use evenkeel::reconcile::report::StepOutcome;
use evenkeel::reconcile::waits::Waits;
use proptest::prelude::*;
use worlds::{
    BY_HAND, Event, Project, applied, desired, event, execute, firewall, happen, host, planned, planned_by_hand,
    project, told, tried, watched,
};

/// One chapter of a host's history: an apply, of which only some steps are done, and then an accident.
#[derive(Debug, Clone)]
struct Chapter {
    project: Project,
    done: u64,
    /// Which new containers do not get ready.
    fails: u64,
    event: Option<Event>,
}

fn chapter() -> impl Strategy<Value = Chapter> {
    let project = prop_oneof![3 => project("shop"), 1 => project("blog"), 2 => project(BY_HAND)];
    // All of it, or every step with a chance of seven in eight.
    let done = prop_oneof![Just(u64::MAX), (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(a, b, c)| a | b | c)];
    let fails = prop_oneof![2 => Just(0), 1 => any::<u64>()];
    (project, done, fails, prop::option::of(event())).prop_map(|(project, done, fails, event)| Chapter {
        project,
        done,
        fails,
        event,
    })
}

/// A host with a history, and what the project `shop` should be next: something else altogether, or what it was with
/// another container at one place or none.
fn world() -> impl Strategy<Value = (Actual, Desired)> {
    let next = (project("shop"), prop_oneof![2 => Just(None), 3 => (0..8usize).prop_map(Some)]);
    (prop::collection::vec(chapter(), 0..4), next).prop_map(|(chapters, (mut next, differs))| {
        let mut actual = host();
        for (seed, chapter) in (100..).step_by(10).zip(&chapters) {
            let plans = match chapter.project.name {
                // One after another, as somebody at a shell would.
                BY_HAND => 0..chapter.project.containers.len(),
                _ => 0..1,
            };
            for at in plans {
                let plan = match chapter.project.name {
                    BY_HAND => planned_by_hand(&chapter.project, &actual, at, seed + at as u64),
                    _ => Some(planned(&desired(&chapter.project), &actual, seed)),
                };
                if let Some(plan) = plan.filter(|plan| plan.refusals.is_empty()) {
                    actual = match chapter.fails {
                        0 => some(&actual, &plan, chapter.done),
                        fails => tried(&actual, &plan, fails).0,
                    };
                }
            }
            chapter.event.iter().for_each(|event| happen(&mut actual, event));
        }
        let last = chapters.iter().rev().map(|chapter| &chapter.project).find(|project| project.name == "shop");
        if let (Some(at), Some(last)) = (differs, last) {
            let other = next.containers.get(at).cloned();
            next = last.clone();
            next.containers.iter_mut().skip(at).take(1).zip(other).for_each(|(container, other)| *container = other);
        }
        (actual, desired(&next))
    })
}

/// The host after those steps that the bits of `done` name.
fn some(actual: &Actual, plan: &Plan, done: u64) -> Actual {
    execute(actual, plan, |id| done >> (id % 64) & 1 == 1, |_| 0)
}

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(128);
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
        let lack = reached(&after, &desired).err();
        prop_assert!(lack.is_none(), "{lack:?}\n{}", told(&plan));

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
        let after = applied(&cut, &second);
        let third = planned(&desired, &after, 3);
        prop_assert!(third.is_empty(), "first\n{}then\n{}last\n{}", told(&plan), told(&second), told(&third));
        let lack = reached(&after, &desired).err();
        prop_assert!(lack.is_none(), "{lack:?}\nfirst\n{}then\n{}", told(&plan), told(&second));
    }

    #[test]
    fn every_prefix_of_a_plan_converges((actual, desired) in world()) {
        let plan = planned(&desired, &actual, 1);
        prop_assume!(plan.refusals.is_empty());
        let mut now = actual;
        for step in plan.steps.iter().filter(|step| !step.is_rescue()) {
            now = now.after(&step.action).unwrap();
            let second = planned(&desired, &now, 2);
            let after = applied(&now, &second);
            let lack = reached(&after, &desired).err();
            prop_assert!(lack.is_none(), "{lack:?}\nfirst\n{}then\n{}", told(&plan), told(&second));
            let third = planned(&desired, &after, 3);
            prop_assert!(third.is_empty(), "first\n{}then\n{}last\n{}", told(&plan), told(&second), told(&third));
        }
    }

    #[test]
    fn an_update_that_fails_goes_back_and_is_not_tried_again_by_itself((actual, desired) in world(), fails in any::<u64>()) {
        let plan = planned(&desired, &actual, 1);
        prop_assume!(plan.refusals.is_empty());
        let (after, report) = tried(&actual, &plan, fails);
        let rolled_back: Vec<_> = report.rolled_back(&plan).map(|step| &step.action).collect();
        for action in &rolled_back {
            let Action::RefuseUpdate { record: ran, failed, .. } = action else { unreachable!() };
            let old = &after.containers[&ran.id];
            let refused = old.record.refused.as_ref().map(|refused| refused.reason.as_str());
            prop_assert!(matches!(refused, Some("it is unhealthy" | "no such command")), "{refused:?}\n{}", told(&plan));
            prop_assert!(is_as_before(&old.record.spec, &actual.containers[&ran.id]), "it is what it was\n{}", told(&plan));
            prop_assert!(matches!(old.liveness, Liveness::Monitored(_)), "it runs again\n{}", told(&plan));
            prop_assert!(*failed == ran.id || !after.containers.contains_key(failed));
        }
        let rest = watched(&desired, &after, 2);
        if rest.refusals.is_empty() {
            let calm = applied(&after, &rest);
            for action in rolled_back {
                let Action::RefuseUpdate { record: ran, .. } = action else { unreachable!() };
                let kept = calm.containers.get(&ran.id).map(|container| &container.record);
                let mut wanted = after.containers[&ran.id].record.clone();
                // Gone back to the very thing that was refused (its image had been missing): it is as declared, and
                // nothing is left to remember.
                let is_itself = |refused: &Refused| (&refused.spec, &refused.image) == (&wanted.spec, &wanted.image);
                if wanted.refused.as_deref().is_some_and(is_itself) {
                    wanted.refused = None;
                }
                prop_assert_eq!(kept, Some(&wanted), "first\n{}then\n{}", told(&plan), told(&rest));
            }
            let next = watched(&desired, &calm, 3);
            prop_assert!(next.is_empty(), "first\n{}then\n{}last\n{}", told(&plan), told(&rest), told(&next));
        }
        let again = planned(&desired, &after, 4);
        prop_assert!(again.refusals.is_empty(), "first\n{}then\n{}", told(&plan), told(&again));
        let lack = reached(&applied(&after, &again), &desired).err();
        prop_assert!(lack.is_none(), "{lack:?}\nfirst\n{}then\n{}", told(&plan), told(&again));
    }

    #[test]
    fn rounds_that_leave_every_wait_get_there_too((actual, desired) in world()) {
        prop_assume!(planned(&desired, &actual, 1).refusals.is_empty());
        let looks = Mutex::new(BTreeMap::<String, u32>::new());
        let is_open = move |action: &Action| {
            let mut looks = looks.lock().unwrap();
            let looked = looks.entry(format!("{action:?}")).or_default();
            *looked += 1;
            *looked < 3
        };
        let (fake, waits) = (Fake::new(actual).taking_time(is_open), Waits::lingering(Duration::ZERO));
        let before = Before { waits: &waits, fetched: &Default::default() };
        let mut history = String::new();
        for round in 0..60 {
            let plan = planned(&desired, &fake.actual(), round);
            history += &told(&plan);
            if plan.is_empty() {
                break;
            }
            let report = advance(&fake, &plan, before, &Silent, &AtomicBool::new(false));
            let failed = report.outcomes.iter().find(|outcome| matches!(outcome, StepOutcome::Failed { .. }));
            prop_assert!(failed.is_none(), "{failed:?}\n{history}");
        }
        let lack = reached(&fake.actual(), &desired).err();
        prop_assert!(lack.is_none(), "{lack:?}\n{history}");
    }

    #[test]
    fn an_update_whose_verdict_comes_rounds_later_goes_back((actual, desired) in world(), fails in any::<u64>()) {
        prop_assume!(watched(&desired, &actual, 1).refusals.is_empty());
        let looks = Arc::new(Mutex::new(BTreeMap::<ContainerId, u32>::new()));
        let (new, seen) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::clone(&looks));
        let touched = Arc::clone(&new);
        let script = move |action: &Action| match action {
            Action::AwaitContainer { id, .. } => {
                let is_late = seen.lock().unwrap().get(id).is_some_and(|looks| *looks >= 2);
                let number = id.to_string().bytes().fold(0u64, |sum, byte| sum * 31 + u64::from(byte));
                let is_bad = touched.lock().unwrap().contains(id) && fails >> (number % 64) & 1 == 1;
                (is_late && is_bad).then(|| "it is unhealthy".to_owned())
            }
            Action::CreateContainer { record } | Action::UpdateContainer { record } => {
                touched.lock().unwrap().insert(record.id.clone());
                None
            }
            Action::RefuseUpdate { record, .. } => {
                touched.lock().unwrap().remove(&record.id);
                None
            }
            _ => None,
        };
        let is_open = move |action: &Action| {
            let Action::AwaitContainer { id, .. } = action else { return false };
            let mut looks = looks.lock().unwrap();
            let looked = looks.entry(id.clone()).or_default();
            *looked += 1;
            *looked <= 2
        };
        let before = actual.containers.clone();
        let (fake, waits) = (Fake::failing(actual, script).taking_time(is_open), Waits::lingering(Duration::ZERO));
        let beforehand = Before { waits: &waits, fetched: &Default::default() };
        let mut history = String::new();
        for round in 0..12 {
            let plan = watched(&desired, &fake.actual(), round);
            history += &told(&plan);
            let report = advance(&fake, &plan, beforehand, &Silent, &AtomicBool::new(false));
            for outcome in &report.outcomes {
                if let StepOutcome::Failed { causes, .. } = outcome {
                    prop_assert_eq!(causes, &["it is unhealthy".to_owned()], "{}", history);
                }
            }
        }
        let after = fake.actual().containers;
        let mut refused = BTreeSet::new();
        for action in fake.performed() {
            let Action::RefuseUpdate { record, .. } = action else { continue };
            prop_assert!(refused.insert(record.id.clone()), "{} is refused twice\n{history}", record.instance);
            let Some(container) = after.get(&record.id) else { continue };
            prop_assert_eq!(&container.record.before, &None, "{}", history);
            if let Some(old) = before.get(&record.id).filter(|_| container.record.refused.is_some()) {
                prop_assert!(is_as_before(&container.record.spec, old), "it is what it was\n{}", history);
            }
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
    fn what_is_taken_down_leaves_its_data_alone((actual, desired) in world()) {
        let up = planned(&desired, &actual, 1);
        let up = if up.refusals.is_empty() { applied(&actual, &up) } else { actual };
        let nothing = Desired::empty(desired.project.clone());
        let down = planned(&nothing, &up, 2);
        prop_assert_eq!(&down.refusals, &[]);
        let after = applied(&up, &down);
        let is_own = |project: &Whose| *project == desired.project;
        prop_assert!(!after.containers.values().any(|c| is_own(&c.record.project)), "{}", told(&down));
        prop_assert!(!after.networks.values().any(|n| is_own(&n.record.project)), "{}", told(&down));
        prop_assert_eq!(&after.volumes, &up.volumes);
        prop_assert_eq!(after.firewall.as_ref(), Some(&firewall(&after)));
        let again = planned(&nothing, &after, 3);
        prop_assert!(again.is_empty(), "{}", told(&again));
    }

    /// `apply` fetches first, without the lock, and then plans for the host as it would be without.
    #[test]
    fn a_fetch_before_a_plan_changes_nothing_of_it((actual, desired) in world()) {
        let plan = planned(&desired, &actual, 1);
        if let Some(fetches) = Fetches::of(&plan, &Fetched::default()) {
            let after = applied(&actual, &fetches.part);
            let again = planned(&desired, &fetches.undone(after.clone(), &actual), 1);
            prop_assert_eq!(told(&plan), told(&again));
            prop_assert_eq!(&plan, &again);
            if plan.refusals.is_empty() {
                let rest = (0..plan.steps.len()).filter(|id| !plan.steps[*id].is_rescue());
                let rest = rest.filter(|id| !fetches.part.steps.iter().any(|f| f.action == plan.steps[*id].action));
                let mut now = after;
                for id in rest {
                    now = now.after(&plan.steps[id].action).map_err(|unmet| TestCaseError::fail(unmet.to_string()))?;
                }
                prop_assert_eq!(reached(&now, &desired), Ok(()));
            }
        }
    }

    #[test]
    fn nothing_of_another_project_is_touched((actual, desired) in world()) {
        let plan = planned(&desired, &actual, 1);
        prop_assume!(plan.refusals.is_empty());
        let after = applied(&actual, &plan);
        let foreign = |actual: &Actual| {
            let other = |owner: &Whose| *owner != desired.project;
            let containers: Vec<_> = actual.containers.values().filter(|c| other(&c.record.project)).cloned().collect();
            let networks: Vec<_> = actual.networks.values().filter(|n| other(&n.record.project)).cloned().collect();
            let volumes: Vec<_> = actual.volumes.values().filter(|v| other(&v.record.key.project)).cloned().collect();
            let orphans = actual.orphans.iter().filter(|o| o.project().is_some_and(|owner| desired.project != *owner));
            (containers, networks, volumes, orphans.cloned().collect::<Vec<_>>())
        };
        prop_assert_eq!(foreign(&actual), foreign(&after));
        prop_assert_eq!(after.firewall.clone().unwrap_or_default(), firewall(&after));
    }

    #[test]
    fn what_is_run_by_hand_touches_nothing_else((actual, _) in world(), by_hand in project(BY_HAND), at in 0..5usize) {
        let plan = planned_by_hand(&by_hand, &actual, at, 1);
        prop_assume!(plan.as_ref().is_some_and(|plan| plan.refusals.is_empty()));
        let plan = plan.unwrap();
        let after = applied(&actual, &plan);
        let target = desired(&by_hand).containers.keys().nth(at).unwrap().clone();
        let needed = needed(&desired(&by_hand), BTreeSet::from([target]));
        let others = |actual: &Actual| {
            let is_other = |c: &&ActualContainer| c.record.project != Whose::Nobody || !needed.contains(&c.record.instance.container);
            actual.containers.values().filter(is_other).map(|c| (c.record.clone(), c.liveness.clone())).collect::<Vec<_>>()
        };
        prop_assert_eq!(others(&actual), others(&after), "{}", told(&plan));
        let declared = |actual: &Actual| actual.networks.values().filter(|n| n.record.project != Whose::Nobody).map(|n| (n.record.clone(), n.drift.clone(), n.names.clone())).collect::<Vec<_>>();
        prop_assert_eq!(declared(&actual), declared(&after));
        prop_assert_eq!(actual.volumes.keys().all(|key| after.volumes.contains_key(key)), true);
        // What ended by itself keeps its port until somebody plans again.
        let has_ended = |step: &Step| match &step.action {
            Action::StartContainer { id } => {
                !after.containers.get(id).is_some_and(|c| matches!(c.liveness, Liveness::Monitored(_)))
            }
            _ => false,
        };
        if !plan.steps.iter().any(has_ended) {
            prop_assert_eq!(after.firewall.clone().unwrap_or_default(), firewall(&after));
        }
    }

    #[test]
    fn a_target_is_reached_and_nothing_else_is_touched((actual, desired) in world(), target in any::<prop::sample::Index>()) {
        prop_assume!(!desired.containers.is_empty());
        let names: Vec<ResourceName> = desired.containers.keys().cloned().collect();
        let targets = BTreeSet::from([names[target.index(names.len())].clone()]);
        let policy = Policy { targets: targets.clone(), ..Policy::default() };
        let narrow = |actual: &Actual, seed| plan(&desired, actual, &policy, &mut Ids::from_seed(seed));
        let first = narrow(&actual, 1);
        prop_assume!(first.refusals.is_empty());
        let after = applied(&actual, &first);
        let next = narrow(&after, 2);
        prop_assert!(next.is_empty(), "first\n{}then\n{}", told(&first), told(&next));
        let needed = needed(&desired, targets);
        let others = |actual: &Actual| {
            let is_other = |c: &ActualContainer| !needed.contains(&c.record.instance.container);
            actual.containers.values().filter(|c| is_other(c)).map(|c| (c.record.clone(), c.liveness.clone())).collect::<Vec<_>>()
        };
        prop_assert_eq!(others(&actual), others(&after));
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
        // What is done should an update fail that is under way yet is another matter.
        let regular = plan.steps.iter().filter(|step| !step.is_rescue());
        let touched: BTreeSet<&ContainerId> = regular.filter_map(|step| named(&step.action)).collect();
        for (id, before) in &actual.containers {
            let runs = matches!(&before.liveness, Liveness::Monitored(status) if status.phase == Phase::Running);
            let is_same = after.containers.get(id).is_some_and(|after| after == before);
            let on_changed = before.record.addresses.keys().any(|network| changed.contains(network));
            prop_assert!(!(runs && is_same && !on_changed && touched.contains(id)), "{id}\n{}", told(&plan));
        }
    }
}

/// Whether `spec` is the last one that `old` has proven itself with.
fn is_as_before(spec: &ContainerSpec, old: &ActualContainer) -> bool {
    let has_its_time = || old.record.spec.update.monitor == Timespan::ZERO;
    match old.record.before.as_deref() {
        Some(before) => spec == before || (*spec == old.record.spec && has_its_time()),
        None => *spec == old.record.spec,
    }
}

/// Whether a host is what a project declares, without asking the planner.
fn reached(actual: &Actual, desired: &Desired) -> Result<(), String> {
    let networks: Vec<_> = actual.networks.values().filter(|n| n.record.project == desired.project).collect();
    let specs: Vec<_> = networks.iter().map(|n| (n.record.name.clone(), n.record.spec.clone())).collect();
    let declared: Vec<_> = desired.networks.iter().map(|(name, spec)| (name.clone(), spec.clone())).collect();
    equal("networks", BTreeMap::from_iter(specs.clone()), BTreeMap::from_iter(declared))?;
    equal("one record for each network", specs.len(), desired.networks.len())?;
    for (name, spec) in &desired.volumes {
        let key = VolumeKey { project: desired.project.clone(), name: name.clone() };
        equal("volume", actual.volumes.get(&key).map(|v| &v.record.spec), Some(spec))?;
    }
    let on = |network: &NetworkId| actual.containers.values().any(|c| c.record.addresses.contains_key(network));
    let remains = actual.orphans.iter().find(|orphan| match orphan {
        Orphan::Bridge { network } => !on(network),
        other => other.project().is_none_or(|project| desired.project == *project),
    });
    equal("orphan", remains, None)?;
    let own: Vec<_> = actual.containers.values().filter(|c| c.record.project == desired.project).collect();
    let replicas: usize = desired.containers.values().map(|container| container.replicas as usize).sum();
    equal("one record for each instance", own.len(), replicas)?;
    for container in own {
        let instance = &container.record.instance;
        let declared = desired.containers.get(&instance.container).ok_or(format!("{instance} is not declared"))?;
        equal("spec", &container.record.spec, &declared.spec)?;
        equal("a refused update", container.record.refused.as_ref(), None)?;
        equal("an update without its verdict", container.record.before.as_ref(), None)?;
        equal("drift", container.network_drift.len(), 0)?;
        equal("damage", container.broken.as_ref(), None)?;
        let image = actual.images.get(&declared.spec.image).and_then(|known| known.image.as_ref());
        if let Some(image) = image {
            equal("image", container.record.image.as_ref(), Some(&image.id))?;
        }
        let limits = container.limits.as_ref().unwrap_or(&declared.spec.resources);
        equal("limits", limits, &declared.spec.resources)?;
        let stands_by_itself = match &container.liveness {
            Liveness::Absent | Liveness::Lost(_) => false,
            Liveness::Monitored(_) => true,
            Liveness::Ended(status) => status.phase == Phase::Exited,
        };
        match declared.spec.state {
            RunState::Running => equal("runs or is done", stands_by_itself, true)?,
            RunState::Stopped => equal("runs", matches!(container.liveness, Liveness::Monitored(_)), false)?,
        }
        let attached: BTreeSet<_> = match &declared.spec.network {
            NetworkMode::Networks(attachments) => attachments.keys().collect(),
            _ => BTreeSet::new(),
        };
        let on = networks.iter().filter(|n| container.record.addresses.contains_key(&n.record.id));
        equal("on its networks", on.map(|n| &n.record.name).collect(), attached)?;
    }
    equal("firewall", actual.firewall.clone().unwrap_or_default(), firewall(actual))?;
    let running = || actual.containers.values().map(|c| &c.record).filter(|r| r.spec.state == RunState::Running);
    networks.iter().try_for_each(|network| {
        equal("names", &network.names, &NameTable::of(&network.record.id, network.record.name.as_str(), running()))
    })
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Result<(), String> {
    match found == wanted {
        true => Ok(()),
        false => Err(format!("{what}: {found:?} instead of {wanted:?}")),
    }
}

/// The targets and everything that they need.
fn needed(desired: &Desired, targets: BTreeSet<ResourceName>) -> BTreeSet<ResourceName> {
    let mut needed = targets;
    loop {
        let specs = needed.iter().filter_map(|name| desired.containers.get(name)).map(|container| &container.spec);
        let shared = |spec: &ContainerSpec| match &spec.network {
            NetworkMode::Container(owner) => Some(owner.clone()),
            _ => None,
        };
        let more: BTreeSet<ResourceName> =
            specs.flat_map(|spec| spec.depends_on.keys().cloned().chain(shared(spec))).collect();
        if more.is_subset(&needed) {
            return needed;
        }
        needed.extend(more);
    }
}

/// The container that an action changes.
fn named(action: &Action) -> Option<&ContainerId> {
    match action {
        Action::CreateContainer { record }
        | Action::UpdateContainer { record }
        | Action::RefuseUpdate { record, .. } => Some(&record.id),
        Action::ConnectContainer { id }
        | Action::DisconnectContainer { id }
        | Action::ResumeContainer { id }
        | Action::StartContainer { id }
        | Action::StopContainer { id }
        | Action::RemoveContainer { id } => Some(id),
        Action::FetchImage { .. }
        | Action::RestoreImage { .. }
        | Action::EnsureVolume { .. }
        | Action::RemoveVolume { .. }
        | Action::EnsureNetwork { .. }
        | Action::RemoveNetwork { .. }
        | Action::RemoveOrphan { .. }
        | Action::SetFirewall { .. }
        | Action::SetNames { .. }
        | Action::AwaitContainer { .. } => None,
    }
}
