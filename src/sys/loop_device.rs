//! loop(4): a file as a block device, for what mounts from devices only.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

// linux/loop.h.
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// Others take free devices as well.
const ATTEMPTS: usize = 64;

/// `struct loop_config` with `struct loop_info64` in it.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    /// Device, inode, device of that, offset, limit.
    places: [u64; 5],
    /// Number, kind and size of a key.
    numbers: [u32; 3],
    flags: u32,
    names: [u8; 160],
    rest: [u64; 10],
}

/// Makes a read-only device of a file (Linux 5.8). It goes away with its last user: the descriptor, or what is mounted
/// from it.
pub fn attach(file: BorrowedFd<'_>) -> io::Result<(File, PathBuf)> {
    let control = File::options().read(true).write(true).open("/dev/loop-control")?;
    let mut failure = io::ErrorKind::ResourceBusy.into();
    for _ in 0..ATTEMPTS {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument; the descriptor is open.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = File::open(&path)?;
        let config = Config {
            fd: file.as_raw_fd() as u32,
            block_size: 0,
            places: [0; 5],
            numbers: [0; 3],
            flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
            names: [0; 160],
            rest: [0; 10],
        };
        // SAFETY: LOOP_CONFIGURE reads one loop_config, which `config` has the layout of; both descriptors are open.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) } == 0 {
            return Ok((device, path));
        }
        failure = io::Error::last_os_error();
        if failure.raw_os_error() != Some(libc::EBUSY) {
            break;
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_is_as_the_kernel_has_it() {
        assert_eq!((size_of::<Config>(), std::mem::offset_of!(Config, flags)), (304, 60));
    }
}
