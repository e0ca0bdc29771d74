//! The last manifest that nothing spoke against, so that a service which starts with one that is broken or refused keeps
//! what was running.
//!
//! `last-good/<digest of the inputs' paths>.json` in the state root. `watch` is its only user; it is a memory, not a
//! source: what is declared is what the manifests say.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::error::EngineError;
use super::files::{self, Durability};
use super::host::Host;
use super::image::store::record::sha256;
use crate::model::desired::Desired;

impl Host {
    /// Keeps `desired` as what `inputs` said when nothing spoke against it.
    pub fn remember(&self, inputs: &[PathBuf], desired: &Desired) -> Result<(), EngineError> {
        let path = self.last_good(inputs);
        files::create_directories(&self.paths().last_good())?;
        files::write_json(&path, desired, Durability::Durable)
    }

    /// What [`Host::remember`] kept. A memory of another version that cannot be read is none.
    pub fn recall(&self, inputs: &[PathBuf]) -> Result<Option<Desired>, EngineError> {
        match files::read_json(&self.last_good(inputs)) {
            Err(EngineError::Record { .. }) => Ok(None),
            other => other,
        }
    }

    fn last_good(&self, inputs: &[PathBuf]) -> PathBuf {
        let separated = inputs.iter().flat_map(|input| [input.as_os_str().as_bytes(), b"\0"]);
        self.paths().last_good().join(format!("{}.json", sha256(separated).hex()))
    }
}
