//! `evenkeel logs`: what containers wrote, several of them in the order of time.
//!
//! What a container wrote to its standard error goes to ours. Entries are read from the log files; no monitor is
//! asked, so this works for containers that have ended, and following costs the monitors nothing: inotify(7) says
//! when there is more.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;

use super::bell::{Bell, Rang};
use super::context::Context;
use super::failure::{Exit, Failure};
use super::inventory::Inventory;
use super::log_printer::{Look, Printer};
use super::output::Output;
use super::past;
use super::select;
use crate::model::actual::Liveness;
use crate::model::record::ContainerRecord;
use crate::monitor::logs::{Lost, Passage, Reader, Selection};

#[derive(Debug, Args)]
pub struct LogsArguments {
    /// A manifest whose project decides between equal names
    #[arg(long = "file", value_name = "PATH")]
    pub files: Vec<PathBuf>,

    /// Go on with what they write from now on, until they end
    #[arg(short, long)]
    follow: bool,

    /// Only the last lines of each: a number, or `all`
    #[arg(
        short = 'n', long, value_name = "LINES", default_value = "all", value_parser = tail,
        allow_negative_numbers = true
    )]
    tail: Tail,

    /// Only what is younger: `10m`, or a moment such as 2026-11-21T04:05:06Z or 2026-11-21, or Unix time
    #[arg(long, value_name = "TIME", value_parser = past::moment)]
    since: Option<SystemTime>,

    /// Only what is not younger; with `--follow` a moment to come ends it
    #[arg(long, value_name = "TIME", value_parser = past::moment)]
    until: Option<SystemTime>,

    /// Begin each line with its time
    #[arg(short, long)]
    timestamps: bool,

    /// Only these containers; a name without a number means all its replicas
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// How many of the last lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    All,
    Lines(usize),
}

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail::All),
        number => match number.parse::<i64>() {
            // As Docker has it.
            Ok(..0) => Ok(Tail::All),
            Ok(lines) => Ok(Tail::Lines(usize::try_from(lines).unwrap_or(usize::MAX))),
            Err(_) => Err("expected a number of lines, or `all`".to_owned()),
        },
    }
}

/// The log of one container, with what is next in it.
struct Source<'a> {
    record: &'a ContainerRecord,
    reader: Reader,
    until: Option<SystemTime>,
    /// What was read ahead because only the last of it is wanted. Nothing is read behind it.
    last: Option<VecDeque<Passage>>,
    next: Option<Passage>,
}

impl<'a> Source<'a> {
    fn open(record: &'a ContainerRecord, arguments: &LogsArguments, context: &Context) -> Result<Source<'a>, Failure> {
        let tail = match arguments.tail {
            Tail::All => None,
            Tail::Lines(lines) => Some(lines),
        };
        // The last lines before a moment are not the last ones there are, but for a moment to come.
        let before = arguments.until.filter(|until| *until < SystemTime::now());
        let selection = Selection { tail: tail.filter(|_| before.is_none()), since: arguments.since };
        let reader = Reader::open(&context.paths.container_logs(&record.id), &selection)?;
        let mut source = Source { record, reader, until: arguments.until, last: None, next: None };
        if let (Some(count), Some(_)) = (tail, before) {
            let mut last = VecDeque::new();
            let mut entries = 0;
            while let Some(passage) = source.read()? {
                entries += usize::from(matches!(passage, Passage::Entry(_)));
                last.push_back(passage);
                while entries > count {
                    entries -= usize::from(matches!(last.pop_front(), Some(Passage::Entry(_))));
                }
            }
            source.last = Some(last);
        }
        Ok(source)
    }

    fn read(&mut self) -> Result<Option<Passage>, Failure> {
        match &mut self.last {
            Some(last) => Ok(last.pop_front()),
            None => Ok(self.reader.next()?.filter(|passage| self.until.is_none_or(|until| passage.time() <= until))),
        }
    }
}

pub fn run(arguments: &LogsArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let inventory = Inventory::read(context.paths.clone())?;
    let chosen = select::many(inventory.records(), &arguments.names, &|| context.tie_break())?;
    let sources = chosen.iter().map(|record| Source::open(record, arguments, context));
    let mut sources = sources.collect::<Result<Vec<_>, Failure>>()?;
    let names = chosen.iter().map(|record| record.full_name()).collect();
    let mut printer = Printer::new(names, Look { timestamps: arguments.timestamps, format: output.format() });
    let directories = || chosen.iter().map(|record| context.paths.container_logs(&record.id));
    let bell = if arguments.follow { Some(Bell::of(directories())?) } else { None };
    loop {
        while let Some((number, passage)) = earliest(&mut sources)? {
            match passage {
                Passage::Entry(entry) => printer.print(number, &entry)?,
                Passage::Lost(lost) => output.warning(&gap(printer.make_room(number)?, &lost)),
            }
        }
        printer.flush()?;
        match &bell {
            None => return Ok(Exit::Done),
            Some(_) if arguments.until.is_some_and(|until| until < SystemTime::now()) => return Ok(Exit::Done),
            Some(bell) => {
                if bell.wait(Some(QUIET))? == Rang::Nothing
                    && all_over(&sources, &inventory)
                    && !has_more(&mut sources)?
                {
                    return Ok(Exit::Done);
                }
            }
        }
    }
}

/// What was written first among what comes next, and whose it is.
fn earliest(sources: &mut [Source<'_>]) -> Result<Option<(usize, Passage)>, Failure> {
    has_more(sources)?;
    let first = (0..sources.len())
        .filter_map(|number| sources[number].next.as_ref().map(|passage| (passage.time(), number)))
        .min()
        .map(|(_, number)| number);
    Ok(first.and_then(|number| sources[number].next.take().map(|passage| (number, passage))))
}

/// Fetches what comes next of every source that has nothing at hand.
fn has_more(sources: &mut [Source<'_>]) -> Result<bool, Failure> {
    for source in sources.iter_mut().filter(|source| source.next.is_none()) {
        source.next = source.read()?;
    }
    Ok(sources.iter().any(|source| source.next.is_some()))
}

/// That files were rotated away before they could be read.
fn gap(name: &str, lost: &Lost) -> String {
    let files = match lost.files {
        1 => "a log file was".to_owned(),
        files => format!("{files} log files were"),
    };
    let (from, to) = (humantime::format_rfc3339_millis(lost.from), humantime::format_rfc3339_millis(lost.to));
    format!(
        "{files} rotated away unread: what `{name}` wrote between {from} and {to} is missing here; \
         `logging.max_size` and `logging.max_files` say how much is kept"
    )
}

/// Whether none of them will write any more: no monitor runs. One that waits for its restart has a monitor.
fn all_over(sources: &[Source<'_>], inventory: &Inventory) -> bool {
    sources.iter().all(|source| !matches!(inventory.liveness(source.record), Ok(Liveness::Monitored(_))))
}

/// It rings no more often than this where it is quiet.
const QUIET: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_a_number_or_all() {
        assert_eq!(tail("all"), Ok(Tail::All));
        assert_eq!(tail("0"), Ok(Tail::Lines(0)));
        assert_eq!(tail("-1"), Ok(Tail::All));
        assert!(tail("x").is_err());
    }
}
