//! `RUN --mount=type=..,target=..`: what one command sees beside the image's files.

use std::str::FromStr;

use super::flags::Flag;
use super::lines::Line;
use super::{RunMount, RunMountKind, RunSecret, Sharing, SyntaxError};
use crate::model::units::{ByteSize, FileMode};

/// Where secrets are that do not say where they want to be.
const SECRETS: &str = "/run/secrets";

/// What a flag asks for.
pub(super) enum Asked {
    Mount(RunMount),
    Secret(RunSecret),
}

pub(super) fn read(line: &Line, flag: &Flag<'_>) -> Result<Asked, SyntaxError> {
    let mut fields = Fields::of(line, flag)?;
    let kind = fields.text(&["type"])?.unwrap_or_else(|| "bind".to_owned());
    let target = fields.text(&["target", "dst", "destination"])?;
    let asked = match kind.as_str() {
        "secret" => Asked::Secret(fields.secret(target)?),
        "bind" | "cache" | "tmpfs" => {
            let Some(target) = target else {
                return Err(fields.wrong("the mount has no target", "expected `target=/PATH`"));
            };
            let kind = match kind.as_str() {
                "bind" => fields.bind()?,
                "cache" => fields.cache(&target)?,
                _ => RunMountKind::Tmpfs {
                    size: fields.parsed(&["size"], "a size such as `64m`")?.map(|size: ByteSize| size.0),
                },
            };
            Asked::Mount(RunMount { target, kind })
        }
        "ssh" => {
            let message = "mounts of the type `ssh` are not supported: no agent is passed on to a build";
            return Err(fields.wrong(message, "give the key as a secret: `type=secret`"));
        }
        other => {
            let message = format!("there are no mounts of the type `{other}`");
            return Err(fields.wrong(message, "expected `bind`, `cache`, `secret` or `tmpfs`"));
        }
    };
    fields.finish()?;
    Ok(asked)
}

/// `key=value` or `key`, with commas between; each is taken once.
struct Fields<'l> {
    line: &'l Line,
    flag: &'l Flag<'l>,
    left: Vec<(String, Option<String>)>,
}

impl<'l> Fields<'l> {
    fn of(line: &'l Line, flag: &'l Flag<'l>) -> Result<Fields<'l>, SyntaxError> {
        let field = |field: &str| {
            let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
            (key.trim().to_ascii_lowercase(), value.map(str::to_owned))
        };
        let left = flag.text(line)?.split(',').map(field).collect();
        Ok(Fields { line, flag, left })
    }

    fn wrong(&self, message: impl Into<String>, expected: impl Into<String>) -> SyntaxError {
        self.line.error(self.flag.at.clone(), message, expected)
    }

    /// The last of these keys.
    fn take(&mut self, names: &[&str]) -> Option<(String, Option<String>)> {
        let at = self.left.iter().rposition(|(key, _)| names.contains(&key.as_str()))?;
        Some(self.left.remove(at))
    }

    fn text(&mut self, names: &[&str]) -> Result<Option<String>, SyntaxError> {
        match self.take(names) {
            None => Ok(None),
            Some((_, Some(value))) if !value.is_empty() => Ok(Some(value)),
            Some((key, _)) => Err(self.wrong(format!("`{key}` needs a value"), format!("expected `{key}=VALUE`"))),
        }
    }

    fn parsed<T: FromStr>(&mut self, names: &[&str], what: &str) -> Result<Option<T>, SyntaxError> {
        let Some(text) = self.text(names)? else { return Ok(None) };
        let parsed = text.parse().map(Some);
        parsed.map_err(|_| self.wrong(format!("`{text}` is not {what}"), format!("expected {what}")))
    }

    /// A key alone is on.
    fn is_on(&mut self, names: &[&str]) -> Result<Option<bool>, SyntaxError> {
        match self.take(names) {
            None => Ok(None),
            Some((_, None)) => Ok(Some(true)),
            Some((key, Some(value))) => match value.to_ascii_lowercase().as_str() {
                "true" | "1" => Ok(Some(true)),
                "false" | "0" => Ok(Some(false)),
                _ => Err(self.wrong(format!("`{key}` is on or off"), "expected `true` or `false`")),
            },
        }
    }

    /// `rw` and `ro` are one switch; what was written of it.
    fn is_writable(&mut self) -> Result<Option<bool>, SyntaxError> {
        match (self.is_on(&["rw", "readwrite"])?, self.is_on(&["ro", "readonly"])?) {
            (Some(_), Some(_)) => Err(self.wrong("`rw` and `ro` are given both", "expected one of them")),
            (writable, read_only) => Ok(writable.or(read_only.map(|read_only| !read_only))),
        }
    }

    fn look(&mut self, mode: u32) -> Result<(u32, u32, u32), SyntaxError> {
        let mode = self.parsed(&["mode"], "a mode such as `0400`")?.map_or(mode, |mode: FileMode| mode.0);
        let uid = self.parsed(&["uid"], "a number")?.unwrap_or(0);
        Ok((mode, uid, self.parsed(&["gid"], "a number")?.unwrap_or(0)))
    }

    fn bind(&mut self) -> Result<RunMountKind, SyntaxError> {
        Ok(RunMountKind::Bind {
            from: self.text(&["from"])?,
            source: self.text(&["source", "src"])?.unwrap_or_else(|| "/".to_owned()),
            writable: self.is_writable()?.unwrap_or(false),
        })
    }

    fn cache(&mut self, target: &str) -> Result<RunMountKind, SyntaxError> {
        let sharing = match self.text(&["sharing"])?.as_deref() {
            None | Some("shared") => Sharing::Shared,
            Some("locked") => Sharing::Locked,
            Some(_) => {
                let message = "a cache that is private to a build would be none";
                return Err(self.wrong(message, "expected `sharing=shared` or `sharing=locked`"));
            }
        };
        let (mode, uid, gid) = self.look(0o755)?;
        let id = self.text(&["id"])?.unwrap_or_else(|| target.to_owned());
        Ok(RunMountKind::Cache { id, read_only: !self.is_writable()?.unwrap_or(true), sharing, mode, uid, gid })
    }

    fn secret(&mut self, target: Option<String>) -> Result<RunSecret, SyntaxError> {
        let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let id = match (self.text(&["id"])?, &target) {
            (Some(id), _) => id,
            (None, Some(target)) => last(target),
            (None, None) => return Err(self.wrong("the secret has no id", "expected `id=NAME`")),
        };
        let variable = self.text(&["env"])?;
        let target = match (target, &variable) {
            (None, None) => Some(format!("{SECRETS}/{}", last(&id))),
            (target, _) => target,
        };
        let required = self.is_on(&["required"])?.unwrap_or(false);
        let (mode, uid, gid) = self.look(0o400)?;
        Ok(RunSecret { id, target, variable, required, mode, uid, gid })
    }

    fn finish(self) -> Result<(), SyntaxError> {
        match self.left.first() {
            None => Ok(()),
            Some((key, _)) => Err(self.wrong(format!("`{key}` is not supported for this mount"), "leave it out")),
        }
    }
}
