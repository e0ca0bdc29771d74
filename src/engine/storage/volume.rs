//! Volumes: a record, and a directory of data that no apply removes.
//!
//! ```text
//! volumes/<project>.<name>/record.json
//!                          data/          what containers mount
//!                          image/         what is about to be moved into data/; there for a moment only
//! trash/<project>.<name>.<seconds since 1970>/   removed by confirmation, until it expires
//! ```
//!
//! A volume is filled from the image at its mount point the first time that a container with it is created,
//! as Docker does. The image's files are copied aside, the copy is renamed to `image/`, and from there each entry is
//! renamed into `data/`: a crash leaves the volume empty, or with an `image/` that the next filling goes on with.
//! Where `data/` is a file system of its own (somebody mounted a disk there), they are first copied to
//! `data/.evenkeel-filling/`, so that each still appears there whole, by a rename.
//!
//! A removed volume is whole, its record with it: renamed to `volumes/<project>.<name>` it is back. Once it has expired it
//! gets a dotted name before it is deleted, so nobody brings back a part.
//!
//! # Decisions
//! The directory that containers mount is never exchanged for another one, which would be a single rename: a container
//! that runs already would go on to write into the old one, which nobody would see again.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{Dir, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::age::{Ages, Clock};
use super::{copy, view};
use crate::engine::error::{At, EngineError};
use crate::engine::files::{self, Durability};
use crate::engine::{records, removal};
use crate::model::actual::Drift;
use crate::model::id::VolumeKey;
use crate::model::paths::{self, Paths};
use crate::model::record::VolumeRecord;
use crate::model::units::FileMode;
use crate::model::volume::Owner;

/// Inside a volume that is a file system of its own, what is about to be moved into its place.
const FILLING: &str = ".evenkeel-filling";

/// What mke2fs(8) makes in every new file system, for fsck(8).
const LOST_AND_FOUND: &str = "lost+found";

/// How long removed volumes are kept where nobody says otherwise: a week, so that whoever was away finds them.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Directory and record are there, owner and mode as declared.
pub fn ensure(paths: &Paths, record: &VolumeRecord) -> Result<(), EngineError> {
    let directory = paths.volume(&record.key);
    let data = paths.volume_data(&record.key);
    if !directory.exists() {
        files::create_directories(&paths.volumes())?;
        let aside = files::beside(&directory);
        let aside_data = aside.join("data");
        fs::create_dir_all(&aside_data).at("create the volume", &aside_data)?;
        fs::set_permissions(&aside_data, fs::Permissions::from_mode(0o755)).at("set the mode of", &aside_data)?;
        files::write_json(&paths::record(&aside), record, Durability::Durable)?;
        files::publish(&aside, &directory)?;
    } else {
        fs::create_dir_all(&data).at("create the volume", &data)?;
        files::write_json(&paths::record(&directory), record, Durability::Durable)?;
    }
    match record.spec.owner {
        Some(owner) => own(&data, owner),
        None => Ok(()),
    }
}

/// Moves the volume to the trash, where it stays until it is emptied. One that was made for a container alone is gone.
pub fn remove(paths: &Paths, key: &VolumeKey, now: SystemTime) -> Result<(), EngineError> {
    let directory = paths.volume(key);
    // Nobody can come back for what was never named.
    if directory.exists() && is_anonymous(paths, key)? {
        return files::remove_directory(&directory);
    }
    discard(paths, &directory, &key.to_string(), now)
}

/// What a damaged record was of is not known, and not thrown away.
fn is_anonymous(paths: &Paths, key: &VolumeKey) -> Result<bool, EngineError> {
    let record = records::unless_damaged(records::volume(paths, key))?;
    Ok(record.is_some_and(|record| record.spec.is_anonymous()))
}

/// Moves a directory to the trash, under a name of two words with a dot between them. `Ok` when there is none. One in
/// which something is mounted stays: after the next boot its disk would be looked for where it was.
pub fn discard(paths: &Paths, directory: &Path, name: &str, now: SystemTime) -> Result<(), EngineError> {
    if !directory.exists() {
        return Ok(());
    }
    removal::ensure_unmounted(directory).at("remove", directory)?;
    files::create_directories(&paths.trash())?;
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut places = (seconds..).map(|seconds| paths.trash().join(format!("{name}.{seconds}")));
    // Removed twice within a second, it goes to the trash twice.
    let place = places.find(|place| !place.exists()).unwrap_or_default();
    files::publish(directory, &place)
}

/// What was taken out of the trash.
#[derive(Debug)]
pub struct Expired {
    /// As they were called there: see [`discard`].
    pub names: Vec<String>,
    /// Where the contents lie now, and those of earlier times that nobody has finished deleting.
    pub to_delete: Vec<PathBuf>,
}

/// Takes out of the trash what has been there for `kept` or longer ([`Ages`]), and gives it to be deleted, with what nobody
/// has finished deleting. That may take hours, and is not for whoever holds the lock.
///
/// What has no such name is somebody else's and stays. So does what cannot be taken out, and why is pushed to `left`: a disk
/// that somebody mounted there stops no command.
pub fn expire(paths: &Paths, kept: Duration, now: &Clock, left: &mut Vec<EngineError>) -> Result<Expired, EngineError> {
    let objects = files::objects(&paths.trash())?;
    let removed: Vec<(&PathBuf, &str)> = objects.iter().filter_map(|path| Some((path, removed_name(path)?))).collect();
    let written = match files::read_json::<Ages>(&paths.trash_ages()) {
        // A count that is damaged begins anew.
        Ok(None) | Err(EngineError::Record { .. }) => Ages::default(),
        written => written?.unwrap_or_default(),
    };
    let ages = written.at(now, removed.iter().map(|(_, name)| (*name).to_owned()));
    let mut expired = Vec::new();
    for (path, name) in removed.iter().filter(|(_, name)| ages.age(name) >= kept) {
        match files::put_aside(path) {
            Ok(Some(_)) => expired.push((*name).to_owned()),
            Ok(None) => {}
            Err(error) => left.push(error),
        }
    }
    match ages.is_news(&written) {
        _ if removed.is_empty() => files::remove_file(&paths.trash_ages())?,
        // What is in the trash is there longer than it is known to be: on a full disk something may be removed all the same.
        true => left.extend(files::write_json(&paths.trash_ages(), &ages, Durability::Volatile).err()),
        false => {}
    }
    Ok(Expired { names: expired, to_delete: files::crumbs(&paths.trash())? })
}

/// A name as [`discard`] gives it.
fn removed_name(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    let (key, seconds) = name.rsplit_once('.')?;
    let is_key = key.split_once('.').is_some_and(|(project, name)| !project.is_empty() && !name.is_empty());
    (is_key && seconds.parse::<u64>().is_ok()).then_some(name)
}

/// What is not as the record says.
pub fn drift(paths: &Paths, record: &VolumeRecord) -> Vec<Drift> {
    let data = paths.volume_data(&record.key);
    let found = match fs::metadata(&data) {
        Ok(metadata) if metadata.is_dir() => {
            let mode = FileMode(metadata.mode() & 0o7777);
            Some(Owner { uid: metadata.uid(), gid: metadata.gid(), mode })
        }
        // A file where the directory should be, or nothing: either way it is not there.
        _ => None,
    };
    let of = |object: String, found: String, wanted: String| vec![Drift { object, found, wanted }];
    match (found, record.spec.owner) {
        (None, _) => of(format!("directory {}", data.display()), "missing".into(), "a directory".into()),
        (Some(found), Some(wanted)) if found != wanted => {
            of(format!("owner of {}", data.display()), words(found), words(wanted))
        }
        _ => Vec::new(),
    }
}

fn words(owner: Owner) -> String {
    format!("{}:{} {}", owner.uid, owner.gid, owner.mode)
}

/// Whether the volume is still to be filled.
pub fn is_unfilled(paths: &Paths, key: &VolumeKey) -> Result<bool, EngineError> {
    let data = paths.volume_data(key);
    Ok(paths.volume_image(key).exists() || is_empty(&data).at("list", &data)?)
}

/// Fills an empty volume with what the image has at `target`. Without a declared owner the root directory takes
/// the image's, too. Of several callers at once one fills it.
pub fn fill(paths: &Paths, record: &VolumeRecord, root: BorrowedFd<'_>, target: &str) -> Result<(), EngineError> {
    let (data, image) = (paths.volume_data(&record.key), paths.volume_image(&record.key));
    // Not on `data`, which a container could lock for good.
    let _turn = take_turn(&paths.volume(&record.key))?;
    if !image.exists() {
        if !is_empty(&data).at("list", &data)? {
            return Ok(());
        }
        let aside = files::beside(&image);
        let copied = copy_out(root, target, &aside);
        if !matches!(copied, Ok(true)) {
            // Nothing to copy, or a failure that is reported: either way nothing half-made stays.
            let _ = removal::remove(&aside);
            return copied.map(|_| ()).at("copy the image's files into the volume", &data);
        }
        if let Some(owner) = record.spec.owner {
            own(&aside, owner)?;
        }
        files::publish(&aside, &image)?;
    }
    move_in(&image, &data).at("move the image's files into the volume", &data)?;
    files::remove_directory(&image)
}

/// Held until it is dropped (flock(2)).
fn take_turn(volume: &Path) -> Result<fs::File, EngineError> {
    let directory = fs::File::open(volume).at("open", volume)?;
    rustix::fs::flock(&directory, FlockOperation::LockExclusive).map_err(io::Error::from).at("lock", volume)?;
    Ok(directory)
}

/// Whether the image has the directory.
fn copy_out(root: BorrowedFd<'_>, target: &str, aside: &Path) -> io::Result<bool> {
    let Some(source) = view::directory(root, target)? else { return Ok(false) };
    fs::create_dir(aside)?;
    let directory = fs::File::open(aside)?;
    copy::copy_tree(source.as_fd(), directory.as_fd())?;
    rustix::fs::syncfs(&directory)?;
    Ok(true)
}

/// Moves every entry, and then owner, mode and times of the directory itself. What a container that runs already has
/// written there meanwhile stays as it is.
fn move_in(image: &Path, data: &Path) -> io::Result<()> {
    let (from, to) = (fs::File::open(image)?, fs::File::open(data)?);
    match move_entries(from.as_fd(), to.as_fd()) {
        // Also between two subvolumes of one btrfs, which is why the kernel is asked and not stat(2).
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => move_over(from.as_fd(), to.as_fd(), data)?,
        moved => moved?,
    }
    copy::copy_root(from.as_fd(), to.as_fd())?;
    to.sync_all()
}

/// To another file system: a copy, durable before the first of it appears in its place. One that was cut short is
/// made anew, for `from` is whole until all of it has arrived. Another container may have the volume already and put
/// links where the copy is made, so nothing is reached by its path.
fn move_over(from: BorrowedFd<'_>, to: BorrowedFd<'_>, data: &Path) -> io::Result<()> {
    let aside = data.join(FILLING);
    removal::remove(&aside)?;
    rustix::fs::mkdirat(to, FILLING, Mode::RWXU)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let filling = rustix::fs::openat(to, FILLING, flags, Mode::empty())?;
    let copied = copy::copy_tree(from, filling.as_fd()).and_then(|()| Ok(rustix::fs::syncfs(&filling)?));
    let moved = copied.and_then(|()| move_entries(filling.as_fd(), to));
    // Whatever became of it, the container shall not see it; the first error is the one to tell.
    let forgotten = removal::remove(&aside);
    moved.and(forgotten)
}

fn move_entries(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let entries: Vec<_> = Dir::read_from(from)?.collect::<Result<_, _>>()?;
    let names = entries.iter().map(|entry| entry.file_name()).filter(|name| !matches!(name.to_bytes(), b"." | b".."));
    for name in names {
        match rustix::fs::renameat_with(from, name, to, name, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether nobody has put anything there. A new file system is empty, although mke2fs(8) has made `lost+found` in it.
fn is_empty(data: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        if entry.file_name() != LOST_AND_FOUND || !is_mount_point(data)? || fs::read_dir(entry.path())?.next().is_some()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// As far as another device tells it.
fn is_mount_point(data: &Path) -> io::Result<bool> {
    let volume = data.parent().unwrap_or(data);
    Ok(fs::metadata(data)?.dev() != fs::metadata(volume)?.dev())
}

fn own(data: &Path, Owner { uid, gid, mode }: Owner) -> Result<(), EngineError> {
    std::os::unix::fs::chown(data, Some(uid), Some(gid)).at("set the owner of", data)?;
    fs::set_permissions(data, fs::Permissions::from_mode(mode.0)).at("set the mode of", data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record::RECORD_VERSION;
    use crate::model::volume::VolumeSpec;

    struct Fixture {
        root: tempfile::TempDir,
        paths: Paths,
        record: VolumeRecord,
    }

    /// An empty volume, and an image with a directory `/data`.
    fn fixture() -> Fixture {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths { root: root.path().join("root"), run: root.path().join("run") };
        let key = VolumeKey { project: "shop".parse().unwrap(), name: "site".parse().unwrap() };
        let record = VolumeRecord { version: RECORD_VERSION, key, spec: VolumeSpec::default() };
        ensure(&paths, &record).unwrap();
        let image = root.path().join("image/data");
        fs::create_dir_all(image.join("sub")).unwrap();
        fs::set_permissions(&image, fs::Permissions::from_mode(0o2750)).unwrap();
        fs::write(image.join("page"), "of the image").unwrap();
        fs::write(image.join("sub/page"), "of the image").unwrap();
        Fixture { root, paths, record }
    }

    impl Fixture {
        fn fill(&self) -> Result<(), EngineError> {
            let image = fs::File::open(self.root.path().join("image")).unwrap();
            fill(&self.paths, &self.record, image.as_fd(), "/data")
        }

        fn data(&self) -> std::path::PathBuf {
            self.paths.volume_data(&self.record.key)
        }

        fn is_whole(&self) -> bool {
            let read = |name| fs::read_to_string(self.data().join(name)).unwrap_or_default();
            read("page") == "of the image" && read("sub/page") == "of the image"
        }
    }

    #[test]
    fn a_directory_that_is_mounted_already_is_the_one_that_is_filled() {
        let fixture = fixture();
        let mounted = fs::metadata(fixture.data()).unwrap().ino();
        fixture.fill().unwrap();
        let filled = fs::metadata(fixture.data()).unwrap();
        assert_eq!((filled.ino(), filled.mode() & 0o7777), (mounted, 0o2750));
        assert!(fixture.is_whole());
        assert!(!is_unfilled(&fixture.paths, &fixture.record.key).unwrap());
        assert_eq!(fs::read_dir(fixture.paths.volume(&fixture.record.key)).unwrap().count(), 2, "record and data");
    }

    #[test]
    fn of_several_who_fill_a_volume_at_once_none_fails() {
        let fixture = fixture();
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| fixture.fill())).collect();
            all.into_iter().for_each(|one| one.join().unwrap().unwrap());
        });
        assert!(fixture.is_whole());
    }

    #[test]
    fn a_filling_that_was_cut_short_is_gone_on_with_and_overwrites_nothing() {
        let fixture = fixture();
        let image = fixture.paths.volume_image(&fixture.record.key);
        fs::create_dir_all(image.join("sub")).unwrap();
        for name in ["page", "sub/page"] {
            fs::write(image.join(name), "of the image").unwrap();
        }
        fs::write(fixture.data().join("written"), "meanwhile").unwrap();
        fs::write(fixture.data().join("page"), "meanwhile").unwrap();
        assert!(is_unfilled(&fixture.paths, &fixture.record.key).unwrap());
        fixture.fill().unwrap();
        let read = |name| fs::read_to_string(fixture.data().join(name)).unwrap();
        assert_eq!([read("written"), read("page"), read("sub/page")], ["meanwhile", "meanwhile", "of the image"]);
        assert!(!image.exists());
    }

    #[test]
    fn a_volume_with_files_is_left_alone() {
        let fixture = fixture();
        fs::write(fixture.data().join("kept"), "").unwrap();
        fixture.fill().unwrap();
        assert_eq!(fs::read_dir(fixture.data()).unwrap().count(), 1);
    }

    #[test]
    fn a_removed_volume_can_be_brought_back_until_it_expires() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths { root: root.path().to_owned(), run: root.path().to_owned() };
        let key = VolumeKey { project: "shop".parse().unwrap(), name: "data".parse().unwrap() };
        let record = VolumeRecord { version: RECORD_VERSION, key: key.clone(), spec: Default::default() };
        let removed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for content in ["first", "second"] {
            ensure(&paths, &record).unwrap();
            fs::write(paths.volume_data(&key).join("file"), content).unwrap();
            remove(&paths, &key, removed).unwrap();
        }
        for foreign in ["notes", "shop.data", ".shop.data.1800000000.1-1"] {
            fs::create_dir(paths.trash().join(foreign)).unwrap();
        }
        // The wall clock says that it is long over, and is not asked.
        let clock =
            |days: u32| Clock { boot: "a".into(), up: days * Duration::from_secs(86_400), wall: removed + 9 * KEPT };
        expire(&paths, KEPT, &clock(1), &mut Vec::new()).unwrap();
        assert!(paths.trash().join("shop.data.1800000000").exists());
        fs::rename(paths.trash().join("shop.data.1800000001"), root.path().join("aside")).unwrap();
        expire(&paths, KEPT, &clock(2), &mut Vec::new()).unwrap();
        fs::rename(root.path().join("aside"), paths.trash().join("shop.data.1800000001")).unwrap();
        let expired = expire(&paths, KEPT, &clock(8), &mut Vec::new()).unwrap();
        assert_eq!(expired.names, ["shop.data.1800000000"]);
        let expired = expired.to_delete;
        assert!(expired.iter().any(|path| fs::read_to_string(path.join("data/file")).is_ok_and(|it| it == "first")));
        assert!(expired.iter().any(|path| path.ends_with(".shop.data.1800000000.1-1")));
        let left = ["notes", "shop.data", "shop.data.1800000001"].map(|name| paths.trash().join(name));
        assert_eq!(files::objects(&paths.trash()).unwrap(), left);

        fs::rename(&left[2], paths.volume(&key)).unwrap();
        assert_eq!(drift(&paths, &record), []);
        assert_eq!(fs::read_to_string(paths.volume_data(&key).join("file")).unwrap(), "second");
        remove(&paths, &key, removed).unwrap();
        expire(&paths, Duration::ZERO, &clock(8), &mut Vec::new()).unwrap();
        assert!(!paths.trash().join("shop.data.1800000000").exists());
        expire(&paths, KEPT, &clock(8), &mut Vec::new()).unwrap();
        assert!(!paths.trash_ages().exists());
    }
}
