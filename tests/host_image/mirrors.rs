//! Mirrors and blocked registries of the host file.

use std::net::TcpListener;

use evenkeel::engine::image::ImageError;
use evenkeel::model::host_config::RegistryConfig;

use crate::cli::*;
use crate::made::*;
use crate::registry::{all_of, answer, answers, reference, small};
use crate::server::*;
use crate::support::*;

fn serving(made: &Made, path: &'static str) -> HandMade {
    let all = answers(&all_of(made));
    HandMade::serve(move |asked| answer(&all, &Asked { line: asked.line.replacen(path, "/v2/a/", 1), ..asked.clone() }))
}

fn with(mirrors: &[&str]) -> RegistryConfig {
    RegistryConfig { mirrors: mirrors.iter().map(|mirror| mirror.parse().unwrap()).collect(), ..Default::default() }
}

#[test]
fn mirrors_are_asked_in_their_order_and_the_registry_last() {
    let made = small(LAYER_GZIP);
    let origin = serving(&made, "/v2/a/");
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let empty = HandMade::serve(|_| (404, vec![], vec![]));
    let full = serving(&made, "/v2/cache/hub/a/");
    let unused = serving(&made, "/v2/a/");
    let host = Host::new();
    let below = format!("{}/cache/hub", full.address);
    host.options
        .registries
        .replace([(origin.address.parse().unwrap(), with(&[&dead, &empty.address, &below, &unused.address]))].into());
    let source = reference(&origin.address, "a:latest");
    assert_eq!(host.ensure(&source).unwrap().id, made.config.digest());
    assert_eq!((origin.asked().len(), unused.asked().len()), (0, 0));
    assert_eq!(empty.asked().len(), 1, "it is asked once and passed over");
    assert_eq!(full.count("GET /v2/cache/hub/a/blobs/"), 3);
}

/// One that is down must not cost every pull what a registry without another behind it is worth.
#[test]
fn a_mirror_is_not_waited_for() {
    let made = small(LAYER_GZIP);
    let origin = serving(&made, "/v2/a/");
    let busy = HandMade::serve(|_| (503, vec![], vec![]));
    let host = Host::new();
    host.options.registries.replace([(origin.address.parse().unwrap(), with(&[&busy.address]))].into());
    host.ensure(&reference(&origin.address, "a:latest")).unwrap();
    assert_eq!(busy.asked().len(), 2, "an idle connection may just have ended: it is asked once more, and no more");
    host.options.registries.replace([(origin.address.parse().unwrap(), RegistryConfig::default())].into());
    let alone = host.ensure(&reference(&busy.address, "a:latest")).unwrap_err();
    assert!(matches!(alone, ImageError::Refused { status: 503, .. }), "{alone}");
    assert_eq!(busy.asked().len(), 2 + 5);
}

#[test]
fn what_a_mirror_has_not_comes_from_the_next() {
    let made = small(LAYER_GZIP);
    let origin = serving(&made, "/v2/a/");
    let all = answers(&all_of(&made));
    let partial = HandMade::serve(move |asked| match asked.line.contains("/blobs/") {
        true => (404, vec![], vec![]),
        false => answer(&all, asked),
    });
    let host = Host::new();
    host.options.registries.replace([(origin.address.parse().unwrap(), with(&[&partial.address]))].into());
    host.ensure(&reference(&origin.address, "a:latest")).unwrap();
    assert_eq!((partial.count("GET /v2/a/manifests/"), origin.count("GET /v2/a/manifests/")), (1, 0));
    assert_eq!(origin.count("GET /v2/a/blobs/"), 3);
}

#[test]
fn who_has_failed_is_named_with_the_reason() {
    let (mirror, origin) = (HandMade::serve(|_| (403, vec![], vec![])), HandMade::serve(|_| (404, vec![], vec![])));
    let host = Host::new();
    host.options.registries.replace([(origin.address.parse().unwrap(), with(&[&mirror.address]))].into());
    let error = host.ensure(&reference(&origin.address, "a:latest")).unwrap_err();
    assert!(error.to_string().contains(&format!("`{}`: the registry", mirror.address)), "{error}");
    assert!(matches!(error, ImageError::Mirrors { source, .. } if matches!(*source, ImageError::NotFound { .. })));
}

#[test]
fn what_leads_nowhere_is_followed_for_a_while_and_asked_once() {
    let server = HandMade::serve(|asked| {
        (302, vec![("location".to_owned(), format!("http://{}/on", asked.headers["host"]))], vec![])
    });
    let error = Host::new().ensure(&reference(&server.address, "a:latest")).unwrap_err();
    assert!(matches!(error, ImageError::Redirect { .. }), "{error:?}");
    assert_eq!(server.asked().len(), 6);
}

#[test]
fn a_blocked_registry_is_never_asked() {
    let made = small(LAYER_GZIP);
    let (origin, mirror) = (serving(&made, "/v2/a/"), serving(&made, "/v2/a/"));
    let host = Host::new();
    let table = format!("[registries.\"{}\"]\nblocked = true\n", origin.address);
    std::fs::write(host_file(&host), &table).unwrap();
    let pull = || run(evenkeel(&host).args(["image", "pull", &format!("{}/a", origin.address)]));
    let refused = pull();
    assert!(refused.stderr.contains("the host file blocks the registry"), "{}", refused.stderr);
    std::fs::write(host_file(&host), format!("{table}mirrors = [\"{}\"]\n", mirror.address)).unwrap();
    pull().ok();
    assert_eq!(origin.asked().len(), 0);
    std::fs::write(host_file(&host), format!("{table}mirors = []\n")).unwrap();
    let wrong = pull();
    assert!(
        wrong.stderr.contains("did you mean `mirrors`?") && wrong.stderr.contains("host.toml:3:1"),
        "{}",
        wrong.stderr
    );
}
