//! What is remembered of a container between two commands, and what the kernel says of it.
//!
//! ```text
//! <root>/<id>/           locked (flock(2)) by whoever changes the container
//!   state.json           the record: written by who holds the lock
//!   config.json          the configuration as it was at `create`
//!   start                where the first process waits, until the container is started (`runtime::gate`)
//! ```
//!
//! The record says which process is the container's, the kernel whether it lives: its start time is compared, so a
//! process that got its number later is not taken for it. Whatever moment a command is killed at, what is here is
//! enough for `delete --force`: the cgroup is known before anything is made.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use oci_spec::runtime::{Hooks, Spec, State, StateBuilder};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::bundle::{self, Bundle};
use super::parents;
use crate::cli::failure::Failure;
use crate::engine::files::{self, Durability};
use crate::runtime::cgroup::{self, Cgroup};
use crate::runtime::gate;

/// How long another command may hold the lock. Hooks may take their time.
const PATIENCE: Duration = Duration::from_secs(10);

/// All containers of one `--root`.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

/// A container of the store.
#[derive(Debug)]
pub struct Container {
    pub directory: PathBuf,
    pub record: Record,
    /// While this command changes the container.
    lock: Option<File>,
}

/// `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub oci_version: String,
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    pub cgroup: PathBuf,
    /// The cgroups above it that it answers for, the innermost first (see `parents`).
    #[serde(default)]
    pub made_cgroups: Vec<PathBuf>,
    #[serde(default)]
    pub annotations: std::collections::HashMap<String, String>,
    pub process: Option<FirstProcess>,
    /// Whether `create` came to its end.
    pub is_complete: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FirstProcess {
    pub pid: i32,
    /// In clock ticks since boot (proc(5), `starttime`).
    start_time: u64,
}

/// The states of runtime.md, and runc's `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

const RECORD: &str = "state.json";
const CONFIG: &str = "config.json";
const GATE: &str = "start";

impl Store {
    pub fn new(root: PathBuf) -> Store {
        Store { root }
    }

    /// Makes the container `id`, locked. Its record and configuration are there when this returns, nothing else.
    pub fn create(&self, id: &str, bundle: &Bundle) -> Result<Container, Failure> {
        check_id(id)?;
        let directory = self.root.join(id);
        let cannot = |error: std::io::Error| {
            Failure::from(error).context(format!("cannot make the state directory `{}`", directory.display()))
        };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o711).create(&self.root).map_err(cannot)?;
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let failure = Failure::new(format!("the container `{id}` exists already"));
                return Err(failure.hint(format!("`delete --force {id}` removes it")));
            }
            other => other.map_err(cannot)?,
        }
        begin(id, bundle, &directory).inspect_err(|_| {
            // It was made by this call, and the first failure is the one that matters.
            let _ = fs::remove_dir_all(&directory);
        })
    }

    /// Whether there is one of this id, be it damaged.
    pub fn has(&self, id: &str) -> Result<bool, Failure> {
        check_id(id)?;
        let directory = self.root.join(id);
        directory.try_exists().map_err(|error| {
            Failure::from(error).context(format!("cannot look at the state directory `{}`", directory.display()))
        })
    }

    /// The container `id`, to look at.
    pub fn look(&self, id: &str) -> Result<Container, Failure> {
        check_id(id)?;
        let directory = self.root.join(id);
        let unreadable = |error| {
            Failure::engine(error).hint(format!(
                "when nothing of the container runs any more, remove the directory `{}` by hand",
                directory.display()
            ))
        };
        match files::read_json(&directory.join(RECORD)).map_err(unreadable)? {
            Some(record) => Ok(Container { directory, record, lock: None }),
            None if directory.is_dir() => Ok(Container { record: Record::unwritten(id), directory, lock: None }),
            None => Err(missing(id)),
        }
    }

    /// The container `id`, to change. Waits for others that do.
    pub fn take(&self, id: &str) -> Result<Container, Failure> {
        self.take_within(id, PATIENCE)
    }

    /// As [`Store::take`], but an error while another command works on it.
    pub fn take_at_once(&self, id: &str) -> Result<Container, Failure> {
        self.take_within(id, Duration::ZERO)
    }

    fn take_within(&self, id: &str, patience: Duration) -> Result<Container, Failure> {
        check_id(id)?;
        let directory = self.root.join(id);
        let lock = match lock(&directory, patience) {
            Err(_) if !directory.is_dir() => return Err(missing(id)),
            other => other?,
        };
        // It may have been removed while we waited, and another made in its place.
        let same = |found: fs::Metadata| lock.metadata().is_ok_and(|ours| ours.ino() == found.ino());
        if !fs::metadata(&directory).is_ok_and(same) {
            return Err(missing(id));
        }
        Ok(Container { lock: Some(lock), ..self.look(id)? })
    }

    /// The ids of all containers, sorted.
    pub fn ids(&self) -> Result<Vec<String>, Failure> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => {
                other.map_err(|error| Failure::from(error).context(format!("cannot read `{}`", self.root.display())))?
            }
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut ids: Vec<String> = names.filter(|name| check_id(name).is_ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

/// Fills the directory of a container that was just made.
fn begin(id: &str, bundle: &Bundle, directory: &Path) -> Result<Container, Failure> {
    let lock = lock(directory, PATIENCE)?;
    let spec = &bundle.spec;
    let cgroup = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone()).unwrap_or_default();
    let record = Record {
        oci_version: spec.version().clone(),
        id: id.to_owned(),
        bundle: bundle.path.clone(),
        rootfs: bundle.root.clone(),
        created: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
        made_cgroups: parents::missing(&cgroup)?,
        cgroup,
        annotations: spec.annotations().clone().unwrap_or_default(),
        process: None,
        is_complete: false,
    };
    let container = Container { directory: directory.to_owned(), record, lock: Some(lock) };
    container.write_config(&bundle.text)?;
    container.write_record()?;
    Ok(container)
}

/// Callers look for these words.
fn missing(id: &str) -> Failure {
    Failure::new(format!("the container `{id}` does not exist"))
}

/// An id is the name of a directory: runc's characters.
fn check_id(id: &str) -> Result<(), Failure> {
    let is_known = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    match !id.is_empty() && id != "." && id != ".." && id.len() <= 255 && id.chars().all(is_known) {
        true => Ok(()),
        false => Err(Failure::usage(format!("`{}` is not a container's id", id.escape_default()))
            .hint("letters, digits and `_ + - .`, at most 255")),
    }
}

fn lock(directory: &Path, patience: Duration) -> Result<File, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::from(error).context(format!("cannot lock the state directory `{}`", directory.display()))
    };
    let file = File::open(directory).map_err(cannot)?;
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::new(format!(
                    "another command works on the container at `{}`",
                    directory.display()
                ))
                .hint("a hook may take its time; `kill` works meanwhile"));
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
    }
}

impl Record {
    /// Of a container whose `create` was killed before it could say anything: nothing of it exists.
    fn unwritten(id: &str) -> Record {
        Record {
            oci_version: crate::runtime::NEWEST_VERSION.to_owned(),
            id: id.to_owned(),
            bundle: PathBuf::new(),
            rootfs: PathBuf::new(),
            created: String::new(),
            cgroup: PathBuf::new(),
            made_cgroups: Vec::new(),
            annotations: Default::default(),
            process: None,
            is_complete: false,
        }
    }
}

impl Container {
    pub fn status(&self) -> Result<Status, Failure> {
        if self.live_process().is_none() {
            return Ok(if !self.record.is_complete && self.is_in_other_hands() {
                Status::Creating
            } else {
                Status::Stopped
            });
        }
        if !self.record.is_complete {
            return Ok(Status::Creating);
        }
        if self.directory.join(GATE).exists() && gate::is_shut(&self.directory) {
            return Ok(Status::Created);
        }
        Ok(if self.cgroup()?.is_some_and(|cgroup| cgroup.is_frozen()) { Status::Paused } else { Status::Running })
    }

    /// Fails unless the status is one of `allowed`; `action` is what the caller is about to do.
    pub fn require(&self, action: &str, allowed: &[Status]) -> Result<Status, Failure> {
        let status = self.status()?;
        match allowed.contains(&status) {
            true => Ok(status),
            false => {
                let names: Vec<&str> = allowed.iter().map(|status| status.name()).collect();
                let id = &self.record.id;
                let (status, names) = (status.name(), names.join(" or "));
                Err(Failure::new(format!("cannot {action} the container `{id}`: it is {status}, not {names}")))
            }
        }
    }

    /// The first process, while it runs.
    pub fn live_process(&self) -> Option<Pid> {
        let process = self.record.process?;
        let found = start_time(process.pid)?;
        (found == process.start_time).then(|| Pid::from_raw(process.pid)).flatten()
    }

    /// Whether another command changes it at this moment.
    fn is_in_other_hands(&self) -> bool {
        let is_held = |file: File| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
        self.lock.is_none() && File::open(&self.directory).is_ok_and(is_held)
    }

    pub fn cgroup(&self) -> Result<Option<Cgroup>, Failure> {
        match self.record.cgroup.as_os_str().is_empty() {
            true => Ok(None),
            false => Ok(Some(cgroup::open(&cgroup::detect()?, &self.record.cgroup))),
        }
    }

    /// The configuration with which it was created.
    pub fn spec(&self) -> Result<Spec, Failure> {
        self.read_config(|text| bundle::parse_again(text, &self.record.id))
    }

    /// Its hooks alone: the rest of the configuration is passed over.
    pub fn hooks(&self) -> Result<Option<Hooks>, Failure> {
        #[derive(Deserialize)]
        struct Hooked {
            hooks: Option<Hooks>,
        }
        self.read_config(|text| Ok(serde_json::from_str::<Hooked>(text)?.hooks))
    }

    fn read_config<T>(&self, parse: impl FnOnce(&str) -> Result<T, Failure>) -> Result<T, Failure> {
        let path = self.directory.join(CONFIG);
        let cannot = |failure: Failure| failure.context(format!("cannot read `{}`", path.display()));
        let text = fs::read_to_string(&path).map_err(|error| cannot(error.into()))?;
        parse(&text).map_err(cannot)
    }

    /// As hooks are told of it, but for status and process.
    pub fn state(&self) -> Result<State, Failure> {
        let record = &self.record;
        let state = StateBuilder::default()
            .version(record.oci_version.clone())
            .id(record.id.clone())
            .bundle(record.bundle.clone())
            .annotations(record.annotations.clone());
        Ok(state.build()?)
    }

    /// This process is the container's.
    pub fn record_process(&mut self, pid: Pid) -> Result<(), Failure> {
        let pid = pid.as_raw_nonzero().get();
        self.record.process = start_time(pid).map(|start_time| FirstProcess { pid, start_time });
        self.write_record()
    }

    /// It answers for one more cgroup above its own.
    pub fn record_made_cgroup(&mut self, path: &Path) -> Result<(), Failure> {
        self.record.made_cgroups.push(path.to_owned());
        // The innermost first.
        self.record.made_cgroups.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        self.write_record()
    }

    /// Where it is kept, with others.
    pub fn store(&self) -> Store {
        Store { root: self.directory.parent().map(Path::to_owned).unwrap_or_default() }
    }

    /// All of it is there.
    pub fn record_complete(&mut self) -> Result<(), Failure> {
        self.record.is_complete = true;
        self.write_record()
    }

    /// The gate is open for good.
    pub fn remove_gate(&self) -> Result<(), Failure> {
        Ok(fs::remove_file(self.directory.join(GATE))?)
    }

    /// The configuration with which it is created.
    fn write_config(&self, text: &str) -> Result<(), Failure> {
        Ok(files::write(&self.directory.join(CONFIG), text.as_bytes(), Durability::Volatile)?)
    }

    fn write_record(&self) -> Result<(), Failure> {
        Ok(files::write_json(&self.directory.join(RECORD), &self.record, Durability::Volatile)?)
    }

    /// Forgets it.
    pub fn remove(&self) -> Result<(), Failure> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Failure::from(error).context(format!("cannot remove `{}`", self.directory.display())))
            }
            _ => Ok(()),
        }
    }
}

/// When a process began, while it is neither gone nor a zombie (proc(5), /proc/pid/stat).
fn start_time(pid: i32) -> Option<u64> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The process gives itself its name, which may hold anything: brackets, and bytes that are no text.
    let text = String::from_utf8_lossy(&text);
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
    match fields.first() {
        Some(&"Z" | &"X") => None,
        _ => fields.get(19)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_name_and_no_path() {
        for id in ["a", "9f-_+.x", ".hidden"] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a b", "ä", "a\n"] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn this_process_has_a_start_time_and_a_number_that_is_free_has_none() {
        assert!(start_time(std::process::id() as i32).is_some());
        assert!(start_time(i32::MAX).is_none());
    }

    #[test]
    fn a_process_may_call_itself_by_what_is_no_text() {
        let before = fs::read("/proc/self/comm").unwrap();
        fs::write("/proc/self/comm", b"\xff) Z 1").unwrap();
        let found = start_time(std::process::id() as i32);
        fs::write("/proc/self/comm", before).unwrap();
        assert!(found.is_some());
    }

    #[test]
    fn a_damaged_record_does_not_make_a_container_absent() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path().to_owned());
        assert!(!store.has("a").unwrap());
        fs::create_dir(root.path().join("a")).unwrap();
        fs::write(root.path().join("a").join(RECORD), "{").unwrap();
        assert!(store.has("a").unwrap() && store.look("a").is_err());
    }
}
