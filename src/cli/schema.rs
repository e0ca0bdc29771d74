//! `evenkeel schema`: the JSON Schema of the manifest, for editors and validators.

use super::failure::{Exit, Failure};
use super::output::Output;
use crate::manifest;

pub fn run(output: &Output) -> Result<Exit, Failure> {
    output.text(&manifest::schema_text())?;
    Ok(Exit::Done)
}
