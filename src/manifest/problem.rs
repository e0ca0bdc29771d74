//! What is wrong with a manifest, and where.
//!
//! A [`Problem`] points into a [`Source`] with byte ranges; [`Problems`] holds all of a run with the texts that
//! they point into, prints them as rustc prints its errors, and lists them for `--json`. Colour is in the text
//! only when it is asked for.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

/// A range of bytes in one of the sources.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    pub(super) source: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Place {
    pub(super) fn new(source: usize, span: Range<usize>) -> Place {
        Place { source, start: span.start, end: span.end }
    }
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed<T> {
    pub value: T,
    pub place: Place,
}

impl<T> std::ops::Deref for Placed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// A text that was read, under the path that the user gave.
#[derive(Debug, Clone)]
pub struct Source {
    pub path: PathBuf,
    pub text: String,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    message: String,
    place: Option<Place>,
    label: String,
    related: Vec<(Place, String)>,
    help: Option<String>,
}

impl Problem {
    pub(super) fn at(place: &Place, message: impl Into<String>) -> Problem {
        Problem { place: Some(place.clone()), ..Problem::nowhere(message) }
    }

    /// A problem that no text shows: a file that cannot be read.
    pub(super) fn nowhere(message: impl Into<String>) -> Problem {
        Problem { message: message.into(), place: None, label: String::new(), related: Vec::new(), help: None }
    }

    /// What stands beside the caret: what was expected there.
    pub(super) fn label(self, label: impl Into<String>) -> Problem {
        Problem { label: label.into(), ..self }
    }

    /// Another place that has to do with it.
    pub(super) fn related(mut self, place: &Place, text: impl Into<String>) -> Problem {
        self.related.push((place.clone(), text.into()));
        self
    }

    pub(super) fn help(self, help: impl Into<String>) -> Problem {
        Problem { help: Some(help.into()), ..self }
    }

    /// With help when there is some to give.
    pub(super) fn maybe_help(self, help: Option<String>) -> Problem {
        Problem { help: help.or(self.help), ..self }
    }
}

/// Whether text carries colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    Plain,
    Ansi,
}

/// A problem for programs: lines and columns are counted from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Located {
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expected: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// All that is wrong, in the order of the text. Never empty.
#[derive(Debug, Clone)]
pub struct Problems {
    sources: Vec<Source>,
    list: Vec<Problem>,
}

impl Problems {
    pub(super) fn new(sources: Vec<Source>, mut list: Vec<Problem>) -> Problems {
        list.sort_by(|a, b| a.place.cmp(&b.place));
        list.dedup();
        Problems { sources, list }
    }

    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// For people: one block per problem with file, line, caret and help.
    pub fn render(&self, colour: Colour) -> String {
        let renderer = match colour {
            Colour::Plain => Renderer::plain(),
            Colour::Ansi => Renderer::styled(),
        };
        let blocks: Vec<String> = self.list.iter().map(|problem| self.render_one(problem, &renderer)).collect();
        blocks.join("\n\n")
    }

    /// For programs.
    pub fn located(&self) -> Vec<Located> {
        self.list.iter().map(|problem| self.locate(problem)).collect()
    }

    fn render_one(&self, problem: &Problem, renderer: &Renderer) -> String {
        let mut group = Group::with_title(Level::ERROR.primary_title(&problem.message));
        if let Some(place) = &problem.place {
            let (near, far): (Vec<_>, Vec<_>) =
                problem.related.iter().partition(|(other, _)| other.source == place.source);
            let places: Vec<&Place> = near.iter().map(|(other, _)| other).chain([place]).collect();
            let extract = self.extract(&places);
            let marks = near.iter().map(|(other, text)| extract.mark(AnnotationKind::Context, other, text));
            let primary = extract.mark(AnnotationKind::Primary, place, &problem.label);
            group = group.element(extract.snippet().annotation(primary).annotations(marks));
            for (other, text) in far {
                let extract = self.extract(&[other]);
                let mark = extract.mark(AnnotationKind::Context, other, text);
                group = group.element(extract.snippet().annotation(mark));
            }
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help));
        }
        renderer.render(&[group])
    }

    /// A part of a source that shows these places of it.
    fn extract<'a>(&'a self, places: &[&Place]) -> Extract<'a> {
        let source = &self.sources[places[0].source];
        let text = source.text.as_str();
        let first = places.iter().map(|place| place.start).min().unwrap_or_default();
        let last = places.iter().map(|place| place.end.max(place.start)).max().unwrap_or_default();
        let start = text[..first].rfind('\n').map_or(0, |at| at + 1);
        let end = text[last..].find('\n').map_or(text.len(), |at| last + at);
        Extract { path: source.path.to_string_lossy(), line: line_of(text, start), start, text: &text[start..end] }
    }

    fn locate(&self, problem: &Problem) -> Located {
        let position = problem.place.as_ref().map(|place| {
            let source = &self.sources[place.source];
            let before = &source.text[..place.start.min(source.text.len())];
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            (source.path.clone(), line_of(&source.text, before.len()), before[line_start..].chars().count() + 1)
        });
        Located {
            message: problem.message.clone(),
            file: position.as_ref().map(|(file, _, _)| file.clone()),
            line: position.as_ref().map(|(_, line, _)| *line),
            column: position.as_ref().map(|(_, _, column)| *column),
            expected: problem.label.clone(),
            help: problem.help.clone(),
        }
    }
}

/// The number of the line in which this byte is, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Whole lines of a source. A renderer that is given all of it looks through all of it, for each problem again.
struct Extract<'a> {
    path: Cow<'a, str>,
    /// Of its first line.
    line: usize,
    /// Where it begins in the source, in bytes.
    start: usize,
    text: &'a str,
}

impl<'a> Extract<'a> {
    fn snippet<T: Clone>(&self) -> Snippet<'a, T> {
        Snippet::source(self.text).line_start(self.line).path(self.path.clone()).fold(true)
    }

    fn mark(&self, kind: AnnotationKind, place: &Place, label: &'a str) -> Annotation<'a> {
        let annotation = kind.span(place.start - self.start..place.end - self.start);
        match label {
            "" => annotation,
            label => annotation.label(label),
        }
    }
}

/// Plain, for logs.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Colour::Plain))
    }
}

impl std::error::Error for Problems {}
