//! Layers one on the other: what a container sees is what umoci makes of the same image, which unpacks each layer onto the
//! ones below as the specification tells it (OCI image-spec, layer.md "Applying Changesets").

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use evenkeel::model::image::ImageSource;
use tar::EntryType;

use crate::made::*;
use crate::support::*;

/// Kind, mode, owner, target, time (not of directories: they are times of unpacking where nobody says one), path; then
/// what is in the files, which devices are meant, extended attributes, and which names are one file (their number would
/// be wrong: overlayfs counts names that an upper layer hides).
const LISTING: &str = r#"
    find . -mindepth 1 -printf '%P %y %m %U:%G %l' \( -type d -printf '\n' -o -printf ' %T@\n' \) | LC_ALL=C sort
    find . -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum
    find . -type b,c -print0 | LC_ALL=C sort -z | xargs -0r stat -c '%n %t:%T'
    find . -print0 | LC_ALL=C sort -z | python3 -c 'import collections, os, stat, sys
files = collections.defaultdict(list)
for path in filter(None, sys.stdin.buffer.read().split(bytes(1))):
    for name in os.listxattr(path, follow_symlinks=False):
        print(path, name, os.getxattr(path, name, follow_symlinks=False).hex())
    what = os.lstat(path)
    if not stat.S_ISDIR(what.st_mode):
        files[what.st_dev, what.st_ino].append(path)
for names in files.values():
    if len(names) > 1:
        print(names)'
"#;

/// The listing of what is at `path` once `before` was done, in a mount namespace of its own.
fn listing(before: &str, path: &Path) -> String {
    let script = format!("set -e; {before}\ncd '{}'\n{LISTING}", path.display());
    let done = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// The image of these layers as a container would see it, and as umoci unpacks it.
fn both(case: &str, layers: &[Vec<Member>]) -> (String, String) {
    let host = Host::new();
    let layers: Vec<Layer> = layers.iter().map(|members| layer(LAYER_GZIP, tar(members))).collect();
    let made = image(MANIFEST, "amd64", &layers);
    let from = layout(&host.path("layout"), &made.manifest, &made.blobs());
    let image =
        host.ensure(&ImageSource::Archive(archive(&host, &from).into())).unwrap_or_else(|e| panic!("{case}: {e}"));
    // Overlayfs wants two layers at least.
    let empty = host.path("empty");
    fs::create_dir(&empty).unwrap();
    let trees: Vec<PathBuf> = image.layers.iter().rev().map(|layer| host.tree(layer)).collect();
    let trees = evenkeel::runtime::rootfs::distinct(&trees.into_iter().chain([empty]).rev().collect::<Vec<_>>());
    let lower: Vec<String> = trees.iter().rev().map(|tree| tree.display().to_string()).collect();
    let mounted = host.path("mounted");
    fs::create_dir(&mounted).unwrap();
    let mount = format!("mount -t overlay overlay -o ro,lowerdir={} '{}'", lower.join(":"), mounted.display());
    let here = listing(&mount, &mounted);
    let (unpacked, from) = (host.path("unpacked"), format!("{}:latest", from.display()));
    let done = Command::new("umoci").args(["raw", "unpack", "--image", &from]).arg(&unpacked).output().unwrap();
    assert!(done.status.success(), "{case}: {}", String::from_utf8_lossy(&done.stderr));
    // And as whoever wants no container gets it.
    let flat = host.path("flat");
    let mut evenkeel = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    evenkeel.arg("--root").arg(host.path("state")).arg("--run").arg(host.path("run")).args(["image", "unpack"]);
    let done = evenkeel.arg(host.path("image.tar")).arg(&flat).output().unwrap();
    assert!(done.status.success(), "{case}: {}", String::from_utf8_lossy(&done.stderr));
    let flat = listing("", &flat);
    assert!(here == flat, "{case}: a container sees\n{here}\n`image unpack` makes\n{flat}");
    (here, listing("", &unpacked))
}

fn archive(host: &Host, layout: &Path) -> PathBuf {
    let path = host.path("image.tar");
    let done = Command::new("tar").arg("-C").arg(layout).arg("-cf").arg(&path).arg(".").status().unwrap();
    assert!(done.success());
    path
}

#[test]
fn a_container_sees_what_umoci_unpacks() {
    let opaque = "d/.wh..wh..opq";
    let full = || vec![directory("d"), file("d/x", "x"), directory("d/e"), file("d/e/y", "y"), file("f", "f")];
    let long = format!("{}/{}", "n".repeat(120), "m".repeat(140));
    for (case, layers) in [
        ("files go", vec![full(), vec![file("d/.wh.x", ""), file(".wh.f", "")]]),
        ("a directory goes", vec![full(), vec![file(".wh.d", "")]]),
        ("what is not there goes", vec![full(), vec![file(".wh.nothing", ""), file("d/.wh.nothing", "")]]),
        ("opaque, then new", vec![full(), vec![file(opaque, ""), file("d/z", "z")]]),
        ("new, then opaque", vec![full(), vec![file("d/z", "z"), file(opaque, "")]]),
        (
            "opaque, kept below",
            vec![full(), vec![file("d/e/.wh..wh..opq", ""), file("d/e/z", "z")], vec![file("d/e/y", "2")]],
        ),
        ("made again", vec![full(), vec![file(".wh.d", ""), directory("d").mode(0o700), file("d/z", "z")]]),
        (
            "made again one above",
            vec![full(), vec![file(".wh.d", "")], vec![directory("d").owner(3, 4), file("d/z", "z")]],
        ),
        (
            "nothing goes from a directory that is new",
            vec![full(), vec![directory("n"), file("n/.wh.x", ""), file("n/y", "y"), file("d/e/.wh.z", "")]],
        ),
        ("nothing goes from the lowest", vec![vec![directory("d"), file("d/.wh.x", ""), file("d/y", "y")]]),
        ("opaque, and something goes", vec![full(), vec![file("d/.wh.x", ""), file(opaque, ""), file("d/z", "z")]]),
        (
            "opaque, and as it was",
            vec![
                vec![directory("d").mode(0o1777).owner(5, 6), file("d/x", "x")],
                vec![file(opaque, ""), file("d/z", "z")],
                vec![file("d/y", "y")],
            ],
        ),
        (
            "made again without a word",
            vec![vec![directory("d").mode(0o1777).owner(5, 6)], vec![file(".wh.d", ""), file("d/z", "z")]],
        ),
        ("gone and back", vec![full(), vec![file(".wh.f", "")], vec![file("f", "again")], vec![file(".wh.f", "")]]),
        ("file to directory", vec![full(), vec![directory("f"), file("f/in", "in")]]),
        ("directory to file", vec![full(), vec![file("d", "file")]]),
        ("directory to link", vec![full(), vec![symlink("d", "f")]]),
        (
            "link to directory",
            vec![vec![directory("e"), file("e/x", "x"), symlink("d", "e")], vec![directory("d"), file("d/y", "y")]],
        ),
        (
            "attributes alone",
            vec![full(), vec![directory("d").mode(0o2770).owner(5, 6)], vec![directory("d/e").mode(0o1777)]],
        ),
        (
            "implied",
            vec![vec![directory("tmp").mode(0o1777), directory("tmp/o").owner(9, 9)], vec![file("tmp/o/x", "")]],
        ),
        ("one of two names goes", vec![vec![file("a", "a"), hard_link("b", "a")], vec![file(".wh.a", "")]]),
        ("one of two names changes", vec![vec![file("a", "a"), hard_link("b", "a")], vec![file("a", "2")]]),
        (
            "linked through a link",
            vec![vec![directory("d"), symlink("l", "d"), file("l/a", "a"), hard_link("b", "l/a")]],
        ),
        (
            "usr-merge",
            vec![vec![directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib"), file("lib/x", "x")]],
        ),
        ("names", vec![vec![file("/abs/x", "1"), file("up/../over", "2"), file("./d//y", "3"), file(&long, "4")]]),
        ("twice", vec![vec![file("a", "1"), file("a", "2"), directory("d").mode(0o700), directory("d").mode(0o711)]]),
        (
            "special",
            vec![vec![
                device(EntryType::Char, "null", 1, 3).mode(0o666),
                device(EntryType::Block, "sda", 8, 0).owner(0, 6).mode(0o660),
                member(EntryType::Fifo, "fifo"),
                file("suid", "s").mode(0o4755).owner(7, 8),
                file("sgid", "s").mode(0o2755).owner(7, 8),
                directory("sticky").mode(0o1777),
                file("capable", "c").pax("SCHILY.xattr.security.capability", &CAPABILITY),
            ]],
        ),
    ] {
        let (here, umoci) = both(case, &layers);
        assert!(here == umoci, "{case}: a container sees\n{here}\numoci unpacks\n{umoci}");
    }
}

/// `cap_net_bind_service=ep`, version 2 (linux/capability.h).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// umoci unpacks onto the layers below and so writes through their links. Layers here are unpacked once, whatever is
/// below: a directory in the place of a lower layer's link hides it, as with Docker's and Podman's overlay drivers. And
/// a hard link names a file of its own layer.
#[test]
fn a_layer_does_not_reach_into_the_ones_below() {
    let below = vec![directory("usr"), directory("usr/lib"), file("usr/lib/x", "x"), symlink("lib", "usr/lib")];
    let (here, umoci) = both("a link below", &[below, vec![file("lib/y", "y")]]);
    let has = |listing: &str, what: &str| listing.lines().any(|line| line.starts_with(what));
    assert!(has(&here, "lib d") && has(&here, "lib/y f") && !has(&here, "usr/lib/y"), "{here}");
    assert!(has(&umoci, "lib l") && has(&umoci, "usr/lib/y f"), "{umoci}");
    let host = Host::new();
    let layers = [layer(LAYER, tar(&[file("a", "a")])), layer(LAYER, tar(&[hard_link("b", "a")]))];
    let made = image(MANIFEST, "amd64", &layers);
    let from = layout(&host.path("layout"), &made.manifest, &made.blobs());
    let error = host.ensure(&ImageSource::Archive(archive(&host, &from).into())).unwrap_err().to_string();
    assert!(error.contains("`b` is a hard link to `a`, which is not in this layer"), "{error}");
    assert_eq!((host.leftovers(), host.layers()), (vec![], vec![]));
    assert!(host.store.catalogue().unwrap().is_empty());
}
