//! Writing EROFS: a read-only filesystem in one file, uncompressed.
//!
//! * [`inode`]: inodes and their extended attributes, as bytes. [`directory`]: the entries of a directory, as bytes.
//! * [`superblock`]: where all begins. [`space`]: where in the image what goes. [`writer`]: an image that grows while a stream passes.
//!
//! Whoever writes gives contents as they come; nothing of them is kept. A file's inode is written right behind its
//! contents, so that in memory remain a number and a name for each entry, and directories are written last.
//!
//! ```text
//! block 0     the superblock, at 1024; written last, so an image without one is none
//! block 1     the inode of `/`, with room for its attributes
//! behind it   contents of files in whole blocks, and between them windows of blocks with inodes, each of them
//!             followed by its attributes and by the end of its contents that fills no block
//! ```
//!
//! The format: Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h of Linux. Used of it is what every kernel reads
//! that mounts an image from its file (Linux 6.12): extended inodes, flat and chunked contents, attributes beside their
//! inode, and the checksum of the superblock. Not written are compression and shared attributes.

mod directory;
mod inode;
mod space;
mod superblock;
mod writer;

use std::borrow::Cow;
use std::fs::File;

use rustix::io::Errno;

use super::unpack::xattrs;

pub use inode::Look;
pub use superblock::{is_whole, name};
pub use writer::{Body, Contents, Kind, Listed, Placed, Refused, Shape, Writer};

/// Where the superblock, which has a checksum, is passed.
pub const BEHIND_SUPERBLOCK: u64 = BLOCK;

/// Of a block, the unit of contents.
const BLOCK: u64 = 4096;
/// An inode's number says where it is, in units of so many bytes.
const SLOT: u64 = 32;

/// The attributes of the directory of [`write_sample`], of every kind that a layer has: some kernels are built without one
/// or the other, and say nothing of what they pass over.
pub const SAMPLE: [(&str, &[u8]); 4] = [
    xattrs::OPAQUE,
    ("user.sample", b"value"),
    // cap_net_raw=ep, as ping(8) has it.
    ("security.capability", &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    // u::rwx,u:1:r-x,g::---,m::r-x,o::---
    (
        "system.posix_acl_access",
        &[
            2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 5, 0, 1, 0, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255, 16, 0,
            5, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
        ],
    ),
];

/// Writes an image of one directory, for whoever wants to know whether it can be mounted.
pub fn write_sample(file: File) -> Result<(), Errno> {
    let attributes = SAMPLE.iter().map(|(key, value)| (key.as_bytes(), Cow::Borrowed(*value))).collect();
    let look = Look { mode: 0o750, uid: 0, gid: 0, modified: (0, 0), attributes };
    let mut writer = Writer::new(file);
    let names = || [&b"."[..], b".."].into_iter();
    let placed = writer.place(&look, names(), true).map_err(Refused::errno)?;
    let listed = names().map(|name| Listed { name, number: placed.number(), kind: Kind::Directory }).map(Ok);
    writer.directory(placed, &look, listed).map_err(Refused::errno)?;
    writer.seal([0; 16])
}
