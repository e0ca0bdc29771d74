//! One round of the loop: the manifest where it may have changed, then observe, plan, fetch, execute.

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
use crate::reconcile::execute::{Before, Observer, advance};
use crate::reconcile::fetch::{Fetched, Fetches};
use crate::reconcile::report::{StepOutcome, causes};
use crate::reconcile::waits::Waits;

/// What the loop needs of its surroundings.
pub struct Surroundings<'a, G> {
    /// Reads the manifests. An error is a text that is ready to be shown.
    pub load: &'a (dyn Fn() -> Result<Desired, String> + Sync),
    /// What was in force before this run: of a project, or where the manifest does not tell which, of the one that it
    /// declared last.
    pub recall: &'a (dyn Fn(Option<&Whose>) -> Option<Desired> + Sync),
    /// Keeps what is in force, for this run and others: whether that is so now.
    pub remember: &'a (dyn Fn(&Desired) -> bool + Sync),
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
    /// The last that nothing spoke against, where it could not be remembered. What is remembered is asked for when it is
    /// needed: an `apply` may have brought something else into force meanwhile.
    unkept: Option<Desired>,
    complaint: Option<String>,
    /// Warnings and refusals that are in the log already, and which plan had them last.
    said: BTreeMap<String, Instant>,
    waits: Waits,
    /// Images that could not be fetched by a round which then found the lock taken. The next goes on from there: it comes
    /// soon, and a registry that is down is not asked twice a second.
    fetched: Fetched,
}

/// What a round does.
enum Decision {
    /// All that the manifest declares.
    Whole(Plan),
    /// What nothing speaks against of the last good manifest, since this speaks against the one that there is.
    Rest { rest: Plan, first: String },
}

impl Decision {
    fn plan(&self) -> &Plan {
        match self {
            Decision::Whole(plan) | Decision::Rest { rest: plan, .. } => plan,
        }
    }
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
        let (said, waits, fetched) = Default::default();
        Rounds { engine, on, desired: None, unkept: None, complaint: None, said, waits, fetched }
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
        if wake.is_reload() {
            self.fetched = Fetched::default();
        }
        if wake.rereads_manifest() || self.desired.is_none() {
            self.reread();
        }
        let Some(desired) = self.desired.clone() else { return Outcome::Broken };
        let outcome = match self.go_through(&desired, cancel) {
            Ok(Some(outcome)) => outcome,
            Ok(None) => return Outcome::Busy,
            Err(reason) => failed(reason),
        };
        match (&self.complaint, outcome) {
            (Some(_), Outcome::Converged) => Outcome::Broken,
            (_, outcome) => outcome,
        }
    }

    /// Does what is to be done, with the lock. Images that it needs are fetched without, once all is done that needs none of
    /// them: a registry takes its time. `None` when somebody else has the lock.
    fn go_through(&mut self, desired: &Desired, cancel: &AtomicBool) -> Result<Option<Outcome>, String> {
        let (mut fetched, mut has_fetched) = (std::mem::take(&mut self.fetched), false);
        let mut is_kept = false;
        loop {
            let Some(lock) = (self.on.lock)(LOCK_PATIENCE)? else {
                self.fetched = fetched.failures();
                return Ok(None);
            };
            let decision = self.plan(desired)?;
            if let (Decision::Whole(_), false) = (&decision, is_kept) {
                self.keep(desired);
                is_kept = true;
            }
            if let (Some(fetches), false) = (Fetches::of(decision.plan(), &fetched), has_fetched) {
                let first = self.carry_out(&decision, &fetched.clone().and(fetches.left_open()), cancel);
                drop(lock);
                fetched = fetched.and(fetches.fetch(self.engine, &Fetching(Log { plan: decision.plan() }), cancel));
                has_fetched = true;
                match first.standing() {
                    // What failed is not tried again at once.
                    Standing::Failing => return Ok(Some(first)),
                    _ => continue,
                }
            }
            let outcome = self.carry_out(&decision, &fetched.failures(), cancel);
            // Also where a step failed: that may be for want of space.
            (self.on.collect)(desired);
            drop(lock);
            return Ok(Some(outcome));
        }
    }

    fn plan(&mut self, desired: &Desired) -> Result<Decision, String> {
        let why = |error: E::Error| causes(&error).join(": ");
        let mut ids = Ids::from_seed((self.on.seed)());
        let plan = plan_now(self.engine, desired, &policy(), &mut ids).map_err(why)?;
        self.say(&plan);
        let Some(refusal) = plan.refusals.first() else { return Ok(Decision::Whole(plan)) };
        // What is refused must not keep down what has nothing to do with it: after a boot nothing runs.
        let good = self.unkept.clone().or_else(|| (self.on.recall)(Some(&plan.project)));
        let rest = match &good {
            Some(good) => plan_what_may_be(self.engine, good, &policy(), &mut ids).map_err(why)?,
            None => Plan::nothing(plan.project.clone()),
        };
        Ok(Decision::Rest { rest, first: format!("{}: {}", refusal.subject, refusal.reason) })
    }

    fn keep(&mut self, desired: &Desired) {
        // Others may have changed what is remembered: `down`, or an `apply` of something else.
        let is_kept = (self.on.remember)(desired);
        self.unkept = (!is_kept).then(|| desired.clone());
    }

    /// As far as it goes without a long wait. What waits goes on without the lock.
    fn carry_out(&self, decision: &Decision, fetched: &Fetched, cancel: &AtomicBool) -> Outcome {
        let done = self.advance(decision.plan(), fetched, cancel);
        match decision {
            Decision::Whole(_) => done,
            // What failed is in the log; that the manifest is refused is what there is to say.
            Decision::Rest { first, .. } => Outcome::Refused { first: first.clone(), rest: done.standing() },
        }
    }

    fn advance(&self, plan: &Plan, fetched: &Fetched, cancel: &AtomicBool) -> Outcome {
        let before = Before { waits: &self.waits, fetched };
        let report = advance(self.engine, plan, before, &Log { plan }, cancel);
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

/// Writes what was fetched into the log. What was not is said where its step fails.
struct Fetching<'a>(Log<'a>);

impl Observer for Fetching<'_> {
    fn step_started(&self, step: StepId) {
        self.0.step_started(step);
    }

    fn step_ended(&self, step: StepId, outcome: &StepOutcome) {
        if !matches!(outcome, StepOutcome::Failed { .. }) {
            self.0.step_ended(step, outcome);
        }
    }
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
