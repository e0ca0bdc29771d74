//! Pushing: what Debian's registry and skopeo make of it, and registries with wishes of their own.

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::sync::{Arc, Mutex};

use evenkeel::engine::image::progress::Event;
use evenkeel::engine::image::push::{Push, Pushed, push};
use evenkeel::engine::image::{ImageError, Progress};
use evenkeel::model::id::Digest;
use evenkeel::model::image::ImageSource;

use crate::cli::{evenkeel, run};
use crate::debian_registry::DebianRegistry;
use crate::made::*;
use crate::registry::{noise, reference, small};
use crate::server::*;
use crate::support::*;

/// How each layer came to be there.
#[derive(Default)]
struct Ways(Mutex<Vec<String>>);

impl Progress for Ways {
    fn report(&self, event: Event<'_>) {
        if let Event::Stored { how, .. } = event {
            self.0.lock().unwrap().push(how.to_owned());
        }
    }
}

fn pushed(host: &Host, source: &ImageSource, destination: &str) -> Result<(Pushed, Vec<String>), ImageError> {
    let image = host.store.find(source).unwrap().unwrap();
    let destination = destination.parse().unwrap();
    let ways = Ways::default();
    let what = Push { names: std::slice::from_ref(source), image: &image, destination: &destination };
    let pushed = push(&host.store, &what, &host.options, &ways)?;
    Ok((pushed, ways.0.into_inner().unwrap()))
}

/// Layers that say a thing in more than one way, all of which is part of the digest.
fn odd() -> Vec<Member> {
    let long = "d/".repeat(90) + "file";
    vec![
        directory("usr"),
        directory("usr/lib"),
        symlink("lib", "usr/lib"),
        file("lib/through-a-link", "x"),
        file(&long, "long"),
        file("a", "contents of a").owner(1000, 1001).mode(0o4755),
        hard_link("b", "a"),
        symlink("c", "/nowhere"),
        file(".wh.gone", ""),
        directory("opaque"),
        file("opaque/.wh..wh..opq", ""),
        file("with-attributes", "").pax("SCHILY.xattr.user.a", b"1\n2").pax("mtime", b"1.5"),
        device(tar::EntryType::Char, "null", 1, 3),
        file("empty", ""),
        file("blocks", &"y".repeat(1024)),
    ]
}

#[test]
fn an_image_moves_to_another_registry_and_stays_what_it_is() {
    let (from, to) = (DebianRegistry::open(), DebianRegistry::open());
    for (name, kind) in [("gzip", LAYER_GZIP), ("zstd", LAYER_ZSTD), ("plain", LAYER), ("docker", DOCKER_LAYER)] {
        let host = Host::new();
        let manifest = if kind == DOCKER_LAYER { DOCKER_MANIFEST } else { MANIFEST };
        let mut stream = tar(&odd());
        // Some writers pad to ten blocks, some more, and it counts.
        stream.extend([0; 3000]);
        let made = image(manifest, "amd64", &[layer(kind, stream), layer(kind, tar(&[file("second", "layer")]))]);
        let top = index(&[(&made, "amd64")]);
        from.push(&layout(&host.path("layout"), &top, &made.blobs()), "latest", &format!("{name}:1"), None);
        let source = reference(&from.address, &format!("{name}:1"));
        host.ensure(&source).unwrap();

        let destination = format!("{}/moved/{name}:2", to.address);
        let (first, ways) = pushed(&host, &source, &destination).unwrap();
        assert_eq!(ways, ["sent", "sent"], "{name}");
        let (again, ways) = pushed(&host, &source, &destination).unwrap();
        assert_eq!((again, ways), (first.clone(), vec!["already there".to_owned(); 2]), "{name}");

        // Whoever pulls it verifies the configuration and both digests of every layer.
        let other = Host::new();
        let pulled = other.ensure(&reference(&to.address, &format!("moved/{name}:2"))).unwrap();
        assert_eq!((pulled.id, pulled.manifest), (made.config.digest(), Some(first.manifest.clone())), "{name}");
        let skopeo = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--src-tls-verify=false"])
            .arg(format!("docker://{destination}"))
            .arg(format!("dir:{}", host.path("copied").display()))
            .output()
            .unwrap();
        assert!(skopeo.status.success(), "{name}: {}", String::from_utf8_lossy(&skopeo.stderr));
        let copied: serde_json::Value =
            serde_json::from_slice(&fs::read(host.path("copied/manifest.json")).unwrap()).unwrap();
        assert_eq!(copied["mediaType"], manifest, "{name}");
        assert_eq!(copied["config"]["digest"], made.config.digest().to_string(), "{name}");
    }
}

#[test]
fn within_a_registry_nothing_is_sent() {
    let registry = DebianRegistry::open();
    let host = Host::new();
    let made = small(LAYER_ZSTD);
    registry.push(&layout(&host.path("layout"), &made.manifest, &made.blobs()), "latest", "shop/web:1", None);
    let source = reference(&registry.address, "shop/web:1");
    host.ensure(&source).unwrap();
    let (there, ways) = pushed(&host, &source, &format!("{}/other/web:2", registry.address)).unwrap();
    assert_eq!((there.manifest, ways), (made.manifest.digest(), vec!["mounted".to_owned(); 2]));
    // Another tag in the same repository.
    let (there, ways) = pushed(&host, &source, &format!("{}/shop/web:3", registry.address)).unwrap();
    assert_eq!((there.manifest, ways), (made.manifest.digest(), vec!["already there".to_owned(); 2]));
    // By digest only what has that digest.
    let wrong = format!("{}/shop/web@{}", registry.address, made.config.digest());
    let error = pushed(&host, &source, &wrong).unwrap_err();
    assert!(matches!(error, ImageError::WrongDigest { .. }), "{error}");
}

#[test]
fn what_was_packed_for_one_repository_is_mounted_into_the_next() {
    let (registry, other) = (DebianRegistry::open(), DebianRegistry::open());
    let host = Host::new();
    let made = small(LAYER_ZSTD);
    other.push(&layout(&host.path("layout"), &made.manifest, &made.blobs()), "latest", "web:1", None);
    host.ensure(&reference(&other.address, "web:1")).unwrap();
    let image = host.store.find(&reference(&other.address, "web:1")).unwrap().unwrap();
    // This registry has none of the blobs that the image was pulled as.
    let names = [reference(&other.address, "web:1"), reference(&registry.address, "first:1")];
    let mut ways = Vec::new();
    for destination in ["first:1", "second:1"] {
        let destination = format!("{}/{destination}", registry.address).parse().unwrap();
        let told = Ways::default();
        let what = Push { names: &names, image: &image, destination: &destination };
        push(&host.store, &what, &host.options, &told).unwrap();
        ways.extend(told.0.into_inner().unwrap());
    }
    assert_eq!(ways, ["sent", "sent", "mounted", "mounted"]);
}

#[test]
fn directories_of_this_host_can_be_pushed() {
    let registry = DebianRegistry::with_password();
    let host = Host::new();
    fs::create_dir_all(host.path("root/etc")).unwrap();
    fs::write(host.path("root/etc/motd"), "hello").unwrap();
    std::os::unix::fs::symlink("etc/motd", host.path("root/motd")).unwrap();
    let source = ImageSource::Rootfs(host.path("root"));
    let id = host.ensure(&source).unwrap().id;
    let destination = format!("{}/a/rootfs:1", registry.address);
    let push = || run(evenkeel(&host).args(["image", "push", &id.hex()[..12], &destination]));
    let refused = push();
    assert!(refused.stderr.contains("does not let us write `a/rootfs`"), "{}", refused.stderr);
    assert!(refused.stderr.contains(&format!("evenkeel login {}", registry.address)), "{}", refused.stderr);
    let login = ["login", &registry.address, "-u", "user", "--password-stdin"];
    crate::cli::run_with_input(evenkeel(&host).args(login), "secret").ok();
    let done = push().ok();
    assert!(done.stdout.starts_with(&format!("{destination}  {}", id.short())), "{}", done.stdout);
    assert!(done.stderr.ends_with(": sent\n"), "{}", done.stderr);
    run(evenkeel(&host).args(["image", "pull", &destination])).ok();
    let unknown = run(evenkeel(&host).args(["image", "push", "0000", &destination]));
    assert!(unknown.stderr.contains("there is no image `0000`"), "{}", unknown.stderr);
}

/// What a registry has of an upload.
#[derive(Default)]
struct Uploads {
    /// By place.
    begun: HashMap<String, Vec<u8>>,
    whole: HashMap<Digest, Vec<u8>>,
}

/// A registry that keeps what it has of an upload, at a place on another server, and wants parts.
fn keeper(
    headers: &'static [(&'static str, &'static str)],
    whole_max: usize,
) -> (HandMade, HandMade, Arc<Mutex<Uploads>>) {
    let uploads: Arc<Mutex<Uploads>> = Arc::default();
    let state = uploads.clone();
    let storage = HandMade::serve(move |asked| {
        let mut state = state.lock().unwrap();
        let target = asked.line.split(' ').nth(1).unwrap();
        let (place, query) = target.split_once('?').unwrap();
        let method = asked.line.split(' ').next().unwrap();
        let known = state.begun.entry(place.to_owned()).or_default();
        let location = |count: usize| {
            let mut all = vec![("Location".to_owned(), format!("{place}?state={count}"))];
            all.push(("Range".to_owned(), format!("0-{}", count.saturating_sub(1))));
            all
        };
        if let Some(range) = asked.headers.get("content-range") {
            let (first, last) = range.split_once('-').unwrap();
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            if first != known.len() || last + 1 - first != asked.body.len() {
                return (416, location(known.len()), vec![]);
            }
        }
        match method {
            "GET" => return (204, location(known.len()), vec![]),
            "PUT" if asked.body.len() > whole_max => return (413, vec![], vec![]),
            _ => known.extend_from_slice(&asked.body),
        }
        if method == "PATCH" {
            return (202, location(known.len()), vec![]);
        }
        let bytes = std::mem::take(known);
        let wanted = query.rsplit_once("digest=").unwrap().1.replace("%3A", ":");
        if digest(&bytes).as_str() != wanted {
            return (400, vec![], br#"{"errors":[{"message":"another digest"}]}"#.to_vec());
        }
        state.whole.insert(digest(&bytes), bytes);
        (201, vec![], vec![])
    });
    let (state, address) = (uploads.clone(), storage.address.clone());
    let count = Mutex::new(0);
    let registry = HandMade::serve(move |asked| {
        if !asked.headers.contains_key("authorization") {
            return (401, vec![("www-authenticate".to_owned(), "Basic realm=x".to_owned())], vec![]);
        }
        let path = asked.line.split(' ').nth(1).unwrap();
        if asked.line.starts_with("POST") {
            *count.lock().unwrap() += 1;
            let mut all: Vec<(String, String)> =
                headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            all.push(("Location".to_owned(), format!("http://{address}/upload/{}?state=0", count.lock().unwrap())));
            return (202, all, vec![]);
        }
        if asked.line.starts_with("PUT") {
            return (201, vec![], vec![]);
        }
        let there = path
            .rsplit('/')
            .next()
            .unwrap()
            .parse()
            .is_ok_and(|digest| state.lock().unwrap().whole.contains_key(&digest));
        (if there { 200 } else { 404 }, vec![], vec![])
    });
    (registry, storage, uploads)
}

fn with_credentials(host: &mut Host, registry: &str) {
    let entry = format!(r#"{{"auths":{{"{registry}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#);
    fs::write(host.path("auth.json"), entry).unwrap();
    host.options.credentials = vec![host.path("auth.json")];
}

fn large(host: &Host) -> ImageSource {
    let path = host.path("rootfs.tar");
    // Printable noise is packed to four fifths: more than two parts are left.
    fs::write(&path, tar(&[file("big", &noise(24 << 20))])).unwrap();
    let source = ImageSource::Rootfs(path);
    host.ensure(&source).unwrap();
    source
}

#[test]
fn parts_are_sent_to_who_wants_them_and_to_who_takes_no_whole() {
    for (headers, whole_max) in [(&[("OCI-Chunk-Min-Length", "9000000")][..], 1 << 30), (&[], 4 << 20)] {
        let mut host = Host::new();
        let (registry, storage, uploads) = keeper(headers, whole_max);
        with_credentials(&mut host, &registry.address);
        let source = large(&host);
        pushed(&host, &source, &format!("{}/a:1", registry.address)).unwrap();
        assert_eq!(uploads.lock().unwrap().whole.len(), 2, "layer and configuration");
        let parts: Vec<usize> = storage
            .asked()
            .iter()
            .filter(|asked| asked.line.starts_with("PATCH"))
            .map(|asked| asked.body.len())
            .collect();
        let least = if headers.is_empty() { 8 << 20 } else { 9_000_000 };
        let large: Vec<&usize> = parts.iter().filter(|size| **size > 1 << 20).collect();
        assert!(large.len() >= 2 && large.iter().rev().skip(1).all(|size| **size >= least), "{parts:?}");
        assert!(storage.asked().iter().all(|asked| !asked.headers.contains_key("authorization")));
    }
}

#[test]
fn a_broken_upload_goes_on_where_the_registry_says() {
    let mut host = Host::new();
    let (registry, storage, uploads) = keeper(&[("OCI-Chunk-Min-Length", "1")], 1 << 30);
    // The second part is lost on the way.
    let line = CutLine::to(&storage.address, 12 << 20);
    let address = line.address.clone();
    let (through, real) = (storage.address.clone(), registry.address.clone());
    let front = HandMade::serve(move |asked| forward(&real, asked, &through, &address));
    with_credentials(&mut host, &front.address);
    let source = large(&host);
    pushed(&host, &source, &format!("{}/a:1", front.address)).unwrap();
    assert!(line.has_cut());
    assert_eq!(uploads.lock().unwrap().whole.len(), 2);
    let sizes: Vec<usize> =
        storage.asked().iter().filter(|asked| asked.line.starts_with("PATCH")).map(|asked| asked.body.len()).collect();
    let of_layer = sizes.iter().filter(|size| **size == 8 << 20).count();
    assert_eq!(of_layer, 2, "no part is sent twice: {sizes:?}");
    assert!(storage.count("GET /upload/") >= 1);
}

#[test]
fn a_registry_that_forgets_what_broke_is_sent_it_again() {
    let registry = DebianRegistry::open();
    let host = Host::new();
    let line = CutLine::to(&registry.address, 5 << 20);
    let source = large(&host);
    pushed(&host, &source, &format!("{}/a:1", line.address)).unwrap();
    assert!(line.has_cut());
    Host::new().ensure(&reference(&registry.address, "a:1")).unwrap();
}

/// A balancer whose servers know nothing of each other's uploads.
#[test]
fn an_upload_that_begins_again_and_again_ends() {
    let registry = HandMade::serve(|asked| match asked.line.split(' ').next().unwrap() {
        "POST" => {
            let headers = [("location", "/upload/1"), ("oci-chunk-min-length", "1")];
            (202, headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(), vec![])
        }
        "PATCH" if asked.headers["content-range"].starts_with("0-") => (202, vec![], vec![]),
        _ => (404, vec![], vec![]),
    });
    let host = Host::new();
    let source = large(&host);
    let begun = std::time::Instant::now();
    let error = pushed(&host, &source, &format!("{}/a:1", registry.address)).unwrap_err();
    assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{error}");
    let firsts = registry.asked().iter().filter(|asked| asked.line.starts_with("PATCH")).count();
    assert!((2..=20).contains(&firsts), "{firsts}");
}

#[test]
fn a_token_to_push_covers_the_repository_that_is_mounted_from() {
    let asked_for = Arc::new(Mutex::new(Vec::new()));
    let log = asked_for.clone();
    let tokens = HandMade::serve(move |asked| {
        log.lock().unwrap().push(asked.line.clone());
        (200, vec![], br#"{"token":"t"}"#.to_vec())
    });
    let debian = DebianRegistry::open();
    let mut host = Host::new();
    let made = small(LAYER_GZIP);
    debian.push(&layout(&host.path("layout"), &made.manifest, &made.blobs()), "latest", "shop/web:1", None);
    let realm = format!(r#"Bearer realm="http://{}/token",scope="repository:other/web:pull""#, tokens.address);
    let real = debian.address.clone();
    let front = HandMade::serve(move |asked| match asked.headers.contains_key("authorization") {
        true => forward(&real, asked, "", ""),
        false => (401, vec![("www-authenticate".to_owned(), realm.clone())], vec![]),
    });
    with_credentials(&mut host, &front.address);
    let source = reference(&front.address, "shop/web:1");
    host.ensure(&source).unwrap();
    let (there, ways) = pushed(&host, &source, &format!("{}/other/web:2", front.address)).unwrap();
    assert_eq!((there.manifest, ways), (made.manifest.digest(), vec!["mounted".to_owned(); 2]));
    let both = "scope=repository:other/web:pull%2Cpush&scope=repository:shop/web:pull ";
    let asked_for = asked_for.lock().unwrap();
    assert!(asked_for.iter().any(|line| line.contains(both)), "{asked_for:?}");
}

#[test]
fn what_may_not_be_mounted_is_sent() {
    let debian = DebianRegistry::open();
    let real = debian.address.clone();
    let front = HandMade::serve(move |asked| match asked.line.contains("mount=") {
        true => (401, vec![("www-authenticate".to_owned(), "Basic realm=\"x\"".to_owned())], vec![]),
        false => forward(&real, asked, "", ""),
    });
    let host = Host::new();
    let made = small(LAYER_GZIP);
    debian.push(&layout(&host.path("layout"), &made.manifest, &made.blobs()), "latest", "shop/web:1", None);
    let source = reference(&front.address, "shop/web:1");
    host.ensure(&source).unwrap();
    let (there, ways) = pushed(&host, &source, &format!("{}/other/web:2", front.address)).unwrap();
    assert_eq!(ways, ["sent", "sent"]);
    let pulled = Host::new().ensure(&reference(&debian.address, "other/web:2")).unwrap();
    assert_eq!(pulled.manifest, Some(there.manifest));
    assert!(front.count("POST /v2/other/web/blobs/uploads/?mount=") > 0);
}
