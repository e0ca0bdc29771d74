//! `evenkeel.lock`: what every reference of a manifest stands for, beside it, in git.
//!
//! ```toml
//! version = 1
//!
//! [images]
//! "docker.io/library/nginx:1.27" = "sha256:.."
//! ```
//!
//! Sorted, a line for each image, so that a review shows which moved and two branches merge line by line. It is read as
//! manifests are: the same problems with their places.
//!
//! # Decisions
//! * `shop.toml` has `shop.lock`: several projects may share a directory. Of several manifests that lie on each other the
//!   last has the lock, since it is the one that tells a site from its sisters: they share the others.
//! * What comes by standard input has no place that a lock could lie beside, and has none.
//! * Whoever does not know its version refuses it: a half-understood lock is none.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use super::problem::{Place, Problem, Problems, Source};
use super::source::{self, is_standard_input};
use super::suggest::key_text;
use super::tree::{self, Key, Node, Value};
use crate::model::lock::Locks;
use crate::model::reference::Reference;

const VERSION: u32 = 1;
const NAME: &str = "evenkeel.lock";
const NOUN: &str = "lock file";
const MAKE: &str = "`evenkeel lock` writes it; it is not edited by hand";

/// Where the lock file of these manifests is: beside the last of them, or in it where it is a directory. `None` where
/// that comes by standard input.
pub fn lock_path(inputs: &[PathBuf]) -> Option<PathBuf> {
    match inputs.last()? {
        input if is_standard_input(input) => None,
        input if input.is_dir() => Some(input.join(NAME)),
        input => Some(input.with_extension("lock")),
    }
}

/// What the lock file says; `None` where there is none.
pub fn read_lock(path: &Path) -> Result<Option<Locks>, Problems> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        _ => parse_lock(source::read_one(path, NOUN)?).map(Some),
    }
}

/// What this text says as a lock file.
pub fn parse_lock(source: Source) -> Result<Locks, Problems> {
    let read = match conflict(&source.text) {
        Some(problem) => Err(vec![problem]),
        None => tree::parse(&source.text, 0).map_err(|errors| errors.into_iter().map(|e| e.help(MAKE)).collect()),
    };
    read.and_then(|top| locks(&top)).map_err(|problems| Problems::new(vec![source], problems))
}

/// The first line that git writes where two branches changed the same lines.
fn conflict(text: &str) -> Option<Problem> {
    let lines = text.split_inclusive('\n').scan(0, |at, line| {
        let begin = *at;
        *at += line.len();
        Some((begin, line.trim_end()))
    });
    let (begin, line) = { lines }.find(|(_, line)| line.starts_with("<<<<<<< "))?;
    let place = Place::new(0, begin..begin + line.len());
    let problem = Problem::at(&place, "the lock file has a merge conflict").label("two branches lock other images");
    Some(problem.help("take either side, for instance with `git checkout --theirs`, then run `evenkeel lock`"))
}

fn locks(top: &Node) -> Result<Locks, Vec<Problem>> {
    let (mut version, mut images) = (None, None);
    let mut problems = Vec::new();
    for (key, node) in table(top) {
        match key.text.as_str() {
            "version" => version = Some(node),
            "images" => images = Some(node),
            other => problems.push(
                Problem::at(&key.place, format!("a lock file has no `{}`", key_text(other)))
                    .label("expected `version` or `images`")
                    .help(MAKE),
            ),
        }
    }
    // Of another version nothing else is understood.
    check_version(version, top)?;
    let Some(images) = images else {
        problems.push(Problem::at(&top.place, "the lock file has no `images`").help(MAKE));
        return Err(problems);
    };
    if !matches!(images.value, Value::Table(_)) {
        let problem = Problem::at(images.shown(), format!("`images` is {}", images.kind()));
        problems.push(problem.label("expected a table").help(MAKE));
    }
    let mut locks = Locks::new();
    for (key, node) in table(images) {
        let digest = match &node.value {
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        match digest {
            _ if !is_whole(&key.text) => problems.push(
                Problem::at(&key.place, format!("`{}` is no whole reference with a tag", key.text))
                    .label("expected such as \"docker.io/library/nginx:1.27\"")
                    .help(MAKE),
            ),
            Some(digest) => drop(locks.insert(key.text.clone(), digest)),
            None => problems.push(
                Problem::at(node.shown(), format!("{} is no digest", node.kind()))
                    .label("expected `sha256:` and 64 hexadecimal digits")
                    .help(MAKE),
            ),
        }
    }
    if problems.is_empty() { Ok(locks) } else { Err(problems) }
}

fn table(node: &Node) -> &[(Key, Node)] {
    match &node.value {
        Value::Table(entries) => entries,
        _ => &[],
    }
}

fn check_version(written: Option<&Node>, top: &Node) -> Result<(), Vec<Problem>> {
    let known = |digits: &str| digits.parse() == Ok(VERSION);
    let problem = match written.map(|node| (node, &node.value)) {
        Some((_, Value::Integer { digits, radix: 10 })) if known(digits) => return Ok(()),
        Some((node, Value::Integer { .. })) => {
            Problem::at(&node.place, format!("the lock file has another format, {}", node.kind()))
                .label(format!("this Evenkeel knows {VERSION}"))
                .help("use the version of Evenkeel that wrote it, or remove the file and run `evenkeel lock`")
        }
        Some((node, _)) => Problem::at(node.shown(), format!("the version is {}", node.kind()))
            .label(format!("expected {VERSION}"))
            .help(MAKE),
        None => {
            Problem::at(&top.place, "the lock file has no `version`").label(format!("expected {VERSION}")).help(MAKE)
        }
    };
    Err(vec![problem])
}

fn is_whole(name: &str) -> bool {
    name.parse().is_ok_and(|reference: Reference| {
        reference.to_string() == *name && reference.tag.is_some() && reference.digest.is_none()
    })
}

/// The text of a lock file: always the same for the same locks.
pub fn lock_text(locks: &Locks) -> String {
    let mut text = String::from("# What each image reference stands for. Made by `evenkeel lock`; keep it in git.\n");
    // Writing to a String does not fail. References and digests have nothing that TOML would want escaped.
    let _ = writeln!(text, "version = {VERSION}\n\n[images]");
    for (reference, digest) in locks {
        let _ = writeln!(text, "\"{reference}\" = \"{digest}\"");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parsed(text: &str) -> Result<Locks, Problems> {
        parse_lock(Source { path: "evenkeel.lock".into(), text: text.to_owned() })
    }

    #[test]
    fn what_is_written_is_read_and_has_a_sorted_line_for_each_image() {
        let locks: Locks = ["localhost/b:1", "docker.io/library/a:2", "[::1]:5000/c:x"]
            .map(|name| (name.to_owned(), DIGEST.parse().unwrap()))
            .into();
        let text = lock_text(&locks);
        assert_eq!(parsed(&text).unwrap(), locks);
        let lines: Vec<&str> = text.lines().skip(4).map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(lines, ["\"[::1]:5000/c:x\"", "\"docker.io/library/a:2\"", "\"localhost/b:1\""]);
        assert_eq!(parsed(&lock_text(&Locks::new())).unwrap(), Locks::new());
    }

    #[test]
    fn what_is_no_lock_is_refused_with_its_place() {
        let line = format!("\"localhost/a:1\" = \"{DIGEST}\"");
        for (text, place, message) in [
            ("version = 2\n[pictures]", (1, 11), "another format, the integer 2"),
            ("version = \"1\"", (1, 11), "the version is the string"),
            ("[images]", (1, 1), "no `version`"),
            ("version = 1\nimage = 1\n[images]", (2, 1), "no `image`"),
            ("version = 1", (1, 1), "no `images`"),
            ("version = 1\nimages = 3", (2, 10), "the integer 3"),
            (&format!("version = 1\n[images]\nnginx = \"{DIGEST}\""), (3, 1), "no whole reference"),
            (&format!("version = 1\n[images]\n\"localhost/a\" = \"{DIGEST}\""), (3, 1), "no whole reference"),
            ("version = 1\n[images]\n\"localhost/a:1\" = \"sha256:12\"", (3, 19), "no digest"),
            (&format!("version = 1\n[images]\n{line}\n{line}"), (4, 1), "duplicate key"),
            (&format!("version = 1\n[images]\n{}", &line[..40]), (3, 41), "string"),
            (&format!("version = 1\n[images]\n<<<<<<< HEAD\n{line}\n=======\n>>>>>>> x"), (3, 1), "merge conflict"),
        ] {
            let problems = parsed(text).unwrap_err().located();
            let first = &problems[0];
            assert!(first.message.contains(message), "{text}: {problems:?}");
            assert_eq!((first.line, first.column), (Some(place.0), Some(place.1)), "{text}: {problems:?}");
            assert!(first.help.is_some(), "{text}");
        }
    }

    #[test]
    fn the_lock_is_beside_the_manifest() {
        let path = |inputs: &[&str]| lock_path(&inputs.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(path(&["/srv/evenkeel.toml"]).unwrap(), Path::new("/srv/evenkeel.lock"));
        assert_eq!(path(&["/srv/shop.toml"]).unwrap(), Path::new("/srv/shop.lock"));
        assert_eq!(path(&["/"]).unwrap(), Path::new("/evenkeel.lock"));
        assert_eq!(path(&["/srv/base.toml", "/srv/prod.toml"]).unwrap(), Path::new("/srv/prod.lock"));
        assert_eq!(path(&["/srv/base.toml", "-"]), None);
    }
}
