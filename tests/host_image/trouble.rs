//! Full disks and processes that are killed: an image is whole or it is not there.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use evenkeel::engine::image::{self, ImageError, Options, Silent, Store};
use evenkeel::model::image::ImageSource;

use crate::support::*;

/// A file system of this size, mounted where the state root is.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn on(host: &Host, size: &str) -> SmallDisk {
        let path = host.path("state");
        fs::create_dir(&path).unwrap();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        rustix::mount::mount("tmpfs", &path, "tmpfs", rustix::mount::MountFlags::empty(), Some(options.as_c_str()))
            .unwrap();
        SmallDisk(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_is_named_and_nothing_stays() {
    let host = Host::new();
    let _disk = SmallDisk::on(&host, "1m");
    let big = tar(&[file("small", "s"), file("big", &"x".repeat(2 << 20)), file("after", "a")]);
    for bytes in [big.clone(), gzip(&big)] {
        let error = host.unpack(&bytes).unwrap_err();
        assert!(matches!(error, ImageError::DiskFull { .. }), "{error}");
        assert!(error.to_string().starts_with("the file system of `"), "{error}");
        assert_eq!((host.leftovers(), host.layers()), (vec![], vec![]));
    }
    // An archive that is compressed as a whole needs room to be inflated.
    fs::write(host.path("image.tar"), gzip(&big)).unwrap();
    let error = host.ensure(&ImageSource::Archive(host.path("image.tar").into())).unwrap_err();
    assert!(matches!(error, ImageError::DiskFull { .. }), "{error}");
    assert_eq!(host.leftovers(), Vec::<PathBuf>::new());
    // What fits still works, as soon as no process that another test is just starting holds a file of ours.
    let small = tar(&[file("small", "s")]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = host.unpack(&small) {
        assert!(Instant::now() < deadline, "{error}");
    }
}

/// Where the process that is killed finds its state root and its source.
const PLACE: &str = "EVENKEEL_TEST_KILLED_IMPORT";

/// Not a test of its own: what [`a_killed_import_leaves_nothing_that_counts`] runs and kills.
#[test]
fn import_for_the_one_who_kills() {
    let Some(place) = std::env::var_os(PLACE).map(PathBuf::from) else { return };
    let options = Options::new(PathBuf::from(env!("CARGO_BIN_EXE_evenkeel")));
    image::ensure(&Store::new(&place.join("state")), &ImageSource::Rootfs(place.join("rootfs.tar")), &options, &Silent)
        .unwrap();
}

#[test]
fn a_killed_import_leaves_nothing_that_counts() {
    let host = Host::new();
    let members: Vec<Member> =
        (0..3000).map(|n| file(&format!("d{}/f{n}", n % 50), &format!("{n}").repeat(200))).collect();
    fs::write(host.path("rootfs.tar"), tar(&members)).unwrap();
    let source = ImageSource::Rootfs(host.path("rootfs.tar"));
    let mut interrupted = 0;
    for step in 0..20 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "trouble::import_for_the_one_who_kills"])
            .env(PLACE, host.directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // At ever later moments, from before the first file to after the record.
        let until = Instant::now() + Duration::from_millis(step * 12);
        while Instant::now() < until {
            thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if let Some(image) = host.store.find(&source).unwrap() {
            let tree = host.tree(&image.layers[0]);
            for n in [0, 1499, 2999] {
                assert_eq!(
                    fs::read_to_string(tree.join(format!("d{}/f{n}", n % 50))).unwrap(),
                    format!("{n}").repeat(200)
                );
            }
            host.store.remove(&source).unwrap();
            host.keep_only(&[]).unwrap();
        } else {
            interrupted += 1;
        }
    }
    assert!(interrupted > 0, "none was early enough");
    host.ensure(&source).unwrap();
    assert_eq!((host.leftovers(), host.layers().len()), (vec![], 1));
}
