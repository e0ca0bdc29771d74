//! Containers: from a stored record and an image to a supervised process, and back to nothing.

pub(super) mod devices;
pub(super) mod effective;
pub(super) mod etc;

pub(super) mod mounts;
pub(super) mod oci;
