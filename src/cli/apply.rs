//! `evenkeel apply`: makes the host what the manifests declare, or runs exactly a plan that was kept.
//!
//! It does not ask: `plan` is for looking, and what could lose data is refused by the planner.
//!
//! ```text
//! lock ─> look ─> plan ── wants images ──> lock released ─> fetch ─> lock ─> look ─> plan as before the fetch ─> carry out
//!                   └──── wants none ───────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! # Decisions
//! It holds the lock of the state root from the plan to the last step, also while it waits for a container to be healthy
//! or to complete; only for a registry it lets go of it, before anything else is done (`reconcile::fetch`). What is behind
//! a wait was planned for the host as it is: if others changed that meanwhile, either the plan was not the truth, or
//! `apply` would have to stop in the middle, with what it had taken down still down. Somebody sits there who may interrupt
//! it, and `watch` of other projects waits without a complaint. `watch` itself, which may wait at any hour for anything,
//! leaves its waits (`reconcile::waits`). What `--wait` waits for changes nothing more, so that is without the lock.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::MultiProgress;

use super::by_hand;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::interrupt::Interrupt;
use super::layers::Layers;
use super::locking;
use super::output::{Format, Output};
use super::phrase::counted;
use super::plan::{self, PlanningArguments};
use super::planning::{self, Proposal};
use super::progress::Progress;
use super::settle;
use crate::engine::host::Host;
use crate::engine::lock::Lock;
use crate::model::actual::Actual;
use crate::model::desired::Desired;
use crate::model::units::Timespan;
use crate::plan::{HeldBack, Plan, Refusal};
use crate::reconcile::execute::execute_rest;
use crate::reconcile::fetch::{Fetched, Fetches};
use crate::reconcile::report::Report;

#[derive(Debug, Args)]
pub struct ApplyArguments {
    /// A manifest, a directory of manifests, or `-` for standard input; repeat it to overlay [default: ./evenkeel.toml, else /etc/evenkeel]
    #[arg(short, long = "file", value_name = "PATH", conflicts_with = "plan")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    planning: PlanningArguments,

    /// Show the plan and change nothing
    #[arg(long, conflicts_with_all = ["plan", "wait"])]
    dry_run: bool,

    /// Come back when all that is declared runs, healthy where it has a check, for a second where not, or has ended
    /// well; within `--timeout`, or 5 minutes
    #[arg(long)]
    wait: bool,

    #[command(flatten)]
    lock: LockArguments,

    /// A plan that `evenkeel plan -o FILE` kept
    #[arg(value_name = "PLANFILE")]
    plan: Option<PathBuf>,
}

// For every command that changes the host.
#[derive(Debug, Args)]
pub struct LockArguments {
    /// How long to wait for another command that changes this state root
    #[arg(long, value_name = "TIME", default_value = "0s")]
    lock_timeout: Timespan,
}

impl LockArguments {
    pub fn take(&self, host: &Host) -> Result<Lock, Failure> {
        host.lock(self.time()).map_err(Failure::engine)
    }

    fn time(&self) -> Duration {
        self.lock_timeout.to_duration()
    }
}

/// Of `--wait`, unless `--timeout` says otherwise.
const PATIENCE: Timespan = Timespan::from_secs(300);

pub fn run(arguments: &ApplyArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    if arguments.dry_run {
        return plan::dry_run(&arguments.planning, context, output);
    }
    if arguments.plan.is_some() && !arguments.planning.is_default() {
        return Err(Failure::usage("a kept plan is run as it is: what narrows it or allows more belongs to `plan -o`"));
    }
    // Everything that can be wrong with what was written is said before the lock is waited for.
    let wanted = match &arguments.plan {
        Some(path) => Wanted::Kept(Box::new(Proposal::read(path)?)),
        None => {
            let desired = context.load()?.desired;
            locking::in_force(context, desired.clone())?;
            Wanted::Desired(Box::new(desired))
        }
    };
    let session = Session::open(context)?;
    let host = &session.host;
    let mut lock = arguments.lock.take(host)?;
    let (mut proposal, actual) = wanted.propose(arguments, context, host)?;
    let mut beforehand = Beforehand::default();
    if let Some(fetches) = Fetches::of(&proposal.plan, &beforehand.fetched) {
        planning::ensure_allowed(&proposal.plan)?;
        drop(lock);
        beforehand = session.fetch(&proposal.plan, &fetches, output);
        if session.interrupt.is_heard() {
            // All that is left is left undone.
            return Ok(session.carry_out(&proposal.plan, beforehand, output)?.0);
        }
        lock = host.lock(arguments.lock.time().max(by_hand::PATIENCE)).map_err(Failure::engine)?;
        proposal = wanted.propose_again(proposal, (&actual, &fetches), &mut beforehand, (context, host))?;
    }
    let changed = !proposal.plan.is_empty();
    if proposal.plan.refusals.is_empty() {
        // A kept plan does not tell where its manifest was.
        let inputs = if arguments.plan.is_none() { context.lasting_inputs()? } else { None };
        proposal.remember(host, &inputs.unwrap_or_default())?;
    }
    let (exit, report) = session.carry_out(&proposal.plan, beforehand, output)?;
    if report.rolled_back(&proposal.plan).next().is_some() {
        match arguments.plan {
            None => session.go_on(&proposal, output)?,
            Some(_) => {
                output.warning("what waited for the update that failed was not done: plan again to go on without it")
            }
        }
    }
    host.tidy(&lock).map_err(Failure::engine)?;
    drop(lock);
    let settled = match exit {
        Exit::Done if arguments.wait => {
            let patience = arguments.planning.timeout.unwrap_or(PATIENCE);
            settle::wait(&proposal.desired, context, patience, output)?
        }
        exit => exit,
    };
    Ok(match settled {
        Exit::Done if arguments.planning.detailed_exitcode && changed => Exit::Pending,
        exit => exit,
    })
}

/// What was asked for.
enum Wanted {
    Kept(Box<Proposal>),
    Desired(Box<Desired>),
}

impl Wanted {
    /// What is to be done, and the host that it was planned for.
    fn propose(
        &self,
        arguments: &ApplyArguments,
        context: &Context,
        host: &Host,
    ) -> Result<(Proposal, Actual), Failure> {
        match self {
            Wanted::Kept(proposal) => {
                let actual = planning::observe(host, &proposal.desired)?;
                proposal.ensure_current(&actual)?;
                Ok((Proposal::clone(proposal), actual))
            }
            Wanted::Desired(desired) => {
                // What `watch` follows may have moved while the lock was waited for.
                let desired = locking::in_force(context, Desired::clone(desired))?;
                let policy = arguments.planning.policy(&desired)?;
                planning::propose(host, desired, policy)
            }
        }
    }

    /// The same after a fetch, for a host on which others may have been busy meanwhile. Where they were not, it is the plan
    /// that was begun.
    fn propose_again(
        &self,
        begun: Proposal,
        (before, fetches): (&Actual, &Fetches),
        beforehand: &mut Beforehand,
        (context, host): (&Context, &Host),
    ) -> Result<Proposal, Failure> {
        let mut now = |desired: &Desired| {
            let after = planning::observe(host, desired)?;
            beforehand.fetched = Fetches::still_there(std::mem::take(&mut beforehand.fetched), &after);
            Ok::<_, Failure>(fetches.undone(after, before))
        };
        match self {
            Wanted::Kept(_) => {
                begun.ensure_current(&now(&begun.desired)?)?;
                Ok(begun)
            }
            Wanted::Desired(desired) => {
                let desired = locking::in_force(context, Desired::clone(desired))?;
                let actual = now(&desired)?;
                Ok(begun.again(desired, &actual))
            }
        }
    }
}

/// The host under the eyes of somebody who may interrupt.
pub struct Session {
    pub host: Host,
    pub interrupt: Interrupt,
    lines: MultiProgress,
}

/// What was done before a plan is carried out, and belongs to it.
#[derive(Default)]
pub struct Beforehand {
    fetched: Fetched,
    warned: Vec<String>,
    took: Duration,
}

impl Session {
    pub fn open(context: &Context) -> Result<Session, Failure> {
        // Before the engine starts threads of its own.
        let interrupt = Interrupt::watch()?;
        let lines = MultiProgress::new();
        let host = context.host()?.report_images_to(Box::new(Layers::among(&lines)));
        Ok(Session { host, interrupt, lines })
    }

    /// Fetches what a plan needs. It is told with the plan's own steps.
    fn fetch(&self, plan: &Plan, fetches: &Fetches, output: &Output) -> Beforehand {
        plan.warnings.iter().for_each(|warning| output.warning(warning));
        let begun = Instant::now();
        // Whoever does not read this does not read the report either, and that is said then.
        let progress = Progress::new(plan, &self.lines, output);
        let fetched = fetches.fetch(&self.host, &progress, self.interrupt.cancel());
        Beforehand { fetched, warned: plan.warnings.clone(), took: begun.elapsed() }
    }

    /// Executes a plan that is allowed, and tells how it goes.
    pub fn carry_out(&self, plan: &Plan, beforehand: Beforehand, output: &Output) -> Result<(Exit, Report), Failure> {
        let Beforehand { fetched, warned, took } = beforehand;
        planning::ensure_allowed(plan)?;
        for warning in plan.warnings.iter().filter(|warning| !warned.contains(warning)) {
            output.warning(warning);
        }
        if plan.is_empty() && output.format() == Format::Text {
            output.text(&format!("project {} is as declared, nothing to do\n", plan.project))?;
            return Ok((Exit::Done, Report::default()));
        }
        let begun = Instant::now();
        let progress = Progress::new(plan, &self.lines, output);
        let report = execute_rest(&self.host, plan, &fetched, &progress, self.interrupt.cancel());
        Ok((progress.finish(&report, took + begun.elapsed())?, report))
    }

    /// After a rollback: what the steps that were skipped were to bring about, as far as it goes without the update that
    /// was refused.
    fn go_on(&self, proposal: &Proposal, output: &Output) -> Result<(), Failure> {
        let rest = planning::propose_without_refused(&self.host, proposal)?;
        if let Some(Refusal { subject, reason, .. }) = rest.refusals.first() {
            output.warning(&format!("what waited for the update that failed was not done: {subject}: {reason}"));
            return Ok(());
        }
        for HeldBack { subject, reason } in &rest.held_back {
            output.warning(&format!("{subject} runs as before: {reason}"));
        }
        if !rest.is_empty() {
            output.remark(&format!("without it, {} go on:", counted(rest.steps.len() as u64, "step")));
            self.carry_out(&rest, Beforehand::default(), output)?;
        }
        Ok(())
    }
}
