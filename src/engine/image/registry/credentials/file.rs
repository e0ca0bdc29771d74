//! Files of credentials, as Docker and Podman write them (containers-auth.json(5)).
//!
//! ```json
//! { "auths": { "registry.example.org/shop": { "auth": "dXNlcjpwYXNzd29yZA==" } },
//!   "credHelpers": { "example.com": "pass" }, "credsStore": "secretservice" }
//! ```
//!
//! Docker keeps more in its file than credentials. Whoever writes here changes one entry and keeps all else.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Credential, DOCKER_HUB_KEY, key, malformed};
use crate::engine::image::error::ImageError;

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Contents {
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

/// What the file holds; nothing if it is not there, or empty as `touch` leaves it.
pub(super) fn read(path: &Path) -> Result<Option<Contents>, ImageError> {
    let Some(bytes) = bytes(path)? else { return Ok(None) };
    // The parser's words may show a piece of the text, and a piece of this text may be a secret.
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|error| malformed(path, format!("it is no JSON of that kind, near line {}", error.line())))
}

impl Contents {
    /// The helper for a registry: the one that is named for it, or the one for all.
    pub(super) fn helper(&self, registry: &str) -> Option<&str> {
        let named = self.helpers.iter().find(|(key, _)| host_and_path(key) == registry).map(|(_, helper)| helper);
        named.or(self.store.as_ref()).map(String::as_str).filter(|helper| !helper.is_empty())
    }

    /// The entry with the longest path that begins the repository's.
    pub(super) fn entry(&self, registry: &str, repository: &str) -> Result<Option<Credential>, String> {
        let wanted = format!("{registry}/{repository}/");
        let fits = |key: &str| wanted.starts_with(&format!("{}/", host_and_path(key)));
        let found = self.auths.iter().filter(|(key, _)| fits(key)).max_by_key(|(key, _)| host_and_path(key).len());
        found.map_or(Ok(None), |(_, entry)| entry.credential())
    }
}

impl Entry {
    fn credential(&self) -> Result<Option<Credential>, String> {
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = filled(&self.identitytoken) {
            return Ok(Some(Credential::Identity(token)));
        }
        if let (Some(user), Some(password)) = (filled(&self.username), filled(&self.password)) {
            return Ok(Some(Credential::Basic { user, password }));
        }
        let Some(auth) = filled(&self.auth) else { return Ok(None) };
        let decoded = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        // Docker ends the password with zeros in files of old.
        let pair = decoded.as_deref().map(|text| text.trim_end_matches('\0')).and_then(|text| text.split_once(':'));
        match pair {
            Some((user, password)) => {
                Ok(Some(Credential::Basic { user: user.to_owned(), password: password.to_owned() }))
            }
            None => Err("an `auth` is not the Base64 of `user:password`".to_owned()),
        }
    }
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

/// Puts one entry into the file, in place of those for the same registry. Makes the file if it is not there.
pub(super) fn put(path: &Path, registry: &str, auth: &str) -> Result<(), ImageError> {
    change(path, |contents| {
        let auths = auths(contents)?;
        auths.retain(|key, _| host_and_path(key) != host_and_path(registry));
        auths.insert(registry.to_owned(), json!({ "auth": auth }));
        Some(true)
    })
    .map(drop)
}

/// Takes the entries of a registry out, those of its paths too. Says whether there were some.
pub(super) fn take_out(path: &Path, registry: &str) -> Result<bool, ImageError> {
    let below = format!("{registry}/");
    change(path, |contents| {
        let auths = auths(contents)?;
        let before = auths.len();
        auths.retain(|key, _| host_and_path(key) != registry && !host_and_path(key).starts_with(&below));
        Some(auths.len() != before)
    })
}

fn auths(contents: &mut Map<String, Value>) -> Option<&mut Map<String, Value>> {
    contents.entry("auths").or_insert_with(|| json!({})).as_object_mut()
}

/// Replaces the file by what `edit` makes of it, if it says that it changed something: a reader, or a power cut, finds
/// the old or the new one, and of two who write at once none undoes the other.
fn change(path: &Path, edit: impl FnOnce(&mut Map<String, Value>) -> Option<bool>) -> Result<bool, ImageError> {
    let failed = |action| ImageError::file(action, path);
    let path = &linked(path);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed("make the directory of"))?;
    let lock = File::open(directory).map_err(failed("open the directory of"))?;
    lock.lock().map_err(failed("lock the directory of"))?;
    let text = bytes(path)?.unwrap_or_default();
    let contents: Value = match text.is_empty() {
        true => json!({}),
        false => serde_json::from_slice(&text).map_err(|_| malformed(path, "it is no JSON".to_owned()))?,
    };
    let Value::Object(mut contents) = contents else { return Err(malformed(path, "it is no JSON object".to_owned())) };
    let changed = edit(&mut contents).ok_or_else(|| malformed(path, "its `auths` is no object".to_owned()))?;
    if !changed {
        return Ok(false);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    // One that somebody left who died could have another mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace")(error)),
        _ => {}
    }
    let text = serde_json::to_string_pretty(&contents).map_err(|error| failed("write")(error.into()))?;
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).and_then(|mut file| {
        // Root may write into the file of somebody, who is to read it afterwards.
        match fs::metadata(path) {
            Ok(before) => fchown(&file, Some(before.uid()), Some(before.gid()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    });
    written.map_err(failed("write"))?;
    fs::rename(&temporary, path).map_err(failed("replace"))?;
    lock.sync_all().map_err(failed("sync the directory of"))?;
    Ok(true)
}

/// What a link leads to, also when that is not there yet: who keeps his settings elsewhere has a link here, which stays
/// one.
fn linked(path: &Path) -> PathBuf {
    // More links than the kernel follows, path_resolution(7), lead nowhere.
    let mut path = path.to_owned();
    for _ in 0..40 {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
}

fn bytes(path: &Path) -> Result<Option<Vec<u8>>, ImageError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => Ok(None),
        bytes => bytes.map(Some).map_err(ImageError::file("read the credentials in", path)),
    }
}

/// Whether this file has an entry for a registry, or for a path in it.
pub fn knows(path: &Path, registry: &str) -> Result<bool, ImageError> {
    let below = format!("{}/", host_and_path(key(registry)));
    let Some(contents) = read(path)? else { return Ok(false) };
    Ok(contents.auths.iter().any(|(key, entry)| {
        let filled = entry.auth.is_some() || entry.identitytoken.is_some() || entry.username.is_some();
        filled && format!("{}/", host_and_path(key)).starts_with(&below)
    }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn user(json: &str, registry: &str, repository: &str) -> Option<String> {
        let file: Contents = serde_json::from_str(json).unwrap();
        match file.entry(registry, repository).unwrap()? {
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
        let file: Contents = serde_json::from_str(r#"{"auths": {"a": {"auth": "!!"}}}"#).unwrap();
        assert!(file.entry("a", "b").is_err());
    }

    #[test]
    fn a_helper_for_one_registry_goes_before_the_one_for_all() {
        let json = r#"{"credsStore": "all", "credHelpers": {"a.example": "one", "index.docker.io": "hub", "b": ""}}"#;
        let file: Contents = serde_json::from_str(json).unwrap();
        for (registry, helper) in
            [("a.example", Some("one")), ("docker.io", Some("hub")), ("c", Some("all")), ("b", None)]
        {
            assert_eq!(file.helper(registry), helper, "{registry}");
        }
    }

    #[test]
    fn one_entry_changes_and_all_else_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/config.json");
        put(&path, "a.example", "YTox").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let before = r#"{"auths":{"https://a.example/v2/":{"auth":"eDp5"},"a.example/shop":{"auth":"eDp5"},
            "b.example":{"auth":"Yjoy","email":"b@example"}},"psFormat":"x"}"#;
        fs::write(&path, before).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(path.with_file_name("config.json.new"), "left by one who died").unwrap();
        put(&path, "a.example", "YTox").unwrap();
        let read: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(
            read,
            json!({ "psFormat": "x", "auths": { "a.example": { "auth": "YTox" }, "a.example/shop": { "auth": "eDp5" },
                "b.example": { "auth": "Yjoy", "email": "b@example" } } })
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(take_out(&path, "a.example").unwrap());
        assert!(!take_out(&path, "a.example").unwrap());
        assert!(!knows(&path, "a.example").unwrap() && knows(&path, "b.example").unwrap());
        let read: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(read["auths"].as_object().unwrap().len(), 1);
        for damaged in ["[]", "{", r#"{"auths":1}"#] {
            fs::write(&path, damaged).unwrap();
            assert!(put(&path, "a.example", "YTox").is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), damaged, "what is not understood is not touched");
        }
    }

    #[test]
    fn a_link_to_a_file_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (path, real) = (directory.path().join("config.json"), directory.path().join("dotfiles.json"));
        fs::write(&real, "{}").unwrap();
        std::os::unix::fs::symlink(&real, &path).unwrap();
        put(&path, "a.example", "YTox").unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink() && knows(&real, "a.example").unwrap());
        fs::remove_file(&real).unwrap();
        put(&path, "b.example", "YTox").unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink() && knows(&real, "b.example").unwrap());
    }

    #[test]
    fn whose_file_it_was_it_stays() {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        put(&path, "a.example", "YTox").unwrap();
        std::os::unix::fs::chown(&path, Some(1234), Some(5678)).unwrap();
        put(&path, "b.example", "YTox").unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!((after.uid(), after.gid(), after.permissions().mode() & 0o777), (1234, 5678, 0o600));
    }
}
