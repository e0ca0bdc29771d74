//! What is wrong with a manifest, and where.
//!
//! A [`Problem`] points into a [`Source`] with byte ranges; [`Problems`] holds all of a run with the texts that
//! they point into, prints them as rustc prints its errors, and lists them for `--json`. Colour is in the text
//! only when it is asked for.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
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
            group =
                group.element(self.snippet(place).annotation(primary(place, &problem.label)).annotations(
                    problem.related.iter().filter(|(other, _)| other.source == place.source).map(context),
                ));
            for related in problem.related.iter().filter(|(other, _)| other.source != place.source) {
                group = group.element(self.snippet(&related.0).annotation(context(related)));
            }
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help));
        }
        renderer.render(&[group])
    }

    fn snippet<'a, T: Clone>(&'a self, place: &Place) -> Snippet<'a, T> {
        let source = &self.sources[place.source];
        Snippet::source(&source.text).path(source.path.to_string_lossy()).fold(true)
    }

    fn locate(&self, problem: &Problem) -> Located {
        let position = problem.place.as_ref().map(|place| {
            let source = &self.sources[place.source];
            let before = &source.text[..place.start.min(source.text.len())];
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            (
                source.path.clone(),
                before.bytes().filter(|b| *b == b'\n').count() + 1,
                before[line_start..].chars().count() + 1,
            )
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

fn primary<'a>(place: &Place, label: &'a str) -> annotate_snippets::Annotation<'a> {
    let annotation = AnnotationKind::Primary.span(place.start..place.end);
    match label {
        "" => annotation,
        label => annotation.label(label),
    }
}

fn context((place, text): &(Place, String)) -> annotate_snippets::Annotation<'_> {
    AnnotationKind::Context.span(place.start..place.end).label(text.as_str())
}

/// Plain, for logs.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Colour::Plain))
    }
}

impl std::error::Error for Problems {}
