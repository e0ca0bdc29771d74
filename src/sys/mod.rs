//! System calls that `nix` and `rustix` lack. The only home of `unsafe`.
//!
//! Each module wraps one call (or one family) as thinly as the kernel allows: arguments become types, results
//! become `io::Result`, descriptors become `OwnedFd` and are close-on-exec from birth. No policy lives here.

pub mod bpf;
pub mod clock;
pub mod clone;
pub mod command_line;
pub mod descriptors;
pub mod keyring;
pub mod kill;
pub mod loop_device;
pub mod loopback;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod numa;
pub mod path;
pub mod scheduling;
pub mod seccomp;
pub mod signals;
