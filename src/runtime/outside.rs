//! What is opened while the process still has the host's tree and the host's user: sources of mounts, the root
//! filesystem, device nodes for those who may make none.
//!
//! A mount namespace of a user namespace's own shows the host's mounts locked together, and its root may neither map
//! owners nor make most filesystems (mount_namespaces(7), user_namespaces(7)). So everything of the host's that the
//! container gets is made into mounts that are attached nowhere, and only attached inside.

use std::os::fd::{AsFd, OwnedFd};

use super::cgroup::{Cgroup, Entrance};
use super::error::{Context, RuntimeError, unsupported};
use super::handshake::Channel;
use super::hooks;
use super::mounts::{self, Source};
use super::prepare::{MountPoint, Namespaces, Owners, Setup};
use super::user_namespace::{self, Mapping, UserNamespace};
use super::{devices, joined_proc, rootfs, sysctl};
use crate::sys::clone::OneThread;

/// The user namespaces that a container needs: its own, and those whose mappings its mounts have.
pub(super) struct Users {
    pub container: Option<UserNamespace>,
    /// The kinds of namespaces (`CLONE_NEW*`) that the container's root has power over.
    pub own: u64,
    maps: Vec<(Mapping, OwnedFd)>,
}

/// What was opened outside.
pub(super) struct Outside {
    pub root: OwnedFd,
    /// One for each of the mounts, in their order.
    pub sources: Vec<Source>,
    /// One for each of `devices::wanted`, where nodes cannot be made inside.
    pub nodes: Option<Vec<OwnedFd>>,
    pub entrance: Entrance,
    /// The way to kernel parameters, where the container's root cannot make one: who joins a pid namespace is not in it
    /// yet, and a procfs of the host's is not for a user namespace's root.
    pub parameters: Option<OwnedFd>,
    /// As [`Users::own`].
    pub own: u64,
}

impl Users {
    /// Makes or opens them.
    pub(super) fn ensure(setup: &Setup<'_>) -> Result<Users, RuntimeError> {
        let container = setup.namespaces.user.as_ref().map(user_namespace::ensure).transpose()?;
        let mut maps: Vec<(Mapping, OwnedFd)> = Vec::new();
        for mount in &setup.mounts {
            if let Some(Owners::Mapped(mapping)) = &mount.owners
                && !maps.iter().any(|(known, _)| known == mapping)
            {
                maps.push((mapping.clone(), user_namespace::make(mapping)?.fd));
            }
        }
        let own = match &container {
            Some(container) => owned_kinds(&setup.namespaces, &container.fd)?,
            None => u64::MAX,
        };
        let users = Users { container, own, maps };
        if setup.namespaces.join_pid.is_some() && !users.may_join_late() && hooks::run_in_creation(setup.spec) {
            let reason = "with users of its own and a pid namespace that is not theirs: the hook would be seen there, and \
                          the host's tree with it";
            return Err(unsupported("hooks.createContainer", reason));
        }
        Ok(users)
    }

    /// Whether the container's root, whoever that is, has the power to join the pid namespace.
    pub(super) fn may_join_late(&self) -> bool {
        self.own & libc::CLONE_NEWPID as u64 != 0
    }

    /// What must stay open in the child.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = &OwnedFd> {
        self.container.iter().map(|container| &container.fd).chain(self.maps.iter().map(|(_, fd)| fd))
    }

    /// The namespace through which a mount shows its owners.
    fn of(&self, mount: &MountPoint) -> Option<&OwnedFd> {
        match mount.owners.as_ref()? {
            Owners::OfContainer => self.container.as_ref().map(|container| &container.fd),
            Owners::Mapped(mapping) => self.maps.iter().find(|(known, _)| known == mapping).map(|(_, fd)| fd),
        }
    }
}

/// New namespaces belong to the user namespace that they are made in; one that is joined may belong to any.
fn owned_kinds(namespaces: &Namespaces, users: &OwnedFd) -> Result<u64, RuntimeError> {
    let number = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|found| found.st_ino).during("look at", "a user namespace");
    let mut own = namespaces.fresh;
    let processes = namespaces.join_pid.iter().map(|(namespace, _)| (libc::CLONE_NEWPID, namespace));
    for (kind, namespace) in namespaces.join.iter().map(|(kind, namespace, _)| (*kind, namespace)).chain(processes) {
        // An owner above this process's own user namespace is not told, and is not the container's.
        if let Ok(owner) = crate::sys::namespace::owner(namespace.as_fd())
            && number(&owner)? == number(users)?
        {
            own |= kind as u64;
        }
    }
    Ok(own)
}

/// Opens and makes it all. This process needs a mount namespace of its own, and cuts it off from the host's.
pub(super) fn open(
    setup: &Setup<'_>,
    users: &Users,
    cgroup: Option<&Cgroup>,
    (channel, one_thread): (&Channel, &OneThread),
) -> Result<Outside, RuntimeError> {
    let entrance = Entrance::open(cgroup)?;
    let directories = cgroup.map(Cgroup::directories).unwrap_or_default();
    // A source has the propagation that `rslave` and `rshared` need only while the host's tree is not cut off.
    let mut sources = Vec::with_capacity(setup.mounts.len());
    for (at, mount) in setup.mounts.iter().enumerate() {
        let owners = users.of(mount);
        sources.push(match mounts::inside(mount, setup.root, &setup.mounts[..at]) {
            Some(path) => {
                let owners = owners.map(OwnedFd::try_clone).transpose();
                Source::Inside(path, owners.during("duplicate", "a descriptor")?)
            }
            None => mounts::open_source(mount, owners, &directories)?,
        });
    }
    rootfs::detach_from_host()?;
    for (mount, source) in setup.mounts.iter().zip(&mut sources) {
        if let (Source::Fresh, "proc", Some((namespace, path))) =
            (&*source, mount.kind.as_str(), &setup.namespaces.join_pid)
        {
            *source = Source::Begun(joined_proc::begin((namespace, path), channel, one_thread)?);
        }
        if matches!(source, Source::Fresh) && !is_made_inside(users.own, &mount.kind) {
            *source = Source::Made(mounts::make_filesystem(mount)?);
        }
    }
    let container = users.container.as_ref();
    let root = rootfs::assemble(setup.root, container.map(|container| container.fd.as_fd()))?;
    let nodes =
        container.map(|container| devices::make_outside(&devices::wanted(setup)?, setup.root, &container.mapping));
    let needs_way = container.is_some() && setup.namespaces.join_pid.is_some() && !setup.sysctls.is_empty();
    let parameters = needs_way.then(sysctl::way).transpose()?;
    Ok(Outside { root, sources, nodes: nodes.transpose()?, entrance, parameters, own: users.own })
}

/// Whether the container's own root may make such a filesystem: what shows a namespace needs power over that
/// namespace, and few others trust a user namespace's root at all.
fn is_made_inside(own: u64, kind: &str) -> bool {
    own == u64::MAX
        || match kind {
            "proc" | "tmpfs" | "devpts" | "cgroup" | "cgroup2" => true,
            "sysfs" => own & libc::CLONE_NEWNET as u64 != 0,
            "mqueue" => own & libc::CLONE_NEWIPC as u64 != 0,
            _ => false,
        }
}

/// The host's owner of what belongs to the container's root, for the pipes that this process hands on.
pub(super) fn give_away(descriptors: &[&OwnedFd], mapping: &Mapping) -> Result<(), RuntimeError> {
    for descriptor in descriptors {
        let found = rustix::fs::fstat(descriptor).during("look at", "the standard descriptors")?;
        if super::identity::is_channel(&found) {
            rustix::fs::fchown(descriptor, mapping.user(0), mapping.group(0))
                .during("give away", "the standard descriptors")?;
        }
    }
    Ok(())
}
