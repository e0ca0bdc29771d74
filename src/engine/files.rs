//! Files that survive a power cut: write aside, fsync, rename, fsync the directory.
//!
//! A reader sees the old content or the new, never a part. Directories of objects are complete because they
//! were renamed into place; names that begin with a dot are not objects. Those that [`beside`] makes are being made or
//! going away, and what a crash left of them is swept when the lock is taken; the others are somebody's own.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

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
/// its directory's owner's. A link is followed, but not one of another user's to what is not his.
pub(crate) fn write_shared(path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let aside = beside(&target);
    let written = write_in_place_of(&target, &aside, path, bytes);
    written.and_then(|()| fs::rename(&aside, &target)).map_err(|source| {
        // The error that matters is the first.
        let _ = fs::remove_file(&aside);
        EngineError::File { operation: "write", path: target.clone(), source }
    })?;
    sync_directory(parent(&target))
}

/// In a directory of another user's every name may become another file's between two calls, so what is new is asked for
/// and given away by its descriptor.
fn write_in_place_of(target: &Path, aside: &Path, called: &Path, bytes: &[u8]) -> io::Result<()> {
    let home = fs::metadata(parent(called))?;
    let before = match fs::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        before => Some(before?),
    };
    let caller = rustix::process::geteuid();
    if let Some(before) = &before {
        if !before.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let is_elsewhere = fs::canonicalize(parent(called))? != parent(target);
        if is_elsewhere && ![0, caller.as_raw(), before.uid()].contains(&home.uid()) {
            let problem = format!("`{}` leads to what is not its owner's", called.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
        }
    }
    let mut file = File::options().write(true).create_new(true).mode(0o644).open(aside)?;
    file.write_all(bytes)?;
    if caller.is_root() {
        let owner = before.as_ref().unwrap_or(&home);
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    if let Some(before) = before {
        file.set_permissions(before.permissions())?;
    }
    file.sync_all()
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
    use std::os::unix::fs::PermissionsExt;

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

    #[test]
    fn another_users_link_leads_to_nothing_that_is_not_his() {
        let root = tempfile::tempdir().unwrap();
        let (home, secret) = (root.path().join("home"), root.path().join("secret"));
        fs::create_dir(&home).unwrap();
        fs::write(&secret, "root's").unwrap();
        let give = |path: &Path, user| std::os::unix::fs::lchown(path, Some(user), Some(user)).unwrap();
        give(&home, 65534);
        let link = home.join("evenkeel.lock");
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        write_shared(&link, b"two").unwrap_err();
        assert_eq!(fs::read(&secret).unwrap(), b"root's");
        give(&secret, 65534);
        write_shared(&link, b"two").unwrap();
        assert_eq!((fs::read(&secret).unwrap(), fs::metadata(&secret).unwrap().uid()), (b"two".to_vec(), 65534));

        // One that leads nowhere is not replaced by a file, nor is what it would lead to made.
        let dangling = home.join("dangling");
        std::os::unix::fs::symlink(root.path().join("nowhere"), &dangling).unwrap();
        write_shared(&dangling, b"two").unwrap_err();
        assert!(fs::symlink_metadata(&dangling).unwrap().is_symlink() && !root.path().join("nowhere").exists());
        write_shared(&home.join("new"), b"new").unwrap();
        assert_eq!(fs::metadata(home.join("new")).unwrap().uid(), 65534, "as its directory");
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
