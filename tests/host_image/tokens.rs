//! Tokens: both flows, how long one is used, and that nothing secret is ever told.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::cli::*;
use crate::made::*;
use crate::registry::{all_of, answer, answers, reference, small};
use crate::server::*;
use crate::support::*;

/// A server of tokens, and a registry that takes those which it gave and nobody has revoked.
struct Guarded {
    tokens: HandMade,
    registry: HandMade,
    good: Arc<Mutex<Vec<String>>>,
}

impl Guarded {
    fn new(made: &Made, lets_in: fn(&Asked) -> bool, life: u64) -> Guarded {
        let good: Arc<Mutex<Vec<String>>> = Arc::default();
        let (given, known, count) = (good.clone(), good.clone(), AtomicUsize::new(0));
        let tokens = HandMade::serve(move |asked| {
            if !lets_in(asked) {
                return (401, vec![], br#"{"details":"you are nobody"}"#.to_vec());
            }
            let token = format!("t0ken-{}", count.fetch_add(1, Ordering::SeqCst));
            given.lock().unwrap().push(format!("Bearer {token}"));
            (200, vec![], format!(r#"{{"access_token":"{token}","expires_in":{life}}}"#).into_bytes())
        });
        let realm =
            format!(r#"Bearer realm="http://{}/token" , service="a, b",scope="repository:a:pull""#, tokens.address);
        let all: HashMap<String, (&'static str, Vec<u8>)> = answers(&all_of(made));
        let registry = HandMade::serve(move |asked| {
            let shown = asked.headers.get("authorization").cloned().unwrap_or_default();
            match known.lock().unwrap().contains(&shown) {
                true => answer(&all, asked),
                false => (401, vec![("WWW-Authenticate".into(), format!("Negotiate, {realm}"))], vec![]),
            }
        });
        Guarded { tokens, registry, good }
    }
}

#[test]
fn an_identity_is_exchanged_by_post() {
    let made = small(LAYER_GZIP);
    let guarded = Guarded::new(
        &made,
        |asked| {
            let form = String::from_utf8_lossy(&asked.body).into_owned();
            asked.line.starts_with("POST /token ")
                && asked.headers["content-type"] == "application/x-www-form-urlencoded"
                && form
                    == "grant_type=refresh_token&refresh_token=1d%2Bentity&client_id=evenkeel&\
                        scope=repository:a:pull&service=a%2C%20b"
        },
        300,
    );
    let mut host = Host::new();
    host.options.credentials = vec![auth_file(&host)];
    let entry = format!(r#"{{"auths":{{"{}":{{"identitytoken":"1d+entity"}}}}}}"#, guarded.registry.address);
    fs::write(auth_file(&host), entry).unwrap();
    let pulled = host.ensure(&reference(&guarded.registry.address, "a:latest"));
    assert_eq!(pulled.unwrap().id, made.config.digest(), "{:?}", guarded.tokens.asked());
    assert_eq!(guarded.tokens.asked().len(), 1);
}

#[test]
fn a_token_serves_everything_until_it_ends_or_is_refused() {
    let made = small(LAYER_GZIP);
    let guarded = Guarded::new(&made, |_| true, 3600);
    let host = Host::new();
    let source = reference(&guarded.registry.address, "a:latest");
    host.ensure(&source).unwrap();
    let moved =
        || evenkeel::engine::image::observe(&host.store, &source, evenkeel::model::image::Pull::Always, &host.options);
    assert_eq!(moved().unwrap().moved, None);
    assert_eq!(guarded.tokens.asked().len(), 1, "a pull and a look later: one token");
    // A registry that restarts with another key knows its own tokens no longer.
    guarded.good.lock().unwrap().clear();
    assert_eq!(moved().unwrap().moved, None);
    assert_eq!(guarded.tokens.asked().len(), 2);

    let short = Guarded::new(&made, |_| true, 5);
    let source = reference(&short.registry.address, "a:latest");
    host.ensure(&source).unwrap();
    let refused = short.registry.asked().iter().filter(|asked| !asked.headers.contains_key("authorization")).count();
    assert_eq!(refused, 1, "what is about to end is renewed before it is refused");
    assert_eq!(short.tokens.asked().len(), 2, "manifest and configuration; the layers are here");
}

/// The registry repeats what it was sent, in an error document; our own words come at the loudest level.
#[test]
fn nothing_secret_is_told() {
    let made = small(LAYER_GZIP);
    let all = answers(&all_of(&made));
    let storage = HandMade::serve(|_| (403, vec![], b"no".to_vec()));
    let storage_address = storage.address.clone();
    let tokens = HandMade::serve(|_| (200, vec![], br#"{"token":"t0k3n-s3cret"}"#.to_vec()));
    let realm = format!(r#"Bearer realm="http://{}/token""#, tokens.address);
    let server = HandMade::serve(move |asked| {
        let shown = asked.headers.get("authorization").cloned().unwrap_or_default();
        if !shown.starts_with("Bearer") {
            return (401, vec![("www-authenticate".to_owned(), realm.clone())], vec![]);
        }
        if asked.line.contains("/manifests/often") {
            let headers = vec![("retry-after".to_owned(), "999".to_owned())];
            return (429, headers, format!("too often, {shown}").into_bytes());
        }
        if asked.line.contains("/manifests/echo") {
            return (400, vec![], format!(r#"{{"errors":[{{"message":"no pa55word here, {shown}"}}]}}"#).into_bytes());
        }
        match asked.line.contains("/blobs/") {
            true => {
                let signed = format!("http://{storage_address}/blob?signature=s1gned");
                (307, vec![("location".to_owned(), signed)], vec![])
            }
            false => answer(&all, asked),
        }
    });
    let host = Host::new();
    let entry = format!(r#"{{"auths":{{"{}":{{"username":"user","password":"pa55word"}}}}}}"#, server.address);
    fs::write(auth_file(&host), entry).unwrap();
    for (tag, shape) in
        [("latest", None), ("latest", Some("--json")), ("echo", None), ("echo", Some("--json")), ("often", None)]
    {
        let mut command = evenkeel(&host);
        command.args(["--log-level", "trace"]).args(shape);
        let ran = run(command.args(["image", "pull", &format!("{}/a:{tag}", server.address)]));
        assert_eq!(ran.code, Some(1));
        let said = ran.stdout + &ran.stderr;
        // "user:pa55word" in Base64.
        for secret in ["pa55word", "dXNlcjpwYTU1d29yZA", "t0k3n-s3cret", "s1gned"] {
            assert!(!said.contains(secret), "{tag}: {said}");
        }
    }
    assert!(storage.asked().iter().all(|asked| !asked.headers.contains_key("authorization")));
    let mut grep = std::process::Command::new("grep");
    let found = grep.args(["-r", "-l", "-e", "pa55word", "-e", "t0k3n"]).arg(host.path("state")).output().unwrap();
    assert_eq!((found.status.code(), found.stdout), (Some(1), vec![]));
}

/// Docker Hub says it with every answer.
#[test]
fn that_a_limit_is_near_is_told_once() {
    let made = small(LAYER_GZIP);
    let all = answers(&all_of(&made));
    let server = HandMade::serve(move |asked| {
        let (status, mut headers, body) = answer(&all, asked);
        headers.push(("ratelimit-limit".to_owned(), "100;w=21600".to_owned()));
        headers.push(("ratelimit-remaining".to_owned(), "7;w=21600".to_owned()));
        (status, headers, body)
    });
    let pulled = run(evenkeel(&Host::new()).args(["image", "pull", &format!("{}/a", server.address)]));
    assert_eq!(pulled.stderr.matches("7 of 100 pulls in 6h are left").count(), 1, "{}", pulled.stderr);
}

#[test]
fn limits_are_told_and_long_pauses_are_not_waited_for() {
    let server = HandMade::serve(|_| {
        let headers =
            [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "0;w=21600"), ("retry-after", "3600")];
        (429, headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(), vec![])
    });
    let error = Host::new().ensure(&reference(&server.address, "a:latest")).unwrap_err();
    let told = error.to_string();
    assert!(told.contains("0 of 100 pulls in 6h are left; it can be asked again in 1h"), "{told}");
    assert!(error.hint().unwrap().contains(&format!("evenkeel login {}", server.address)));
    assert_eq!(server.asked().len(), 1);
}
