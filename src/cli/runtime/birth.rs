//! Making a container, as `create` and `run` do.

use std::path::PathBuf;

use clap::Args;
use oci_spec::runtime::Spec;

use super::bundle::{self, Bundle};
use super::death;
use super::handover::{self, Attendance, HandoverArguments, Standard};
use super::log::{Log, failure};
use super::store::{Container, Store};
use crate::cli::failure::Failure;
use crate::model::launch::RootFilesystem;
use crate::runtime::cgroup;
use crate::runtime::gate::Gate;
use crate::runtime::launch::{self, Caller, Created, FirstProcess, Keyring, Request};

#[derive(Debug, Args)]
pub struct CreateArguments {
    /// The container's id: a name that no other container of this root has
    #[arg(value_name = "ID")]
    pub id: String,

    /// The directory of config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,

    #[command(flatten)]
    pub handover: HandoverArguments,

    /// Move the root filesystem over the host's in place of pivot_root(2): not supported
    #[arg(long)]
    pub no_pivot: bool,

    /// Leave the process in the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
}

/// Who says the word to execute the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starter {
    /// This process.
    Us,
    /// `start`, later.
    Another,
}

/// A container whose process waits. The record says so.
pub struct Birth {
    pub container: Container,
    pub spec: Spec,
    pub created: Created,
}

/// Makes a container, or undoes what of it was made.
pub fn create(
    arguments: &CreateArguments,
    attendance: Attendance,
    starter: Starter,
    (store, log): (&Store, &Log),
) -> Result<Birth, Failure> {
    handover::get_ready()?;
    let id = &arguments.id;
    let cannot = |failure: Failure| failure.context(format!("cannot create the container `{id}`"));
    if arguments.no_pivot {
        let failure = Failure::new("`--no-pivot` is not supported: a container could get back to the host's root");
        return Err(cannot(failure.hint("put the root filesystem on something else than the initial ramfs")));
    }
    let mut bundle = bundle::read(&arguments.bundle, id).map_err(cannot)?;
    bundle.warnings.iter().for_each(|warning| log.warn(warning));
    handover::check_terminal(bundle.spec.process().as_ref(), &arguments.handover, attendance).map_err(cannot)?;
    let keyring = if arguments.no_new_keyring { Keyring::Inherited } else { Keyring::New };
    let (inheritance, variables) = handover::inheritance(&arguments.handover, keyring)?;
    prepare(&mut bundle.spec, variables, attendance).map_err(cannot)?;
    let mut container = store.create(id, &bundle)?;
    let caller = Caller { inheritance, ..Caller::default() };
    match launch(&mut container, &bundle, caller, (starter, attendance)) {
        Ok(created) => {
            for warning in created.warnings() {
                log.warn(&warning.to_string());
            }
            log.debug(&format!("created the container `{id}`, process {}", created.pid()));
            Ok(Birth { container, spec: bundle.spec, created })
        }
        Err((reached, failure)) => {
            match reached {
                Reached::Record => death::forget(&container, log),
                Reached::Cgroup => death::undo(&container, log),
                Reached::Process => death::bury(&container, bundle.spec.hooks().as_ref(), log),
            }
            Err(cannot(failure))
        }
    }
}

/// How far it came: once there is a process, its end is one of a container, with hooks.
enum Reached {
    /// The cgroup, if there is one, is another's.
    Record,
    Cgroup,
    Process,
}

fn launch(
    container: &mut Container,
    bundle: &Bundle,
    caller: Caller<'_>,
    (starter, attendance): (Starter, Attendance),
) -> Result<Created, (Reached, Failure)> {
    let before = |failure| (Reached::Cgroup, failure);
    let after = |failure| (Reached::Process, failure);
    refuse_occupied(bundle).map_err(|failure| (Reached::Record, failure))?;
    let state = container.state().map_err(before)?;
    let gate = match starter {
        Starter::Us => None,
        Starter::Another => Some(Gate::make(&container.directory).map_err(|error| before(failure(error)))?),
    };
    let standard = Standard::take().map_err(|error| before(error.into()))?;
    let request = Request {
        spec: &bundle.spec,
        root: &RootFilesystem::Directory(bundle.root.clone()),
        directories: &[],
        stdio: standard.stdio(bundle.spec.process().as_ref(), attendance),
        identity: None,
        first: FirstProcess::Command,
        caller: Caller { state: Some(&state), gate: gate.as_ref(), ..caller },
    };
    let begun = launch::begin(&request).map_err(|error| before(failure(error)))?;
    container.record_process(begun.pid()).map_err(after)?;
    let maker = begun.pid();
    let first = begun.first().map_err(|error| after(failure(error)))?;
    // Before it goes on: it may wait for its start for ever, with nobody who knows of it.
    if first.pid() != maker {
        container.record_process(first.pid()).map_err(after)?;
    }
    let created = first.finish().map_err(|error| after(failure(error)))?;
    container.record_complete().map_err(after)?;
    Ok(created)
}

/// Two containers in one cgroup would pause and end each other, and what is born in a frozen one says no word.
fn refuse_occupied(bundle: &Bundle) -> Result<(), Failure> {
    let linux = bundle.spec.linux().as_ref();
    let Some(path) = linux.and_then(|linux| linux.cgroups_path().as_ref()) else { return Ok(()) };
    let cgroup = cgroup::open(&cgroup::detect().map_err(failure)?, path);
    if cgroup.is_frozen() {
        return Err(Failure::new(format!("the cgroup `{}` is there already, and frozen", path.display()))
            .hint("remove it, or thaw it: freezer.state, or cgroup.freeze in version 2"));
    }
    match cgroup.processes().map_err(failure)?.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(format!("there are processes in the cgroup `{}` already", path.display()))
            .hint("`linux.cgroupsPath` must be the container's own")),
    }
}

/// What the caller has to say beside the configuration.
fn prepare(spec: &mut Spec, variables: Vec<String>, attendance: Attendance) -> Result<(), Failure> {
    let Some(mut process) = spec.process().clone() else { return Ok(()) };
    handover::size_terminal(&mut process, attendance)?;
    if !variables.is_empty() {
        let environment = process.env().iter().flatten().cloned().chain(variables).collect();
        process.set_env(Some(environment));
    }
    spec.set_process(Some(process));
    Ok(())
}
