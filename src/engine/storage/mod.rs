//! Storage: volumes, and the merged view of an image's layers from which empty ones are filled.

pub(super) mod age;
pub(super) mod copy;
pub(super) mod view;
pub(super) mod volume;
