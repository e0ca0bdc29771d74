//! How one container takes the place of another: one replica after the other, when the new one is proven, and back again
//! when it fails (see `fallback`).

use super::{Departure, Sequence, subject};
use crate::model::action::Action;
use crate::model::actual::ActualContainer;
use crate::model::record::ContainerRecord;
use crate::model::units::Timespan;
use crate::plan::Mark;
use crate::plan::decision::{Decision, Turnover};
use crate::plan::graph::Node;
use crate::plan::traffic::{Moment, Traffic};

/// The reason of the steps that go back.
const WAY_BACK: &str = "if the update fails: update.failure_action is `rollback`";

impl<'w, 'a> Sequence<'w, 'a> {
    /// The step after which a container has proven that it can take the place of what leaves.
    fn proven(&mut self, decision: &Decision<'_>, reason: &str) -> Option<Node> {
        match decision.spec().update.monitor {
            Timespan::ZERO => self.reached(decision, decision.ready_when, reason),
            stays => Some(self.add_wait(decision, decision.ready_when, stays, reason)),
        }
    }

    /// Replicas are replaced one after another, so that the others serve meanwhile.
    pub(super) fn link_replicas(&mut self) {
        let containers = self.containers;
        let mut before: Option<&Decision<'_>> = None;
        let is_tried = |d: &Decision<'_>| d.start.is_some() || d.kept.is_some_and(|kept| kept.liveness.is_up());
        for decision in containers.declared.iter().filter(|decision| decision.is_in_turn()) {
            if let Some(before) = before.filter(|before| before.name() == decision.name() && is_tried(before)) {
                let how = if decision.is_restarted() { "restarted" } else { "replaced" };
                let reason = format!("before {} is {how}", decision.record.instance);
                let ready = self.reached(before, before.ready_when, &reason);
                let firsts: Vec<Node> = match decision.turnover {
                    _ if decision.is_restarted() => {
                        self.nodes.stop.get(&decision.record.id).copied().into_iter().collect()
                    }
                    Turnover::SideBySide => self.nodes.start.get(&decision.record.id).copied().into_iter().collect(),
                    Turnover::InPlace | Turnover::MakeWay => {
                        let old = decision.leaving.iter().filter_map(|c| self.nodes.departures.get(&c.record.id));
                        old.map(Departure::first).collect()
                    }
                };
                let gone = before.leaving.iter().filter_map(|c| self.nodes.departures.get(&c.record.id));
                let done: Vec<Node> = gone.map(|departure| departure.remove).chain(ready).collect();
                firsts.into_iter().for_each(|first| self.graph.prefer(first, done.iter().copied()));
            }
            before = Some(decision);
        }
    }

    /// The steps for the case that an update fails. Where another container was to take its place the old one runs again
    /// before anything is remembered: a disk that is full must not keep it down. Unless it is to run as what it was before
    /// an update in place: then that is written first.
    fn add_way_back(&mut self, decision: &'w Decision<'a>, ready: Option<Node>, traffic: &Traffic) {
        let (Some(fallback), Some(record)) = (decision.fallback, decision.way_back()) else { return };
        let (new, old) = (decision.record.id.clone(), record.id.clone());
        self.add_return(decision, fallback.container);
        let refuse = Action::RefuseUpdate { record: Box::new(record), failed: new.clone(), reason: String::new() };
        let triggers: Vec<Node> = self.nodes.start.get(&new).copied().into_iter().chain(ready).collect();
        let stop = self.add_rescue(decision, Action::StopContainer { id: new.clone() }, &triggers, vec![]);
        if let Some(moment) = traffic.returns.get(&new) {
            self.add_traffic_back(moment, &triggers, stop);
        }
        if old == new {
            let refused = self.add_rescue(decision, refuse, &triggers, vec![stop]);
            self.add_rescue(decision, Action::StartContainer { id: old }, &triggers, vec![refused]);
            return;
        }
        let mut gone = vec![stop];
        if decision.turnover == Turnover::InPlace {
            let disconnect = Action::DisconnectContainer { id: new.clone() };
            gone.push(self.add_rescue(decision, disconnect, &triggers, vec![stop]));
        }
        let start = Action::StartContainer { id: old.clone() };
        let refused = match (fallback.is_otherwise(), decision.turnover) {
            (true, turnover) => {
                if turnover == Turnover::SideBySide {
                    gone.push(self.add_rescue(decision, Action::StopContainer { id: old }, &triggers, vec![stop]));
                }
                let refused = self.add_rescue(decision, refuse, &triggers, gone.clone());
                self.add_rescue(decision, start, &triggers, vec![refused]);
                refused
            }
            (false, Turnover::InPlace) => {
                self.add_rescue(decision, start, &triggers, gone.last().copied().into_iter().collect());
                // Whether the old one could be started or not.
                self.add_rescue(decision, refuse, &triggers, vec![stop])
            }
            (false, Turnover::SideBySide | Turnover::MakeWay) => {
                self.add_rescue(decision, refuse, &triggers, vec![stop])
            }
        };
        gone.push(refused);
        self.add_rescue(decision, Action::RemoveContainer { id: new }, &triggers, gone);
    }

    fn add_rescue(&mut self, of: &Decision<'_>, action: Action, triggers: &[Node], after: Vec<Node>) -> Node {
        let node = self.graph.add(action, subject(&of.record), of.mark(), WAY_BACK.to_owned());
        self.graph.rescue(node, triggers.iter().copied());
        self.graph.require(node, after);
        node
    }

    /// Firewall and names as they were, after they were set forward. The old one starts whether that could be had or not:
    /// the next plan sees.
    fn add_traffic_back(&mut self, moment: &Moment, triggers: &[Node], stop: Node) {
        let firewall = moment.firewall.iter().map(|ruleset| {
            let action = Action::SetFirewall { ruleset: ruleset.clone() };
            (action, "firewall".to_owned(), self.nodes.firewall)
        });
        let names = moment.names.iter().map(|(network, names)| {
            let action = Action::SetNames { network: network.clone(), names: names.clone() };
            (action, self.names_of(network), self.nodes.names.get(network).copied())
        });
        for (action, subject, forward) in firewall.chain(names).collect::<Vec<_>>() {
            let node = self.graph.add(action, subject, Mark::Run, WAY_BACK.to_owned());
            self.graph.rescue(node, triggers.iter().copied());
            self.graph.require(node, [stop].into_iter().chain(forward));
        }
    }

    /// It has proven itself: nothing is there to go back to any more.
    fn add_acceptance(&mut self, decision: &Decision<'_>, ready: Option<Node>) {
        if decision.record.before.is_none() || !decision.is_tried() {
            return;
        }
        let record = ContainerRecord { before: None, ..decision.record.clone() };
        let action = Action::UpdateContainer { record: Box::new(record) };
        let reason = "when it has proven itself".to_owned();
        let node = self.graph.add(action, subject(&decision.record), Mark::Run, reason);
        self.graph.require(node, ready);
    }

    /// The old one may fail to go, or to be changed, in the middle of it: it is down, and what would come after it does not
    /// come. That says nothing against the update, which the next plan tries again.
    fn add_return(&mut self, decision: &'w Decision<'a>, old: &ActualContainer) {
        let departure = self.nodes.departures.get(&old.record.id).copied();
        let (stop, then) = match departure {
            Some(Departure { stop: Some(stop), disconnect, may_return: true, .. }) => (stop, disconnect),
            Some(_) => return,
            None => {
                let Some(stop) = self.nodes.stop.get(&old.record.id).copied() else { return };
                (stop, self.nodes.update.get(&old.record.id).copied())
            }
        };
        let action = Action::StartContainer { id: old.record.id.clone() };
        let node = self.graph.add(action, subject(&decision.record), decision.mark(), WAY_BACK.to_owned());
        self.graph.rescue(node, [stop].into_iter().chain(then));
    }

    /// A start-first replacement gets the traffic when it is ready, and then the old one stops.
    pub(super) fn link_traffic(&mut self, traffic: &Traffic) {
        let containers = self.containers;
        for decision in containers.declared.iter().filter(|d| d.turnover == Turnover::SideBySide) {
            let switch = traffic.switches.iter().find(|(id, _)| *id == decision.record.id);
            let ready = self.proven(decision, "before the old one stops");
            self.add_way_back(decision, ready, traffic);
            self.add_acceptance(decision, ready);
            let ready: Vec<Node> = ready.into_iter().collect();
            let switched = match switch {
                Some((_, moment)) => self.add_moment(moment, "the new one is ready", &ready),
                None => Vec::new(),
            };
            let old = decision.leaving.iter().filter_map(|c| self.nodes.departures.get(&c.record.id));
            for old in old.copied().collect::<Vec<_>>() {
                self.graph.require(old.first(), ready.iter().chain(&switched).copied());
            }
        }
        let in_place = containers.declared.iter().filter(|d| d.turnover == Turnover::InPlace);
        for decision in in_place.filter(|decision| decision.is_on_trial()) {
            let old = decision.fallback.map(|fallback| &fallback.container.record.id);
            let reason = match old {
                Some(old) if *old == decision.record.id => "or it is changed back",
                Some(_) => "before the old one goes",
                None => "its update has to prove itself",
            };
            let ready = self.proven(decision, reason);
            self.add_way_back(decision, ready, traffic);
            self.add_acceptance(decision, ready);
            if let Some(old) = old.and_then(|old| self.nodes.departures.get(old)).copied() {
                self.graph.require(old.remove, ready);
            }
        }
        if let Some(ruleset) = &traffic.end {
            let gone: Vec<Node> = self.nodes.network_gone.iter().map(|(_, node)| *node).collect();
            self.add_firewall(ruleset, "networks are gone", &gone);
        }
    }
}
