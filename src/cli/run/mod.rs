//! `evenkeel run` and `evenkeel create`: a container beside what is declared, for a look or a job.
//!
//! ```text
//! options ── declaration ──> manifest of one container ──> Desired ── by_hand ──> plan, execute
//!                                                                └── foreground ──> our stdin, stdout, stderr
//! ```
//!
//! # Decisions
//! * Options become a manifest, and the manifest's parser reads it: a value means the same in both places, and a mistake
//!   is told in the same words.
//! * Such a container belongs to nobody ([`Whose::Nobody`]). No project's plan is about it, and it has a network
//!   `default` of its own kind.
//! * Ports without an address bind 127.0.0.1, as in manifests, and not every address, as Docker has it.
//! * Exit codes are Docker's: the command's own, 127 when it is not there, 126 when it cannot be executed, 125 when it
//!   did not come to that.

pub mod arguments;
mod cidfile;
pub mod declaration;
pub mod foreground;
mod identifier;
pub mod mistakes;
mod mounts;
mod networks;
mod of_image;
mod ports;
pub mod unsupported;
mod volumes_from;

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};

use super::apply::Session;
use super::console::{ConsoleSettings, SignalProxy};
use super::context::{Context, variable};
use super::detach_keys::{self, DetachKeys};
use super::failure::{Exit, Failure};
use super::output::{Format, Output};
use super::{by_hand, planning};
use crate::engine::lock::Lock;
use crate::manifest::{self, Source};
use crate::model::action::Action;
use crate::model::actual::Actual;
use crate::model::container::{AfterEnd, RunState};
use crate::model::id::{ContainerId, Ids, Instance, ResourceName, VolumeKey, Whose};
use crate::model::record::ContainerRecord;
use crate::model::restart::RestartCondition;
use crate::plan::{self, Policy};
use crate::reconcile::fetch::{Fetched, Fetches};
use arguments::ContainerArguments;
use cidfile::CidFile;
use foreground::{Foreground, Streams};
use ports::Taken;

#[derive(Debug, Args)]
#[command(override_usage = "evenkeel run [OPTIONS] <IMAGE> [COMMAND]...")]
pub struct RunArguments {
    /// Come back when it runs, and print its id
    #[arg(short, long)]
    detach: bool,

    /// Only these of stdin, stdout and stderr; the first with `-i` [default: all]
    #[arg(short, long, value_name = "STREAM", conflicts_with = "detach")]
    attach: Vec<Stream>,

    /// Whether signals that this command gets are passed on
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    sig_proxy: bool,

    /// The keys that leave its terminal and let it go on
    #[arg(long, value_name = "KEYS", default_value = detach_keys::DEFAULT)]
    detach_keys: DetachKeys,

    #[command(flatten)]
    pub container: ContainerArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stream {
    #[value(alias = "STDIN")]
    Stdin,
    #[value(alias = "STDOUT")]
    Stdout,
    #[value(alias = "STDERR")]
    Stderr,
}

#[derive(Debug, Args)]
#[command(override_usage = "evenkeel create [OPTIONS] <IMAGE> [COMMAND]...")]
pub struct CreateArguments {
    #[command(flatten)]
    pub container: ContainerArguments,
}

pub fn run(arguments: &RunArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let ContainerArguments { interactive, tty, cidfile, .. } = &arguments.container;
    if *interactive && *tty && !arguments.detach && !io::stdin().is_terminal() {
        return Err(Failure::usage("`-i` with `-t` needs a terminal at standard input").hint("leave `-t` out"));
    }
    let cidfile = CidFile::take(cidfile.as_deref())?;
    let session = Session::open(context)?;
    let (lock, proposal) = propose(&arguments.container, RunState::Running, &session, context, output)?;
    let record = &proposal.record;
    if arguments.detach {
        proposal.execute(&session, cidfile, output)?;
        return announce(&record.id, output);
    }
    let is_ours = |stream| arguments.attach.is_empty() || arguments.attach.contains(&stream);
    let streams = Streams {
        stdin: *interactive && is_ours(Stream::Stdin),
        stdout: is_ours(Stream::Stdout),
        stderr: is_ours(Stream::Stderr),
        terminal: *tty,
    };
    let foreground = Foreground::prepare(&context.paths, &record.id, streams)?;
    if let Err(failure) = proposal.execute(&session, cidfile, output) {
        return Err(foreground.give_up(&session, lock, record, failure));
    }
    if !streams.stdout && !streams.stderr {
        announce(&record.id, output)?;
    }
    let proxy = if arguments.sig_proxy { SignalProxy::On } else { SignalProxy::Off };
    let settings = ConsoleSettings { proxy, detach_keys: arguments.detach_keys.clone() };
    foreground.go(session, lock, settings, record, output)
}

pub fn create(arguments: &CreateArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let cidfile = CidFile::take(arguments.container.cidfile.as_deref())?;
    let session = Session::open(context)?;
    let (lock, proposal) = propose(&arguments.container, RunState::Stopped, &session, context, output)?;
    proposal.execute(&session, cidfile, output)?;
    drop(lock);
    announce(&proposal.record.id, output)
}

fn announce(id: &ContainerId, output: &Output) -> Result<Exit, Failure> {
    match output.format() {
        Format::Json => output.document(&serde_json::json!({ "id": id }))?,
        Format::Text => output.text(&format!("{id}\n"))?,
    }
    Ok(Exit::Done)
}

/// A plan, and the lock under which it holds. An image that is not here is fetched before, without the lock: a registry
/// takes its time, and others have containers to start.
fn propose(
    arguments: &ContainerArguments,
    state: RunState,
    session: &Session,
    context: &Context,
    output: &Output,
) -> Result<(Lock, Proposal), Failure> {
    let lock = by_hand::lock(session, output)?;
    let proposal = Proposal::of(arguments, state, session, context)?;
    let Some(fetches) = Fetches::of(&proposal.plan, &Fetched::default()) else { return Ok((lock, proposal)) };
    drop(lock);
    by_hand::execute_plan(session, &fetches.part, output)?;
    let lock = by_hand::lock(session, output)?;
    Ok((lock, Proposal::of(arguments, state, session, context)?))
}

/// A plan for one new container.
struct Proposal {
    plan: plan::Plan,
    record: ContainerRecord,
}

impl Proposal {
    fn of(
        arguments: &ContainerArguments,
        state: RunState,
        session: &Session,
        context: &Context,
    ) -> Result<Proposal, Failure> {
        let before = by_hand::observe(&session.host)?;
        let unique = format!("{:04x}", planning::seed() as u16);
        let name = name(arguments, &unique, &before)?;
        let mut taken = Taken::of(&before);
        let declaration = declaration::declare(arguments, (name.as_str(), &unique), &context.paths, &mut taken)?;
        let text = toml::to_string(&declaration.manifest).map_err(Failure::from)?;
        let source = Source { path: "evenkeel run".into(), text };
        let told = |problems| mistakes::explain(&problems, &source.path, &source.text);
        let mut desired = manifest::load_text(source.clone(), &variable).map_err(told)?.desired;
        desired.project = Whose::Nobody;
        for (name, spec) in &mut desired.volumes {
            // One that is there stays as it is.
            if let Some(volume) = before.volumes.get(&VolumeKey { project: Whose::Nobody, name: name.clone() }) {
                *spec = volume.record.spec.clone();
            }
        }
        networks::lend(&declaration.network, &before, &name, &mut desired, context)?;
        volumes_from::lend(&arguments.storage.volumes_from, &before, &name, &mut desired, context)?;
        of_image::publish_all(&arguments.network, &name, &mut desired, session, &mut taken)?;
        of_image::inherit_check(&arguments.life, &name, &mut desired, session)?;
        for container in desired.containers.values_mut() {
            if arguments.rm && container.spec.restart.condition != RestartCondition::No {
                return Err(Failure::usage(
                    "`--rm` and `--restart` exclude each other: one is removed, or started again",
                ));
            }
            container.spec.state = state;
            container.after_end = if arguments.rm { AfterEnd::Remove } else { AfterEnd::Keep };
        }
        let actual = planning::observe(&session.host, &desired)?;
        let policy = Policy { targets: [name].into(), ..Policy::default() };
        let plan = plan::plan(&desired, &actual, &policy, &mut Ids::from_seed(planning::seed()));
        planning::ensure_allowed(&plan)?;
        let record = plan.steps.iter().find_map(|step| match &step.action {
            Action::CreateContainer { record } => Some((**record).clone()),
            _ => None,
        });
        // A name that nobody has, with a plan that is allowed, is a container to be made.
        let record = record.ok_or_else(|| Failure::new("the plan makes no container"))?;
        Ok(Proposal { plan, record })
    }

    /// One that is there and could not be started is in `cidfile` too.
    fn execute(&self, session: &Session, cidfile: Option<CidFile>, output: &Output) -> Result<(), Failure> {
        let executed = by_hand::execute_plan(session, &self.plan, output);
        let is_there = executed.is_ok() || session.host.paths().container(&self.record.id).exists();
        cidfile.filter(|_| is_there).map_or(Ok(()), |cidfile| cidfile.write(&self.record.id))?;
        executed
    }
}

/// The name that was given, which nobody else on this host may have; or that of the image with digits behind it.
fn name(arguments: &ContainerArguments, unique: &str, actual: &Actual) -> Result<ResourceName, Failure> {
    let Some(written) = &arguments.name else {
        let of_image: String = arguments
            .image()
            .split('@')
            .next()
            .and_then(|image| image.rsplit('/').next())
            .and_then(|image| image.split(':').next())
            .unwrap_or_default()
            .to_ascii_lowercase()
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            .take(50)
            .collect();
        let base = of_image.trim_start_matches(['-', '_']);
        let name = format!("{}-{unique}", if base.is_empty() { "run" } else { base });
        return name.parse().map_err(Failure::from);
    };
    let name: ResourceName =
        written.parse().map_err(|error| Failure::from(error).context(format!("`{written}` is not a name")))?;
    let instance = Instance { container: name.clone(), replica: 1 };
    match actual.containers.values().find(|container| container.record.instance == instance) {
        None => Ok(name),
        Some(other) => {
            let other = &other.record;
            let failure = Failure::new(format!("the name `{name}` is taken by container {}", other.full_name()));
            Err(match other.project {
                Whose::Nobody => failure.hint(format!("`evenkeel rm {name}` removes it")),
                Whose::Project(_) => failure.hint("choose another name"),
            })
        }
    }
}
