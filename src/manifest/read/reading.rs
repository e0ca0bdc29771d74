//! What readers share: the texts, the world around them, and the problems so far.

use std::path::{Path, PathBuf};

use crate::manifest::interpolate::interpolate;
use crate::manifest::problem::{Place, Problem, Source};
use crate::manifest::tree::Node;
use crate::manifest::{FileKind, Surroundings};

/// Handed to every reader.
pub(in crate::manifest) struct Reading<'a> {
    pub sources: Vec<Source>,
    pub surroundings: &'a Surroundings<'a>,
    pub problems: Vec<Problem>,
}

impl Reading<'_> {
    pub fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    pub fn expected(&mut self, node: &Node, noun: &str, help: Option<String>) {
        let problem = Problem::at(node.shown(), format!("expected {noun}, found {}", node.kind()));
        self.report(problem.maybe_help(help));
    }

    /// The absolute path that a path in the text at `place` means: relative ones begin at its file.
    pub fn absolute(&self, place: &Place, path: &str) -> PathBuf {
        let file = self.surroundings.directory.join(&self.sources[place.source].path);
        let directory = file.parent().unwrap_or(Path::new("/"));
        lexically_normal(&directory.join(path))
    }

    pub fn file_kind(&self, path: &Path) -> Option<FileKind> {
        (self.surroundings.file_kind)(path)
    }

    /// The string at `node` with its variables replaced. Nothing that reaches the kernel may hold a NUL.
    pub fn text_of(&mut self, node: &Node, text: &str) -> Option<String> {
        match interpolate(text, self.surroundings.variable) {
            Ok(text) if text.contains('\0') => {
                self.report(Problem::at(&node.place, "a text cannot hold a NUL character"));
                None
            }
            Ok(text) => Some(text),
            Err(error) => {
                let place = self.part_of(&node.place, &error.part);
                self.report(Problem::at(&place, error.message).help(error.help));
                None
            }
        }
    }

    /// Where `part` stands within `place`; all of it when the text has escapes.
    fn part_of(&self, place: &Place, part: &str) -> Place {
        let text = &self.sources[place.source].text;
        match text.get(place.start..place.end).and_then(|slice| slice.find(part)) {
            Some(at) => Place::new(place.source, place.start + at..place.start + at + part.len()),
            None => place.clone(),
        }
    }
}

/// `.` and `..` are resolved without looking at the disk.
fn lexically_normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::ParentDir => {
                normal.pop();
            }
            std::path::Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}
