//! `evenkeel down`: removes what a project has on this host, and with `--volumes` its data too.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::path::PathBuf;

use clap::Args;

use super::apply::{LockArguments, Session};
use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::Output;
use super::{planning, terminal};
use crate::engine::followed::Tags;
use crate::engine::host::Host;
use crate::model::desired::Desired;
use crate::model::id::{ProjectName, ResourceName, Whose};
use crate::plan::{MassRemoval, Policy};

#[derive(Debug, Args)]
pub struct DownArguments {
    /// A manifest, a directory of manifests, or `-`: only the name of the project is read
    #[arg(short, long = "file", value_name = "PATH", conflicts_with = "project")]
    pub files: Vec<PathBuf>,

    /// The project, where there is no manifest any more
    #[arg(short, long, value_name = "NAME")]
    project: Option<ProjectName>,

    /// Remove its volumes, too: their data is lost
    #[arg(long)]
    volumes: bool,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,

    #[command(flatten)]
    lock: LockArguments,
}

pub fn run(arguments: &DownArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let project = match &arguments.project {
        Some(project) => project.clone(),
        None => context.project()?,
    };
    let session = Session::open(context)?;
    let host = &session.host;
    let lock = arguments.lock.take(host)?;
    let desired = Desired::empty(project.clone().into());
    let volumes = if arguments.volumes { volumes(host, &desired)? } else { BTreeSet::new() };
    if !volumes.is_empty() && !arguments.yes {
        confirm(&desired.project, &volumes)?;
    }
    let policy = Policy { mass_removal: MassRemoval::Allow, expendable_volumes: volumes, ..Policy::default() };
    let (proposal, _) = planning::propose(host, desired, policy)?;
    planning::ensure_allowed(&proposal.plan)?;
    host.forget(&proposal.desired.project).map_err(Failure::engine)?;
    let (exit, _) = session.carry_out(&proposal.plan, output)?;
    host.remember_followed(&project, Tags::new()).map_err(Failure::engine)?;
    host.tidy(&lock).map_err(Failure::engine)?;
    Ok(exit)
}

fn volumes(host: &Host, desired: &Desired) -> Result<BTreeSet<ResourceName>, Failure> {
    let actual = planning::observe(host, desired)?;
    Ok(actual.volumes.keys().filter(|key| key.project == desired.project).map(|key| key.name.clone()).collect())
}

/// Asks on a terminal. Elsewhere there is nobody to ask, and no answer is a no.
fn confirm(project: &Whose, volumes: &BTreeSet<ResourceName>) -> Result<(), Failure> {
    let names: Vec<&str> = volumes.iter().map(ResourceName::as_str).collect();
    let refused = || {
        Failure::new(format!("the data of {} was not given up, and nothing was done", names.join(", ")))
            .exit(Exit::Refused)
    };
    if !terminal::is_interactive() {
        return Err(refused().hint("add `--yes` to remove the volumes without being asked"));
    }
    let question = format!("Remove project {project} with the data of {}? Type `yes`: ", names.join(", "));
    let mut stderr = std::io::stderr();
    stderr.write_all(question.as_bytes())?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == "yes" { Ok(()) } else { Err(refused()) }
}
