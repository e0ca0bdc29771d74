//! Steps and their edges, until they are a plan.
//!
//! Two kinds of edges. A *requirement* is a matter of truth: a container cannot start before it is made. A
//! *preference* is a matter of manners: dependents stop before what they depend on. Both are edges of the plan in the
//! end, but a preference that would close a circle is dropped. The requirements have no circle by construction; see
//! `order`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Mark, Step};
use crate::model::action::Action;

/// A step that is being put in order. Its number is its place in the order of insertion, which is the order of
/// execution wherever edges leave the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node(usize);

#[derive(Default)]
pub(super) struct Graph {
    steps: Vec<Step>,
    preferences: Vec<(Node, Node)>,
}

impl Graph {
    pub fn add(&mut self, action: Action, subject: String, mark: Mark, reason: String) -> Node {
        let (changes, after, on_failure_of) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        self.steps.push(Step { action, subject, mark, reason, changes, after, on_failure_of });
        Node(self.steps.len() - 1)
    }

    pub fn all(&self) -> impl Iterator<Item = (Node, &Step)> {
        self.steps.iter().enumerate().map(|(at, step)| (Node(at), step))
    }

    pub fn step(&mut self, node: Node) -> &mut Step {
        &mut self.steps[node.0]
    }

    /// `later` waits for each of `earlier`.
    pub fn require(&mut self, later: Node, earlier: impl IntoIterator<Item = Node>) {
        self.steps[later.0].after.extend(earlier.into_iter().map(|node| node.0).filter(|n| *n != later.0));
    }

    /// `step` is done only when one of `triggers` failed.
    pub fn rescue(&mut self, step: Node, triggers: impl IntoIterator<Item = Node>) {
        self.steps[step.0].on_failure_of.extend(triggers.into_iter().map(|node| node.0));
    }

    /// `later` waits for each of `earlier`, unless that closes a circle with the requirements and the preferences that
    /// were stated before.
    pub fn prefer(&mut self, later: Node, earlier: impl IntoIterator<Item = Node>) {
        self.preferences.extend(earlier.into_iter().filter(|node| *node != later).map(|earlier| (later, earlier)));
    }

    /// The steps, renumbered so that every step comes behind those that it waits for.
    pub fn finish(mut self) -> Vec<Step> {
        for (later, earlier) in std::mem::take(&mut self.preferences) {
            if !self.waits_for(earlier.0, later.0) {
                self.steps[later.0].after.insert(earlier.0);
            }
        }
        let order = self.order();
        let place: BTreeMap<usize, usize> = order.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        let mut steps: Vec<Option<Step>> = self.steps.into_iter().map(Some).collect();
        let take = |old: &usize| steps[*old].take();
        let renumbered = |steps: &BTreeSet<usize>| steps.iter().filter_map(|old| place.get(old).copied()).collect();
        let ordered = order.iter().filter_map(take).map(|step| Step {
            after: renumbered(&step.after),
            on_failure_of: renumbered(&step.on_failure_of),
            ..step
        });
        ordered.collect()
    }

    /// Whether `step` waits, directly or not, for `target`.
    fn waits_for(&self, step: usize, target: usize) -> bool {
        let (mut open, mut seen) = (vec![step], BTreeSet::from([step]));
        while let Some(at) = open.pop() {
            if at == target {
                return true;
            }
            open.extend(self.steps[at].after.iter().copied().filter(|before| seen.insert(*before)));
        }
        false
    }

    /// Kahn's algorithm; of the steps that are free, the one that was added first.
    fn order(&self) -> Vec<usize> {
        let before = |step: &Step| step.after.union(&step.on_failure_of).copied().collect::<Vec<_>>();
        let mut open: Vec<usize> = self.steps.iter().map(|step| before(step).len()).collect();
        let mut followers: Vec<Vec<usize>> = vec![Vec::new(); self.steps.len()];
        for (later, step) in self.steps.iter().enumerate() {
            before(step).into_iter().for_each(|earlier| followers[earlier].push(later));
        }
        let mut free: BTreeSet<usize> = (0..self.steps.len()).filter(|step| open[*step] == 0).collect();
        let mut order = Vec::with_capacity(self.steps.len());
        while let Some(step) = free.pop_first() {
            order.push(step);
            for later in &followers[step] {
                open[*later] -= 1;
                if open[*later] == 0 {
                    free.insert(*later);
                }
            }
        }
        assert_eq!(order.len(), self.steps.len(), "the requirements of a plan have no circle");
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::ContainerId;

    fn graph(names: &[&str]) -> (Graph, Vec<Node>) {
        let mut graph = Graph::default();
        let id: ContainerId = "0123456789ab".parse().unwrap();
        let action = || Action::StopContainer { id: id.clone() };
        let nodes = names.iter().map(|n| graph.add(action(), (*n).to_owned(), Mark::Run, String::new())).collect();
        (graph, nodes)
    }

    fn subjects(steps: &[Step]) -> Vec<&str> {
        steps.iter().map(|step| step.subject.as_str()).collect()
    }

    #[test]
    fn steps_come_behind_what_they_wait_for_and_else_as_they_were_added() {
        let (mut graph, n) = graph(&["a", "b", "c"]);
        graph.require(n[0], [n[2]]);
        let steps = graph.finish();
        assert_eq!(subjects(&steps), ["b", "c", "a"]);
        assert_eq!(steps[2].after, BTreeSet::from([1]));
    }

    #[test]
    fn a_preference_gives_way_to_a_requirement() {
        let (mut graph, n) = graph(&["a", "b", "c"]);
        graph.prefer(n[0], [n[2]]);
        graph.prefer(n[2], [n[1]]);
        graph.require(n[1], [n[0]]);
        assert_eq!(subjects(&graph.finish()), ["c", "a", "b"]);
    }
}
