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
        self.json(serde_json::to_string_pretty(document)?)
    }

    /// One element of a stream.
    pub fn line<T: Serialize>(&self, element: &T) -> Result<(), Failure> {
        self.json(serde_json::to_string(element)?)
    }

    fn json(&self, text: String) -> Result<(), Failure> {
        let text = if self.is_terminal() { escaped(&text) } else { text };
        self.bytes((text + "\n").as_bytes())
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

/// The same JSON without what a terminal would obey: DEL and the control characters beyond ASCII (ISO 6429, C1), which
/// JSON allows within its strings (RFC 8259, section 7), and which a container may have written.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\u{7f}'..='\u{9f}' => text.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_for_a_terminal_is_the_same_json() {
        let value = serde_json::json!({ "output": "\u{9b}31m\u{7f}\u{85} \u{a0}\u{e9}\n" });
        let text = escaped(&value.to_string());
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
