//! `evenkeel man DIR`: a manual page for each program and for each of its commands.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use super::arguments::Arguments;
use super::failure::{Exit, Failure};
use super::output::{Format, Output};

#[derive(Debug, Args)]
pub struct ManArguments {
    /// The directory that the pages are written to, for example /usr/local/share/man/man1
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub fn run(arguments: &ManArguments, output: &Output) -> Result<Exit, Failure> {
    let directory = &arguments.directory;
    let cannot = |error: std::io::Error| {
        Failure::from(error).context(format!("cannot write manual pages to `{}`", directory.display()))
    };
    std::fs::create_dir_all(directory).map_err(cannot)?;
    // `disable_help_subcommand`: `evenkeel help` would otherwise get a page for each command once more.
    for command in [Arguments::command(), super::runtime::command()] {
        clap_mangen::generate_to(command.disable_help_subcommand(true), directory).map_err(cannot)?;
    }
    if output.format() == Format::Text {
        output.remark(&format!("manual pages written to {}", directory.display()));
    }
    Ok(Exit::Done)
}
