//! TLS: registries that this host trusts, those that it does not, and those that want to know who comes.
//!
//! Loopback needs no TLS by its own name, but by any other that /etc/hosts has for it: the host's, or `ip6-localhost`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use evenkeel::engine::image::error::Insecurity;
use evenkeel::engine::image::{self, ImageError, Options, Silent, Store};
use evenkeel::model::host_config::{ClientCertificate, RegistryConfig};
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

/// An authority in a directory of its own.
struct Authority {
    directory: PathBuf,
    certificate: PathBuf,
}

fn openssl(directory: &Path, arguments: &[&str]) {
    let made = Command::new("openssl").args(arguments).current_dir(directory).output().expect("openssl is installed");
    assert!(made.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
}

const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

impl Authority {
    fn new(host: &Host) -> Authority {
        let directory = host.path("authority");
        std::fs::create_dir_all(&directory).unwrap();
        let own = ["req", "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"];
        openssl(&directory, &[&own[..], &KEY].concat());
        Authority { certificate: directory.join("ca.pem"), directory }
    }

    /// A certificate and its key, good for so many days from now on.
    fn sign(&self, name: &str, alternative: &str, days: i32) -> (PathBuf, PathBuf) {
        let file = |end: &str| format!("{name}.{end}");
        let (key, request, signed) = (file("key"), file("csr"), file("pem"));
        let subject = format!("/CN={name}");
        openssl(&self.directory, &[&["req", "-subj", &subject, "-keyout", &key, "-out", &request][..], &KEY].concat());
        std::fs::write(self.directory.join(file("ext")), format!("subjectAltName={alternative}\n")).unwrap();
        let (days, extensions) = (days.to_string(), file("ext"));
        let ca = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        let sign = ["x509", "-req", "-in", &request, "-days", &days, "-extfile", &extensions, "-out", &signed];
        openssl(&self.directory, &[&sign[..], &ca].concat());
        (self.directory.join(signed), self.directory.join(key))
    }
}

fn pull(host: &Host, address: &str, config: RegistryConfig) -> Result<evenkeel::model::image::Image, ImageError> {
    host.options.registries.replace([(address.parse().unwrap(), config)].into());
    host.ensure(&ImageSource::Reference(format!("{address}/web:1")))
}

fn why(error: &ImageError) -> Insecurity {
    match error {
        ImageError::Insecure { insecurity, .. } => *insecurity,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_authority_of_the_host_file_is_trusted_for_its_registry() {
    let host = Host::new();
    let authority = Authority::new(&host);
    let (certificate, key) = authority.sign("server", "IP:127.0.0.1", 2);
    let registry = DebianRegistry::with_certificate("127.0.0.1".parse().unwrap(), &certificate, &key);
    let image = image(MANIFEST, "amd64", &[layer(LAYER_GZIP, tar(&[file("a", "")]))]);
    registry.push(&layout(&host.path("layout"), &image.manifest, &image.blobs()), "latest", "web:1", None);
    let trusting = RegistryConfig { ca: Some(authority.certificate.clone()), ..Default::default() };

    let secure = RegistryConfig { plain_http: Some(false), ..Default::default() };
    let error = pull(&host, &registry.address, secure).unwrap_err();
    assert_eq!(why(&error), Insecurity::UnknownAuthority, "{error}");
    assert!(error.hint().unwrap().contains("`ca = "), "{:?}", error.hint());
    assert_eq!(pull(&host, &registry.address, trusting.clone()).unwrap().id, image.config.digest());
    // The same server under a name that its certificate has not.
    let port = registry.address.rsplit(':').next().unwrap();
    let error = pull(&host, &format!("localhost:{port}"), trusting.clone()).unwrap_err();
    assert_eq!(why(&error), Insecurity::OtherName, "{error}");

    let (certificate, key) = authority.sign("late", "IP:127.0.0.1", -1);
    let expired = DebianRegistry::with_certificate("127.0.0.1".parse().unwrap(), &certificate, &key);
    let error = pull(&host, &expired.address, trusting.clone()).unwrap_err();
    assert_eq!(why(&error), Insecurity::Expired, "{error}");
    assert!(error.hint().unwrap().contains("renew"), "{:?}", error.hint());

    let plain = DebianRegistry::open();
    let error = pull(&host, &plain.address, trusting).unwrap_err();
    assert_eq!(why(&error), Insecurity::NoTls, "{error}");
    assert!(error.hint().unwrap().contains("plain_http = true"), "{:?}", error.hint());
}

#[test]
fn a_registry_that_wants_to_know_who_comes_is_told() {
    let host = Host::new();
    let authority = Authority::new(&host);
    let (certificate, key) = authority.sign("server", "IP:127.0.0.1", 2);
    let registry = DebianRegistry::for_known_clients(&certificate, &key, &authority.certificate);
    let (certificate, key) = authority.sign("client", "DNS:client", 2);
    let stranger = RegistryConfig { ca: Some(authority.certificate.clone()), ..Default::default() };
    let known = RegistryConfig { client: Some(ClientCertificate { certificate, key }), ..stranger.clone() };
    let error = pull(&host, &registry.address, stranger).unwrap_err();
    assert_eq!(why(&error), Insecurity::ClientCertificate, "{error:?}");
    assert!(error.hint().unwrap().contains("`client_certificate` and `client_key`"), "{:?}", error.hint());
    // Nothing was pushed there: whoever hears that was let in.
    let error = pull(&host, &registry.address, known.clone()).unwrap_err();
    assert!(matches!(error, ImageError::NotFound { .. }), "{error:?}");

    let (_, other_key) = authority.sign("other", "DNS:other", 2);
    let client = known.client.as_ref().map(|client| ClientCertificate { key: other_key.clone(), ..client.clone() });
    let error = pull(&host, &registry.address, RegistryConfig { client, ..known }).unwrap_err();
    let told = format!("`{}` is not valid: it is not the key of `client_certificate`", other_key.display());
    assert_eq!(error.to_string(), told);
}
