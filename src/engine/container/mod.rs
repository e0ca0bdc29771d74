//! Containers: from a stored record and an image to a supervised process, and back to nothing.

mod abandoned;
pub mod alive;
pub(super) mod await_condition;
pub(super) mod changes;
pub(super) mod commit;
pub(super) mod create;
mod devices;
pub(super) mod effective;
pub(super) mod etc;
pub(super) mod inside;
pub(super) mod launch;
pub(super) mod lifecycle;
pub(super) mod mounts;
pub(super) mod oci;
pub(super) mod stray;
