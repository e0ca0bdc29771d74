//! `evenkeel config`: the resolved manifest, itself a valid one: files merged, variables put in, paths absolute,
//! references with the digests that they are locked to.

use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::{Format, Output};
use crate::manifest;

pub fn run(context: &Context, output: &Output) -> Result<Exit, Failure> {
    let loaded = context.load_locked()?;
    match output.format() {
        Format::Json => output.document(&loaded.desired)?,
        Format::Text => output.text(&manifest::to_toml(&loaded))?,
    }
    Ok(Exit::Done)
}
