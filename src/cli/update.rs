//! `evenkeel update`: other limits and another restart policy for containers that nobody declares, while they run.
//!
//! # Decisions
//! Of a declared container these are its manifest's: a change by hand would last until the next apply and no longer, and
//! the manifest is as quickly edited, so it is refused.

use clap::{ArgGroup, Args};

use super::apply::Session;
use super::by_hand;
use super::context::{Context, variable};
use super::each::{Names, each};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::run::arguments::ResourceArguments;
use super::run::{declaration, mistakes};
use crate::manifest::{self, Source};
use crate::model::container::{AfterEnd, ContainerSpec, RunState};
use crate::model::id::Whose;
use crate::model::record::ContainerRecord;
use crate::model::resources::Resources;
use crate::model::restart::RestartCondition;

#[derive(Debug, Args)]
#[command(override_usage = "evenkeel update [OPTIONS] <NAME>...")]
#[command(group = ArgGroup::new("changes").required(true).multiple(true).args(CHANGES))]
pub struct UpdateArguments {
    #[command(flatten)]
    pub names: Names,

    #[command(flatten)]
    resources: ResourceArguments,

    /// no, `on-failure[:TIMES]`, always or unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
}

/// Without any of them there is nothing to do.
const CHANGES: [&str; 9] = [
    "memory",
    "memory_swap",
    "memory_reservation",
    "cpus",
    "cpu_quota",
    "cpu_shares",
    "cpuset_cpus",
    "pids_limit",
    "restart",
];

pub fn run(arguments: &UpdateArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let chosen = arguments.names.read(context)?;
    let wanted = wanted(arguments)?;
    let session = Session::open(context)?;
    let _lock = by_hand::lock(&session, output)?;
    each(chosen, output, |chosen| {
        let actual = by_hand::observe(&session.host)?;
        let record = by_hand::current(&actual, chosen)?;
        if let Whose::Project(project) = &record.project {
            return Err(Failure::new(format!("container `{}` is declared by project {project}", record.full_name()))
                .hint("change its manifest: `resources` and `restart` are changed while it runs"));
        }
        if record.after_end == AfterEnd::Remove && wanted.restart.condition != RestartCondition::No {
            return Err(Failure::new(format!("container `{}` is removed when it has ended", record.full_name()))
                .hint("one that is to be started again is made without `--rm`"));
        }
        let mut spec = record.spec.clone();
        change(&mut spec, &wanted, arguments);
        let changed = ContainerRecord { spec, ..record.clone() };
        let up = actual.containers.get(&record.id).is_some_and(|container| container.liveness.is_up());
        let state = if up { RunState::Running } else { RunState::Stopped };
        let desired = by_hand::desired(&actual, &changed, state);
        by_hand::perform(&session, &desired, &actual, by_hand::about(record), output)
    })
}

/// The options as the manifest reads them.
fn wanted(arguments: &UpdateArguments) -> Result<ContainerSpec, Failure> {
    let manifest = declaration::declare_update(&arguments.resources, &arguments.restart)?;
    let source = Source { path: "evenkeel update".into(), text: toml::to_string(&manifest)? };
    let told = |problems| mistakes::explain(&problems, &source.path, &source.text);
    let desired = manifest::load_text(source.clone(), &variable).map_err(told)?.desired;
    let spec = desired.containers.into_values().next().map(|container| container.spec);
    spec.ok_or_else(|| Failure::new("the options say nothing"))
}

/// Only what was said changes.
fn change(spec: &mut ContainerSpec, wanted: &ContainerSpec, arguments: &UpdateArguments) {
    let ResourceArguments {
        memory,
        memory_swap,
        memory_reservation,
        cpus,
        cpu_quota,
        cpu_period: _,
        cpu_shares,
        cpuset_cpus,
        pids_limit,
    } = &arguments.resources;
    let new = wanted.resources.clone();
    let old = &spec.resources;
    spec.resources = Resources {
        memory: if memory.is_some() { new.memory } else { old.memory },
        memory_swap: if memory_swap.is_some() { new.memory_swap } else { old.memory_swap },
        memory_reservation: if memory_reservation.is_some() { new.memory_reservation } else { old.memory_reservation },
        cpus: if cpus.is_some() || cpu_quota.is_some() { new.cpus } else { old.cpus },
        cpu_shares: if cpu_shares.is_some() { new.cpu_shares } else { old.cpu_shares },
        cpuset: if cpuset_cpus.is_some() { new.cpuset } else { old.cpuset.clone() },
        pids: if pids_limit.is_some() { new.pids } else { old.pids },
    };
    if arguments.restart.is_some() {
        spec.restart = wanted.restart.clone();
    }
}
