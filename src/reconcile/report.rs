//! How the steps of a plan went.

use std::time::Duration;

use serde::Serialize;

use crate::model::action::Action;
use crate::plan::{Plan, Step, StepId};

/// The outcome of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum StepOutcome {
    Done {
        took: Duration,
    },
    Failed {
        /// The error and its causes, outermost first.
        causes: Vec<String>,
        hint: Option<String>,
        took: Duration,
    },
    /// A step that it waits for failed or was skipped itself.
    Skipped {
        because: StepId,
    },
    /// It waits for something that is not so yet, and was left: see [`waits`](super::waits).
    Open {
        /// No earlier plan has left it.
        is_new: bool,
    },
    /// A step that it waits for was left open or was deferred itself.
    Deferred {
        because: StepId,
    },
    /// It was there for the case that another step fails, and none did.
    NotNeeded,
    /// The caller asked for an end before its turn came.
    Cancelled,
}

/// The outcome of every step, by its number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub outcomes: Vec<StepOutcome>,
}

impl Report {
    pub fn count(&self, is: impl Fn(&StepOutcome) -> bool) -> usize {
        self.outcomes.iter().filter(|outcome| is(outcome)).count()
    }

    pub fn is_success(&self) -> bool {
        let is_well = |outcome: &StepOutcome| matches!(outcome, StepOutcome::Done { .. } | StepOutcome::NotNeeded);
        self.outcomes.iter().all(is_well)
    }

    /// The steps by which updates that failed were rolled back.
    pub fn rolled_back<'a>(&self, plan: &'a Plan) -> impl Iterator<Item = &'a Step> {
        let steps = self.outcomes.iter().zip(&plan.steps);
        steps.filter_map(|(outcome, step)| match (outcome, &step.action) {
            (StepOutcome::Done { .. }, Action::RefuseUpdate { .. }) => Some(step),
            _ => None,
        })
    }

    /// Whether something was done before something else failed.
    pub fn is_partial(&self) -> bool {
        !self.is_success() && self.outcomes.iter().any(|outcome| matches!(outcome, StepOutcome::Done { .. }))
    }
}

/// An error and its sources, outermost first, each once.
pub fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        next = error.source();
    }
    causes
}
