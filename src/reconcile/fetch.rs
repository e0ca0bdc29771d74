//! Images that a plan needs, fetched without the lock of the state root.
//!
//! A registry may take an hour for an image. Meanwhile nobody else could start a container, and no other project would be
//! looked after, if a round of `watch` sat there with the lock.
//!
//! ```text
//! lock ─> look ─> plan ── wants images ──> what needs none of them ─> lock released ─> fetch ─> lock ─> look ─> plan ─> carry out
//!                   └──── wants none ──────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! # Decisions
//! * After a boot, or while an image comes slowly, all else is started and repaired first: nothing waits for a registry but
//!   what is made of its image.
//! * What the store does needs no lock but its own: `image pull` does the same. What is planned after the fetch is planned
//!   for the host as it is then.
//! * Builds stay among the other steps. Their commands run in control groups and networks of this state root, which
//!   whoever has the lock may take for leftovers.
//! * An image that could not be fetched is not asked for again in the same round: its step fails with the same words.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use super::execute::{Observer, execute};
use super::report::StepOutcome;
use crate::engine::Engine;
use crate::model::action::Action;
use crate::model::image::ImageSource;
use crate::plan::{Plan, Step};

/// Images that are not fetched by the steps of a plan, each with the outcome of its step.
pub type Unfetched = BTreeMap<ImageSource, StepOutcome>;

/// The part of a plan that needs no lock.
pub fn fetches(plan: &Plan) -> Plan {
    let steps = plan.steps.iter().filter(|step| needs_no_lock(step));
    // Images wait for nothing.
    let steps = steps.map(|step| Step { after: Default::default(), ..step.clone() }).collect();
    Plan { steps, ..Plan::nothing(plan.project.clone()) }
}

fn needs_no_lock(step: &Step) -> bool {
    match &step.action {
        Action::FetchImage { source, bases: _ } => !matches!(source, ImageSource::Build(_)) && !step.is_rescue(),
        _ => false,
    }
}

/// For what comes before the fetch: these images, and what is made of them, are left for later.
pub fn left_open(fetches: &Plan) -> Unfetched {
    let sources = fetches.steps.iter().filter_map(|step| match &step.action {
        Action::FetchImage { source, .. } => Some(source.clone()),
        _ => None,
    });
    sources.map(|source| (source, StepOutcome::Open { is_new: false })).collect()
}

/// Executes such a part.
pub fn fetch<E: Engine>(engine: &E, fetches: &Plan, observer: &dyn Observer, cancel: &AtomicBool) -> Unfetched {
    let report = execute(engine, fetches, observer, cancel);
    let failed = |(step, outcome): (&Step, StepOutcome)| match (&step.action, &outcome) {
        (Action::FetchImage { source, .. }, StepOutcome::Failed { .. }) => Some((source.clone(), outcome)),
        _ => None,
    };
    fetches.steps.iter().zip(report.outcomes).filter_map(failed).collect()
}
