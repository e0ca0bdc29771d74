//! `evenkeel watch`: keeps the host as declared, for as long as it runs.
//!
//! Here the loop of [`crate::reconcile::watch`] gets its surroundings: manifests, the lock, the state root, signals.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Instant;

use clap::Args;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::context::Context;
use super::failure::{Exit, Failure};
use super::planning;
use crate::engine::host::Host;
use crate::engine::network::events::Events;
use crate::manifest;
use crate::model::desired::Desired;
use crate::model::units::Timespan;
use crate::reconcile::report::causes;
use crate::reconcile::watch::pace::{Pace, Times};
use crate::reconcile::watch::round::{Rounds, Surroundings};
use crate::reconcile::watch::service::Service;
use crate::reconcile::watch::{self, wake};

#[derive(Debug, Args)]
pub struct WatchArguments {
    /// A manifest, or a directory of manifests; repeat it to overlay [default: ./evenkeel.toml, else /etc/evenkeel]
    #[arg(short, long = "file", value_name = "PATH")]
    pub files: Vec<PathBuf>,

    /// Look at everything at least this often, whether something was heard of it or not
    #[arg(long, value_name = "TIME", default_value = "30s")]
    interval: Timespan,
}

pub fn run(arguments: &WatchArguments, context: &Context) -> Result<Exit, Failure> {
    // Before the first thread: signals are heard on one of their own.
    wake::block_signals()?;
    let host = context.host()?;
    let (to, wakes) = mpsc::channel();
    wake::on_signals(to.clone())?;
    let watched = Watched::new(wake::on_manifests(&[], to.clone())?);
    let inputs = inputs(context)?;
    watched.directories_of(&inputs)?;
    let paths = host.paths().clone();
    let _containers = wake::on_containers(&paths.run.join("containers"), &paths.containers(), to.clone())?;
    wake::on_kernel(Events::open()?, to)?;

    let surroundings = Surroundings {
        load: &|| load(context, &watched),
        recall: &|| recall(&host, &inputs),
        remember: &|desired| remember(&host, &inputs, desired),
        lock: &|patience| lock(&host, patience),
        seed: &planning::seed,
    };
    let mut rounds = Rounds::new(&host, surroundings);
    let times = Times { interval: arguments.interval.to_duration(), ..Times::default() };
    let mut pace = Pace::new(times, Instant::now());
    tracing::info!(root = %paths.root.display(), "watching");
    watch::run(&mut rounds, &wakes, &Service::from_environment(), &mut pace);
    Ok(Exit::Done)
}

/// What was named, or else the default that is there; absolute, since they are known by it in the state root.
fn inputs(context: &Context) -> Result<Vec<PathBuf>, Failure> {
    let inputs = match context.files.is_empty() {
        false => context.files.clone(),
        true => manifest::default_inputs(),
    };
    if inputs.is_empty() {
        return Err(Failure::new("there is no manifest to watch: neither `./evenkeel.toml` nor `/etc/evenkeel`")
            .hint("name one with `-f PATH`"));
    }
    if inputs.iter().any(|input| manifest::is_standard_input(input)) {
        return Err(Failure::new("standard input cannot be watched").hint("name a file or a directory with `-f PATH`"));
    }
    Ok(inputs.iter().map(std::path::absolute).collect::<Result<_, _>>()?)
}

fn load(context: &Context, watched: &Watched) -> Result<Desired, String> {
    let loaded = manifest::load(&context.files, &super::context::variable)
        .map_err(|problems| problems.render(manifest::Colour::Plain))?;
    if let Err(failure) = watched.directories_of(&loaded.files) {
        tracing::warn!("edits may go unnoticed until SIGHUP: {failure}");
    }
    Ok(loaded.desired)
}

fn lock(host: &Host, patience: std::time::Duration) -> Result<Box<dyn Send>, String> {
    host.lock(patience).map(|lock| Box::new(lock) as Box<dyn Send>).map_err(|error| causes(&error).join(": "))
}

/// A memory that cannot be read is none, and one that cannot be kept is no reason not to apply.
fn recall(host: &Host, inputs: &[PathBuf]) -> Option<Desired> {
    host.recall(inputs).unwrap_or_else(|error| {
        tracing::warn!("{}", causes(&error).join(": "));
        None
    })
}

fn remember(host: &Host, inputs: &[PathBuf], desired: &Desired) {
    if let Err(error) = host.remember(inputs, desired) {
        tracing::warn!("{}", causes(&error).join(": "));
    }
}

/// The directories that are watched: they grow with what manifests name, such as files of variables.
struct Watched {
    state: Mutex<(RecommendedWatcher, BTreeSet<PathBuf>)>,
}

impl Watched {
    fn new(watcher: RecommendedWatcher) -> Watched {
        Watched { state: Mutex::new((watcher, BTreeSet::new())) }
    }

    /// Watches directories as such, and those in which files lie.
    fn directories_of(&self, paths: &[PathBuf]) -> Result<(), notify::Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (watcher, known) = &mut *state;
        for path in paths {
            let directory = if path.is_dir() { path.clone() } else { parent(path) };
            if !known.contains(&directory) {
                watcher.watch(&directory, RecursiveMode::NonRecursive)?;
                known.insert(directory);
            }
        }
        Ok(())
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_file_name_lies_in_the_working_directory() {
        assert_eq!(parent(Path::new("evenkeel.toml")), Path::new("."));
        assert_eq!(parent(Path::new("/etc/evenkeel/a.toml")), Path::new("/etc/evenkeel"));
    }
}
