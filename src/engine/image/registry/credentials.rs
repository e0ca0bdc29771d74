//! Credentials as Docker and Podman keep them (containers-auth.json(5)).
//!
//! ```json
//! { "auths": { "registry.example.org/shop": { "auth": "dXNlcjpwYXNzd29yZA==" } },
//!   "credHelpers": { "example.com": "pass" }, "credsStore": "secretservice" }
//! ```
//!
//! The entry with the longest path that begins the repository's decides; a helper that is named for the registry goes
//! before that. Credentials are never logged and have no `Debug`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::engine::image::error::ImageError;

/// What proves to a registry who asks.
pub enum Credential {
    Basic {
        user: String,
        password: String,
    },
    /// Exchanged for a token at the registry's realm (OAuth 2 refresh token).
    Identity(String),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// The key under which everybody keeps Docker Hub's credentials.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// The credentials for a repository, from the first of `files` that knows some. A file that is not there knows none.
pub fn find(files: &[PathBuf], registry: &str, repository: &str) -> Result<Option<Credential>, ImageError> {
    for path in files {
        let malformed = |problem: String| ImageError::Credentials { path: path.clone(), problem };
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            bytes => bytes.map_err(ImageError::file("read the credentials in", path))?,
        };
        let file: File = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        let helper = file.helpers.get(registry).or(file.store.as_ref());
        let found = match helper {
            Some(helper) => ask_helper(path, helper, registry)?,
            None => None,
        };
        let found = match found {
            Some(found) => Some(found),
            None => {
                best_entry(&file.auths, registry, repository).map(read_entry).transpose().map_err(malformed)?.flatten()
            }
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The value of an `Authorization` header (RFC 7617).
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn best_entry<'a>(auths: &'a BTreeMap<String, Entry>, registry: &str, repository: &str) -> Option<&'a Entry> {
    let wanted = format!("{registry}/{repository}/");
    let fits = |key: &str| wanted.starts_with(&format!("{}/", host_and_path(key)));
    let found = auths.iter().filter(|(key, _)| fits(key)).max_by_key(|(key, _)| host_and_path(key).len());
    found.map(|(_, entry)| entry)
}

/// A key without scheme and without the path of Docker's first API.
fn host_and_path(key: &str) -> &str {
    if key == DOCKER_HUB_KEY {
        return "docker.io";
    }
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    if key == "index.docker.io" { "docker.io" } else { key }
}

fn read_entry(entry: &Entry) -> Result<Option<Credential>, String> {
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(token) = filled(&entry.identitytoken) {
        return Ok(Some(Credential::Identity(token)));
    }
    if let (Some(user), Some(password)) = (filled(&entry.username), filled(&entry.password)) {
        return Ok(Some(Credential::Basic { user, password }));
    }
    let Some(auth) = filled(&entry.auth) else { return Ok(None) };
    let decoded = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    // Docker ends the password with zeros in files of old.
    let pair = decoded.as_deref().map(|text| text.trim_end_matches('\0')).and_then(|text| text.split_once(':'));
    match pair {
        Some((user, password)) => Ok(Some(Credential::Basic { user: user.to_owned(), password: password.to_owned() })),
        None => Err("an `auth` is not the Base64 of `user:password`".to_owned()),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// Asks `docker-credential-NAME` (docker/docker-credential-helpers, "get"). One that has nothing for the registry
/// fails, and says so in words that differ between helpers.
fn ask_helper(path: &Path, helper: &str, registry: &str) -> Result<Option<Credential>, ImageError> {
    let failed = |problem: String| ImageError::Credentials { path: path.to_owned(), problem };
    // The name becomes a program: a slash would let whoever writes the file run any.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if helper.is_empty() || !helper.chars().all(plain) {
        return Err(failed(format!("`{helper}` is not the name of a credential helper")));
    }
    let program = format!("docker-credential-{helper}");
    let child =
        Command::new(&program).arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.map_err(|error| failed(format!("`{program}` cannot be run: {error}")))?;
    let key = if registry == "docker.io" { DOCKER_HUB_KEY } else { registry };
    if let Some(mut input) = child.stdin.take() {
        // A helper that reads nothing still answers.
        let _ = input.write_all(key.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(format!("`{program}` failed: {error}")))?;
    if !output.status.success() {
        return Ok(None);
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&output.stdout).map_err(|_| failed(format!("`{program}` gave no valid answer")))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credential::Identity(answer.secret),
        _ => Credential::Basic { user: answer.username, password: answer.secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(json: &str, registry: &str, repository: &str) -> Option<String> {
        let file: File = serde_json::from_str(json).unwrap();
        match best_entry(&file.auths, registry, repository).map(read_entry)?.unwrap()? {
            Credential::Basic { user, password } => Some(format!("{user}:{password}")),
            Credential::Identity(token) => Some(format!("identity {token}")),
        }
    }

    #[test]
    fn the_most_specific_entry_decides() {
        let json = r#"{"auths": {
            "example.org": {"auth": "YTox"},
            "example.org/shop": {"auth": "Yjoy"},
            "https://index.docker.io/v1/": {"username": "hub", "password": "x:y"},
            "http://old.example.org/v2/": {"auth": "YTox"},
            "localhost:5000": {"identitytoken": "t"},
            "empty.example.org": {}
        }}"#;
        for (registry, repository, expected) in [
            ("example.org", "web", Some("a:1")),
            ("example.org", "shop/web", Some("b:2")),
            ("example.org", "shopping/web", Some("a:1")),
            ("docker.io", "library/nginx", Some("hub:x:y")),
            ("old.example.org", "a", Some("a:1")),
            ("localhost:5000", "a", Some("identity t")),
            ("localhost:5001", "a", None),
            ("empty.example.org", "a", None),
            ("example.org.evil", "a", None),
        ] {
            assert_eq!(user(json, registry, repository).as_deref(), expected, "{registry}/{repository}");
        }
    }

    #[test]
    fn what_is_no_credential_is_an_error() {
        let file: File = serde_json::from_str(r#"{"auths": {"a": {"auth": "!!"}}}"#).unwrap();
        assert!(best_entry(&file.auths, "a", "b").map(read_entry).unwrap().is_err());
        for name in ["../evil", "", "a b", "/bin/sh"] {
            assert!(ask_helper(Path::new("config.json"), name, "a").is_err(), "{name}");
        }
    }
}
