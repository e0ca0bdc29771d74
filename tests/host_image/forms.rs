//! A layer is the same whether it is kept as a directory or as an image.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use evenkeel::engine::image::store::session::Form;
use evenkeel::engine::image::store::trial;
use evenkeel::model::image::ImageSource;
use evenkeel::runtime::layer;
use rustix::fs::CWD;
use rustix::mount::{MountFlags, OpenTreeFlags, UnmountFlags, open_tree, unmount};
use tar::EntryType;

use crate::support::*;

/// An access control list, of entries of tag, permissions and id.
fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[test]
fn a_layer_of_everything_is_the_same_as_a_directory() {
    let mut members = vec![directory(".").mode(0o1755).pax("mtime", b"-5.25")];
    // Around the ends of blocks: alone in one, beside the inode, neither.
    for size in [0, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8191, 8192, 8128, 100_000, 3_000_000] {
        members.push(file(&format!("sizes/{size}"), &"x".repeat(size)).owner(size as u64, 70_000).mode(0o4751));
    }
    for length in [1, 100, 4031, 4032, 4033, 4095] {
        members.push(symlink(&format!("links/{length}"), &"t".repeat(length)).owner(1, 2));
    }
    // Names before and behind `.` and `..`, and more of them than a block has room for.
    for name in ["!", "+", "-", ".!", ".-", "..-", "...", "..a", ".a", "0", "a", "\u{e9}", &"n".repeat(255)] {
        members.push(file(&format!("names/{name}"), name));
    }
    members.extend((0..3000).map(|number| file(&format!("many/{number}/{}", "m".repeat(number % 200 + 1)), "some")));
    members.extend((0..3000).map(|number| directory(&format!("wide/{}{number}", "w".repeat(number % 240)))));
    for (name, major, minor) in [("null", 1, 3), ("large", 4000, 1_000_000), ("also", 300, 256)] {
        members.push(device(EntryType::Char, &format!("dev/{name}"), major, minor).mode(0o2620));
        members.push(device(EntryType::Block, &format!("dev/block-{name}"), major, minor));
    }
    members.push(member(EntryType::Fifo, "dev/pipe"));
    members.push(file("linked", "contents"));
    members.push(hard_link("dev/linked", "linked"));
    members.push(hard_link("dev/also-pipe", "dev/pipe"));
    members.push(file("linked", "others"));
    members.push(directory("hidden"));
    members.push(file(".wh.hidden", ""));
    members.push(file("names/.wh.gone", ""));
    let capability = [&[1, 0, 0, 2, 0, 4][..], &[0; 14]].concat();
    members.push(file("attributes/capable", "x").pax("SCHILY.xattr.security.capability", &capability).owner(3, 4));
    members.push(
        directory("attributes/many")
            .pax("SCHILY.xattr.user.a", &[b'v'; 1500])
            .pax("SCHILY.xattr.trusted.b", b"")
            .pax("SCHILY.xattr.user.a", &[b'w'; 900]),
    );
    let named = list(&[(1, 7, 0), (2, 5, 33), (4, 4, 0), (16, 6, 0), (32, 0, 0)]);
    let plain = list(&[(1, 6, 9), (4, 2, 9), (32, 1, 9)]);
    for (name, value) in [("named", &named), ("plain", &plain)] {
        let access = |member: Member| member.pax("SCHILY.xattr.system.posix_acl_access", value).mode(0o6754);
        members.push(access(file(&format!("lists/file-{name}"), "")));
        members.push(access(member(EntryType::Fifo, &format!("lists/pipe-{name}"))));
        let directory = access(directory(&format!("lists/{name}")));
        members.push(directory.pax("SCHILY.xattr.system.posix_acl_default", value));
    }
    let mut host = Host::new();
    host.options.form = Some(Form::Image);
    host.unpack(&tar(&members)).unwrap();
    // Another's program has no complaint either.
    let image = host.store.find(&ImageSource::Rootfs(host.path("rootfs.tar"))).unwrap().unwrap();
    let files = host.store.layer_path(&image.layers[0]);
    assert_eq!(files.file_name().unwrap(), layer::IMAGE);
    let checked = Command::new("fsck.erofs").arg(&files).output().expect("the package erofs-utils is installed");
    let said = [checked.stdout, checked.stderr].concat();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn lists_that_the_kernel_refuses_are_refused() {
    let wrong = [
        list(&[(1, 7, 0), (4, 4, 0)]),
        list(&[(1, 7, 0), (2, 5, 33), (4, 4, 0), (32, 0, 0)]),
        list(&[(4, 7, 0), (1, 4, 0), (32, 0, 0)]),
        list(&[(1, 8, 0), (4, 4, 0), (32, 0, 0)]),
        list(&[(1, 7, 0), (2, 5, u32::MAX), (4, 4, 0), (16, 6, 0), (32, 0, 0)]),
        vec![2, 0, 0],
        vec![2, 0, 0, 0, 1],
        vec![1, 0, 0, 0],
    ];
    for value in wrong {
        for form in [Form::Directory, Form::Image] {
            let mut host = Host::new();
            host.options.form = Some(form);
            let listed = file("a", "").pax("SCHILY.xattr.system.posix_acl_access", &value);
            let error = host.unpack(&tar(&[listed])).unwrap_err().to_string();
            assert!(error.contains("cannot set the attribute `system.posix_acl_access` of `a`"), "{form:?}: {error}");
        }
    }
}

/// In neither form, so that a layer means the same in both.
fn assert_refused(members: &[Member], problem: &str) {
    for form in [Form::Directory, Form::Image] {
        let mut host = Host::new();
        host.options.form = Some(form);
        let error = host.unpack(&tar(members)).unwrap_err().to_string();
        assert!(error.contains(problem), "{form:?}: {error}");
    }
}

#[test]
fn attributes_that_no_call_would_set_are_refused() {
    let capability = |value: &[u8]| [file("a", "").pax("SCHILY.xattr.security.capability", value)];
    let mut of_nobody = [[0, 0, 0, 3].as_slice(), &[0; 16], &[255; 4]].concat();
    for value in [b"nonsense".as_slice(), &[0; 20], &[0; 24], &[], &of_nobody] {
        assert_refused(&capability(value), "cannot set the attribute `security.capability` of `a`");
    }
    of_nobody[20] = 0;
    for form in [Form::Directory, Form::Image] {
        let mut host = Host::new();
        host.options.form = Some(form);
        host.unpack(&tar(&capability(&of_nobody))).unwrap();
    }
    let name = format!("user.{}", "n".repeat(251));
    assert_refused(&[directory("d").pax(&format!("SCHILY.xattr.{name}"), b"")], &format!("`{name}` of `d`"));
    assert_refused(&[file("a", "").pax("SCHILY.xattr.user.large", &[0; 65537])], "`user.large` of `a`");
    let many =
        (0..400).fold(file("many", ""), |file, number| file.pax(&format!("SCHILY.xattr.user.{number:0>200}"), b""));
    assert_refused(&[many], "of `many`");
}

#[test]
fn devices_that_there_cannot_be_are_refused() {
    for (major, minor) in [(4096, 0), (1, 1 << 20), (0, 1 << 20)] {
        for kind in [EntryType::Char, EntryType::Block] {
            assert_refused(&[device(kind, "a", major, minor)], &format!("`a` has no valid device: {major}:{minor}"));
        }
    }
}

#[test]
fn the_root_of_an_image_has_room_for_its_attributes() {
    let mut host = Host::new();
    host.options.form = Some(Form::Image);
    let value = [b'v'; 60_000];
    let root =
        ["a", "b"].iter().fold(directory("."), |root, name| root.pax(&format!("SCHILY.xattr.user.{name}"), &value));
    fs::write(host.path("rootfs.tar"), tar(&[root, file("in", "it")])).unwrap();
    let image = host.ensure(&ImageSource::Rootfs(host.path("rootfs.tar"))).unwrap();
    let tree = host.tree(&image.layers[0]);
    let mut read = vec![0; 70_000];
    for name in ["user.a", "user.b"] {
        let length = rustix::fs::getxattr(&tree, name, &mut read).unwrap();
        assert!(read[..length] == value);
    }
    assert_eq!(fs::read(tree.join("in")).unwrap(), b"it");
}

/// Who writes into a file that is open needs nothing of what making files needs.
#[test]
fn the_process_that_writes_an_image_has_no_capability() {
    let host = Host::new();
    for (image, expected) in [("image", 0), ("", 0x8820_001b_u64)] {
        let tree = host.path(&format!("tree{image}"));
        fs::create_dir(&tree).unwrap();
        let image = if image.is_empty() { "".into() } else { host.path(image) };
        let mut child = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
            .args(["internal-unpack".as_ref(), "layer".as_ref(), tree.as_os_str(), image.as_os_str()])
            .args(["/dev/null", "268435456", "1000", "1000"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let begin = Instant::now();
        loop {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            let sets = ["CapPrm", "CapEff"].map(|name| {
                let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:\t"))).unwrap();
                u64::from_str_radix(line, 16).unwrap()
            });
            if sets == [expected; 2] && status.contains("NoNewPrivs:\t1") {
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "{image:?}: {status}");
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Of more entries than an image may remember.
#[test]
fn a_layer_of_too_many_names_for_an_image_becomes_a_directory() {
    let mut host = Host::new();
    host.options.limits.memory = 16 << 20;
    let names = (0..60_000).map(|number| file(&format!("d/{number:0>250}"), ""));
    fs::write(host.path("rootfs.tar"), tar(&names.collect::<Vec<_>>())).unwrap();
    let image = host.ensure(&ImageSource::Rootfs(host.path("rootfs.tar"))).unwrap();
    let files = host.store.layer_path(&image.layers[0]);
    assert_eq!(files.file_name().unwrap(), "tree");
    assert_eq!(fs::read_dir(files.join("d")).unwrap().count(), 60_000);
    assert_eq!(host.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_sparse_file_of_an_image_takes_the_room_of_its_contents() {
    let host = Host::new();
    let hole = fs::File::create(host.path("hole")).unwrap();
    let places = [0, 5 << 20, 1 << 30, (3 << 30) - 5];
    for place in places {
        hole.write_all_at(b"some", place).unwrap();
    }
    hole.set_len(3 << 30).unwrap();
    let packed = Command::new("tar")
        .args(["-C", host.directory.path().to_str().unwrap(), "--sparse", "-cf", "-", "hole"])
        .output()
        .unwrap();
    let tree = host.unpack(&packed.stdout).unwrap();
    let file = fs::File::open(tree.join("hole")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 3 << 30);
    for place in places {
        let mut found = [0; 4];
        file.read_exact_at(&mut found, place).unwrap();
        assert_eq!(&found, b"some");
    }
    let image = host.store.find(&ImageSource::Rootfs(host.path("rootfs.tar"))).unwrap().unwrap();
    let metadata = fs::metadata(host.store.layer_path(&image.layers[0])).unwrap();
    assert!(metadata.blocks() * 512 < 1 << 20, "{} bytes", metadata.blocks() * 512);
}

#[test]
fn a_layer_is_an_image_where_the_host_mounts_such_from_files() {
    let named = |form| {
        let mut host = Host::new();
        host.options.form = form;
        host.unpack(&tar(&[file("a", "n")])).unwrap();
        let image = host.store.find(&ImageSource::Rootfs(host.path("rootfs.tar"))).unwrap().unwrap();
        let files = host.store.layer_path(&image.layers[0]);
        (files.file_name().unwrap().to_owned(), layer::mounted_from_file(&files).is_ok())
    };
    let is_mounted = named(Some(Form::Image)).1;
    let expected = if is_mounted { layer::IMAGE } else { "tree" };
    assert_eq!(named(None), (expected.into(), is_mounted));
}

/// Overlayfs counts the file systems that are stacked, and takes two. What is one already is taken once less.
#[test]
fn what_counts_as_a_level_of_overlays_is_no_layer() {
    let here = tempfile::tempdir().unwrap();
    for name in trial::STACK.iter().chain(&["over", "a", "b"]) {
        fs::create_dir(here.path().join(name)).unwrap();
    }
    let path = |name: &str| here.path().join(name);
    let options = format!("lowerdir={}:{}", path("a").display(), path("b").display());
    let options = std::ffi::CString::new(options).unwrap();
    rustix::mount::mount("overlay", path("over"), "overlay", MountFlags::RDONLY, options.as_c_str()).unwrap();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let roots = ["over", "a"].map(|name| open_tree(CWD, path(name), flags).unwrap());
    unmount(path("over"), UnmountFlags::DETACH).unwrap();
    assert_eq!(roots.map(|root| trial::is_stacked(root, here.path())), [false, true]);
}

/// Where the kernel mounts no image, nobody is asked to.
#[test]
fn on_a_file_system_that_holds_no_images_layers_are_directories() {
    let host = Host::new();
    let place = host.path("state");
    fs::create_dir(&place).unwrap();
    rustix::mount::mount("tmpfs", &place, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    let unpacked = host.unpack(&tar(&[file("a", "n")]));
    let found =
        unpacked.map(|tree| (fs::read_to_string(tree.join("a")).unwrap(), tree.file_name().unwrap().to_owned()));
    rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(found.unwrap(), ("n".to_owned(), "tree".into()));
}

/// As after the boot of an older kernel, which mounts no image from its file.
#[test]
fn an_image_that_is_there_is_read_where_only_devices_are_mounted() {
    let mut host = Host::new();
    host.options.form = Some(Form::Image);
    let place = host.path("state");
    fs::create_dir(&place).unwrap();
    rustix::mount::mount("tmpfs", &place, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    fs::write(host.path("rootfs.tar"), tar(&[file("a", "n")])).unwrap();
    let image = host.ensure(&ImageSource::Rootfs(host.path("rootfs.tar")));
    let found = image.map(|image| {
        let files = host.store.layer_path(&image.layers[0]);
        let from_file = layer::mounted_from_file(&files).map(drop).unwrap_err().raw_os_error();
        let root = layer::open(&files).unwrap();
        let read = fs::read_to_string(format!("/proc/self/fd/{}/a", root.as_raw_fd())).unwrap();
        let devices = || {
            let backing = fs::read_dir("/sys/block").unwrap().flatten();
            let of = backing.filter_map(|block| fs::read_to_string(block.path().join("loop/backing_file")).ok());
            of.filter(|file| file.contains(place.to_str().unwrap())).count()
        };
        let during = devices();
        drop(root);
        (files.file_name().unwrap().to_owned(), from_file, read, during, devices())
    });
    host.store.detach_layers_but(&Default::default()).unwrap();
    rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(found.unwrap(), (layer::IMAGE.into(), Some(libc::ENOTBLK), "n".to_owned(), 1, 0));
}

/// A window that does not fit is no damage, and one that nobody reads is named.
#[test]
fn a_window_that_needs_too_much_memory_is_said_to() {
    let compressed = |log: u32| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(&tar(&[file("a", &"contents ".repeat(1000))])).unwrap();
        encoder.finish().unwrap()
    };
    let mut host = Host::new();
    host.unpack(&compressed(27)).unwrap();
    let error = host.unpack(&compressed(28)).unwrap_err().to_string();
    assert!(error.contains("a window larger than 128 MiB"), "{error}");
    host.options.limits.memory = 64 << 20;
    let error = host.unpack(&compressed(27)).unwrap_err().to_string();
    assert!(error.contains("it needs more memory than the limit allows"), "{error}");
}

/// A file in place of a directory of many: what was in them is kept in one order, whatever that of the file system is.
#[test]
fn a_stream_has_one_recipe() {
    let mut members = vec![directory("d")];
    members.extend((0..200).map(|number| file(&format!("d/{number}"), &format!("contents {number}"))));
    members.push(file("d", "a file"));
    let recipes = [Form::Directory, Form::Image].map(|form| {
        let mut host = Host::new();
        host.options.form = Some(form);
        host.unpack(&tar(&members)).unwrap();
        let image = host.store.find(&ImageSource::Rootfs(host.path("rootfs.tar"))).unwrap().unwrap();
        fs::read(host.store.layer_path(&image.layers[0]).with_file_name("recipe.zst")).unwrap()
    });
    assert!(recipes[0] == recipes[1]);
}
