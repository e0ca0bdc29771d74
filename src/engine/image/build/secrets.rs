//! `RUN --mount=type=secret`: what one command knows, and nobody after it.
//!
//! ```text
//! file or variable of the host ── when the command is run ──> tmpfs(5) of the build's own ── bind, read-only ──> command
//!                                                        └─> its environment
//! ```
//!
//! # Decisions
//! * The key of a step has what was asked for, never what it was: another token is no reason to build again, and a digest
//!   of a short secret would tell it. Whether an optional one was there is no reason either.
//! * A file of the host is read, not mounted: what it is replaced by meanwhile is nothing to the command, and owner and
//!   mode are those that were asked for.
//! * A pipe is refused: each command that asks reads anew, and a pipe gives what it has once, when its writer likes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};

use super::apart::is_apart;
use super::mounts::bind;
use super::sandbox::Point;
use super::stage::{Builder, Stage, problem};
use crate::engine::image::error::ImageError;
use crate::model::build::SecretSource;
use crate::model::dockerfile::RunSecret;
use crate::model::volume::{Access, Mount};

/// As BuildKit has it: more is no secret but data.
const SIZE_MAX: u64 = 500 << 10;

/// The secrets of one `RUN`, not read.
pub struct Secrets<'a> {
    all: Vec<(RunSecret, Option<&'a SecretSource>)>,
}

/// Secrets as a command gets them. Files are gone when this is dropped.
pub struct Told {
    pub mounts: Vec<(String, Mount, Point)>,
    pub variables: Vec<(String, String)>,
    _memory: Option<Memory>,
}

impl<'a> Secrets<'a> {
    /// What `declared` asks for, with its variables replaced.
    pub fn find(builder: &Builder<'a>, stage: &Stage, declared: &[RunSecret]) -> Result<Secrets<'a>, ImageError> {
        let expand = |text: &String| builder.scope.expand(text, &|name| stage.variable(name)).map_err(problem);
        let mut all = Vec::new();
        for secret in declared {
            let id = expand(&secret.id)?;
            let target = secret.target.as_ref().map(expand).transpose()?.map(|path| stage.absolute(&path));
            let source = builder.spec.secrets.get(&id);
            builder.asked.borrow_mut().insert(id.clone());
            all.push((RunSecret { id, target, ..secret.clone() }, source));
        }
        Ok(Secrets { all })
    }

    /// What a layer follows from; `None` of none.
    pub fn key(&self) -> Option<Value> {
        let one = |(secret, _): &(RunSecret, _)| {
            let RunSecret { id, target, variable, required: _, mode, uid, gid } = secret;
            json!({ "id": id, "target": target, "variable": variable, "look": [mode, uid, gid] })
        };
        (!self.all.is_empty()).then(|| self.all.iter().map(one).collect())
    }

    /// Reads them. `place` is a directory of the build's own, in whose mount namespace this runs.
    pub fn tell(&self, place: &Path, variable: fn(&str) -> Option<String>) -> Result<Told, ImageError> {
        let mut told = Told { mounts: Vec::new(), variables: Vec::new(), _memory: None };
        for (number, (secret, source)) in self.all.iter().enumerate() {
            let Some(source) = source else {
                if secret.required {
                    return Err(problem(format!(
                        "it requires the secret `{0}`, which is not given: name it in `secrets` of the `build`, or with \
                         `--secret id={0},src=FILE`",
                        secret.id
                    )));
                }
                continue;
            };
            let contents = read(&secret.id, source, variable)?;
            if let Some(name) = &secret.variable {
                let text = String::from_utf8(contents.clone()).ok().filter(|text| !text.contains('\0'));
                let why = || problem(format!("the secret `{}` is no text, and cannot be a variable", secret.id));
                told.variables.push((name.clone(), text.ok_or_else(why)?));
            }
            if let Some(target) = &secret.target {
                let memory = match told._memory.take() {
                    Some(memory) => memory,
                    None => Memory::mount(place.join("secrets"))?,
                };
                let path = memory.directory.join(number.to_string());
                told._memory = Some(memory);
                write(&path, &contents, secret).map_err(ImageError::file("write", &path))?;
                told.mounts.push((target.clone(), bind(path, Access::ReadOnly), Point::File));
            }
        }
        Ok(told)
    }
}

fn read(id: &str, source: &SecretSource, variable: fn(&str) -> Option<String>) -> Result<Vec<u8>, ImageError> {
    let unreadable = |why: String| problem(format!("the secret `{id}` cannot be read from {source}: {why}"));
    let bytes = match source {
        SecretSource::Environment(name) => {
            let value = variable(name);
            value.ok_or_else(|| unreadable("it is not set, or no text; set it for whoever builds".into()))?.into_bytes()
        }
        SecretSource::File(path) => {
            let read = || {
                let mut bytes = Vec::new();
                // Whoever opens a pipe to look at it does not wait for its writer (open(2), fifo(7)).
                let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
                if !file.metadata()?.is_file() {
                    return Err(io::Error::other("it is no regular file; write the secret to one, or give a variable"));
                }
                file.take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
                Ok(bytes)
            };
            read().map_err(|error: io::Error| unreadable(error.to_string()))?
        }
    };
    match bytes.len() as u64 {
        ..=SIZE_MAX => Ok(bytes),
        _ => Err(unreadable(format!("it is larger than {} KiB", SIZE_MAX >> 10))),
    }
}

fn write(path: &Path, contents: &[u8], secret: &RunSecret) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(contents)?;
    fchown(&file, Some(secret.uid), Some(secret.gid))?;
    file.set_permissions(fs::Permissions::from_mode(secret.mode))
}

/// A directory that is on no disk.
struct Memory {
    directory: PathBuf,
}

impl Memory {
    fn mount(directory: PathBuf) -> Result<Memory, ImageError> {
        if !is_apart() {
            return Err(problem(
                "secrets are mounted where nobody else sees them, and here `/` is no mount point; build out of this \
                 chroot(2), or bind its directory on itself before you enter it",
            ));
        }
        let failed = || ImageError::file("mount memory on", &directory);
        fs::create_dir(&directory).map_err(failed())?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        // Not even the swap space gets it, where the kernel knows of that (tmpfs(5): since Linux 6.4).
        let mounted = |options| mount("tmpfs", &directory, "tmpfs", flags, options);
        let mounted = mounted(c"mode=0700,noswap").or_else(|_| mounted(c"mode=0700"));
        mounted.map_err(|errno| failed()(errno.into()))?;
        Ok(Memory { directory })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // The end of the build's namespace does it otherwise.
        let _ = unmount(&self.directory, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_no_empty_secret() {
        let directory = tempfile::tempdir().unwrap();
        let (pipe, file) = (directory.path().join("pipe"), directory.path().join("file"));
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        fs::write(&file, "x").unwrap();
        let read = |path: PathBuf| read("a", &SecretSource::File(path), |_| None);
        assert!(read(pipe).unwrap_err().to_string().contains("no regular file"));
        assert_eq!(read(file).unwrap(), b"x");
    }
}
