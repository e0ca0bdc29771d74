//! Kernel parameters of a container's own namespaces (`linux.sysctl`).
//!
//! A parameter that no namespace of the container's own holds would change the host, so it is refused. They are
//! written through a private instance of procfs that nothing in an image can mount over or link to (CVE-2025-52881).

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::error::{Context, RuntimeError, invalid};

/// A parameter and its value; the path is below /proc/sys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sysctl {
    pub path: String,
    pub value: String,
    /// The kind of namespace that holds it, `CLONE_NEW*`.
    pub namespace: i32,
}

/// System V limits of the IPC namespace (ipc_namespaces(7)).
const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// Checks `wanted` against the container's own namespaces, `CLONE_NEW*` bits.
pub(super) fn prepare(wanted: Option<&HashMap<String, String>>, own: u64) -> Result<Vec<Sysctl>, RuntimeError> {
    let mut sysctls = Vec::new();
    for (name, value) in wanted.into_iter().flatten() {
        let field = || format!("linux.sysctl.{name}");
        let path = path(name);
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(invalid(field(), "this is not the name of a parameter"));
        }
        let Some((bit, kind)) = namespace(&path) else {
            return Err(invalid(field(), "it is not separate for each container and would change the host"));
        };
        if own & bit as u64 == 0 {
            return Err(invalid(field(), format!("it needs {kind} namespace of the container's own")));
        }
        sysctls.push(Sysctl { path, value: value.clone(), namespace: bit });
    }
    sysctls.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sysctls)
}

/// `net.ipv4.conf.eth0/1.forwarding` and `net/ipv4/conf/eth0.1/forwarding` are the same (sysctl(8)): the first
/// separator decides what separates.
fn path(name: &str) -> String {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'.' => name.chars().map(swap).collect(),
        _ => name.to_owned(),
    }
}

fn namespace(path: &str) -> Option<(i32, &'static str)> {
    if path.starts_with("net/") {
        Some((libc::CLONE_NEWNET, "a network"))
    } else if path.starts_with("fs/mqueue/") || IPC.contains(&path) {
        Some((libc::CLONE_NEWIPC, "an IPC"))
    } else if path == "kernel/domainname" || path == "kernel/hostname" {
        Some((libc::CLONE_NEWUTS, "a UTS"))
    } else {
        None
    }
}

/// A procfs that is attached nowhere.
pub(super) fn way() -> Result<OwnedFd, RuntimeError> {
    let filesystem = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).during("open", "procfs")?;
    fsconfig_create(filesystem.as_fd()).during("open", "procfs")?;
    fsmount(filesystem.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).during("open", "procfs")
}

/// Writes those parameters that `is_due` picks, from inside the namespaces that hold them. Without a `way` that was made
/// before, it is made here.
pub(super) fn apply(
    sysctls: &[Sysctl],
    way: Option<&OwnedFd>,
    is_due: impl Fn(&Sysctl) -> bool,
) -> Result<(), RuntimeError> {
    let due: Vec<&Sysctl> = sysctls.iter().filter(|sysctl| is_due(sysctl)).collect();
    if due.is_empty() {
        return Ok(());
    }
    let made = if way.is_none() { Some(self::way()?) } else { None };
    let Some(proc) = way.or(made.as_ref()) else { return Ok(()) };
    for Sysctl { path, value, .. } in due {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = crate::sys::path::openat2(proc, format!("sys/{path}"), flags, Mode::empty(), how)
            .during("open the kernel parameter", path)?;
        rustix::io::write(&file, value.as_bytes()).during("set the kernel parameter", path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(name: &str, own: i32) -> Result<Vec<Sysctl>, RuntimeError> {
        prepare(Some(&HashMap::from([(name.to_owned(), "1".to_owned())])), own as u64)
    }

    #[test]
    fn names_are_written_with_dots_or_slashes() {
        assert_eq!(path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(path("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(path("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }

    #[test]
    fn what_would_change_the_host_is_refused() {
        for name in
            ["kernel.panic", "vm.swappiness", "net.ipv4.ip_forward", "net.ipv4/../../kernel/panic", "fs.file-max"]
        {
            assert!(prepared(name, libc::CLONE_NEWIPC).is_err(), "{name}");
        }
        assert!(prepared("net.ipv4.ip_forward", libc::CLONE_NEWNET).is_ok());
        assert!(prepared("kernel.shmmax", libc::CLONE_NEWIPC).is_ok());
        assert!(prepared("fs.mqueue.msg_max", libc::CLONE_NEWIPC).is_ok());
    }
}
