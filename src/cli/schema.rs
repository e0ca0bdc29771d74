//! `evenkeel schema`: the JSON Schemas of the manifest and of the host file, for editors and validators.

use clap::Args;

use super::failure::{Exit, Failure};
use super::output::Output;
use crate::manifest;

#[derive(Debug, Args)]
pub struct SchemaArguments {
    /// That of the host file
    #[arg(long)]
    host: bool,
}

pub fn run(arguments: &SchemaArguments, output: &Output) -> Result<Exit, Failure> {
    let text = match arguments.host {
        true => manifest::host_schema_text(),
        false => manifest::schema_text(),
    };
    output.text(&text)?;
    Ok(Exit::Done)
}
