//! What an image has at the target of a tmpfs goes into the tmpfs (`tmpcopyup`, an option of runc's): the directory is
//! then writable and lost with the container, whatever the root filesystem is.
//!
//! Both sides are walked by descriptors and no link is followed. Owners, modes, kinds and times of files are kept, and
//! the extended attributes that a tmpfs can hold.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown,
    fgetxattr, flistxattr, fsetxattr, fstat, futimens, mkdirat, mknodat, openat, readlinkat, statat, symlinkat,
    utimensat,
};

/// Whether the copy's own directory gets the mode of the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnMode {
    Copied,
    Kept,
}

/// Copies what is in the directory `from` into the empty directory `to`.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, own_mode: OwnMode) -> io::Result<()> {
    let (from, to) = (open_directory(from, c".")?, open_directory(to, c".")?);
    copy_entries(&from, &to)?;
    if own_mode == OwnMode::Copied {
        give(&to, &from)?;
    }
    Ok(())
}

fn open_directory(at: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, name, flags, Mode::empty())?)
}

fn copy_entries(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(from, to, name)?;
        }
    }
    Ok(())
}

fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> io::Result<()> {
    let found = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(found.st_mode);
    match kind {
        FileType::Directory => {
            mkdirat(to, name, Mode::RWXU)?;
            let made = open_directory(to, name)?;
            let original = open_directory(from, name)?;
            copy_entries(&original, &made)?;
            give(&made, &original)
        }
        FileType::RegularFile => {
            let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut source = File::from(openat(from, name, read, Mode::empty())?);
            let mut made = File::from(openat(to, name, write, Mode::RUSR | Mode::WUSR)?);
            io::copy(&mut source, &mut made)?;
            give(&made.into(), &source.into())
        }
        FileType::Symlink => {
            symlinkat(&*readlinkat(from, name, Vec::new())?, to, name)?;
            give_by_name(to, name, &found)
        }
        _ => {
            mknodat(to, name, kind, Mode::from_raw_mode(found.st_mode), found.st_rdev)?;
            give_by_name(to, name, &found)
        }
    }
}

/// The owner first: chown(2) takes set-user-ID bits and file capabilities away. The times last.
fn give(file: &OwnedFd, original: &OwnedFd) -> io::Result<()> {
    let like = fstat(original)?;
    fchown(file, Some(user(&like)), Some(group(&like)))?;
    fchmod(file, Mode::from_raw_mode(like.st_mode))?;
    give_attributes(file, original)?;
    Ok(futimens(file, &times(&like))?)
}

fn give_by_name(to: &OwnedFd, name: &CStr, like: &Stat) -> io::Result<()> {
    chownat(to, name, Some(user(like)), Some(group(like)), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(utimensat(to, name, &times(like), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// xattr(7): a name or a value has 64 KiB at most.
const LONGEST_ATTRIBUTE: usize = 64 * 1024;

fn give_attributes(file: &OwnedFd, original: &OwnedFd) -> io::Result<()> {
    let mut names = vec![0_u8; LONGEST_ATTRIBUTE];
    let length = match flistxattr(original, &mut names) {
        // A filesystem without any.
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
        other => other?,
    };
    names.truncate(length);
    let mut value = vec![0_u8; LONGEST_ATTRIBUTE];
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let length = fgetxattr(original, name, &mut value)?;
        match fsetxattr(file, name, &value[..length], XattrFlags::empty()) {
            // A tmpfs has none of the user's before Linux 6.6, and none of an overlay's own.
            Err(rustix::io::Errno::OPNOTSUPP) => {}
            other => other?,
        }
    }
    Ok(())
}

fn times(like: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    Timestamps {
        last_access: time(like.st_atime, like.st_atime_nsec as i64),
        last_modification: time(like.st_mtime, like.st_mtime_nsec as i64),
    }
}

fn user(found: &Stat) -> Uid {
    Uid::from_raw(found.st_uid)
}

fn group(found: &Stat) -> Gid {
    Gid::from_raw(found.st_gid)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    /// Root's: others have no trusted attributes.
    #[test]
    fn files_directories_and_links_arrive_with_all_that_they_have() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("d")).unwrap();
        fs::write(from.path().join("d/f"), "text").unwrap();
        fs::set_permissions(from.path().join("d/f"), fs::Permissions::from_mode(0o4751)).unwrap();
        let file = File::options().write(true).open(from.path().join("d/f")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(86_400)).unwrap();
        // Any that a tmpfs of every kernel has.
        fsetxattr(&file, c"trusted.colour", b"blue", XattrFlags::empty()).unwrap();
        fs::set_permissions(from.path().join("d/f"), fs::Permissions::from_mode(0o4751)).unwrap();
        symlink("/etc/passwd", from.path().join("l")).unwrap();
        fs::set_permissions(from.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        let open = |path| OwnedFd::from(File::open(path).unwrap());
        copy(open(from.path()).as_fd(), open(to.path()).as_fd(), OwnMode::Copied).unwrap();
        assert_eq!(fs::read_to_string(to.path().join("d/f")).unwrap(), "text");
        assert_eq!(fs::metadata(to.path().join("d/f")).unwrap().mode() & 0o7777, 0o4751);
        assert_eq!(fs::metadata(to.path().join("d/f")).unwrap().mtime(), 86_400);
        let mut colour = [0_u8; 8];
        let copy = File::open(to.path().join("d/f")).unwrap();
        let length = fgetxattr(&copy, c"trusted.colour", &mut colour[..]).unwrap();
        assert_eq!(&colour[..length], b"blue");
        assert_eq!(fs::read_link(to.path().join("l")).unwrap().to_str(), Some("/etc/passwd"));
        assert_eq!(fs::metadata(to.path()).unwrap().mode() & 0o7777, 0o1777);
    }
}
