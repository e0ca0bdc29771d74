//! Device nodes and links below /dev (runtime-spec, config-linux.md, "Default Devices").
//!
//! They are made in the container's own tmpfs by the descriptor of that directory. Where /dev is a bind mount of the
//! host's it is left alone.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid, chownat, fstat, makedev, mknodat, statat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::error::{Context, RuntimeError, invalid};
use super::paths::{self, Kind, Links};
use super::prepare::Setup;
use super::rootfs;
use super::user_namespace::Mapping;
use crate::model::launch::RootFilesystem;

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

/// A device that a container is to have.
pub(super) struct Node {
    path: PathBuf,
    kind: FileType,
    mode: Mode,
    numbers: u64,
    /// In the container's own numbers.
    user: Option<u32>,
    group: Option<u32>,
}

/// The default devices, unless /dev comes from elsewhere, and `linux.devices`.
pub(super) fn wanted(setup: &Setup<'_>) -> Result<Vec<Node>, RuntimeError> {
    let default = DEFAULT.map(|(name, major, minor)| Node {
        path: Path::new("/dev").join(name),
        kind: FileType::CharacterDevice,
        mode: Mode::from_raw_mode(0o666),
        numbers: makedev(major, minor),
        user: None,
        group: None,
    });
    let mut nodes: Vec<Node> = if setup.binds_dev() { Vec::new() } else { default.into() };
    // A list of all that the host has names /dev/ptmx too, which belongs to the container's own devpts (see `LINKS`).
    let is_linked = |device: &&LinuxDevice| !setup.binds_dev() && device.path() == Path::new("/dev/ptmx");
    for device in setup.devices.iter().filter(|device| !is_linked(device)) {
        nodes.push(declared(device)?);
    }
    Ok(nodes)
}

fn declared(device: &LinuxDevice) -> Result<Node, RuntimeError> {
    let path = device.path();
    let refuse = |reason: &str| invalid("linux.devices", format!("`{}`: {reason}", path.display()));
    if !path.is_absolute() || path.file_name().is_none() {
        return Err(refuse("it needs an absolute path"));
    }
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => return Err(refuse("its type must be `c`, `b`, `u` or `p`")),
    };
    let number = |value: i64| u32::try_from(value).map_err(|_| refuse("its number is out of range"));
    Ok(Node {
        path: path.clone(),
        kind,
        mode: Mode::from_raw_mode(device.file_mode().unwrap_or(0o666) & 0o7777),
        numbers: makedev(number(device.major())?, number(device.minor())?),
        user: device.uid(),
        group: device.gid(),
    })
}

/// Makes nodes as the host's user, since no user namespace's root may (user_namespaces(7)), and returns a mount of each
/// that is attached nowhere. They are in a tmpfs that nobody else sees; the caller has a mount namespace of its own.
pub(super) fn make_outside(
    nodes: &[Node],
    root: &RootFilesystem,
    mapping: &Mapping,
) -> Result<Vec<OwnedFd>, RuntimeError> {
    let directory = rootfs::private_tmpfs(root)?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mut made = Vec::with_capacity(nodes.len());
    for (at, node) in nodes.iter().enumerate() {
        let (name, subject) = (at.to_string(), node.path.display());
        let (user, group) = (mapping.user(node.user.unwrap_or(0)), mapping.group(node.group.unwrap_or(0)));
        if user.is_none() || group.is_none() {
            return Err(invalid("linux.devices", format!("`{subject}`: its owner is not mapped")));
        }
        mknodat(&directory, &name, node.kind, node.mode, node.numbers).during("make the device", subject)?;
        chownat(&directory, &name, user, group, AtFlags::SYMLINK_NOFOLLOW).during("give away", node.path.display())?;
        made.push(open_tree(&directory, &name, clone).during("make the device", node.path.display())?);
    }
    Ok(made)
}

/// Puts the devices into `root`: those that were `made` outside, else new ones. The mask of file modes must be zero.
pub(super) fn place(root: BorrowedFd<'_>, nodes: &[Node], made: Option<&[OwnedFd]>) -> Result<(), RuntimeError> {
    match made {
        Some(made) => nodes.iter().zip(made).try_for_each(|(node, made)| {
            let target = paths::ensure(root, &node.path, Kind::File, Links::Inside)
                .during("make the device", node.path.display())?;
            rootfs::attach(made.as_fd(), target.as_fd(), &node.path)
        }),
        None => nodes.iter().try_for_each(|node| make(root, node)),
    }
}

fn make(root: BorrowedFd<'_>, node: &Node) -> Result<(), RuntimeError> {
    let subject = node.path.display();
    let (Some(parent), Some(name)) = (node.path.parent(), node.path.file_name()) else { return Ok(()) };
    let parent = paths::ensure(root, parent, Kind::Directory, Links::Inside).during("make", parent.display())?;
    make_node(parent.as_fd(), name, (node.kind, node.mode, node.numbers)).during("make the device", subject)?;
    if node.user.is_some() || node.group.is_some() {
        let (user, group) = (node.user.map(Uid::from_raw), node.group.map(Gid::from_raw));
        chownat(&parent, name, user, group, AtFlags::SYMLINK_NOFOLLOW).during("give away", node.path.display())?;
    }
    Ok(())
}

/// Makes the links that every /dev has, and refuses a link in its own place (see `mounts`).
pub(super) fn link(root: BorrowedFd<'_>) -> Result<(), RuntimeError> {
    let dev = paths::ensure(root, Path::new("/dev"), Kind::Directory, Links::Refused).during("open", "/dev")?;
    for (name, target) in LINKS {
        match symlinkat(target, &dev, name) {
            Err(Errno::EXIST) => {}
            other => other.during("make the link", format!("/dev/{name}"))?,
        }
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
