//! `evenkeel down`: removes what a project has on this host, and with `--volumes` its data too.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::path::PathBuf;

use clap::Args;

use super::apply::{Beforehand, LockArguments, Session};
use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::Output;
use super::{plan, planning, terminal};
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

    /// Print what would be removed, and remove nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,

    /// With --dry-run: exit with 2 when something would be removed
    #[arg(long, requires = "dry_run")]
    detailed_exitcode: bool,

    #[command(flatten)]
    lock: LockArguments,
}

pub fn run(arguments: &DownArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let project = match &arguments.project {
        Some(project) => project.clone(),
        None => context.project()?,
    };
    let desired = Desired::empty(project.clone().into());
    if arguments.dry_run {
        let host = context.host()?;
        let volumes = arguments.volumes(&host, &desired)?;
        let (proposal, _) = planning::propose(&host, desired, policy(volumes))?;
        plan::show(&proposal.plan, output)?;
        let pending = if arguments.detailed_exitcode { Exit::Pending } else { Exit::Done };
        return Ok(plan::verdict(&proposal.plan, pending));
    }
    let session = Session::open(context)?;
    let host = &session.host;
    // Whoever is asked may take any time for the answer, so that is before the lock, and about no more than was named.
    let named = if arguments.yes { None } else { Some(arguments.volumes(host, &desired)?) };
    if let Some(named) = named.as_ref().filter(|named| !named.is_empty()) {
        confirm(&desired.project, named)?;
    }
    let lock = arguments.lock.take(host)?;
    let volumes = match named {
        Some(named) => named,
        None => arguments.volumes(host, &desired)?,
    };
    let (proposal, _) = planning::propose(host, desired, policy(volumes))?;
    planning::ensure_allowed(&proposal.plan)?;
    host.forget(&proposal.desired.project).map_err(Failure::engine)?;
    let (exit, _) = session.carry_out(&proposal.plan, Beforehand::default(), output)?;
    host.remember_followed(&project, Tags::new()).map_err(Failure::engine)?;
    host.tidy(&lock).map_err(Failure::engine)?;
    Ok(exit)
}

fn policy(expendable_volumes: BTreeSet<ResourceName>) -> Policy {
    Policy { mass_removal: MassRemoval::Allow, expendable_volumes, ..Policy::default() }
}

impl DownArguments {
    /// Those that go with the project.
    fn volumes(&self, host: &Host, desired: &Desired) -> Result<BTreeSet<ResourceName>, Failure> {
        if !self.volumes {
            return Ok(BTreeSet::new());
        }
        let actual = planning::observe(host, desired)?;
        Ok(actual.volumes.keys().filter(|key| key.project == desired.project).map(|key| key.name.clone()).collect())
    }
}

/// Asks on a terminal. Elsewhere there is nobody to ask, and no answer is a no.
fn confirm(project: &Whose, volumes: &BTreeSet<ResourceName>) -> Result<(), Failure> {
    let names: Vec<String> = volumes.iter().map(|name| format!("`{name}`")).collect();
    let noun = if names.len() == 1 { "volume" } else { "volumes" };
    let named = format!("{noun} {}", names.join(", "));
    let refused =
        || Failure::new(format!("the removal of {named} was not confirmed, and nothing was done")).exit(Exit::Refused);
    if !terminal::is_interactive() {
        return Err(
            refused().hint(format!("add `--yes` to remove the {noun} too, or leave `--volumes` out to keep it all"))
        );
    }
    let question = format!("Remove project {project} and the data in {named}? Type `yes`: ");
    let mut stderr = std::io::stderr();
    stderr.write_all(question.as_bytes())?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == "yes" { Ok(()) } else { Err(refused()) }
}
