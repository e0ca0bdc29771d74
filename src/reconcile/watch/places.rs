//! Where an edit of a file shows: in the directory that holds it, and at every symbolic link on the way to it.
//!
//! ```text
//! /srv/shop/current -> releases/7          a release is put in force by renaming a link
//! /etc/evenkeel/a.toml -> ..data/a.toml    a mounted ConfigMap: `..data` is the link that is renamed
//! ```
//!
//! A directory is watched as an inode, so one that was reached by a link goes on being watched after the link leads
//! elsewhere. So every link is a place of its own, in the directory that holds it.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Places by their true names, without a link in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// What is to be watched.
    pub directories: BTreeSet<PathBuf>,
    /// The entries of those directories that matter: the files themselves and the links on the way.
    pub entries: BTreeSet<PathBuf>,
}

impl Places {
    /// Adds the places of one file or directory. Of one that is not there, as far as it leads: the last is a directory
    /// that is there, and the name in it that is missing.
    pub fn add(&mut self, path: &Path) {
        let mut names: VecDeque<OsString> = names(path);
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let entry = at.join(&name);
            match std::fs::read_link(&entry) {
                Ok(target) if links < MOST_LINKS => {
                    links += 1;
                    self.directories.insert(at.clone());
                    self.entries.insert(entry);
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    let mut before = self::names(&target);
                    before.append(&mut names);
                    names = before;
                }
                // What is below it comes into being after it.
                _ if !entry.is_dir() => {
                    self.directories.insert(at.clone());
                    self.entries.insert(entry);
                    return;
                }
                _ => at = entry,
            }
        }
        self.directories.insert(at);
    }
}

fn names(path: &Path) -> VecDeque<OsString> {
    let of = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    };
    path.components().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_link_on_the_way_is_a_place() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("releases/7")).unwrap();
        fs::write(root.join("releases/7/a.toml"), "").unwrap();
        symlink("releases/7", root.join("current")).unwrap();
        symlink("../current/a.toml", root.join("releases/link.toml")).unwrap();
        let mut places = Places::default();
        places.add(&root.join("releases/link.toml"));
        assert_eq!(places.directories, [root.clone(), root.join("releases"), root.join("releases/7")].into());
        let entries = ["current", "releases/link.toml", "releases/7/a.toml"];
        assert_eq!(places.entries, entries.map(|entry| root.join(entry)).into());
    }

    #[test]
    fn a_circle_of_links_ends_and_what_is_not_there_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        let mut places = Places::default();
        places.add(&root.join("a"));
        places.add(&root.join("missing.toml"));
        places.add(&root.join("unmounted/shop/evenkeel.toml"));
        assert_eq!(places.directories, [root.clone()].into());
        assert!(places.entries.contains(&root.join("missing.toml")));
        assert!(places.entries.contains(&root.join("unmounted")), "what comes first is waited for");
    }
}
