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
//! * [`push`]: the way back to a registry. `recipe`: the stream of a layer, made again from its tree.
//! * [`catalogue`]: every image here with its names, and what a word on a command line means.
//! * [`build`]: images made here, as a Dockerfile says; [`commit`]: of a container; [`load`]: of what somebody hands over.
//! * [`save`] and [`flatten`]: images as archives and as directories. [`check`]: whether
//!   layers are what they were. [`restore`]: those that are not, made again.
//! * `segment`: a part of a sparse file, as archives, recipes and images have it.
//! * `layer`: from bytes to an unpacked layer. `side_by_side`: several at once. `digesting`: what passes, digested.
//!   `writeback`: on the disk while the rest is unpacked.
//! * [`unpack`]: the child that turns a layer into an image or a directory and can reach nothing else. `erofs`: the images.
//!
//! This process never parses a tar stream that it has not written itself: every one is read by a child.

mod archive;
pub mod build;
pub mod catalogue;
pub mod check;
pub mod commit;
mod config;
mod digesting;
pub mod ensure;
mod erofs;
pub mod error;
pub mod flatten;
#[doc(hidden)]
pub mod fuzzing;
mod implied;
mod layer;
pub mod load;
mod manifest;
pub mod observe;
pub mod options;
pub(super) mod pack;
pub mod progress;
mod pull;
pub mod push;
mod recipe;
pub mod registry;
pub mod restore;
mod rootfs;
pub mod save;
pub(in crate::engine) mod segment;
mod side_by_side;
pub mod store;
pub mod unpack;
mod writeback;

pub use ensure::{Tools, ensure};
pub use error::ImageError;
pub use observe::{observe, tag_digest};
pub use options::{Options, Platform};
pub use progress::{Progress, Silent};
pub use pull::tags;
pub use store::Store;
