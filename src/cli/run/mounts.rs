//! `-v`, `--mount` and `--tmpfs` as entries of `mounts` and `volumes`.

use std::path::Path;

use toml::{Table, Value};

use super::arguments::StorageArguments;
use super::declaration::{malformed, text};
use crate::cli::failure::Failure;
use crate::model::id::{ResourceName, VolumeKey};
use crate::model::paths::Paths;
use crate::model::tmpfs::TmpfsOption;
use crate::model::volume::ANONYMOUS;

/// What is mounted by target, and the volumes for that.
#[derive(Debug, Default)]
pub struct Mounts {
    pub targets: Table,
    pub volumes: Table,
}

/// What Docker takes for the sake of other systems, where a file may be two.
const CONSISTENCIES: [&str; 4] = ["default", "consistent", "cached", "delegated"];

const MOUNT_KEYS: &str = "type, source, target, readonly, bind-propagation, volume-nocopy, tmpfs-size and tmpfs-mode";

const PROPAGATIONS: [&str; 6] = ["rprivate", "private", "rshared", "shared", "rslave", "slave"];

pub fn declare(arguments: &StorageArguments, container: &str, unique: &str, paths: &Paths) -> Result<Mounts, Failure> {
    let mut builder = Builder { mounts: Mounts::default(), container, unique, paths };
    arguments.volumes.iter().try_for_each(|written| builder.volume(written))?;
    arguments.mounts.iter().try_for_each(|written| builder.mount(written))?;
    arguments.tmpfs.iter().try_for_each(|written| builder.tmpfs(written))?;
    Ok(builder.mounts)
}

struct Builder<'a> {
    mounts: Mounts,
    container: &'a str,
    unique: &'a str,
    paths: &'a Paths,
}

impl Builder<'_> {
    /// `[SOURCE:]TARGET[:OPTIONS]`.
    fn volume(&mut self, written: &str) -> Result<(), Failure> {
        let expected = || {
            malformed("--volume", written, "[SOURCE:]TARGET[:OPTIONS], options ro, rw, nocopy, z, Z or a propagation")
        };
        let (source, target, options) = match written.split(':').collect::<Vec<_>>().as_slice() {
            [target] => (None, *target, ""),
            [source, target] if target.starts_with('/') => (Some(*source), *target, ""),
            [_, ""] => return Err(expected()),
            [target, options] => (None, *target, *options),
            [source, target, options] => (Some(*source), *target, *options),
            _ => return Err(expected()),
        };
        let mut mount = match source {
            None => self.anonymous(),
            Some(path) if path.starts_with(['/', '.']) => {
                entries([("bind", text(path)), ("create", Value::Boolean(true))])
            }
            Some(name) => self.named(name)?,
        };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "rw" => {}
                "ro" => drop(mount.insert("read_only".into(), Value::Boolean(true))),
                "nocopy" => drop(mount.insert("nocopy".into(), Value::Boolean(true))),
                "z" | "Z" => ensure_no_labels(written)?,
                word if CONSISTENCIES.contains(&word) => {}
                word if PROPAGATIONS.contains(&word) => drop(mount.insert("propagation".into(), text(word))),
                _ => return Err(expected()),
            }
        }
        self.insert(target, mount)
    }

    /// `type=..,source=..,target=..`.
    fn mount(&mut self, written: &str) -> Result<(), Failure> {
        let expected = |what: &str| malformed("--mount", written, what);
        let (mut kind, mut source, mut target, mut rest) = ("volume", None, None, Table::new());
        for part in written.split(',') {
            let (key, value) = part.split_once('=').unwrap_or((part, "true"));
            match key {
                "type" => kind = value,
                "source" | "src" => source = Some(value),
                "target" | "destination" | "dst" => target = Some(value),
                "readonly" | "ro" => {
                    let set = boolean(value).ok_or_else(|| expected("`readonly`, or `readonly=true` or `=false`"))?;
                    rest.insert("read_only".into(), Value::Boolean(set));
                }
                "bind-propagation" => drop(rest.insert("propagation".into(), text(value))),
                "volume-nocopy" => {
                    let expected = || expected("`volume-nocopy`, or `volume-nocopy=true` or `=false`");
                    let set = boolean(value).ok_or_else(expected)?;
                    rest.insert("nocopy".into(), Value::Boolean(set));
                }
                "consistency" if CONSISTENCIES.contains(&value) => {}
                "tmpfs-size" => drop(rest.insert("tmpfs".into(), text(value))),
                "tmpfs-mode" => drop(rest.insert("mode".into(), text(value))),
                "" => {
                    return Err(expected(
                        "KEY=VALUE pairs with commas between them, such as type=bind,source=/a,target=/b",
                    ));
                }
                _ => return Err(expected(&format!("no `{key}`: {MOUNT_KEYS} are known"))),
            }
        }
        let target = target.ok_or_else(|| expected("a `target=`"))?;
        let mut mount = match (kind, source) {
            ("bind", Some(path)) => entries([("bind", text(path))]),
            ("bind", None) => return Err(expected("a `source=` for a bind mount")),
            ("volume", Some(name)) => self.named(name)?,
            ("volume", None) => self.anonymous(),
            ("tmpfs", None) => entries([("tmpfs", Value::Boolean(true)), ("options", words(&["noexec"]))]),
            ("tmpfs", Some(_)) => return Err(expected("no `source=` for a tmpfs")),
            _ => return Err(expected("type=bind, volume or tmpfs")),
        };
        mount.extend(rest);
        self.insert(target, mount)
    }

    /// `TARGET[:OPTIONS]`.
    fn tmpfs(&mut self, written: &str) -> Result<(), Failure> {
        let (target, options) = written.split_once(':').unwrap_or((written, ""));
        let mut mount = entries([("tmpfs", Value::Boolean(true))]);
        // As Docker has it: nothing on it is executed unless `exec` says so.
        let mut further = vec!["noexec"];
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("size", size)) if !size.ends_with('%') => drop(mount.insert("tmpfs".into(), text(size))),
                Some(("mode", mode)) => drop(mount.insert("mode".into(), text(mode))),
                _ if option.parse::<TmpfsOption>().is_ok() => further.push(option),
                _ => {
                    let known = "TARGET[:OPTIONS] with options of mount(8) and tmpfs(5) such as size=64m, mode=1770, uid=1000 or noexec";
                    return Err(malformed("--tmpfs", written, known));
                }
            }
        }
        mount.insert("options".into(), words(&further));
        self.insert(target, mount)
    }

    fn insert(&mut self, target: &str, mount: Table) -> Result<(), Failure> {
        let target = match target.trim_end_matches('/') {
            "" => target,
            trimmed => trimmed,
        };
        match self.mounts.targets.insert(target.to_owned(), Value::Table(mount)) {
            None => Ok(()),
            Some(_) => Err(Failure::usage(format!("two mounts have the target `{target}`"))),
        }
    }

    fn anonymous(&mut self) -> Table {
        let number = self.mounts.volumes.len() + 1;
        // A name has at most 63 characters.
        let container: String = self.container.chars().take(40).collect();
        let name = format!("{container}-{}-{number}", self.unique);
        let labels = entries([(ANONYMOUS, text("true"))]);
        self.mounts.volumes.insert(name.clone(), Value::Table(entries([("labels", Value::Table(labels))])));
        entries([("volume", text(&name))])
    }

    /// A volume that nobody declares, or one of a project, which is mounted by its place.
    fn named(&mut self, name: &str) -> Result<Table, Failure> {
        let Some((project, volume)) = name.split_once('/') else {
            name.parse::<ResourceName>()
                .map_err(|error| Failure::from(error).context(format!("no volume: `{name}`")))?;
            self.mounts.volumes.entry(name).or_insert_with(|| Value::Table(Table::new()));
            return Ok(entries([("volume", text(name))]));
        };
        let wrong = |error| Failure::from(error).context(format!("no volume of a project: `{name}`"));
        let key = VolumeKey { project: project.parse().map_err(wrong)?, name: volume.parse().map_err(wrong)? };
        let data = self.paths.volume_data(&key);
        match data.is_dir() {
            true => Ok(entries([("bind", text(&data.to_string_lossy()))])),
            false => Err(Failure::new(format!("project {project} has no volume `{volume}` on this host"))),
        }
    }
}

/// `z` and `Z` relabel the source where SELinux watches over it; elsewhere they mean nothing, as with Docker.
fn ensure_no_labels(written: &str) -> Result<(), Failure> {
    match Path::new("/sys/fs/selinux").is_dir() {
        false => Ok(()),
        true => Err(Failure::usage(format!("`--volume {written}`: this engine changes no labels of SELinux"))
            .hint("label the source once (`chcon -t container_file_t`), and leave `z` and `Z` out")),
    }
}

/// As Go reads one.
fn boolean(value: &str) -> Option<bool> {
    match value {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn words(words: &[&str]) -> Value {
    Value::Array(words.iter().map(|word| text(word)).collect())
}

fn entries<const N: usize>(pairs: [(&str, Value); N]) -> Table {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(volumes: &[&str], mounts: &[&str], tmpfs: &[&str]) -> Result<String, String> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let arguments = StorageArguments {
            volumes: owned(volumes),
            mounts: owned(mounts),
            tmpfs: owned(tmpfs),
            volumes_from: Vec::new(),
            read_only: false,
            shm_size: None,
        };
        let paths = Paths { root: "/root".into(), run: "/run".into() };
        let mounts = declare(&arguments, "job", "0a1b", &paths).map_err(|failure| format!("{failure:?}"))?;
        Ok(format!("{} {}", Value::Table(mounts.targets), Value::Table(mounts.volumes)))
    }

    #[test]
    fn a_volume_has_docker_s_forms() {
        let table = [
            (
                "/data",
                r#"{ "/data" = { volume = "job-0a1b-1" } } { job-0a1b-1 = { labels = { "evenkeel.anonymous" = "true" } } }"#,
            ),
            ("cache:/c:ro", r#"{ "/c" = { volume = "cache", read_only = true } } { cache = {} }"#),
            ("cache:/c:nocopy,Z,cached", r#"{ "/c" = { volume = "cache", nocopy = true } } { cache = {} }"#),
            ("./src:/src/:rslave", r#"{ "/src" = { bind = "./src", create = true, propagation = "rslave" } } {}"#),
        ];
        for (written, expected) in table {
            let words = |text: &str| {
                let mut words: Vec<_> = text.split([' ', ',']).filter(|w| !w.is_empty()).map(str::to_owned).collect();
                words.sort();
                words
            };
            assert_eq!(words(&declared(&[written], &[], &[]).unwrap()), words(expected), "{written}");
        }
        for wrong in ["a:b:c:d", "x:/y:noway", "Bad Name:/y"] {
            assert!(declared(&[wrong], &[], &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_target_has_one_mount() {
        assert!(declared(&["/a:/x"], &["type=tmpfs,target=/x"], &[]).unwrap_err().contains("two mounts"));
        assert!(declared(&[], &["type=tmpfs,dst=/x,tmpfs-size=1m"], &["/y:size=2m,mode=0700"]).is_ok());
        assert!(declared(&[], &["type=bind,target=/x"], &[]).is_err());
        let tmpfs = declared(&[], &[], &["/y:size=10%,exec,uid=7,mode=1770"]).unwrap();
        assert!(tmpfs.contains(r#"options = ["noexec", "size=10%", "exec", "uid=7"]"#), "{tmpfs}");
        assert!(declared(&[], &[], &["/y:bind"]).is_err());
    }
}
