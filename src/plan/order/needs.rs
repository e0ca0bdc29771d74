//! What a container needs of others before it starts, and the steps after which that is so.

use super::{Sequence, subject};
use crate::model::action::Action;
use crate::model::container::{Condition, ContainerSpec};
use crate::model::network::NetworkMode;
use crate::model::units::Timespan;
use crate::plan::Mark;
use crate::plan::decision::Decision;
use crate::plan::graph::Node;
use crate::plan::notation::Notation;
use crate::plan::waits::timeout;

impl Sequence<'_, '_> {
    /// The steps after which everything is so that this container needs.
    pub(super) fn needs(&mut self, decision: &Decision<'_>) -> Vec<Node> {
        let spec: &ContainerSpec = decision.spec();
        let why = &decision.record.instance;
        let mut nodes = Vec::new();
        let containers = self.containers;
        for needed in &containers.declared {
            if let Some(condition) = spec.depends_on.get(needed.name()) {
                let reason = format!("{why} needs it {}", condition.notation().replace('"', ""));
                nodes.extend(self.reached(needed, *condition, &reason));
            }
            let is_owner = matches!(&spec.network, NetworkMode::Container(owner) if owner == needed.name());
            if is_owner && needed.record.instance.replica == 1 {
                nodes.extend(self.reached(needed, Condition::Started, &format!("{why} shares its network")));
            }
        }
        nodes
    }

    /// The step after which `condition` holds of this container. `None` when it holds already.
    pub(super) fn reached(&mut self, of: &Decision<'_>, condition: Condition, reason: &str) -> Option<Node> {
        let id = &of.record.id;
        if of.meets(condition) {
            return None;
        }
        let start = self.nodes.start.get(id).copied();
        if condition == Condition::Started && start.is_some() {
            return start;
        }
        if let Some(wait) = self.nodes.waits.get(&(id.clone(), condition)) {
            return Some(*wait);
        }
        let wait = self.add_wait(of, condition, Timespan::ZERO, reason);
        self.nodes.waits.insert((id.clone(), condition), wait);
        Some(wait)
    }

    pub(super) fn add_wait(&mut self, of: &Decision<'_>, condition: Condition, stays: Timespan, reason: &str) -> Node {
        let id = of.record.id.clone();
        let timeout = timeout(self.world, of.spec(), condition);
        // It is judged as it is declared, also where it is changed while it runs.
        let last = self.nodes.start.get(&id).or(self.nodes.update.get(&id)).copied();
        let action = Action::AwaitContainer { id, condition, timeout, stays };
        let wait = self.graph.add(action, subject(&of.record), Mark::Run, reason.to_owned());
        self.graph.require(wait, last);
        wait
    }
}
