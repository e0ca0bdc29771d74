//! The engine: the only part of Evenkeel that changes the host.

pub mod image;

use std::collections::BTreeMap;

use crate::model::action::Action;
use crate::model::actual::Actual;
use crate::model::image::{ImageSource, Pull};

/// What an observation should look at beside everything that records name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Image sources, and when each is looked up.
    pub images: BTreeMap<ImageSource, Pull>,
}

/// A host that can be looked at and changed. The one real seam of Evenkeel: the kernel behind it, or a model.
pub trait Engine: Sync {
    type Error: std::error::Error + Send + 'static;

    /// Everything this host knows about `scope` and every record. Changes nothing.
    fn observe(&self, scope: &Scope) -> Result<Actual, Self::Error>;

    /// Makes `action` true. Idempotent: `Ok` means "it is so now".
    fn perform(&self, action: &Action) -> Result<(), Self::Error>;
}
