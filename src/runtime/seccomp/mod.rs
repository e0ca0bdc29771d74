//! Seccomp: from OCI's profile to classic BPF.
//!
//! * [`default_profile`] has the coverage of Docker's default profile.
//! * [`from_docker`] reads profiles in Docker's own format.
//! * `agent` hands the notifications of a filter to who answers them; `once` is one of our own that grants a call once.
//! * `compile` turns a profile into one program for all its architectures; `bpf` knows the instructions, `table` the
//!   numbers of the system calls.
//!
//! # Decisions
//!
//! * A name that no table has is a call newer than this program, or of another processor. Where the default action
//!   refuses, leaving it out refuses it too, which is what runc does. Where the default allows, leaving it out would
//!   open what the profile means to close: that is an error.
//! * A call whose number is above every one that the profile names, on that architecture, fails with ENOSYS in place
//!   of the default errno, as with runc: a C library then takes an older call, where EPERM would make it give up.

mod agent;
mod bpf;
mod compile;
mod docker;
mod once;
#[cfg(test)]
mod parity;
mod profile;
mod table;

pub(super) use agent::Agent;
pub(super) use compile::features;
pub use compile::{Filter, compile};
pub use docker::{Surroundings, from_docker};
pub(super) use once::{ask_for, grant};
pub use profile::default_profile;
