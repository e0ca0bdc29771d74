//! `evenkeel login` and `logout`, against Debian's registry with a password.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::cli::*;
use crate::debian_registry::DebianRegistry;
use crate::made::*;
use crate::registry::small;
use crate::server::HandMade;
use crate::support::*;

fn login(host: &Host, registry: &str, password: &str) -> Ran {
    let mut command = evenkeel(host);
    run_with_input(command.args(["login", registry, "-u", "user", "--password-stdin"]), password)
}

fn pull(host: &Host, reference: &str) -> Ran {
    run(evenkeel(host).args(["image", "pull", reference]))
}

#[test]
fn credentials_are_kept_once_the_registry_has_taken_them() {
    let registry = DebianRegistry::with_password();
    let host = Host::new();
    let made = small(LAYER_GZIP);
    registry.push(&layout(&host.path("layout"), &made.manifest, &made.blobs()), "latest", "web:1", Some("user:secret"));
    let reference = format!("{}/web:1", registry.address);

    let refused = login(&host, &registry.address, "wrong\n");
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("does not take these credentials"), "{}", refused.stderr);
    assert!(!auth_file(&host).exists(), "nothing is kept that was not taken");
    let refused = pull(&host, &reference);
    assert!(refused.stderr.contains(&format!("evenkeel login {}", registry.address)), "{}", refused.stderr);

    fs::write(auth_file(&host), r#"{"auths":{"b.example":{"auth":"Yjoy"}},"psFormat":"x"}"#).unwrap();
    let taken = login(&host, &registry.address, "secret\n").ok();
    assert_eq!(
        taken.stdout,
        format!("logged in to {} as user; kept in {}\n", registry.address, auth_file(&host).display())
    );
    assert_eq!(fs::metadata(auth_file(&host)).unwrap().permissions().mode() & 0o777, 0o600);
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(auth_file(&host)).unwrap()).unwrap();
    assert_eq!((&kept["psFormat"], &kept["auths"]["b.example"]["auth"]), (&"x".into(), &"Yjoy".into()));
    let pulled = pull(&host, &reference).ok();
    assert!(pulled.stdout.contains(&made.manifest.digest().to_string()), "{}", pulled.stdout);
    assert_eq!(pulled.stderr.lines().filter(|line| line.ends_with(": done")).count(), 2, "{}", pulled.stderr);
    let skopeo = std::process::Command::new("skopeo")
        .args(["inspect", "--tls-verify=false", "--authfile"])
        .arg(auth_file(&host))
        .arg(format!("docker://{reference}"))
        .output()
        .unwrap();
    assert!(skopeo.status.success(), "others read it too: {}", String::from_utf8_lossy(&skopeo.stderr));

    run(evenkeel(&host).args(["logout", &registry.address])).ok();
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(auth_file(&host)).unwrap()).unwrap();
    assert_eq!(kept["auths"].as_object().unwrap().len(), 1);
    assert_eq!(pull(&host, &reference).code, Some(1));
    let again = run(evenkeel(&host).args(["logout", &registry.address])).ok();
    assert!(again.stdout.contains("has nothing for"), "{}", again.stdout);
}

#[test]
fn what_cannot_be_checked_is_not_kept() {
    let host = Host::new();
    let open = DebianRegistry::open();
    let unchecked = login(&host, &open.address, "secret");
    assert_eq!(unchecked.code, Some(1));
    assert!(unchecked.stderr.contains("asks nobody for credentials"), "{}", unchecked.stderr);
    let other = HandMade::serve(|_| (404, vec![], vec![]));
    assert!(login(&host, &other.address, "secret").stderr.contains("no registry at that address"));
    assert!(!auth_file(&host).exists());
    let empty = login(&host, &open.address, "\n");
    assert_eq!((empty.code, empty.stderr.contains("the password is empty")), (Some(64), true), "{}", empty.stderr);
    let nobody = run(evenkeel(&host).args(["login", &open.address]));
    assert_eq!((nobody.code, nobody.stderr.contains("-u NAME")), (Some(64), true), "{}", nobody.stderr);
    let wrong = run(evenkeel(&host).args(["login", "https://registry.example.org"]));
    assert_eq!(wrong.code, Some(64), "{}", wrong.stderr);
}

/// Where tokens are wanted, the one for a login is for nothing in particular.
#[test]
fn a_password_among_the_arguments_is_refused_with_the_reason() {
    let host = Host::new();
    for option in [["-p", "s3cret"], ["--password", "s3cret"]] {
        let refused = run(evenkeel(&host).args(["login", "-u", "me"]).args(option).arg("registry.example.org"));
        assert_eq!(refused.code, Some(64), "{}", refused.stderr);
        assert!(
            refused.stderr.contains("--password-stdin") && !refused.stderr.contains("s3cret"),
            "{}",
            refused.stderr
        );
    }
}

#[test]
fn a_server_of_tokens_decides_for_its_registry() {
    let tokens = HandMade::serve(|asked| match asked.headers.get("authorization").map(String::as_str) {
        // user:secret
        Some("Basic dXNlcjpzZWNyZXQ=") => (200, vec![], br#"{"token":"t"}"#.to_vec()),
        _ => (401, vec![], br#"{"details":"incorrect username or password"}"#.to_vec()),
    });
    let realm = format!(r#"Bearer realm="http://{}/token",service="here""#, tokens.address);
    let registry = HandMade::serve(move |asked| match asked.headers.get("authorization").map(String::as_str) {
        Some("Bearer t") => (200, vec![], b"{}".to_vec()),
        _ => (401, vec![("www-authenticate".to_owned(), realm.clone())], vec![]),
    });
    let host = Host::new();
    let refused = login(&host, &registry.address, "wrong");
    assert!(refused.stderr.contains("incorrect username or password"), "{}", refused.stderr);
    assert!(!auth_file(&host).exists());
    login(&host, &registry.address, "secret").ok();
    assert!(
        tokens.asked().iter().all(|asked| asked.line == "GET /token?service=here HTTP/1.1"),
        "{:?}",
        tokens.asked()
    );
}

/// `pass` and its like: a program that keeps what it is told on standard input.
#[test]
fn helpers_keep_what_the_file_does_not() {
    let registry = DebianRegistry::with_password();
    let host = Host::new();
    let made = small(LAYER_GZIP);
    registry.push(&layout(&host.path("layout"), &made.manifest, &made.blobs()), "latest", "web:1", Some("user:secret"));
    let kept = host.path("kept");
    program(
        &host.path("bin/docker-credential-test"),
        &format!(
            "input=$(cat)\ncase $1 in\nstore) echo \"$input\" > {0};;\n\
             get) if [ -e {0} ]; then cat {0}; else echo 'credentials not found in native keychain'; exit 1; fi;;\n\
             erase) rm {0};;\nesac\n",
            kept.display()
        ),
    );
    fs::write(auth_file(&host), r#"{"credsStore":"test"}"#).unwrap();
    let path = format!("{}:{}", host.path("bin").display(), std::env::var("PATH").unwrap());
    let with_helper = || {
        let mut command = evenkeel(&host);
        command.env("PATH", &path);
        command
    };
    let reference = format!("{}/web:1", registry.address);
    let none = run(with_helper().args(["image", "pull", &reference]));
    assert!(none.stderr.contains("it asks for credentials"), "{}", none.stderr);
    assert!(!none.stderr.contains("has nothing for"), "a helper that knows nobody is no trouble: {}", none.stderr);
    let arguments = ["login", &registry.address, "-u", "user", "--password-stdin"];
    let taken = run_with_input(with_helper().args(arguments), "secret").ok();
    assert!(taken.stdout.contains("kept in docker-credential-test"), "{}", taken.stdout);
    let entry: serde_json::Value = serde_json::from_slice(&fs::read(&kept).unwrap()).unwrap();
    assert_eq!(entry, serde_json::json!({ "ServerURL": registry.address, "Username": "user", "Secret": "secret" }));
    assert!(!fs::read_to_string(auth_file(&host)).unwrap().contains("auth\""));
    run(with_helper().args(["image", "pull", &reference])).ok();
    run(with_helper().args(["logout", &registry.address])).ok();
    assert!(!kept.exists());
}

/// An agent that a helper starts may hold the helper's output open for as long as it lives.
#[test]
fn a_helper_that_leaves_something_behind_holds_nobody_up() {
    let host = Host::new();
    let linger = "sleep 600 &\necho '{\"Username\":\"user\",\"Secret\":\"secret\"}'\necho $! > \"$HELPER_CHILD\"\n";
    program(&host.path("bin/docker-credential-test"), linger);
    fs::write(auth_file(&host), r#"{"credsStore":"test"}"#).unwrap();
    let child = host.path("child");
    let path = format!("{}:{}", host.path("bin").display(), std::env::var("PATH").unwrap());
    let begun = std::time::Instant::now();
    // Nobody listens there: the credentials are asked for first.
    let mut command = evenkeel(&host);
    command.args(["image", "pull", "127.0.0.1:1/web:1"]).env("PATH", &path).env("HELPER_CHILD", &child);
    let said = run(&mut command);
    assert!(said.stderr.contains("cannot reach the registry"), "its answer is used: {}", said.stderr);
    assert!(begun.elapsed() < std::time::Duration::from_secs(30));
    let sleeping: i32 = fs::read_to_string(child).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(sleeping), nix::sys::signal::Signal::SIGKILL).unwrap();
}
