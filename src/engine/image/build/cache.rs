//! What was built before: which layer came of which instruction on which files.
//!
//! ```text
//! images/built/<key>.json     the layer, and when it was made
//! ```
//!
//! The key is a digest over everything that the layer follows from: the layers below, the instruction with its
//! variables replaced, who ran it where with which environment, and the contents of what was copied or mounted. Equal
//! keys mean equal inputs, wherever in whichever Dockerfile. A record whose layer is gone counts as none.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::image::error::ImageError;
use crate::engine::image::store::record::sha256;
use crate::engine::image::store::session::Session;
use crate::model::id::Digest;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    pub layer: Digest,
    /// RFC 3339, as an image's configuration says it.
    pub created: String,
}

/// Whether results of earlier builds are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    Allowed,
    Never,
}

/// The key of these inputs. Maps are sorted in this form, so that equal ones have one text.
pub fn key(inputs: &Value) -> Digest {
    sha256([inputs.to_string().as_bytes()])
}

pub fn find(session: &Session<'_>, key: &Digest, reuse: Reuse) -> Result<Option<Built>, ImageError> {
    match reuse {
        Reuse::Never => Ok(None),
        Reuse::Allowed => {
            let built = session.store().find_built(key)?;
            if built.is_some() {
                session.store().mark_step_used(key)?;
            }
            Ok(built)
        }
    }
}
