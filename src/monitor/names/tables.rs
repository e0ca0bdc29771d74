//! The names of a container's networks, read again when their files change.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::model::names::NameTable;

/// Tells one version of a file from the next: each is a new file that was renamed into place.
type Version = (u64, i64, i64, u64);

#[derive(Debug)]
struct Cached {
    path: PathBuf,
    version: Option<Version>,
    table: NameTable,
}

/// Name tables in order of preference.
#[derive(Debug, Default)]
pub struct Tables(Vec<Cached>);

impl Tables {
    pub fn new(paths: &[PathBuf]) -> Tables {
        let cached = |path: &PathBuf| Cached { path: path.clone(), version: None, table: NameTable::default() };
        Tables(paths.iter().map(cached).collect())
    }

    /// Reads what changed: one stat(2) a table where nothing did. A table that cannot be read keeps its last
    /// content: half a moment of old names is better than none.
    pub fn refresh(&mut self) {
        for cached in &mut self.0 {
            let Ok(metadata) = std::fs::metadata(&cached.path) else { continue };
            let version = (metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.size());
            if cached.version == Some(version) {
                continue;
            }
            if let Some(table) = std::fs::read(&cached.path).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                (cached.table, cached.version) = (table, Some(version));
            }
        }
    }

    /// The addresses of a lower-case name: those of the first network that knows it.
    pub fn addresses(&self, name: &str) -> Option<&BTreeSet<IpAddr>> {
        self.0.iter().find_map(|cached| cached.table.names.get(name))
    }

    /// The name of an address. Replicas and aliases share names; the one with the fewest addresses says most.
    pub fn name(&self, address: IpAddr) -> Option<&str> {
        let names = self.0.iter().flat_map(|cached| &cached.table.names);
        let holders = names.filter(|(_, addresses)| addresses.contains(&address));
        holders.min_by_key(|(name, addresses)| (addresses.len(), *name)).map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn write(path: &Path, names: &[(&str, &str)]) {
        let mut table = NameTable::default();
        for (name, address) in names {
            table.names.entry((*name).to_owned()).or_default().insert(address.parse().unwrap());
        }
        let aside = path.with_extension("new");
        std::fs::write(&aside, serde_json::to_vec(&table).unwrap()).unwrap();
        std::fs::rename(aside, path).unwrap();
    }

    #[test]
    fn a_table_is_read_again_when_it_changes_and_kept_when_it_cannot_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("front.names");
        let mut tables = Tables::new(std::slice::from_ref(&path));
        tables.refresh();
        assert!(tables.addresses("web").is_none());
        write(&path, &[("web", "10.0.0.2")]);
        tables.refresh();
        assert_eq!(tables.addresses("web").unwrap().len(), 1);
        write(&path, &[("web", "10.0.0.2"), ("web", "10.0.0.3"), ("web.2", "10.0.0.3")]);
        tables.refresh();
        assert_eq!(tables.addresses("web").unwrap().len(), 2);
        assert_eq!(tables.name("10.0.0.3".parse().unwrap()), Some("web.2"));
        std::fs::remove_file(&path).unwrap();
        tables.refresh();
        assert!(tables.addresses("web").is_some());
    }
}
