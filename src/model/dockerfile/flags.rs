//! `--name=value` in front of an instruction's arguments.

use std::ops::Range;

use super::lines::Line;
use super::words;
use super::{RunMount, RunMountKind, Sharing, SyntaxError};
use crate::model::units::{ByteSize, FileMode};

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

/// `--mount=type=..,target=..`.
pub(super) fn mount(line: &Line, flag: &Flag<'_>) -> Result<RunMount, SyntaxError> {
    let text = flag.text(line)?;
    let wrong = |message: String, expected: &str| line.error(flag.at.clone(), message, expected);
    let mut fields: Vec<(String, Option<String>)> = Vec::new();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        fields.push((key.trim().to_ascii_lowercase(), value.map(str::to_owned)));
    }
    let mut take = |names: &[&str]| {
        let at = fields.iter().rposition(|(key, _)| names.contains(&key.as_str()))?;
        Some(fields.remove(at).1)
    };
    let kind = take(&["type"]).flatten().unwrap_or_else(|| "bind".to_owned());
    let target = take(&["target", "dst", "destination"]).flatten();
    let writable = take(&["rw", "readwrite"]).map(|value| value.is_none_or(|value| value != "false"));
    let read_only = take(&["ro", "readonly"]).map(|value| value.is_none_or(|value| value != "false"));
    let target = target.ok_or_else(|| wrong("the mount has no target".into(), "expected `target=/PATH`"))?;
    let kind = match kind.as_str() {
        "bind" => RunMountKind::Bind {
            from: take(&["from"]).flatten(),
            source: take(&["source", "src"]).flatten().unwrap_or_else(|| "/".to_owned()),
            writable: writable.unwrap_or(false) && read_only != Some(true),
        },
        "cache" => {
            let number = |value: Option<String>| match value {
                None => Ok(0),
                Some(value) => value.parse().map_err(|_| wrong(format!("`{value}` is not a number"), "expected one")),
            };
            let mode: FileMode = match take(&["mode"]).flatten() {
                None => FileMode(0o755),
                Some(value) => {
                    value.parse().map_err(|_| wrong(format!("`{value}` is not a mode"), "expected `0755`"))?
                }
            };
            RunMountKind::Cache {
                id: take(&["id"]).flatten().unwrap_or_else(|| target.clone()),
                read_only: read_only.unwrap_or(false) && writable != Some(true),
                sharing: match take(&["sharing"]).flatten().as_deref() {
                    None | Some("shared") => Sharing::Shared,
                    Some("locked") => Sharing::Locked,
                    Some(_) => {
                        return Err(wrong(
                            "a cache that is private to a build would be none".into(),
                            "expected `sharing=shared` or `sharing=locked`",
                        ));
                    }
                },
                mode: mode.0,
                uid: number(take(&["uid"]).flatten())?,
                gid: number(take(&["gid"]).flatten())?,
            }
        }
        "tmpfs" => RunMountKind::Tmpfs {
            size: match take(&["size"]).flatten() {
                None => None,
                Some(value) => Some(
                    value
                        .parse::<ByteSize>()
                        .map_err(|_| wrong(format!("`{value}` is not a size"), "expected a size such as `64m`"))?
                        .0,
                ),
            },
        },
        "secret" | "ssh" => {
            return Err(wrong(
                format!("mounts of the type `{kind}` are not supported: builds here have no secrets"),
                "expected `bind`, `cache` or `tmpfs`",
            ));
        }
        other => {
            return Err(wrong(
                format!("there are no mounts of the type `{other}`"),
                "expected `bind`, `cache` or `tmpfs`",
            ));
        }
    };
    match fields.first() {
        None => Ok(RunMount { target, kind }),
        Some((key, _)) => Err(wrong(format!("`{key}` is not supported for this mount"), "leave it out")),
    }
}
