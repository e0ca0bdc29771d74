//! One round of the loop: the manifest where it may have changed, then observe, plan, execute.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::possible::plan_what_may_be;
use super::wake::Wake;
use crate::engine::Engine;
use crate::model::action::Action;
use crate::model::desired::Desired;
use crate::model::id::{Ids, Whose};
use crate::plan::{HeldBack, Plan, Policy, RefusedUpdates, Step, StepId};
use crate::reconcile::converge::plan_now;
use crate::reconcile::execute::{Observer, advance};
use crate::reconcile::report::{StepOutcome, causes};
use crate::reconcile::waits::Waits;

/// What the loop needs of its surroundings.
pub struct Surroundings<'a, G> {
    /// Reads the manifests. An error is a text that is ready to be shown.
    pub load: &'a (dyn Fn() -> Result<Desired, String> + Sync),
    /// What was in force before this run: of a project, or where the manifest does not tell which, of the one that it
    /// declared last.
    pub recall: &'a (dyn Fn(Option<&Whose>) -> Option<Desired> + Sync),
    pub remember: &'a (dyn Fn(&Desired) + Sync),
    /// Lets everything be asked anew that is left alone for a while: somebody says that now is the time.
    pub ask_again: &'a (dyn Fn() + Sync),
    /// Removes images that nothing needs; the lock of the state root is held.
    pub collect: &'a (dyn Fn(&Desired) + Sync),
    /// Takes the lock of the state root; dropping what comes back lets go of it. `None` when somebody else has had it all
    /// the time.
    pub lock: &'a (dyn Fn(Duration) -> Result<Option<G>, String> + Sync),
    /// A seed for identifiers.
    pub seed: &'a (dyn Fn() -> u64 + Sync),
    /// Ends the program, though a round is at work.
    pub leave: &'a (dyn Fn() + Sync),
}

/// The rounds of one service.
pub struct Rounds<'a, E: Engine> {
    engine: &'a E,
    on: Surroundings<'a, Box<dyn Send>>,
    desired: Option<Desired>,
    /// The last that nothing spoke against: what a manifest falls back on that is refused.
    good: Option<Desired>,
    complaint: Option<String>,
    /// Warnings and refusals that are in the log already, and which plan had them last.
    said: BTreeMap<String, Instant>,
    waits: Waits,
}

/// How a round went, for the loop and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The host is as declared.
    Converged,
    /// Some steps failed.
    Degraded {
        failed: usize,
        first: String,
    },
    /// A guard, or something impossible. What the last good manifest declares goes on, as far as nothing speaks against it.
    Refused {
        first: String,
        /// How far that is done.
        rest: Standing,
    },
    /// What is to be done has begun, and waits for this.
    Waiting {
        first: String,
        /// Whether everything was started meanwhile that is to run.
        is_up: bool,
    },
    /// Somebody else changes this state root.
    Busy,
    /// Nothing is to be done, but an update that was rolled back is not in force.
    HeldBack {
        first: String,
    },
    /// The manifest is broken, and the last good one is in force (or there is none).
    Broken,
    /// The round could not be made: the lock, or the observation.
    Failed {
        reason: String,
    },
    Panicked,
}

/// What is left to do after a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing that another round may do better. What people have to mend is no reason to look at the host less often.
    Settled,
    /// What is under way goes on by itself.
    Open,
    /// The same, and nothing is to be started any more: updates have yet to prove themselves.
    Proving,
    /// What failed.
    Failing,
}

impl Outcome {
    pub fn standing(&self) -> Standing {
        match self {
            Outcome::Converged | Outcome::HeldBack { .. } | Outcome::Broken => Standing::Settled,
            Outcome::Refused { rest, .. } => *rest,
            Outcome::Waiting { is_up: true, .. } => Standing::Proving,
            Outcome::Waiting { is_up: false, .. } | Outcome::Busy => Standing::Open,
            Outcome::Degraded { .. } | Outcome::Failed { .. } | Outcome::Panicked => Standing::Failing,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Converged => write!(f, "as declared"),
            Outcome::Degraded { failed: 1, first } => write!(f, "1 step failed: {first}"),
            Outcome::Degraded { failed, first } => write!(f, "{failed} steps failed: {first}"),
            Outcome::Refused { first, .. } => write!(f, "refused: {first}"),
            Outcome::Waiting { first, is_up: _ } => write!(f, "waiting for {first}"),
            Outcome::Busy => write!(f, "waiting for another evenkeel that changes this state root"),
            Outcome::HeldBack { first } => write!(f, "runs as before an update that failed: {first}"),
            Outcome::Broken => write!(f, "the manifest is broken; the last good one is in force"),
            Outcome::Failed { reason } => write!(f, "{reason}"),
            Outcome::Panicked => write!(f, "a round panicked"),
        }
    }
}

/// After so much time without it a warning is news.
const SAID_AGAIN: Duration = Duration::from_secs(600);
/// How long a round waits for somebody else who changes the state root. That may be an `apply` which sits out a migration:
/// then the loop goes on, and tries again.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// After so much time.
const LOCK_AGAIN: Duration = Duration::from_millis(500);

impl<'a, E: Engine> Rounds<'a, E> {
    pub fn new(engine: &'a E, on: Surroundings<'a, Box<dyn Send>>) -> Rounds<'a, E> {
        let (said, waits) = (BTreeMap::new(), Waits::default());
        Rounds { engine, on, desired: None, good: None, complaint: None, said, waits }
    }

    /// Sits out the beginnings of waits for so long.
    pub fn lingering(self, linger: Duration) -> Rounds<'a, E> {
        Rounds { waits: Waits::lingering(linger), ..self }
    }

    /// When something is to be looked at again that a round which came to `outcome` left open.
    pub(super) fn due(&self, outcome: &Outcome, now: Instant) -> Option<Instant> {
        match outcome {
            Outcome::Busy => Some(now + LOCK_AGAIN),
            _ => self.waits.due(),
        }
    }

    pub(super) fn leave(&self) -> &'a (dyn Fn() + Sync) {
        self.on.leave
    }

    pub fn run(&mut self, wake: Wake, cancel: &AtomicBool) -> Outcome {
        if wake == Wake::Reload {
            (self.on.ask_again)();
        }
        if wake.rereads_manifest() || self.desired.is_none() {
            self.reread();
        }
        let Some(desired) = self.desired.clone() else { return Outcome::Broken };
        let lock = match (self.on.lock)(LOCK_PATIENCE) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Outcome::Busy,
            Err(reason) => return failed(reason),
        };
        let mut ids = Ids::from_seed((self.on.seed)());
        let outcome = match plan_now(self.engine, &desired, &policy(), &mut ids) {
            Ok(plan) => {
                self.say(&plan);
                match plan.refusals.is_empty() {
                    true => {
                        self.keep(&desired);
                        self.carry_out(&plan, cancel)
                    }
                    false => self.fall_back(&plan, &mut ids, cancel),
                }
            }
            Err(error) => failed(causes(&error).join(": ")),
        };
        // Also where a step failed: that may be for want of space.
        if !matches!(outcome, Outcome::Failed { .. }) {
            (self.on.collect)(&desired);
        }
        drop(lock);
        match (&self.complaint, outcome) {
            (Some(_), Outcome::Converged) => Outcome::Broken,
            (_, outcome) => outcome,
        }
    }

    fn keep(&mut self, desired: &Desired) {
        // Others may have changed what is remembered: `down`, or an `apply` of something else.
        (self.on.remember)(desired);
        if self.good.as_ref() != Some(desired) {
            self.good = Some(desired.clone());
        }
    }

    /// What is refused must not keep down what has nothing to do with it: after a boot nothing runs.
    fn fall_back(&mut self, refused: &Plan, ids: &mut Ids, cancel: &AtomicBool) -> Outcome {
        if self.good.is_none() {
            self.good = (self.on.recall)(Some(&refused.project));
        }
        let rest = match &self.good {
            // Its failures are in the log; that the manifest is refused is what there is to say.
            Some(good) => match plan_what_may_be(self.engine, good, &policy(), ids) {
                Ok(plan) => self.carry_out(&plan, cancel).standing(),
                Err(error) => return failed(causes(&error).join(": ")),
            },
            None => Standing::Settled,
        };
        let first = refused.refusals.first().map(|refusal| format!("{}: {}", refusal.subject, refusal.reason));
        Outcome::Refused { first: first.unwrap_or_default(), rest }
    }

    /// As far as it goes without a long wait. What waits goes on without the lock.
    fn carry_out(&self, plan: &Plan, cancel: &AtomicBool) -> Outcome {
        let report = advance(self.engine, plan, &self.waits, &Log { plan }, cancel);
        let steps = || report.outcomes.iter().zip(&plan.steps);
        let failures = steps().filter_map(|(outcome, step)| match outcome {
            StepOutcome::Failed { causes, .. } => Some(format!("{}: {}", step.subject, causes.join(": "))),
            _ => None,
        });
        let failures: Vec<String> = failures.collect();
        if let Some(first) = failures.first() {
            return Outcome::Degraded { failed: failures.len(), first: first.clone() };
        }
        let open = steps().find(|(outcome, _)| matches!(outcome, StepOutcome::Open { .. }));
        if let Some((_, Step { subject, reason, .. })) = open {
            let waits_to_start = |(outcome, step): (&StepOutcome, &Step)| {
                let is_start = matches!(step.action, Action::StartContainer { .. }) && !step.is_rescue();
                is_start && matches!(outcome, StepOutcome::Deferred { .. })
            };
            return Outcome::Waiting { first: format!("{subject} ({reason})"), is_up: !steps().any(waits_to_start) };
        }
        match plan.held_back.first() {
            Some(HeldBack { subject, reason }) => Outcome::HeldBack { first: format!("{subject}: {reason}") },
            None => Outcome::Converged,
        }
    }

    /// What people should know: once, and again when it was gone for a while and comes back. What ends again and again
    /// runs for moments.
    fn say(&mut self, plan: &Plan) {
        let now = Instant::now();
        self.said.retain(|_, last| now.duration_since(*last) < SAID_AGAIN);
        for warning in &plan.warnings {
            if self.said.insert(warning.clone(), now).is_none() {
                tracing::warn!("{warning}");
            }
        }
        for refusal in &plan.refusals {
            let text = format!("{}: {}", refusal.subject, refusal.reason);
            if self.said.insert(text.clone(), now).is_none() {
                tracing::error!(hint = %refusal.hint, "{text}");
            }
        }
    }

    /// A complaint is said once, not every round.
    fn reread(&mut self) {
        match (self.on.load)() {
            Ok(desired) => {
                if self.complaint.take().is_some() {
                    tracing::info!("the manifest can be read again");
                }
                self.desired = Some(desired);
            }
            Err(complaint) => {
                if self.complaint.as_ref() != Some(&complaint) {
                    tracing::error!("the manifest is broken; the last good one stays in force\n{complaint}");
                }
                self.complaint = Some(complaint);
                if self.desired.is_none() {
                    self.desired = (self.on.recall)(None);
                }
            }
        }
    }
}

/// Nobody is there to ask for another try of an update that was rolled back.
fn policy() -> Policy {
    Policy { refused_updates: RefusedUpdates::Leave, ..Policy::default() }
}

fn failed(reason: String) -> Outcome {
    tracing::error!("{reason}");
    Outcome::Failed { reason }
}

/// Writes every step into the service's log.
struct Log<'a> {
    plan: &'a Plan,
}

impl Observer for Log<'_> {
    fn step_started(&self, _: StepId) {}

    fn step_ended(&self, step: StepId, outcome: &StepOutcome) {
        let step = &self.plan.steps[step];
        let action = step.action.verb();
        match outcome {
            StepOutcome::Done { took } => {
                tracing::info!(reason = %step.reason, ?took, "{action} {}", step.subject);
            }
            StepOutcome::Failed { causes, hint, .. } => {
                let hint = hint.as_deref().unwrap_or_default();
                tracing::error!(hint, "{action} {}: {}", step.subject, causes.join(": "));
            }
            StepOutcome::Skipped { because } => {
                let cause = &self.plan.steps[*because].subject;
                tracing::warn!("{action} {}: skipped, since {cause} failed", step.subject);
            }
            StepOutcome::Open { is_new: true } => {
                tracing::info!(reason = %step.reason, "{action} {}: other rounds go on meanwhile", step.subject);
            }
            StepOutcome::Open { is_new: false } | StepOutcome::Deferred { .. } | StepOutcome::NotNeeded => {}
            StepOutcome::Cancelled => tracing::info!("{action} {}: not begun", step.subject),
        }
    }
}
