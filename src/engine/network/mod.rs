//! Networks: bridges, the links of containers, pinned network namespaces, the firewall and the names.
//!
//! ```text
//!   host namespace                                         namespace of a container (run/netns/<id>)
//!   uplink ── firewall: table inet evenkeel-<tag> ── bridge ek<tag>b<network> ── ek<tag>v<hash> ══ eth0
//! ```
//!
//! * [`link`]: the connection to the kernel through which links of the host's namespace are changed.
//! * [`bridge`]: one bridge per network. [`attachment`]: a container's part in a network. [`netns`]: its namespace.
//! * [`observe`]: what of all this is not as recorded.
//! * [`firewall`]: published ports, isolation and masquerade, as one table.
//! * [`host`]: what others use of the host: routes and listening sockets.
//! * [`names`]: the tables of names that monitors answer from.
//!
//! Which subnet, address or name an object has is never decided here: that is in its record.
//!
//! # Decisions
//!
//! rtnetlink, which is async, makes the changes in the host's namespace: one connection serves all threads of an
//! execution. Looking uses plain blocking sockets (`netlink`), because each of a hundred namespaces needs a socket of
//! its own for some microseconds, and reads only the few attributes that are compared.

pub mod attach;
pub mod attachment;
pub mod bridge;
mod error;
pub mod events;
pub mod firewall;
pub mod host;
pub mod link;
pub mod names;
mod netlink;
pub mod netns;
pub mod observe;
mod snapshot;
mod sysctl;

pub use error::NetworkError;
