//! Files that survive a power cut: write aside, fsync, rename, fsync the directory.
//!
//! A reader sees the old content or the new, never a part. Directories of objects are complete because they
//! were renamed into place; names that begin with a dot are not objects. Those that [`beside`] makes are being made or
//! going away, and what a crash left of them is swept when the lock is taken; the others are somebody's own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{At, EngineError};
use super::removal;

/// How much is done so that a write outlives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// On disk when the call returns.
    Durable,
    /// For the run directory, which is gone after a reboot anyway.
    Volatile,
}

/// Replaces `path` by `value` as JSON.
pub(crate) fn write_json(path: &Path, value: &impl Serialize, durability: Durability) -> Result<(), EngineError> {
    write(path, &json(path, value)?, durability)
}

/// Replaces `path`, a file of the object whose directory it is in, by `value` as JSON. What a crash leaves half-made lies
/// among the objects: one look at them finds it, be there a thousand.
pub(super) fn write_json_of_object(
    path: &Path,
    value: &impl Serialize,
    durability: Durability,
) -> Result<(), EngineError> {
    replace(path, &beside(parent(path)), &json(path, value)?, durability)
}

/// Replaces `path` by `bytes`, readable for its owner alone: records and plans hold environments.
pub(crate) fn write(path: &Path, bytes: &[u8], durability: Durability) -> Result<(), EngineError> {
    replace(path, &beside(path), bytes, durability)
}

/// Replaces `path` by `bytes`, for others to read too: whose it is and with which mode stays as it was, and a new one is
/// its directory's owner's. A link of this user's or of root's is followed.
///
/// The directory may be somebody else's, and the caller root: nothing is done to a file by a name that its owner could
/// lead elsewhere meanwhile.
pub(crate) fn write_shared(path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
    let path = followed(path).at("write", path)?;
    let replaced = || {
        let directory = File::open(parent(&path))?;
        let (aside, name) = (beside(&path), path.file_name().unwrap_or_default());
        let aside = aside.file_name().unwrap_or_default();
        let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&directory, aside, new, Mode::from_raw_mode(0o644))?;
        let renamed = fill_as(name, &directory, file.into(), bytes)
            .and_then(|()| Ok(rustix::fs::renameat(&directory, aside, &directory, name)?));
        if renamed.is_err() {
            // The error that matters is the first.
            let _ = rustix::fs::unlinkat(&directory, aside, AtFlags::empty());
        }
        renamed.and_then(|()| directory.sync_all())
    };
    replaced().at("write", &path)
}

/// Writes into the new file, which becomes as the one is that has the name in the directory.
fn fill_as(name: &OsStr, directory: &File, mut file: File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    let before = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(before) if FileType::from_raw_mode(before.st_mode) == FileType::RegularFile => Some(before),
        _ => None,
    };
    if rustix::process::geteuid().is_root() {
        let owner = match &before {
            Some(before) => (before.st_uid, before.st_gid),
            None => directory.metadata().map(|directory| (directory.uid(), directory.gid()))?,
        };
        std::os::unix::fs::fchown(&file, Some(owner.0), Some(owner.1))?;
    }
    if let Some(before) = before {
        file.set_permissions(fs::Permissions::from_mode(before.st_mode & 0o777))?;
    }
    file.sync_all()
}

/// Where the links end that begin at `path`. What another user's link would have root write to is that user's choice, as
/// with `fs.protected_symlinks` (proc_sys_fs(5)).
fn followed(path: &Path) -> io::Result<PathBuf> {
    /// path_resolution(7).
    const MOST_LINKS: usize = 40;
    let mut path = std::path::absolute(path)?;
    for _ in 0..MOST_LINKS {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(opened) = rustix::fs::open(&path, flags, Mode::empty()) else { return Ok(path) };
        let found = rustix::fs::fstat(&opened)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
            return Ok(path);
        }
        if found.st_uid != 0 && found.st_uid != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other(format!(
                "it is a link of user {}, whose links are not followed",
                found.st_uid
            )));
        }
        let target = rustix::fs::readlinkat(&opened, "", Vec::new())?;
        path.pop();
        path.push(OsStr::from_bytes(target.as_bytes()));
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

fn json(path: &Path, value: &impl Serialize) -> Result<Vec<u8>, EngineError> {
    serde_json::to_vec_pretty(value).map_err(|source| EngineError::Record { path: path.to_owned(), source })
}

fn replace(path: &Path, aside: &Path, bytes: &[u8], durability: Durability) -> Result<(), EngineError> {
    let renamed = write_new(aside, bytes, durability).and_then(|()| fs::rename(aside, path));
    if let Err(source) = renamed {
        // The error that matters is the first; a leftover is swept later.
        let _ = fs::remove_file(aside);
        return Err(EngineError::File { operation: "write", path: path.to_owned(), source });
    }
    match durability {
        Durability::Durable => sync_directory(parent(path)),
        Durability::Volatile => Ok(()),
    }
}

fn write_new(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    match durability {
        Durability::Durable => file.sync_data(),
        Durability::Volatile => Ok(()),
    }
}

/// Reads JSON. `None` when there is no such file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, EngineError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| EngineError::Record { path: path.to_owned(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at("read", path),
    }
}

/// Renames a directory that was made aside to the name under which it counts, durably.
pub(super) fn publish(aside: &Path, path: &Path) -> Result<(), EngineError> {
    fs::rename(aside, path).at("rename into place", path)?;
    sync_directory(parent(path))
}

/// Takes a directory out of sight at once, then deletes it. A crash in between leaves a dotted name. One in which
/// something is mounted stays where it is, whole.
pub(super) fn remove_directory(path: &Path) -> Result<(), EngineError> {
    let Some(aside) = put_aside(path)? else { return Ok(()) };
    removal::remove_tree(&aside).at("remove", aside)
}

/// Takes a directory out of sight, and says where it is, to be deleted. `None` when there is none.
pub(super) fn put_aside(path: &Path) -> Result<Option<PathBuf>, EngineError> {
    match removal::ensure_unmounted(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        checked => checked.at("remove", path)?,
    }
    let aside = beside(path);
    match fs::rename(path, &aside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("remove", path),
    }
    sync_directory(parent(path))?;
    Ok(Some(aside))
}

/// Removes a file. `Ok` when there is none.
pub(super) fn remove_file(path: &Path) -> Result<(), EngineError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", path),
        _ => Ok(()),
    }
}

/// Deletes what crashes left in a directory of objects: the dotted names. What cannot be deleted harms nobody: it stays,
/// and why is pushed to `left`.
pub(super) fn sweep(directory: &Path, left: &mut Vec<EngineError>) -> Result<(), EngineError> {
    left.extend(crumbs(directory)?.into_iter().filter_map(|crumb| removal::remove(&crumb).at("remove", crumb).err()));
    Ok(())
}

/// What crashes left there, and what is being deleted.
pub(super) fn crumbs(directory: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let mut entries = entries(directory)?;
    entries.retain(|entry| is_crumb(entry));
    Ok(entries)
}

/// The complete objects in a directory, sorted by name. None when the directory is not there.
pub(super) fn objects(directory: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let mut objects = entries(directory)?;
    objects.retain(|path| is_object(path));
    // By their bytes: what differs is the name alone, and comparing paths takes each apart.
    objects.sort_unstable_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    Ok(objects)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, EngineError> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>().at("list", directory),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).at("list", directory),
    }
}

fn is_object(path: &Path) -> bool {
    path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b"."))
}

/// Removes what a crash left half-made of this one file.
pub(super) fn sweep_beside(path: &Path) -> Result<(), EngineError> {
    let prefix = format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let is_of_it = |entry: &PathBuf| entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
    entries(parent(path))?
        .iter()
        .filter(|entry| is_crumb(entry) && is_of_it(entry))
        .try_for_each(|file| remove_file(file))
}

/// Whether it is a name that [`beside`] makes. Other dotted names are somebody's own.
pub(super) fn is_crumb(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let unique = name.and_then(|name| name.strip_prefix('.')?.rsplit_once('.')?.1.split_once('-'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    unique.is_some_and(|(process, count)| is_number(process) && is_number(count))
}

/// A dotted name in the same directory that nobody else uses.
pub(super) fn beside(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{}-{unique}", std::process::id()))
}

/// For root alone. What is made on the way to it is as mkdir(1) makes it: it may be meant for others, too.
pub(crate) fn create_directories(path: &Path) -> Result<(), EngineError> {
    let made = match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = fs::DirBuilder::new().recursive(true).mode(0o755).create(parent(path));
            above.and_then(|()| fs::DirBuilder::new().mode(0o700).create(path))
        }
        made => made,
    };
    match made {
        // Somebody else was faster, or it was there.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.at("create the directory", path),
    }
}

fn sync_directory(path: &Path) -> Result<(), EngineError> {
    File::open(path).and_then(|directory| directory.sync_all()).at("sync", path)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_file_stays_whose_it_was_and_a_link_to_it_a_link() {
        let root = tempfile::tempdir().unwrap();
        let (file, link) = (root.path().join("evenkeel.lock"), root.path().join("link"));
        write_shared(&file, b"one").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o644, "others read it");
        fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_shared(&link, b"two").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!((fs::read(&file).unwrap(), fs::metadata(&file).unwrap().mode() & 0o777), (b"two".to_vec(), 0o640));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2, "nothing lies beside it");
    }

    /// As the owner of the directory can, who is another user than the one who writes.
    #[test]
    fn a_link_in_place_of_a_file_that_is_being_written_changes_no_other_file() {
        let root = tempfile::tempdir().unwrap();
        let victim = root.path().join("victim");
        fs::write(&victim, "secret").unwrap();
        fs::set_permissions(&victim, PermissionsExt::from_mode(0o600)).unwrap();
        for round in 0..20 {
            let directory = root.path().join(round.to_string());
            fs::create_dir(&directory).unwrap();
            let writes = std::sync::atomic::AtomicBool::new(true);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while writes.load(Ordering::Relaxed) {
                        for aside in fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
                            if aside.file_name().unwrap().as_bytes().starts_with(b".evenkeel.lock.")
                                && fs::rename(&aside, directory.join("away")).is_ok()
                            {
                                // Too late is no failure.
                                let _ = std::os::unix::fs::symlink(&victim, &aside);
                            }
                        }
                    }
                });
                // What has been taken away cannot be renamed.
                let _ = write_shared(&directory.join("evenkeel.lock"), b"text");
                writes.store(false, Ordering::Relaxed);
            });
            let found = fs::metadata(&victim).unwrap();
            assert_eq!((found.mode() & 0o777, fs::read(&victim).unwrap()), (0o600, b"secret".to_vec()), "{round}");
        }
    }

    #[test]
    fn a_removed_directory_is_gone_and_a_swept_one_keeps_its_objects() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a", "b", ".kept", ".git.d", ".half-made.12-0"] {
            fs::create_dir(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join("f"), "x").unwrap();
        }
        remove_directory(&root.path().join("a")).unwrap();
        remove_directory(&root.path().join("a")).unwrap();
        let mut left = Vec::new();
        sweep(root.path(), &mut left).unwrap();
        assert!(left.is_empty(), "{left:?}");
        let mut kept = entries(root.path()).unwrap();
        kept.sort();
        assert_eq!(kept, [".git.d", ".kept", "b"].map(|name| root.path().join(name)));
    }

    #[test]
    fn a_directory_is_for_its_owner_alone_and_what_is_made_on_the_way_for_others_too() {
        let root = tempfile::tempdir().unwrap();
        let (above, own) = (root.path().join("srv/many"), root.path().join("srv/many/evenkeel"));
        create_directories(&own).unwrap();
        create_directories(&own).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        // Less what the umask takes.
        assert_eq!((mode(&own), mode(&above) & 0o500), (0o700, 0o500));
        assert_ne!(mode(&above) & 0o077, 0);
        fs::write(root.path().join("file"), "").unwrap();
        assert!(create_directories(&root.path().join("file")).is_err());
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_content_and_nothing_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("record.json");
        write_json(&path, &1, Durability::Durable).unwrap();
        let directory = root.path().join("directory");
        fs::create_dir_all(directory.join("inside")).unwrap();
        assert!(write(&directory, b"x", Durability::Durable).is_err());
        assert!(write_json_of_object(&directory.join("inside"), &1, Durability::Durable).is_err());
        assert_eq!(read_json::<u32>(&path).unwrap(), Some(1));
        assert_eq!(objects(root.path()).unwrap().len(), entries(root.path()).unwrap().len());
    }
}
