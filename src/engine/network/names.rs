//! The file of names of one network, which monitors answer from ([`NameTable`]).
//!
//! It lies in the run directory, which is a tmpfs: it is replaced whole, so that a monitor never reads half of it, and
//! nothing is synced, since it is gone after a reboot anyway. The engine is its only writer.

use std::fs;
use std::io;
use std::path::Path;

use super::NetworkError;
use crate::engine::error::EngineError;
use crate::engine::files::{self, Durability};
use crate::model::names::NameTable;

/// The file at `path` holds this table. A file that holds it is left alone, so that no monitor wakes for nothing.
pub fn write(path: &Path, names: &NameTable) -> Result<(), EngineError> {
    match files::read_json::<NameTable>(path) {
        Ok(Some(found)) if found == *names => Ok(()),
        // What cannot be read is replaced.
        _ => files::write_json(path, names, Durability::Volatile),
    }
}

/// The table at `path`; empty where there is none, or where what is there is not a table.
pub fn read(path: &Path) -> Result<NameTable, NetworkError> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(NameTable::default()),
        Err(source) => Err(NetworkError::Names { verb: "read", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_reads_back_and_is_rewritten_only_when_it_differs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("01234567.names");
        assert_eq!(read(&path).unwrap(), NameTable::default());
        let mut table = NameTable::default();
        table.names.entry("web".into()).or_default().insert("10.89.0.2".parse().unwrap());
        write(&path, &table).unwrap();
        assert_eq!(read(&path).unwrap(), table);
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
        let first = inode(&path);
        write(&path, &table).unwrap();
        assert_eq!(inode(&path), first);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn half_a_table_counts_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.names");
        fs::write(&path, "{\"names\":").unwrap();
        assert_eq!(read(&path).unwrap(), NameTable::default());
    }
}
