//! The two locks of a store. Both are the kernel's: whoever dies lets go.
//!
//! * `busy` (flock(2)): shared by everyone who adds, exclusive for whoever removes.
//! * `claims` (open file description locks, fcntl(2)): one byte for each source and each layer that somebody makes. Two
//!   pulls of one image, or of two with a common base, so wait for each other and share the work. Bytes are claimed in
//!   ascending order, all at once, so that no two can wait for each other.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::engine::image::error::ImageError;
use crate::model::id::Digest;

/// Bytes of the claims file, held until this is dropped.
pub struct Claims {
    _file: File,
}

/// Opens a lock file, which is never removed: removing would let two holders lock different files.
pub fn open(path: &Path) -> Result<File, ImageError> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    opened.map_err(ImageError::file("open", path))
}

/// Waits until nobody else holds one of `subjects`, and then holds them all.
pub fn claim(path: &Path, subjects: impl IntoIterator<Item = Digest>) -> Result<Claims, ImageError> {
    let file = open(path)?;
    let mut offsets: Vec<i64> = subjects.into_iter().map(|subject| offset(&subject)).collect();
    offsets.sort_unstable();
    offsets.dedup();
    for offset in offsets {
        lock_byte(&file, offset).map_err(ImageError::file("lock", path))?;
    }
    Ok(Claims { _file: file })
}

/// 60 bits of the digest: equal offsets of different subjects would only cost a wait.
fn offset(subject: &Digest) -> i64 {
    // 15 hexadecimal digits always fit, and a digest is made of nothing else.
    i64::from_str_radix(&subject.hex()[..15], 16).unwrap_or(0)
}

fn lock_byte(file: &File, offset: i64) -> io::Result<()> {
    let byte = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: offset,
        l_len: 1,
        // Must be 0 for this kind of lock (fcntl(2), "Open file description locks").
        l_pid: 0,
    };
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLKW(&byte)) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop).map_err(io::Error::from),
        }
    }
}
