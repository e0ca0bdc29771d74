//! TLS: a registry whose certificate this host trusts, and one whose it does not.
//!
//! Loopback needs no TLS by its own name, but by any other that /etc/hosts has for it: the host's, or `ip6-localhost`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use evenkeel::engine::image::{self, ImageError, Options, Silent, Store};
use evenkeel::model::image::ImageSource;

use crate::debian_registry::DebianRegistry;
use crate::made::*;
use crate::support::*;

/// An address of loopback and a name of it other than `localhost`.
fn other_name() -> (IpAddr, String) {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap();
    let lines = hosts.lines().filter_map(|line| line.split('#').next()?.trim().split_once(char::is_whitespace));
    let named = lines.filter_map(|(address, names)| Some((address.parse::<IpAddr>().ok()?, names)));
    let mut found = named.filter(|(address, _)| address.is_loopback()).flat_map(|(address, names)| {
        names.split_whitespace().filter(|name| *name != "localhost").map(move |name| (address, name.to_owned()))
    });
    found.next().expect("/etc/hosts has a name for loopback besides `localhost`")
}

/// Where the process that trusts finds its state root and its source.
const PLACE: &str = "EVENKEEL_TEST_SECURE_PULL";
const SOURCE: &str = "EVENKEEL_TEST_SECURE_SOURCE";

/// Not a test of its own: [`certificates_decide`] runs it with another set of trusted certificates.
#[test]
fn pull_for_the_one_who_trusts() {
    let (Some(place), Ok(source)) = (std::env::var_os(PLACE).map(PathBuf::from), std::env::var(SOURCE)) else { return };
    let options = Options::new(PathBuf::from(env!("CARGO_BIN_EXE_evenkeel")));
    image::ensure(&Store::new(&place), &ImageSource::Reference(source), &options, &Silent).unwrap();
}

#[test]
fn certificates_decide() {
    let (address, name) = other_name();
    let host = Host::new();
    let (certificate, key) = (host.path("certificate.pem"), host.path("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=test", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", &format!("subjectAltName=DNS:{name},IP:{address}"), "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let registry = DebianRegistry::with_certificate(address, &certificate, &key);
    let image = image(MANIFEST, "amd64", &[layer(LAYER_GZIP, tar(&[file("a", "")]))]);
    registry.push(&layout(&host.path("layout"), &image.manifest, &image.blobs()), "latest", "web:1", None);
    let port = registry.address.rsplit(':').next().unwrap();
    let source = format!("{name}:{port}/web:1");

    let error = host.ensure(&ImageSource::Reference(source.clone())).unwrap_err();
    assert!(matches!(error, ImageError::Insecure { .. }), "{error}");
    assert!(error.hint().unwrap().contains("authority"), "{error}");

    let trusting = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "secure::pull_for_the_one_who_trusts"])
        .env(PLACE, host.path("state"))
        .env(SOURCE, &source)
        .env("SSL_CERT_FILE", &certificate)
        .output()
        .unwrap();
    assert!(trusting.status.success(), "{}", String::from_utf8_lossy(&trusting.stdout));
    let pulled = host.store.find(&ImageSource::Reference(source)).unwrap().unwrap();
    assert_eq!(pulled.id, image.config.digest());
}
