//! Running a task in a child, and hearing what it says.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::child::{ARGUMENT, Report, Task};
use crate::engine::image::error::ImageError;
use crate::engine::image::progress::{Event, Progress};
use crate::runtime::binary;

/// Lines of output that are told again when the command fails.
const LAST: usize = 20;
/// A longer line is cut.
const LINE_MAX: u64 = 8 << 10;
const REPORT_MAX: u64 = 64 << 10;

/// Runs `task` to its end. What it writes goes to `progress` line by line.
pub fn run(helper: &Path, task: &Task, progress: &dyn Progress) -> Result<(), ImageError> {
    let failed = |source| ImageError::Helper { path: helper.to_owned(), source };
    // What it starts must not be able to write to the program's file (CVE-2019-5736).
    let program = binary::read_only(helper).map_err(|error| failed(io::Error::other(error)))?;
    let mut child = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .arg0(helper)
        .arg(ARGUMENT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A Ctrl-C at the terminal is for us; the child follows when we are gone.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let heard = converse(&mut child, task, progress);
    // Closing its standard input ends it, if it has not ended.
    drop(child.stdin.take());
    let waited = child.wait().map_err(failed);
    let (report, output) = heard.map_err(failed)?;
    waited?;
    let report = serde_json::from_str(&report).unwrap_or_else(|_| Report::Failed(report.trim().to_owned()));
    let how = match report {
        Report::Exited(0) => return Ok(()),
        Report::Exited(code) => format!("exited with {code}"),
        Report::Killed { out_of_memory: true, .. } => "was killed: out of memory".to_owned(),
        Report::Killed { signal, .. } => format!("was ended by signal {signal}"),
        Report::Failed(why) => format!("could not be run: {why}"),
    };
    Err(ImageError::Command { how, output })
}

fn converse(child: &mut Child, task: &Task, progress: &dyn Progress) -> io::Result<(String, Vec<String>)> {
    let line = serde_json::to_string(task)?;
    if let Some(stdin) = &mut child.stdin {
        writeln!(stdin, "{line}")?;
    }
    let mut last = VecDeque::new();
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout);
        loop {
            let mut bytes = Vec::new();
            if lines.by_ref().take(LINE_MAX).read_until(b'\n', &mut bytes)? == 0 {
                break;
            }
            let line = printable(&bytes);
            progress.report(Event::Output { line: &line });
            if last.len() == LAST {
                last.pop_front();
            }
            last.push_back(line);
        }
    }
    let mut report = String::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(REPORT_MAX).read_to_string(&mut report)?;
    }
    Ok((report, last.into()))
}

/// Without its end, and without what would move a terminal's cursor: it comes from a stranger.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches(['\n', '\r']);
    // A progress bar that overwrites itself: what it showed last.
    let text = text.rsplit('\r').next().unwrap_or_default();
    text.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_cannot_move_the_cursor() {
        assert_eq!(printable(b"a\tb\x1b[2Jc\r\n"), "a\tb [2Jc");
        assert_eq!(printable(b"10%\r20%\r30%\n"), "30%");
    }
}
