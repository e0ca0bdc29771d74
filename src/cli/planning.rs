//! Making a plan for this host, keeping it in a file, and whether it may be executed.

use std::collections::BTreeSet;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::failure::{Exit, Failure};
use super::phrase::counted;
use super::version::VERSION;
use crate::engine::files::{self, Durability};
use crate::engine::host::Host;
use crate::engine::{Engine, Scope};
use crate::model::actual::Actual;
use crate::model::desired::Desired;
use crate::model::id::{Ids, ResourceName};
use crate::model::lock::pinned;
use crate::plan::{self, Plan, Policy, RefusalKind, RefusedUpdates};
use crate::reconcile::converge::scope;

/// The version of the format of plan files.
const FORMAT: u32 = 1;

/// A plan and everything that it follows from, except the host.
///
/// Planning is pure, so a stored plan still holds exactly when planning again, with the same wish and the same
/// identifiers, gives the same plan: whatever moved on the host did not matter to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    version: u32,
    /// The Evenkeel that made it.
    evenkeel: String,
    pub desired: Desired,
    policy: Policy,
    seed: u64,
    pub plan: Plan,
}

/// Looks at the host and plans.
pub fn propose(host: &Host, desired: Desired, policy: Policy) -> Result<(Proposal, Actual), Failure> {
    let actual = observe(host, &desired)?;
    Ok((proposal(&actual, desired, policy), actual))
}

/// The same for somebody who wants to know which tags have moved of what is locked.
pub fn propose_asking_tags(host: &Host, desired: Desired, policy: Policy) -> Result<Proposal, Failure> {
    let bases = desired.lock.bases.values().flatten().map(|(name, digest)| pinned(name, digest));
    let tags = desired.lock.references.iter().cloned().chain(bases).collect();
    let actual = host.observe(&Scope { tags, ..scope(&desired) }).map_err(Failure::engine)?;
    Ok(proposal(&actual, desired, policy))
}

fn proposal(actual: &Actual, desired: Desired, policy: Policy) -> Proposal {
    seeded(actual, desired, policy, seed())
}

fn seeded(actual: &Actual, desired: Desired, policy: Policy, seed: u64) -> Proposal {
    let plan = plan::plan(&desired, actual, &policy, &mut Ids::from_seed(seed));
    Proposal { version: FORMAT, evenkeel: VERSION.to_owned(), desired, policy, seed, plan }
}

/// The plan for the same wish, with the updates left alone that were rolled back.
pub fn propose_without_refused(host: &Host, proposal: &Proposal) -> Result<Plan, Failure> {
    let policy = Policy { refused_updates: RefusedUpdates::Leave, ..proposal.policy.clone() };
    Ok(propose(host, proposal.desired.clone(), policy)?.0.plan)
}

pub fn observe(host: &Host, desired: &Desired) -> Result<Actual, Failure> {
    host.observe(&scope(desired)).map_err(Failure::engine)
}

impl Proposal {
    /// Plans again, with the same choices where the same is to be done.
    pub fn again(self, desired: Desired, actual: &Actual) -> Proposal {
        seeded(actual, desired, self.policy, self.seed)
    }

    /// That this is in force from now on: what a service falls back on whose manifest is broken.
    pub fn remember(&self, host: &Host, inputs: &[PathBuf]) -> Result<(), Failure> {
        let remembered = match plan::targeted(&self.desired, &self.policy) {
            Some(containers) => host.remember_some(&self.desired, &containers),
            None => host.remember(inputs, &self.desired),
        };
        remembered.map_err(Failure::engine)
    }

    /// Stores it, readable for its owner alone: it holds environments. A file that is there, or that a link leads to, is
    /// replaced whole; a pipe or a terminal is written to.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let cannot = |failure: Failure| failure.context(format!("cannot write the plan to `{}`", path.display()));
        let text = serde_json::to_vec_pretty(self).map_err(|error| cannot(error.into()))?;
        let path = &std::path::absolute(path).map_err(|error| cannot(error.into()))?;
        let found = path.metadata();
        if found.as_ref().is_ok_and(|found| found.is_file()) && is_open_file(path) {
            // What the plan says for people would be written over it.
            return Err(cannot(Failure::new("it is a file that is open already"))
                .hint("give the name of the file itself: `-o FILE`"));
        }
        if found.is_ok_and(|found| !found.is_file()) {
            let opened = File::options().append(true).open(path);
            return opened.and_then(|mut file| file.write_all(&text)).map_err(|error| cannot(error.into()));
        }
        let there = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        files::write(&there, &text, Durability::Durable).map_err(|error| cannot(Failure::engine(error)))
    }

    pub fn read(path: &Path) -> Result<Proposal, Failure> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let cannot = |failure: Failure| failure.context(format!("cannot read the plan `{}`", path.display()));
        let value: serde_json::Value = File::open(path)
            .map_err(Failure::from)
            .and_then(|file| Ok(serde_json::from_reader(BufReader::new(file))?))
            .map_err(cannot)?;
        let Versioned { version } = Versioned::deserialize(&value)
            .map_err(|error| cannot(Failure::from(error)).hint("`evenkeel plan -o FILE` makes such a file"))?;
        if version != FORMAT {
            return Err(cannot(Failure::new(format!("its format is {version}, this Evenkeel knows {FORMAT}")))
                .hint("plan again with this version"));
        }
        Proposal::deserialize(&value).map_err(|error| cannot(error.into()))
    }

    /// An error (exit code 5) unless the plan is what would be planned for this host.
    pub fn ensure_current(&self, actual: &Actual) -> Result<(), Failure> {
        let now = plan::plan(&self.desired, actual, &self.policy, &mut Ids::from_seed(self.seed));
        // Words about the moment, such as how often something was restarted, are not what is done.
        if now.steps == self.plan.steps && now.refusals == self.plan.refusals {
            return Ok(());
        }
        let mut failure = Failure::new("the plan is stale: something moved since it was made").exit(Exit::Stale);
        failure = match differences(&self.plan, &now).as_slice() {
            [] => failure,
            subjects => failure.hint(format!("what differs: {}", subjects.join(", "))),
        };
        if self.evenkeel != VERSION {
            failure = failure.hint(format!("it was made by Evenkeel {}, this is {VERSION}", self.evenkeel));
        }
        Err(failure.hint("plan again: `evenkeel plan -o FILE`"))
    }
}

/// Whether it is the name of a descriptor, such as /dev/stdout (proc_pid_fd(5)).
fn is_open_file(path: &Path) -> bool {
    let target = std::fs::read_link(path).unwrap_or_else(|_| path.to_owned());
    let directory = target.parent().and_then(|directory| directory.canonicalize().ok());
    directory.is_some_and(|directory| directory.starts_with("/proc"))
}

/// Subjects whose steps are not the same in both.
fn differences(before: &Plan, now: &Plan) -> Vec<String> {
    let subjects: BTreeSet<&String> = before.steps.iter().chain(&now.steps).map(|step| &step.subject).collect();
    let actions = |plan: &Plan, subject: &String| {
        plan.steps.iter().filter(|step| step.subject == *subject).map(|step| step.action.clone()).collect::<Vec<_>>()
    };
    subjects.into_iter().filter(|subject| actions(before, subject) != actions(now, subject)).cloned().collect()
}

/// The exit code of a plan that must not be executed: 4 where an option would lift every refusal.
pub fn refusal(plan: &Plan) -> Option<Exit> {
    let guards_only = plan.refusals.iter().all(|refusal| refusal.kind == RefusalKind::Guard);
    let exit = if guards_only { Exit::Refused } else { Exit::Error };
    (!plan.refusals.is_empty()).then_some(exit)
}

/// An error when the planner refuses.
pub fn ensure_allowed(plan: &Plan) -> Result<(), Failure> {
    let Some(exit) = refusal(plan) else { return Ok(()) };
    let failure = match plan.refusals.as_slice() {
        [refusal] => Failure::new(format!("{}: {}", refusal.subject, refusal.reason)),
        several => Failure::list(
            format!("{} speak against this plan, and nothing was done", counted(several.len() as u64, "reason")),
            several.iter().map(|refusal| format!("{}: {}", refusal.subject, refusal.reason)),
        ),
    };
    let hints: BTreeSet<&String> = plan.refusals.iter().map(|refusal| &refusal.hint).collect();
    let hints = hints.into_iter().filter(|hint| !hint.is_empty());
    Err(hints.fold(failure, |failure, hint| failure.hint(hint.clone())).exit(exit))
}

/// The declared containers of `--target`, or the nearest right name.
pub fn targets(words: &[String], desired: &Desired) -> Result<BTreeSet<ResourceName>, Failure> {
    let find = |word: &String| {
        desired.containers.keys().find(|name| name.as_str() == word).cloned().ok_or_else(|| {
            let nearest = desired.containers.keys().min_by_key(|name| strsim::damerau_levenshtein(name.as_str(), word));
            let failure = Failure::usage(format!("project {} declares no container `{word}`", desired.project));
            nearest.into_iter().fold(failure, |failure, name| failure.hint(format!("did you mean `{name}`?")))
        })
    };
    words.iter().map(find).collect()
}

/// For the identifiers that a plan chooses: they need to be distinct, not secret, so the standard library's own
/// randomness does.
pub fn seed() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
