//! The planner: `(Desired, Actual, Policy) -> Plan`, pure and deterministic.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::action::Action;
use crate::model::id::ProjectName;

/// What happens to a subject, as plan text marks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// `+`
    Create,
    /// `-`
    Remove,
    /// `~`
    Change,
    /// `-/+`: the old one goes first.
    Replace,
    /// `+/-`: the new one comes first.
    ReplaceNewFirst,
    /// Waits, starts after a crash or a boot, and other steps that change no declared field.
    Run,
}

/// What a changed field costs the running container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeClass {
    /// Nothing at all: only the record changes.
    None,
    /// Applied to the running process.
    Live,
    Restart,
    Replace,
    /// Could lose data: needs confirmation by name.
    Data,
}

/// One field, old and new as the manifest would write them. `None` is absence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    pub field: String,
    pub old: Option<String>,
    pub new: Option<String>,
    pub class: ChangeClass,
}

/// The number of a step within its plan.
pub type StepId = usize;

/// One engine operation with its reason and the steps that it waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub action: Action,
    /// What it is about, as people name it: `container web.2`, `network front`, `image nginx:1.27`, `firewall`.
    pub subject: String,
    pub mark: Mark,
    /// Why: `declared, not there`, `image changed`, `restart policy`, `removed by hand`, ..
    pub reason: String,
    pub changes: Vec<FieldChange>,
    /// A step whose predecessor failed or was skipped is skipped; the others go on.
    pub after: BTreeSet<StepId>,
}

/// What will be done, in an order in which it may be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub project: ProjectName,
    pub steps: Vec<Step>,
    /// What a reader should know: a cut capability, a missing controller, a port bound on every address.
    pub warnings: Vec<String>,
    /// Why this plan must not be executed as it is: a guard, a data loss without consent, an impossible wish.
    pub refusals: Vec<Refusal>,
}

/// A reason not to execute, and what would lift it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub subject: String,
    pub reason: String,
    pub hint: String,
    /// A guard can be lifted by an option (exit code 4); anything else is an error (exit code 1).
    pub kind: RefusalKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    Guard,
    Impossible,
}

/// What the caller allows and narrows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// `--target`: only these containers (declared names) and what they need. Empty is everything.
    pub targets: BTreeSet<crate::model::id::ResourceName>,
    /// `--allow-mass-removal`.
    pub mass_removal: MassRemoval,
    /// Volumes whose removal or loss was confirmed by name (`down --volumes`, `--remove-volume NAME`).
    pub expendable_volumes: BTreeSet<crate::model::id::ResourceName>,
}

/// Whether more than half of a project of four or more containers may go at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MassRemoval {
    #[default]
    Refuse,
    Allow,
}
