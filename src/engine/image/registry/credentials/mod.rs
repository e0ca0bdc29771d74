//! Credentials, where Docker, Podman and `evenkeel login` keep them.
//!
//! * `file`: the files (containers-auth.json(5)), read and written.
//! * `helper`: the programs that such a file may name, which keep secrets elsewhere.
//!
//! A helper that is named for the registry goes before the file's own entries; among these the one with the longest path
//! that begins the repository's decides. Credentials are never logged and have no `Debug`.

pub mod file;
mod helper;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::engine::image::error::ImageError;
use crate::engine::image::store::record::sha256;
use crate::model::id::Digest;

/// What proves to a registry who asks.
#[derive(Clone)]
pub enum Credential {
    Basic {
        user: String,
        password: String,
    },
    /// Exchanged for a token at the registry's realm (OAuth 2 refresh token).
    Identity(String),
}

impl Credential {
    /// Tells one from another without giving it away.
    pub(super) fn fingerprint(&self) -> Digest {
        match self {
            Credential::Basic { user, password } => sha256([b"basic\0", user.as_bytes(), b"\0", password.as_bytes()]),
            Credential::Identity(token) => sha256([b"identity\0".as_slice(), token.as_bytes()]),
        }
    }

    /// A text of the other side without the secret: some repeat what they were sent.
    pub(super) fn taken_out_of(&self, text: String) -> String {
        let secrets = match self {
            Credential::Basic { user, password } => [password.clone(), encoded(user, password)],
            Credential::Identity(token) => [token.clone(), token.clone()],
        };
        let secrets = secrets.iter().filter(|secret| !secret.is_empty());
        secrets.fold(text, |text, secret| text.replace(secret.as_str(), "***"))
    }
}

/// The key under which everybody keeps Docker Hub's credentials.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Where `evenkeel login` puts credentials: the one place that a service has, too, to whom systemd gives no `$HOME`.
pub const OWN_FILE: &str = "/etc/evenkeel/auth.json";

/// Where credentials are looked for; the first file that knows a registry decides:
///
/// 1. `$REGISTRY_AUTH_FILE`, and then nowhere else;
/// 2. `/etc/evenkeel/auth.json`;
/// 3. `$XDG_RUNTIME_DIR/containers/auth.json`, or `/run/containers/0/auth.json`: `podman login`;
/// 4. `$XDG_CONFIG_HOME/containers/auth.json`, or `~/.config/containers/auth.json`;
/// 5. `$DOCKER_CONFIG/config.json`, or `~/.docker/config.json`: `docker login`.
///
/// Missing files are fine. The caller reads the environment.
pub fn files(variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let directory = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(only) = directory("REGISTRY_AUTH_FILE") {
        return vec![only];
    }
    let home = directory("HOME");
    let below_home = |path: &str| home.as_ref().map(|home| home.join(path));
    let runtime = directory("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json"));
    let config = directory("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
    let docker = directory("DOCKER_CONFIG").or_else(|| below_home(".docker"));
    let mut files = vec![PathBuf::from(OWN_FILE)];
    files.push(runtime.unwrap_or_else(|| PathBuf::from("/run/containers/0/auth.json")));
    files.extend(config.map(|directory| directory.join("containers/auth.json")));
    files.extend(docker.map(|directory| directory.join("config.json")));
    files
}

/// The credentials for a repository, from the first of `files` that knows some, and that file.
pub fn find(files: &[PathBuf], registry: &str, repository: &str) -> Result<Option<(Credential, PathBuf)>, ImageError> {
    for path in files {
        let Some(file) = file::read(path)? else { continue };
        if let Some(name) = file.helper(registry)
            && let Some(found) = helper::get(path, name, key(registry))?
        {
            return Ok(Some((found, path.clone())));
        }
        if let Some(found) = file.entry(registry, repository).map_err(|problem| malformed(path, problem))? {
            return Ok(Some((found, path.clone())));
        }
    }
    Ok(None)
}

/// Where a credential was put.
pub enum Kept {
    File,
    /// The helper of this name has it.
    Helper(String),
}

/// Keeps a credential for a registry, in the helper that the file names or else in the file itself.
pub fn keep(path: &Path, registry: &str, user: &str, password: &str) -> Result<Kept, ImageError> {
    let known = file::read(path)?.unwrap_or_default();
    match known.helper(registry) {
        Some(name) => {
            helper::store(path, name, key(registry), user, password)?;
            Ok(Kept::Helper(name.to_owned()))
        }
        None => file::put(path, key(registry), &encoded(user, password)).map(|()| Kept::File),
    }
}

/// Forgets what this file, or the helper that it names, has for a registry. Says whether there was something.
pub fn forget(path: &Path, registry: &str) -> Result<bool, ImageError> {
    let Some(known) = file::read(path)? else { return Ok(false) };
    let helped = match known.helper(registry) {
        Some(name) => helper::erase(path, name, key(registry))?,
        None => false,
    };
    Ok(file::take_out(path, registry)? || helped)
}

/// The value of an `Authorization` header (RFC 7617).
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", encoded(user, password))
}

fn encoded(user: &str, password: &str) -> String {
    STANDARD.encode(format!("{user}:{password}"))
}

/// What files and helpers know a registry by.
fn key(registry: &str) -> &str {
    if registry == "docker.io" { DOCKER_HUB_KEY } else { registry }
}

fn malformed(path: &Path, problem: String) -> ImageError {
    ImageError::Credentials { path: path.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked_for(environment: &[(&str, &str)]) -> Vec<PathBuf> {
        files(&|name| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn everybodys_files_are_looked_into_and_the_own_one_without_a_home() {
        assert_eq!(looked_for(&[("REGISTRY_AUTH_FILE", "/a"), ("HOME", "/h")]), [Path::new("/a")]);
        let own = Path::new(OWN_FILE);
        assert_eq!(looked_for(&[]), [own, Path::new("/run/containers/0/auth.json")]);
        let podman = Path::new("/h/.config/containers/auth.json");
        let at_home = looked_for(&[("HOME", "/h"), ("REGISTRY_AUTH_FILE", ""), ("XDG_RUNTIME_DIR", "/r")]);
        assert_eq!(at_home, [own, Path::new("/r/containers/auth.json"), podman, Path::new("/h/.docker/config.json")]);
        let moved = looked_for(&[("HOME", "/h"), ("DOCKER_CONFIG", "/d"), ("XDG_CONFIG_HOME", "/c")]);
        assert_eq!(moved[2..], [Path::new("/c/containers/auth.json"), Path::new("/d/config.json")]);
    }

    #[test]
    fn a_secret_that_is_repeated_is_taken_out() {
        let credential = Credential::Basic { user: "me".into(), password: "s3cret".into() };
        let told = format!("no `s3cret` here, nor {}", basic("me", "s3cret"));
        assert_eq!(credential.taken_out_of(told), "no `***` here, nor Basic ***");
    }
}
