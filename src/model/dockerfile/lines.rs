//! From the text to logical lines: directives, comments, continuations, here-documents.

use std::ops::Range;

use super::SyntaxError;
use super::words;

/// One instruction, its physical lines joined, and where every byte of it stands in the text.
pub(super) struct Line {
    /// Of its first physical line, counted from 1.
    pub number: usize,
    pub text: String,
    /// One for each byte of `text`, and one for its end.
    places: Vec<usize>,
    pub documents: Vec<Heredoc>,
}

/// Text between `<<NAME` and a line `NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    pub name: String,
    /// Whole lines; without leading tabs after `<<-`.
    pub body: String,
    /// Whether variables in it are replaced: not if the name was quoted.
    pub expands: bool,
}

impl Line {
    pub fn error(&self, at: Range<usize>, message: impl Into<String>, expected: impl Into<String>) -> SyntaxError {
        let start = self.places[at.start.min(self.text.len())];
        let end = match at.end > at.start {
            true => self.places[(at.end - 1).min(self.text.len())] + 1,
            false => start + 1,
        };
        SyntaxError { place: start..end.max(start + 1), message: message.into(), expected: expected.into() }
    }

    /// A line of its own, for an instruction that stands in no file.
    pub fn alone(text: &str) -> Line {
        Line { number: 0, text: text.to_owned(), places: (0..=text.len()).collect(), documents: Vec::new() }
    }

    pub fn keyword_end(&self) -> usize {
        self.text.find(char::is_whitespace).unwrap_or(self.text.len())
    }
}

struct Physical<'t> {
    number: usize,
    start: usize,
    /// Without its end.
    text: &'t str,
}

/// The escape character and the instructions.
pub(super) fn logical_lines(text: &str, errors: &mut Vec<SyntaxError>) -> (char, Vec<Line>) {
    let mut start = 0;
    let mut physical: Vec<Physical<'_>> = Vec::new();
    for (at, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end_matches(['\n', '\r']);
        // A byte order mark of an editor.
        let text = if at == 0 { bare.trim_start_matches('\u{feff}') } else { bare };
        physical.push(Physical { number: at + 1, start: start + bare.len() - text.len(), text });
        start += line.len();
    }
    let escape = escape_directive(&physical, errors);
    let mut lines = Vec::new();
    let mut rest = physical.as_slice();
    while let Some((first, others)) = rest.split_first() {
        rest = others;
        if is_comment(first.text) || first.text.trim().is_empty() {
            continue;
        }
        let mut line = Line { number: first.number, text: String::new(), places: Vec::new(), documents: Vec::new() };
        let lead = first.text.len() - first.text.trim_start().len();
        let mut goes_on = push(&mut line, first.start + lead, &first.text[lead..], escape);
        while goes_on && let Some((next, others)) = rest.split_first() {
            rest = others;
            if !is_comment(next.text) && !next.text.trim().is_empty() {
                goes_on = push(&mut line, next.start, next.text, escape);
            }
        }
        let kept = line.text.trim_end().len();
        line.text.truncate(kept);
        line.places.truncate(kept);
        line.places.push(line.places.last().map_or(first.start, |last| last + 1));
        rest = read_documents(&mut line, rest, errors);
        lines.push(line);
    }
    (escape, lines)
}

fn is_comment(text: &str) -> bool {
    text.trim_start().starts_with('#')
}

/// Adds a physical line; whether the next one belongs to it too.
fn push(line: &mut Line, start: usize, text: &str, escape: char) -> bool {
    let bare = text.trim_end_matches([' ', '\t']);
    let (kept, goes_on) = match bare.strip_suffix(escape) {
        Some(kept) => (kept, true),
        None => (text, false),
    };
    line.text.push_str(kept);
    line.places.extend(start..start + kept.len());
    goes_on
}

/// Directives are the comments `# name=value` at the very top, before anything else.
fn escape_directive(lines: &[Physical<'_>], errors: &mut Vec<SyntaxError>) -> char {
    let mut escape = '\\';
    for line in lines {
        let Some((name, value)) = line.text.trim_start().strip_prefix('#').and_then(|text| text.split_once('=')) else {
            break;
        };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        match (name.as_str(), value) {
            ("escape", "\\") => {}
            ("escape", "`") => escape = '`',
            ("escape", _) => errors.push(SyntaxError {
                place: line.start..line.start + line.text.len(),
                message: format!("`{value}` cannot be the escape character"),
                expected: "expected `\\` or `` ` ``".to_owned(),
            }),
            ("syntax" | "check", _) => {}
            _ => break,
        }
    }
    escape
}

/// Reads the bodies of the here-documents that the line begins, and returns what follows them.
fn read_documents<'p, 't>(
    line: &mut Line,
    mut rest: &'p [Physical<'t>],
    errors: &mut Vec<SyntaxError>,
) -> &'p [Physical<'t>] {
    let keyword = line.text[..line.keyword_end()].to_ascii_uppercase();
    if !matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
        return rest;
    }
    let starts: Vec<(Range<usize>, Start)> = words::quoted(&line.text, '\\')
        .into_iter()
        .filter_map(|at| Some((at.clone(), heredoc_start(&line.text[at])?)))
        .collect();
    for (at, Start { name, strip_tabs, expands }) in starts {
        let mut body = String::new();
        let mut ended = false;
        while let Some((next, others)) = rest.split_first() {
            rest = others;
            let text = if strip_tabs { next.text.trim_start_matches('\t') } else { next.text };
            ended = text == name;
            if ended {
                break;
            }
            body.push_str(text);
            body.push('\n');
        }
        if !ended {
            let expected = format!("expected a line `{name}` after it");
            errors.push(line.error(at, format!("the here-document `{name}` does not end"), expected));
        }
        line.documents.push(Heredoc { name, body, expands });
    }
    rest
}

struct Start {
    name: String,
    strip_tabs: bool,
    expands: bool,
}

/// `<<NAME`, `<<-NAME`, `<<"NAME"`, with or without `0` in front.
fn heredoc_start(word: &str) -> Option<Start> {
    let rest = word.strip_prefix('0').unwrap_or(word).strip_prefix("<<")?;
    let (strip_tabs, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let bare: String = rest.chars().filter(|c| !matches!(c, '"' | '\'' | '\\')).collect();
    let good = !bare.is_empty() && bare.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    good.then(|| Start { expands: bare == rest, name: bare, strip_tabs })
}

/// The name that a word of `COPY` gives as its source: `<<NAME`.
pub(super) fn document_name(word: &str) -> Option<String> {
    heredoc_start(word).map(|start| start.name)
}
