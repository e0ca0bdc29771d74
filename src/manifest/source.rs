//! From `-f` arguments to texts: the part of the manifest that reads the disk.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::problem::{Place, Problem, Problems, Source};
use super::{FileKind, Surroundings};

/// Read when nothing is named: the first of these that is there.
const DEFAULTS: [&str; 2] = ["./evenkeel.toml", "/etc/evenkeel"];

/// What `-f` names standard input by. Paths in it begin in the working directory.
const STANDARD_INPUT: &str = "-";

/// What problems call what is read here.
const MANIFEST: &str = "manifest";

pub fn is_standard_input(input: &Path) -> bool {
    input == Path::new(STANDARD_INPUT)
}

/// More than a host's manifest ever has; `-f /dev/zero` would fill the memory.
const SIZE_MAX: u64 = 16 << 20;

/// What is read when no `-f` is given: empty when neither default is there.
pub fn default_inputs() -> Vec<PathBuf> {
    DEFAULTS.iter().map(PathBuf::from).find(|path| path.exists()).into_iter().collect()
}

/// One layer per input, in order.
pub(super) fn read_layers(inputs: &[PathBuf]) -> Result<Vec<Vec<Source>>, Problems> {
    let inputs = match inputs {
        [] => default_inputs(),
        given => given.to_vec(),
    };
    if inputs.is_empty() {
        let problem =
            Problem::nowhere(format!("there is no manifest: neither `{}` nor `{}`", DEFAULTS[0], DEFAULTS[1]));
        return Err(Problems::new(Vec::new(), vec![problem.help("name one with `-f PATH`")]));
    }
    let mut problems = Vec::new();
    let mut not_text = Vec::new();
    let mut layers = Vec::new();
    for input in inputs {
        match files_of(&input) {
            Ok(files) if files.is_empty() => {
                let problem = Problem::nowhere(format!("the directory `{}` holds no `*.toml`", input.display()));
                problems.push(problem.help("of a directory, the files whose names end in `.toml` are read"));
            }
            Ok(files) => {
                layers
                    .push(files.iter().filter_map(|file| read(file, MANIFEST, &mut not_text, &mut problems)).collect());
            }
            Err(error) => problems.push(unreadable(&input, MANIFEST, &error)),
        }
    }
    match problems.is_empty() {
        true => Ok(layers),
        false => Err(Problems::new(not_text, problems)),
    }
}

/// The text of one file, which `noun` says what it is.
pub(super) fn read_one(path: &Path, noun: &str) -> Result<Source, Problems> {
    let (mut not_text, mut problems) = (Vec::new(), Vec::new());
    let read = match path.is_dir() {
        true => Err(Problem::nowhere(format!("the {noun} `{}` is a directory", path.display()))),
        false => Ok(read(path, noun, &mut not_text, &mut problems)),
    };
    match read {
        Ok(Some(source)) => Ok(source),
        Ok(None) => Err(Problems::new(not_text, problems)),
        Err(problem) => Err(Problems::new(not_text, vec![problem])),
    }
}

/// The file itself, or the manifests of a directory in the order of their names.
fn files_of(input: &Path) -> io::Result<Vec<PathBuf>> {
    if !input.is_dir() {
        return Ok(vec![input.to_path_buf()]);
    }
    let mut files =
        fs::read_dir(input)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    files.retain(|path| is_manifest(path));
    files.sort();
    Ok(files)
}

/// Dotfiles are somebody's own, and the host file is none although it lies among them.
fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let is_host_file = path == Path::new(super::host::DEFAULT);
    !hidden && !is_host_file && path.extension().is_some_and(|extension| extension == "toml")
}

/// A file that is not UTF-8 is kept in `not_text`, so that its problem can point into it.
fn read(path: &Path, noun: &str, not_text: &mut Vec<Source>, problems: &mut Vec<Problem>) -> Option<Source> {
    let bytes = match is_standard_input(path) {
        true => read_all(io::stdin()),
        false => File::open(path).and_then(read_all),
    };
    let path = path.to_path_buf();
    match bytes.map(String::from_utf8) {
        Ok(Ok(text)) => Some(Source { path, text: without_mark(text) }),
        Ok(Err(error)) => {
            // Up to there the replacement of what is wrong moves nothing.
            let at = error.utf8_error().valid_up_to();
            let place = Place::new(not_text.len(), at..at + char::REPLACEMENT_CHARACTER.len_utf8());
            problems.push(Problem::at(&place, format!("a {noun} is UTF-8 text")).label("this is not UTF-8"));
            not_text.push(Source { path, text: String::from_utf8_lossy(error.as_bytes()).into_owned() });
            None
        }
        Err(error) => {
            problems.push(unreadable(&path, noun, &error));
            None
        }
    }
}

fn read_all(file: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > SIZE_MAX {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {} MiB", SIZE_MAX >> 20))),
        false => Ok(bytes),
    }
}

/// Editors of other systems begin a text with a byte order mark, which is no part of it.
fn without_mark(mut text: String) -> String {
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    text
}

fn unreadable(path: &Path, noun: &str, error: &io::Error) -> Problem {
    Problem::nowhere(format!("cannot read the {noun} `{}`: {error}", path.display()))
}

/// Calls `use_them` with the surroundings that this process has.
pub(super) fn on_this_host<T>(
    variable: &dyn Fn(&str) -> Option<String>,
    use_them: impl FnOnce(&Surroundings<'_>) -> Result<T, Problems>,
) -> Result<T, Problems> {
    let directory = std::env::current_dir().map_err(|error| {
        Problems::new(Vec::new(), vec![Problem::nowhere(format!("cannot find the working directory: {error}"))])
    })?;
    let read_file = |path: &Path| {
        let text = String::from_utf8(File::open(path).and_then(read_all)?);
        text.map(without_mark).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
    };
    use_them(&Surroundings { directory: &directory, variable, file_kind: &kind_of, read_file: &read_file })
}

fn kind_of(path: &Path) -> Option<FileKind> {
    let kind = fs::metadata(path).ok()?.file_type();
    Some(match () {
        () if kind.is_dir() => FileKind::Directory,
        () if kind.is_file() => FileKind::File,
        () => FileKind::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_file_is_no_manifest() {
        for (path, is) in [
            ("/etc/evenkeel/shop.toml", true),
            ("/etc/evenkeel/host.toml", false),
            ("/srv/shop/host.toml", true),
            ("/etc/evenkeel/.host.toml", false),
            ("/etc/evenkeel/auth.json", false),
        ] {
            assert_eq!(is_manifest(Path::new(path)), is, "{path}");
        }
    }
}
