//! Networks against the kernel: bridges, attachments, namespaces and the firewall.
//!
//! Every test makes a host of its own: a thread in a fresh network namespace, joined to a second one that stands for
//! the outside. Needs root. `ip` and `nft` are independent witnesses and vandals, nothing else.

#[path = "host_network/firewall.rs"]
mod firewall;
#[path = "host_network/links.rs"]
mod links;
#[path = "host_network/traffic.rs"]
mod traffic;
#[path = "host_network/world.rs"]
mod world;
