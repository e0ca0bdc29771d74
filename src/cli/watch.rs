//! `evenkeel watch`: keeps the host as declared, for as long as it runs.
//!
//! Here the loop of [`crate::reconcile::watch`] gets its surroundings: manifests, the lock, the state root, signals.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use clap::Args;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::collecting::Collecting;
use super::context::Context;
use super::failure::{Exit, Failure};
use super::follow::{Following, Wanted};
use super::layers::Logged;
use super::{locking, planning};
use crate::engine::error::EngineError;
use crate::engine::followed::Tags;
use crate::engine::host::Host;
use crate::engine::network::events::Events;
use crate::manifest::{self, host};
use crate::model::desired::Desired;
use crate::model::id::Whose;
use crate::model::units::Timespan;
use crate::reconcile::report::causes;
use crate::reconcile::watch::pace::{Pace, Times};
use crate::reconcile::watch::places::Places;
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

    /// Ask registries about followed tags (`follow = "tag"`) this often
    #[arg(long, value_name = "TIME", default_value = "5m")]
    follow_interval: Timespan,
}

/// The loop has a thread of its own, which owns all that it needs: the program can end while a round still waits for
/// something.
pub fn run(arguments: WatchArguments, context: Context) -> Result<Exit, Failure> {
    // Before the first thread: signals are heard on one of their own.
    wake::block_signals()?;
    let (end, ended) = mpsc::channel();
    let leave = end.clone();
    std::thread::spawn(move || {
        // Nobody is left to hear the second of two ends.
        let leave = || drop(leave.send(Ok(Exit::Done)));
        drop(end.send(serve(&arguments, &context, &leave)));
    });
    ended.recv().unwrap_or_else(|_| Err(Failure::new("the loop panicked")))
}

fn serve(arguments: &WatchArguments, context: &Context, leave: &(dyn Fn() + Sync)) -> Result<Exit, Failure> {
    // A host file that cannot be read is a complaint, as a manifest is.
    let host = Arc::new(context.host_without_file()?.report_images_to(Box::new(Logged)));
    let (to, wakes) = mpsc::channel();
    wake::on_signals(to.clone())?;
    let places = Arc::new(Mutex::new(Places::default()));
    let watched = Watched::new(wake::on_manifests(Arc::clone(&places), to.clone())?, places);
    let inputs = inputs(context)?;
    let paths = host.paths().clone();
    let _containers = wake::on_containers(&paths.run.join("containers"), &paths.containers(), to.clone())?;
    wake::on_kernel(Events::open()?, to.clone())?;
    let following = Arc::new(Following::default());
    Arc::clone(&following).start(Arc::clone(&host), arguments.follow_interval.to_duration(), to)?;

    let collecting = Collecting::new(&host);
    let surroundings = Surroundings {
        ask_again: &|| host.ask_registries_again(),
        collect: &|desired| collecting.look(desired),
        load: &|| {
            let desired = load(context, (&host, &collecting), &inputs, &watched)?;
            in_force(context, &host, desired, &following)
        },
        recall: &|project| recall(&host, &inputs, project),
        remember: &|desired| remember(&host, &inputs, desired),
        lock: &|patience| lock(&host, patience),
        seed: &planning::seed,
        leave,
    };
    let mut rounds = Rounds::new(&*host, surroundings);
    let times = Times { interval: arguments.interval.to_duration(), ..Times::default() };
    let mut pace = Pace::new(times, Instant::now());
    tracing::info!(root = %paths.root.display(), "watching");
    watch::run(&mut rounds, &wakes, &Service::from_environment(), &mut pace);
    Ok(Exit::Done)
}

/// What is watched: there has to be something, and it has to last.
fn inputs(context: &Context) -> Result<Vec<PathBuf>, Failure> {
    if context.inputs().is_empty() {
        return Err(Failure::new("there is no manifest to watch: neither `./evenkeel.toml` nor `/etc/evenkeel`")
            .hint("name one with `-f PATH`"));
    }
    let cannot = || Failure::new("standard input cannot be watched").hint("name a file or a directory with `-f PATH`");
    context.lasting_inputs()?.ok_or_else(cannot)
}

/// The manifests as they are now, and with them the host file: of either the last good one goes on.
fn load(
    context: &Context,
    (host, collecting): (&Host, &Collecting<'_>),
    inputs: &[PathBuf],
    watched: &Watched,
) -> Result<Desired, String> {
    let read = || -> Result<manifest::Loaded, manifest::Problems> {
        let (config, _) = host::load_host(context.host_config.as_deref(), &super::context::variable)?;
        host.registries().replace(config.registries);
        collecting.configure(config.gc);
        manifest::load(&context.files, &super::context::variable)
    };
    let loaded = read();
    let host_file = context.host_config.clone().unwrap_or_else(|| PathBuf::from(host::DEFAULT));
    let lock = manifest::lock_path(inputs).and_then(|path| std::path::absolute(path).ok());
    let files = inputs.iter().chain([&host_file]).chain(&lock).cloned();
    let looked = match &loaded {
        Ok(loaded) => watched.look_at(files.chain(loaded.files.iter().cloned()).collect()),
        Err(_) => watched.look_also_at(files),
    };
    if let Err(failure) = looked {
        tracing::warn!("edits may go unnoticed until the next round or SIGHUP: {failure}");
    }
    loaded.map(|loaded| loaded.desired).map_err(|problems| problems.render(manifest::Colour::Plain))
}

/// The project as it is locked or followed. Its tags are followed from now on.
fn in_force(context: &Context, host: &Host, desired: Desired, following: &Following) -> Result<Desired, String> {
    let read = || {
        let wanted = Wanted::of(&desired.project, &desired.follow, locking::locks(context)?);
        Ok((wanted, locking::in_force(context, desired)?))
    };
    let (wanted, desired) = read().map_err(|failure: Failure| failure.plain().trim_end().to_owned())?;
    if let (None, Whose::Project(project)) = (&wanted, &desired.project) {
        // What is followed again one day begins anew.
        host.remember_followed(project, Tags::new()).map_err(|error| causes(&error).join(": "))?;
    }
    following.tell(wanted);
    Ok(desired)
}

fn lock(host: &Host, patience: Duration) -> Result<Option<Box<dyn Send>>, String> {
    match host.lock(patience) {
        Ok(lock) => Ok(Some(Box::new(lock))),
        Err(EngineError::Locked { .. }) => Ok(None),
        Err(error) => Err(causes(&error).join(": ")),
    }
}

/// A memory that cannot be read is none, and one that cannot be kept is no reason not to apply.
fn recall(host: &Host, inputs: &[PathBuf], project: Option<&Whose>) -> Option<Desired> {
    let recalled = project.map_or_else(|| host.recall_inputs(inputs), |project| host.recall(project));
    recalled.unwrap_or_else(|error| {
        tracing::warn!("{}", causes(&error).join(": "));
        None
    })
}

fn remember(host: &Host, inputs: &[PathBuf], desired: &Desired) -> bool {
    let remembered = host.remember(inputs, desired);
    if let Err(error) = &remembered {
        tracing::warn!("{}", causes(error).join(": "));
    }
    remembered.is_ok()
}

/// What is watched: it follows what manifests name, such as files of variables, and where links lead.
struct Watched {
    watcher: Mutex<RecommendedWatcher>,
    files: Mutex<BTreeSet<PathBuf>>,
    places: Arc<Mutex<Places>>,
}

impl Watched {
    fn new(watcher: RecommendedWatcher, places: Arc<Mutex<Places>>) -> Watched {
        Watched { watcher: Mutex::new(watcher), files: Mutex::default(), places }
    }

    /// These files and directories are watched, too. What a manifest that cannot be read names is not known: what it
    /// named before may be what has to be edited.
    fn look_also_at(&self, paths: impl Iterator<Item = PathBuf>) -> notify::Result<()> {
        let before = lock_of(&self.files).clone();
        self.look_at(before.into_iter().chain(paths).collect())
    }

    /// From now on these files and directories are watched, and nothing else.
    fn look_at(&self, paths: BTreeSet<PathBuf>) -> notify::Result<()> {
        let mut wanted = Places::default();
        for path in &paths {
            wanted.add(&std::path::absolute(path).map_err(notify::Error::io)?);
        }
        *lock_of(&self.files) = paths;
        let before = std::mem::replace(&mut *lock_of(&self.places), wanted.clone());
        let mut watcher = lock_of(&self.watcher);
        // A directory that is gone is not watched any more.
        before.directories.difference(&wanted.directories).for_each(|gone| drop(watcher.unwatch(gone)));
        // All of them, since another directory may have the name of one that was watched.
        for directory in &wanted.directories {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
        }
        Ok(())
    }
}

/// A thread that panicked has ended the process (`panic = "abort"`), or a test.
fn lock_of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
