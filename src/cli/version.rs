//! `evenkeel version`.

use super::failure::{Exit, Failure};
use super::output::{Format, Output};

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub fn run(output: &Output) -> Result<Exit, Failure> {
    match output.format() {
        Format::Text => output.text(&format!("evenkeel {VERSION}\n"))?,
        Format::Json => output.document(&serde_json::json!({ "version": VERSION }))?,
    }
    Ok(Exit::Done)
}
