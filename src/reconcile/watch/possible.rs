//! What may be done of a manifest that something speaks against: as many of its containers as possible, each with what it
//! needs. A port that another process holds keeps one container down, not the rest.
//!
//! # Decisions
//! Which containers a refusal is about is not always said: a network's subnet or its record, a volume. So it is found out
//! by planning, first for all that no refusal names, and where that is refused, too, by halves. Of three hundred
//! containers one that is named costs three plans, one that is not some twenty, eight that are not some ninety. Where nearly
//! everything is refused it ends after as many plans as there are containers and [`FURTHER_PLANS`], with what was possible by
//! then; the lock is held meanwhile, and a plan of hundreds of containers takes milliseconds.

use std::collections::BTreeSet;

use crate::engine::Engine;
use crate::model::desired::Desired;
use crate::model::id::{Ids, ResourceName};
use crate::plan::{Plan, Policy, Refusal, plan};
use crate::reconcile::converge::scope;

const FURTHER_PLANS: usize = 64;

/// The plan for all of `desired`, or for as much of it as nothing speaks against. It may be empty.
pub(super) fn plan_what_may_be<E: Engine>(
    engine: &E,
    desired: &Desired,
    policy: &Policy,
    ids: &mut Ids,
) -> Result<Plan, E::Error> {
    let actual = engine.observe(&scope(desired))?;
    let attempt = |targets: BTreeSet<ResourceName>| {
        let policy = Policy { targets, ..policy.clone() };
        plan(desired, &actual, &policy, &mut ids.clone())
    };
    let whole = attempt(BTreeSet::new());
    if whole.refusals.is_empty() {
        return Ok(whole);
    }
    let names = desired.containers.keys().cloned();
    let (named, others): (Vec<_>, Vec<_>) = names.partition(|name| is_named(name, &whole.refusals));
    let mut best = None;
    // What is named may be only one of two that are in each other's way, so it comes last.
    let most = desired.containers.len() + FURTHER_PLANS;
    let (_, undecided) = choose(&[others, named], most, |targets| {
        let plan = attempt(targets.iter().cloned().collect());
        let is_possible = plan.refusals.is_empty();
        if is_possible {
            best = Some(plan);
        }
        is_possible
    });
    if undecided > 0 {
        tracing::warn!("so much is refused that {undecided} containers were not looked at; mend what is refused first");
    }
    Ok(best.unwrap_or_else(|| Plan::nothing(desired.project.clone())))
}

/// Whether a refusal is about this container, or a replica of it.
fn is_named(name: &ResourceName, refusals: &[Refusal]) -> bool {
    let subject = format!("container {name}");
    let rests = refusals.iter().filter_map(|refusal| refusal.subject.strip_prefix(&subject));
    rests.into_iter().any(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// As many of all `groups` as are possible together, those before first, found by at most `most` questions. The last
/// question that was answered with yes was about what comes back. The second value is how many were never decided about.
fn choose<T: Clone>(groups: &[Vec<T>], most: usize, mut is_possible: impl FnMut(&[T]) -> bool) -> (Vec<T>, usize) {
    let mut chosen: Vec<T> = Vec::new();
    let mut open: Vec<&[T]> = groups.iter().rev().map(Vec::as_slice).filter(|group| !group.is_empty()).collect();
    for _ in 0..most {
        let Some(some) = open.pop() else { break };
        let with = [&chosen, some].concat();
        if is_possible(&with) {
            chosen = with;
        } else if some.len() > 1 {
            let (first, second) = some.split_at(some.len() / 2);
            open.extend([second, first]);
        }
    }
    (chosen, open.iter().map(|group| group.len()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is chosen, what is undecided, and how often it was asked.
    fn chosen(count: usize, is_possible: impl Fn(&[usize]) -> bool) -> (Vec<usize>, usize, usize) {
        let mut asked = 0;
        let (chosen, undecided) = choose(&[(0..count).collect(), Vec::new()], count + FURTHER_PLANS, |some| {
            asked += 1;
            is_possible(some)
        });
        (chosen, undecided, asked)
    }

    #[test]
    fn all_but_what_is_in_the_way_is_found_with_few_questions() {
        let (most, undecided, asked) = chosen(300, |some| !some.contains(&77));
        assert_eq!(most, (0..300).filter(|it| *it != 77).collect::<Vec<_>>());
        assert!(undecided == 0 && asked <= 20, "{asked}");
        // Scattered over all of them.
        let (most, undecided, asked) = chosen(300, |some| some.iter().all(|it| it % 37 != 5));
        assert_eq!(most, (0..300).filter(|it| it % 37 != 5).collect::<Vec<_>>());
        assert!(undecided == 0 && asked <= 110, "{asked}");
        let (most, ..) = chosen(8, |some| !(some.contains(&2) && some.contains(&5)));
        assert_eq!(most, [0, 1, 2, 3, 4, 6, 7], "of two that are in each other's way the first");
        assert_eq!(chosen(5, |_| true), ((0..5).collect(), 0, 1));
        assert_eq!(chosen(0, |_| true), (Vec::new(), 0, 0));
    }

    #[test]
    fn it_ends_where_everything_is_refused() {
        let (most, undecided, asked) = chosen(1000, |_| false);
        assert_eq!((most.len(), asked), (0, 1000 + FURTHER_PLANS));
        assert!(undecided > 0);
    }
}
