//! Layers, good, odd and hostile: what becomes of them on disk.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use evenkeel::engine::image::store::session::Form;
use evenkeel::model::image::{ImageSource, Pull};
use tar::EntryType;

use crate::support::*;

/// What is at a path, in a word.
fn kind(path: &Path) -> String {
    let Ok(metadata) = fs::symlink_metadata(path) else { return "nothing".to_owned() };
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() && xattr(path, "trusted.overlay.opaque").is_some() => "opaque directory".to_owned(),
        () if kind.is_dir() => "directory".to_owned(),
        () if kind.is_symlink() => format!("-> {}", fs::read_link(path).unwrap().display()),
        () if kind.is_char_device() && metadata.rdev() == 0 => "whiteout".to_owned(),
        () if kind.is_char_device() => "character device".to_owned(),
        () if kind.is_block_device() => "block device".to_owned(),
        () if kind.is_fifo() => "fifo".to_owned(),
        () => format!("`{}`", String::from_utf8_lossy(&fs::read(path).unwrap())),
    }
}

/// Each case: its members, then what is where.
#[track_caller]
fn check(case: &str, members: &[Member], expected: &[(&str, &str)]) {
    let host = Host::new();
    let tree = host.unpack(&tar(members)).unwrap_or_else(|error| panic!("{case}: {error}"));
    for (path, what) in expected {
        assert_eq!(kind(&tree.join(path)), *what, "{case}: {path}");
    }
    assert_eq!(host.leftovers(), Vec::<PathBuf>::new(), "{case}");
}

#[test]
fn whiteouts_work_in_every_order() {
    let opaque = ".wh..wh..opq";
    check("alone", &[directory("a"), file("a/.wh.b", "")], &[("a", "directory"), ("a/b", "whiteout")]);
    check("parent implied", &[file("a/.wh.b", "")], &[("a", "directory"), ("a/b", "whiteout")]);
    check(
        "then a directory",
        &[file(".wh.a", ""), directory("a"), file("a/new", "n")],
        &[("a", "opaque directory"), ("a/new", "`n`")],
    );
    check("then an implied directory", &[file(".wh.a", ""), file("a/new", "n")], &[("a", "opaque directory")]);
    check("after a directory", &[directory("a"), file("a/new", "n"), file(".wh.a", "")], &[("a", "opaque directory")]);
    check("then a file", &[file(".wh.a", ""), file("a", "n")], &[("a", "`n`")]);
    check("after a file", &[file("a", "n"), file(".wh.a", "")], &[("a", "`n`")]);
    check("as a hard link", &[file("x", ""), hard_link(".wh.a", "x")], &[("a", "whiteout")]);
    check("twice", &[file(".wh.a", ""), file(".wh.a", "")], &[("a", "whiteout")]);
    check(
        "opaque first",
        &[file(&format!("a/{opaque}"), ""), file("a/b", "n")],
        &[("a", "opaque directory"), ("a/b", "`n`")],
    );
    check(
        "opaque last",
        &[file("a/b", "n"), file(&format!("a/{opaque}"), "")],
        &[("a", "opaque directory"), ("a/b", "`n`")],
    );
    check(
        "opaque before its directory",
        &[file(&format!("a/{opaque}"), ""), directory("a")],
        &[("a", "opaque directory")],
    );
    check(
        "aufs",
        &[file(".wh..wh.plnk", ""), file(".wh..wh.aufs", "")],
        &[(".wh..wh.plnk", "nothing"), ("plnk", "nothing")],
    );
    check("a file in between", &[directory("a"), file("a", "n"), directory("a")], &[("a", "opaque directory")]);
}

#[test]
fn a_whiteout_without_a_name_is_refused() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh.."] {
        let error = Host::new().unpack(&tar(&[directory("a"), file(name, "")])).unwrap_err().to_string();
        assert!(error.contains("whiteout without a name"), "{name}: {error}");
    }
}

#[test]
fn names_stay_inside_the_root() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("victim"), "before").unwrap();
    let path = outside.path().to_str().unwrap();
    let mode = outside.path().metadata().unwrap().mode();
    let victim = format!("{path}/victim");
    let inside = victim.trim_start_matches('/').to_owned();
    let deep = format!("{}{inside}", "../".repeat(20));
    for (case, members) in [
        ("absolute", vec![file(&victim, "after")]),
        ("upwards", vec![file(&deep, "after")]),
        ("through an absolute link", vec![symlink("out", path), file("out/victim", "after")]),
        ("through a relative link", vec![symlink("out", &"../".repeat(20)), file(&format!("out/{inside}"), "after")]),
        ("hard link to the outside", vec![file(&inside, "x"), hard_link("h", &victim), file("h", "after")]),
        ("link in place of a file", vec![symlink("f", &victim), file("f", "after")]),
        ("link in place of a directory", vec![symlink("d", path), directory("d"), file("d/victim", "after")]),
        ("whiteout through a link", vec![symlink("out", path), file("out/.wh.victim", "")]),
        ("opaque through a link", vec![symlink("out", path), file("out/.wh..wh..opq", "")]),
        ("directory attributes through a link", vec![symlink("out", path), directory("out/.").mode(0o777)]),
        ("through proc", vec![symlink("out", "/proc/1/root"), file(&format!("out{victim}"), "after")]),
    ] {
        let host = Host::new();
        let unpacked = host.unpack(&tar(&members));
        assert_eq!(fs::read_to_string(outside.path().join("victim")).unwrap(), "before", "{case}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{case}");
        assert_eq!(outside.path().metadata().unwrap().mode(), mode, "{case}");
        assert_eq!(xattr(outside.path(), "trusted.overlay.opaque"), None, "{case}");
        assert!(unpacked.is_ok(), "{case}: {:?}", unpacked.err());
    }
}

#[test]
fn links_on_the_way_are_followed_as_in_the_container() {
    check(
        "usr-merge",
        &[directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib"), file("lib/x", "n"), directory("lib/d")],
        &[("lib", "-> usr/lib"), ("usr/lib/x", "`n`"), ("usr/lib/d", "directory")],
    );
    check("absolute", &[directory("b"), symlink("a", "/b"), file("a/x", "n")], &[("b/x", "`n`"), ("a", "-> /b")]);
    check("dangling", &[symlink("lib", "usr/lib"), file("lib/x", "n")], &[("usr/lib/x", "`n`")]);
    check(
        "chain",
        &[symlink("a", "b"), symlink("b", "c/../d"), file("a/x", "n")],
        &[("d/x", "`n`"), ("c", "directory")],
    );
    check(
        "replaced by a directory",
        &[symlink("a", "b"), directory("a"), file("a/x", "n")],
        &[("a/x", "`n`"), ("b", "nothing")],
    );
    let error = Host::new().unpack(&tar(&[symlink("a", "b"), symlink("b", "a"), file("a/x", "n")])).unwrap_err();
    assert!(error.to_string().contains("Too many levels"), "{error}");
    let error = Host::new().unpack(&tar(&[file("a", ""), file("a/x", "n")])).unwrap_err();
    assert!(error.to_string().contains("Not a directory"), "{error}");
}

#[test]
fn hard_links_share_their_file() {
    let host = Host::new();
    let members = [
        file("a", "one"),
        hard_link("b", "a"),
        hard_link("c", "/./b"),
        symlink("s", "a"),
        hard_link("t", "s"),
        directory("d"),
        symlink("e", "d"),
        hard_link("e/x", "a"),
        hard_link("a", "b"),
    ];
    let tree = host.unpack(&tar(&members)).unwrap();
    let inode = |name: &str| fs::symlink_metadata(tree.join(name)).unwrap().ino();
    assert!(["b", "c", "d/x"].iter().all(|name| inode(name) == inode("a")));
    assert_eq!((inode("t"), kind(&tree.join("t"))), (inode("s"), "-> a".to_owned()));
    for (case, members) in [
        ("missing", vec![hard_link("b", "a")]),
        ("directory", vec![directory("a"), hard_link("b", "a")]),
        ("whiteout", vec![file(".wh.a", ""), hard_link("b", "a")]),
        ("root", vec![hard_link("b", "/")]),
    ] {
        let error = Host::new().unpack(&tar(&members)).unwrap_err().to_string();
        assert!(error.contains("not in this layer"), "{case}: {error}");
    }
}

#[test]
fn owners_modes_times_and_attributes_are_kept() {
    let host = Host::new();
    // The capability's bytes hold a newline, which a careless reader of PAX records takes for an end.
    let capability = [1, 0, 0, 2, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let members = [
        directory("./").mode(0o711).owner(5, 6),
        directory("d").mode(0o2751).owner(1000, 2_000_000_000),
        file("d/suid", "x").mode(0o4755).owner(1000, 1001).pax("mtime", b"1234567890.123456789"),
        file("d/capable", "x").owner(7, 8).pax("SCHILY.xattr.security.capability", &capability),
        file("d/user", "x").pax("SCHILY.xattr.user.note", b"hi").pax("SCHILY.xattr.security.selinux", b"label"),
        directory("d/redirect").pax("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        directory("d/sticky").mode(0o1777).pax("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        symlink("d/s", "nowhere").owner(3, 4).pax("mtime", b"-1.25"),
        file("d/big-owner", "").pax("uid", b"4000000000"),
        device(EntryType::Char, "d/null", 1, 3).mode(0o666).owner(1, 2),
        device(EntryType::Block, "d/sda", 8, 0).mode(0o660),
        member(EntryType::Fifo, "d/fifo").mode(0o600),
        file("d/after", ""),
    ];
    let tree = host.unpack(&tar(&members)).unwrap();
    let stat = |name: &str| fs::symlink_metadata(tree.join(name)).unwrap();
    let owner = |name: &str| (stat(name).mode() & 0o7777, stat(name).uid(), stat(name).gid());
    assert_eq!(owner(""), (0o711, 5, 6));
    assert_eq!(owner("d"), (0o2751, 1000, 2_000_000_000));
    assert_eq!(owner("d/suid"), (0o4755, 1000, 1001));
    assert_eq!(owner("d/after"), (0o644, 0, 0), "the group of a set-group-ID directory is not inherited");
    assert_eq!((stat("d/suid").mtime(), stat("d/suid").mtime_nsec()), (1_234_567_890, 123_456_789));
    assert_eq!((stat("d/s").mtime(), stat("d/s").mtime_nsec(), stat("d/s").uid()), (-2, 750_000_000, 3));
    assert_eq!(stat("d").mtime(), 1_000_000_000, "a directory's time is set after its contents");
    assert_eq!(stat("d/big-owner").uid(), 4_000_000_000);
    assert_eq!(xattr(&tree.join("d/capable"), "security.capability").unwrap(), capability);
    assert_eq!(xattr(&tree.join("d/user"), "user.note").unwrap(), b"hi");
    assert_eq!(xattr(&tree.join("d/user"), "security.selinux"), None);
    assert_eq!(xattr(&tree.join("d/redirect"), "trusted.overlay.redirect"), None);
    assert_eq!(xattr(&tree.join("d/sticky"), "trusted.overlay.opaque"), None);
    assert_eq!(owner("d/sticky").0, 0o1777);
    assert_eq!((owner("d/null"), stat("d/null").rdev()), ((0o666, 1, 2), rustix::fs::makedev(1, 3)));
    assert_eq!((kind(&tree.join("d/sda")), kind(&tree.join("d/fifo"))), ("block device".into(), "fifo".into()));
}

#[test]
fn odd_archives_are_read_as_others_read_them() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    check("long PAX name", &[file(&long, "n")], &[(&long, "`n`")]);
    check("last duplicate", &[file("a", "1"), file("a", "2")], &[("a", "`2`")]);
    check("directory for file", &[directory("a"), file("a/b", ""), file("a", "2")], &[("a", "`2`")]);
    check("old directory", &[file("a/", "")], &[("a", "directory")]);
    let mut contiguous = file("a", "n");
    contiguous.header.set_entry_type(EntryType::Continuous);
    check("contiguous", &[contiguous], &[("a", "`n`")]);
    let mut global = file("pax_global_header", "11 path=b\n");
    global.header.set_entry_type(EntryType::XGlobalHeader);
    check(
        "global header",
        &[global, file("a", "n")],
        &[("a", "`n`"), ("b", "nothing"), ("pax_global_header", "nothing")],
    );
    let mut sized = symlink("s", "t");
    sized.header.set_size(512);
    check("a link with a size", &[sized, file("a", "n")], &[("s", "-> t"), ("a", "`n`")]);
    check("PAX size", &[file("a", "n").pax("size", b"1"), file("b", "m")], &[("a", "`n`"), ("b", "`m`")]);
    check("nothing", &[], &[("", "directory")]);
    check(
        "user attributes where there are none",
        &[
            symlink("s", "t").pax("SCHILY.xattr.user.a", b"1"),
            member(EntryType::Fifo, "p").pax("SCHILY.xattr.user.a", b"1"),
        ],
        &[("s", "-> t"), ("p", "fifo")],
    );
    // Whatever comes second stays.
    type Make = fn(&str) -> Member;
    let kinds: [(&str, Make); 6] = [
        ("`n`", |name| file(name, "n")),
        ("directory", directory),
        ("-> t", |name| symlink(name, "t")),
        ("fifo", |name| member(EntryType::Fifo, name)),
        ("character device", |name| device(EntryType::Char, name, 1, 3)),
        ("`linked`", |name| hard_link(name, "linked")),
    ];
    for (first, make_first) in kinds {
        for (second, make_second) in kinds {
            let members = [file("linked", "linked"), make_first("a"), make_second("a")];
            // A directory that replaces something hides what is below that.
            let expected = if second == "directory" && first != second { "opaque directory" } else { second };
            check(&format!("{first}, then {second}"), &members, &[("a", expected), ("linked", "`linked`")]);
        }
    }
}

#[test]
fn gnu_archives_are_read() {
    let host = Host::new();
    let from = host.path("from");
    fs::create_dir(&from).unwrap();
    let long = "n".repeat(180);
    fs::write(from.join(&long), "long").unwrap();
    let sparse = fs::File::create(from.join("sparse")).unwrap();
    for (at, text) in [(0u64, "begin"), (1 << 20, "middle"), ((3 << 20) - 3, "end")] {
        std::os::unix::fs::FileExt::write_all_at(&sparse, text.as_bytes(), at).unwrap();
    }
    let wanted = fs::read(from.join("sparse")).unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=1.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=0.0"],
    ] {
        let made = std::process::Command::new("tar")
            .args(format)
            .args(["--sparse", "-C"])
            .arg(&from)
            .args(["-cf", "-", "."])
            .output();
        let made = made.unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let tree = host.unpack(&made.stdout).unwrap_or_else(|error| panic!("{format:?}: {error}"));
        assert_eq!(fs::read_to_string(tree.join(&long)).unwrap(), "long", "{format:?}");
        assert!(fs::read(tree.join("sparse")).unwrap() == wanted, "{format:?}");
        let file = fs::File::open(tree.join("sparse")).unwrap();
        let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap();
        assert!(hole < 1 << 20, "{format:?}: holes stay holes");
    }
}

#[test]
fn layers_that_lie_or_are_damaged_leave_nothing() {
    let good = tar(&[file("a", &"x".repeat(5000)), file("b", "y")]);
    let mut lying = tar(&[file("a", "x")]);
    lying.truncate(1024);
    let mut size = file("a", "x");
    size.header.set_size(1 << 30);
    let mut checksum = good.clone();
    checksum[10] ^= 1;
    let deep = "d/".repeat(400);
    let mut big = tar(&[]);
    big.truncate(0);
    let mut header = member(EntryType::XHeader, "pax").header;
    header.set_size(512 << 20);
    header.set_cksum();
    big.extend_from_slice(header.as_bytes());
    big.resize(64 << 20, b' ');
    for (case, bytes, expected) in [
        ("truncated", good[..1000].to_vec(), "ends within a member"),
        ("body missing", [&lying[..512], &[]].concat(), "ends within a member"),
        ("size", tar_with_short_body(size), "ends within a member"),
        ("checksum", checksum, "checksum"),
        ("gzip cut", gzip(&good)[..60].to_vec(), "ends early"),
        ("zstd cut", zstd(&good)[..30].to_vec(), "ends early"),
        ("gzip without its checksum", gzip(&good)[..gzip(&good).len() - 8].to_vec(), "ends early"),
        ("gzip with a wrong checksum", wrong_checksum(gzip(&good)), "damaged"),
        ("zstd without its end", zstd(&good)[..zstd(&good).len() - 1].to_vec(), "ends early"),
        ("gzip damaged", [&gzip(&good)[..40], &[0; 40]].concat(), "damaged"),
        ("deep", tar(&[file(&format!("{deep}f"), "")]), "deeper than"),
        (
            "deep enough for any stack",
            tar(&[file("f", "").pax("path", "d/".repeat(500_000).as_bytes())]),
            "deeper than",
        ),
        ("deep hard link", tar(&[hard_link("f", &format!("{}g", "d/".repeat(400)))]), "deeper than"),
        (
            "negative size",
            tar_with_short_body(sized(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")),
            "no valid size",
        ),
        (
            "size beyond all numbers",
            tar_with_short_body(sized(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")),
            "no valid size",
        ),
        ("PAX size", tar(&[file("a", "x").pax("size", b"9999")]), "ends within a member"),
        ("negative PAX size", tar(&[file("a", "x").pax("size", b"-1")]), "`size=-1`"),
        ("sparse beyond its end", sparse("0,1,4096,1", "4096"), "sparse file is malformed"),
        ("sparse with other contents", sparse("0,9", "4096"), "sparse file is malformed"),
        ("sparse backwards", sparse("4096,1,0,1", "8192"), "sparse file is malformed"),
        ("sparse beyond all numbers", sparse("18446744073709551615,2", "8192"), "sparse file is malformed"),
        ("only a header", tar(&[member(EntryType::XHeader, "x")]), "describes a further member"),
        ("no tar", vec![b'x'; 4096], "checksum"),
        ("xz cut", xz(&tar(&[file("a", "x")]), "--lzma2")[..60].to_vec(), "ends early"),
        ("xz with a large dictionary", xz(&tar(&[file("a", "x")]), "--lzma2=dict=192MiB"), "larger than 128 MiB"),
        ("bzip2", b"BZh91AY&SY".to_vec(), "compressed with bzip2"),
        ("zero in a name", tar(&[file("a", "").pax("path", b"a\0b")]), "zero byte"),
        ("PAX damaged", tar(&[file("a", "").pax("mtime", b"soon")]), "modification time"),
        ("PAX bomb", gzip(&big), "longer than"),
        ("unknown kind", tar(&[member(EntryType::new(b'Q'), "a")]), "unknown kind"),
    ] {
        let host = Host::new();
        let error = host.unpack(&bytes).expect_err(case).to_string();
        assert!(error.contains(expected), "{case}: {error}");
        assert_eq!((host.leftovers(), host.layers()), (vec![], vec![]), "{case}");
        assert!(host.store.catalogue().unwrap().is_empty(), "{case}");
    }
}

/// By xz(1), with this filter.
pub fn xz(bytes: &[u8], filter: &str) -> Vec<u8> {
    let mut child = std::process::Command::new("xz");
    child.args(["-c", filter]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = child.spawn().expect("xz is installed");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), bytes).unwrap();
    let made = child.wait_with_output().unwrap();
    assert!(made.status.success());
    made.stdout
}

#[test]
fn layers_that_xz_made_are_layers() {
    let text = "line\n".repeat(10_000);
    let plain = tar(&[directory("d"), file("d/a", &text)]);
    for filter in ["-0", "-9e", "--lzma2=dict=128MiB"] {
        let host = Host::new();
        let tree = host.unpack(&xz(&plain, filter)).unwrap_or_else(|error| panic!("{filter}: {error}"));
        assert_eq!(fs::read_to_string(tree.join("d/a")).unwrap(), text, "{filter}");
    }
}

/// The last eight bytes are CRC-32 and length of what was compressed (RFC 1952, 2.3).
fn wrong_checksum(mut gzip: Vec<u8>) -> Vec<u8> {
    let at = gzip.len() - 8;
    gzip[at] ^= 1;
    gzip
}

/// A file whose header has this for its size.
fn sized(field: &[u8; 12]) -> Member {
    let mut member = file("a", "x");
    member.header.as_old_mut().size = *field;
    member
}

/// A sparse file of version 0.1 whose two bytes this map puts into a file of this length.
fn sparse(map: &str, length: &str) -> Vec<u8> {
    tar(&[file("a", "ab").pax("GNU.sparse.map", map.as_bytes()).pax("GNU.sparse.size", length.as_bytes())])
}

fn tar_with_short_body(mut member: Member) -> Vec<u8> {
    member.header.set_cksum();
    [member.header.as_bytes().as_slice(), &[0; 512]].concat()
}

#[test]
fn a_bomb_meets_the_limits() {
    let mut host = Host::new();
    host.options.limits.content = 1 << 20;
    let bomb = gzip(&tar(&[file("a", &"\0".repeat(2 << 20))]));
    let error = host.unpack(&bomb).unwrap_err().to_string();
    assert!(error.contains("more than the 1048576 bytes allowed"), "{error}");
    // Nothing but padding after the end, or the body of a header that nobody reads, makes no file and still takes time.
    let padding = [tar(&[]), vec![0; 40 << 20]].concat();
    let mut global = member(EntryType::XGlobalHeader, "g");
    global.header.set_size(40 << 20);
    let header = tar_with_short_body(global);
    host.options.limits.entries = 100;
    for bytes in [padding.clone(), [header, vec![0; 40 << 20]].concat()] {
        let error = host.unpack(&gzip(&bytes)).unwrap_err().to_string();
        assert!(error.contains("more bytes beside its files than are allowed"), "{error}");
    }
    fs::write(host.path("archive.tar"), gzip(&padding)).unwrap();
    let error = host.ensure(&ImageSource::Archive(host.path("archive.tar").into())).unwrap_err().to_string();
    assert!(error.contains("it inflates to more than"), "{error}");
    host.options.limits.entries = 3;
    let many: Vec<Member> = (0..4).map(|n| file(&format!("f{n}"), "")).collect();
    let error = host.unpack(&tar(&many)).unwrap_err().to_string();
    assert!(error.contains("more than the 3 members allowed"), "{error}");
    assert_eq!((host.leftovers(), host.layers()), (vec![], vec![]));
}

#[test]
fn a_layer_is_written_again_to_the_byte() {
    for form in [Form::Image, Form::Directory] {
        written_again(form);
    }
}

fn written_again(form: Form) {
    let mut host = Host::new();
    host.options.form = Some(form);
    let sparse = {
        fs::write(host.path("hole"), "begin").unwrap();
        let hole = fs::File::options().write(true).open(host.path("hole")).unwrap();
        std::os::unix::fs::FileExt::write_at(&hole, b"end", 10 << 20).unwrap();
        hole.set_len(20 << 20).unwrap();
        let packed = std::process::Command::new("tar")
            .args(["-C", host.directory.path().to_str().unwrap(), "--sparse", "-cf", "-", "hole"])
            .output()
            .unwrap();
        assert!(packed.status.success());
        packed.stdout
    };
    // Files that later members replace, one by one and with their directory, by themselves and by their other names.
    let members = tar(&[
        file("a", "first"),
        hard_link("b", "a"),
        file("a", "second"),
        file("b", "third"),
        file("d/one", "lost with its directory"),
        hard_link("d/two", "a"),
        symlink("d", "elsewhere"),
        file("hole", "this replaces the sparse one"),
        file("a", "last"),
        file(".wh.gone", "a whiteout with a body"),
        file("usr/lib/x", "first"),
        symlink("lib", "usr/lib"),
        file("lib/x", "through a link"),
    ]);
    // Without what ends an archive: a header and a body.
    let size = u64::from_str_radix(str::from_utf8(&sparse[124..135]).unwrap(), 8).unwrap() as usize;
    let stream = [&sparse[..512 + size.next_multiple_of(512)], &members, b"after the end"].concat();
    let tree = host.unpack(&stream).unwrap();
    assert_eq!((kind(&tree.join("a")), kind(&tree.join("d"))), ("`last`".to_owned(), "-> elsewhere".to_owned()));
    let image = host.store.find(&ImageSource::Rootfs(host.path("rootfs.tar"))).unwrap().unwrap();
    let mut written = Vec::new();
    let size = host.store.write_layer(&image.layers[0], &mut written).unwrap();
    assert!(written == stream, "{} bytes of {}", written.len(), stream.len());
    assert_eq!(size, stream.len() as u64);
    let recipe = fs::metadata(tree.with_file_name("recipe.zst")).unwrap().len();
    assert!(recipe < 2000, "what is in the tree is not in the recipe: {recipe} bytes");

    if form == Form::Image {
        let error = fs::write(tree.join("a"), "LAST").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        return;
    }
    // A tree that somebody changed is not passed off as the layer.
    fs::write(tree.join("a"), "LAST").unwrap();
    let error = host.store.write_layer(&image.layers[0], &mut std::io::sink()).unwrap_err();
    assert!(matches!(error, evenkeel::engine::image::ImageError::Unrepeatable { .. }), "{error}");
    fs::remove_file(tree.join("a")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", tree.join("a")).unwrap();
    host.store.write_layer(&image.layers[0], &mut std::io::sink()).unwrap_err();
}

#[test]
fn every_compression_gives_the_same_layer() {
    let plain = tar(&[file("a", "n")]);
    let host = Host::new();
    let trees = [plain.clone(), gzip(&plain), zstd(&plain)].map(|bytes| host.unpack(&bytes).unwrap());
    assert!(trees.iter().all(|tree| *tree == trees[0]));
    assert_eq!(host.layers().len(), 1);
}

#[test]
fn a_directory_becomes_an_image_that_is_stable() {
    let host = Host::new();
    let from = host.path("from");
    fs::create_dir_all(from.join("bin")).unwrap();
    fs::write(from.join("bin/a"), "tool").unwrap();
    fs::hard_link(from.join("bin/a"), from.join("bin/b")).unwrap();
    std::os::unix::fs::symlink("a", from.join("bin/c")).unwrap();
    std::os::unix::fs::chown(from.join("bin/a"), Some(33), Some(44)).unwrap();
    rustix::fs::lsetxattr(from.join("bin/a"), "user.note", b"hi\nthere", rustix::fs::XattrFlags::empty()).unwrap();
    let device = (rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    rustix::fs::mknodat(rustix::fs::CWD, from.join("null"), device.0, rustix::fs::Mode::from_raw_mode(0o666), device.1)
        .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
    fs::write(from.join("l".repeat(200)), "long").unwrap();
    let source = ImageSource::Rootfs(from.clone());
    let moved = |host: &Host| image_moved(host, &source);

    let image = host.ensure(&source).unwrap();
    let tree = host.tree(&image.layers[0]);
    let stat = |name: &str| fs::symlink_metadata(tree.join(name)).unwrap();
    assert_eq!(stat("bin/a").ino(), stat("bin/b").ino());
    assert_eq!((stat("bin/b").uid(), stat("bin/b").gid()), (33, 44));
    assert_eq!(stat("bin/a").mtime_nsec(), fs::metadata(from.join("bin/a")).unwrap().mtime_nsec());
    assert_eq!(stat("bin").mtime_nsec(), fs::metadata(from.join("bin")).unwrap().mtime_nsec());
    assert_eq!(kind(&tree.join("bin/c")), "-> a");
    assert_eq!(xattr(&tree.join("bin/a"), "user.note").unwrap(), b"hi\nthere");
    assert_eq!((stat("null").rdev(), kind(&tree.join("socket"))), (device.1, "nothing".to_owned()));
    assert_eq!(fs::read_to_string(tree.join("l".repeat(200))).unwrap(), "long");

    assert_eq!(moved(&host), None);
    assert_eq!(host.ensure(&source).unwrap(), image);
    // The same contents by another name are the same image.
    let other = Host::new();
    let copied = std::process::Command::new("cp").arg("-a").arg(&from).arg(other.path("copy")).status().unwrap();
    assert!(copied.success());
    assert_eq!(other.ensure(&ImageSource::Rootfs(other.path("copy"))).unwrap().id, image.id);
    // An edit that keeps size and time is seen all the same.
    let before = fs::metadata(from.join("bin/a")).unwrap().modified().unwrap();
    fs::write(from.join("bin/a"), "t00l").unwrap();
    fs::File::options().write(true).open(from.join("bin/a")).unwrap().set_modified(before).unwrap();
    assert_eq!(moved(&host).unwrap(), "something in it was modified");
    assert_ne!(host.ensure(&source).unwrap().id, image.id);
    assert_eq!(moved(&host), None);
}

fn image_moved(host: &Host, source: &ImageSource) -> Option<String> {
    evenkeel::engine::image::observe(&host.store, source, Pull::Missing, &host.options).unwrap().moved
}

#[test]
fn what_is_unused_goes_and_what_is_used_stays() {
    let host = Host::new();
    let source = ImageSource::Rootfs(host.path("rootfs.tar"));
    let old = host.unpack(&tar(&[file("a", "1")])).unwrap();
    let old_image = host.store.find(&source).unwrap().unwrap();
    let new = host.unpack(&tar(&[file("a", "2")])).unwrap();
    let new_image = host.store.find(&source).unwrap().unwrap();
    host.keep_only(&[&old_image, &new_image]).unwrap();
    assert!(old.exists() && new.exists());
    // One that cannot be read may be in use: nothing goes.
    let record = host.path("state/images/ids").join(format!("{}.json", old_image.id.hex()));
    let whole = fs::read(&record).unwrap();
    fs::write(&record, "{").unwrap();
    let refused = host.keep_only(&[&new_image]).unwrap_err().to_string();
    assert!(refused.contains(record.to_str().unwrap()), "{refused}");
    fs::write(&record, whole).unwrap();
    assert!(old.exists() && new.exists(), "nothing went");
    assert_eq!(host.store.known(&old_image.id).unwrap().unwrap(), old_image);
    host.keep_only(&[&new_image]).unwrap();
    assert!(!old.exists() && new.exists());
    assert_eq!(host.store.known(&old_image.id).unwrap(), None);
    assert_eq!(host.store.find(&source).unwrap().unwrap(), new_image);
    host.store.remove(&source).unwrap();
    assert_eq!(host.store.find(&source).unwrap(), None);
    assert!(new.exists(), "a name is not its contents");
    host.keep_only(&[]).unwrap();
    assert_eq!((host.layers(), host.leftovers()), (vec![], vec![]));
    assert_eq!(fs::read_dir(host.path("state/images/blobs/sha256")).unwrap().count(), 0);
}
