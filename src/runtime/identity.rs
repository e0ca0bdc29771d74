//! As whom a process runs: names from the container's own files become numbers, and the process becomes them.
//!
//! The files belong to the image, so they are read inside its root, only as regular files and up to a limit. The
//! host's name service plays no part.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat, fchown, fstat, open};
use rustix::io::Errno;
use rustix::thread::{Gid, Uid, set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::error::{Context, RuntimeError};
use super::program::User;
use crate::model::launch::Identity;

/// A larger /etc/passwd than this is not read.
const LARGEST_FILE: u64 = 4 << 20;

/// A user in numbers, and what the user's entry says beside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: Option<String>,
}

/// Looks `user` up in `/etc/passwd` and `/etc/group` of the root that this process is in.
pub(super) fn look_up(user: &User) -> Result<Numbers, RuntimeError> {
    let passwd = read("/etc/passwd");
    match user {
        User::Numbers { uid, gid, groups } => {
            let home = entries(&passwd).find(|entry| entry.number() == Some(*uid)).map(|entry| entry.field(5));
            Ok(Numbers { uid: *uid, gid: *gid, groups: groups.clone(), home })
        }
        User::Names(identity) => find(identity, &passwd, &read("/etc/group")),
    }
}

/// Becomes that user and those groups. Permitted capabilities are kept for the caller to set.
pub(super) fn become_user(numbers: &Numbers) -> Result<(), RuntimeError> {
    let step = "become user and group";
    let subject = || format!("{}:{}", numbers.uid, numbers.gid);
    let groups: Vec<Gid> = numbers.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(numbers.uid), Gid::from_raw(numbers.gid));
    set_keep_capabilities(true).during(step, subject())?;
    set_thread_groups(&groups).during(step, subject())?;
    set_thread_res_gid(gid, gid, gid).during(step, subject())?;
    set_thread_res_uid(uid, uid, uid).during(step, subject())?;
    set_keep_capabilities(false).during(step, subject())
}

/// Gives a pipe or a socket that becomes a standard descriptor to the user who is to write there: /dev/stdout opens it
/// anew, as its owner only. Nothing else changes hands, least of all the host's null device.
pub(super) fn give_channel_to(descriptor: BorrowedFd<'_>, uid: u32) -> Result<(), RuntimeError> {
    let step = "give away";
    let found = fstat(descriptor).during(step, "the standard descriptors")?;
    if found.st_uid == uid || !is_channel(&found) {
        return Ok(());
    }
    match fchown(descriptor, Some(Uid::from_raw(uid)), None) {
        // It belongs to somebody who is not mapped here, or lies where nothing changes hands.
        Err(Errno::PERM | Errno::INVAL | Errno::ROFS) => Ok(()),
        other => other.during(step, "the standard descriptors"),
    }
}

/// Whether it is a pipe or a socket.
pub(super) fn is_channel(found: &Stat) -> bool {
    matches!(FileType::from_raw_mode(found.st_mode), FileType::Fifo | FileType::Socket)
}

/// A missing file is an empty one: images of a single binary have none.
fn read(path: &str) -> String {
    // O_NONBLOCK: an image may have put a pipe there.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(file) = open(path, flags, Mode::empty()) else { return String::new() };
    read_accounts(file).ok().flatten().unwrap_or_default()
}

/// A passwd(5) or group(5) of an image, opened so that a pipe does not block. `None` where it is no regular file. What is
/// beyond `LARGEST_FILE` is not read: the image says how long the file is, and need not have a byte of it.
pub fn read_accounts(file: OwnedFd) -> io::Result<Option<String>> {
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    File::from(file).take(LARGEST_FILE).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Looks the identity up in the texts of a passwd(5) and a group(5).
pub fn find(identity: &Identity, passwd: &str, group: &str) -> Result<Numbers, RuntimeError> {
    let (user, wanted_group) = match identity.user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (identity.user.as_str(), None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let entry = lookup(passwd, user);
    let uid = entry
        .as_ref()
        .and_then(Entry::number)
        .or_else(|| number(user))
        .ok_or_else(|| RuntimeError::UserNotFound { name: user.to_owned() })?;
    let gid = match wanted_group {
        Some(name) if !name.is_empty() => group_number(group, name)?,
        _ => entry.as_ref().and_then(|entry| number(&entry.field(3))).unwrap_or(0),
    };
    // A program with the set-group-ID bit loses the primary group. If that is not among the others, files that deny the
    // group more than everybody would be open to it (CVE-2022-36109).
    let mut groups = vec![gid];
    // As login does, unless a group is named (docker run --user).
    if let (Some(entry), None) = (&entry, wanted_group) {
        groups.extend(memberships(group, &entry.field(0)));
    }
    for name in &identity.groups {
        groups.push(group_number(group, name)?);
    }
    groups.sort_unstable();
    groups.dedup();
    Ok(Numbers { uid, gid, groups, home: entry.map(|entry| entry.field(5)) })
}

fn group_number(group: &str, name: &str) -> Result<u32, RuntimeError> {
    lookup(group, name)
        .and_then(|entry| entry.number())
        .or_else(|| number(name))
        .ok_or_else(|| RuntimeError::UserNotFound { name: name.to_owned() })
}

/// The groups that list `user` as a member (group(5)).
fn memberships(group: &str, user: &str) -> Vec<u32> {
    entries(group)
        .filter(|entry| entry.field(3).split(',').any(|member| member == user))
        .filter_map(|entry| entry.number())
        .collect()
}

/// An entry by name, or else by number.
fn lookup<'a>(file: &'a str, name: &str) -> Option<Entry<'a>> {
    let number = name.parse::<u32>().ok();
    entries(file)
        .find(|entry| entry.field(0) == name)
        .or_else(|| number.and_then(|number| entries(file).find(|entry| entry.number() == Some(number))))
}

/// A line of passwd(5) or group(5): fields between colons, the name first, the number third.
struct Entry<'a>(&'a str);

impl Entry<'_> {
    fn field(&self, at: usize) -> String {
        self.0.split(':').nth(at).unwrap_or_default().to_owned()
    }

    fn number(&self) -> Option<u32> {
        number(&self.field(2))
    }
}

/// The largest number is nobody's: -1 to the kernel, which takes it for "as it is" (setresuid(2), chown(2)), and who is
/// to become that user stays root.
pub(super) fn is_somebody(number: u32) -> bool {
    number != u32::MAX
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| is_somebody(*number))
}

fn entries(file: &str) -> impl Iterator<Item = Entry<'_>> {
    file.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(Entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_accounts_is_read_as_far_as_one_can_be_long() {
        let file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut &file, b"app:x:7:7::/:\n\xff\n").unwrap();
        std::io::Seek::rewind(&mut &file).unwrap();
        // As an image may have it: larger than the memory of any host.
        file.set_len(1 << 40).unwrap();
        let text = read_accounts(file.into()).unwrap().unwrap();
        assert_eq!(text.lines().next(), Some("app:x:7:7::/:"));
        assert!(text.len() as u64 <= LARGEST_FILE + 2);
        assert_eq!(read_accounts(File::open("/dev/zero").unwrap().into()).unwrap(), None);
    }

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nweb:x:33:44::/var/www:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nvideo:x:27:web,other\nadm:x:4:web\nstaff:x:50:\n";

    fn found(user: &str, groups: &[&str]) -> Result<Numbers, RuntimeError> {
        let identity =
            Identity { user: user.to_owned(), groups: groups.iter().map(|group| (*group).to_owned()).collect() };
        find(&identity, PASSWD, GROUP)
    }

    #[test]
    fn users_are_found_as_docker_finds_them() {
        let cases: [(&str, u32, u32, &[u32]); 8] = [
            ("", 0, 0, &[0]),
            ("root", 0, 0, &[0]),
            ("web", 33, 44, &[4, 27, 44]),
            ("33", 33, 44, &[4, 27, 44]),
            ("web:staff", 33, 50, &[50]),
            ("web:7", 33, 7, &[7]),
            ("1234", 1234, 0, &[0]),
            ("1234:adm", 1234, 4, &[4]),
        ];
        for (user, uid, gid, groups) in cases {
            let numbers = found(user, &[]).unwrap();
            assert_eq!((numbers.uid, numbers.gid, numbers.groups.as_slice()), (uid, gid, groups), "{user}");
        }
    }

    #[test]
    fn further_groups_are_added() {
        assert_eq!(found("web:staff", &["video", "99"]).unwrap().groups, [27, 50, 99]);
    }

    #[test]
    fn who_does_not_exist_is_named() {
        for (user, groups, missing) in [("nobody", &[][..], "nobody"), ("web:x", &[], "x"), ("web", &["y"], "y")] {
            match found(user, groups) {
                Err(RuntimeError::UserNotFound { name }) => assert_eq!(name, missing),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn nobody_has_the_number_that_leaves_things_as_they_are() {
        let passwd = "evil:x:4294967295:0::/:/bin/sh\nlast:x:4294967294:0::/:/bin/sh\n";
        let numbers = |user: &str, groups: &[&str]| {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            find(&Identity { user: user.to_owned(), groups }, passwd, "evil:x:4294967295:\n")
        };
        for (user, groups) in
            [("4294967295", &[][..]), ("evil", &[]), ("0:4294967295", &[]), ("0:evil", &[]), ("0", &["4294967295"])]
        {
            assert!(matches!(numbers(user, groups), Err(RuntimeError::UserNotFound { .. })), "{user} {groups:?}");
        }
        assert_eq!(numbers("last", &[]).unwrap().uid, 4_294_967_294);
    }

    #[test]
    fn the_home_directory_comes_along() {
        assert_eq!(found("web", &[]).unwrap().home.as_deref(), Some("/var/www"));
        assert_eq!(found("1234", &[]).unwrap().home, None);
    }
}
