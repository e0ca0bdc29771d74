//! The options of a mount, as fstab and OCI write them (runtime-spec, config.md and config-linux.md, "Mounts").
//!
//! Words that the kernel's mount layer knows become attribute bits, propagation and a bind; everything else belongs
//! to the filesystem and is handed to fsconfig(2), which refuses what it does not know.
//!
//! # Decisions
//!
//! `ro` on `rbind` reaches the mounts below too, as Docker does since version 25. runc leaves them writable, which
//! nobody who writes `ro` expects; `rro` says the same and is accepted.

use crate::sys::mount::{Attributes, Reach};

use super::error::{RuntimeError, invalid, unsupported};

/// The options of one mount, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MountOptions {
    /// A bind mount, alone or with the mounts below its source.
    pub bind: Option<Bind>,
    pub attributes: Attributes,
    /// For the mounts below too (`rro`, `rnosuid`, ..).
    pub recursive: Attributes,
    pub propagation: Option<Propagation>,
    /// Owners are shown through a mapping (`idmap`, `ridmap`).
    pub map_owners: Option<Reach>,
    /// It changes what is mounted there (`remount`).
    pub remounts: bool,
    /// What the image has at the target goes into the new filesystem (`tmpcopyup`).
    pub copies_up: bool,
    /// For the filesystem: `key` or `key=value`.
    pub data: Vec<(String, Option<String>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bind {
    One,
    Tree,
}

/// How mounts made later on one side appear on the other (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Propagation {
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or `MS_UNBINDABLE`.
    pub kind: u64,
    pub reach: Reach,
}

/// Attribute words: the bits to set and the bits to clear. An access time word clears the whole field first, as
/// mount_setattr(2) demands.
const ATTRIBUTES: [(&str, u64, u64); 18] = [
    ("ro", libc::MOUNT_ATTR_RDONLY, 0),
    ("rw", 0, libc::MOUNT_ATTR_RDONLY),
    ("nosuid", libc::MOUNT_ATTR_NOSUID, 0),
    ("suid", 0, libc::MOUNT_ATTR_NOSUID),
    ("nodev", libc::MOUNT_ATTR_NODEV, 0),
    ("dev", 0, libc::MOUNT_ATTR_NODEV),
    ("noexec", libc::MOUNT_ATTR_NOEXEC, 0),
    ("exec", 0, libc::MOUNT_ATTR_NOEXEC),
    ("nodiratime", libc::MOUNT_ATTR_NODIRATIME, 0),
    ("diratime", 0, libc::MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
    ("symfollow", 0, libc::MOUNT_ATTR_NOSYMFOLLOW),
    ("noatime", libc::MOUNT_ATTR_NOATIME, libc::MOUNT_ATTR__ATIME),
    ("atime", libc::MOUNT_ATTR_RELATIME, libc::MOUNT_ATTR__ATIME),
    ("relatime", libc::MOUNT_ATTR_RELATIME, libc::MOUNT_ATTR__ATIME),
    ("norelatime", libc::MOUNT_ATTR_STRICTATIME, libc::MOUNT_ATTR__ATIME),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME, libc::MOUNT_ATTR__ATIME),
    ("nostrictatime", libc::MOUNT_ATTR_RELATIME, libc::MOUNT_ATTR__ATIME),
];

const PROPAGATIONS: [(&str, u64); 4] = [
    ("private", libc::MS_PRIVATE),
    ("slave", libc::MS_SLAVE),
    ("shared", libc::MS_SHARED),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Words of mount(8) that ask for what the kernel does anyway.
/// Messages about a filesystem go to whoever makes it through fsopen(2), never to the kernel's log, `silent` or not.
const DEFAULTS: [&str; 7] = ["defaults", "async", "loud", "silent", "nolazytime", "noiversion", "nomand"];

/// Words for the superblock: plain flags to fsconfig(2).
const SUPERBLOCK: [&str; 3] = ["sync", "dirsync", "lazytime"];

/// Every word that does not belong to a filesystem.
pub(super) fn words() -> Vec<String> {
    let attributes = ATTRIBUTES.iter().flat_map(|(word, ..)| [(*word).to_owned(), format!("r{word}")]);
    let propagations = PROPAGATIONS.iter().flat_map(|(word, _)| [(*word).to_owned(), format!("r{word}")]);
    let others = ["bind", "rbind", "idmap", "ridmap", "remount", "tmpcopyup"]
        .iter()
        .chain(&DEFAULTS)
        .chain(&SUPERBLOCK)
        .map(|word| (*word).to_owned());
    let mut words: Vec<String> = attributes.chain(propagations).chain(others).collect();
    words.sort_unstable();
    words
}

/// Sorts `words`, the options of the mount at `field` in the configuration.
pub(super) fn parse(field: &str, words: &[String]) -> Result<MountOptions, RuntimeError> {
    let mut options = MountOptions::default();
    for word in words {
        take(field, word, &mut options)?;
    }
    if options.bind == Some(Bind::Tree) {
        let plain = options.attributes;
        merge(&mut options.recursive, plain);
    }
    if options.bind.is_some() && options.copies_up {
        return Err(invalid(field, "`tmpcopyup` is no option of a bind mount"));
    }
    if options.remounts && (options.copies_up || options.map_owners.is_some()) {
        return Err(invalid(field, "what is mounted already is neither filled nor mapped by `remount`"));
    }
    if options.bind.is_some() && !options.data.is_empty() {
        let (key, _) = &options.data[0];
        return Err(invalid(field, format!("`{key}` is no option of a bind mount")));
    }
    Ok(options)
}

fn take(field: &str, word: &str, options: &mut MountOptions) -> Result<(), RuntimeError> {
    if let Some(attributes) = attribute(word) {
        merge(&mut options.attributes, attributes);
    } else if let Some(attributes) = word.strip_prefix('r').and_then(attribute) {
        merge(&mut options.recursive, attributes);
    } else if let Some(propagation) = propagation(word) {
        options.propagation = Some(propagation);
    } else if word == "bind" {
        options.bind = Some(options.bind.unwrap_or(Bind::One));
    } else if word == "rbind" {
        options.bind = Some(Bind::Tree);
    } else if SUPERBLOCK.contains(&word) {
        options.data.push((word.to_owned(), None));
    } else if word == "idmap" {
        options.map_owners = Some(options.map_owners.unwrap_or(Reach::One));
    } else if word == "ridmap" {
        options.map_owners = Some(Reach::Tree);
    } else if word == "tmpcopyup" {
        options.copies_up = true;
    } else if word == "remount" {
        options.remounts = true;
    } else if ["mand", "iversion"].contains(&word) {
        return Err(unsupported(field, format!("the mount option `{word}`")));
    } else if !DEFAULTS.contains(&word) {
        options.data.push(match word.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (word.to_owned(), None),
        });
    }
    Ok(())
}

fn attribute(word: &str) -> Option<Attributes> {
    let (_, set, clear) = ATTRIBUTES.iter().find(|(name, ..)| *name == word)?;
    Some(Attributes { set: *set, clear: *clear, propagation: 0 })
}

/// A later word wins over an earlier one.
fn merge(into: &mut Attributes, later: Attributes) {
    into.set = (into.set & !later.clear) | later.set;
    into.clear = (into.clear & !(later.set & !libc::MOUNT_ATTR__ATIME)) | later.clear;
}

/// `private`, `slave`, .. and the same with an `r` in front. Also what `linux.rootfsPropagation` says.
pub(super) fn propagation(word: &str) -> Option<Propagation> {
    let exact = |text: &str| PROPAGATIONS.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
    match exact(word) {
        Some(kind) => Some(Propagation { kind, reach: Reach::One }),
        None => Some(Propagation { kind: word.strip_prefix('r').and_then(exact)?, reach: Reach::Tree }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &str) -> MountOptions {
        parse("mounts[0]", &words.split(',').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn words_that_are_told_as_features_are_taken() {
        for word in words() {
            let options = parse("mounts[0]", std::slice::from_ref(&word)).unwrap();
            let is_plain = SUPERBLOCK.contains(&word.as_str());
            assert_eq!(options.data.is_empty(), !is_plain, "{word} would go to a filesystem");
        }
    }

    #[test]
    fn words_are_sorted() {
        let options = parsed("nosuid,noexec,ro,mode=755,size=65536k,newinstance");
        assert_eq!(options.attributes.set, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_RDONLY);
        let pair = |k: &str, v: &str| (k.to_owned(), Some(v.to_owned()));
        assert_eq!(options.data, [pair("mode", "755"), pair("size", "65536k"), ("newinstance".to_owned(), None)]);
    }

    #[test]
    fn a_later_word_wins() {
        assert_eq!(parsed("ro,rw").attributes.set, 0);
        assert_eq!(parsed("ro,rw").attributes.clear, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(parsed("rw,ro").attributes.clear, 0);
        assert_eq!(parsed("noatime,strictatime").attributes.set, libc::MOUNT_ATTR_STRICTATIME);
    }

    #[test]
    fn read_only_reaches_the_mounts_below_a_recursive_bind() {
        assert_eq!(parsed("rbind,ro").recursive.set, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(parsed("bind,ro").recursive.set, 0);
        assert_eq!(parsed("bind,rro").recursive.set, libc::MOUNT_ATTR_RDONLY);
    }

    #[test]
    fn propagation_words_are_known() {
        assert_eq!(parsed("rbind,rslave").propagation, Some(Propagation { kind: libc::MS_SLAVE, reach: Reach::Tree }));
        assert_eq!(propagation("relatime"), None);
    }

    #[test]
    fn what_is_not_done_is_refused() {
        for words in [["iversion"], ["mand"]] {
            assert!(parse("mounts[0]", &words.map(str::to_owned)).is_err());
        }
        assert!(parse("mounts[0]", &["bind".to_owned(), "size=1".to_owned()]).is_err());
    }
}
