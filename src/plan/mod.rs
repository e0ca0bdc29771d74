//! The planner: `(Desired, Actual, Policy) -> Plan`, pure and deterministic.
//!
//! Planning has three parts, each a pure function of the ones before it:
//!
//! ```text
//! Desired ─┐                decisions                    order                    render
//! Actual  ─┼─> networks, containers, images, volumes ──> steps with edges ──> Plan ──> text
//! Policy  ─┘                guards: warnings, refusals
//! ```
//!
//! * [`diff`] compares specs field by field; `liveness` says what a container's state means for its plan.
//! * `networks`, `containers`, `images`, `volumes` decide what each object becomes, by `comparison` of records with the
//!   manifest; names, `addresses` and identifiers are chosen here.
//! * `orphans` takes away what no record names.
//! * `guards` finds what must not or cannot be done; `ports`: who else publishes them.
//! * `fallback` says what an update that fails goes back to, and which failed updates are not tried again.
//! * `waits` says when a container is ready and how long that may take; `traffic` computes firewall and names for every
//!   moment of the plan; `order` turns all decisions into steps.
//! * [`render`] is the plan as people read it.
//!
//! Nothing here touches a file, a clock or a process. The planner never looks at anything but its arguments, and a
//! plan holds everything that its execution needs.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::action::Action;
use crate::model::actual::Actual;
use crate::model::desired::Desired;
use crate::model::id::{Ids, ResourceName, Whose};
use crate::model::units::Timespan;

mod addresses;
mod comparison;
mod containers;
mod decision;
pub mod diff;
mod fallback;
mod graph;
mod guards;
mod images;
mod liveness;
mod networks;
mod notation;
mod order;
mod orphans;
mod pairs;
mod ports;
pub mod render;
mod scope;
mod traffic;
mod users;
mod volumes;
mod waits;

pub use liveness::{Standing, standing};

/// What happens to a subject, as plan text marks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// What is stopped is started: there is no process yet that it could cost anything.
    Start,
    /// The process is stopped, and stays so.
    Stop,
    /// The same container is stopped and started.
    Restart,
    /// A new container.
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
    /// A step whose predecessor failed or was skipped is skipped; the others go on. Smaller than the step's own
    /// number, always.
    pub after: BTreeSet<StepId>,
    /// Done only when one of these failed; else it is not needed. Smaller than the step's own number, too.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub on_failure_of: BTreeSet<StepId>,
}

impl Step {
    /// Whether it is there for the case that another one fails.
    pub fn is_rescue(&self) -> bool {
        !self.on_failure_of.is_empty()
    }
}

/// The version of the plan's form as JSON.
pub const PLAN_VERSION: u32 = 1;

/// What will be done, in an order in which it may be done.
///
/// As JSON it holds every record whole, environment values included: a saved plan is as confidential as the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub version: u32,
    pub project: Whose,
    pub steps: Vec<Step>,
    /// What a reader should know: a cut capability, a missing controller, a port bound on every address.
    pub warnings: Vec<String>,
    /// Why this plan must not be executed as it is: a guard, a data loss without consent, an impossible wish.
    pub refusals: Vec<Refusal>,
    /// What is left as it is although the manifest declares another: its update was rolled back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_back: Vec<HeldBack>,
}

/// A container that runs as before an update that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    pub subject: String,
    /// When it was rolled back, and why.
    pub reason: String,
}

impl Plan {
    /// The plan that does nothing.
    pub fn nothing(project: Whose) -> Plan {
        let (steps, warnings, refusals, held_back) = Default::default();
        Plan { version: PLAN_VERSION, project, steps, warnings, refusals, held_back }
    }

    /// Whether there is nothing to do. Warnings and refusals may still be there.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// A reason not to execute, and what would lift it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub subject: String,
    pub reason: String,
    pub hint: String,
    pub kind: RefusalKind,
}

/// A guard can be lifted by an option (exit code 4); anything else is an error (exit code 1).
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
    pub targets: BTreeSet<ResourceName>,
    /// Networks that the plan is about beside those of the targets: `network create`, `network rm`. With some of them and
    /// no target it is about them alone.
    #[serde(default)]
    pub networks: BTreeSet<ResourceName>,
    /// `--allow-mass-removal`; `down` allows it too, since removing everything is its meaning.
    pub mass_removal: MassRemoval,
    /// Volumes whose removal was confirmed by name (`down --volumes`, `--remove-volume NAME`).
    pub expendable_volumes: BTreeSet<ResourceName>,
    /// Containers whose own data may be lost when they are replaced (`--discard-data NAME`): what they wrote to
    /// directories that their image declares as volumes and where nothing is mounted.
    pub expendable_data: BTreeSet<ResourceName>,
    /// Containers that are started again although their restart policy lets them rest: `start` was asked for.
    #[serde(default)]
    pub again: BTreeSet<ResourceName>,
    /// `--timeout`: how long a step waits for a container's health or end. Without it the wait follows from the
    /// health check's own numbers.
    pub wait_timeout: Option<Timespan>,
    /// What to do about updates that were rolled back.
    #[serde(default)]
    pub refused_updates: RefusedUpdates,
}

/// Whether an update that was rolled back is tried again although nothing of it changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedUpdates {
    /// Somebody asks for it: `apply`.
    #[default]
    Retry,
    /// Nobody does: `watch`, and what `apply` does after a rollback. Another wish or another image is tried.
    Leave,
}

/// Whether more than half of a project of four or more containers may go at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MassRemoval {
    #[default]
    Refuse,
    Allow,
}

/// What would make `actual` what `desired` declares, within what `policy` allows.
///
/// The same arguments give the same plan. Applying it whole leaves nothing to do; applying any part of it that
/// respects `Step::after`, and planning again, gets there too.
pub fn plan(desired: &Desired, actual: &Actual, policy: &Policy, ids: &mut Ids) -> Plan {
    let mut findings = Findings::default();
    let world = World { desired, actual, policy, scope: scope::Scope::of(desired, policy) };
    let networks = networks::decide(&world, ids, &mut findings);
    let containers = containers::decide(&world, &networks, ids, &mut findings);
    let volumes = volumes::decide(&world, &containers, &mut findings);
    guards::check(&world, &networks, &containers, &mut findings);
    let steps = order::sequence(&world, &networks, &volumes, &containers);
    let Findings { warnings, refusals, held_back } = findings;
    Plan { version: PLAN_VERSION, project: desired.project.clone(), steps, warnings, refusals, held_back }
}

/// The containers that a plan under this policy is about; `None` stands for all.
pub fn targeted(desired: &Desired, policy: &Policy) -> Option<BTreeSet<ResourceName>> {
    match scope::Scope::of(desired, policy) {
        scope::Scope::Whole => None,
        scope::Scope::Narrow { containers, .. } => Some(containers),
    }
}

/// The arguments of a plan, as every decision sees them.
struct World<'a> {
    desired: &'a Desired,
    actual: &'a Actual,
    policy: &'a Policy,
    scope: scope::Scope,
}

/// What is found beside steps.
#[derive(Default)]
struct Findings {
    warnings: Vec<String>,
    refusals: Vec<Refusal>,
    held_back: Vec<HeldBack>,
}

impl Findings {
    fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    fn impossible(&mut self, subject: impl Into<String>, reason: impl Into<String>, hint: impl Into<String>) {
        self.refusals.push(Refusal {
            subject: subject.into(),
            reason: reason.into(),
            hint: hint.into(),
            kind: RefusalKind::Impossible,
        });
    }
}

/// What is done to an object that needs something done, as its step says it.
#[derive(Debug, Clone)]
struct Work {
    mark: Mark,
    reason: String,
    changes: Vec<FieldChange>,
}

impl Work {
    /// What is declared otherwise, and drift that the same step puts back. `None` where there is neither.
    fn of(changes: Vec<FieldChange>, drift: &[crate::model::actual::Drift]) -> Option<Work> {
        match (changes.is_empty(), drift.is_empty()) {
            (true, true) => None,
            (true, false) => Some(Work::repair(drift)),
            (false, _) => {
                let reason = cause_of(&changes);
                Some(Work { mark: Mark::Change, reason, changes: [changes, Work::repair(drift).changes].concat() })
            }
        }
    }

    /// Drift put back: what was found, what is wanted.
    fn repair(drift: &[crate::model::actual::Drift]) -> Work {
        let changes = drift.iter().map(|drift| FieldChange {
            field: drift.object.clone(),
            old: Some(drift.found.clone()),
            new: Some(drift.wanted.clone()),
            class: ChangeClass::Live,
        });
        Work { mark: Mark::Change, reason: "not as recorded".to_owned(), changes: changes.collect() }
    }
}

/// The fields of `changes` as a cause: "`image`, `environment` changed".
fn cause_of<'a>(changes: impl IntoIterator<Item = &'a FieldChange>) -> String {
    let mut fields: Vec<&str> = Vec::new();
    for change in changes {
        let top = change.field.split_once('.').map_or(change.field.as_str(), |(top, _)| top);
        if !fields.contains(&top) {
            fields.push(top);
        }
    }
    match fields.as_slice() {
        [.., _, _, _, _] => format!("{}, {} and {} more changed", fields[0], fields[1], fields.len() - 2),
        fields => format!("{} changed", fields.join(", ")),
    }
}
