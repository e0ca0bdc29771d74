//! The OCI runtime: a bundle becomes a process.
//!
//! Input is an [`oci_spec::runtime::Spec`] (config.json) and the little that OCI has no words for: a root
//! filesystem made of layers, user names as an image writes them, an init. Callers are single-threaded: the monitor
//! of a container, and `evenkeel runtime`. Nothing here writes a log or keeps state of its own, and only the time limit of
//! a hook reads a clock: what exists is what the kernel says.
//!
//! * [`launch`] starts the first process of a container, [`exec`] a further one, [`gate`] one that another process
//!   has created. Both copy this process with
//!   clone3(2); `init` is the straight line of steps that the copy walks until execve(2).
//! * `prepare` turns the configuration into what those steps need, before anything is touched; what is not
//!   supported is an error there, never silence.
//! * [`layer`]: the files of a layer, whatever it is kept as.
//! * [`cgroup`], [`seccomp`] and [`capabilities`] are usable on their own.

mod between;
pub mod binary;
pub mod capabilities;
pub mod cgroup;
mod command;
mod copy_up;
mod devices;
pub mod error;
pub mod exec;
mod features;
pub mod gate;
mod handshake;
pub mod hooks;
pub mod identity;
mod init;
mod joined_proc;
mod label;
pub mod launch;
pub mod layer;
pub mod look;
mod masks;
mod mount_options;
mod mounts;
mod net_devices;
mod null_device;
mod outside;
mod paths;
mod placement;
mod prepare;
mod program;
mod reaper;
pub mod rootfs;
mod route;
mod scheduling;
pub mod seccomp;
mod sysctl;
mod terminal;
mod time_namespace;
mod user_namespace;
mod visible;

pub use error::{RuntimeError, Warning};
pub use features::features;
pub use prepare::NEWEST_VERSION;
