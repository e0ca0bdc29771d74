//! Archives: Docker's form and OCI's, compressed or not, whole or not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use evenkeel::engine::image::{self, ImageError};
use evenkeel::model::image::{Archived, ImageSource, Pull};
use serde_json::json;

use crate::made::*;
use crate::support::*;

fn two_layers(kind: &'static str) -> Made {
    image(
        MANIFEST,
        "amd64",
        &[layer(kind, tar(&[directory("bin"), file("bin/serve", "serve")])), layer(kind, tar(&[file("top", "t")]))],
    )
}

/// The directory as a tar file.
fn packed(directory: &Path) -> Vec<u8> {
    let output = Command::new("tar").arg("-C").arg(directory).args(["-cf", "-", "."]).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn oci_archive(host: &Host, made: &Made) -> Vec<u8> {
    packed(&layout(&host.path("layout"), &made.manifest, &made.blobs()))
}

/// As `docker save` wrote it before it wrote OCI layouts: a directory a layer, the second a link.
fn docker_archive(made: &Made) -> Vec<u8> {
    let config = format!("{}.json", made.config.digest().hex());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let manifest = json!([{ "Config": config, "RepoTags": ["web:1"], "Layers": ["one/layer.tar", "two/layer.tar"] }]);
    tar(&[
        directory("one"),
        file("store.tar", &text(&made.layers[0].tar)),
        symlink("one/layer.tar", "../store.tar"),
        directory("two"),
        file("two/layer.tar", &text(&made.layers[1].tar)),
        file(&config, &text(&made.config.bytes)),
        file("manifest.json", &manifest.to_string()),
    ])
}

fn import(host: &Host, bytes: &[u8]) -> Result<evenkeel::model::image::Image, ImageError> {
    fs::write(host.path("image.tar"), bytes).unwrap();
    host.ensure(&ImageSource::Archive(host.path("image.tar").into()))
}

#[test]
fn archives_of_every_form_are_imported() {
    for (case, kind) in [("gzip layers", LAYER_GZIP), ("zstd layers", LAYER_ZSTD), ("plain layers", LAYER)] {
        let host = Host::new();
        let made = two_layers(kind);
        let oci = oci_archive(&host, &made);
        let docker = docker_archive(&made);
        for (form, bytes) in [
            ("OCI", oci.clone()),
            ("OCI gzip", gzip(&oci)),
            ("OCI zstd", zstd(&oci)),
            ("Docker", docker.clone()),
            ("Docker gzip", gzip(&docker)),
        ] {
            let host = Host::new();
            let image = import(&host, &bytes).unwrap_or_else(|error| panic!("{case}, {form}: {error}"));
            assert_eq!(image.id, made.config.digest(), "{case}, {form}");
            assert_eq!(image.config.command, ["/bin/serve"]);
            assert_eq!(image.manifest, form.starts_with("OCI").then(|| made.manifest.digest()));
            let tree = |at: usize| host.tree(&image.layers[at]);
            assert_eq!(fs::read_to_string(tree(0).join("bin/serve")).unwrap(), "serve", "{case}, {form}");
            assert_eq!(fs::read_to_string(tree(1).join("top")).unwrap(), "t", "{case}, {form}");
            assert_eq!((host.leftovers(), host.layers().len()), (vec![], 2), "{case}, {form}");
        }
    }
}

#[test]
fn what_skopeo_and_umoci_write_is_read() {
    let host = Host::new();
    let made = two_layers(LAYER_GZIP);
    let from = layout(&host.path("layout"), &made.manifest, &made.blobs());
    for (form, name) in [("docker-archive", "docker.tar:web:1"), ("oci-archive", "oci.tar:web:1")] {
        let to = format!("{form}:{}/{name}", host.directory.path().display());
        let copied = Command::new("skopeo")
            .args(["--insecure-policy", "copy", &format!("oci:{}:latest", from.display()), &to])
            .output()
            .expect("skopeo is installed");
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        let path = host.path(name.split(':').next().unwrap());
        let image =
            Host::new().ensure(&ImageSource::Archive(path.into())).unwrap_or_else(|error| panic!("{form}: {error}"));
        assert_eq!(image.layers.len(), 2, "{form}");
    }
    let umoci = |args: &[&str]| {
        let done =
            Command::new("umoci").args(args).current_dir(host.directory.path()).output().expect("umoci is installed");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    umoci(&["init", "--layout", "made"]);
    umoci(&["new", "--image", "made:1"]);
    fs::create_dir(host.path("tree")).unwrap();
    fs::write(host.path("tree/a"), "from umoci").unwrap();
    umoci(&["insert", "--image", "made:1", "tree", "/opt"]);
    let other = Host::new();
    let image = import(&other, &packed(&host.path("made"))).unwrap();
    let top = other.tree(image.layers.last().unwrap());
    assert_eq!(fs::read_to_string(top.join("opt/a")).unwrap(), "from umoci");
}

#[test]
fn a_directory_is_an_archive_that_was_unpacked() {
    for form in ["OCI", "Docker"] {
        let host = Host::new();
        let made = two_layers(LAYER_GZIP);
        let bytes = if form == "OCI" { oci_archive(&host, &made) } else { docker_archive(&made) };
        fs::create_dir(host.path("image")).unwrap();
        fs::write(host.path("image.tar"), bytes).unwrap();
        let (from, to) = (host.path("image.tar"), host.path("image"));
        let unpacked = Command::new("tar").arg("-xf").arg(from).arg("-C").arg(&to).status().unwrap();
        assert!(unpacked.success());
        let source = ImageSource::Archive(to.clone().into());
        let image = host.ensure(&source).unwrap_or_else(|error| panic!("{form}: {error}"));
        assert_eq!((image.id, host.layers().len()), (made.config.digest(), 2), "{form}");
        let moved = || image::observe(&host.store, &source, Pull::Missing, &host.options).unwrap().moved;
        assert_eq!(moved(), None, "{form}");
        fs::write(to.join("oci-layout"), "{ }").unwrap();
        assert!(moved().is_some(), "{form}");
    }
}

#[test]
fn links_of_a_directory_lead_no_further_than_to_its_root() {
    let host = Host::new();
    let made = two_layers(LAYER);
    let archive = layout(&host.path("layout"), &made.manifest, &made.blobs());
    // The configuration lies beside the directory, and a link in it leads there.
    let config = archive.join("blobs/sha256").join(made.config.digest().hex());
    fs::rename(&config, host.path("outside")).unwrap();
    std::os::unix::fs::symlink(host.path("outside"), &config).unwrap();
    let error = host.ensure(&ImageSource::Archive(archive.clone().into())).unwrap_err();
    assert!(error.to_string().contains("is not in it"), "{error}");
    fs::copy(host.path("outside"), archive.join("inside")).unwrap();
    fs::remove_file(&config).unwrap();
    std::os::unix::fs::symlink("/inside", &config).unwrap();
    host.ensure(&ImageSource::Archive(archive.into())).unwrap();
}

#[test]
fn an_edited_archive_is_seen_and_imported_again() {
    let host = Host::new();
    let source = ImageSource::Archive(host.path("image.tar").into());
    let moved = || image::observe(&host.store, &source, Pull::Missing, &host.options).unwrap().moved;
    let first = import(&host, &docker_archive(&two_layers(LAYER))).unwrap();
    assert_eq!(moved(), None);
    let other = image(MANIFEST, "amd64", &[layer(LAYER, tar(&[file("a", "1")])), layer(LAYER, tar(&[file("b", "2")]))]);
    fs::write(host.path("image.tar"), docker_archive(&other)).unwrap();
    assert!(moved().is_some());
    assert_ne!(host.ensure(&source).unwrap().id, first.id);
    assert_eq!(moved(), None);
    fs::remove_file(host.path("image.tar")).unwrap();
    assert_eq!(moved(), None, "the image is here");
    assert!(host.ensure(&source).is_err(), "but it cannot be made fresh");
}

#[test]
fn the_image_for_this_host_is_taken_from_several() {
    let host = Host::new();
    let (made, other) = (two_layers(LAYER), image(MANIFEST, "s390x", &[layer(LAYER, tar(&[file("wrong", "")]))]));
    let top = index(&[(&other, "s390x"), (&made, "amd64")]);
    let archive = packed(&layout(&host.path("layout"), &top, &[made.blobs(), other.blobs()].concat()));
    let image = import(&host, &archive).unwrap();
    assert_eq!((image.id, image.manifest), (made.config.digest(), Some(top.digest())));
}

#[test]
fn one_image_of_several_is_chosen_by_name_or_digest() {
    let host = Host::new();
    let one = two_layers(LAYER);
    let two = image(MANIFEST, "amd64", &[layer(LAYER, tar(&[file("a", "1")])), layer(LAYER, tar(&[file("b", "2")]))]);
    let blobs = [one.blobs(), two.blobs()].concat();
    let directory = layout(&host.path("layout"), &one.manifest, &blobs);
    let entry = |made: &Made, notes: serde_json::Value| {
        let mut descriptor = made.manifest.descriptor();
        descriptor["annotations"] = notes;
        descriptor
    };
    // As Docker and containerd write it: an entry for each name.
    let index = json!({ "schemaVersion": 2, "manifests": [
        entry(&one, json!({ "io.containerd.image.name": "docker.io/shop/web:1", "org.opencontainers.image.ref.name": "1" })),
        entry(&two, json!({ "org.opencontainers.image.ref.name": "db:2" })),
        entry(&one, json!({ "io.containerd.image.name": "docker.io/shop/web:latest" })),
    ] });
    fs::write(directory.join("index.json"), index.to_string()).unwrap();
    let oci = packed(&directory);
    let save = |made: &Made, name: &str, tags: &[&str]| {
        let config = format!("{}.json", made.config.digest().hex());
        let layers = [0, 1].map(|at| format!("{name}-{at}.tar"));
        (json!({ "Config": config, "RepoTags": tags, "Layers": layers }), config, layers)
    };
    let saved = [(save(&one, "one", &["shop/web:1", "shop/web:latest"]), &one), (save(&two, "two", &["db:2"]), &two)];
    let manifest: Vec<_> = saved.iter().map(|((entry, ..), _)| entry).collect();
    let manifest = json!(manifest).to_string();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut files = vec![file("manifest.json", &manifest)];
    for ((_, config, layers), made) in &saved {
        files.push(file(config, &text(&made.config.bytes)));
        files.extend(layers.iter().zip(&made.layers).map(|(name, layer)| file(name, &text(&layer.tar))));
    }
    let docker = tar(&files);
    let by_digest = [(&oci, two.manifest.digest()), (&docker, two.config.digest())];
    let by_digest = by_digest.map(|(bytes, digest)| (bytes, digest.to_string(), Some(&two)));
    let by_name = [&oci, &docker].into_iter().flat_map(|bytes| {
        [("shop/web:1", Some(&one)), ("docker.io/shop/web", Some(&one)), ("db:2", Some(&two)), ("web:1", None)]
            .map(|(name, made)| (bytes, name.to_owned(), made))
    });
    for (bytes, name, made) in by_name.chain(by_digest) {
        fs::write(host.path("image.tar"), bytes).unwrap();
        let chosen = Archived { path: host.path("image.tar"), image: Some(name.clone()) };
        match (host.ensure(&ImageSource::Archive(chosen)), made) {
            (Ok(image), Some(made)) => assert_eq!(image.id, made.config.digest(), "{name}"),
            (Err(error), None) => {
                let text = error.to_string();
                assert!(text.contains("holds no image `web:1`") && text.contains("`db:2`"), "{error}");
            }
            (other, _) => panic!("{name}: {other:?}"),
        }
    }
    let error = import(&host, &docker).unwrap_err();
    assert!(error.to_string().contains("holds 2 images: `shop/web:1`, `db:2`"), "{error}");
}

#[test]
fn archives_that_cannot_be_used_say_why_and_leave_nothing() {
    let made = two_layers(LAYER);
    let edited = |edit: &dyn Fn(&Path)| {
        let host = Host::new();
        let directory = layout(&host.path("layout"), &made.manifest, &made.blobs());
        edit(&directory);
        packed(&directory)
    };
    let blob = |digest: evenkeel::model::id::Digest| PathBuf::from("blobs/sha256").join(digest.hex());
    let (layer_path, config_path) = (blob(made.layers[0].blob.digest()), blob(made.config.digest()));
    let index_path = "index.json";
    let two = json!({ "schemaVersion": 2, "manifests": [
        { "mediaType": MANIFEST, "digest": made.manifest.digest(), "size": 1,
          "annotations": { "org.opencontainers.image.ref.name": "one" } },
        { "mediaType": MANIFEST, "digest": made.config.digest(), "size": 1,
          "annotations": { "org.opencontainers.image.ref.name": "two" } },
    ] });
    let docker_two = json!([
        { "Config": "a.json", "RepoTags": ["web:1"], "Layers": [] }, { "Config": "b.json", "RepoTags": null, "Layers": [] },
    ]);
    let foreign = image(MANIFEST, "s390x", &made.layers);
    let whole = edited(&|_| {});
    for (case, bytes, expected) in [
        ("no archive", b"hello".repeat(1000), "not a tar archive"),
        ("empty", Vec::new(), "neither an index.json nor a manifest.json"),
        ("a root filesystem", tar(&[file("bin/sh", "")]), "declared as `rootfs`"),
        ("cut", whole[..whole.len() / 2].to_vec(), ""),
        ("xz", b"\xfd7zXZ\0\0\x04".repeat(100), "is damaged"),
        ("bzip2", b"BZh91AY&SY".repeat(100), "it is compressed with bzip2"),
        ("gzip cut", gzip(&whole)[..900].to_vec(), "ends early"),
        (
            "layer damaged",
            edited(&|at| fs::write(at.join(&layer_path), vec![b'x'; made.layers[0].tar.len()]).unwrap()),
            "has the digest",
        ),
        ("layer missing", edited(&|at| fs::remove_file(at.join(&layer_path)).unwrap()), "is not in it"),
        ("config damaged", edited(&|at| fs::write(at.join(&config_path), "{}").unwrap()), "has the digest"),
        (
            "two images",
            edited(&|at| fs::write(at.join(index_path), two.to_string()).unwrap()),
            "holds 2 images: `one`, `two`",
        ),
        ("two of Docker's", tar(&[file("manifest.json", &docker_two.to_string())]), "holds 2 images: `web:1`, b.json"),
        ("link loop", tar(&[symlink("manifest.json", "manifest.json")]), "neither an index.json nor a manifest.json"),
        (
            "for another host",
            packed(&layout(&Host::new().path("x"), &foreign.manifest, &foreign.blobs())),
            "is not made for",
        ),
    ] {
        let host = Host::new();
        let error = import(&host, &bytes).expect_err(case);
        assert!(error.to_string().contains(expected), "{case}: {error}");
        assert_eq!((host.leftovers(), host.layers()), (vec![], vec![]), "{case}");
        assert!(host.store.catalogue().unwrap().is_empty(), "{case}");
    }
}
