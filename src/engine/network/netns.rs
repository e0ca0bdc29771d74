//! Pinned network namespaces: they outlive the processes inside.
//!
//! A namespace lives as long as something holds it; a bind mount of its file in nsfs does (namespaces(7)). So a
//! restart of a container keeps addresses, links and the connections of those who share the namespace, and costs no
//! network work at all.
//!
//! The crash leftovers are an empty file (the mount did not come to be) and a mount without links; both are repaired by
//! the next [`ensure`].
//!
//! # Decisions
//!
//! A mount is seen only in the mount namespace where it was made. A service with one of its own (systemd's
//! `PrivateTmp=`, `ProtectSystem=` and the like) would pin namespaces where no shell sees them, and lose them at its
//! next start, because systemd makes it a new mount namespace then. So the mount is made in the first process's mount
//! namespace, where that one shows the same run directory; systemd's propagation brings it into the service too. Where
//! it does not arrive, a second mount is made in our own.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use netlink_sys::protocols::NETLINK_ROUTE;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, fstatfs};
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::RouteNetlinkMessage;

use super::NetworkError;
use super::netlink::Netlink;
use super::sysctl;

/// NSFS_MAGIC of linux/magic.h.
const NSFS: FsType = FsType(0x6e73_6673);

/// Settings of a new namespace, for the links to come. A record names its addresses and routes: no router, no
/// redirect and no second's wait for duplicates has a say in them. (The host does send redirects: a connection to a
/// published port of a neighbour comes back to the bridge that it came from.)
///
/// Ports below 1024 are nobody's privilege in a namespace of one's own, and `ping` works without CAP_NET_RAW: Docker
/// gives containers both (moby, `oci_linux.go`), and images count on them.
const DEFAULTS: [(&str, &str); 8] = [
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv4/ping_group_range", "0 2147483647"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
    ("ipv6/conf/default/accept_redirects", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
];

/// A namespace is pinned at `path` and its loopback is up.
pub fn ensure(path: &Path) -> Result<(), NetworkError> {
    let failed = |verb, source| NetworkError::Namespace { verb, path: path.to_owned(), source };
    match open(path) {
        Ok(namespace) => {
            let raised = inside(&namespace, raise_loopback).and_then(|done| done);
            raised.map_err(|source| failed("set up", source))
        }
        Err(_) => create(path).map_err(|source| failed("create", source)),
    }
}

/// Nothing is pinned at `path`. Links inside go when the last process does.
pub fn remove(path: &Path) -> Result<(), NetworkError> {
    let removed = on_a_thread(|| {
        // The other way around than `create`: our own mount first, the first process's and the file then.
        unmount(path)?;
        enter_first_mount_namespace(path)?;
        unmount(path)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    });
    removed.map_err(|source| NetworkError::Namespace { verb: "remove", path: path.to_owned(), source })
}

/// The namespace that is pinned at `path`. An ordinary file there is `NotFound`: nothing is pinned.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let file = File::open(path)?;
    match fstatfs(&file)?.filesystem_type() {
        NSFS => Ok(file.into()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// What `work` says on a thread of its own inside `namespace`. The thread never comes back: it ends.
pub fn inside<T: Send>(namespace: &OwnedFd, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_a_thread(|| {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })
}

fn create(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    File::create(path)?;
    let namespace = on_a_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        for (key, value) in DEFAULTS {
            // A kernel without IPv6 lacks some of these and needs none.
            let _ = sysctl::write(key, value);
        }
        raise_loopback()?;
        let namespace = File::open("/proc/thread-self/ns/net")?;
        enter_first_mount_namespace(path)?;
        bind(&namespace, path)?;
        Ok(namespace)
    })?;
    match open(path) {
        Ok(_) => Ok(()),
        Err(_) => bind(&namespace, path),
    }
}

fn bind(namespace: &File, path: &Path) -> io::Result<()> {
    let source = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(namespace));
    Ok(mount(Some(source.as_str()), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

fn unmount(path: &Path) -> io::Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // There may be another one below.
            Ok(()) => {}
            // Not a mount point, or no file at all.
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes the calling thread into the mount namespace of process 1, if that is another one and `path` has the same
/// directory there; else it stays where it is.
fn enter_first_mount_namespace(path: &Path) -> io::Result<()> {
    let Ok(first) = File::open("/proc/1/ns/mnt") else { return Ok(()) };
    let own = File::open("/proc/thread-self/ns/mnt")?;
    let identity = |file: &File| file.metadata().map(|data| (data.dev(), data.ino()));
    if identity(&first)? == identity(&own)? {
        return Ok(());
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    let here = fs::metadata(directory).map(|data| (data.dev(), data.ino())).ok();
    // setns(2): a mount namespace cannot be entered by a thread that shares its root and working directory.
    unshare(CloneFlags::CLONE_FS)?;
    setns(first.as_fd(), CloneFlags::CLONE_NEWNS)?;
    let there = fs::metadata(directory).map(|data| (data.dev(), data.ino())).ok();
    if here.is_none() || here != there {
        setns(own.as_fd(), CloneFlags::CLONE_NEWNS)?;
    }
    Ok(())
}

/// Raises link 1, which is the loopback of every namespace.
fn raise_loopback() -> io::Result<()> {
    let mut netlink = Netlink::open(NETLINK_ROUTE)?;
    let mut batch = netlink.batch();
    batch.push(RouteNetlinkMessage::NewLink(LinkUnspec::new_with_index(1).up().build()), 0);
    netlink.send(batch)
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
