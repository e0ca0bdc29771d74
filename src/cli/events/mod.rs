//! `evenkeel events`: what happens to containers, images, networks and volumes, and who does it. Not `evenkeel runtime
//! events`, which is runc's and tells what one container uses.
//!
//! ```text
//! ROOT/events ── journal::Reader ──> since, until, filters ──> a line each, as Docker writes it
//!      └ inotify(7): there is more
//! ```
//!
//! # Decisions
//! * As with Docker, without `--since` and `--until` the past is left out, and without an `--until` that has passed the future
//!   is waited for. What Docker forgets, with its daemon or after 256 events, is kept.
//! * Ctrl-C is how this ends, so that is a success.

mod filter;
mod shown;

use std::fs::{self, Metadata};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::bell::{Bell, timespec};
use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::Output;
use super::past;
use super::terminal::Signals;
use crate::engine::files;
use crate::journal::{Journal, Reader, Start};
use crate::model::event::Event;
use filter::{FILTER_HELP, Filter};
use shown::Shape;

#[derive(Debug, Args)]
pub struct EventsArguments {
    /// Also what happened since then: `10m`, or a moment such as 2026-11-21T04:05:06Z or 2026-11-21, or Unix time
    #[arg(long, value_name = "TIME", value_parser = past::moment)]
    since: Option<SystemTime>,

    /// Only what happens until then
    #[arg(long, value_name = "TIME", value_parser = past::moment)]
    until: Option<SystemTime>,

    /// Only those that fit; several of one key are alternatives, of several keys all must fit
    #[arg(short, long, value_name = "KEY=VALUE", long_help = FILTER_HELP)]
    filter: Vec<Filter>,

    /// As a template says, in Docker's words: '{{.Type}} {{.Actor.Attributes.name}}', or `json`
    #[arg(long, value_name = "TEMPLATE", value_parser = shown::template, conflicts_with = "json")]
    format: Option<Shape>,
}

pub fn run(arguments: &EventsArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    if let (Some(since), Some(until)) = (arguments.since, arguments.until)
        && until < since
    {
        return Err(Failure::usage("`--until` is before `--since`"));
    }
    let named = context.named_project()?;
    let filters: Vec<Filter> = arguments.filter.iter().cloned().chain(named.as_ref().map(Filter::of_project)).collect();
    let wanted = Wanted { filters, since: arguments.since, until: arguments.until };
    let is_over = |now: SystemTime| arguments.until.is_some_and(|until| until <= now);
    let is_past = is_over(SystemTime::now());
    let journal = Journal::new(&context.paths.events());
    let cannot = |error: std::io::Error| {
        Failure::from(error).context(format!("cannot read the events in `{}`", journal.directory().display()))
    };
    let mut follower = if is_past { None } else { Some(Follower::begin(&journal, context)?) };
    let start = if arguments.since.is_some() || arguments.until.is_some() { Start::Beginning } else { Start::End };
    let mut reader = Reader::open(&journal, start).map_err(cannot)?;
    loop {
        reader.read(|event| match wanted.takes(&event) {
            true => shown::show(&event, arguments.format.as_ref(), output),
            false => Ok(()),
        })?;
        let Some(at_work) = follower.as_mut().filter(|_| !is_over(SystemTime::now())) else { return Ok(Exit::Done) };
        match at_work.wait(arguments.until, context)? {
            Woken::Something => {}
            Woken::Signal(Signal::SIGINT) => return Ok(Exit::Done),
            Woken::Signal(other) => {
                // It is let through again, and ends us as if nobody had watched.
                follower = None;
                kill(Pid::this(), other)?;
            }
        }
    }
}

/// Which events are shown. A manifest that was named with `-f` before the command narrows them to its project.
struct Wanted {
    filters: Vec<Filter>,
    since: Option<SystemTime>,
    until: Option<SystemTime>,
}

impl Wanted {
    fn takes(&self, event: &Event) -> bool {
        let at = event.at();
        let is_in_time = self.since.is_none_or(|since| since <= at) && self.until.is_none_or(|until| at <= until);
        is_in_time && filter::fits(&self.filters, event)
    }
}

/// Wakes when there may be more to read.
struct Follower {
    signals: Signals,
    journal: Journal,
    bell: Bell,
    /// What the bell hangs at.
    directory: Metadata,
}

#[derive(Debug, PartialEq, Eq)]
enum Woken {
    Something,
    Signal(Signal),
}

impl Follower {
    /// Before anything is read, so that nothing is missed between.
    fn begin(journal: &Journal, context: &Context) -> Result<Follower, Failure> {
        let (bell, directory) = hang(journal, context)?;
        Ok(Follower { signals: Signals::take()?, journal: journal.clone(), bell, directory })
    }

    /// Until something was told, the time has come, or a signal came that ends a process.
    fn wait(&mut self, until: Option<SystemTime>, context: &Context) -> Result<Woken, Failure> {
        let left = until.map(|until| until.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO));
        let mut polled =
            [PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN), PollFd::new(&self.bell, PollFlags::IN)];
        match poll(&mut polled, left.map(timespec).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(signal) = self.signals.next()? {
            if signal != Signal::SIGWINCH {
                return Ok(Woken::Signal(signal));
            }
        }
        self.bell.silence()?;
        let is_there = fs::metadata(self.journal.directory()).is_ok_and(|found| is_same(&found, &self.directory));
        if !is_there {
            (self.bell, self.directory) = hang(&self.journal, context)?;
        }
        Ok(Woken::Something)
    }
}

/// At the directory of the journal, which is made where nothing happened yet, or somebody took it away, and at the state
/// root, where it appears again if somebody does that later.
fn hang(journal: &Journal, context: &Context) -> Result<(Bell, Metadata), Failure> {
    let cannot = |error: std::io::Error| {
        Failure::from(error).context(format!("cannot follow the events in `{}`", journal.directory().display()))
    };
    files::create_directories(&context.paths.root).map_err(Failure::engine)?;
    journal.make_directory().map_err(cannot)?;
    let directory = fs::metadata(journal.directory()).map_err(cannot)?;
    Ok((Bell::of([journal.directory().to_owned(), context.paths.root.clone()])?, directory))
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}
