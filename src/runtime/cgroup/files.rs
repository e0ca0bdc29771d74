//! Reading and writing the files of cgroups, with their paths in every error.

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::Pid;

use crate::runtime::error::RuntimeError;

/// Tries at removing a directory whose last process is about to be gone, a millisecond apart.
const TRIES: u32 = 1000;

/// More than any file that is read in one piece has: the statistics of memory are about 2 KiB.
const PIECE: usize = 8192;

pub(super) fn failure(operation: &'static str, path: &Path, source: io::Error) -> RuntimeError {
    RuntimeError::Cgroup { operation, path: path.to_owned(), source }
}

pub(super) fn read(directory: &Path, file: &str) -> Result<String, RuntimeError> {
    let path = directory.join(file);
    fs::read_to_string(&path).map_err(|error| failure("read", &path, error))
}

/// A file that the kernel writes in one piece, which every file of one value, or of one list of values by name, is: what
/// does not fill the buffer is all of it. `cgroup.procs` is none.
pub(super) fn read_piece(directory: &Path, file: &str) -> Result<String, RuntimeError> {
    let path = directory.join(file);
    let mut text = Vec::with_capacity(PIECE);
    let length = fs::File::open(&path).and_then(|file| Ok(rustix::io::read(&file, spare_capacity(&mut text))?));
    match length.map_err(|error| failure("read", &path, error))? < PIECE {
        true => String::from_utf8(text).map_err(|error| failure("read", &path, io::Error::other(error))),
        false => read(directory, file),
    }
}

/// One write(2): the kernel takes a value whole or not at all.
pub(super) fn write(directory: &Path, file: &str, value: &str) -> Result<(), RuntimeError> {
    let path = directory.join(file);
    let written = fs::OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(value.as_bytes()));
    let operation = if is_limit(file) { "set the limit in" } else { "write to" };
    written.map_err(|error| failure(operation, &path, error))
}

/// The core's own files list, stop and hand on.
fn is_limit(file: &str) -> bool {
    !file.starts_with("cgroup.") && file != "freezer.state"
}

/// Makes a directory and those above it. `each` sees every one that was not there.
pub(super) fn make(
    directory: &Path,
    each: &mut dyn FnMut(&Path) -> Result<(), RuntimeError>,
) -> Result<(), RuntimeError> {
    match fs::create_dir(directory) {
        Ok(()) => each(directory),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match directory.parent() {
            Some(parent) => {
                make(parent, each)?;
                make(directory, each)
            }
            None => Err(failure("make the cgroup", directory, error)),
        },
        Err(error) => Err(failure("make the cgroup", directory, error)),
    }
}

pub(super) fn open_directory(directory: &Path) -> Result<OwnedFd, RuntimeError> {
    open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| failure("open the cgroup", directory, errno.into()))
}

/// The processes of a cgroup and of those below it.
pub(super) fn processes(directory: &Path) -> Result<Vec<Pid>, RuntimeError> {
    let mut found = Vec::new();
    each_below(directory, &mut |directory| {
        let list = read(directory, "cgroup.procs")?;
        found.extend(list.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw));
        Ok(())
    })?;
    Ok(found)
}

/// Visits a cgroup and those below it. One that vanishes meanwhile has nothing to say.
fn each_below(directory: &Path, visit: &mut dyn FnMut(&Path) -> Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    match visit(directory) {
        Err(error) if is_gone(&error) => return Ok(()),
        other => other?,
    }
    children(directory)?.iter().try_for_each(|child| each_below(child, visit))
}

pub(super) fn children(directory: &Path) -> Result<Vec<std::path::PathBuf>, RuntimeError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| failure("read", directory, error))?,
    };
    Ok(entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect())
}

pub(super) fn is_gone(error: &RuntimeError) -> bool {
    let RuntimeError::Cgroup { source, .. } = error else { return false };
    matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// Removes a cgroup and those below it.
pub(super) fn remove(directory: &Path) -> Result<(), RuntimeError> {
    for attempt in 0.. {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && attempt < TRIES => {
                for child in children(directory)? {
                    remove(&child)?;
                }
                // A process stays in its cgroup until the kernel has taken it apart; there is nothing to poll in
                // version 1.
                std::thread::sleep(Duration::from_millis(u64::from(attempt > 0)));
            }
            Err(error) => return Err(failure("remove the cgroup", directory, error)),
        }
    }
    Ok(())
}
