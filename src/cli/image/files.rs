//! Files and streams that images come from and go to. `-` is standard input or output.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::find::failure;
use crate::cli::failure::Failure;
use crate::engine::image::Store;
use crate::engine::image::load::Input;

/// What is at the path. What comes through a pipe has come to its end.
pub fn input(path: &Path, store: &Store) -> Result<Input, Failure> {
    if path == Path::new("-") {
        let mut stdin = io::stdin();
        if stdin.is_terminal() {
            return Err(
                Failure::usage("an archive is not typed").hint("redirect standard input, or use `--input FILE`")
            );
        }
        return Input::of_stream(store, Path::new("standard input"), &mut stdin).map_err(failure);
    }
    let absolute = std::path::absolute(path)?;
    let opened = File::open(&absolute);
    let mut file = opened.map_err(|error| Failure::from(error).context(format!("cannot open `{}`", path.display())))?;
    // A pipe cannot be read from any place of it.
    let kind = file.metadata()?.file_type();
    match kind.is_file() || kind.is_dir() {
        true => Ok(Input { path: absolute, file }),
        false => Input::of_stream(store, &absolute, &mut file).map_err(failure),
    }
}

/// Calls `work` with where output goes: a file that is there whole or not at all, or else standard output.
pub fn with_output(
    path: Option<&PathBuf>,
    work: impl FnOnce(&mut (dyn Write + Send)) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Some(path) = path.filter(|path| *path != Path::new("-")) else {
        if io::stdout().is_terminal() {
            return Err(Failure::usage("an archive is not for a terminal").hint("redirect it, or use `--output FILE`"));
        }
        let mut stdout = BufWriter::with_capacity(256 << 10, io::stdout());
        work(&mut stdout)?;
        return stdout.flush().map_err(|error| Failure::stdout(&error));
    };
    let cannot = |error: io::Error| Failure::from(error).context(format!("cannot write `{}`", path.display()));
    let is_special = std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir());
    if is_special {
        let mut to = BufWriter::with_capacity(256 << 10, File::options().write(true).open(path).map_err(cannot)?);
        work(&mut to)?;
        return to.flush().map_err(cannot);
    }
    let name = path.file_name().ok_or_else(|| Failure::usage(format!("`{}` is no file", path.display())))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(temporary);
    // What is in it was readable for nobody but root.
    let new = File::options().write(true).create_new(true).mode(0o600).open(&temporary);
    let written = new.map_err(cannot).and_then(|file| {
        let mut to = BufWriter::with_capacity(256 << 10, file);
        work(&mut to)?;
        to.flush().and_then(|()| std::fs::rename(&temporary, path)).map_err(cannot)
    });
    if written.is_err() {
        // What matters is why it could not be written.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}
