//! Removing what was put aside: a child of its own does it, so that a command need not wait for it.
//!
//! # Decisions
//! An image is renamed away in a moment, and removed by unlinking each of its files: for 47,163 on a busy ext4 the one
//! took 1 s and the other 40 s. So who removes an image by hand gets the prompt back, and the hidden process `evenkeel
//! internal-remove` goes on; a crash leaves it to the next sweep. Who frees space for something waits for it instead.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use super::session::{TEMPORARY, remove_any, temporary_name};
use super::{Store, lock};
use crate::engine::files;
use crate::engine::image::error::ImageError;

/// The hidden argument by which `evenkeel` becomes the child.
pub const ARGUMENT: &str = "internal-remove";

const PREFIX: &str = ".tmp-gone-";

impl Store {
    /// Locked, shared, by everyone who removes what was put aside: as long as that lasts nobody sweeps it.
    pub fn removing(&self) -> PathBuf {
        self.images.join("removing")
    }

    /// Whether somebody is at it.
    pub fn is_removing(&self) -> Result<bool, ImageError> {
        Ok(lock::open(&self.removing())?.try_lock().is_err())
    }
}

/// A name for something that is put aside.
pub(super) fn name() -> String {
    temporary_name().replacen(TEMPORARY, PREFIX, 1)
}

pub(super) fn is_trash(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
}

/// As long as this lives nobody sweeps what was put aside.
pub fn hold(removing: &Path) -> Result<File, ImageError> {
    let held = lock::open(removing)?;
    held.lock_shared().map_err(ImageError::file("lock", removing))?;
    Ok(held)
}

/// Removes all of these, and goes on after an error.
pub fn remove(removing: &Path, trash: &[PathBuf]) -> Result<(), ImageError> {
    if trash.is_empty() {
        return Ok(());
    }
    let _held = hold(removing)?;
    trash.iter().map(|path| remove_any(path)).fold(Ok(()), Result::and)
}

/// Removes all of these in a process that outlives this one.
pub fn remove_behind(helper: &Path, removing: &Path, trash: &[PathBuf]) -> Result<(), ImageError> {
    if trash.is_empty() {
        return Ok(());
    }
    // Until the child does so itself.
    let held = hold(removing)?;
    let started = Command::new(helper)
        .arg(ARGUMENT)
        .arg(removing)
        .args(trash)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Not in the terminal's foreground group, which an interrupt from the keyboard ends.
        .process_group(0)
        .spawn();
    let mut child = started.map_err(|source| ImageError::Helper { path: helper.to_owned(), source })?;
    // Whoever runs for months has to hear of its end.
    std::thread::spawn(move || {
        let _held = held;
        let mut said = String::new();
        let read = child.stderr.take().map_or(Ok(0), |mut stderr| stderr.read_to_string(&mut said));
        match (read, child.wait()) {
            (Ok(_), Ok(status)) if status.success() => {}
            (_, Ok(status)) => tracing::warn!("what was removed is not deleted yet ({status}): {}", said.trim_end()),
            (_, Err(error)) => tracing::warn!("what was removed may not be deleted yet: {error}"),
        }
    });
    Ok(())
}

/// The child's whole life. It removes nothing but what was put aside.
pub fn child_main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(removing) = arguments.next().map(PathBuf::from) else { return ExitCode::FAILURE };
    let is_aside = |path: &PathBuf| is_trash(path) || files::is_crumb(path);
    let trash: Vec<PathBuf> = arguments.map(PathBuf::from).filter(is_aside).collect();
    match remove(&removing, &trash) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever started this may be gone; what is left is swept later.
            let _ = writeln!(io::stderr(), "{}", error.with_causes());
            ExitCode::FAILURE
        }
    }
}
