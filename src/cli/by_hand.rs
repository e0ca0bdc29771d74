//! Containers that nobody declares, by the planner that serves the declared ones.
//!
//! Together they are a project that no manifest can name. A plan for it is narrowed to the containers at hand
//! ([`Policy::targets`]), so what else was made by hand is never touched; that of declared projects is not anyway.
//! What a plan wants comes from options (`run`), or from the record that is there (all other commands).

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::apply::Session;
use super::failure::{Exit, Failure};
use super::output::Output;
use super::planning;
use crate::engine::error::EngineError;
use crate::engine::host::Host;
use crate::engine::lock::Lock;
use crate::engine::waiting::{Attended, Awaited, Wait};
use crate::engine::{Engine, Scope};
use crate::model::action::Action;
use crate::model::actual::Actual;
use crate::model::container::{AfterEnd, RunState};
use crate::model::desired::{Desired, DesiredContainer};
use crate::model::id::{Ids, ResourceName, VolumeKey, Whose};
use crate::model::image::Pull;
use crate::model::network::{DEFAULT, NetworkMode};
use crate::model::record::ContainerRecord;
use crate::model::unreadable::Object;
use crate::monitor::MonitorError;
use crate::monitor::protocol::FailureKind;
use crate::plan::{self, MassRemoval, Policy};
use crate::reconcile::execute::{Silent, execute};
use crate::reconcile::report::StepOutcome;

/// How long another command may hold the lock: each of these is short, an apply may take longer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The lock of the state root. What ended meanwhile without anybody seeing to it is seen to first.
pub fn lock(session: &Session, output: &Output) -> Result<Lock, Failure> {
    let lock = session.host.lock(PATIENCE).map_err(Failure::engine)?;
    let actual = observe(&session.host)?;
    let containers = actual.containers.values().filter(|container| container.record.project == Whose::Nobody);
    for container in containers.filter(|c| c.record.spec.state == RunState::Running && !c.liveness.is_up()) {
        see_off(session, &actual, &container.record, output)?;
    }
    Ok(lock)
}

/// Everything that is known of this host, without asking a registry.
pub fn observe(host: &Host) -> Result<Actual, Failure> {
    host.observe(&Scope::default()).map_err(Failure::engine)
}

/// The record under the lock of a container that was chosen before the lock was held: others may have changed it since, or
/// removed it.
pub fn current<'a>(actual: &'a Actual, chosen: &ContainerRecord) -> Result<&'a ContainerRecord, Failure> {
    let gone = || Failure::new(format!("container `{}` was removed meanwhile", chosen.full_name()));
    unless_gone(actual, chosen)?.ok_or_else(gone)
}

/// As [`current`]; `None` where it was removed.
pub fn unless_gone<'a>(actual: &'a Actual, chosen: &ContainerRecord) -> Result<Option<&'a ContainerRecord>, Failure> {
    let object = Object::Container(chosen.id.clone());
    match actual.unreadable.iter().find(|record| record.object == object) {
        Some(record) => Err(Failure::new(record.problem.clone()).hint(record.next_step())),
        None => Ok(actual.containers.get(&chosen.id).map(|container| &container.record)),
    }
}

/// A container that has ended: its ports and names are free again, and it goes if it should.
pub fn see_off(session: &Session, actual: &Actual, record: &ContainerRecord, output: &Output) -> Result<(), Failure> {
    match record.after_end {
        AfterEnd::Remove => remove(session, actual, &[record], Volumes::Own, output),
        AfterEnd::Keep => settle(session, actual, record, output),
    }
}

/// Whatever follows from this record is so, and the container is up or not, as it is now.
pub fn settle(session: &Session, actual: &Actual, record: &ContainerRecord, output: &Output) -> Result<(), Failure> {
    let up = actual.containers.get(&record.id).is_some_and(|container| container.liveness.is_up());
    let state = if up { RunState::Running } else { RunState::Stopped };
    let desired = desired(actual, record, state);
    perform(session, &desired, actual, about(record), output)
}

/// A policy for a plan about this container alone.
pub fn about(record: &ContainerRecord) -> Policy {
    Policy { targets: BTreeSet::from([record.instance.container.clone()]), ..Policy::default() }
}

/// A project of this one container, as its record has it.
pub fn desired(actual: &Actual, record: &ContainerRecord, state: RunState) -> Desired {
    let mut desired = surroundings(actual, record);
    let mut spec = record.spec.clone();
    spec.state = state;
    desired.images.insert(spec.image.clone(), Pull::Missing);
    for name in spec.volumes() {
        let key = VolumeKey { project: Whose::Nobody, name: name.clone() };
        let known = actual.volumes.get(&key).map(|volume| volume.record.spec.clone());
        desired.volumes.insert(name.clone(), known.unwrap_or_default());
    }
    let container = DesiredContainer { replicas: 1, spec, after_end: record.after_end };
    desired.containers.insert(record.instance.container.clone(), container);
    desired
}

/// The networks that a container is on, its own or borrowed, and nothing else.
fn surroundings(actual: &Actual, record: &ContainerRecord) -> Desired {
    let mut desired = Desired::empty(Whose::Nobody);
    for network in record.addresses.keys().filter_map(|id| actual.networks.get(id)).map(|network| &network.record) {
        match network.project {
            Whose::Nobody => drop(desired.networks.insert(network.name.clone(), network.spec.clone())),
            Whose::Project(_) => drop(desired.borrowed.networks.insert(network.name.clone(), network.id.clone())),
        }
    }
    if let (NetworkMode::Container(name), Some(lender)) = (&record.spec.network, &record.network_of) {
        desired.borrowed.containers.insert(name.clone(), lender.clone());
    }
    desired
}

/// Which volumes go with their container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volumes {
    Keep,
    /// Those that were made for it alone.
    Own,
}

/// Removes containers that nobody declares. With the last of them the network goes that was made for them.
pub fn remove(
    session: &Session,
    actual: &Actual,
    records: &[&ContainerRecord],
    volumes: Volumes,
    output: &Output,
) -> Result<(), Failure> {
    let names: BTreeSet<ResourceName> = records.iter().map(|record| record.instance.container.clone()).collect();
    let mut of_nobody = actual.containers.values().filter(|container| container.record.project == Whose::Nobody);
    let are_the_last = of_nobody.all(|container| names.contains(&container.record.instance.container));
    let mut desired = Desired::empty(Whose::Nobody);
    if are_the_last {
        let made = actual.networks.values().map(|network| &network.record);
        let made = made.filter(|record| record.project == Whose::Nobody && record.name.as_str() != DEFAULT);
        desired.networks.extend(made.map(|record| (record.name.clone(), record.spec.clone())));
    } else {
        for record in records {
            let surroundings = surroundings(actual, record);
            desired.networks.extend(surroundings.networks);
            desired.borrowed.networks.extend(surroundings.borrowed.networks);
        }
    }
    // One that another has by `--volumes-from` goes with the last of them.
    let stay = actual.containers.values().map(|container| &container.record);
    let stay: Vec<&ContainerRecord> = stay.filter(|other| records.iter().all(|gone| gone.id != other.id)).collect();
    let is_own = |name: &&ResourceName| {
        let key = VolumeKey { project: Whose::Nobody, name: (*name).clone() };
        let data = session.host.paths().volume_data(&key);
        actual.volumes.get(&key).is_some_and(|volume| volume.record.spec.is_anonymous())
            && !stay.iter().any(|other| other.uses_volume(&key, &data))
    };
    let expendable = records.iter().flat_map(|record| record.spec.volumes()).filter(is_own).cloned();
    let policy = Policy {
        targets: if are_the_last { BTreeSet::new() } else { names },
        mass_removal: MassRemoval::Allow,
        expendable_volumes: if volumes == Volumes::Own { expendable.collect() } else { BTreeSet::new() },
        ..Policy::default()
    };
    perform(session, &desired, actual, policy, output)
}

/// Plans and executes. What a first process could not be started for becomes the exit code that a shell would give.
pub fn perform(
    session: &Session,
    desired: &Desired,
    actual: &Actual,
    policy: Policy,
    output: &Output,
) -> Result<(), Failure> {
    let plan = plan::plan(desired, actual, &policy, &mut Ids::from_seed(planning::seed()));
    execute_plan(session, &plan, output)
}

pub fn execute_plan(session: &Session, plan: &plan::Plan, output: &Output) -> Result<(), Failure> {
    planning::ensure_allowed(plan)?;
    plan.warnings.iter().for_each(|warning| output.warning(warning));
    let engine = Attentive { host: &session.host, unstartable: Mutex::new(None) };
    let report = execute(&engine, plan, &Silent, session.interrupt.cancel());
    let failed = report.outcomes.iter().find_map(|outcome| match outcome {
        StepOutcome::Failed { causes, hint, .. } => Some((causes, hint)),
        StepOutcome::Done { .. }
        | StepOutcome::NotNeeded
        | StepOutcome::Skipped { .. }
        | StepOutcome::Open { .. }
        | StepOutcome::Deferred { .. }
        | StepOutcome::Cancelled => None,
    });
    let Some((causes, hint)) = failed else {
        return match report.is_success() {
            true => Ok(()),
            false => Err(Failure::new("interrupted before it was done").exit(Exit::Status(130))),
        };
    };
    let exit = match engine.unstartable.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(FailureKind::CommandNotFound) => Exit::Status(127),
        Some(FailureKind::NotExecutable) => Exit::Status(126),
        Some(_) | None => Exit::Error,
    };
    let (last, outer) = causes.split_last().map_or(("unknown", &[][..]), |(last, outer)| (last.as_str(), outer));
    let failure = outer.iter().rev().fold(Failure::new(last), Failure::context).exit(exit);
    // A hint about a manifest's key helps nobody who wrote none.
    let hint = hint.iter().filter(|_| exit == Exit::Error);
    Err(hint.fold(failure, |failure, hint| failure.hint(hint.clone())))
}

/// The host, and why a start failed: a report has words only.
struct Attentive<'a> {
    host: &'a Host,
    unstartable: Mutex<Option<FailureKind>>,
}

impl Engine for Attentive<'_> {
    type Error = EngineError;

    fn observe(&self, scope: &Scope) -> Result<Actual, EngineError> {
        self.host.observe(scope)
    }

    fn perform(&self, action: &Action) -> Result<(), EngineError> {
        let result = self.host.perform(action);
        if let Err(EngineError::Start { source, .. }) = &result
            && let Some(MonitorError::Start(failure)) = source.downcast_ref()
        {
            *self.unstartable.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure.kind);
        }
        result
    }

    fn attend(&self, awaited: &Awaited<'_>, wait: &mut Wait, until: Instant) -> Result<Attended, EngineError> {
        self.host.attend(awaited, wait, until)
    }

    fn hint(&self, error: &EngineError) -> Option<String> {
        self.host.hint(error)
    }
}
