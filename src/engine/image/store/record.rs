//! What the store writes down.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::model::id::Digest;
use crate::model::image::{Archived, Image, ImageSource};

/// What a source stood for when it was last made whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    pub source: ImageSource,
    pub image: Image,
    /// Of a source that is a file or a directory: how it looked then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<Stamp>,
}

/// What tells cheaply that a file or a directory is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stamp {
    /// Times are nanoseconds since 1970.
    File { size: u64, modified: i128, inode: u64 },
    /// A digest over path, kind, mode, owner, size, device, modification and change time of every entry. The change
    /// time sees what the rest does not: contents written back to the old time, attributes, link targets.
    Tree { entries: u64, digest: Digest },
    /// What a build was made of: its Dockerfile, how the files of its context looked, what was in them, and the
    /// manifests of the images that it used.
    Build { dockerfile: Digest, look: Digest, contents: Digest, bases: BTreeMap<String, Digest> },
}

impl Stamp {
    /// What is different in `now`, in words.
    pub fn difference(&self, now: &Stamp) -> Option<String> {
        match (self, now) {
            (same, now) if same == now => None,
            (Stamp::File { size: old, .. }, Stamp::File { size: new, .. }) if old != new => {
                Some(format!("its size was {old} bytes and is {new}"))
            }
            (Stamp::File { modified: old, .. }, Stamp::File { modified: new, .. }) if old != new => {
                Some("it was modified".to_owned())
            }
            (Stamp::File { .. }, Stamp::File { .. }) => Some("it was replaced by another file".to_owned()),
            (Stamp::Tree { entries: old, .. }, Stamp::Tree { entries: new, .. }) if old != new => {
                Some(format!("it had {old} entries and has {new}"))
            }
            (Stamp::Tree { .. }, Stamp::Tree { .. }) => Some("something in it was modified".to_owned()),
            (Stamp::File { .. }, Stamp::Tree { .. }) => Some("it was a file and is a directory".to_owned()),
            (Stamp::Tree { .. }, Stamp::File { .. }) => Some("it was a directory and is a file".to_owned()),
            (Stamp::Build { .. }, _) | (_, Stamp::Build { .. }) => Some("it was built of something else".to_owned()),
        }
    }
}

/// What is known of an unpacked layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Bytes of the uncompressed tar stream.
    pub tar_size: u64,
    /// Bytes of file contents.
    pub content_size: u64,
    pub entries: u64,
    /// It hides everything that is below it.
    #[serde(default)]
    pub opaque: bool,
    /// Directories that the layer only mentions as parents, so that it says nothing of their owner and mode.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "texts")]
    pub implied: Vec<Vec<u8>>,
    /// Files of the stream that later members of it replaced.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replaced: u64,
}

/// Paths in JSON: those that are text as text, which takes a quarter of the room that numbers take; any other as the
/// numbers of its bytes.
mod texts {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Path<T, B> {
        Text(T),
        Bytes(B),
    }

    pub fn serialize<S: Serializer>(paths: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|path| match std::str::from_utf8(path) {
            Ok(text) => Path::Text(text),
            Err(_) => Path::Bytes(path),
        }))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
        let paths = Vec::<Path<String, Vec<u8>>>::deserialize(deserializer)?;
        let bytes = |path: Path<String, Vec<u8>>| match path {
            Path::Text(text) => text.into_bytes(),
            Path::Bytes(bytes) => bytes,
        };
        Ok(paths.into_iter().map(bytes).collect())
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The name under which a source's record is kept.
pub fn source_key(source: &ImageSource) -> Digest {
    use std::os::unix::ffi::OsStrExt;
    let built;
    let (kind, text): (&[u8], &[u8]) = match source {
        ImageSource::Reference(reference) => (b"reference\0", reference.as_bytes()),
        ImageSource::Archive(Archived { path, image: None }) => (b"archive\0", path.as_os_str().as_bytes()),
        ImageSource::Archive(Archived { path, image: Some(image) }) => {
            // No path has a NUL in it.
            built = [path.as_os_str().as_bytes(), image.as_bytes()].join(&0);
            (b"archive\0", &built)
        }
        ImageSource::Rootfs(path) => (b"rootfs\0", path.as_os_str().as_bytes()),
        ImageSource::Build(spec) => {
            // Texts, numbers and maps by text always have a form in JSON.
            built = serde_json::to_vec(spec).unwrap_or_default();
            (b"build\0", &built)
        }
    };
    sha256([kind, text])
}

/// The digest of these bytes, one part after the other.
pub fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    Digest::from_sha256(&hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn implied_paths_are_text_where_they_can_be_and_numbers_are_read_too() {
        let implied = vec![b"usr/lib".to_vec(), vec![b'a', 0xff]];
        let record = LayerRecord { implied, ..LayerRecord::default() };
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.contains(r#"["usr/lib",[97,255]]"#), "{text}");
        assert_eq!(serde_json::from_str::<LayerRecord>(&text).unwrap(), record);
        let numbers = text.replace(r#""usr/lib""#, "[117,115,114,47,108,105,98]");
        assert_eq!(serde_json::from_str::<LayerRecord>(&numbers).unwrap(), record);
    }

    #[test]
    fn a_stamp_says_what_is_different() {
        let stamp = |size, modified, inode| Stamp::File { size, modified, inode };
        assert_eq!(stamp(1, 2, 3).difference(&stamp(1, 2, 3)), None);
        assert_eq!(stamp(1, 2, 3).difference(&stamp(9, 2, 3)).unwrap(), "its size was 1 bytes and is 9");
        assert_eq!(stamp(1, 2, 3).difference(&stamp(1, 9, 3)).unwrap(), "it was modified");
        assert_eq!(stamp(1, 2, 3).difference(&stamp(1, 2, 9)).unwrap(), "it was replaced by another file");
    }

    #[test]
    fn sources_of_one_text_have_different_keys() {
        let keys: std::collections::BTreeSet<_> = [
            ImageSource::Reference("/a".into()),
            ImageSource::Archive("/a".into()),
            ImageSource::Archive(Archived { path: "/a".into(), image: Some("b".into()) }),
            ImageSource::Archive("/ab".into()),
            ImageSource::Rootfs("/a".into()),
        ]
        .iter()
        .map(source_key)
        .collect();
        assert_eq!(keys.len(), 5);
    }
}
