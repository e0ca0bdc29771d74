//! Kernel settings of the calling thread's network namespace: files below /proc/sys/net (sysctl(5)).
//!
//! The kernel shows each thread the settings of its own namespace, so a thread that entered one needs nothing else.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::NetworkError;

/// The value of `key` (`ipv4/ip_forward`), or `None` where the kernel or the link lacks it.
pub(super) fn read(key: &str) -> Option<String> {
    fs::read_to_string(path(key)).ok().map(|text| text.trim_end().to_owned())
}

/// Writes only what is different: a write of `forwarding` makes the kernel walk all links, even one that changes
/// nothing.
pub(super) fn ensure(key: &str, wanted: &str) -> Result<(), NetworkError> {
    if read(key).as_deref() == Some(wanted) {
        return Ok(());
    }
    write(key, wanted).map_err(|source| NetworkError::Sysctl { key: format!("net/{key}"), source })
}

pub(super) fn write(key: &str, value: &str) -> io::Result<()> {
    fs::write(path(key), value)
}

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(key)
}

/// Lets IPv6 packets pass from link to link. The kernel then takes itself for a router and stops to listen to router
/// advertisements, by which many hosts got their own default route; 2 means "listen although forwarding"
/// (ip-sysctl.rst, accept_ra), so it is set first wherever 1 was.
pub(super) fn forward_ipv6() -> Result<(), NetworkError> {
    const ALL: &str = "ipv6/conf/all/forwarding";
    if read(ALL).as_deref() == Some("1") {
        return Ok(());
    }
    for link in fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten() {
        let key = format!("ipv6/conf/{}/accept_ra", link.file_name().to_string_lossy());
        if read(&key).as_deref() == Some("1") {
            ensure(&key, "2")?;
        }
    }
    ensure(ALL, "1")
}
