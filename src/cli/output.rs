//! Standard output: text for people, JSON for programs.
//!
//! Text may carry styles; `anstream` takes them out where stdout is no terminal or `NO_COLOR` is set. Nothing
//! is said by colour alone.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::failure::Failure;
use crate::model::foreign::tamed_line;

pub const ERROR: Style = AnsiColor::Red.on_default().bold();
pub const WARNING: Style = AnsiColor::Yellow.on_default().bold();
pub const STRONG: Style = Style::new().bold();
pub const QUIET: Style = Style::new().dimmed();
pub const GOOD: Style = AnsiColor::Green.on_default();
pub const ATTENTION: Style = AnsiColor::Yellow.on_default();
pub const BAD: Style = AnsiColor::Red.on_default();

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    /// One document for state, one JSON object a line for streams.
    Json,
}

/// Where a command's answer goes.
#[derive(Debug)]
pub struct Output {
    format: Format,
}

impl Output {
    pub fn new(format: Format) -> Output {
        Output { format }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether somebody is watching.
    pub fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    pub fn text(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = anstream::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| Failure::stdout(&error))
    }

    /// Bytes as they are: what a container wrote.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| Failure::stdout(&error))
    }

    /// The whole answer as one document.
    pub fn document<T: Serialize>(&self, document: &T) -> Result<(), Failure> {
        self.bytes((serde_json::to_string_pretty(document)? + "\n").as_bytes())
    }

    /// One element of a stream.
    pub fn line<T: Serialize>(&self, element: &T) -> Result<(), Failure> {
        self.bytes((serde_json::to_string(element)? + "\n").as_bytes())
    }

    /// Text with its styles, or without them where stderr does not show them.
    pub fn for_stderr(&self, text: &str) -> String {
        match anstream::AutoStream::choice(&io::stderr()) {
            anstream::ColorChoice::Never => anstream::adapter::strip_str(text).to_string(),
            _ => text.to_owned(),
        }
    }

    /// On one line, whoever has a say in it.
    pub fn warning(&self, text: &str) {
        self.remark(&format!("{WARNING}warning:{WARNING:#} {}", tamed_line(text)));
    }

    /// A word to the reader that is not the answer, with its styles: to stderr.
    pub fn remark(&self, text: &str) {
        // A remark that cannot be made must not fail the command.
        let _ = writeln!(anstream::stderr(), "{text}");
    }
}
