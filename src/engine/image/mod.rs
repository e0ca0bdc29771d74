//! Images: from a registry, an archive or a root filesystem to unpacked layers that containers mount.
//!
//! ```text
//! registry ─┐                       ┌─> child: inflate ─> diff id ─> files in layers/.tmp-*  (one child per layer)
//! archive  ─┼─ bytes ─> digest ─────┤
//! directory ┘                       └─> all layers done: syncfs ─> rename into place ─> record of the source
//! ```
//!
//! * [`store`]: what is on disk. [`ensure()`] makes a source whole there, [`observe()`] looks whether it still is.
//! * `registry`: the OCI distribution protocol. `archive` and `rootfs`: the sources that are files.
//! * [`push`]: the way back to a registry. `export`: the stream of a layer, made again from its tree.
//! * [`build`]: images made here, as a Dockerfile says.
//! * [`unpack`]: the child that turns a layer into a directory and can reach nothing else.
//!
//! This process never parses a tar stream that it has not written itself: every one is read by a child.

mod archive;
pub mod build;
mod config;
pub mod ensure;
pub mod error;
mod export;
mod implied;
mod layer;
mod manifest;
pub mod observe;
pub mod options;
pub mod progress;
mod pull;
pub mod push;
pub mod registry;
mod rootfs;
pub mod store;
pub mod unpack;

pub use ensure::ensure;
pub use error::ImageError;
pub use observe::observe;
pub use options::{Options, Platform};
pub use progress::{Progress, Silent};
pub use store::Store;
