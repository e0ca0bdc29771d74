//! User namespaces: making one with its mappings, joining one, and what belongs to whom in it.
//!
//! A namespace is made before the container's first process, by a process that does nothing else and is gone again;
//! the descriptor keeps it. So one that is new and one that is joined by its path are the same from there on, the
//! namespaces of idmapped mounts too (mount_setattr(2)), and mappings are written by this process, whose user may
//! write any (user_namespaces(7)): no newuidmap(1) is needed, and setgroups(2) stays allowed.

use std::convert::Infallible;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIdMapping;
use rustix::fs::{Mode, OFlags, fstat, open, stat};
use rustix::process::Pid;
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::error::{Context, RuntimeError, invalid};
use super::handshake::{self, Channel, Word};
use super::launch::{Child, become_child};
use crate::sys::clone::{Copy, clone3};
use crate::sys::namespace::setns;

/// As many lines as the kernel takes (user_namespaces(7)).
const MOST_LINES: usize = 340;

/// `size` ids from `inside` on stand for those from `outside` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    inside: u32,
    outside: u32,
    size: u32,
}

/// Users and groups of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Mapping {
    users: Vec<Range>,
    groups: Vec<Range>,
}

/// Where a container's user namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    New(Mapping),
    /// With the mapping that the configuration claims, if it does.
    Joined(PathBuf, Option<Mapping>),
}

/// A user namespace that exists.
pub(super) struct UserNamespace {
    pub fd: OwnedFd,
    pub mapping: Mapping,
}

impl Mapping {
    /// Reads `uidMappings` and `gidMappings` of what stands at `field`. `None` when both are left out.
    pub(super) fn parse(
        field: &str,
        users: &Option<Vec<LinuxIdMapping>>,
        groups: &Option<Vec<LinuxIdMapping>>,
    ) -> Result<Option<Mapping>, RuntimeError> {
        let users = ranges(&format!("{field}.uidMappings"), users)?;
        let groups = ranges(&format!("{field}.gidMappings"), groups)?;
        match (users.is_empty(), groups.is_empty()) {
            (true, true) => Ok(None),
            (false, false) => Ok(Some(Mapping { users, groups })),
            (true, false) => Err(invalid(format!("{field}.uidMappings"), "`gidMappings` needs it beside itself")),
            (false, true) => Err(invalid(format!("{field}.gidMappings"), "`uidMappings` needs it beside itself")),
        }
    }

    /// The host's user for one of the namespace.
    pub(super) fn user(&self, inside: u32) -> Option<Uid> {
        outside(&self.users, inside).map(Uid::from_raw)
    }

    /// The host's group for one of the namespace.
    pub(super) fn group(&self, inside: u32) -> Option<Gid> {
        outside(&self.groups, inside).map(Gid::from_raw)
    }

    /// The mapping of a process's namespace, as this process sees it.
    pub(super) fn of(pid: Pid) -> Result<Mapping, RuntimeError> {
        let read = |name: &str| {
            let path = format!("/proc/{}/{name}", pid.as_raw_nonzero());
            fs::read_to_string(&path).during("read", &path).map(|text| lines(&text))
        };
        Ok(Mapping { users: read("uid_map")?, groups: read("gid_map")? })
    }

    fn is_same(&self, other: &Mapping) -> bool {
        let sorted = |ranges: &[Range]| {
            let mut all: Vec<_> = ranges.iter().map(|range| (range.inside, range.outside, range.size)).collect();
            all.sort_unstable();
            all
        };
        sorted(&self.users) == sorted(&other.users) && sorted(&self.groups) == sorted(&other.groups)
    }
}

fn ranges(field: &str, list: &Option<Vec<LinuxIdMapping>>) -> Result<Vec<Range>, RuntimeError> {
    let mut ranges: Vec<Range> = Vec::new();
    for mapping in list.iter().flatten() {
        let range = Range { inside: mapping.container_id(), outside: mapping.host_id(), size: mapping.size() };
        let fits = |first: u32| first.checked_add(range.size.saturating_sub(1)).is_some_and(|last| last != u32::MAX);
        if range.size == 0 || !fits(range.inside) || !fits(range.outside) {
            return Err(invalid(field, "a range must have a size, and end below 4294967295"));
        }
        let meets = |a: u32, b: u32, size: u32| a < b.saturating_add(size) && b < a.saturating_add(range.size);
        if ranges.iter().any(|other| {
            meets(range.inside, other.inside, other.size) || meets(range.outside, other.outside, other.size)
        }) {
            return Err(invalid(field, "two ranges overlap"));
        }
        ranges.push(range);
    }
    match ranges.len() > MOST_LINES {
        true => Err(invalid(field, format!("the kernel takes {MOST_LINES} ranges at most"))),
        false => Ok(ranges),
    }
}

fn outside(ranges: &[Range], inside: u32) -> Option<u32> {
    let found = ranges.iter().find(|range| inside >= range.inside && inside - range.inside < range.size)?;
    Some(found.outside + (inside - found.inside))
}

/// `/proc/PID/uid_map`: inside, outside and size in every line.
fn lines(text: &str) -> Vec<Range> {
    let numbers = |line: &str| {
        let mut words = line.split_whitespace().map(str::parse);
        let mut next = || words.next()?.ok();
        Some(Range { inside: next()?, outside: next()?, size: next()? })
    };
    text.lines().filter_map(numbers).collect()
}

fn text(ranges: &[Range]) -> String {
    ranges.iter().map(|range| format!("{} {} {}\n", range.inside, range.outside, range.size)).collect()
}

/// Makes the namespace, or opens it.
pub(super) fn ensure(origin: &Origin) -> Result<UserNamespace, RuntimeError> {
    let namespace = match origin {
        Origin::New(mapping) => make(mapping)?,
        Origin::Joined(path, claimed) => {
            let fd = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .during("open the namespace", path.display())?;
            let namespace = UserNamespace { mapping: mapping_of(&fd, path)?, fd };
            if claimed.as_ref().is_some_and(|claimed| !claimed.is_same(&namespace.mapping)) {
                let reason = format!("the user namespace `{}` has another mapping; leave it out", path.display());
                return Err(invalid("linux.uidMappings", reason));
            }
            namespace
        }
    };
    match namespace.mapping.user(0).is_some() && namespace.mapping.group(0).is_some() {
        true => Ok(namespace),
        false => Err(invalid("linux.uidMappings", "user 0 and group 0 of the container must be mapped")),
    }
}

/// Makes a namespace with this mapping.
pub(super) fn make(mapping: &Mapping) -> Result<UserNamespace, RuntimeError> {
    let holder = hold(libc::CLONE_NEWUSER as u64, |_| Ok(()))?;
    let write = |name: &str, ranges: &[Range]| {
        let path = format!("/proc/{}/{name}", holder.pid().as_raw_nonzero());
        fs::write(&path, text(ranges)).during("write the mapping", text(ranges).trim_end())
    };
    write("uid_map", &mapping.users)?;
    write("gid_map", &mapping.groups)?;
    let path = format!("/proc/{}/ns/user", holder.pid().as_raw_nonzero());
    let fd = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).during("open the namespace", &path)?;
    Ok(UserNamespace { fd, mapping: mapping.clone() })
}

/// A process in the namespace has the mapping in its /proc directory; nothing else shows it.
fn mapping_of(fd: &OwnedFd, path: &Path) -> Result<Mapping, RuntimeError> {
    let holder = hold(0, |channel| {
        setns(fd.as_fd(), libc::CLONE_NEWUSER).during("join the namespace", path.display())?;
        channel.created(None).during("report to", "the parent")
    })?;
    holder.created()?;
    Mapping::of(holder.pid())
}

/// A child that lives until it is dropped.
fn hold(flags: u64, first: impl FnOnce(&Channel) -> Result<(), RuntimeError>) -> Result<Child, RuntimeError> {
    let (ours, theirs) = handshake::pair()?;
    match clone3(flags, None).during("make", "a user namespace")? {
        Copy::Parent { pid, pidfd } => Ok(Child::new(pid, pidfd, ours)),
        Copy::Child(_) => {
            drop(ours);
            become_child(&theirs, || {
                first(&theirs)?;
                theirs.expect(Word::Start).during("wait for", "the parent")?;
                Err::<Infallible, _>(RuntimeError::Died)
            })
        }
    }
}

/// Joins the namespace as its root: user and group 0, no further groups, every capability over what is mapped there.
pub(super) fn enter(namespace: &OwnedFd) -> Result<(), RuntimeError> {
    setns(namespace.as_fd(), libc::CLONE_NEWUSER).during("join", "the user namespace")?;
    become_root()
}

/// What joining leaves open: this process is still the host's user, whom nothing may stand for inside.
pub(super) fn become_root() -> Result<(), RuntimeError> {
    let step = "become root of";
    let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
    set_thread_res_gid(group, group, group).during(step, "the user namespace")?;
    set_thread_res_uid(user, user, user).during(step, "the user namespace")?;
    set_thread_groups(&[]).during(step, "the user namespace")
}

/// Whether a process lives in another namespace of this kind (`user`, `time`) than this one does.
pub(super) fn is_other(pid: Pid, kind: &str) -> Result<bool, RuntimeError> {
    let theirs = format!("/proc/{}/ns/{kind}", pid.as_raw_nonzero());
    let ours = format!("/proc/self/ns/{kind}");
    let number = |path: &String| {
        let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        file.and_then(fstat).map(|found| found.st_ino).during("open the namespace", path)
    };
    match stat(&ours) {
        // A kernel without namespaces of this kind.
        Err(rustix::io::Errno::NOENT) => Ok(false),
        _ => Ok(number(&theirs)? != number(&ours)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(users: &str, groups: &str) -> Result<Option<Mapping>, RuntimeError> {
        let list = |text: &str| (!text.is_empty()).then(|| serde_json::from_str(text).unwrap());
        Mapping::parse("linux", &list(users), &list(groups))
    }

    const ROOT: &str = r#"[{"containerID": 0, "hostID": 100000, "size": 65536}]"#;

    #[test]
    fn ids_are_translated() {
        let two =
            r#"[{"containerID": 0, "hostID": 5000, "size": 1}, {"containerID": 1, "hostID": 100000, "size": 10}]"#;
        let mapping = parsed(two, ROOT).unwrap().unwrap();
        let user = |inside| mapping.user(inside).map(Uid::as_raw);
        assert_eq!([user(0), user(1), user(10), user(11)], [Some(5000), Some(100_000), Some(100_009), None]);
        assert_eq!(mapping.group(33).map(Gid::as_raw), Some(100_033));
        assert_eq!(text(&mapping.users), "0 5000 1\n1 100000 10\n");
        assert_eq!(lines("         0       5000          1\n         1     100000         10\n"), mapping.users);
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused_by_its_field() {
        assert_eq!(parsed("", "").unwrap(), None);
        let cases = [
            (ROOT, ""),
            ("", ROOT),
            (r#"[{"containerID": 0, "hostID": 1, "size": 0}]"#, ROOT),
            (r#"[{"containerID": 1, "hostID": 4294967295, "size": 1}]"#, ROOT),
            (r#"[{"containerID": 0, "hostID": 1, "size": 5}, {"containerID": 4, "hostID": 100, "size": 5}]"#, ROOT),
            (r#"[{"containerID": 0, "hostID": 1, "size": 5}, {"containerID": 10, "hostID": 5, "size": 5}]"#, ROOT),
        ];
        for (users, groups) in cases {
            assert!(matches!(parsed(users, groups), Err(RuntimeError::Invalid { .. })), "{users} {groups}");
        }
    }
}
