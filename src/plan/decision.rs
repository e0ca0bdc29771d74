//! What one instance of a declared container becomes: the decision that `containers` takes, and that `traffic`, `guards`
//! and `order` read.

use super::liveness::{has_succeeded, meets};
use super::{FieldChange, Mark, Work};
use crate::model::actual::ActualContainer;
use crate::model::container::{Condition, ContainerSpec, RunState};
use crate::model::id::ResourceName;
use crate::model::record::ContainerRecord;
use crate::model::units::Timespan;

/// What one instance becomes.
pub(super) struct Decision<'a> {
    /// As it will be.
    pub record: ContainerRecord,
    /// The record that is kept; a new one is made where there is none.
    pub kept: Option<&'a ActualContainer>,
    /// Records that are superseded, the one that runs first.
    pub leaving: Vec<&'a ActualContainer>,
    pub turnover: Turnover,
    /// What differs from the kept record, or from the one that is replaced, or from the defaults.
    pub changes: Vec<FieldChange>,
    pub reason: String,
    /// Why the kept one has to stop, first of all.
    pub stop: Option<String>,
    /// Why it has to start, last of all.
    pub start: Option<String>,
    /// Why it has to be resumed while it runs.
    pub resume: Option<String>,
    /// Its links have to be put back while it runs.
    pub connect: Option<Work>,
    /// What makes it ready for others: healthy where it has a check.
    pub ready_when: Condition,
    /// What it goes back to when it fails.
    pub fallback: Option<Fallback<'a>>,
    /// It stays what it is although something else is declared: its update was refused.
    pub is_held: bool,
}

/// What runs again when an update fails: the last version that has proven itself.
#[derive(Clone, Copy)]
pub(super) struct Fallback<'a> {
    /// The first of `leaving`, or the kept one.
    pub container: &'a ActualContainer,
    /// As it is now, or as it was before an update in place that has not proven itself.
    pub spec: &'a ContainerSpec,
}

impl Fallback<'_> {
    /// Whether it has to be changed before it runs again, and stopped where it runs.
    pub fn is_otherwise(&self) -> bool {
        *self.spec != self.container.record.spec
    }
}

/// How an instance changes from what leaves to what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turnover {
    /// The new one is made, the old one stops and goes, the new one starts: at its old address where possible.
    InPlace,
    /// The new one is made and started, and healthy where it has a check, before traffic moves and the old one goes.
    SideBySide,
    /// The old one goes before the new one is made, because somebody needs its address or its network's subnet.
    MakeWay,
}

impl<'a> Decision<'a> {
    pub fn spec(&self) -> &ContainerSpec {
        &self.record.spec
    }

    pub fn is_new(&self) -> bool {
        self.kept.is_none()
    }

    /// The kept one stops, is changed and starts again.
    pub fn is_restarted(&self) -> bool {
        let is_changed = self.kept.is_some_and(|kept| kept.record.spec != self.record.spec);
        is_changed && self.stop.is_some() && self.start.is_some()
    }

    /// What an update takes the place of: the one that is replaced, or the kept one. One whose update was cut short
    /// before it had proven itself is in the middle of it, whatever was to take its place meanwhile.
    pub fn outgoing(&self) -> Option<&'a ActualContainer> {
        let is_unproven = |kept: &&ActualContainer| kept.record.before.is_some();
        let is_changed = |kept: &&ActualContainer| self.is_restarted() || is_unproven(kept);
        let unproven = self.kept.filter(is_unproven);
        unproven.or(self.leaving.first().copied()).or(self.kept.filter(is_changed))
    }

    /// Whether an update of it was begun, by this plan or by one that was cut short, that has not proven itself.
    pub fn is_in_turn(&self) -> bool {
        let is_begun = !self.leaving.is_empty() || self.is_restarted() || self.record.before.is_some();
        is_begun && self.turnover != Turnover::MakeWay && !self.is_proven()
    }

    /// The record that counts again when this update fails.
    pub fn way_back(&self) -> Option<ContainerRecord> {
        let Fallback { container, spec } = self.fallback.as_ref()?;
        Some(ContainerRecord { spec: (*spec).clone(), before: None, ..container.record.clone() })
    }

    /// Whether what an earlier plan left unproven stays for good.
    pub fn is_accepted(&self) -> bool {
        self.kept.is_some_and(|kept| kept.record.before.is_some()) && self.record.before.is_none()
    }

    /// Whether it has to prove itself, and something will be seen of that.
    pub fn is_on_trial(&self) -> bool {
        self.fallback.is_some() || (self.record.before.is_some() && self.is_tried())
    }

    /// Whether it runs, or has run well, or will.
    pub fn is_tried(&self) -> bool {
        let runs = |kept: &ActualContainer| kept.liveness.is_up() || has_succeeded(&kept.liveness);
        self.spec().state == RunState::Running && (self.start.is_some() || self.kept.is_some_and(runs))
    }

    pub fn name(&self) -> &ResourceName {
        &self.record.instance.container
    }

    pub fn mark(&self) -> Mark {
        match (self.kept, self.leaving.is_empty(), self.turnover) {
            (Some(_), ..) if !self.changes.is_empty() || self.connect.is_some() => Mark::Change,
            (Some(_), ..) => Mark::Run,
            (None, true, _) => Mark::Create,
            (None, false, Turnover::SideBySide) => Mark::ReplaceNewFirst,
            (None, false, Turnover::InPlace | Turnover::MakeWay) => Mark::Replace,
        }
    }

    /// Whether `condition` holds already and nothing in this plan will change that.
    pub fn meets(&self, condition: Condition) -> bool {
        self.start.is_none() && self.stop.is_none() && self.kept.is_some_and(|kept| meets(kept, condition))
    }

    /// A start-first replacement takes over the traffic only when it is ready; until then the old one serves.
    pub fn waits_for_traffic(&self) -> bool {
        self.turnover == Turnover::SideBySide && !self.leaving.is_empty() && !self.is_proven()
    }

    /// Whether it is known that it can take the place of what leaves.
    pub fn is_proven(&self) -> bool {
        self.meets(self.ready_when) && self.spec().update.monitor == Timespan::ZERO
    }
}
