//! `evenkeel container export`: the files of a container as a tar archive, without its volumes.

use std::path::PathBuf;

use clap::Args;

use crate::cli::context::Context;
use crate::cli::each;
use crate::cli::failure::{Exit, Failure};
use crate::cli::image::with_output;

#[derive(Debug, Args)]
pub struct ExportArguments {
    /// NAME, NAME.REPLICA, PROJECT/NAME or the beginning of an id
    #[arg(value_name = "CONTAINER")]
    container: String,

    /// Where to; without it standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(arguments: &ExportArguments, context: &Context) -> Result<Exit, Failure> {
    let record = each::one(&arguments.container, context)?;
    let host = context.host()?;
    with_output(arguments.output.as_ref(), |to| host.export(&record, to).map_err(Failure::engine))?;
    Ok(Exit::Done)
}
