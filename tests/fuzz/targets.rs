//! Fuzz targets: each takes any bytes, and panics if what reads them does something that it must never do. `tests/fuzz.rs`
//! runs them for a bounded time, `fuzz/` with libFuzzer for as long as one likes.

#![allow(dead_code, reason = "each binary of `fuzz/` is one target")]

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use evenkeel::engine::image::fuzzing;
use evenkeel::engine::image::unpack::Limits;
use evenkeel::manifest::{self, FileKind, Source, Surroundings};
use evenkeel::model::dockerfile;

/// A target by its name.
pub type Target = (&'static str, fn(&[u8]));

pub const ALL: [Target; 6] = [
    ("layer", layer),
    ("document", document),
    ("dockerfile", dockerfile),
    ("challenge", challenge),
    ("manifest", manifest),
    ("host_file", host_file),
];

const LIMITS: Limits = Limits { memory: 0, content: 1 << 20, entries: 500 };

/// A layer's stream, compressed or not. Nothing outside its directory changes, limits hold, what the record says of the
/// tree is so, and the stream can be made again.
pub fn layer(bytes: &[u8]) {
    let place = Place::new();
    let files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
    if let Ok(record) = fuzzing::extract(&mended(bytes), &place.tree, files, LIMITS) {
        assert!(record.entries <= LIMITS.entries && record.content_size <= LIMITS.content, "{record:?}");
        for implied in &record.implied {
            use std::os::unix::ffi::OsStrExt;
            let path = place.tree.join(std::ffi::OsStr::from_bytes(implied));
            assert!(fs::symlink_metadata(&path).unwrap().is_dir(), "{path:?} is implied and is no directory");
        }
    }
    place.assert_untouched();
}

/// An index, a manifest or a configuration.
pub fn document(bytes: &[u8]) {
    fuzzing::document(bytes);
}

/// As the only Dockerfile of a manifest; its errors are shown with their places.
pub fn dockerfile(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    if let Err(errors) = dockerfile::parse(&text) {
        assert!(!errors.is_empty(), "a refusal has a reason");
        for error in errors {
            assert!(text.get(error.place.clone()).is_some(), "{error:?} is at no place of the text");
        }
    }
    let surroundings = Surroundings {
        directory: Path::new("/"),
        variable: &|_| None,
        file_kind: &|path| match path.ends_with(".dockerignore") {
            true => None,
            false if path.ends_with("Dockerfile") => Some(FileKind::File),
            false => Some(FileKind::Directory),
        },
        read_file: &|_| Ok(text.clone()),
    };
    let manifest = "project = \"p\"\n[images.a]\nbuild = \"/context\"\n".to_owned();
    let source = Source { path: "m.toml".into(), text: manifest };
    if let Err(problems) = manifest::parse(vec![vec![source]], &surroundings) {
        assert!(!problems.to_string().is_empty());
    }
}

/// A `WWW-Authenticate` header.
pub fn challenge(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for scheme in fuzzing::schemes(&text) {
        assert!(!scheme.is_empty() && !scheme.contains([' ', ',', '=']), "{scheme:?}");
    }
}

pub fn manifest(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    for file_kind in [None, Some(FileKind::File), Some(FileKind::Directory)] {
        let source = Source { path: "m.toml".into(), text: text.clone() };
        match surrounded(file_kind, |surroundings| manifest::parse(vec![vec![source]], surroundings)) {
            Ok(loaded) => {
                // What is printed of it is read as the same.
                let printed = manifest::to_toml(&loaded);
                let again = Source { path: "m.toml".into(), text: printed.clone() };
                let again = surrounded(file_kind, |surroundings| manifest::parse(vec![vec![again]], surroundings));
                assert_eq!(again.ok().map(|again| again.desired), Some(loaded.desired), "{printed}");
            }
            Err(problems) => assert!(!problems.to_string().is_empty()),
        }
    }
}

pub fn host_file(bytes: &[u8]) {
    let source = Source { path: "host.toml".into(), text: String::from_utf8_lossy(bytes).into_owned() };
    let parsed = surrounded(Some(FileKind::File), |surroundings| manifest::host::parse_host(source, surroundings));
    if let Err(problems) = parsed {
        assert!(!problems.to_string().is_empty());
    }
}

/// A world in which everything is of one kind.
fn surrounded<T>(file_kind: Option<FileKind>, parse: impl FnOnce(&Surroundings<'_>) -> T) -> T {
    parse(&Surroundings {
        directory: Path::new("/"),
        variable: &|_| None,
        file_kind: &|_| file_kind,
        read_file: &|_| Ok("FROM scratch AS base\n".to_owned()),
    })
}

/// The stream with a right checksum wherever a header seems to be: damage is to be met behind it.
fn mended(bytes: &[u8]) -> Vec<u8> {
    let mut mended = bytes.to_vec();
    for block in mended.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    mended
}

/// A directory for a layer's tree, beside files that no layer may touch.
struct Place {
    directory: tempfile::TempDir,
    tree: PathBuf,
}

const VICTIM: &str = "before";

impl Place {
    fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::DirBuilder::new().mode(0o700).create(&tree).unwrap();
        fs::write(directory.path().join("victim"), VICTIM).unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
        Place { directory, tree }
    }

    fn assert_untouched(&self) {
        let victim = self.directory.path().join("victim");
        let look = fs::symlink_metadata(&victim).unwrap();
        assert!(look.is_file() && look.nlink() == 1 && look.mtime() > 1_600_000_000, "{look:?}");
        assert_eq!(fs::read_to_string(victim).unwrap(), VICTIM);
        assert_eq!(fs::read_dir(self.directory.path()).unwrap().count(), 2, "something lies beside the tree");
        let look = self.directory.path().metadata().unwrap();
        assert_eq!((look.mode() & 0o7777, look.mtime() > 1_600_000_000), (0o711, true), "{look:?}");
    }
}
