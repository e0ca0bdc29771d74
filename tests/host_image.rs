//! Images on a real host, as root: layers, archives, registries. What is looked at is what is on disk.

#[path = "host_image/layers.rs"]
mod layers;
#[path = "host_image/support.rs"]
mod support;
