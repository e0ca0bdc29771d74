//! What one instance of a declared container becomes: the decision that `containers` takes, and that `traffic`, `guards`
//! and `order` read.

use super::liveness::meets;
use super::{FieldChange, Mark, Work};
use crate::model::actual::ActualContainer;
use crate::model::container::{Condition, ContainerSpec};
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
    /// What runs again when this one fails: the first of `leaving`, or the kept one as it is now.
    pub fallback: Option<&'a ActualContainer>,
    /// It stays what it is although something else is declared: its update was refused.
    pub is_held: bool,
}

/// The last spec that this container ran well with.
pub(super) fn proven_spec(record: &ContainerRecord) -> &ContainerSpec {
    record.before.as_deref().unwrap_or(&record.spec)
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
    /// before it had proven itself is in the middle of it.
    pub fn outgoing(&self) -> Option<&'a ActualContainer> {
        let is_changed = |kept: &&ActualContainer| self.is_restarted() || kept.record.before.is_some();
        self.leaving.first().copied().or(self.kept.filter(is_changed))
    }

    /// Whether an update of it was begun, by this plan or by one that was cut short, that has not proven itself.
    pub fn is_in_turn(&self) -> bool {
        let is_begun = !self.leaving.is_empty() || self.is_restarted() || self.record.before.is_some();
        is_begun && self.turnover != Turnover::MakeWay && !self.is_proven()
    }

    /// The record that counts again when this update fails.
    pub fn way_back(&self) -> Option<ContainerRecord> {
        let old = &self.fallback?.record;
        let spec = match old.id == self.record.id {
            true => proven_spec(old).clone(),
            false => old.spec.clone(),
        };
        Some(ContainerRecord { spec, before: None, ..old.clone() })
    }

    /// Whether what an earlier plan left unproven stays, without a way back.
    pub fn is_accepted(&self) -> bool {
        self.kept.is_some_and(|kept| kept.record.before.is_some()) && self.record.before.is_none()
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
