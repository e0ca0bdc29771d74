//! From `-f` arguments to texts: the part of the manifest that reads the disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::problem::{Problem, Problems, Source};
use super::{FileKind, Surroundings};

/// Read when nothing is named: the first of these that is there.
const DEFAULTS: [&str; 2] = ["./evenkeel.toml", "/etc/evenkeel"];

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
    let mut layers = Vec::new();
    for input in inputs {
        match files_of(&input) {
            Ok(files) if files.is_empty() => {
                problems.push(Problem::nowhere(format!("the directory `{}` holds no `*.toml`", input.display())));
            }
            Ok(files) => layers.push(files.iter().filter_map(|file| read(file, &mut problems)).collect()),
            Err(error) => problems.push(unreadable(&input, &error)),
        }
    }
    match problems.is_empty() {
        true => Ok(layers),
        false => Err(Problems::new(Vec::new(), problems)),
    }
}

/// The file itself, or the manifests of a directory in the order of their names.
fn files_of(input: &Path) -> io::Result<Vec<PathBuf>> {
    if !input.is_dir() {
        return Ok(vec![input.to_path_buf()]);
    }
    let is_manifest = |path: &PathBuf| {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !hidden && path.extension().is_some_and(|extension| extension == "toml")
    };
    let mut files =
        fs::read_dir(input)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    files.retain(is_manifest);
    files.sort();
    Ok(files)
}

fn read(path: &Path, problems: &mut Vec<Problem>) -> Option<Source> {
    match fs::read_to_string(path) {
        Ok(text) => Some(Source { path: path.to_path_buf(), text }),
        Err(error) => {
            problems.push(unreadable(path, &error));
            None
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem::nowhere(format!("cannot read the manifest `{}`: {error}", path.display()))
}

/// Calls `use_them` with the surroundings that this process has.
pub(super) fn on_this_host<T>(
    variable: &dyn Fn(&str) -> Option<String>,
    use_them: impl FnOnce(&Surroundings<'_>) -> Result<T, Problems>,
) -> Result<T, Problems> {
    let directory = std::env::current_dir().map_err(|error| {
        Problems::new(Vec::new(), vec![Problem::nowhere(format!("cannot find the working directory: {error}"))])
    })?;
    let read_file = |path: &Path| fs::read_to_string(path);
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
