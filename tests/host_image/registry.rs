//! Pulling, from Debian's registry and from registries that misbehave.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};

use evenkeel::engine::image::{self, ImageError};
use evenkeel::model::image::{ImageSource, Pull};

use crate::debian_registry::DebianRegistry;
use crate::made::*;
use crate::server::*;
use crate::support::*;

/// Bytes that no compression makes smaller, the same every time.
pub fn noise(size: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b' ' + (state % 95) as u8)
    };
    (0..size).map(step).collect()
}

pub fn small(kind: &'static str) -> Made {
    let layers = [
        layer(kind, tar(&[directory("bin"), file("bin/serve", "serve")])),
        layer(kind, tar(&[file("bin/.wh.old", "")])),
    ];
    let manifest = if kind == DOCKER_LAYER { DOCKER_MANIFEST } else { MANIFEST };
    image(manifest, "amd64", &layers)
}

pub fn reference(address: &str, name: &str) -> ImageSource {
    ImageSource::Reference(format!("{address}/{name}"))
}

/// What a well-behaved registry answers for these blobs; the first is tagged `latest`.
pub fn answers(blobs: &[&Blob]) -> HashMap<String, (&'static str, Vec<u8>)> {
    let mut all = HashMap::new();
    for (at, blob) in blobs.iter().enumerate() {
        for place in ["manifests", "blobs"] {
            all.insert(format!("/v2/a/{place}/{}", blob.digest()), (blob.kind, blob.bytes.clone()));
        }
        if at == 0 {
            all.insert("/v2/a/manifests/latest".to_owned(), (blob.kind, blob.bytes.clone()));
        }
    }
    all
}

pub fn answer(all: &HashMap<String, (&'static str, Vec<u8>)>, asked: &Asked) -> Answer {
    match all.get(asked.line.split(' ').nth(1).unwrap()) {
        Some((kind, bytes)) => (200, vec![("content-type".to_owned(), kind.to_string())], bytes.clone()),
        None => (404, vec![], br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such thing"}]}"#.to_vec()),
    }
}

pub fn all_of(made: &Made) -> Vec<&Blob> {
    let mut blobs = made.blobs();
    blobs.reverse();
    blobs
}

#[test]
fn images_of_every_kind_are_pulled_from_debians_registry() {
    let registry = DebianRegistry::open();
    for (name, kind) in [("gzip", LAYER_GZIP), ("zstd", LAYER_ZSTD), ("plain", LAYER), ("docker", DOCKER_LAYER)] {
        let host = Host::new();
        let made = small(kind);
        let other = image(MANIFEST, "s390x", &[layer(LAYER, tar(&[file("wrong", "")]))]);
        let top = index(&[(&other, "s390x"), (&made, "amd64")]);
        let blobs = [made.blobs(), other.blobs()].concat();
        registry.push(&layout(&host.path("layout"), &top, &blobs), "latest", &format!("{name}:1"), None);

        let source = reference(&registry.address, &format!("{name}:1"));
        let image = host.ensure(&source).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(image.id, made.config.digest(), "{name}");
        assert_eq!(image.manifest, Some(top.digest()), "{name}");
        assert_eq!(image.config.command, ["/bin/serve"], "{name}");
        let trees: Vec<_> = image.layers.iter().map(|layer| host.tree(layer)).collect();
        assert_eq!(fs::read_to_string(trees[0].join("bin/serve")).unwrap(), "serve", "{name}");
        assert_eq!(fs::symlink_metadata(trees[1].join("bin/old")).unwrap().rdev(), 0, "{name}");
        assert_eq!((host.leftovers(), host.layers().len()), (vec![], 2), "{name}");
        let listed: serde_json::Value =
            serde_json::from_slice(&fs::read(host.path("state/images/index.json")).unwrap()).unwrap();
        assert_eq!(listed["manifests"][0]["digest"], top.digest().to_string(), "{name}");
        assert_eq!(listed["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], source.to_string());
    }
}

#[test]
fn a_moved_tag_is_seen_when_it_is_to_be_looked_at() {
    let registry = DebianRegistry::open();
    let host = Host::new();
    let (old, new) = (small(LAYER_GZIP), image(MANIFEST, "amd64", &[layer(LAYER_GZIP, tar(&[file("new", "")]))]));
    registry.push(&layout(&host.path("old"), &old.manifest, &old.blobs()), "latest", "web:1", None);
    let source = reference(&registry.address, "web:1");
    let moved = |pull| image::observe(&host.store, &source, pull, &host.options).unwrap().moved;
    assert_eq!(image::observe(&host.store, &source, Pull::Always, &host.options).unwrap().image, None);
    let first = host.ensure(&source).unwrap();
    assert_eq!((moved(Pull::Always), moved(Pull::Missing)), (None, None));
    registry.push(&layout(&host.path("new"), &new.manifest, &new.blobs()), "latest", "web:1", None);
    assert_eq!(moved(Pull::Missing), None);
    assert!(moved(Pull::Always).unwrap().contains(new.manifest.digest().short()));
    let second = host.ensure(&source).unwrap();
    assert_eq!((first.id, second.id.clone()), (old.config.digest(), new.config.digest()));
    assert_eq!(moved(Pull::Always), None);
    // By digest the old one is still there, and its layers need no transfer.
    let by_digest = reference(&registry.address, &format!("web@{}", old.manifest.digest()));
    assert_eq!(host.ensure(&by_digest).unwrap().id, old.config.digest());
}

#[test]
fn a_registry_with_passwords_wants_the_right_one() {
    let registry = DebianRegistry::with_password();
    let mut host = Host::new();
    let made = small(LAYER_GZIP);
    registry.push(&layout(&host.path("layout"), &made.manifest, &made.blobs()), "latest", "web:1", Some("user:secret"));
    let source = reference(&registry.address, "web:1");
    let error = host.ensure(&source).unwrap_err();
    assert!(matches!(error, ImageError::Unauthorized { .. }), "{error}");
    assert!(error.hint().unwrap().contains("evenkeel login"), "{error}");
    let file = host.path("auth.json");
    host.options.credentials = vec![host.path("absent.json"), file.clone()];
    // `user:wrong`, then `user:secret`.
    fs::write(&file, format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjp3cm9uZw=="}}}}}}"#, registry.address)).unwrap();
    let error = host.ensure(&source).unwrap_err();
    assert!(matches!(error, ImageError::Unauthorized { .. }));
    assert!(error.hint().unwrap().contains("auth.json` has the credentials that were shown"), "{:?}", error.hint());
    fs::write(&file, format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzZWNyZXQ="}}}}}}"#, registry.address)).unwrap();
    assert_eq!(host.ensure(&source).unwrap().id, made.config.digest());
    fs::write(&file, "{").unwrap();
    let error = host.ensure(&source).unwrap_err();
    assert!(matches!(error, ImageError::Credentials { .. }), "{error}");
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let registry = DebianRegistry::open();
    let host = Host::new();
    let body = noise(3 << 20);
    let made = image(MANIFEST, "amd64", &[layer(LAYER, tar(&[file("big", &body)]))]);
    registry.push(&layout(&host.path("layout"), &made.manifest, &made.blobs()), "latest", "web:1", None);
    let line = BreakingLine::to(&registry.address, 1 << 20);
    let image = host.ensure(&reference(&line.address, "web:1")).unwrap();
    assert!(line.has_broken());
    assert!(line.sent().contains("range: bytes="), "{}", line.sent());
    assert!(fs::read_to_string(host.tree(&image.layers[0]).join("big")).unwrap() == body);
    assert_eq!(host.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_server_without_ranges_is_read_again_from_the_start() {
    let host = Host::new();
    let body = noise(1 << 20);
    let made = image(MANIFEST, "amd64", &[layer(LAYER, tar(&[file("big", &body)]))]);
    let all = answers(&all_of(&made));
    let server = HandMade::serve(move |asked| answer(&all, asked));
    let line = BreakingLine::to(&server.address, 500 << 10);
    let image = host.ensure(&reference(&line.address, "a:latest")).unwrap();
    assert!(line.has_broken());
    assert!(fs::read_to_string(host.tree(&image.layers[0]).join("big")).unwrap() == body);
}

/// Registries, and what is before them, that send something else than the rest that was asked for.
#[test]
fn a_server_that_cannot_count_is_read_again_from_the_start() {
    let body = noise(1 << 20);
    let made = image(MANIFEST, "amd64", &[layer(LAYER, tar(&[file("big", &body)]))]);
    for (status, range) in [(206, "bytes 0-99/1048576"), (206, ""), (416, "bytes */1048576")] {
        let host = Host::new();
        let all = answers(&all_of(&made));
        let server = HandMade::serve(move |asked| match asked.headers.contains_key("range") {
            true => (status, vec![("content-range".to_owned(), range.to_owned())], vec![b'x'; 100]),
            false => answer(&all, asked),
        });
        let line = BreakingLine::to(&server.address, 500 << 10);
        let image = host.ensure(&reference(&line.address, "a:latest")).unwrap();
        assert!(line.has_broken());
        assert!(fs::read_to_string(host.tree(&image.layers[0]).join("big")).unwrap() == body, "{status} {range}");
    }
}

/// What a registry does wrong, and what becomes of it.
#[test]
fn wrong_answers_leave_nothing() {
    let made = small(LAYER_GZIP);
    let first = made.layers[0].blob.digest();
    let base = || answers(&all_of(&made));
    let swap = |path: String, bytes: Vec<u8>| {
        let mut all = base();
        all.insert(path, ("application/octet-stream", bytes));
        all
    };
    let with_manifest = |made: &Made| answers(&all_of(made));
    let mut flipped = made.layers[0].blob.bytes.clone();
    flipped[20] ^= 1;
    let same_size_other_layer = layer(LAYER_GZIP, tar(&[file("evil", "")])).blob.bytes;
    let mut lying = made.clone();
    lying.layers[0].tar.push(0);
    let lying = image(MANIFEST, "amd64", &lying.layers);
    let foreign = image(MANIFEST, "s390x", &made.layers);
    let short = {
        let mut manifest: serde_json::Value = serde_json::from_slice(&made.manifest.bytes).unwrap();
        manifest["layers"].as_array_mut().unwrap().pop();
        let mut made = made.clone();
        made.manifest.bytes = manifest.to_string().into_bytes();
        made
    };
    for (case, all, expected) in [
        ("layer damaged", swap(format!("/v2/a/blobs/{first}"), flipped), "has the digest"),
        ("layer of another size", swap(format!("/v2/a/blobs/{first}"), same_size_other_layer), "expected"),
        ("config replaced", swap(format!("/v2/a/blobs/{}", made.config.digest()), b"{}".to_vec()), "has the digest"),
        ("diff id lies", with_manifest(&lying), "inflated` has the digest"),
        ("layers missing", with_manifest(&short), "its configuration has 2"),
        ("not for this host", with_manifest(&foreign), "is not made for"),
        ("manifest is a page", swap("/v2/a/manifests/latest".to_owned(), b"<html>".to_vec()), "is not valid"),
        ("manifest too large", swap("/v2/a/manifests/latest".to_owned(), vec![b' '; 5 << 20]), "is larger than"),
    ] {
        let server = HandMade::serve(move |asked| answer(&all, asked));
        let host = Host::new();
        let mut host = host;
        host.options.platform = image::Platform { os: "linux".into(), architecture: "amd64".into(), variant: None };
        let error = host.ensure(&reference(&server.address, "a:latest")).expect_err(case).to_string();
        assert!(error.contains(expected), "{case}: {error}");
        assert_eq!((host.leftovers(), host.layers()), (vec![], vec![]), "{case}");
        assert!(host.store.catalogue().unwrap().is_empty(), "{case}");
    }
}

#[test]
fn a_manifest_that_is_not_what_was_asked_for_by_digest_is_refused() {
    let (made, other) = (small(LAYER_GZIP), small(LAYER_ZSTD));
    let mut all = answers(&all_of(&made));
    all.insert(format!("/v2/a/manifests/{}", made.manifest.digest()), (MANIFEST, other.manifest.bytes.clone()));
    let server = HandMade::serve(move |asked| answer(&all, asked));
    let source = reference(&server.address, &format!("a@{}", made.manifest.digest()));
    let error = Host::new().ensure(&source).unwrap_err();
    assert!(matches!(error, ImageError::WrongDigest { .. }), "{error}");
}

#[test]
fn what_is_not_there_is_said_to_be_missing() {
    let server = HandMade::serve(|_| (404, vec![], vec![]));
    let error = Host::new().ensure(&reference(&server.address, "a:latest")).unwrap_err();
    assert_eq!(error.to_string(), format!("`a:latest` is not in the registry `{}`", server.address));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Host::new().ensure(&reference(&free.to_string(), "a:latest")).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot reach the registry `{free}`"));
    assert!(error.hint().unwrap().contains("spelt right"));
}

#[test]
fn a_busy_registry_is_asked_again() {
    let made = small(LAYER_GZIP);
    let all = answers(&all_of(&made));
    let refusals = Mutex::new(vec![500, 429, 503]);
    let server = HandMade::serve(move |asked| match refusals.lock().unwrap().pop() {
        Some(status) => (status, vec![("retry-after".to_owned(), "0".to_owned())], vec![]),
        None => answer(&all, asked),
    });
    assert_eq!(Host::new().ensure(&reference(&server.address, "a:latest")).unwrap().id, made.config.digest());
    assert_eq!(server.count("GET /v2/a/manifests/latest"), 4);
}

#[test]
fn tokens_are_fetched_and_credentials_stay_with_their_host() {
    let made = small(LAYER_GZIP);
    let all = Arc::new(answers(&all_of(&made)));
    let storage_answers = all.clone();
    let storage = HandMade::serve(move |asked| answer(&storage_answers, asked));
    let storage_address = storage.address.clone();
    let tokens = HandMade::serve(|asked| match asked.headers.get("authorization").map(String::as_str) {
        Some("Basic dXNlcjpzZWNyZXQ=") => (200, vec![], br#"{"token":"t0ken","expires_in":60}"#.to_vec()),
        _ => (401, vec![], br#"{"details":"incorrect username or password"}"#.to_vec()),
    });
    let realm =
        format!(r#"Bearer realm="http://{}/token?x=y",service="s p",scope="repository:a:pull,push""#, tokens.address);
    let server = HandMade::serve(move |asked| {
        if asked.headers.get("authorization").map(String::as_str) != Some("Bearer t0ken") {
            return (401, vec![("www-authenticate".to_owned(), realm.clone())], vec![]);
        }
        match asked.line.contains("/blobs/") {
            true => {
                let path = asked.line.split(' ').nth(1).unwrap();
                (307, vec![("location".to_owned(), format!("http://{storage_address}{path}"))], vec![])
            }
            false => answer(&all, asked),
        }
    });
    let mut host = Host::new();
    let source = reference(&server.address, "a:latest");
    let error = host.ensure(&source).unwrap_err().to_string();
    assert!(error.contains("incorrect username or password"), "{error}");
    host.options.credentials = vec![host.path("auth.json")];
    let entry = format!(r#"{{"auths":{{"{}":{{"username":"user","password":"secret"}}}}}}"#, server.address);
    fs::write(host.path("auth.json"), entry).unwrap();
    assert_eq!(host.ensure(&source).unwrap().id, made.config.digest());
    let asked = tokens.asked().pop().unwrap().line;
    assert!(asked.starts_with("GET /token?x=y&scope=repository:a:pull%2Cpush&service=s%20p "), "{asked}");
    assert_eq!(tokens.count("GET /token"), 2, "one token serves the whole pull");
    assert_eq!(storage.asked().len(), 3);
    assert!(storage.asked().iter().all(|asked| !asked.headers.contains_key("authorization")));
}

#[test]
fn whoever_a_registry_sends_us_to_gets_no_credentials_by_asking() {
    let made = small(LAYER_GZIP);
    let all = answers(&all_of(&made));
    let thief = HandMade::serve(|asked| match asked.line.contains("/token") {
        true => (200, vec![], br#"{"token":"x"}"#.to_vec()),
        false => {
            let realm = format!(r#"Bearer realm="http://{}/token""#, asked.headers["host"]);
            (401, vec![("www-authenticate".to_owned(), realm)], vec![])
        }
    });
    let address = thief.address.clone();
    let server = HandMade::serve(move |asked| match asked.line.contains("/blobs/") {
        true => (307, vec![("location".to_owned(), format!("http://{address}/blob"))], vec![]),
        false => answer(&all, asked),
    });
    let mut host = Host::new();
    host.options.credentials = vec![host.path("auth.json")];
    let entry = format!(r#"{{"auths":{{"{}":{{"username":"user","password":"secret"}}}}}}"#, server.address);
    fs::write(host.path("auth.json"), entry).unwrap();
    let error = host.ensure(&reference(&server.address, "a:latest")).unwrap_err();
    // It is not the registry that says no, and no login helps.
    assert!(error.to_string().contains(&format!("401 to `http://{}/blob`", thief.address)), "{error}");
    assert_eq!(error.hint(), None);
    assert_eq!(thief.count("GET /token"), 0);
    assert!(thief.asked().iter().all(|asked| !asked.headers.contains_key("authorization")));
}

/// Where a registry keeps its blobs, and where it gives its tokens, may be down while it is not.
#[test]
fn whoever_does_not_answer_is_named() {
    let made = small(LAYER_GZIP);
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for sends in [
        (307, vec![("location".to_owned(), format!("http://{dead}/blob"))], vec![]),
        (401, vec![("www-authenticate".to_owned(), format!(r#"Bearer realm="http://{dead}/token""#))], vec![]),
    ] {
        let all = answers(&all_of(&made));
        let server = HandMade::serve(move |asked| match asked.line.contains("/blobs/") {
            true => sends.clone(),
            false => answer(&all, asked),
        });
        let error = Host::new().ensure(&reference(&server.address, "a:latest")).unwrap_err();
        let told = format!("cannot reach `{dead}`, where the registry `{}` sends us", server.address);
        assert_eq!(error.to_string(), told);
        assert!(error.hint().unwrap().contains(&dead), "{:?}", error.hint());
    }
}

#[test]
fn tags_are_listed_page_by_page() {
    let server = HandMade::serve(|asked| {
        let (tags, next) = match asked.line.contains("last=b") {
            false => (r#"["a","b"]"#, Some("</v2/shop/web/tags/list?last=b>; rel=\"next\"")),
            true => (r#"["c"]"#, None),
        };
        let next = next.map(|next| ("link".to_owned(), next.to_owned())).into_iter().collect();
        (200, next, format!(r#"{{"name":"shop/web","tags":{tags}}}"#).into_bytes())
    });
    let tags = |name: &str| image::tags(&format!("{}/{name}", server.address).parse().unwrap(), &Host::new().options);
    assert_eq!(tags("shop/web").unwrap(), ["a", "b", "c"]);
    let endless = HandMade::serve(|asked| {
        let next = format!("<{}>; rel=next", asked.line.split(' ').nth(1).unwrap());
        (200, vec![("link".to_owned(), next)], br#"{"tags":null}"#.to_vec())
    });
    let error = image::tags(&format!("{}/a", endless.address).parse().unwrap(), &Host::new().options).unwrap_err();
    assert!(error.to_string().contains("it has no end"), "{error}");
}

#[test]
fn several_who_want_one_image_share_one_pull() {
    let made = small(LAYER_GZIP);
    let all = answers(&all_of(&made));
    let server = HandMade::serve(move |asked| answer(&all, asked));
    let host = Host::new();
    let source = reference(&server.address, "a:latest");
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..4).map(|_| scope.spawn(|| host.ensure(&source).unwrap())).collect();
        let images: Vec<_> = pulls.into_iter().map(|pull| pull.join().unwrap()).collect();
        assert!(images.iter().all(|image| *image == images[0]));
    });
    let blobs: usize =
        made.layers.iter().map(|layer| server.count(&format!("GET /v2/a/blobs/{}", layer.blob.digest()))).sum();
    assert_eq!(blobs, 2, "each layer once");
}

#[test]
fn two_processes_who_want_one_image_share_one_pull() {
    let made = small(LAYER_GZIP);
    let all = answers(&all_of(&made));
    let server = HandMade::serve(move |asked| answer(&all, asked));
    let host = Host::new();
    let pull = || {
        let mut command = crate::cli::evenkeel(&host);
        command.args(["--json", "image", "pull", &format!("{}/a", server.address)]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let both = [pull(), pull()];
    for child in both {
        let ran = crate::cli::Ran::of(&child.wait_with_output().unwrap()).ok();
        let pulled: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(pulled[0]["id"], made.config.digest().to_string());
    }
    for layer in &made.layers {
        assert_eq!(server.count(&format!("GET /v2/a/blobs/{}", layer.blob.digest())), 1, "each layer once");
    }
}

#[test]
fn images_with_a_common_base_transfer_it_once() {
    let base = layer(LAYER_GZIP, tar(&[file("base", &noise(100_000))]));
    let images: Vec<Made> = (0..3)
        .map(|n| image(MANIFEST, "amd64", &[base.clone(), layer(LAYER_GZIP, tar(&[file(&format!("own{n}"), "")]))]))
        .collect();
    let mut all = HashMap::new();
    for (n, made) in images.iter().enumerate() {
        all.extend(answers(&all_of(made)));
        all.insert(format!("/v2/a/manifests/{n}"), (MANIFEST, made.manifest.bytes.clone()));
    }
    let server = HandMade::serve(move |asked| answer(&all, asked));
    let host = Host::new();
    std::thread::scope(|scope| {
        for n in 0..3 {
            let source = reference(&server.address, &format!("a:{n}"));
            let host = &host;
            scope.spawn(move || host.ensure(&source).unwrap());
        }
    });
    assert_eq!(server.count(&format!("GET /v2/a/blobs/{}", base.blob.digest())), 1);
    assert_eq!((host.layers().len(), host.leftovers().len()), (4, 0));
}

#[test]
fn what_a_killed_pull_left_is_removed_by_the_next() {
    let made = small(LAYER_GZIP);
    let all = answers(&all_of(&made));
    let server = HandMade::serve(move |asked| answer(&all, asked));
    let host = Host::new();
    let left = host.path("state/layers/.tmp-1-1/tree/bin");
    fs::create_dir_all(&left).unwrap();
    fs::create_dir_all(host.path("state/images/sources")).unwrap();
    fs::write(host.path("state/images/sources/.tmp-1-2"), "{").unwrap();
    host.ensure(&reference(&server.address, "a:latest")).unwrap();
    assert_eq!(host.leftovers(), Vec::<std::path::PathBuf>::new());
    // Somebody removes a layer by hand: the image is not there any more, and comes back.
    let files = host.store.layer_path(&format!("sha256:{}", host.layers()[0]).parse().unwrap());
    if files.is_dir() { fs::remove_dir_all(&files) } else { fs::remove_file(&files) }.unwrap();
    let source = reference(&server.address, "a:latest");
    assert_eq!(host.store.find(&source).unwrap(), None);
    let image = host.ensure(&source).unwrap();
    assert!(image.layers.iter().all(|layer| host.store.layer_path(layer).exists()));
}

#[test]
fn a_directory_that_a_layer_only_implies_looks_as_below() {
    let base = tar(&[
        directory("tmp").mode(0o1777),
        directory("srv").mode(0o750).owner(7, 8),
        directory("srv/in").mode(0o711),
    ]);
    let middle = tar(&[file("tmp/x", ""), file("srv/in/y", "")]);
    let layers = [layer(LAYER, base), layer(LAYER, middle.clone()), layer(LAYER, tar(&[file("opt/z", "")]))];
    let made = image(MANIFEST, "amd64", &layers);
    // The same layer over another base needs no correction.
    let plain = image(MANIFEST, "amd64", &[layer(LAYER, tar(&[directory("tmp")])), layer(LAYER, middle)]);
    let mut all = answers(&all_of(&made));
    all.extend(answers(&all_of(&plain)));
    all.insert("/v2/a/manifests/made".to_owned(), (MANIFEST, made.manifest.bytes.clone()));
    let server = HandMade::serve(move |asked| answer(&all, asked));
    let host = Host::new();
    let image = host.ensure(&reference(&server.address, "a:made")).unwrap();
    assert_eq!(image.layers.len(), 4);
    let top = host.tree(&image.layers[3]);
    let look = |path: &str| fs::metadata(top.join(path)).map(|m| (m.mode() & 0o7777, m.uid(), m.gid())).ok();
    assert_eq!(look("tmp"), Some((0o1777, 0, 0)));
    assert_eq!((look("srv"), look("srv/in")), (Some((0o750, 7, 8)), Some((0o711, 0, 0))));
    assert_eq!((look("opt"), look("tmp/x")), (None, None));
    let plain_image = host.ensure(&reference(&server.address, "a:latest")).unwrap();
    assert_eq!(plain_image.layers.len(), 2);
    host.keep_only(&[&image]).unwrap();
    assert_eq!(host.layers().len(), 4);
}

#[test]
fn an_opaque_root_hides_all_that_is_below() {
    let layers = [
        layer(LAYER, tar(&[file("old", "")])),
        layer(LAYER, tar(&[file(".wh..wh..opq", ""), file("new", "")])),
        layer(LAYER, tar(&[file("top", "")])),
    ];
    let made = image(MANIFEST, "amd64", &layers);
    let all = answers(&all_of(&made));
    let server = HandMade::serve(move |asked| answer(&all, asked));
    let image = Host::new().ensure(&reference(&server.address, "a:latest")).unwrap();
    let visible: Vec<_> = layers[1..].iter().map(|layer| digest(&layer.tar)).collect();
    assert_eq!(image.layers, visible);
}
