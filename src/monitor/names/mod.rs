//! Name service for one container: at 127.0.0.11, port 53, of its network namespace, over UDP and TCP.
//!
//! ```text
//! container's namespace                    host's namespace
//!   query ──> 127.0.0.11:53 ── a name of its networks: answered here (tables)
//!                           └─ any other: forwarded ──> upstream server
//! ```
//!
//! * [`message`] reads a query and writes an answer, [`tables`] knows the names, [`answer`] decides; all pure but for
//!   the reading of files. `server` holds the sockets, `forward` the queries that wait for an upstream.
//! * A name that is known is never forwarded: a type that it does not have is "no data", not "no such name", and not
//!   a question to the outside.
//! * Everything is bounded: queries that wait, connections, sizes, times. What does not parse is dropped.
//! * Not done on purpose: caching (upstreams do), DNSSEC of its own (bits and answers of upstreams pass through as
//!   they are), zone transfers.

pub(super) mod answer;
pub(super) mod forward;
pub(super) mod message;
pub(super) mod server;
pub(super) mod tables;
