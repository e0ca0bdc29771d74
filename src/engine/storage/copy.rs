//! Copying a directory tree by descriptors, as it is: owners, modes, times, links, devices, extended attributes.
//!
//! Both sides are walked with `*at` calls that follow no symbolic link, so a hostile tree can point anywhere and
//! nothing outside either root is read or written (CVE-2018-15664, CVE-2019-14271 are what following does).

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self as rfs, AtFlags, FileType, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, XattrFlags};

/// How deep a tree may be; one descriptor on each side is open for every level.
const MAX_DEPTH: u32 = 256;

/// Copies what is in `from` into the existing directory `to`, and then `from`'s own owner, mode, times and attributes.
pub fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    copy_directory(from, to, 0)
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "directories are nested too deeply"));
    }
    for entry in rfs::Dir::read_from(from)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            copy_entry(from, to, entry.file_name(), depth)?;
        }
    }
    copy_root(from, to)
}

/// Copies owner, mode, times and attributes of a directory, and nothing that is in it.
pub fn copy_root(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    copy_metadata(from, to, &rfs::fstat(from)?)
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: u32) -> io::Result<()> {
    let stat = rfs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rfs::mkdirat(to, name, Mode::RWXU)?;
            let inside = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let (source, target) = (open(from, name, inside)?, open(to, name, inside)?);
            copy_directory(source.as_fd(), target.as_fd(), depth + 1)
        }
        FileType::RegularFile => {
            let source = open(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
            let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = open(to, name, new)?;
            let (source, target) = (File::from(source), File::from(target));
            copy_contents(&source, &target)?;
            copy_metadata(source.as_fd(), target.as_fd(), &stat)
        }
        FileType::Symlink => {
            rfs::symlinkat(rfs::readlinkat(from, name, Vec::new())?, to, name)?;
            own(to, name, &stat)
        }
        kind => {
            rfs::mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode), stat.st_rdev)?;
            own(to, name, &stat)?;
            // Not by its name: a link may have taken its place. fchmod(2) takes no descriptor of this kind, and opening
            // a device in any other way would be to use it.
            let made = rfs::openat(to, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            let path = format!("/proc/self/fd/{}", made.as_raw_fd());
            Ok(rfs::chmod(path, Mode::from_raw_mode(stat.st_mode))?)
        }
    }
}

/// Copies what is in a file into a new one. Holes stay holes: a file may say that it is larger than any disk.
pub fn copy_contents(mut from: &File, mut to: &File) -> io::Result<()> {
    let mut end = 0;
    loop {
        // lseek(2): ENXIO where no data follow. A filesystem that knows no holes says that all is data.
        let begin = match rfs::seek(from, SeekFrom::Data(end)) {
            Err(rustix::io::Errno::NXIO) => break,
            begin => begin?,
        };
        end = rfs::seek(from, SeekFrom::Hole(begin))?;
        rfs::seek(from, SeekFrom::Start(begin))?;
        rfs::seek(to, SeekFrom::Start(begin))?;
        if io::copy(&mut (&mut from).take(end - begin), &mut to)? == 0 {
            // It became shorter meanwhile.
            break;
        }
    }
    to.set_len(from.metadata()?.len())
}

fn open(directory: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rfs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?)
}

fn own(directory: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    Ok(rfs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Owner first: chown(2) clears set-user-ID bits and file capabilities. Times last: everything else touches them.
fn copy_metadata(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    rfs::fchown(to, Some(uid), Some(gid))?;
    rfs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    copy_attributes(from, to)?;
    let time = |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as i64 };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Ok(rfs::futimens(to, &times)?)
}

fn owner(stat: &Stat) -> (rfs::Uid, rfs::Gid) {
    (rfs::Uid::from_raw(stat.st_uid), rfs::Gid::from_raw(stat.st_gid))
}

/// Extended attributes, except overlayfs's own, which mean nothing outside a layer.
fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut names = vec![0u8; 64 << 10];
    let length = match rfs::flistxattr(from, names.as_mut_slice()) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut value = vec![0u8; 64 << 10];
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if name.to_bytes().starts_with(b"trusted.overlay.") {
            continue;
        }
        let length = rfs::fgetxattr(from, name, value.as_mut_slice())?;
        rfs::fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

    #[test]
    fn holes_stay_holes() {
        let root = tempfile::tempdir().unwrap();
        let at = |name| File::options().read(true).write(true).create_new(true).open(root.path().join(name)).unwrap();
        let (from, to) = (at("from"), at("to"));
        let places = [0, 1 << 20, 1 << 32];
        for place in places {
            from.write_all_at(b"data", place).unwrap();
        }
        from.set_len(1 << 40).unwrap();
        copy_contents(&from, &to).unwrap();
        assert_eq!(to.metadata().unwrap().len(), 1 << 40);
        assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20, "{}", to.metadata().unwrap().blocks());
        for place in places {
            let mut found = [0; 8];
            to.read_exact_at(&mut found, place).unwrap();
            assert_eq!(&found, b"data\0\0\0\0");
        }
        copy_contents(&at("empty"), &at("empty-too")).unwrap();
    }

    #[test]
    fn a_tree_is_copied_as_it_is_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (from, to, outside) = (root.path().join("from"), root.path().join("to"), root.path().join("outside"));
        for directory in [&from, &to, &outside, &from.join("sub")] {
            fs::create_dir(directory).unwrap();
        }
        fs::write(outside.join("secret"), "secret").unwrap();
        fs::write(from.join("sub/file"), "content").unwrap();
        fs::set_permissions(from.join("sub/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o711)).unwrap();
        symlink(&outside, from.join("link")).unwrap();
        // CAP_NET_BIND_SERVICE, permitted and effective (capabilities(7), "File capabilities").
        let capability = [&[1, 0, 0, 2, 0, 4][..], &[0; 14]].concat();
        let attribute = "security.capability";
        rfs::setxattr(from.join("sub/file"), attribute, &capability, XattrFlags::empty()).unwrap();

        copy_tree(File::open(&from).unwrap().as_fd(), File::open(&to).unwrap().as_fd()).unwrap();

        let (old, new) = (fs::metadata(from.join("sub/file")).unwrap(), fs::metadata(to.join("sub/file")).unwrap());
        assert_eq!((old.mode(), old.mtime_nsec()), (new.mode(), new.mtime_nsec()));
        let mut kept = vec![0; 64];
        let length = rfs::getxattr(to.join("sub/file"), attribute, kept.as_mut_slice()).unwrap();
        assert_eq!(kept[..length], capability);
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o711);
        assert_eq!(fs::read_link(to.join("link")).unwrap(), outside);
        assert_eq!(fs::read_to_string(to.join("sub/file")).unwrap(), "content");
    }
}
