//! `COPY` and `ADD`: what is to be copied, and how it shall look.

use super::chmod::Chmod;
use super::instruction::Reader;
use super::lines;
use super::words;
use super::{Copy, CopyKind, CopySource, SyntaxError};
use crate::model::id::Digest;

const COPY_FLAGS: &str = "its flags are `--from`, `--chown`, `--chmod`, `--exclude`, `--link` and `--parents`";
const ADD_FLAGS: &str = "its flags are `--chown`, `--chmod`, `--exclude`, `--link`, `--checksum` and `--unpack`";

pub(super) fn read(reader: &Reader<'_>, kind: CopyKind) -> Result<Copy, SyntaxError> {
    let line = reader.line;
    let mut copy = Copy {
        kind,
        from: None,
        sources: Vec::new(),
        target: String::new(),
        owner: None,
        mode: None,
        exclude: Vec::new(),
        is_linked: false,
        keeps_parents: false,
        checksum: None,
        unpacks: None,
    };
    let (is_copy, is_add) = (kind == CopyKind::Copy, kind == CopyKind::Add);
    for flag in &reader.flags {
        match flag.name {
            "from" if is_copy => copy.from = Some(flag.text(line)?),
            "parents" if is_copy => copy.keeps_parents = flag.is_on(line)?,
            "unpack" if is_add => copy.unpacks = Some(flag.is_on(line)?),
            "checksum" if is_add => {
                let text = flag.text(line)?;
                if let (false, Err(_)) = (text.contains('$'), text.parse::<Digest>()) {
                    let message = format!("`{text}` is not a checksum");
                    return reader.wrong(flag.at.clone(), message, "expected `sha256:` and 64 digits");
                }
                copy.checksum = Some(text);
            }
            "keep-git-dir" if is_add => {
                return reader.wrong(flag.at.clone(), NO_REPOSITORIES, "clone it in a `RUN`");
            }
            "chown" => copy.owner = Some(flag.text(line)?),
            "chmod" => {
                let text = flag.text(line)?;
                if let (false, Err(expected)) = (text.contains('$'), text.parse::<Chmod>()) {
                    return reader.wrong(flag.at.clone(), format!("`{text}` is not a mode"), &expected);
                }
                copy.mode = Some(text);
            }
            "exclude" => copy.exclude.push(flag.text(line)?),
            "link" => copy.is_linked = flag.is_on(line)?,
            _ => return Err(flag.unknown(line, if is_copy { COPY_FLAGS } else { ADD_FLAGS })),
        }
    }
    let places = reader.plain_words();
    let mut paths = match words::json(reader.rest()) {
        Some(list) => list,
        None => places.iter().map(|at| reader.text(at).to_owned()).collect(),
    };
    copy.target = match (paths.len(), paths.pop()) {
        (2.., Some(target)) => target,
        _ => return Err(reader.missing("a source and a target")),
    };
    for (number, path) in paths.into_iter().enumerate() {
        let at = || places.get(number).cloned().unwrap_or(reader.begin..line.text.len());
        let document =
            lines::document_name(&path).and_then(|name| line.documents.iter().find(|document| document.name == name));
        copy.sources.push(match document {
            Some(document) => CopySource::Document(document.clone()),
            None if is_repository(&path) => return reader.wrong(at(), NO_REPOSITORIES, "clone it in a `RUN`"),
            None if is_url(&path) && is_copy => {
                return reader.wrong(at(), "`COPY` fetches nothing", "expected a path, or `ADD`");
            }
            None if is_url(&path) && names_a_user(&path) => {
                let expected = "expected `https://HOST/..`; what needs a password is for a `RUN` with a secret";
                return reader.wrong(at(), "the URL names a user, and files are fetched without one", expected);
            }
            None if is_url(&path) && copy.checksum.is_none() => {
                let expected = "expected `--checksum=sha256:..`: what is fetched must be known beforehand";
                return reader.wrong(at(), "what is fetched has no checksum", expected);
            }
            None if is_url(&path) => CopySource::Url(path),
            None if path.contains("://") => {
                return reader.wrong(at(), "this is not fetched", "expected a path, or `http` or `https`");
            }
            None => CopySource::Path(path),
        });
    }
    let has_url = copy.sources.iter().any(|source| matches!(source, CopySource::Url(_)));
    if copy.checksum.is_some() && !(has_url && copy.sources.len() == 1) {
        let at = reader.begin..line.text.len();
        return reader.wrong(at, "a checksum is of one file that is fetched", "expected one `https://..` and a target");
    }
    Ok(copy)
}

const NO_REPOSITORIES: &str = "repositories are not fetched";

fn is_url(path: &str) -> bool {
    path.starts_with("http://") || path.starts_with("https://")
}

/// Whether there is a user, and perhaps a password, before the host (RFC 3986, 3.2.1).
pub fn names_a_user(url: &str) -> bool {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

/// As BuildKit tells them from files.
fn is_repository(path: &str) -> bool {
    let bare = path.split('#').next().unwrap_or_default();
    path.starts_with("git@")
        || path.starts_with("git://")
        || path.starts_with("ssh://")
        || is_url(path) && bare.ends_with(".git")
}
