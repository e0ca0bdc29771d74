//! `evenkeel image save`: images as an archive that other engines take, or as an OCI layout.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::files::with_output;
use super::find::{failure, find};
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;
use crate::engine::image::Store;
use crate::engine::image::catalogue::Meaning;
use crate::engine::image::save::{Archive, Directory, Format, Wanted, save};

#[derive(Debug, Args)]
pub struct SaveArguments {
    /// `REPOSITORY[:TAG]`, or the beginning of an id: then without a name
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,

    /// Where to; without it standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// `docker` for docker load; `oci` for an OCI layout as an archive, `oci-dir` as a directory
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "docker")]
    format: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Docker,
    Oci,
    OciDir,
}

pub fn run(arguments: &SaveArguments, context: &Context, _: &Output) -> Result<Exit, Failure> {
    let store = Store::new(&context.paths.root).acting_for(&context.who);
    let entries = store.catalogue().map_err(failure)?;
    let wanted = arguments.images.iter().map(|word| {
        let meaning = find(&entries, word)?;
        let names = match meaning {
            Meaning::Named(_, source) => source.reference().into_iter().collect(),
            Meaning::Image(_) => BTreeSet::new(),
        };
        Ok(Wanted { entry: meaning.entry(), names })
    });
    let wanted = wanted.collect::<Result<Vec<_>, Failure>>()?;
    let format = if arguments.format == Form::Docker { Format::Docker } else { Format::Oci };
    if arguments.format != Form::OciDir {
        let path = arguments.output.as_ref();
        with_output(path, |to| save(&store, &wanted, format, &mut Archive::new(to)).map_err(failure))?;
        return Ok(Exit::Done);
    }
    let Some(path) = &arguments.output else {
        return Err(Failure::usage("a directory needs a name").hint("add `--output DIR`"));
    };
    let made = std::fs::create_dir(path);
    made.map_err(|error| Failure::from(error).context(format!("cannot make the directory `{}`", path.display())))?;
    let saved = save(&store, &wanted, format, &mut Directory::new(path)).map_err(failure);
    if saved.is_err() {
        // It was made here; what matters is why it could not be filled.
        let _ = std::fs::remove_dir_all(path);
    }
    saved.map(|()| Exit::Done)
}
