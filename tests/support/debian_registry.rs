//! Debian's `docker-registry` on loopback, in the network namespace of the thread that starts it.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use tempfile::TempDir;

/// Debian's `docker-registry` with its data in a directory of its own. Ended with the test.
pub struct DebianRegistry {
    child: Child,
    pub address: String,
    data: TempDir,
}

/// `user:secret`, with bcrypt, the only form that the registry reads.
const HTPASSWD: &str = "user:$2b$04$oBLxe2GtuJ6ApyjX4zEIi.a0cghHYSb.UoxqOL8wHPNyi0X5CImSW\n";

impl DebianRegistry {
    pub fn open() -> DebianRegistry {
        DebianRegistry::start("127.0.0.1:0", "")
    }

    pub fn with_password() -> DebianRegistry {
        DebianRegistry::start("127.0.0.1:0", "auth: { htpasswd: { realm: test, path: PASSWORDS } }\n")
    }

    /// With TLS, on this address.
    pub fn with_certificate(address: IpAddr, certificate: &Path, key: &Path) -> DebianRegistry {
        let tls = format!("  tls: {{ certificate: {}, key: {} }}\n", certificate.display(), key.display());
        DebianRegistry::start(&SocketAddr::new(address, 0).to_string(), &tls)
    }

    /// With TLS on loopback, for those whose certificate this authority has signed.
    pub fn for_known_clients(certificate: &Path, key: &Path, authority: &Path) -> DebianRegistry {
        let (certificate, key, authority) = (certificate.display(), key.display(), authority.display());
        let tls = format!("  tls: {{ certificate: {certificate}, key: {key}, clientcas: [{authority}] }}\n");
        DebianRegistry::start("127.0.0.1:0", &tls)
    }

    /// `further` follows the `http` section of the configuration.
    fn start(bind: &str, further: &str) -> DebianRegistry {
        let data = tempfile::tempdir().unwrap();
        let passwords = data.path().join("htpasswd");
        fs::write(&passwords, HTPASSWD).unwrap();
        // Chosen by the kernel, and free again: nobody else on loopback takes one in between, as they are given in turn.
        let address = TcpListener::bind(bind).unwrap().local_addr().unwrap().to_string();
        let config = format!(
            "version: 0.1\nlog: {{ accesslog: {{ disabled: true }}, level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp:\n  addr: \"{address}\"\n{}",
            data.path().join("data").display(),
            further.replace("PASSWORDS", passwords.to_str().unwrap())
        );
        let path = data.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let child =
            Command::new("docker-registry").arg("serve").arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let registry = DebianRegistry { child: child.expect("Debian's docker-registry is installed"), address, data };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&registry.address).is_err() {
            assert!(Instant::now() < deadline, "the registry does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// As after a clean-up of what has no tag: this manifest is not there any more.
    pub fn forget(&self, repository: &str, digest: &str) {
        let repositories = self.data.path().join("data/docker/registry/v2/repositories");
        let revisions = repositories.join(repository).join("_manifests/revisions/sha256");
        fs::remove_dir_all(revisions.join(digest.strip_prefix("sha256:").unwrap())).unwrap();
    }

    /// Ends it: from now on nobody answers.
    pub fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Pushes a tag of an OCI layout with skopeo.
    pub fn push(&self, layout: &Path, tag: &str, name: &str, credentials: Option<&str>) {
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "--all", "--preserve-digests", "--dest-tls-verify=false"]);
        if let Some(credentials) = credentials {
            command.args(["--dest-creds", credentials]);
        }
        let from = format!("oci:{}:{tag}", layout.display());
        let copied =
            command.arg(from).arg(format!("docker://{}/{name}", self.address)).output().expect("skopeo is installed");
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    }
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
