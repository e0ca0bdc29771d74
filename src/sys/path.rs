//! openat2(2), tried again while the rest of the host renames and mounts.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// More than chance ever needs; whoever makes it fail so often does it on purpose.
const TRIES: usize = 256;

/// Opens `path` below `directory`. With `RESOLVE_IN_ROOT` or `RESOLVE_BENEATH` the kernel gives up with EAGAIN where a
/// `..` meets a rename or a mount anywhere on the host: it cannot tell that from an escape, and trying again is the
/// caller's part (openat2(2), ERRORS).
pub fn openat2(
    directory: impl AsFd,
    path: impl Arg,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let path = path.into_c_str()?;
    for _ in 1..TRIES {
        match rustix::fs::openat2(&directory, &*path, flags, mode, resolve) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    rustix::fs::openat2(&directory, &*path, flags, mode, resolve)
}
