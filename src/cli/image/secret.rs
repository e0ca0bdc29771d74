//! `--secret id=ID,src=FILE`: what a build is told.

use std::path::PathBuf;

use toml::{Table, Value};

use crate::cli::context::variable;
use crate::cli::failure::Failure;
use crate::cli::run::declaration::text;

/// One secret of a build, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    pub id: String,
    source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Variable(String),
    /// The variable that is called as the secret is, or else the file, as with Docker.
    Id,
}

/// As `docker build` reads it: `id=..`, then `src=` (or `source=`), or `env=`; `type=file|env` says what `src` is.
pub fn parse(written: &str) -> Result<Secret, String> {
    let (mut id, mut source, mut kind) = (None, None, None);
    for field in written.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("`{field}` has no value"))?;
        if value.is_empty() {
            return Err(format!("`{key}` has no value"));
        }
        match key.to_ascii_lowercase().as_str() {
            "id" => id = Some(value.to_owned()),
            "type" if matches!(value, "file" | "env") => kind = Some(value),
            "type" => return Err(format!("there are no secrets of the type `{value}`; expected `file` or `env`")),
            _ if source.is_some() => return Err("a secret has one source: `src=FILE` or `env=NAME`".to_owned()),
            "src" | "source" => source = Some(Source::File(value.into())),
            "env" => source = Some(Source::Variable(value.to_owned())),
            _ => return Err(format!("`{key}` is not known; expected `id`, `src` or `env`")),
        }
    }
    let id = id.ok_or("it has no id; expected `id=ID,src=FILE` or `id=ID,env=NAME`")?;
    let source = match (source, kind) {
        (Some(Source::File(name)), Some("env")) => Source::Variable(name.to_string_lossy().into_owned()),
        (Some(Source::Variable(_)), Some("file")) => {
            return Err("`env` names a variable, and `type` says `file`".into());
        }
        (Some(source), _) => source,
        (None, Some("env")) => Source::Variable(id.clone()),
        (None, Some(_)) => Source::File(PathBuf::from(&id)),
        (None, None) => Source::Id,
    };
    Ok(Secret { id, source })
}

impl Secret {
    /// As a manifest has it. What is not there is told before anything is built.
    pub fn to_value(&self) -> Result<Value, Failure> {
        let missing = |what: String| Failure::usage(format!("--secret: {what}"));
        let (key, value) = match &self.source {
            Source::Id if variable(&self.id).is_some() => ("environment", self.id.clone()),
            Source::Variable(name) => match variable(name) {
                Some(_) => ("environment", name.clone()),
                None => {
                    return Err(missing(format!("the environment variable `{name}` is not set")).hint("export it"));
                }
            },
            Source::Id => ("file", self.file(PathBuf::from(&self.id)).map_err(missing)?),
            Source::File(path) => ("file", self.file(path.clone()).map_err(missing)?),
        };
        Ok(Value::Table(Table::from_iter([(key.to_owned(), text(&value))])))
    }

    fn file(&self, path: PathBuf) -> Result<String, String> {
        let path = std::path::absolute(&path).map_err(|error| format!("`{}`: {error}", path.display()))?;
        match path.metadata() {
            Err(error) => {
                Err(format!("the file `{}` of the secret `{}` cannot be read: {error}", path.display(), self.id))
            }
            Ok(found) if found.is_dir() => Err(format!("`{}` is a directory, expected a file", path.display())),
            // Several commands may ask, and each reads anew.
            Ok(found) if !found.is_file() => Err(format!(
                "`{}` is no regular file; write the secret to one, or give it by a variable, `id={},env=NAME`",
                path.display(),
                self.id
            )),
            Ok(_) => Ok(path.to_string_lossy().into_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_an_id_and_one_source() {
        let source = |written: &str| parse(written).map(|secret| (secret.id, secret.source));
        let of = |id: &str, source| Ok((id.to_owned(), source));
        assert_eq!(source("id=a,src=f/x"), of("a", Source::File("f/x".into())));
        assert_eq!(source("source=f,id=a,type=file"), of("a", Source::File("f".into())));
        assert_eq!(source("id=a,env=A"), of("a", Source::Variable("A".into())));
        assert_eq!(source("type=env,id=a,src=A"), of("a", Source::Variable("A".into())));
        assert_eq!(source("type=env,id=a"), of("a", Source::Variable("a".into())));
        assert_eq!(source("id=a"), of("a", Source::Id));
        for wrong in
            ["", "a", "id=", "src=f", "id=a,src=f,env=A", "id=a,type=vault", "id=a,mode=1", "id=a,env=A,type=file"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
