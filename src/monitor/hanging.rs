//! What does not go on: the processes below a monitor that hold up an end or a start, as the kernel shows them.
//!
//! Looked at when something is overdue, never before, so it may read all of /proc.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use crate::model::foreign::tamed_line;

/// How many are named: the rest mostly waits for these.
const MOST: usize = 3;

/// A process that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hanging {
    pub pid: u32,
    /// Its name as it gave it to itself (proc(5), `comm`).
    pub name: String,
    /// The letter of proc_pid_stat(5).
    pub state: char,
    /// The function of the kernel that it waits in, where the kernel tells.
    pub place: Option<String>,
}

impl Hanging {
    /// Whether not even SIGKILL ends it.
    pub fn is_uninterruptible(&self) -> bool {
        self.state == 'D'
    }

    /// By a signal, or by a debugger.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }
}

impl fmt::Display for Hanging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            'D' => "is in uninterruptible sleep",
            'T' => "is stopped by a signal",
            't' => "is stopped by a debugger",
            'R' => "still runs",
            _ => "still sleeps",
        };
        write!(f, "process {} (`{}`) {state}", self.pid, self.name)?;
        self.place.as_ref().map_or(Ok(()), |place| write!(f, " in `{place}`"))
    }
}

/// All that hang, as the rest of a sentence.
pub(super) fn told(hanging: &[Hanging]) -> String {
    let all: Vec<String> = hanging.iter().map(Hanging::to_string).collect();
    if all.is_empty() { String::new() } else { format!(": {}", all.join(", ")) }
}

/// Of the monitor and what it has started, directly or not: those that cannot go on by themselves; where there is none,
/// those that have started no other. None where the monitor is not known or gone.
pub(super) fn below(monitor: Option<u32>) -> Vec<Hanging> {
    let Some(monitor) = monitor else { return Vec::new() };
    let numbers = fs::read_dir("/proc").into_iter().flatten();
    let numbers = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let processes: BTreeMap<u32, Line> = numbers.filter_map(|pid| Some((pid, read(pid)?))).collect();
    choose(&processes, monitor).into_iter().map(|(pid, line)| seen(pid, line.clone())).collect()
}

/// Those of `processes` that have not ended.
pub fn of(processes: impl IntoIterator<Item = u32>) -> Vec<Hanging> {
    let found = processes.into_iter().filter_map(|pid| Some((pid, read(pid)?)));
    found.filter(|(_, line)| lives(line)).map(|(pid, line)| seen(pid, line)).take(MOST).collect()
}

fn read(pid: u32) -> Option<Line> {
    // A process gives itself its name, which need not be text.
    line(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
}

fn seen(pid: u32, Line { name, state, parent: _ }: Line) -> Hanging {
    let place = fs::read_to_string(format!("/proc/{pid}/wchan")).ok();
    Hanging { pid, name, state, place: place.filter(|place| !matches!(place.as_str(), "" | "0")) }
}

fn lives(line: &Line) -> bool {
    !matches!(line.state, 'Z' | 'X')
}

/// What is of interest in /proc/PID/stat.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    name: String,
    state: char,
    parent: u32,
}

/// The name stands in parentheses and may hold some itself, and spaces: the last one counts.
fn line(stat: &str) -> Option<Line> {
    let (name, rest) = (stat.split_once('(')?.1).rsplit_once(')')?;
    let mut rest = rest.split_whitespace();
    let (state, parent) = (rest.next()?.chars().next()?, rest.next()?.parse().ok()?);
    Some(Line { name: tamed_line(name), state, parent })
}

fn choose(processes: &BTreeMap<u32, Line>, monitor: u32) -> Vec<(u32, &Line)> {
    let parent = |pid: &u32| processes.get(pid).map(|line| line.parent);
    // Process numbers are few, but a chain of parents that is read while it changes might turn in a circle.
    let is_below = |pid: u32| {
        std::iter::successors(Some(pid), parent).take(processes.len() + 1).any(|ancestor| ancestor == monitor)
    };
    let all: Vec<(u32, &Line)> =
        processes.iter().filter(|(pid, line)| lives(line) && is_below(**pid)).map(|(pid, line)| (*pid, line)).collect();
    let has_child = |pid: u32| all.iter().any(|(_, line)| line.parent == pid);
    let stuck: Vec<_> = all.iter().copied().filter(|(_, line)| matches!(line.state, 'D' | 'T' | 't')).collect();
    let last: Vec<_> = all.iter().copied().filter(|(pid, _)| !has_child(*pid)).collect();
    let mut chosen = if stuck.is_empty() { last } else { stuck };
    chosen.truncate(MOST);
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_what_ends_it() {
        let read = line("12 (a) R (b) D 7 12 12 0").unwrap();
        assert_eq!(read, Line { name: "a) R (b".into(), state: 'D', parent: 7 });
        assert_eq!(line("12"), None);
    }

    #[test]
    fn what_cannot_go_on_is_named_and_otherwise_who_is_last() {
        let of = |lines: &[(u32, u32, char)]| -> BTreeMap<u32, Line> {
            let line = |(pid, parent, state): &(u32, u32, char)| {
                (*pid, Line { name: "x".into(), state: *state, parent: *parent })
            };
            lines.iter().map(line).collect()
        };
        let chosen = |lines: &[(u32, u32, char)]| -> Vec<u32> {
            choose(&of(lines), 5).into_iter().map(|(pid, _)| pid).collect()
        };
        assert_eq!(chosen(&[(1, 0, 'D'), (5, 1, 'S'), (6, 5, 'S'), (7, 6, 'D'), (8, 6, 'Z'), (9, 1, 'D')]), [7]);
        assert_eq!(chosen(&[(1, 0, 'S'), (5, 1, 'T'), (6, 5, 'S')]), [5]);
        assert_eq!(chosen(&[(1, 0, 'S'), (5, 1, 'S'), (6, 5, 'S'), (7, 5, 'Z')]), [6]);
        assert_eq!(chosen(&[(6, 7, 'D'), (7, 6, 'D')]), [] as [u32; 0]);
    }

    #[test]
    fn this_very_process_is_below_itself() {
        let own = std::process::id();
        let found = below(Some(own));
        assert!(found.iter().any(|process| process.pid == own), "{found:?}");
        assert_eq!(below(None), []);
    }
}
