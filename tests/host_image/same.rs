//! Whether a layer that is an image has the files that it would have as a directory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

use evenkeel::engine::image::store::session::Form;
use evenkeel::engine::image::{self, Options, Silent, Store};
use evenkeel::model::image::ImageSource;
use rustix::fs::{SeekFrom, seek};

/// Everything that is to be known of a tree, a line for each entry.
fn look(tree: &Path) -> String {
    let (mut text, mut first_names) = (String::new(), BTreeMap::new());
    look_at(tree, tree, &mut text, &mut first_names);
    text
}

fn look_at(tree: &Path, path: &Path, text: &mut String, first_names: &mut BTreeMap<u64, String>) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let name = path.strip_prefix(tree).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
    let (kind, is_directory) = (metadata.file_type(), metadata.is_dir());
    write!(text, "{name} {:o} {}:{}", metadata.mode(), metadata.uid(), metadata.gid()).unwrap();
    // Nothing says when a mark was made, and nobody asks.
    if !(kind.is_char_device() && metadata.rdev() == 0) {
        write!(text, " {}.{:09}", metadata.mtime(), metadata.mtime_nsec()).unwrap();
    }
    write!(text, " {} links", metadata.nlink()).unwrap();
    if !is_directory {
        let first = first_names.entry(metadata.ino()).or_insert_with(|| name.clone());
        write!(text, " as {first}, {} bytes, device {}", metadata.size(), metadata.rdev()).unwrap();
    }
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap();
    let mut names: Vec<&str> = str::from_utf8(&names[..length]).unwrap().split_terminator('\0').collect();
    names.sort_unstable();
    for attribute in names {
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::lgetxattr(path, attribute, value.as_mut_slice()).unwrap();
        write!(text, " {attribute}={}", value[..length].escape_ascii()).unwrap();
    }
    if kind.is_symlink() {
        write!(text, " -> {}", fs::read_link(path).unwrap().as_os_str().as_bytes().escape_ascii()).unwrap();
    }
    if kind.is_file() {
        write!(text, " {:016x}", contents(path)).unwrap();
    }
    text.push('\n');
    if is_directory {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names.iter().for_each(|name| look_at(tree, name, text, first_names));
    }
}

/// A sum over the bytes that are not zero and where they are: it costs what is there and not what is said to be.
fn contents(path: &Path) -> u64 {
    let file = fs::File::open(path).unwrap();
    let (mut sum, mut end, mut buffer) = (0u64, 0, vec![0; 1 << 16]);
    while let Ok(begin) = seek(&file, SeekFrom::Data(end)) {
        end = seek(&file, SeekFrom::Hole(begin)).unwrap();
        let mut at = begin;
        while at < end {
            let most = buffer.len().min((end - at) as usize);
            let count = file.read_at(&mut buffer[..most], at).unwrap();
            for (place, byte) in (at..).zip(&buffer[..count]).filter(|(_, byte)| **byte != 0) {
                sum = sum.wrapping_add((place + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(*byte) << 32);
            }
            at += count as u64;
        }
    }
    sum
}

/// Unpacks the source of an image of one layer, whose files are at `tree`, as a directory too, and compares.
#[track_caller]
pub fn assert_same_as_directory(source: &ImageSource, tree: &Path, options: &Options) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path());
    let options = Options { form: Some(Form::Directory), ..options.clone() };
    let image = image::ensure(&store, source, &options, &Silent).unwrap();
    let files = store.layer_path(&image.layers[0]);
    assert!(files.is_dir());
    let (here, there) = (look(tree), look(&files));
    let differences = here.lines().zip(there.lines()).find(|(here, there)| here != there);
    assert!(here == there, "an image has, and a directory:\n{differences:#?}");
}
