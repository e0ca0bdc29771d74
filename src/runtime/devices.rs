//! Device nodes and links below /dev (runtime-spec, config-linux.md, "Default Devices").
//!
//! They are made in the container's own tmpfs by the descriptor of that directory. Where /dev is a bind mount of the
//! host's it is left alone.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid, chownat, fstat, makedev, mknodat, statat, symlinkat};
use rustix::io::Errno;

use super::error::{Context, RuntimeError, invalid};
use super::paths::{self, Kind, Links};

/// Name, major and minor number (Linux, admin-guide/devices.txt): every container has these.
const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Makes the default devices and links in `root`'s /dev. The mask of file modes must be zero.
pub(super) fn make_default(root: BorrowedFd<'_>) -> Result<(), RuntimeError> {
    let dev = paths::ensure(root, Path::new("/dev"), Kind::Directory, Links::Refused).during("open", "/dev")?;
    for (name, major, minor) in DEFAULT {
        let mode = Mode::from_raw_mode(0o666);
        make_node(dev.as_fd(), name, (FileType::CharacterDevice, mode, makedev(major, minor)))
            .during("make the device", format!("/dev/{name}"))?;
    }
    for (name, target) in LINKS {
        match symlinkat(target, &dev, name) {
            Err(Errno::EXIST) => {}
            other => other.during("make the link", format!("/dev/{name}"))?,
        }
    }
    Ok(())
}

/// Makes one of `linux.devices`.
pub(super) fn make(root: BorrowedFd<'_>, device: &LinuxDevice) -> Result<(), RuntimeError> {
    let path = device.path();
    let refuse = |reason: &str| invalid("linux.devices", format!("`{}`: {reason}", path.display()));
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(refuse("it needs an absolute path"));
    };
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => return Err(refuse("its type must be `c`, `b`, `u` or `p`")),
    };
    let number = |value: i64| u32::try_from(value).map_err(|_| refuse("its number is out of range"));
    let numbers = makedev(number(device.major())?, number(device.minor())?);
    let mode = Mode::from_raw_mode(device.file_mode().unwrap_or(0o666) & 0o7777);
    let parent = paths::ensure(root, parent, Kind::Directory, Links::Inside).during("make", parent.display())?;
    let name = PathBuf::from(name);
    make_node(parent.as_fd(), &name, (kind, mode, numbers)).during("make the device", path.display())?;
    if device.uid().is_some() || device.gid().is_some() {
        let owner = (device.uid().map(Uid::from_raw), device.gid().map(Gid::from_raw));
        chownat(&parent, &name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).during("give away", path.display())?;
    }
    Ok(())
}

/// `Ok` when the very same device is there already.
fn make_node(
    directory: BorrowedFd<'_>,
    name: impl AsRef<Path>,
    (kind, mode, numbers): (FileType, Mode, u64),
) -> Result<(), Errno> {
    match mknodat(directory, name.as_ref(), kind, mode, numbers) {
        Err(Errno::EXIST) => {
            let found = statat(directory, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW)?;
            match FileType::from_raw_mode(found.st_mode) == kind && found.st_rdev == numbers {
                true => Ok(()),
                false => Err(Errno::EXIST),
            }
        }
        other => other,
    }
}

/// Whether `file` is the null device: a path of that name may be anything (CVE-2025-31133).
pub(super) fn is_null(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    let found = fstat(file)?;
    Ok(FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == makedev(1, 3))
}
