//! The lock that says a monitor is alive: the kernel drops it with the process, however that ends.
//!
//! It is a lock of the open file description (fcntl_locking(2), F_OFD_SETLK): unlike flock(2) it can be looked at
//! without being taken (F_OFD_GETLK), so those who look never get in the way of a monitor that starts.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};

use super::error::MonitorError;
use crate::model::paths::run;

/// Held as long as it lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock of a run directory; [`MonitorError::Busy`] when another monitor has it.
pub fn acquire(directory: &Path) -> Result<Lock, MonitorError> {
    let path = directory.join(run::LOCK);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|source| MonitorError::file("open", &path, source))?;
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file())) {
        Ok(_) => Ok(Lock { _file: file }),
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => {
            Err(MonitorError::Busy { directory: directory.to_owned() })
        }
        Err(source) => Err(MonitorError::file("lock", path, source)),
    }
}

/// Whether a monitor holds the lock of a run directory. Takes nothing.
pub fn is_held(directory: &Path) -> Result<bool, MonitorError> {
    let path = directory.join(run::LOCK);
    let file = match OpenOptions::new().write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(MonitorError::file("open", path, source)),
    };
    let mut lock = whole_file();
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)).map_err(|source| MonitorError::file("look at", path, source))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// A write lock from the first byte to any end. `l_pid` must be 0 for this kind of lock.
fn whole_file() -> libc::flock {
    libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_seen_while_it_is_held_and_given_once() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_held(directory.path()).unwrap());
        let lock = acquire(directory.path()).unwrap();
        assert!(is_held(directory.path()).unwrap());
        assert!(matches!(acquire(directory.path()), Err(MonitorError::Busy { .. })));
        drop(lock);
        assert!(!is_held(directory.path()).unwrap());
        acquire(directory.path()).unwrap();
    }
}
