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
//! * What the store does needs no lock but its own: `image pull` does the same.
//! * `watch` and `run` plan anew for the host as it is after the fetch. `apply` has said what it does, so it plans for the
//!   host as it would be without the fetch ([`Fetches::undone`]): where nobody else was busy that is the same plan, and the
//!   fetches in it count as done. One whose image somebody removed meanwhile is done again, under the lock.
//! * Builds stay among the other steps. Their commands run in control groups and networks of this state root, which
//!   whoever has the lock may take for leftovers.
//! * An image that could not be fetched is not asked for again in the same round: its step fails with the same words.
//! * Layers that are made again come from where the image came from, and so count as fetched.

use std::sync::atomic::AtomicBool;

use super::execute::{Observer, execute};
use super::report::StepOutcome;
use crate::engine::Engine;
use crate::model::action::Action;
use crate::model::actual::Actual;
use crate::model::image::ImageSource;
use crate::plan::{Plan, Step, StepId};

/// What became of images that are not fetched by the steps of a plan.
#[derive(Debug, Clone, Default)]
pub struct Fetched(Vec<(Action, StepOutcome)>);

impl Fetched {
    pub fn get(&self, action: &Action) -> Option<&StepOutcome> {
        self.0.iter().find(|(fetched, _)| fetched == action).map(|(_, outcome)| outcome)
    }

    /// What is here by now a plan does not ask for.
    pub fn failures(self) -> Fetched {
        Fetched(self.0.into_iter().filter(|(_, outcome)| matches!(outcome, StepOutcome::Failed { .. })).collect())
    }

    pub fn and(mut self, other: Fetched) -> Fetched {
        self.0.extend(other.0);
        self
    }
}

/// The part of a plan that needs no lock.
#[derive(Debug)]
pub struct Fetches {
    /// Steps of their own numbers.
    pub part: Plan,
    /// Their numbers in the plan.
    steps: Vec<StepId>,
}

impl Fetches {
    /// All but those that something is known of. `None` where there are none.
    pub fn of(plan: &Plan, known: &Fetched) -> Option<Fetches> {
        let all = plan.steps.iter().enumerate().filter(|(_, step)| needs_no_lock(step));
        let some = all.filter(|(_, step)| known.get(&step.action).is_none());
        // Images wait for nothing.
        let (steps, part): (Vec<StepId>, Vec<Step>) =
            some.map(|(id, step)| (id, Step { after: Default::default(), ..step.clone() })).unzip();
        let part = Plan { steps: part, ..Plan::nothing(plan.project.clone()) };
        (!steps.is_empty()).then_some(Fetches { part, steps })
    }

    /// For what comes before the fetch: these images, and what is made of them, are left for later.
    pub fn left_open(&self) -> Fetched {
        self.with(|_| StepOutcome::Open { is_new: false })
    }

    /// Executes them. The observer is told the plan's own numbers.
    pub fn fetch<E: Engine>(&self, engine: &E, observer: &dyn Observer, cancel: &AtomicBool) -> Fetched {
        let report = execute(engine, &self.part, &Numbered { steps: &self.steps, observer }, cancel);
        self.with(|at| report.outcomes[at].clone())
    }

    /// Of what was fetched, what is on the host `after` it. Without the lock others may have removed it again, as they may
    /// what no record names.
    pub fn still_there(fetched: Fetched, after: &Actual) -> Fetched {
        let is_there = |(action, outcome): &(Action, StepOutcome)| match (action, outcome) {
            (Action::FetchImage { source, .. }, StepOutcome::Done { .. }) => {
                after.images.get(source).is_some_and(|known| known.image.is_some())
            }
            (Action::RestoreImage { id }, StepOutcome::Done { .. }) => !after.damaged.contains_key(id),
            _ => true,
        };
        Fetched(fetched.0.into_iter().filter(is_there).collect())
    }

    /// A host that was looked at `after` the fetch as it would be without: what moved beside shows in what is planned for it.
    pub fn undone(&self, mut after: Actual, before: &Actual) -> Actual {
        for step in &self.part.steps {
            if let Action::FetchImage { source, .. } = &step.action {
                match before.images.get(source) {
                    Some(known) => drop(after.images.insert(source.clone(), known.clone())),
                    None => drop(after.images.remove(source)),
                }
            }
        }
        after.damaged.extend(before.damaged.clone());
        for (id, container) in &mut after.containers {
            let Some(known) = before.containers.get(id) else { continue };
            if known.broken.is_some() {
                container.broken = known.broken.clone();
            }
            if let Some(image) = known.record.image.as_ref().filter(|image| !before.made_of.contains_key(image)) {
                after.made_of.remove(image);
            }
        }
        after
    }

    fn with(&self, outcome: impl Fn(usize) -> StepOutcome) -> Fetched {
        Fetched(self.part.steps.iter().enumerate().map(|(at, step)| (step.action.clone(), outcome(at))).collect())
    }
}

fn needs_no_lock(step: &Step) -> bool {
    match &step.action {
        Action::FetchImage { source, bases: _ } => !matches!(source, ImageSource::Build(_)) && !step.is_rescue(),
        Action::RestoreImage { .. } => !step.is_rescue(),
        _ => false,
    }
}

/// Tells of the steps of a part as of those of the whole.
struct Numbered<'a> {
    steps: &'a [StepId],
    observer: &'a dyn Observer,
}

impl Observer for Numbered<'_> {
    fn step_started(&self, step: StepId) {
        self.observer.step_started(self.steps[step]);
    }

    fn step_ended(&self, step: StepId, outcome: &StepOutcome) {
        self.observer.step_ended(self.steps[step], outcome);
    }
}
