//! What the host's ps(1) says of the processes of one container: `evenkeel top web aux`, as Docker's users know it, and
//! the runtime's `ps`.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Map, Value};

use super::failure::{Exit, Failure};
use crate::model::foreign::tamed_line;

/// A heading, and a line for each process.
pub struct Listing {
    heading: String,
    lines: Vec<String>,
}

/// Those lines of `ps OPTIONS` that are about one of `processes`.
pub fn list(options: &[String], processes: &BTreeSet<i32>) -> Result<Listing, Failure> {
    let said = Command::new("ps").args(options).output().map_err(|error| {
        Failure::from(error)
            .context("cannot run ps(1), whose options these are")
            .hint("`evenkeel top` needs no ps without options, nor with `-o` and its own columns")
    })?;
    if !said.status.success() {
        let why: Vec<_> = String::from_utf8_lossy(&said.stderr)
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(tamed_line)
            .collect();
        let refused = Failure::list(format!("ps(1) does not take `{}`", options.join(" ")), why.into_iter().take(3));
        return Err(refused.exit(Exit::Usage));
    }
    select(&String::from_utf8_lossy(&said.stdout), processes).map_err(|why| {
        let hint = "which processes are the container's is known by it: put it first, `-o pid,..`";
        Failure::usage(format!("`ps {}` shows {why}", options.join(" "))).hint(hint)
    })
}

/// Columns are parted by blanks, so where one before the PID has blanks within it, another word is in its place; `-` is
/// there for the threads of a process.
fn select(text: &str, processes: &BTreeSet<i32>) -> Result<Listing, &'static str> {
    let mut lines = text.lines();
    let heading = lines.next().unwrap_or_default().to_owned();
    let column = heading.split_whitespace().position(|word| word == "PID").ok_or("no column PID")?;
    let mut its = Vec::new();
    for line in lines.filter(|line| !line.trim().is_empty()) {
        match line.split_whitespace().nth(column).map(|word| (word, word.parse())) {
            Some((_, Ok(pid))) if processes.contains(&pid) => its.push(tamed_line(line)),
            Some((_, Ok(_)) | ("-", _)) => {}
            Some((_, Err(_))) | None => return Err("a column with blanks before its column PID"),
        }
    }
    Ok(Listing { lines: its, heading })
}

impl Listing {
    /// As ps(1) has lined it up.
    pub fn text(&self) -> String {
        std::iter::once(&self.heading).chain(&self.lines).map(|line| format!("{line}\n")).collect()
    }

    /// An object for each process, by the headings. The last column is the rest of the line.
    pub fn json(&self) -> Vec<Value> {
        let headings: Vec<&str> = self.heading.split_whitespace().collect();
        let row = |line: &String| {
            let mut rest = line.trim_start();
            let mut row = Map::new();
            for (number, heading) in headings.iter().enumerate() {
                let (cell, behind) = match number + 1 == headings.len() {
                    true => (rest.trim_end(), ""),
                    false => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
                };
                row.insert((*heading).to_owned(), cell.into());
                rest = behind.trim_start();
            }
            Value::Object(row)
        };
        self.lines.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_the_column_of_the_pid() {
        let text = "UID   PID  PPID CMD\nroot    7     1 a 8\nroot    8     7 b c\n";
        let listing = select(text, &[8].into()).unwrap();
        assert_eq!(listing.text(), "UID   PID  PPID CMD\nroot    8     7 b c\n");
        assert_eq!(listing.json()[0]["CMD"], "b c");
        assert!(select("CMD\na\n", &[8].into()).is_err());
        assert!(select("STARTED PID CMD\nSat Nov 28 8 a\n", &[8].into()).is_err());
        assert_eq!(select("PID LWP\n8 -\n- 8\n", &[8].into()).unwrap().lines, ["8 -"]);
    }
}
