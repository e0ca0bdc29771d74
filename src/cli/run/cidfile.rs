//! `--cidfile`: the file that says which container was made.
//!
//! Scripts use it to make sure that a job runs once, so it is taken before anything is done, and a file that is there
//! already ends the command. It goes again when no container came of it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::cli::failure::Failure;
use crate::model::id::ContainerId;

/// A new, empty file, which is removed when this is dropped.
#[derive(Debug)]
pub struct CidFile {
    path: PathBuf,
    /// `None` once it is written.
    file: Option<File>,
}

impl CidFile {
    /// Takes the path, if there is one. Fails where a file is.
    pub fn take(path: Option<&Path>) -> Result<Option<CidFile>, Failure> {
        let Some(path) = path else { return Ok(None) };
        let made = File::options().write(true).create_new(true).mode(0o644).open(path);
        let file = made.map_err(|error| explain(error.into(), path))?;
        Ok(Some(CidFile { path: path.to_owned(), file: Some(file) }))
    }

    /// From now on it stays.
    pub fn write(mut self, id: &ContainerId) -> Result<(), Failure> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        file.write_all(id.as_str().as_bytes()).map_err(|error| explain(error.into(), &self.path))
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            // An empty file says that there is no container, as its absence does.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn explain(failure: Failure, path: &Path) -> Failure {
    failure.context(format!("cannot write the id to `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_with_an_id_only_and_replaces_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cid");
        drop(CidFile::take(Some(&path)).unwrap());
        assert!(!path.exists());
        let id: ContainerId = "0123456789ab".parse().unwrap();
        CidFile::take(Some(&path)).unwrap().unwrap().write(&id).unwrap();
        assert!(CidFile::take(Some(&path)).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "0123456789ab");
    }
}
