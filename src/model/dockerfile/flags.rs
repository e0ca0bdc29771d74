//! `--name=value` in front of an instruction's arguments.

use std::ops::Range;

use super::SyntaxError;
use super::lines::Line;
use super::words;

/// One flag: where it stands, and its two sides.
pub(super) struct Flag<'l> {
    pub at: Range<usize>,
    pub name: &'l str,
    pub value: Option<&'l str>,
}

/// The flags after the keyword, and where the arguments begin.
pub(super) fn split<'l>(line: &'l Line, escape: char) -> (Vec<Flag<'l>>, usize) {
    let begin = line.keyword_end();
    let mut flags = Vec::new();
    for word in words::quoted(&line.text[begin..], escape) {
        let at = begin + word.start..begin + word.end;
        let Some(text) = line.text[at.clone()].strip_prefix("--") else { return (flags, at.start) };
        if text.is_empty() {
            return (flags, at.end);
        }
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        flags.push(Flag { at, name, value });
    }
    (flags, line.text.len())
}

impl Flag<'_> {
    /// The value, which must be there.
    pub fn text(&self, line: &Line) -> Result<String, SyntaxError> {
        match self.value {
            Some(value) if !value.is_empty() => Ok(value.trim_matches('"').to_owned()),
            _ => Err(line.error(self.at.clone(), format!("`--{}` needs a value", self.name), "expected `=VALUE`")),
        }
    }

    pub fn is_on(&self, line: &Line) -> Result<bool, SyntaxError> {
        match self.value {
            None | Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(line.error(self.at.clone(), "it is on or off", "expected `true` or `false`")),
        }
    }

    pub fn unknown(&self, line: &Line, known: &str) -> SyntaxError {
        let message = match self.name {
            "security" => "`--security` is not supported: a build has the privileges of a container".to_owned(),
            "ssh" | "secret" => format!("`--{}` is not supported", self.name),
            name => format!("`--{name}` is not a flag of `{}`", &line.text[..line.keyword_end()]),
        };
        line.error(self.at.clone(), message, known.to_owned())
    }
}
