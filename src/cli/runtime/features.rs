//! `features`: what this runtime can do, whatever the host can (runtime-spec, features.md).

use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;

pub fn run(output: &Output) -> Result<Exit, Failure> {
    output.document(&crate::runtime::features())?;
    Ok(Exit::Done)
}
