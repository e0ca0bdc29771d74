//! Images on a real host, as root: layers, archives, registries. What is looked at is what is on disk.

#[path = "host_image/archives.rs"]
mod archives;
#[path = "host_image/build.rs"]
mod build;
#[path = "host_image/cli.rs"]
mod cli;
#[path = "support/debian_registry.rs"]
mod debian_registry;
#[path = "host_image/forms.rs"]
mod forms;
#[path = "host_image/layers.rs"]
mod layers;
#[path = "host_image/login.rs"]
mod login;
#[path = "host_image/made.rs"]
mod made;
#[path = "host_image/mirrors.rs"]
mod mirrors;
#[path = "host_image/push.rs"]
mod push;
#[path = "host_image/registry.rs"]
mod registry;
#[path = "host_image/secure.rs"]
mod secure;
#[path = "host_image/server.rs"]
mod server;
#[path = "host_image/stacked.rs"]
mod stacked;
#[path = "host_image/support.rs"]
mod support;
#[path = "host_image/tokens.rs"]
mod tokens;
#[path = "host_image/trouble.rs"]
mod trouble;
