//! How log entries look: a prefix for each container where there are several, a time where it is wanted, JSON.
//!
//! Lines of different containers are never glued together: one that is still open when another container speaks is
//! closed first.

use std::io::{self, BufWriter, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::failure::Failure;
use super::output::Format;
use crate::monitor::logs::{Entry, Stream};

#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub timestamps: bool,
    pub format: Format,
}

/// Prints the entries of some containers, which are known by their numbers.
pub struct Printer {
    names: Vec<String>,
    look: Look,
    widest: usize,
    stdout: BufWriter<io::Stdout>,
    /// Whose line has no end yet.
    open: Option<(usize, Stream)>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    container: &'a str,
    stream: &'a str,
    text: &'a str,
}

/// Colours that are readable on dark and on light.
const COLOURS: [AnsiColor; 6] =
    [AnsiColor::Cyan, AnsiColor::Yellow, AnsiColor::Green, AnsiColor::Magenta, AnsiColor::Blue, AnsiColor::BrightCyan];

impl Printer {
    pub fn new(names: Vec<String>, look: Look) -> Printer {
        let widest = names.iter().map(String::len).max().unwrap_or(0);
        Printer { names, look, widest, stdout: BufWriter::with_capacity(64 * 1024, io::stdout()), open: None }
    }

    pub fn print(&mut self, number: usize, entry: &Entry) -> Result<(), Failure> {
        let text = match self.look.format {
            Format::Json => self.object(number, entry)?,
            Format::Text => self.text(number, entry),
        };
        let written = match (entry.stream, self.look.format) {
            (Stream::Stdout, _) | (_, Format::Json) => self.stdout.write_all(text.as_bytes()),
            // In order on a terminal: what came before on stdout goes out first.
            (Stream::Stderr, Format::Text) => {
                self.stdout.flush().and_then(|()| io::stderr().write_all(text.as_bytes()))
            }
        };
        written.map_err(|error| Failure::stdout(&error))
    }

    /// Puts out what was printed, so that something else can be said between two lines; whose log it is about.
    pub fn make_room(&mut self, number: usize) -> Result<&str, Failure> {
        if self.open.take().is_some() {
            self.stdout.write_all(b"\n").map_err(|error| Failure::stdout(&error))?;
        }
        self.flush()?;
        Ok(&self.names[number])
    }

    pub fn flush(&mut self) -> Result<(), Failure> {
        self.stdout.flush().map_err(|error| Failure::stdout(&error))
    }

    fn object(&self, number: usize, entry: &Entry) -> Result<String, Failure> {
        let line = Line {
            time: humantime::format_rfc3339_nanos(entry.time).to_string(),
            container: &self.names[number],
            stream: entry.stream.as_str(),
            text: &entry.text,
        };
        Ok(serde_json::to_string(&line)? + "\n")
    }

    fn text(&mut self, number: usize, entry: &Entry) -> String {
        let mut text = String::with_capacity(entry.text.len() + 64);
        let speaker = (number, entry.stream);
        let continues = self.open == Some(speaker);
        if !continues {
            if self.open.is_some() {
                text.push('\n');
            }
            text.push_str(&self.prefix(number, entry));
        }
        text.push_str(&entry.text);
        self.open = (!entry.text.ends_with('\n')).then_some(speaker);
        text
    }

    fn prefix(&self, number: usize, entry: &Entry) -> String {
        let mut prefix = String::new();
        if self.names.len() > 1 {
            let style = self.style(number, entry.stream);
            let name = &self.names[number];
            prefix.push_str(&format!("{style}{name:width$} |{style:#} ", width = self.widest));
        }
        if self.look.timestamps {
            prefix.push_str(&format!("{} ", humantime::format_rfc3339_nanos(entry.time)));
        }
        prefix
    }

    /// Plain where the stream that it goes to shows no colour. What containers write is passed on as it is.
    fn style(&self, number: usize, stream: Stream) -> Style {
        let choice = match stream {
            Stream::Stdout => anstream::AutoStream::choice(&io::stdout()),
            Stream::Stderr => anstream::AutoStream::choice(&io::stderr()),
        };
        match choice {
            anstream::ColorChoice::Never => Style::new(),
            _ => COLOURS[number % COLOURS.len()].on_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn entry(text: &str) -> Entry {
        Entry { time: SystemTime::UNIX_EPOCH + Duration::from_secs(1), stream: Stream::Stdout, text: text.into() }
    }

    fn printer(names: &[&str], timestamps: bool) -> Printer {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Printer::new(names, Look { timestamps, format: Format::Text })
    }

    #[test]
    fn one_container_needs_no_prefix_and_several_do() {
        assert_eq!(printer(&["a"], false).text(0, &entry("x\n")), "x\n");
        assert_eq!(printer(&["a"], true).text(0, &entry("x\n")), "1970-01-01T00:00:01.000000000Z x\n");
        assert_eq!(printer(&["a", "long"], false).text(0, &entry("x\n")), "a    | x\n");
    }

    #[test]
    fn a_line_in_pieces_has_one_prefix_and_is_closed_before_another_speaks() {
        let mut printer = printer(&["a", "b"], false);
        assert_eq!(printer.text(0, &entry("one ")), "a | one ");
        assert_eq!(printer.text(0, &entry("line")), "line");
        assert_eq!(printer.text(1, &entry("two\n")), "\nb | two\n");
    }
}
