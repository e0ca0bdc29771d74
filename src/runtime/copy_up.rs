//! What an image has at the target of a tmpfs goes into the tmpfs (`tmpcopyup`, an option of runc's): the directory is
//! then writable and lost with the container, whatever the root filesystem is.
//!
//! Both sides are walked by descriptors and no link is followed. Owners, modes and kinds of files are kept; extended
//! attributes are not.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fchmod, fchown, fstat, mkdirat, mknodat, openat,
    readlinkat, statat, symlinkat,
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
        give(&to, &fstat(&from)?)?;
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
            copy_entries(&open_directory(from, name)?, &made)?;
            give(&made, &found)
        }
        FileType::RegularFile => {
            let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut source = File::from(openat(from, name, read, Mode::empty())?);
            let mut made = File::from(openat(to, name, write, Mode::RUSR | Mode::WUSR)?);
            io::copy(&mut source, &mut made)?;
            give(&made.into(), &found)
        }
        FileType::Symlink => {
            symlinkat(&*readlinkat(from, name, Vec::new())?, to, name)?;
            Ok(chownat(to, name, Some(user(&found)), Some(group(&found)), AtFlags::SYMLINK_NOFOLLOW)?)
        }
        _ => {
            mknodat(to, name, kind, Mode::from_raw_mode(found.st_mode), found.st_rdev)?;
            Ok(chownat(to, name, Some(user(&found)), Some(group(&found)), AtFlags::SYMLINK_NOFOLLOW)?)
        }
    }
}

/// The owner first: chown(2) takes set-user-ID bits away.
fn give(file: &OwnedFd, like: &Stat) -> io::Result<()> {
    fchown(file, Some(user(like)), Some(group(like)))?;
    Ok(fchmod(file, Mode::from_raw_mode(like.st_mode))?)
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

    #[test]
    fn files_directories_and_links_arrive_with_their_modes() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("d")).unwrap();
        fs::write(from.path().join("d/f"), "text").unwrap();
        fs::set_permissions(from.path().join("d/f"), fs::Permissions::from_mode(0o4751)).unwrap();
        symlink("/etc/passwd", from.path().join("l")).unwrap();
        fs::set_permissions(from.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        let open = |path| OwnedFd::from(File::open(path).unwrap());
        copy(open(from.path()).as_fd(), open(to.path()).as_fd(), OwnMode::Copied).unwrap();
        assert_eq!(fs::read_to_string(to.path().join("d/f")).unwrap(), "text");
        assert_eq!(fs::metadata(to.path().join("d/f")).unwrap().mode() & 0o7777, 0o4751);
        assert_eq!(fs::read_link(to.path().join("l")).unwrap().to_str(), Some("/etc/passwd"));
        assert_eq!(fs::metadata(to.path()).unwrap().mode() & 0o7777, 0o1777);
    }
}
