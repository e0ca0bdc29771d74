//! `spec`: a config.json to begin with.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::cli::failure::{Exit, Failure};

#[derive(Debug, Args)]
pub struct SpecArguments {
    /// The directory that it is written to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
}

/// A shell in a root filesystem at `rootfs`, with what Docker's containers have around it and three capabilities.
const EXAMPLE: &str = include_str!("config.json");

pub fn run(arguments: &SpecArguments) -> Result<Exit, Failure> {
    let path = arguments.bundle.join("config.json");
    File::create_new(&path).and_then(|mut file| file.write_all(EXAMPLE.as_bytes())).map_err(|error| {
        let failure = Failure::from(error).context(format!("cannot write `{}`", path.display()));
        failure.hint("a file that is there is not replaced")
    })?;
    Ok(Exit::Done)
}
