//! Debian's `docker-registry` on loopback.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Result;

pub struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    /// Starts one with its data in `directory`.
    pub fn start(directory: &Path) -> Result<Registry> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let (data, config) = (directory.join("registry"), directory.join("registry.yml"));
        let text = format!(
            "version: 0.1\nlog: {{ accesslog: {{ disabled: true }}, level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: {address} }}\n",
            data.display()
        );
        fs::write(&config, text)?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("docker-registry: {error}"))?;
        let registry = Registry { child, address };
        for _ in 0..500 {
            if TcpStream::connect(&registry.address).is_ok() {
                return Ok(registry);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("the registry does not listen".into())
    }

    pub fn reference(&self, tag: &str) -> String {
        format!("{}/bench:{tag}", self.address)
    }

    pub fn push(&self, layout: &Path, tag: &str) -> Result<()> {
        let status = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "-q", "--preserve-digests", "--dest-tls-verify=false"])
            .arg(format!("oci:{}:latest", layout.display()))
            .arg(format!("docker://{}", self.reference(tag)))
            .status()?;
        if status.success() { Ok(()) } else { Err(format!("skopeo: {status}").into()) }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
